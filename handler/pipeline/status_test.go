package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// status reads the status, and sees that nothing was written for it.
func (w *world) status() pipeline.Status {
	w.t.Helper()
	before, reads := w.ledger.Counts(), w.users.reads
	s, err := w.engine.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	after := w.ledger.Counts()
	if after.Reads = before.Reads; after != before || w.users.reads != reads {
		w.t.Errorf("it has written %+v, before it was %+v; and read %d profiles", after, before, w.users.reads-reads)
	}
	return s
}

// destinations are those of spec, and the profile, that were first seen at that time.
func destinationsSince(at time.Time) []pipeline.DestinationStatus {
	return []pipeline.DestinationStatus{{Name: "billing", Since: at}, {Name: "crm", Since: at}, {Name: "news", Since: at}, {Name: "profile"}}
}

func TestStatusOfAnInstallation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.withRegister()
		start := time.Now().UTC()
		s := w.status()
		if diff := cmp.Diff(s, pipeline.Status{Now: start, Detectors: []pipeline.DetectorStatus{{Name: "audit"}, {Name: "directory"}}, Destinations: destinationsSince(time.Time{})}); diff != "" {
			t.Errorf("before the first run: got, want:\n%s", diff)
		}

		w.signUp(1)
		sum := w.mustRun(time.Minute)
		first := start.Add(time.Minute)
		s = w.status()
		if !s.Since.Equal(first.Add(-24*time.Hour)) || s.Run != nil || s.Census != nil || s.Backlog != (pipeline.Backlog{}) || s.Last == nil || s.Last.Run != sum.Run || !s.Last.Ended.Equal(sum.Ended) {
			t.Errorf("after a run: got %+v", s)
		}
		if diff := cmp.Diff(s.Destinations, destinationsSince(first)); diff != "" {
			t.Errorf("after a run: got, want:\n%s", diff)
		}
		if len(s.Detectors) != 2 || !s.Detectors[1].Watermark.Equal(first) || s.Detectors[0].Seen.First+s.Detectors[1].Seen.First != 1 {
			t.Errorf("after a run: got %+v", s.Detectors)
		}

		missed := w.unseen(2)
		w.systems["billing"].before = always(&signup.Error{Class: signup.Permanent, Code: "rejected"})
		w.signUp(3)
		w.mustRun(2 * time.Hour)
		c := w.certify()
		want := &pipeline.CensusStatus{ID: c.ID, Ended: c.Ended, Users: 3, Missing: 1, Failed: 1}
		if s = w.status(); cmp.Diff(s.Census, want) != "" {
			t.Errorf("after a census that has taken in %s: got, want:\n%s", missed, cmp.Diff(s.Census, want))
		}
		w.mustRun(2 * time.Hour)
		time.Sleep(24 * time.Hour)
		w.mustRun(0)
		if c = w.certify(); w.status().Census.Failed != 2 {
			t.Errorf("two users have failed: got %+v of %+v", w.status().Census, c)
		}
	})
}

func TestStatusTellsWhatIsDueAndWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		for name := range w.systems {
			w.systems[name].before = always(errors.New("down"))
		}
		var ids []signup.UserID
		for n := range 3 {
			ids = append(ids, w.signUp(n))
			w.mustRun(20 * time.Second)
		}
		first, last := w.row(ids[0]).Due, w.row(ids[0]).Due
		for _, id := range ids {
			if d := w.row(id).Due; d.Before(first) {
				first = d
			} else if d.After(last) {
				last = d
			}
		}
		if got, want := w.status().Backlog, (pipeline.Backlog{Waiting: 3, Next: first}); got != want {
			t.Errorf("all wait: got %+v, want %+v", got, want)
		}
		time.Sleep(time.Until(first))
		b := w.status().Backlog
		if b.Due == 0 || b.Due+b.Waiting != 3 || !b.Oldest.Equal(first) || b.Waiting > 0 && !b.Next.After(first) {
			t.Errorf("the first is due: got %+v", b)
		}
		time.Sleep(time.Until(last))
		if got, want := w.status().Backlog, (pipeline.Backlog{Due: 3, Oldest: first}); got != want {
			t.Errorf("all are due: got %+v, want %+v", got, want)
		}
	})
}

