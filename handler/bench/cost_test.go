package bench_test

import (
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"signup-sync/handler/bench"
)

var measureCost = flag.Bool("cost", false, "count what all rates and bursts cost, as 'make bench' does")

var discard = slog.New(slog.DiscardHandler)

// costPrices are all the prices that the figures are made of, in US dollars, without tax.
var costPrices = []struct {
	what    string
	dollars float64 // for one
	free    float64 // of it each month, for a subscription
	source  string
}{
	{"GB-second, Flex Consumption on demand", 0.000026, 100_000, "third party, May 2025 (modal.com, Azure Functions pricing; East US); the free amount unverified"},
	{"execution", 0.40 / 1e6, 250_000, "third party, May 2025 (as above); the free amount unverified"},
	{"storage operation on tables", 0.00036 / 1e4, 0, "from memory, **unverified**; that each request is one operation, a transaction on 100 entities too, is Microsoft's (storage team's blog on billing)"},
}

const (
	costEuro     = 0.90 // euro for a dollar: assumed, not looked up
	costRuns     = 60 * 24 * 365.25 / 12
	costCensuses = costRuns / 15 // turns of TakeCensus, nearly all of which find nothing to do
)

// costLoad is so many sign-ups, minute after minute.
type costLoad struct {
	name     string
	aMinute  int
	minutes  int
	late     bool // the tenant shows people as late as a real one
	idle     use  // of a run with nothing new
	each     use  // of a sign-up, beyond that
	slowestS float64
}

// measure plays the load, and the quiet hour after it in which its users are still seen.
func (l *costLoad) measure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCostWorld(t, l.late)
		w.minute(t, 1) // a process looks the attributes up once
		for range 65 {
			w.minute(t, 0)
		}
		before := w.used()
		w.minute(t, 0)
		l.idle = w.used().less(before, 1)
		before = w.used()
		for range l.minutes {
			was := w.billed
			w.minute(t, l.aMinute)
			l.slowestS = max(l.slowestS, (w.billed-was)/0.5)
		}
		const after = 75
		for range after {
			w.minute(t, 0)
		}
		l.each = w.used().less(before, 1).less(l.idle, float64(after+l.minutes)).per(float64(l.minutes * l.aMinute))
		w.allAssociated(t)
	})
}

// TestCost counts what a run and a sign-up use. Without -cost it counts a run with nothing new and a lone sign-up, and holds them.
func TestCost(t *testing.T) {
	loads := []*costLoad{{name: "alone", aMinute: 1, minutes: 1}}
	if *measureCost {
		loads = append(loads, &costLoad{name: "10 a minute", aMinute: 10, minutes: 5}, &costLoad{name: "23 a minute", aMinute: 23, minutes: 5},
			&costLoad{name: "100 a minute", aMinute: 100, minutes: 5}, &costLoad{name: "230 a minute", aMinute: 230, minutes: 5},
			&costLoad{name: "1,000 in one minute", aMinute: 1000, minutes: 1}, &costLoad{name: "23 a minute, shown late", aMinute: 23, minutes: 5, late: true})
	}
	for _, l := range loads {
		l.measure(t)
	}
	lone := loads[0]
	p := bench.Part{Name: "cost", Title: "What a sign-up costs", Command: "make bench PARTS=cost", Figures: []bench.Figure{
		{Name: "idle run/Graph calls", Value: lone.idle.Graph, Goal: "<= 4", Steady: true},
		{Name: "idle run/resource units", Value: lone.idle.Units, Goal: "<= 2", Steady: true},
		{Name: "idle run/storage operations", Value: lone.idle.storage(), Goal: "<= 9", Steady: true},
		{Name: "alone/ledger transactions", Value: lone.each.Transactions, Unit: "a sign-up", Goal: "= 2", Steady: true},
		{Name: "alone/storage operations", Value: lone.each.storage(), Unit: "a sign-up", Goal: "<= 5", Steady: true},
		{Name: "alone/Graph calls", Value: lone.each.Graph, Unit: "a sign-up", Goal: "<= 2", Steady: true},
		{Name: "alone/resource units", Value: lone.each.Units, Unit: "a sign-up", Goal: "<= 2", Steady: true},
		{Name: "alone/directory writes", Value: lone.each.Writes, Unit: "a sign-up", Goal: "<= 1", Steady: true},
	}}
	bench.Hold(t, p)
	if !*measureCost {
		return
	}
	p.Text = costText(loads)
	p.Figures = append(p.Figures, costFigures(loads)...)
	p.Plots = costPlots(loads)
	if err := p.Write(); err != nil {
		t.Error(err)
	}
}

