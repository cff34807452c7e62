package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/bench"
	"signup-sync/handler/ledger"
	"signup-sync/handler/signup"
)

// computed is a ledger in which every user of a grown tenant is settled. The rows are computed when somebody asks for them, so
// that there may be ten million. What is written lies in memory above them.
type computed struct {
	*ledger.Ledger
	tenant *grown
	reads  atomic.Int64 // of rows that are not in memory
}

// growComputed is growTenant with a computed ledger that needs no loading of rows.
func growComputed(t *testing.T, size int) *grown {
	t.Helper()
	c := &computed{Ledger: ledger.Memory(tenantID)}
	g := growTenant(t, size, c, nil)
	c.tenant = g
	g.loadNotes()
	return g
}

func (c *computed) Counts() ledger.Counts {
	counts := c.Ledger.Counts()
	counts.Reads += c.reads.Load()
	return counts
}

// row is of whoever belongs to the tenant.
func (c *computed) row(id signup.UserID) (signup.Row, bool) {
	n := 0
	if _, err := fmt.Sscanf(string(id[strings.LastIndexByte(string(id), '-')+1:]), "%d", &n); err != nil || n >= c.tenant.size || c.tenant.user(n).User != id {
		return signup.Row{}, false
	}
	row := c.tenant.row(c.tenant.user(n))
	row.Version = "computed"
	return row, true
}

func (c *computed) Get(ctx context.Context, ids []signup.UserID) (rows []signup.Row, err error) {
	var others []signup.UserID
	for _, id := range ids {
		if row, ok := c.row(id); ok {
			rows = append(rows, row)
			c.reads.Add(1)
		} else {
			others = append(others, id)
		}
	}
	more, err := c.Ledger.Get(ctx, others)
	return append(rows, more...), err
}

// Insert is never asked to insert whom Get has shown.
func (c *computed) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	for _, r := range rows {
		if _, ok := c.row(r.User); ok {
			return nil, fmt.Errorf("%s is inserted although there is a row", r.User)
		}
	}
	return c.Ledger.Insert(ctx, rows)
}

// All would be ten million rows.
func (c *computed) All(context.Context) iter.Seq2[signup.Row, error] {
	return func(yield func(signup.Row, error) bool) {
		yield(signup.Row{}, errors.New("all of the ledger is read"))
	}
}

// TestCostOfARunDoesNotGrowWithTheLedger compares a small tenant with a large one, and with one of ten million users.
func TestCostOfARunDoesNotGrowWithTheLedger(t *testing.T) {
	measure := func(g *grown) map[string]ledger.Counts {
		return map[string]ledger.Counts{"the first run of a process": g.cost(g.mustRun).Counts, "the next": g.cost(g.mustRun).Counts,
			"nothing due": g.sweep(0).Counts, "200 due": g.sweep(200).Counts}
	}
	loaded := func(size int) map[string]ledger.Counts {
		g := growTenant(t, size, ledger.Memory(tenantID), nil)
		g.load(0)
		costs := measure(g)
		census := g.cost(g.mustCensus)
		if extra := census.Reads - int64(size); extra < -latest || extra > 10 || census.Transactions != 0 {
			t.Errorf("a census of %d users took %+v, want a read a user and few more", size, census.Counts)
		}
		return costs
	}
	small, large, huge := loaded(100), loaded(2000), measure(growComputed(t, 10_000_000))
	want := map[string]ledger.Counts{
		"the first run of a process": {NoteWrites: 4, Reads: 5 + latest}, // each user of the overlap once, and what the next run reads
		"the next":                   {NoteWrites: 4, Reads: 5},          // the lease, the state, two watermarks, and what is due; the lease twice, and two watermarks
		"nothing due":                {Reads: 1},
		"200 due":                    {Reads: 1 + 200},
	}
	for name, got := range map[string]map[string]ledger.Counts{"100 rows": small, "2,000 rows": large, "10,000,000 rows": huge} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("with %s (-want +got):\n%s", name, diff)
		}
	}
	bench.Hold(t, bench.Part{Name: "growth", Figures: idleFigures(calls(huge["the next"]), calls(small["the next"]))})
}

func calls(c ledger.Counts) float64 { return float64(c.Transactions + c.NoteWrites + c.Reads) }

// idleFigures are what `make bench` and `make test` both measure, with tenants of different sizes.
func idleFigures(largest, smallest float64) []bench.Figure {
	return []bench.Figure{
		{Name: "run with nothing new/ledger calls", Value: largest, Goal: "<= 9", Steady: true},
		{Name: "run with nothing new/ledger calls, 10 million users to the fewest", Value: largest / smallest, Goal: "<= 1", Steady: true},
	}
}
