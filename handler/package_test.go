package main

import (
	"archive/zip"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
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
	if want := []string{"host.json", "signup-sync.yaml", "SyncNewUsers/function.json", "TakeCensus/function.json", "Status/function.json", "THIRD-PARTY-NOTICES.txt", "bin/handler"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	if got := host.CustomHandler.Description.DefaultExecutablePath; !slices.Contains(names, got) {
		t.Errorf("host.json starts %q, which is no entry of the zip", got)
	}
	if err := checkBinary("package_test.go"); err == nil {
		t.Error("a text file was taken for the program")
	}
}

// Who runs this has a configuration of their own beside the project's example, which the tests are about.
func TestThePackageHasTheConfigurationThatIsNamed(t *testing.T) {
	program, dir := smallProgram(t, builtBinary(t)), t.TempDir()
	own, out := filepath.Join(dir, "live.yaml"), filepath.Join(dir, "app.zip")
	if err := os.WriteFile(own, []byte("destinations: []\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pack := func(config string) (code int, stderr string) {
		var text bytes.Buffer
		getenv := func(name string) string { return map[string]string{"SIGNUP_SYNC_CONFIG": config}[name] }
		code = run(t.Context(), system{args: []string{"package", "--app", "..", "--binary", program, "--notices", own, "--out", out}, getenv: getenv, stdout: io.Discard, stderr: &text})
		return code, text.String()
	}
	if code, stderr := pack(own); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	unzip(t, out, dir)
	if got, err := os.ReadFile(filepath.Join(dir, "signup-sync.yaml")); err != nil || string(got) != "destinations: []\n" {
		t.Errorf("it has %q, %v", got, err)
	}
	if code, stderr := pack(filepath.Join(dir, "absent.yaml")); code == exitOK || !strings.Contains(stderr, "absent.yaml") {
		t.Errorf("exit code %d without the file: %s", code, stderr)
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

// The zip is what runs: unpacked as the platform does it, it brings people where they belong.
func TestThePackageWorks(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the package is for linux/amd64")
	}
	built, root := builtBinary(t), t.TempDir()
	out, notices := filepath.Join(t.TempDir(), "app.zip"), filepath.Join(t.TempDir(), "notices.txt")
	if err := os.WriteFile(notices, []byte("licences"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.CommandContext(t.Context(), built, "package", "--app", "..", "--binary", built, "--notices", notices, "--out", out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text) // by the built program, since the race detector takes a minute to compress it
	}
	unzip(t, out, root)
	clock := signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: 100} // the logs of a day are read within their limit
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, clock, sim.External)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.server.Close)
	world.Tenant = sim.NewTenant(sim.TenantOptions{ID: simTenant, Clock: clock, Seed: 1, InstantAudit: true, InstantReplicas: true, Throttle: sim.ThrottleOff, Attributes: []string{"stripeCustomerId", "welcomeId"}})
	for _, p := range sim.Crowd(3, 1) {
		world.Tenant.SignUp(p)
	}
	settings := world.settings()
	maps.Copy(settings, map[string]string{"LEDGER": "file:" + filepath.Join(t.TempDir(), "ledger.db"), "SYNC_SCHEDULE": "0 * * * * *", "CENSUS_SCHEDULE": "0 */15 * * * *",
		"SIGNUP_SYNC_CLOCK": fmt.Sprintf("%s,%g", clock.Start.Format(time.RFC3339), clock.Rate)})
	var mu sync.Mutex
	var lines []string
	host, err := devhost.Open(devhost.Options{Root: root, Settings: settings, Clock: clock, Log: func(l devhost.Line) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, l.Text)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	if _, err := host.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Fire(t.Context(), "SyncNewUsers", ""); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(lines, "\n"))
	}
	mu.Lock()
	defer mu.Unlock()
	if got := len(world.Stripe.Customers()); got == 0 {
		t.Errorf("nobody was brought anywhere:\n%s", strings.Join(lines, "\n"))
	}
}

// unzip unpacks a zip with the modes of its entries.
func unzip(t *testing.T, name, into string) {
	t.Helper()
	z, err := zip.OpenReader(name)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		path := filepath.Join(into, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, f.Mode())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