func costFigures(loads []*costLoad) (figures []bench.Figure) {
	for _, l := range loads[1:] {
		figures = append(figures, bench.Figure{Name: l.name + "/ledger transactions", Value: l.each.Transactions, Unit: "a sign-up", Goal: "<= 2"},
			bench.Figure{Name: l.name + "/storage operations", Value: l.each.storage(), Unit: "a sign-up"},
			bench.Figure{Name: l.name + "/Graph calls", Value: l.each.Graph, Unit: "a sign-up"},
			bench.Figure{Name: l.name + "/GB-s", Value: l.each.GBs, Unit: "GB-s a sign-up"})
	}
	for _, m := range []costMonth{month(loads, 0), month(loads, 1000), month(loads, 100_000), month(loads, 1e6), month(loads, 1e7)} {
		name := fmt.Sprintf("month of %s sign-ups/", countText(m.signUps))
		figures = append(figures, bench.Figure{Name: name + "list price", Value: m.list * costEuro, Unit: "EUR"},
			bench.Figure{Name: name + "beyond what is free", Value: m.free * costEuro, Unit: "EUR"})
		if m.signUps > 0 {
			figures = append(figures, bench.Figure{Name: name + "a million of them", Value: m.list * costEuro / m.signUps * 1e6, Unit: "EUR"})
		}
	}
	return figures
}

// costMonth is what a month of so many sign-ups, evenly spread, uses and costs.
type costMonth struct {
	signUps                   float64
	graph, storage, gbs, runs float64
	list, free                float64 // dollars: at list prices, and beyond what is free
}

// month goes by the load that is nearest from below: who comes less than once a minute comes alone.
func month(loads []*costLoad, signUps float64) costMonth {
	l := loads[0]
	for _, next := range loads {
		if !next.late && next.minutes > 1 && signUps/costRuns >= 0.95*float64(next.aMinute) {
			l = next
		}
	}
	m := costMonth{signUps: signUps, runs: costRuns + costCensuses}
	m.graph = costRuns*l.idle.Graph + signUps*l.each.Graph
	m.storage = costRuns*l.idle.storage() + costCensuses*2 + signUps*l.each.storage() // a census that has nothing to do reads two notes
	m.gbs = costRuns*l.idle.GBs + costCensuses*0.5 + signUps*l.each.GBs
	for i, n := range []float64{m.gbs, m.runs, m.storage} {
		m.list += n * costPrices[i].dollars
		m.free += max(0, n-costPrices[i].free) * costPrices[i].dollars
	}
	return m
}

