package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// latest is how many of the users of a grown tenant have signed up within the overlap, whatever its size.
const latest = 60

// grown is a tenant of a given size, whose users have all been associated. It is computed and takes no memory, so that
// what is measured is the engine's.
type grown struct {
	*world
	size  int
	born  time.Time // of the first user
	now   time.Time
	wire  *wire // nil without one
	store store
}

// store is a ledger that counts.
type store interface {
	signup.Ledger
	Counts() ledger.Counts
}

// wire counts what goes to the table service and comes back.
type wire struct{ requests, sent, received atomic.Int64 }

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.requests.Add(1)
	w.sent.Add(max(r.ContentLength, 0))
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		answer.Body = &counted{answer.Body, &w.received}
	}
	return answer, err
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// growTenant is a tenant of size users in the last 1,000 days, and an engine with ten destinations that has just run.
func growTenant(t *testing.T, size int, store store, w *wire) *grown {
	t.Helper()
	var s pipeline.Spec
	for n := range 10 {
		s.Destinations = append(s.Destinations, pipeline.DestinationSpec{Name: fmt.Sprintf("destination%d", n), Record: map[string]any{"email": "user.email"}})
	}
	now := time.Now().UTC().Truncate(time.Second)
	g := &grown{world: newWorld(t, s), size: size, now: now, born: now.Add(-1000 * 24 * time.Hour), wire: w, store: store}
	g.restart()
	return g
}

// restart is a new process, which knows nobody.
func (g *grown) restart() {
	old := g.engine
	g.engine = &pipeline.Engine{Tenant: old.Tenant, Mapping: old.Mapping, Settings: old.Settings, Destinations: old.Destinations,
		Detectors: []signup.Detector{crowd{g, "audit"}, crowd{g, "directory"}}, Backstop: crowd{g, "directory"}, Directory: g.users, Ledger: g.store,
		Clock: old.Clock, Rand: old.Rand, Each: old.Each, Log: old.Log}
}

// user is the nth one: of the last hour are the latest ones, and the others lie evenly before it.
func (g *grown) user(n int) signup.Event {
	e := signup.Event{User: signup.UserID(fmt.Sprintf("75b523ca-%04x-4ddf-80af-%012d", n%65536, n)), Kind: signup.Created}
	if rest := g.size - n; rest <= latest {
		e.At = g.now.Add(-time.Duration(rest) * 50 * time.Second)
	} else {
		e.At = g.born.Add(time.Duration(n) * g.step()).Truncate(time.Second)
	}
	return e
}

func (g *grown) step() time.Duration { return (999 * 24 * time.Hour) / time.Duration(g.size) }

// row is a user's, settled.
func (g *grown) row(e signup.Event) signup.Row {
	names := make([]string, len(g.engine.Destinations))
	for i, d := range g.engine.Destinations {
		names[i] = d.Name
	}
	r := signup.NewRow(e, "audit", names, e.At).Intend("20260102T030405-0123abcd", e.At)
	r.Origin, r.Evidence = signup.SelfService, "creationType LocalAccount"
	var outcomes []signup.Outcome
	for i, a := range r.Associations {
		outcomes = append(outcomes, signup.Outcome{Destination: a.Destination, Account: signup.Account{ID: fmt.Sprintf("acc_%d_%s", i, e.User)}})
	}
	return r.Settle(e.At, outcomes, func(d time.Duration) time.Duration { return d })
}

// crowd shows the tenant's users.
type crowd struct {
	*grown
	name string
}

func (c crowd) Name() string             { return c.name }
func (c crowd) Retention() time.Duration { return 0 }
func (c crowd) Served() time.Time        { return time.Now() }

func (c crowd) Events(_ context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		old := max(c.size-latest, 0)
		from := min(max(int(w.From.Sub(c.born)/c.step())-1, 0), old)
		for n := from; n < c.size; n++ {
			e := c.user(n)
			if n < old && !e.At.Before(w.To) {
				n = old - 1 // go on with the latest
				continue
			}
			if !e.At.Before(w.From) && e.At.Before(w.To) && !yield(e, nil) {
				return
			}
		}
	}
}

// load fills the ledger as if the engine had run a minute ago.
func (g *grown) load(from int) (took time.Duration) {
	g.t.Helper()
	begun := time.Now()
	for n := from; n < g.size; n += 1000 {
		var rows []signup.Row
		for i := n; i < min(n+1000, g.size); i++ {
			rows = append(rows, g.row(g.user(i)))
		}
		if got, err := g.store.Insert(g.t.Context(), rows); err != nil || len(got) != len(rows) {
			g.t.Fatalf("load: %d of %d rows, %v", len(got), len(rows), err)
		}
	}
	took = time.Since(begun)
	g.loadNotes()
	return took
}

