package main

import (
	"archive/zip"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPackage(t *testing.T) {
	built := builtBinary(t)
	if err := checkBinary(built); err != nil {
		t.Errorf("the program as it is deployed: %v", err)
	}
	program := smallProgram(t, built)
	out, notices := filepath.Join(t.TempDir(), "app.zip"), filepath.Join(t.TempDir(), "notices.txt")
	if err := os.WriteFile(notices, []byte("licences"), 0o644); err != nil {
		t.Fatal(err)
	}
	pack := func() []byte {
		var stderr bytes.Buffer
		code := run(t.Context(), system{args: []string{"package", "--app", "..", "--binary", program, "--notices", notices, "--out", out}, getenv: os.Getenv, stdout: io.Discard, stderr: &stderr})
		if code != exitOK {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data := pack()
	if !bytes.Equal(data, pack()) {
		t.Error("the same input made different bytes")
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var host struct {
		CustomHandler struct {
			Description struct{ DefaultExecutablePath string }
		}
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		want := os.FileMode(0o644)
		if f.Name == "bin/handler" {
			want = 0o755
		}
		if f.Mode() != want || f.CreatorVersion>>8 != 3 {
			t.Errorf("%s: got mode %v, made by %d; want %v, made by Unix", f.Name, f.Mode(), f.CreatorVersion>>8, want)
		}
		if f.Name == "host.json" {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := json.NewDecoder(r).Decode(&host); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := []string{"host.json", "signup-sync.yaml", "SyncNewUsers/function.json", "TakeCensus/function.json", "THIRD-PARTY-NOTICES.txt", "bin/handler"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if got := host.CustomHandler.Description.DefaultExecutablePath; !slices.Contains(names, got) {
		t.Errorf("host.json starts %q, which is no entry of the zip", got)
	}
	if err := checkBinary("package_test.go"); err == nil {
		t.Error("a text file was taken for the program")
	}
}

// smallProgram has the header of a program for the platform and the first megabyte of the real one, of which all would take
// the race detector most of a minute to compress twice.
func smallProgram(t *testing.T, built string) string {
	t.Helper()
	from, err := os.Open(built)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	header := elf.Header64{Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: 64}
	var program bytes.Buffer
	if err := binary.Write(&program, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(&program, from, 1<<20); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "handler")
	if err := os.WriteFile(path, program.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