func TestStatusTellsOfBreakersAndDestinationsThatAreGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.mustRun(time.Minute)
		worked := time.Now().UTC()
		w.systems["billing"].before = always(&signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401})
		w.signUp(2)
		w.mustRun(time.Minute)
		opened := time.Now().UTC()
		want := &pipeline.BreakerStatus{Since: opened, Until: opened.Add(30 * time.Second), Opened: 1, Code: "unauthorized", LastSuccess: worked}
		if diff := cmp.Diff(w.status().Destinations[0].Breaker, want); diff != "" {
			t.Errorf("billing refuses everybody: got, want:\n%s", diff)
		}
		time.Sleep(15 * time.Minute)
		if diff := cmp.Diff(w.status().Destinations[0].Breaker, want); diff != "" {
			t.Errorf("nobody has tried since: got, want:\n%s", diff)
		}
		w.mustRun(15 * time.Minute)
		again := time.Now().UTC()
		want.Until, want.Opened = again.Add(time.Minute), 2
		if diff := cmp.Diff(w.status().Destinations[0].Breaker, want); diff != "" {
			t.Errorf("it still does: got, want:\n%s", diff)
		}

		less := spec()
		less.Destinations, less.Attributes = less.Destinations[2:], nil
		w.configure(less)
		removed := []pipeline.DestinationStatus{{Name: "news", Since: worked}, {Name: "profile", Pending: 1},
			{Name: "billing", Since: worked, Removed: true, Breaker: want, Pending: 1}, {Name: "crm", Since: worked, Removed: true, Pending: 1}}
		if diff := cmp.Diff(w.status().Destinations, removed); diff != "" {
			t.Errorf("with other destinations: got, want:\n%s", diff)
		}

		w.configure(spec())
		w.systems["billing"].before = nil
		w.mustRun(2 * time.Hour)
		if b := w.status().Destinations[0].Breaker; b != nil {
			t.Errorf("billing works again: got %+v", b)
		}
	})
}

func TestStatusTellsWhoHasTheRunLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		asked := 0
		w.systems["billing"].before = func(ctx context.Context, _ signup.Request) error {
			asked++
			s, err := w.engine.Status(ctx) // while the run writes
			if err != nil || s.Run == nil || s.Run.Died || s.Run.Owner == "" || !s.Run.Until.After(s.Now) {
				t.Errorf("at work: got %+v, %v", s.Run, err)
			}
			return nil
		}
		w.mustRun(time.Minute)
		if s := w.status(); asked != 1 || s.Run != nil {
			t.Errorf("after it, asked %d times: got %+v", asked, s.Run)
		}
		for name, until := range map[string]time.Duration{"who was killed": -time.Second, "whose clock was wrong": time.Hour} {
			n, err := w.ledger.Note(t.Context(), "run")
			at := time.Now().Add(until).UTC()
			n.Body = fmt.Appendf(nil, `{"owner":"dead","expires":%q}`, at.Format(time.RFC3339Nano))
			if _, e := w.ledger.PutNote(t.Context(), n); err != nil || e != nil {
				t.Fatal(err, e)
			}
			if got, want := w.status().Run, (pipeline.LeaseStatus{Owner: "dead", Until: at, Died: true}); got == nil || *got != want {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
		}
	})
}

// TestStatusCostsNoMoreThanItMay reads 1,500 rows that are due of which it counts a thousand, beside settled ones.
func TestStatusCostsNoMoreThanItMay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		now := time.Now().UTC()
		insert := func(from, n int, settled bool) {
			var rows []signup.Row
			for i := range n {
				id := signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", from+i))
				r := signup.NewRow(signup.Event{User: id, Kind: signup.Created, At: now}, "audit", []string{"billing"}, now)
				if settled {
					r = r.SettleAll(signup.Associated, "", "", now)
				}
				rows = append(rows, r)
			}
			if _, err := w.ledger.Insert(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
		}
		cost := func() (ledger.Counts, pipeline.Backlog) {
			before := w.ledger.Counts()
			b := w.status().Backlog
			return ledger.Counts{Reads: w.ledger.Counts().Reads - before.Reads}, b
		}
		empty, _ := cost()
		insert(0, 1200, true)
		if got, b := cost(); got != empty || b != (pipeline.Backlog{}) {
			t.Errorf("1,200 settled rows cost %+v more than %+v, and are %+v", got, empty, b)
		}
		insert(2000, 1000, false)
		if _, b := cost(); b.Due != 1000 || b.More {
			t.Errorf("1,000 rows: got %+v", b)
		}
		insert(3000, 500, false)
		got, b := cost()
		if b.Due != 1000 || !b.More || !b.Oldest.Equal(now) {
			t.Errorf("1,500 rows: got %+v", b)
		}
		if most := empty.Reads + 1000 + 15 + 7; got.Reads > most {
			t.Errorf("got %d reads, want %d at most", got.Reads, most)
		}
	})
}

func TestStatusIsAnErrorWithoutTheLedger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.engine.Status(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		w.engine.Ledger = withoutIndex{w.ledger}
		if _, err := w.engine.Status(t.Context()); !errors.Is(err, errIndex) {
			t.Errorf("got %v where it cannot be told what is due", err)
		}
	})
}

var errIndex = errors.New("the index cannot be read")

// withoutIndex is a ledger that cannot tell what is due.
type withoutIndex struct{ signup.Ledger }

func (withoutIndex) Due(context.Context, time.Time) iter.Seq2[signup.Row, error] {
	return func(yield func(signup.Row, error) bool) { yield(signup.Row{}, errIndex) }
}
