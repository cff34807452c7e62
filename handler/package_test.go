package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPackage(t *testing.T) {
	binary := builtBinary(t)
	out := filepath.Join(t.TempDir(), "app.zip")
	pack := func() []byte {
		var stderr bytes.Buffer
		code := run(t.Context(), system{args: []string{"package", "--app", "..", "--binary", binary, "--out", out}, getenv: os.Getenv, stdout: io.Discard, stderr: &stderr})
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
	if want := []string{"host.json", "signup-sync.yaml", "SyncNewUsers/function.json", "bin/handler"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if got := host.CustomHandler.Description.DefaultExecutablePath; !slices.Contains(names, got) {
		t.Errorf("host.json starts %q, which is no entry of the zip", got)
	}
	if err := checkBinary("package_test.go"); err == nil {
		t.Error("a text file was taken for the program")
	}
}
