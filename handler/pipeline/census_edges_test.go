package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func TestAHalfReadSliceOfACensusCountsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(100 * 24 * time.Hour)
		w.signUp(1)
		second := w.unseen(2)
		w.mustRun(time.Minute)
		w.mustRun(3 * time.Hour)
		w.register.tear = func(_ int, e signup.Event) error {
			if e.User == second {
				return errors.New("page 2: unexpected EOF")
			}
			return nil
		}
		for range 3 {
			if c, err := w.census(pipeline.CensusOptions{Act: true}); c.Users != 0 || !c.Ended.IsZero() {
				t.Errorf("got %+v, %v", c, err)
			}
		}
		if _, err := w.census(pipeline.CensusOptions{}); err == nil {
			t.Error("a count that is not whole was none without an error")
		}
		w.register.tear = nil
		if c, err := w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Users != 2 || c.Missing != 1 || c.Associated != 1 {
			t.Errorf("the next one: got %+v, %v", c, err)
		}
	})
}

func TestACensusBearsAMishap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(time.Minute) // later than what is read to learn the time
		w.signUp(1)
		w.mustRun(time.Minute)
		w.mustRun(3 * time.Hour)
		mishaps := 2
		w.register.tear = func(int, signup.Event) error {
			if mishaps--; mishaps >= 0 {
				return &signup.Error{Class: signup.Transient, Code: "unavailable"}
			}
			return nil
		}
		if c, err := w.census(pipeline.CensusOptions{}); err != nil || c.Ended.IsZero() || c.Users != 1 {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestASliceCountsWhenItsRowsAreWritten(t *testing.T) {
	for _, op := range []string{"Insert", "Replace"} {
		bubble(t, func(t *testing.T) {
			w := newCensusWorld(t, oneDestination())
			w.takesGuests()
			guest := w.invite(1)
			w.mustRun(time.Minute)
			time.Sleep(24 * time.Hour)
			w.accept(guest)
			w.audit.forgetLast()
			w.unseen(2)
			w.mustRun(3 * time.Hour)
			w.faults.set(op)
			for range 2 {
				if c, err := w.census(pipeline.CensusOptions{Act: true}); c.Users != 0 || !c.Ended.IsZero() {
					t.Errorf("without %s: got %+v, %v", op, c, err)
				}
			}
			w.faults.set()
			if c, err := w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Users != 2 || c.Missing != 1 || c.Pending != 1 || c.Ended.IsZero() {
				t.Errorf("then: got %+v, %v", c, err)
			}
		})
	}
}

// midnights is a directory whose windows have inclusive ends, with a user created at each midnight, every third of them
// a guest who accepted a day later.
type midnights struct {
	first time.Time
	n     int
}

func (midnights) Name() string             { return "directory" }
func (midnights) Served() time.Time        { return time.Time{} }
func (midnights) Retention() time.Duration { return 0 }

func (m midnights) Events(_ context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		for n := range m.n {
			at := m.first.AddDate(0, 0, n)
			e := signup.Event{User: signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", n)), Kind: signup.Created, At: at}
			if n%3 == 0 {
				e.Kind, e.At, e.Created = signup.Redeemed, at.AddDate(0, 0, 1), at
			}
			if !at.Before(w.From) && !at.After(w.To) && !yield(e, nil) {
				return
			}
		}
	}
}

func TestWhoWasCreatedBetweenTwoSlicesCountsOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		m := midnights{first: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), n: 366}
		time.Sleep(400 * 24 * time.Hour)
		w.mustRun(0)
		w.engine.Backstop = m
		ends := 0
		c, err := w.census(pipeline.CensusOptions{Show: func(c pipeline.Census) {
			if c.Cursor.Equal(c.Cursor.Truncate(24 * time.Hour)) {
				ends++
			}
		}})
		if err != nil || c.Users != 366 || c.Before != 366 || ends < 3 {
			t.Errorf("got %+v, %v, with %d slices that end at midnight", c, err, ends)
		}
		// … and so do those who are taken in.
		if err := w.engine.Backfill(t.Context(), m.first); err != nil {
			t.Fatal(err)
		}
		if c, err = w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Users != 366 || c.Backfilled != 366 {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestABackfillThatDiedHalfWayLeavesNoCensusWithTheOldRange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.withRegister()
		time.Sleep(10 * 24 * time.Hour)
		since := time.Now()
		w.signUp(1)
		time.Sleep(200 * 24 * time.Hour)
		w.mustRun(0)
		w.mustRun(3 * time.Hour)
		stopped, stop := context.WithCancel(t.Context())
		if c, err := w.engine.Census(stopped, pipeline.Trigger{}, pipeline.CensusOptions{Act: true, Show: func(pipeline.Census) { stop() }}); err != nil || c.Users != 1 || !c.Ended.IsZero() {
			t.Fatalf("the census to be interrupted: got %+v, %v", c, err)
		}
		w.engine.Ledger = &mortal{Ledger: w.ledger, dieAt: 3} // the lease, the state, and then the census
		if err := w.engine.Backfill(t.Context(), since); !errors.Is(err, errDead) {
			t.Fatalf("got %v", err)
		}
		w.engine.Ledger = w.ledger
		if c, err := w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Backfilled != 1 || c.Before != 0 {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestARowThatARunIsAtIsLeftToTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		both := pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "crm"}, {Name: "news"}}}
		w := newWorld(t, both)
		w.withRegister()
		w.mustRun(0)
		time.Sleep(time.Minute)
		w.configure(oneDestination())
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.configure(both)
		w.withRegister()
		w.mustRun(3 * time.Hour)
		w.put(w.row(id).Reopen("crm", time.Now()).Intend("a run", time.Now()))
		if c := w.certify(); c.Pending != 1 || len(c.Added) != 0 {
			t.Errorf("got %+v", c)
		}
		w.mustRun(time.Minute)
		if c := w.certify(); len(c.Added) != 1 {
			t.Errorf("the next one: got %+v", c)
		}
		w.mustRun(time.Minute)
		w.want(id, "crm: associated", "news: associated", "profile: associated")
	})
}

