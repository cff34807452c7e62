package pipeline_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/bench"
	"signup-sync/handler/ledger"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/pipeline"
)

var growthSizes = flag.String("growth", "", "measure a run, a sweep and a census with so many settled rows in the emulator: '1000,10000,100000'")

// measured is what was measured of a tenant.
type measured struct {
	size                                  int
	load                                  time.Duration
	first, idle, nothingDue, many, census cost
	counted                               int // users, by the census
}

// TestGrowth measures with rows in the emulator, and a run with ten million that are computed.
func TestGrowth(t *testing.T) {
	if *growthSizes == "" {
		t.Skip("'make growth' runs this")
	}
	var all []measured
	for text := range strings.SplitSeq(*growthSizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, measureGrown(t, size))
		t.Logf("%d rows: %+v", size, all[len(all)-1])
	}
	huge := growComputed(t, 10_000_000)
	huge.mustRun()
	idle := huge.cost(huge.mustRun)
	p := bench.Part{Name: "growth", Title: "Growth of the ledger", Command: "make growth ROWS=" + *growthSizes, Text: growthText(all, idle),
		Figures: growthFigures(all, idle), Plots: growthPlots(all, idle)}
	if err := p.Write(); err != nil {
		t.Error(err)
	}
}

func measureGrown(t *testing.T, size int) measured {
	w := &wire{}
	store, err := ledger.OpenTables(ledger.TablesOptions{Tenant: tenantID, ConnectionString: ledgertest.StartAzuriteByKey(t), Transport: &http.Client{Transport: w}})
	if err != nil {
		t.Fatal(err)
	}
	g := growTenant(t, size, store, w)
	m := measured{size: size, load: g.load(0)}
	m.first, m.idle = g.cost(g.mustRun), g.cost(g.mustRun)
	m.nothingDue, m.many = g.sweep(0), g.sweep(1000)
	m.census = g.cost(func() { m.counted = g.censusFor(invocation) })
	for what, c := range map[string]cost{"run": m.idle, "census": m.census} {
		if c.requests != c.Reads+c.Transactions+c.NoteWrites {
			t.Errorf("%d rows, %s: %d requests were sent, and %+v counted", size, what, c.requests, c.Counts)
		}
	}
	return m
}

// invocation is how long the host lets the program work.
const invocation = 4 * time.Minute

// censusFor counts for so long, and returns how many users it came to.
func (g *grown) censusFor(d time.Duration) int {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), d)
	defer cancel()
	c, err := g.engine.Census(ctx, pipeline.Trigger{Invocation: "growth"}, pipeline.CensusOptions{Act: true, Fresh: true})
	if err != nil || c.Missing != 0 || c.Users != c.Associated {
		g.t.Fatalf("want everyone who was counted to be associated; got %+v, %v", c, err)
	}
	return c.Users
}

func growthFigures(all []measured, idle cost) []bench.Figure {
	first, last := all[0], all[len(all)-1]
	figures := idleFigures(calls(idle.Counts), calls(first.idle.Counts))
	figures = append(figures,
		bench.Figure{Name: "run with nothing new/bytes received, the most users to the fewest", Value: float64(last.idle.received) / float64(first.idle.received), Goal: "<= 1.02"},
		bench.Figure{Name: "census/ledger reads a user", Value: float64(last.census.Reads) / float64(last.counted), Goal: "<= 1.01"})
	for _, m := range all {
		name := strconv.Itoa(m.size) + " users/"
		figures = append(figures, bench.Figure{Name: name + "run with nothing new, time", Value: m.idle.took.Seconds(), Unit: "s"},
			bench.Figure{Name: name + "run with nothing new, received", Value: float64(m.idle.received) / 1000, Unit: "kB"},
			bench.Figure{Name: name + "census, time", Value: m.census.took.Seconds(), Unit: "s"},
			bench.Figure{Name: name + "census, received", Value: float64(m.census.received) / 1e6, Unit: "MB"},
			bench.Figure{Name: name + "census, memory", Value: float64(m.census.heap) / 1e6, Unit: "MB", Goal: "<= 20"})
	}
	return figures
}

