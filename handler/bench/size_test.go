package bench_test

import (
	"bytes"
	"cmp"
	"debug/elf"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"signup-sync/handler/bench"
)

var size = flag.Bool("size", false, "build the program for Linux, and measure what each dependency adds to it")

// binaryFigure is of the stripped program, with all kinds of destinations. Processors differ by a few percent.
func binaryFigure(size int) bench.Figure {
	return bench.Figure{Name: "binary", Value: float64(size) / 1e6, Unit: "MB", Goal: "<= 60", Steady: runtime.GOARCH == "amd64"}
}

// The linker keeps every exported method of what can be reached from an interface, since reflection may ask for it by name:
// one model of the Graph SDK keeps all of them, 24 MB, and a client of Stripe's all of its services, 6.5 MB. A service decodes
// into Stripe's own types, about which encoding/json then keeps 2.5 MB of memory.
func TestBinaryIsSmall(t *testing.T) {
	program, err := os.ReadFile("../../bin/handler")
	if os.IsNotExist(err) && os.Getenv("CI") != "true" {
		t.Skip("bin/handler is not built: 'make test' does that")
	}
	if err != nil {
		t.Fatal(err)
	}
	bench.Hold(t, bench.Part{Name: "size", Figures: []bench.Figure{binaryFigure(len(program))}})
	if !bytes.Contains(program, []byte("msgraph-sdk-go/users.(*UserItemRequestBuilder).ToPatchRequestInformation\x00")) {
		t.Error("the names of functions are not found in bin/handler: what is sought in it?")
	}
	for what, pattern := range map[string]string{
		"a model of the Graph SDK": `msgraph-sdk-go/models\.(New\w+|Create\w+FromDiscriminatorValue)\x00`,
		"a service of Stripe's":    `stripe-go/v85\.v1\w+Service\.\w+\x00`,
	} {
		if found := regexp.MustCompile(pattern).Find(program); found != nil {
			t.Errorf("%s is linked, and all others with it: %s", what, found)
		}
	}
}

func TestSize(t *testing.T) {
	if !*size {
		t.Skip("for 'make bench', with -size")
	}
	dir := t.TempDir()
	stripped, whole := filepath.Join(dir, "stripped"), filepath.Join(dir, "whole")
	goRun(t, "build", "-ldflags", "-s -w", "-o", stripped, "../../handler")
	goRun(t, "build", "-o", whole, "../../handler")
	info, err := os.Stat(stripped)
	if err != nil {
		t.Fatal(err)
	}
	shares := attribute(t, whole, float64(info.Size()))
	p := bench.Part{
		Name: "size", Title: "The binary, and what each dependency adds",
		Command: "make bench PARTS=size",
		Figures: []bench.Figure{binaryFigure(int(info.Size()))},
	}
	var text strings.Builder
	text.WriteString("The program for Linux on amd64, static and stripped, with all kinds of destinations. A dependency's size is that of its symbols, " +
		"and by its share of the code a share of what belongs to nobody (tables of functions and types, texts).\n\n| dependency | MB | of it code, MB |\n|---|---|---|\n")
	rest := share{name: "all others, each below 0.2 MB"}
	for _, s := range shares {
		if s.bytes < 0.2e6 {
			rest.bytes, rest.code = rest.bytes+s.bytes, rest.code+s.code
			continue
		}
		fmt.Fprintf(&text, "| %s | %.1f | %.1f |\n", s.name, s.bytes/1e6, s.code/1e6)
		p.Figures = append(p.Figures, bench.Figure{Name: s.name, Value: s.bytes / 1e6, Unit: "MB"})
	}
	fmt.Fprintf(&text, "| %s | %.1f | %.1f |\n", rest.name, rest.bytes/1e6, rest.code/1e6)
	p.Text = text.String()
	t.Logf("%.1f MB\n%s", float64(info.Size())/1e6, p.Text)
	if err := p.Write(); err != nil {
		t.Fatal(err)
	}
}

// goRun runs the go command as the Makefile does, for the machine that the program is deployed to.
func goRun(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath", "GOOS=linux", "GOARCH=amd64")
	out, err := cmd.Output()
	if err != nil {
		if failed, ok := err.(*exec.ExitError); ok {
			err = fmt.Errorf("%w\n%s", err, failed.Stderr)
		}
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// share is what one module has of the binary.
type share struct {
	name        string
	bytes, code float64
}

// attribute divides a stripped binary's bytes by the symbols of the same program with its symbol table, largest first.
func attribute(t *testing.T, whole string, total float64) []share {
	t.Helper()
	file, err := elf.Open(whole)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]string{} // by package
	for line := range strings.Lines(goRun(t, "list", "-deps", "-f", "{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}", "../../handler")) {
		pkg, module, _ := strings.Cut(strings.TrimSpace(line), " ")
		modules[pkg] = moduleName(pkg, module)
	}
	by := map[string]*share{}
	var all share
	for _, s := range symbols {
		if int(s.Section) >= len(file.Sections) || file.Sections[s.Section].Type == elf.SHT_NOBITS {
			continue // memory that is not in the file
		}
		module, known := modules[packageOf(s.Name)]
		if !known {
			continue
		}
		if by[module] == nil {
			by[module] = &share{name: module}
		}
		n := float64(s.Size)
		by[module].bytes, all.bytes = by[module].bytes+n, all.bytes+n
		if file.Sections[s.Section].Name == ".text" {
			by[module].code, all.code = by[module].code+n, all.code+n
		}
	}
	for _, s := range by {
		s.bytes += (total - all.bytes) * s.code / all.code
	}
	return slices.SortedFunc(func(yield func(share) bool) {
		for s := range maps.Values(by) {
			if !yield(*s) {
				return
			}
		}
	}, func(a, b share) int { return cmp.Compare(b.bytes, a.bytes) })
}

// moduleName is a row of the table.
func moduleName(pkg, module string) string {
	switch {
	case module == "":
		return "Go's standard library and runtime"
	case module != "signup-sync":
		return module
	case strings.HasPrefix(pkg, "signup-sync/handler/sim"), strings.HasPrefix(pkg, "signup-sync/handler/functions/devhost"):
		return "this program's simulated systems, for `handler local`"
	}
	return "this program"
}

// packageOf is the import path that a symbol's name begins with: "a.b/c" of "a.b/c.(*T).M", of "type:.eq.a.b/c.T" and of
// "go:itab.*a.b/c.T,io.Reader".
func packageOf(symbol string) string {
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "go:itab.", "*"} {
		symbol = strings.TrimPrefix(symbol, prefix)
	}
	if i := strings.IndexAny(symbol, "([,"); i >= 0 {
		symbol = symbol[:i]
	}
	slash := strings.LastIndex(symbol, "/") + 1
	last, _, _ := strings.Cut(symbol[slash:], ".")
	if pkg := symbol[:slash] + strings.ReplaceAll(last, "%2e", "."); pkg != "main" {
		return pkg
	}
	return "signup-sync/handler"
}
