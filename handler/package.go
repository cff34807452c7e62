package main

import (
	"archive/zip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

type packageCommand struct {
	App     string `default:"." type:"path" help:"The app's folder."`
	Binary  string `type:"path" help:"The program, built for linux/amd64 without cgo; without it, it is built, and its licences are written."`
	Notices string `default:"dist/THIRD-PARTY-NOTICES.txt" type:"path" help:"The licences of what is in it."`
	Out     string `default:"dist/signup-sync.zip" type:"path" help:"The zip to make."`
}

// packageFiles is the whole deployed app, but for the program and the licences of what is in it.
var packageFiles = []string{"host.json", "signup-sync.yaml", "SyncNewUsers/function.json", "TakeCensus/function.json", "Status/function.json"}

// packageTime is every entry's time, so that the same input makes the same bytes.
var packageTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Run makes the zip: the same bytes each time, and the program executable whichever system makes it. The entry of the
// program is named exactly as host.json names it, since the deployment tools compare the two. The configuration is the one that
// all commands work with, so that what the doctor has judged is what is deployed.
func (c packageCommand) Run(ctx context.Context, s system) error {
	if c.Binary == "" {
		c.Binary = filepath.Join(filepath.Dir(c.Out), "handler")
		if err := c.build(ctx, s); err != nil {
			return err
		}
		if err := (licencesCommand{Binary: c.Binary, Out: c.Notices}).Run(s); err != nil {
			return err
		}
	}
	if err := checkBinary(c.Binary); err != nil {
		return refusal{fmt.Errorf("package %s: %w", c.Binary, err)}
	}
	if err := os.MkdirAll(filepath.Dir(c.Out), 0o755); err != nil {
		return err
	}
	out, err := os.Create(c.Out)
	if err != nil {
		return err
	}
	defer out.Close()
	z := zip.NewWriter(out)
	for _, name := range packageFiles {
		path := filepath.Join(c.App, name)
		if own := s.getenv("SIGNUP_SYNC_CONFIG"); own != "" && name == defaultConfig {
			path = own
		}
		if err := addToZip(z, name, path, 0o644); err != nil {
			return err
		}
	}
	if err := addToZip(z, "THIRD-PARTY-NOTICES.txt", c.Notices, 0o644); err != nil {
		return err
	}
	if err := addToZip(z, "bin/handler", c.Binary, 0o755); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", c.Out, err)
	}
	fmt.Fprintln(s.stdout, c.Out)
	return nil
}

// build builds the program for the platform, on whichever system this is. No path and no state of the repository goes into
// it, and none of the builder's own settings, so that the same source and the same Go make the same bytes everywhere, which run
// on every processor that the platform may have.
func (c packageCommand) build(ctx context.Context, s system) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", c.Binary, "./handler")
	cmd.Dir = c.App
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED=0", "GOEXPERIMENT=", "GOFLAGS=")
	cmd.Stdout, cmd.Stderr = s.stderr, s.stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the program: %w", err)
	}
	return nil
}

// checkBinary refuses what the platform could not start: it would be silent about it.
func checkBinary(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("want a Linux program: %w", err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("it is for %s, the platform is linux/amd64: build with GOOS=linux GOARCH=amd64", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is linked dynamically: build with CGO_ENABLED=0")
		}
	}
	return nil
}

func addToZip(z *zip.Writer, name, path string, mode os.FileMode) error {
	in, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	defer in.Close()
	h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: packageTime}
	h.SetMode(mode) // also says "made by Unix", without which the mode does not count
	w, err := z.CreateHeader(h)
	if err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	if _, err := io.Copy(w, in); err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	return nil
}
