package bench_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signup-sync/handler/bench"
)

var cold = flag.Bool("cold", false, "build the program with an empty cache, some minutes")

// TestColdBuild measures what a build takes of which nothing is there yet but the sources of all modules.
func TestColdBuild(t *testing.T) {
	if !*cold {
		t.Skip("for 'make bench', with -cold")
	}
	dir := t.TempDir()
	graph := filepath.Join(dir, "graph.json")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-debug-actiongraph", graph, "-o", filepath.Join(dir, "handler"), "../../handler")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOCACHE="+filepath.Join(dir, "cache"))
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(begun)
	actions := readActions(t, graph)
	var all, sdk time.Duration
	byPackage := map[string]time.Duration{}
	for _, a := range actions {
		if a.Mode != "build" {
			continue
		}
		all += a.cpu()
		if strings.HasPrefix(a.Package, "github.com/microsoftgraph/") {
			sdk += a.cpu()
			byPackage[strings.TrimPrefix(a.Package, "github.com/microsoftgraph/msgraph-sdk-go/")] += a.cpu()
		}
	}
	part := bench.Part{
		Name: "build", Title: "A build from nothing",
		Command: "make bench PARTS=build",
		Figures: []bench.Figure{
			{Name: "time", Value: took.Seconds(), Unit: "s"},
			{Name: "compilers' CPU", Value: all.Seconds(), Unit: "s"},
			{Name: "share of the Graph SDK", Value: sdk.Seconds() / all.Seconds()},
		},
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		part.Figures = append(part.Figures, bench.Figure{Name: "largest process", Value: float64(usage.Maxrss) * 1024 / 1e6, Unit: "MB"})
	}
	var text strings.Builder
	fmt.Fprintf(&text, "`go build` with an empty cache, the modules' sources being there: %.0f s on this machine, as busy as it was, %.0f s of compilers' CPU, and %.0f %% of it for the Graph SDK. The largest compiler, which sets how much memory a machine needs that builds this, is that of the models:\n\n| package of msgraph-sdk-go | CPU, s |\n|---|---|\n",
		took.Seconds(), all.Seconds(), 100*sdk.Seconds()/all.Seconds())
	names := slices.SortedFunc(func(yield func(string) bool) {
		for name := range byPackage {
			if !yield(name) {
				return
			}
		}
	}, func(a, b string) int { return int(byPackage[b] - byPackage[a]) })
	for _, name := range names {
		fmt.Fprintf(&text, "| %s | %.1f |\n", name, byPackage[name].Seconds())
	}
	part.Text = text.String()
	t.Logf("%+v\n%s", part.Figures, part.Text)
	if err := part.Write(); err != nil {
		t.Fatal(err)
	}
}

// action is one step of a build.
type action struct {
	Mode, Package   string
	CmdUser, CmdSys time.Duration
}

func (a action) cpu() time.Duration { return a.CmdUser + a.CmdSys }

func readActions(t *testing.T, path string) (actions []action) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &actions)
	}
	if err != nil {
		t.Fatal(err)
	}
	return actions
}
