package pipeline_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// register is the directory as a census reads it: who is there, by creation, and of guests who have accepted when that was.
type register struct {
	*detector
	users *directory
	pause time.Duration // before each user
	asked time.Time     // when the last read began
	tear  func(i int, e signup.Event) error
}

func (r *register) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		r.mu.Lock()
		r.asked = time.Now()
		r.mu.Unlock()
		i := 0
		for e, err := range r.detector.Events(ctx, w) {
			if i++; r.tear != nil && err == nil {
				err = r.tear(i, e)
			}
			if ctx.Err() != nil {
				yield(signup.Event{}, ctx.Err())
				return
			}
			if err == nil {
				r.users.mu.Lock()
				u, there := r.users.all[e.User]
				r.users.mu.Unlock()
				if !there {
					continue
				}
				if at, ok := u.Attributes["accepted"].(time.Time); ok {
					e = signup.Event{User: e.User, Kind: signup.Redeemed, At: at, Created: e.At}
				}
				time.Sleep(r.pause)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// newCensusWorld has a run behind it, so that there is something to count.
func newCensusWorld(t *testing.T, spec pipeline.Spec) *world {
	t.Helper()
	w := newWorld(t, spec)
	w.withRegister()
	w.mustRun(0)
	return w
}

// withRegister is to be called again after a restart.
func (w *world) withRegister() *register {
	if w.register == nil {
		w.register = &register{detector: &detector{name: "directory", events: slices.Clone(w.directory.events)}, users: w.users}
	}
	w.engine.Backstop = w.register
	return w.register
}

func (w *world) census(o pipeline.CensusOptions) (pipeline.Census, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	return w.engine.Census(ctx, pipeline.Trigger{Invocation: "test"}, o)
}

// certify takes a whole census, however new the last one is.
func (w *world) certify() pipeline.Census {
	w.t.Helper()
	c, err := w.census(pipeline.CensusOptions{Act: true, Fresh: true})
	if err != nil || c.Ended.IsZero() {
		w.t.Fatalf("census: %+v, %v", c, err)
	}
	if err := c.CheckSum(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// unseen makes a person sign up whom no detector shows, only the directory as a census reads it.
func (w *world) unseen(n int) signup.UserID {
	id := w.signUp(n)
	w.audit.forgetLast()
	w.directory.forgetLast()
	return id
}

func (d *detector) forgetLast() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = d.events[:len(d.events)-1]
}

func everywhere(w *world, id signup.UserID) {
	w.t.Helper()
	w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
}

func TestACensusTakesInWhomNoDetectorHasShown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, spec())
		var said strings.Builder
		w.engine.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelError}))
		time.Sleep(time.Minute)
		seen := w.signUp(1)
		lost := w.unseen(2)
		for range 3 {
			w.mustRun(time.Hour)
		}
		everywhere(w, seen)
		dry, err := w.census(pipeline.CensusOptions{})
		if err != nil || dry.Missing != 1 || dry.Acted {
			t.Fatalf("without acting: got %+v, %v", dry, err)
		}
		if rows, _ := w.ledger.Get(context.Background(), []signup.UserID{lost}); len(rows) != 0 || said.Len() > 0 {
			t.Fatalf("without acting it took somebody in, or said so: %s", said.String())
		}
		c := w.certify()
		if c.Users != 2 || c.Associated != 1 || c.Missing != 1 || len(c.Exceptions) != 1 || c.Exceptions[0].User != lost || c.Exceptions[0].State != "missing" {
			t.Errorf("got %+v", c)
		}
		if row := w.row(lost); row.Detector != "census" || !row.Unsure || !row.Intent.IsZero() {
			t.Errorf("got %+v, want a row of the census, unsure, without an intent", row)
		}
		if !strings.Contains(said.String(), "users were missing from the ledger") || !strings.Contains(said.String(), string(lost)) {
			t.Errorf("it said %q", said.String())
		}
		w.mustRun(time.Minute)
		everywhere(w, lost)
		for _, req := range w.systems["billing"].requests {
			if req.User == lost && !req.Unsure {
				t.Error("somebody from a census was made an account without a look")
			}
		}
		c = w.certify()
		if c.Associated != 2 || c.Missing != 0 || len(c.Exceptions) != 0 {
			t.Errorf("the next one: got %+v", c)
		}
		if stored, err := w.engine.LastCensus(context.Background()); err != nil || !cmp.Equal(stored, c) {
			t.Errorf("the stored certificate differs (%v):\n%s", err, cmp.Diff(stored, c))
		}
	})
}

func TestACensusHasEveryoneOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.withRegister()
		for n := range 40 {
			w.signUp(n)
		}
		time.Sleep(72 * time.Hour)
		w.mustRun(0) // takes in the last 24 h: nobody
		var ids []signup.UserID
		for n := range 60 {
			ids = append(ids, w.signUp(100+n))
		}
		w.systems["crm"].before = func(_ context.Context, req signup.Request) error {
			switch req.User {
			case ids[0]:
				return &signup.Error{Class: signup.Permanent, Code: "rejected"}
			case ids[1]:
				return errors.New("connection reset")
			}
			return nil
		}
		w.mustRun(time.Minute)
		w.put(w.row(ids[2]).Forget(time.Now().UTC()))
		w.mustRun(30 * time.Minute)
		w.signUp(999)
		w.mustRun(32 * time.Minute) // the first sixty are beyond the overlap now, the last one is not
		c := w.certify()
		want := pipeline.Census{Users: 100, Before: 40, Associated: 57, Pending: 1, Forgotten: 1, Failed: []pipeline.Tally{{Destination: "crm", Reason: "rejected", Users: 1}}}
		got := pipeline.Census{Users: c.Users, Before: c.Before, Associated: c.Associated, Pending: c.Pending, Forgotten: c.Forgotten, Failed: c.Failed, Missing: c.Missing}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("got (-) want (+):\n%s", diff)
		}
		if len(c.Exceptions) != 1 || c.Exceptions[0].User != ids[0] || c.OldestPending.IsZero() {
			t.Errorf("exceptions %+v, oldest pending %v", c.Exceptions, c.OldestPending)
		}
		n := 0
		for _, d := range c.Detectors {
			n += d.Users
		}
		if n != 59 {
			t.Errorf("%d users were seen by detectors, want 59: %+v", n, c.Detectors)
		}
		first, also := 0, 0
		for _, d := range c.Matrix {
			first += d.Seen.First
			for _, a := range d.Seen.Also {
				also += a.Users
			}
		}
		if first != 61 || also != 61 { // the last one is in it
			t.Errorf("the matrix has %d seen first and %d after another, want 61 of each: %+v", first, also, c.Matrix)
		}
	})
}

// put writes a row over the one in the ledger.
func (w *world) put(row signup.Row) {
	w.t.Helper()
	if _, err := w.ledger.Replace(context.Background(), []signup.Row{row}); err != nil {
		w.t.Fatal(err)
	}
}

func TestACensusIdlesForADayAndCostsTwoReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, spec())
		w.certify()
		time.Sleep(23 * time.Hour)
		before := w.ledger.Counts()
		c, err := w.census(pipeline.CensusOptions{Act: true})
		after := w.ledger.Counts()
		if err != nil || c.Idle == "" || after.Reads-before.Reads > 2 || after.NoteWrites != before.NoteWrites {
			t.Errorf("got %+v, %v, with %+v", c, err, after)
		}
		time.Sleep(2 * time.Hour)
		if c, err := w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Idle != "" || c.Ended.IsZero() {
			t.Errorf("a day later: got %+v, %v", c, err)
		}
	})
}

func TestACensusOfNothingSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.withRegister()
		for _, act := range []bool{false, true} {
			c, err := w.census(pipeline.CensusOptions{Act: act})
			if err != nil || !strings.Contains(c.Idle, "no run of SyncNewUsers") || !c.Ended.IsZero() {
				t.Errorf("act %v: got %+v, %v", act, c, err)
			}
		}
		if err := w.engine.Backfill(context.Background(), time.Now()); !errors.Is(err, pipeline.ErrNoRun) {
			t.Errorf("backfill: got %v", err)
		}
		// A ledger that cannot be read has perhaps seen many runs.
		w.engine.Ledger = unreadable{w.ledger}
		if err := w.engine.Backfill(context.Background(), time.Now()); !errors.Is(err, errUnreadable) || errors.Is(err, pipeline.ErrNoRun) {
			t.Errorf("backfill without a ledger: got %v", err)
		}
	})
}

// unreadable is a ledger whose notes cannot be read.
type unreadable struct{ signup.Ledger }

var errUnreadable = errors.New("unreadable")

func (unreadable) Note(context.Context, string) (signup.Note, error) {
	return signup.Note{}, errUnreadable
}

func TestWhoIsReopenedWaitsSinceThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.want(id, "crm: associated", "profile: associated")
		w.mustRun(30 * 24 * time.Hour)
		reopened := time.Now()
		again := pipeline.ReplayOptions{State: signup.Associated, Destinations: []string{"crm"}, Act: true}
		w.wantReplay(again, "01: reopened crm(associated)")
		// Not since the sign-up a month ago, which would make an exception of the user.
		if c := w.certify(); c.Pending != 1 || !c.OldestPending.Equal(reopened) || len(c.Exceptions) != 0 {
			t.Errorf("got %+v, want one who is pending since %s", c, reopened)
		}
		w.wantReplay(pipeline.ReplayOptions{State: signup.Pending, Older: time.Hour})
		time.Sleep(25 * time.Hour) // no run comes
		if c := w.certify(); c.Pending != 1 || !c.OldestPending.Equal(reopened) || len(c.Exceptions) != 1 {
			t.Errorf("a day later: got %+v, want one who is pending since %s", c, reopened)
		}
	})
}
