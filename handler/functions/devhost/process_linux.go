package devhost

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel kill the handler when this process dies without closing the host.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