func TestWhoIsForNobodyGetsNoDestination(t *testing.T) {
	bubble(t, func(t *testing.T) {
		both := pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "crm"}, {Name: "news"}}}
		w := newWorld(t, both)
		w.withRegister()
		w.mustRun(0)
		time.Sleep(time.Minute)
		w.configure(oneDestination())
		id := w.invite(1)
		w.mustRun(time.Minute)
		w.configure(both)
		w.withRegister()
		w.mustRun(3 * time.Hour)
		if c := w.certify(); len(c.Added) != 0 || len(c.Skipped) != 1 || c.Skipped[0] != (pipeline.Tally{Reason: "origin", Users: 1}) {
			t.Errorf("got %+v", c)
		}
		w.want(id, "crm: skipped origin", "profile: skipped origin")
	})
}

func TestWhomARunInsertsInTheMeantimeIsNotMissing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(time.Minute)
		w.unseen(1)
		w.unseen(2)
		w.mustRun(3 * time.Hour)
		w.engine.Ledger = &laterInserts{Ledger: w.ledger}
		if c := w.certify(); c.Users != 2 || c.Missing != 1 || c.Pending != 1 {
			t.Errorf("got %+v", c)
		}
	})
}

func TestBackfillDuringACensusBeginsItAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.withRegister()
		time.Sleep(10 * 24 * time.Hour)
		since := time.Now()
		w.signUp(1)
		time.Sleep(100 * 24 * time.Hour)
		w.mustRun(0)
		w.mustRun(3 * time.Hour)
		c, err := w.census(pipeline.CensusOptions{Act: true, Show: func(c pipeline.Census) {
			if c.Before == 1 && c.Since.After(since) {
				if err := w.engine.Backfill(context.Background(), since); err != nil {
					t.Error(err)
				}
			}
		}})
		if err != nil || !c.Busy || !c.Ended.IsZero() {
			t.Fatalf("the one under way: got %+v, %v", c, err)
		}
		if c, err = w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Backfilled != 1 || c.Before != 0 || c.Ended.IsZero() {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

// shifted is a clock that is wrong.
type shifted struct {
	signup.ScaledClock
	by time.Duration
}

func (s shifted) Now() time.Time { return s.ScaledClock.Now().Add(s.by) }

func TestAClockThatWasWrongKeepsNoCensusWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(time.Minute)
		w.signUp(1)
		w.mustRun(3 * time.Hour)
		w.engine.Clock = shifted{by: 300 * 24 * time.Hour}
		if _, err := w.census(pipeline.CensusOptions{Act: true}); !errors.Is(err, pipeline.ErrClock) {
			t.Errorf("got %v, want %v", err, pipeline.ErrClock)
		}
		w.engine.Clock = w.clock
		if c, err := w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Idle != "" || c.Users != 1 {
			t.Errorf("got %+v, %v", c, err)
		}
	})
}

func TestACertificateNamesAsManyUsersAsFit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		name := strings.Repeat("a-long-name-", 5)
		w.configure(pipeline.Spec{})
		time.Sleep(time.Minute)
		for n := range 1000 {
			w.unseen(n)
		}
		w.mustRun(3 * time.Hour)
		w.withRegister()
		c := w.certify()
		if c.Missing != 1000 || len(c.Exceptions)+c.Unnamed != 1000 || len(c.Exceptions) != 100 {
			t.Errorf("got %d missing, %d named and %d not", c.Missing, len(c.Exceptions), c.Unnamed)
		}
		for row, err := range w.ledger.All(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			row.Detected = row.At
			row = row.Add(name, row.At).SettleAll(signup.Failed, name, "", row.At)
			row.Associations[0].Reason = fmt.Sprint(name, row.User[34:])
			w.put(row)
		}
		c = w.certify()
		n, err := w.ledger.Note(t.Context(), "certificate")
		var stored pipeline.Census
		if err = errors.Join(err, json.NewDecoder(bytes.NewReader(n.Body)).Decode(&stored)); err != nil || len(n.Body) > 30_000 {
			t.Fatalf("%d bytes, %v", len(n.Body), err)
		}
		if len(stored.Exceptions)+stored.Unnamed != 1000 || stored.CheckSum() != nil || len(stored.Failed) != 100 {
			t.Errorf("stored: %d named and %d not, %d reasons; %v", len(stored.Exceptions), stored.Unnamed, len(stored.Failed), stored.CheckSum())
		}
		if diff := cmp.Diff(stored.Failed, c.Failed); diff != "" {
			t.Error(diff)
		}
	})
}
