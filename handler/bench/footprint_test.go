package bench_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/bench"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/sim"
)

var footprint = flag.Bool("footprint", false, "measure the program's start and memory, some minutes")

const (
	maxIdle = 40.0 // MB
	maxPeak = 80.0
	// What an idle program may have of the machine's memory beside its file's pages, with a wide margin: 6.1 and 4.7 MB were
	// measured, and 9.4 and 7.1 when less was given back.
	maxKeptHeap = 8.0
	maxKeptRest = 6.0
)

// builtBefore is the program that 'make test' has built.
func builtBefore(t *testing.T) (binary string) {
	t.Helper()
	binary, err := filepath.Abs("../../bin/handler")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if os.IsNotExist(err) && os.Getenv("CI") != "true" {
		t.Skip("bin/handler is not built: 'make test' does that")
	}
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// The program as it is built has its bounds of memory while it reads 20 pages of sign-ups and works as fast as it can.
func TestMemoryIsBounded(t *testing.T) {
	p := openProcess(t, builtBefore(t), 100, sim.ThrottleOff)
	p.backlog.size = 20_000
	p.backlog.signUp(p.Tenant, 2000)
	p.start()
	p.begin()
	p.await(func() bool { return p.backlog.pages.Load() > 20 && p.backlog.patches.Load() >= 500 })
	if m := p.memory(); m.most > maxPeak {
		t.Errorf("got %.0f MB, want at most %.0f", m.most, maxPeak)
	}
}

// An idle program has given back what an invocation took: the buffers that lie in pools, SQLite's pages, and what decoding
// leaves behind.
func TestIdleMemoryIsGivenBack(t *testing.T) {
	p := openProcess(t, builtBefore(t), 100, sim.ThrottleOff)
	p.backlog.size = 1000
	p.backlog.signUp(p.Tenant, 1000)
	p.start()
	if s := p.run(); s.Users < 500 {
		t.Fatalf("%d of 1000 were worked, want at least half, so that there is something to give back", s.Users)
	}
	if m := p.memory(); m.heap > maxKeptHeap || m.rest > maxKeptRest {
		t.Errorf("got %.1f MB of Go's heap and %.1f MB beside it, want at most %.0f and %.0f", m.heap, m.rest, maxKeptHeap, maxKeptRest)
	}
}

// TestFootprint measures the start, an idle program, and one with backlogs of three sizes.
func TestFootprint(t *testing.T) {
	if !*footprint {
		t.Skip("for 'make bench', with -footprint")
	}
	binary := built(t)
	part := bench.Part{
		Name: "footprint", Title: "Start and memory",
		Command: "make bench PARTS=footprint",
	}
	add := func(name string, value float64, unit, goal string) {
		part.Figures = append(part.Figures, bench.Figure{Name: name, Value: value, Unit: unit, Goal: goal})
		t.Logf("%s: %.1f %s %s", name, value, unit, goal)
	}
	goal := func(most float64) string { return fmt.Sprintf("<= %.0f", most) }
	var idles, peaks strings.Builder
	idle := func(when string, m memory) {
		fmt.Fprintf(&idles, "| %s | %.1f | %.1f | %.1f | %.1f |\n", when, m.now, m.file, m.heap, m.rest)
	}
	start, fresh := measureStart(t, binary)
	add("start/first answer, median of 11", start.Seconds()*1000, "ms", "")
	add("start/memory", fresh.now, "MB", "")
	idle("a second after the start", fresh)
	m := measureIdle(t, binary)
	add("idle, ledger in Table Storage", m.now, "MB", goal(maxIdle))
	add("idle, ledger in Table Storage/not the file's", m.own(), "MB", "")
	idle("ledger in Table Storage", m)
	plot := bench.Plot{Name: "memory", Title: "Memory and backlog", X: "sign-ups waiting", Y: "MB", LogX: true,
		Series: []bench.Series{{Name: "most"}, {Name: "idle"}}}
	for _, size := range []int{1000, 10_000, 100_000} {
		b := measureBacklog(t, binary, size)
		idle(fmt.Sprintf("ledger in SQLite, after %d", size), b.idle)
		fmt.Fprintf(&peaks, "| %d | %.1f | %.1f | %.1f | %.0f | %.1f | %d |\n", size, b.most(), b.peak.file, b.peak.heap, b.alive, b.peak.rest, b.worked)
		add(fmt.Sprintf("idle, ledger in SQLite, after %d", size), b.idle.now, "MB", goal(maxIdle))
		add(fmt.Sprintf("idle, ledger in SQLite, after %d/not the file's", size), b.idle.own(), "MB", "")
		add(fmt.Sprintf("most, with %d waiting", size), b.most(), "MB", goal(maxPeak))
		for i, value := range []float64{b.most(), b.idle.now} {
			plot.Series[i].Points = append(plot.Series[i].Points, [2]float64{float64(size), value})
		}
	}
	part.Text, part.Plots = footprintText(start, idles.String(), peaks.String()), []bench.Plot{plot}
	t.Log(part.Text)
	if err := part.Write(); err != nil {
		t.Fatal(err)
	}
}

func footprintText(start time.Duration, idles, peaks string) string {
	return fmt.Sprintf("**Start.** The program answers %.0f ms after its process was started, the median of 11.\n\n", start.Seconds()*1000) +
		"**Idle** is a minute after the last run: with the ledger in Table Storage, where it is in Azure, after 200 people were worked, and with it in a SQLite file, " +
		"so that the emulator's speed is no limit, after a backlog. Memory is the process's resident set, by what it is of, in MB. The pages of the program's own file are those " +
		"that it has touched since its start and what the system maps around each, 64 KB; they are in the system's cache of files, and it can take them back. Go's heap is " +
		"what Go has of it, with the goroutines' stacks. The rest is Go's own tables and SQLite's memory; what it has more than after the start is mostly SQLite's.\n\n" +
		"| idle | all | the program's file | Go's heap | the rest |\n|---|---|---|---|---|\n" + idles +
		"\n**With a backlog** the services are simulated, by HTTPS. The clock runs 20 times as fast, " +
		"and so do all limits. The log has so many sign-ups in pages of 999, all of the same minute: a run or two find them, and one more works " +
		"on. Shown is the process when it had most. Alive is the most that a collection of Go's has found in use: all else of the heap is garbage, or free, until " +
		"Go's soft limit has it collected.\n\n" +
		"| sign-ups waiting | most | the program's file | Go's heap | of it alive | the rest | worked |\n|---|---|---|---|---|---|---|\n" + peaks +
		"\nA backlog is in the ledger, of which a run holds 480 rows. What grows with it is the memory of who was seen, by this process and in this run: 20 bytes and a " +
		"place in a map each. At 75,000 all are forgotten, so that it grows no further.\n"
}

func measureStart(t *testing.T, binary string) (median time.Duration, m memory) {
	p := openProcess(t, binary, 1, sim.ThrottleDocumented)
	var took []time.Duration
	for range 11 {
		took = append(took, p.start())
		time.Sleep(time.Second)
		m = p.memory()
		p.stop()
	}
	slices.Sort(took)
	return took[len(took)/2], m
}

// measureIdle has the ledger where it is in Azure, in Table Storage, so that SQLite has no memory: a minute after 200 people
// were worked, and after another run.
func measureIdle(t *testing.T, binary string) memory {
	p := openProcess(t, binary, 20, sim.ThrottleDocumented)
	p.settings["LEDGER"], p.settings["AzureWebJobsStorage"] = "tables", ledgertest.StartAzurite(t)
	p.backlog.size = 200
	p.backlog.signUp(p.Tenant, 200)
	p.start()
	defer p.stop()
	if s := p.run(); s.Users < 200 {
		t.Errorf("200 sign-ups: %d were worked", s.Users)
	}
	p.run()
	time.Sleep(time.Minute)
	return p.memory()
}

// burden is what a backlog came to.
type burden struct {
	idle   memory
	peak   memory  // when it had most, as far as it was looked at
	alive  float64 // MB of Go's heap, at most
	worked int
}

// most is what it ever had. The system's own count may be some pages behind.
func (b burden) most() float64 { return max(b.idle.most, b.peak.now) }

// measureBacklog lets the program run until it has found everybody, and once more.
func measureBacklog(t *testing.T, binary string, size int) (b burden) {
	const known, most = 12_000, 5 // the simulation is slow with more people
	p := openProcess(t, binary, 20, sim.ThrottleDocumented)
	p.settings["AzureFunctionsJobHost__functionTimeout"] = "00:01:30" // so that a run takes a minute at most
	p.settings["GODEBUG"] = "gctrace=1"
	p.backlog.size = size
	p.backlog.signUp(p.Tenant, min(size, known))
	p.start()
	defer p.stop()
	peak := p.watch()
	for runs := 1; ; runs++ {
		s := p.run()
		b.worked += s.Users
		if s.Detectors[0].Events >= size {
			break
		}
		if runs == most {
			t.Errorf("%d sign-ups: after %d runs %d are seen", size, runs, s.Detectors[0].Events)
			break
		}
	}
	if b.worked += p.run().Users; b.worked == 0 {
		t.Errorf("%d sign-ups: nobody was worked, of whom %d are in the tenant", size, min(size, known))
	}
	b.peak = peak()
	time.Sleep(time.Minute)
	b.idle = p.memory()
	p.stop()
	b.alive = p.alive()
	return b
}