func growthText(all []measured, idle cost) string {
	var b strings.Builder
	b.WriteString("What is settled is never read by a run: a user is found by key, and what is due by an index that has nothing else in it. With ten destinations, and " +
		"the ledger in the storage emulator:\n\n| settled rows |")
	row := func(what string, cell func(m measured) string) {
		fmt.Fprintf(&b, "\n| %s |", what)
		for _, m := range all {
			fmt.Fprintf(&b, " %s |", cell(m))
		}
	}
	for _, m := range all {
		fmt.Fprintf(&b, " %s |", thousands(m.size))
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)))
	row("a run with nothing new: reads + notes written", func(m measured) string { return fmt.Sprintf("%d + %d", m.idle.Reads, m.idle.NoteWrites) })
	row("… received; time", func(m measured) string { return spent(m.idle) })
	row("the first run of a process, 60 users within the overlap: reads", func(m measured) string { return strconv.FormatInt(m.first.Reads, 10) })
	row("a sweep, nobody / 1,000 users due: reads", func(m measured) string { return fmt.Sprintf("%d / %d", m.nothingDue.Reads, m.many.Reads) })
	row("a census: reads + notes written", func(m measured) string { return fmt.Sprintf("%d + %d", m.census.Reads, m.census.NoteWrites) })
	row("… received; time", func(m measured) string { return spent(m.census) })
	row("… memory beyond what was there before", func(m measured) string { return fmt.Sprintf("%.1f MB", float64(m.census.heap)/1e6) })
	row("loaded in", func(m measured) string { return m.load.Round(time.Second / 10).String() })
	last := all[len(all)-1]
	rate := float64(last.census.Reads) / last.census.took.Seconds()
	fmt.Fprintf(&b, "\n\nWith ten million users, whose rows are computed and not stored, a run with nothing new asks for %d + %d. The sizes of requests were counted on the wire, and "+
		"their number is that which the ledger counts. The emulator was made to find an entity by its row key, as the service does; it looks through all rows for what is due, so that "+
		"its time grows a little where the service's does not.\n\n", idle.Reads, idle.NoteWrites)
	fmt.Fprintf(&b, "Reckoned from the census of %s users, %.0f reads a second: one million take %s, in %.0f invocations of four minutes, ten million %s and %.0f, one each quarter of an "+
		"hour. A slice is held in memory, at most 8,000 users, whatever the tenant's size. The service's own latency was not measured. Graph's pages, one for 999 users, come on top.\n",
		thousands(last.size), rate, hours(1e6/rate), math.Ceil(1e6/rate/invocation.Seconds()), hours(1e7/rate), math.Ceil(1e7/rate/invocation.Seconds()))
	return b.String()
}

func spent(c cost) string {
	return fmt.Sprintf("%s; %s", bytesText(c.received), c.took.Round(time.Millisecond))
}

func hours(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Minute).String()
}

func thousands(n int) string { return bench.Figure{Value: float64(n)}.Text() }

func growthPlots(all []measured, idle cost) []bench.Plot {
	run := bench.Plot{Name: "growth-run", Title: "A run with nothing new", X: "users in the ledger", Y: "calls, kilobytes", LogX: true,
		Series: []bench.Series{{Name: "ledger calls"}, {Name: "kilobytes received"}}}
	census := bench.Plot{Name: "growth-census", Title: "A census of everybody", X: "users in the ledger", Y: "reads, kilobytes, seconds", LogX: true, LogY: true,
		Series: []bench.Series{{Name: "ledger reads"}, {Name: "kilobytes received"}, {Name: "seconds"}}}
	add := func(p *bench.Plot, size int, values ...float64) {
		for i, v := range values {
			p.Series[i].Points = append(p.Series[i].Points, [2]float64{float64(size), v})
		}
	}
	for _, m := range all {
		add(&run, m.size, calls(m.idle.Counts), float64(m.idle.received)/1000)
		add(&census, m.size, float64(m.census.Reads), float64(m.census.received)/1000, m.census.took.Seconds())
	}
	add(&run, 10_000_000, calls(idle.Counts))
	return []bench.Plot{run, census}
}

func bytesText(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
