//go:build darwin || linux

package main

import (
	"os"
	"syscall"
)

// lockFile takes a file for this process, until it is closed or the process ends; an error means that another has it.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