func costText(loads []*costLoad) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The real engine and the real clients of Graph, Stripe and webhooks, with the configuration of signup-sync.yaml (without its database) in simulated "+
		"time; calls are counted where they go out, resource units are those that the simulated Graph charges by the published table, and storage operations what Table "+
		"Storage would bill: transactions on rows, notes written, entities and pages read. Of a sign-up it is what is used beyond runs with nothing new, until an hour later. "+
		"GB-seconds are by half a GB and at least a second a run, and go by assumed times of a call: %v Graph, %v a destination, %v the ledger.\n\n",
		costGraph, costDestination, costLedger)
	fmt.Fprintf(&b, "| a sign-up | Graph calls | units | writes | ledger transactions | notes | reads | storage operations | GB-s |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, l := range loads {
		e := l.each
		fmt.Fprintf(&b, "| %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.3f |\n", l.name, e.Graph, e.Units, e.Writes, e.Transactions, e.Notes, e.Reads, e.storage(), e.GBs)
	}
	i := loads[0].idle
	fmt.Fprintf(&b, "| **a run with nothing new** | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.1f |\n\n", i.Graph, i.Units, i.Writes, i.Transactions, i.Notes, i.Reads, i.storage(), i.GBs)
	fmt.Fprintf(&b, "Alone a user is two transactions, the row with its intent and what came of it; in a crowd those of up to 49 users are one, and a profile read is of up to "+
		"15. Of the calls of a run with nothing new one asks the time, two read the audit log (Graph takes one activity a query) and one reads the directory; Graph's own calls "+
		"cost nothing. Reads are who is new looked up before it is inserted, and the lease, the state, two watermarks and what is due, each run.\n\n")
	fmt.Fprintf(&b, "| sign-ups a month | Graph calls | storage operations | GB-s | list price | beyond what is free | a million sign-ups, list price |\n|---|---|---|---|---|---|---|\n")
	for _, n := range []float64{0, 1000, 10_000, 100_000, 1e6, 1e7} {
		m := month(loads, n)
		million := ""
		if n > 0 {
			million = fmt.Sprintf("%.2f EUR", m.list*costEuro/n*1e6)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.2f EUR | %.2f EUR | %s |\n", countText(n), countText(m.graph), countText(m.storage), countText(m.gbs), m.list*costEuro, m.free*costEuro, million)
	}
	fmt.Fprintf(&b, "\nEvenly spread, with %s runs and %s turns of the census that have nothing to do in each month. Besides, each million of users who are in the tenant is read by "+
		"the daily census: %.2f EUR a month of storage operations. Not in it: the Functions host's own use of the storage account, logs, alerts, Key Vault and what destinations "+
		"ask for. Prices, in US dollars without tax, at an **assumed** %.2f euro for a dollar:\n\n| price | for one | free a month | source |\n|---|---|---|---|\n",
		countText(costRuns), countText(costCensuses), 1e6*365.25/12*costPrices[2].dollars*costEuro, costEuro)
	for _, c := range costPrices {
		fmt.Fprintf(&b, "| %s | $%.9f | %s | %s |\n", c.what, c.dollars, countText(c.free), c.source)
	}
	return b.String()
}

func costPlots(loads []*costLoad) []bench.Plot {
	amortised := bench.Plot{Name: "cost-a-million", Title: "What a million sign-ups cost, by how many come", X: "sign-ups a month", Y: "EUR a million", LogX: true, LogY: true,
		Series: []bench.Series{{Name: "list price"}, {Name: "beyond what is free"}}}
	for _, n := range []float64{1000, 3000, 10_000, 43_830, 100_000, 438_300, 1e6, 4.38e6, 1e7} {
		m := month(loads, n)
		for i, dollars := range []float64{m.list, m.free} {
			amortised.Series[i].Points = append(amortised.Series[i].Points, [2]float64{n, dollars * costEuro / n * 1e6})
		}
	}
	crowd := bench.Plot{Name: "cost-a-sign-up", Title: "What a sign-up uses, by how many come in a minute", X: "sign-ups in a minute", Y: "for each", LogX: true,
		Series: []bench.Series{{Name: "Graph calls"}, {Name: "ledger transactions"}, {Name: "storage operations"}}}
	for _, l := range loads {
		if !l.late {
			for i, v := range []float64{l.each.Graph, l.each.Transactions, l.each.storage()} {
				crowd.Series[i].Points = append(crowd.Series[i].Points, [2]float64{float64(l.aMinute), v})
			}
		}
	}
	return []bench.Plot{amortised, crowd}
}

func countText(n float64) string {
	return bench.Figure{Value: float64(int64(n + 0.5))}.Text()
}
