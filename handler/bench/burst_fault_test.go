package bench_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var burstFaults = flag.Bool("burst-faults", false, "build the burst with each deliberate fault, and see that its gate fails")

// burstMutants are faults that cost time, or that ask for more than a system allows.
var burstMutants = []struct{ name, file, old, new string }{
	{"one batch at a time", "pipeline/work.go", "batches    = 8 ", "batches    = 1 "},
	{"two batches at a time", "pipeline/work.go", "batches    = 8 ", "batches    = 2 "},
	{"a call takes a third of a burst", "pipeline/gate.go", "g.rate.ReserveN(now, 1)", "g.rate.ReserveN(now, max(1, g.rate.Burst()/3))"},
	{"a slot is kept after its call", "pipeline/gate.go", "		g.endProbe(probe)\n		<-g.slots\n		return opened", "		g.endProbe(probe)\n		_ = g.clock.Sleep(ctx, time.Second)\n		<-g.slots\n		return opened"},
	{"no destination has a rate", "pipeline/gate.go", "	if perSecond > 0 {", "	if perSecond > 1000 {"},
	{"calls at the same time are not counted", "pipeline/gate.go", "make(chan struct{}, max(concurrency, 1))", "make(chan struct{}, max(concurrency, 1000))"},
}

// TestBurstFaultsAreFound plays the gate with each fault.
func TestBurstFaultsAreFound(t *testing.T) {
	complaint := regexp.MustCompile(`(?m)^ +burst_test.go:\d+: (.*(?:to be|throttled))$`)
	for _, m := range burstMutants {
		text, err := os.ReadFile("../" + m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte(m.old)); n != 1 {
			t.Errorf("%s: what it replaces is %d times in %s, want once", m.name, n, m.file)
		}
		if !*burstFaults {
			continue
		}
		dir := t.TempDir()
		changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
		file, err := filepath.Abs("../" + m.file)
		if err != nil {
			t.Fatal(err)
		}
		edits, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
		if err != nil {
			t.Fatal(err)
		}
		for path, body := range map[string][]byte{changed: bytes.Replace(text, []byte(m.old), []byte(m.new), 1), overlay: edits} {
			if err := os.WriteFile(path, body, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		test := exec.Command("go", "test", "-count", "1", "-vet=off", "-overlay", overlay, "-run", "^TestBurst$", ".")
		test.Env = append(os.Environ(), "CGO_ENABLED=0", "BENCH_DIR=")
		out, err := test.CombinedOutput()
		var found []string
		for _, hit := range complaint.FindAllSubmatch(out, -1) {
			found = append(found, string(hit[1]))
		}
		if err == nil || len(found) == 0 {
			t.Errorf("%s: not found (%v)\n%s", m.name, err, out)
			continue
		}
		t.Logf("%s: %d complaints: %s", m.name, len(found), strings.Join(found[:min(3, len(found))], "; "))
	}
}