// loadNotes fills in what the run a minute ago has left.
func (g *grown) loadNotes() {
	g.t.Helper()
	since := g.born.Add(-time.Hour)
	var destinations []map[string]any
	for _, d := range g.engine.Destinations {
		destinations = append(destinations, map[string]any{"name": d.Name, "since": since})
	}
	for name, body := range map[string]any{
		"state":               map[string]any{"since": since, "destinations": destinations},
		"watermark|audit":     map[string]any{"watermark": g.now.Add(-time.Minute)},
		"watermark|directory": map[string]any{"watermark": g.now.Add(-time.Minute)},
	} {
		n, err := g.store.Note(g.t.Context(), name)
		if err == nil {
			n.Name = name
			n.Body, err = json.Marshal(body)
		}
		if err == nil {
			_, err = g.store.PutNote(g.t.Context(), n)
		}
		if err != nil {
			g.t.Fatal(err)
		}
	}
}

// cost is what something took of the ledger.
type cost struct {
	ledger.Counts
	requests, sent, received int64
	took                     time.Duration
	heap                     int64 // the most that lived above what lived before, bytes
}

func (g *grown) cost(do func()) (c cost) {
	runtime.GC()
	before, begun, baseline := g.store.Counts(), time.Now(), liveHeap()
	var requests, sent, received int64
	if g.wire != nil {
		requests, sent, received = g.wire.requests.Load(), g.wire.sent.Load(), g.wire.received.Load()
	}
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				peak <- most
				return
			case <-tick.C:
				most = max(most, liveHeap()-baseline)
			}
		}
	}()
	do()
	c.took = time.Since(begun)
	close(stop)
	c.heap = <-peak
	after := g.store.Counts()
	c.Counts = ledger.Counts{Transactions: after.Transactions - before.Transactions, NoteWrites: after.NoteWrites - before.NoteWrites, Reads: after.Reads - before.Reads}
	if g.wire != nil {
		c.requests, c.sent, c.received = g.wire.requests.Load()-requests, g.wire.sent.Load()-sent, g.wire.received.Load()-received
	}
	return c
}

// liveHeap is what the last garbage collection has found alive.
func liveHeap() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

func (g *grown) mustRun() {
	g.t.Helper()
	sum, err := g.engine.Run(g.t.Context(), pipeline.Trigger{Invocation: "growth"})
	if err != nil || sum.Busy || sum.Users != 0 || sum.Detectors[0].New+sum.Detectors[1].New != 0 || sum.Detectors[0].Events == 0 {
		g.t.Fatalf("want a run that sees users and finds nothing new; got %+v, %v", sum, err)
	}
}

func (g *grown) mustCensus() {
	g.t.Helper()
	c, err := g.engine.Census(g.t.Context(), pipeline.Trigger{Invocation: "growth"}, pipeline.CensusOptions{Act: true, Fresh: true})
	if want := g.size - latest; err != nil || c.Ended.IsZero() || c.Missing != 0 || c.Associated < want || c.Associated > g.size || c.Users != c.Associated {
		g.t.Fatalf("want a census of at least %d users, all associated; got %+v, %v", want, c, err)
	}
}

// sweep makes n rows due, and looks for what is.
func (g *grown) sweep(n int) cost {
	g.t.Helper()
	due := time.Now().Add(-time.Hour)
	var rows []signup.Row
	for i := range n {
		rows = append(rows, signup.NewRow(signup.Event{User: signup.UserID(fmt.Sprintf("d0e00000-0000-4000-8000-%012d", i)), Kind: signup.Created, At: due}, "audit", nil, due))
	}
	if n > 0 {
		g.replaceOrInsert(rows)
	}
	found := 0
	c := g.cost(func() {
		for row, err := range g.store.Due(g.t.Context(), time.Now()) {
			if err != nil {
				g.t.Fatal(err)
			}
			rows[found] = row.SettleAll(signup.Skipped, "origin", "", due)
			found++
		}
	})
	if found != n {
		g.t.Fatalf("found %d due rows, want %d", found, n)
	}
	if _, err := g.store.Replace(g.t.Context(), rows); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// replaceOrInsert brings rows in, over those of an earlier sweep.
func (g *grown) replaceOrInsert(rows []signup.Row) {
	g.t.Helper()
	made, err := g.store.Insert(g.t.Context(), rows)
	if err != nil {
		g.t.Fatal(err)
	}
	if len(made) == len(rows) {
		return
	}
	ids := make([]signup.UserID, len(rows))
	for i, r := range rows {
		ids[i] = r.User
	}
	there, err := g.store.Get(g.t.Context(), ids)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := range there {
		rows[i].Version = there[i].Version
	}
	if _, err := g.store.Replace(g.t.Context(), rows); err != nil {
		g.t.Fatal(err)
	}
}
