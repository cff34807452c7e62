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
)

// The program as it is built has its bounds of memory while it reads 20 pages of sign-ups and works as fast as it can.
func TestMemoryIsBounded(t *testing.T) {
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
	p := openProcess(t, binary, 100, sim.ThrottleOff)
	p.backlog.size = 20_000
	p.backlog.signUp(p.Tenant, 2000)
	p.start()
	p.begin()
	p.await(func() bool { return p.backlog.pages.Load() > 20 && p.backlog.patches.Load() >= 500 })
	if m := p.memory(); m.most > maxPeak {
		t.Errorf("got %.0f MB, want at most %.0f", m.most, maxPeak)
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
	start, fresh := measureStart(t, binary)
	add("start/first answer, median of 11", start.Seconds()*1000, "ms", "")
	add("start/memory", fresh.now, "MB", "")
	m := measureIdle(t, binary)
	add("idle, ledger in Table Storage", m.now, "MB", fmt.Sprintf("<= %.0f", maxIdle))
	add("idle, ledger in Table Storage/not the file's", m.own, "MB", "")
	var text strings.Builder
	fmt.Fprintf(&text, "**Start and idle.** The program answers %.0f ms after its process was started, the median of 11, and has %.0f MB a second later. With its ledger in Table Storage, "+
		"where it is in Azure, it has %.1f MB a minute after 200 people were worked. Memory is the process's resident set; the pages of the program's own file are in it, which "+
		"the system can take back: without them it is %.1f MB.\n\n", start.Seconds()*1000, fresh.now, m.now, m.own)
	text.WriteString("**With a backlog** the ledger is in a SQLite file, so that the emulator's speed is no limit. The services are simulated, by HTTPS. The clock runs 20 times as fast, " +
		"and so do all limits. The log has so many sign-ups in pages of 999, all of the same minute: a run or two find them, and one more works " +
		"on. Idle is a minute after that.\n\n" +
		"| sign-ups waiting | most, MB | idle, MB | of it not the file's, MB | worked |\n|---|---|---|---|---|\n")
	plot := bench.Plot{Name: "memory", Title: "Memory and backlog", X: "sign-ups waiting", Y: "MB", LogX: true,
		Series: []bench.Series{{Name: "most"}, {Name: "idle"}}}
	for _, size := range []int{1000, 10_000, 100_000} {
		m, worked := measureBacklog(t, binary, size)
		fmt.Fprintf(&text, "| %d | %.0f | %.0f | %.0f | %d |\n", size, m.most, m.now, m.own, worked)
		add(fmt.Sprintf("idle, ledger in SQLite, after %d", size), m.now, "MB", fmt.Sprintf("<= %.0f", maxIdle))
		add(fmt.Sprintf("most, with %d waiting", size), m.most, "MB", fmt.Sprintf("<= %.0f", maxPeak))
		for i, value := range []float64{m.most, m.now} {
			plot.Series[i].Points = append(plot.Series[i].Points, [2]float64{float64(size), value})
		}
	}
	text.WriteString("\nA backlog is in the ledger, of which a run holds 480 rows. What grows with it is the memory of who was seen: 20 bytes and a place in a map each, 3 to 5 MB at " +
		"100,000, and at 200,000 all are forgotten, so that it grows no further. The rest was not told apart: pages of the log that are garbage until Go's soft limit of 40 MiB has " +
		"them collected, and what SQLite keeps of the file, which is why an idle program has more than with Table Storage.\n")
	part.Text, part.Plots = text.String(), []bench.Plot{plot}
	if err := part.Write(); err != nil {
		t.Fatal(err)
	}
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

// measureBacklog lets the program run until it has found everybody, and once more.
func measureBacklog(t *testing.T, binary string, size int) (m memory, worked int) {
	const known, most = 12_000, 5 // the simulation is slow with more people
	p := openProcess(t, binary, 20, sim.ThrottleDocumented)
	p.settings["AzureFunctionsJobHost__functionTimeout"] = "00:01:30" // so that a run takes a minute at most
	p.backlog.size = size
	p.backlog.signUp(p.Tenant, min(size, known))
	p.start()
	defer p.stop()
	for runs := 1; ; runs++ {
		s := p.run()
		worked += s.Users
		if s.Detectors[0].Events >= size {
			break
		}
		if runs == most {
			t.Errorf("%d sign-ups: after %d runs %d are seen", size, runs, s.Detectors[0].Events)
			break
		}
	}
	if worked += p.run().Users; worked == 0 {
		t.Errorf("%d sign-ups: nobody was worked, of whom %d are in the tenant", size, min(size, known))
	}
	time.Sleep(time.Minute)
	return p.memory(), worked
}
