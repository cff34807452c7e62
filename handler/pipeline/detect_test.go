package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// wrongClock is ours when it goes wrong: by so much.
type wrongClock struct {
	signup.ScaledClock
	by atomic.Int64
}

func (c *wrongClock) Now() time.Time { return c.ScaledClock.Now().Add(time.Duration(c.by.Load())) }

const year = 365 * 24 * time.Hour

// watermark is what the detector's note says.
func (w *world) watermark(name string) time.Time {
	w.t.Helper()
	n, err := w.ledger.Note(context.Background(), "watermark|"+name)
	var m struct{ Watermark time.Time }
	if err == nil && len(n.Body) > 0 {
		err = json.Unmarshal(n.Body, &m)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return m.Watermark
}

func TestAClockThatWasOnceFarAheadLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for i, by := range []time.Duration{2 * time.Hour, 5 * 24 * time.Hour, 8 * 24 * time.Hour, year, 3 * time.Hour} {
			w := newWorld(t, spec())
			if i == 4 {
				w.audit.retention = 90 * time.Minute // so that a gap leaves no more than the usual to be read
			}
			w.engine.Detectors = []signup.Detector{w.audit}
			clock := &wrongClock{}
			w.engine.Clock = clock
			w.mustRun(0)
			clock.by.Store(int64(by))
			w.audit.windows = nil
			w.mustNotRun(time.Minute)
			if got := len(w.audit.windows); got > 10 {
				t.Errorf("%v ahead: %d reads, of what has not happened yet", by, got)
			}
			if got := time.Until(w.watermark("audit")); got > 0 {
				t.Errorf("%v ahead: the watermark is %v in the future, although the service has told the time", by, got)
			}
			clock.by.Store(0)
			time.Sleep(3 * time.Minute)
			w.mustRun(time.Minute)
			id := w.signUp(1) // in an outage that is longer than the overlap
			w.mustRun(80 * time.Minute)
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
	})
}

func TestTheFirstRunBelievesNoWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, by := range []time.Duration{year, -year} {
			w := newWorld(t, spec())
			clock := &wrongClock{}
			clock.by.Store(int64(by))
			w.engine.Clock = clock
			old := w.signUp(1)
			time.Sleep(90 * 24 * time.Hour)
			w.mustNotRun(0)
			clock.by.Store(0)
			id := w.signUp(2)
			w.mustRun(time.Minute)
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
			if rows, err := w.ledger.Get(context.Background(), []signup.UserID{old}); err != nil || len(rows) != 0 {
				t.Errorf("%v: somebody who was a customer long before is taken for a new one (%v)", by, err)
			}
		}
	})
}

func TestAWatermarkInTheFutureIsNotBelieved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		n, err := w.ledger.Note(context.Background(), "watermark|audit")
		if err != nil {
			t.Fatal(err)
		}
		n.Body = []byte(`{"watermark":"` + time.Now().Add(year).UTC().Format(time.RFC3339) + `"}`) // of a service without a Date, say
		if _, err := w.ledger.PutNote(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		id := w.signUp(1)
		w.mustRun(3 * time.Hour)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if got := time.Since(w.watermark("audit")); got < 0 || got > time.Minute {
			t.Errorf("the watermark is %v old", got)
		}
	})
}

// pacedDetector takes its time for each event, and does not begin what would not be done in time, as the client of
// Graph does.
type pacedDetector struct {
	*detector
	each time.Duration
}

func (d pacedDetector) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		for e, err := range d.detector.Events(ctx, w) {
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 5*time.Second+d.each {
				yield(signup.Event{}, &signup.Error{Class: signup.Throttled, Code: "throttled"})
				return
			}
			time.Sleep(d.each)
			if !yield(e, err) {
				return
			}
		}
	}
}

func TestMoreThanARunCanReadIsReadOverSeveral(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, gap := range map[string]time.Duration{"in an hour": 20 * time.Second, "in some minutes": time.Second} {
			w := newWorld(t, spec())
			w.mustRun(0)
			time.Sleep(30 * time.Minute)
			for n := range 180 { // five times what a run has time for
				w.signUp(n)
				time.Sleep(gap)
			}
			w.engine.Detectors = []signup.Detector{pacedDetector{w.audit, 3 * time.Second}}
			runs := 0
			for ; runs < 40 && len(w.systems["billing"].accounts) < 180; runs++ {
				_, _ = w.run(time.Minute)
			}
			if got := len(w.systems["billing"].accounts); got != 180 {
				t.Errorf("%s: %d of 180 were seen after %d runs; the watermark is %v old", name, got, runs, time.Since(w.watermark("audit")))
			}
			t.Logf("%s: %d runs", name, runs)
			// What is read again for an overlap is more than a run can read, too; and yet the windows go on.
			last := w.signUp(1000)
			for range 30 {
				_, _ = w.run(time.Minute)
			}
			w.want(last, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
	})
}

func TestADenseGapIsClosedOverManyRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		time.Sleep(24 * time.Hour)
		for n := range 180 {
			w.signUp(n)
			time.Sleep(10 * time.Second)
		}
		w.engine.Backstop = pacedDetector{w.directory, 3 * time.Second}
		time.Sleep(9 * 24 * time.Hour)
		var sum pipeline.Summary
		for range 40 {
			sum, _ = w.run(time.Minute)
		}
		if got := len(w.systems["billing"].accounts); got != 180 || sum.Detectors[0].Gaps != 0 {
			t.Errorf("%d of 180 were seen, %d gaps are left", got, sum.Detectors[0].Gaps)
		}
	})
}

// registry is the list of users by their creation, which tells who has redeemed an invitation and when.
type registry struct {
	*detector
	redeemed map[signup.UserID]time.Time
}

func (d registry) Name() string { return "backstop" }

func (d registry) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		for e, err := range d.detector.Events(ctx, w) {
			if at, ok := d.redeemed[e.User]; ok {
				e.Kind, e.At = signup.Redeemed, at
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func TestAGuestWhoRedeemedInAGapIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Settings.Origins = append(w.engine.Settings.Origins, signup.Invitation)
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		invite := func(n int) signup.UserID {
			id := w.signUp(n)
			u := w.users.all[id]
			u.CreationType, u.UserType, u.ExternalUserState = "Invitation", "Guest", "PendingAcceptance"
			w.users.put(u)
			return id
		}
		redeem := func(id signup.UserID) {
			u := w.users.all[id]
			u.ExternalUserState = "Accepted"
			w.users.put(u)
		}
		known := invite(1)
		w.mustRun(time.Minute)
		w.want(known, "billing: skipped not-redeemed", "crm: skipped not-redeemed", "news: skipped not-redeemed", "profile: skipped not-redeemed")
		time.Sleep(24 * time.Hour)
		guest, pending := invite(2), invite(3)
		time.Sleep(time.Hour)
		at := time.Now().UTC()
		redeem(guest)
		w.engine.Backstop = registry{w.directory, map[signup.UserID]time.Time{guest: at}}
		w.mustRun(9 * 24 * time.Hour)
		w.want(guest, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		w.want(pending, "billing: skipped not-redeemed", "crm: skipped not-redeemed", "news: skipped not-redeemed", "profile: skipped not-redeemed")
		if row := w.row(guest); row.Kind != signup.Redeemed || !row.At.Equal(at) || row.Detector != "backstop" {
			t.Errorf("got %s at %v by %s, want the redemption", row.Kind, row.At, row.Detector)
		}
	})
}

func TestADetectorAddedAfterABackfillDoesNotReadTheTenantsWholeHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, spec())
		began := time.Now()
		if err := w.engine.Backfill(context.Background(), began.AddDate(-10, 0, 0)); err != nil {
			t.Fatal(err)
		}
		w.mustRun(time.Minute)
		late := &detector{name: "signUps", retention: 168 * time.Hour}
		w.engine.Detectors = append(w.engine.Detectors, late)
		w.directory.windows = nil
		w.mustRun(time.Minute)
		if first := slices.MinFunc(append(w.directory.windows, late.windows...), func(a, b signup.Window) int { return a.From.Compare(b.From) }).From; first.Before(began.Add(-24 * time.Hour)) {
			t.Errorf("it reads from %s on, in %d slices", first, len(w.directory.windows)+len(late.windows))
		}
	})
}

// What a slice shows is recorded as it comes, so that memory does not grow with it, and before the slice is known to be
// whole. The watermark waits for that.
func TestASliceIsRecordedAsItIsRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.engine.Settings.Overlap = 10 * time.Minute // so that there is one slice
		w.mustRun(time.Minute)
		read := w.watermark("audit")
		var ids []signup.UserID
		for n := range 450 {
			ids = append(ids, w.signUp(n))
		}
		recorded := func() int {
			rows, err := w.ledger.Get(t.Context(), ids)
			if err != nil {
				t.Fatal(err)
			}
			return len(rows)
		}
		w.audit.fail, w.audit.failAfter = errors.New("the last page is broken"), 430
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrNoDetector) {
			t.Errorf("got %v, want that no detector could be read", err)
		}
		if n := recorded(); n != 400 || !w.watermark("audit").Equal(read) {
			t.Errorf("after a broken page: got %d rows and the watermark %v, want the 400 of two full calls and %v", n, w.watermark("audit"), read)
		}
		w.audit.fail = nil
		w.mustRun(time.Minute)
		if n := recorded(); n != 450 || !w.watermark("audit").After(read) {
			t.Errorf("after a whole slice: got %d rows and the watermark %v, want all", n, w.watermark("audit"))
		}
		w.want(ids[449], "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}
