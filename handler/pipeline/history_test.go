package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func (w *world) history() pipeline.History {
	w.t.Helper()
	h, err := w.engine.History(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// flows are the counts of a series that are not zero, by how many of its steps before the latest.
func flows(s pipeline.Series) map[int]pipeline.Flow {
	out := map[int]pipeline.Flow{}
	for i, f := range s.Counts {
		if f != (pipeline.Flow{}) {
			out[len(s.Counts)-1-i] = f
		}
	}
	return out
}

func wantFlows(t *testing.T, about string, s pipeline.Series, want map[int]pipeline.Flow) {
	t.Helper()
	if diff := cmp.Diff(flows(s), want); diff != "" {
		t.Errorf("%s: got, want:\n%s", about, diff)
	}
}

func TestHistoryCountsBySignUpAndBySettling(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		if diff := cmp.Diff(w.history(), pipeline.History{}); diff != "" {
			t.Errorf("before the first run: got, want:\n%s", diff)
		}
		w.signUp(1)
		w.mustRun(30 * time.Minute)
		w.signUp(2)
		w.signUp(3)
		guest := w.signUp(4)
		u := w.users.all[guest]
		u.CreationType, u.UserType, u.ExternalUserState, u.Identities = "Invitation", "Guest", "Accepted", nil
		w.users.put(u)
		w.mustRun(26 * time.Hour) // they signed up half an hour into the first hour, and are seen a day later
		h := w.history()
		wantFlows(t, "hours", h.Hours, map[int]pipeline.Flow{26: {4, 1, 0, 0}, 0: {0, 2, 1, 0}})
		wantFlows(t, "days", h.Days, map[int]pipeline.Flow{1: {4, 1, 0, 0}, 0: {0, 2, 1, 0}})
		if len(h.Hours.Counts) != 7*24 || len(h.Days.Counts) != 90 || !h.Since.Equal(time.Date(2000, 1, 1, 0, 30, 0, 0, time.UTC)) {
			t.Errorf("got %d hours, %d days, since %v", len(h.Hours.Counts), len(h.Days.Counts), h.Since)
		}
		if len(h.Delays) != 2 || h.Delays[0].Lags.N() != 1 || h.Delays[0].Lags.Most != 30*time.Minute || h.Delays[1].Lags.N() != 2 || h.Delays[1].Lags.Most != 26*time.Hour {
			t.Errorf("got delays %+v", h.Delays)
		}
		if len(h.Destinations) != 3 || h.Destinations[0].Name != "billing" || h.Destinations[0].Lags().N() != 3 {
			t.Errorf("got destinations %+v", h.Destinations)
		}
		r := h.Runs[0]
		if len(h.Runs) != 2 || r.Users != 3 || r.Associated != 6 || r.Skipped != 6 || r.Ended.IsZero() || !r.To.Equal(r.Started) || len(r.Detectors) != 2 || r.Detectors[0].New+r.Detectors[1].New != 3 {
			t.Errorf("got runs %+v", h.Runs)
		}

		time.Sleep(200 * 24 * time.Hour)
		w.signUp(5)
		w.mustRun(time.Minute)
		h = w.history()
		wantFlows(t, "half a year later", h.Days, map[int]pipeline.Flow{0: {1, 1, 0, 0}})
		wantFlows(t, "half a year later", h.Hours, map[int]pipeline.Flow{0: {1, 1, 0, 0}})
		if len(h.Delays) != 1 || h.Delays[0].Lags.N() != 1 {
			t.Errorf("half a year later: got delays %+v", h.Delays)
		}
	})
}

func TestHistoryCountsWhoIsReopenedOnceMoreAndTimesNobodyTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.systems["billing"].before = always(refused)
		w.signUp(1)
		w.mustRun(time.Minute)
		wantFlows(t, "who has failed", w.history().Hours, map[int]pipeline.Flow{0: {1, 0, 0, 1}})
		w.systems["billing"].before = nil
		if _, err := w.replay(t.Context(), act(failed)); err != nil {
			t.Fatal(err)
		}
		w.mustRun(time.Hour)
		h := w.history()
		wantFlows(t, "and was replayed", h.Hours, map[int]pipeline.Flow{1: {1, 0, 0, 1}, 0: {0, 1, 0, 0}})
		for _, d := range h.Delays {
			if d.Lags.N() > 0 {
				t.Errorf("a replayed user is timed: %+v", d)
			}
		}
	})
}

func TestAnIdleRunLeavesTheHistoryAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.mustRun(time.Minute)
		before := w.history()
		w.mustRun(time.Minute)
		notes := w.ledger.Counts()
		w.mustRun(time.Minute)
		after := w.ledger.Counts()
		if diff := cmp.Diff(w.history(), before); diff != "" {
			t.Errorf("got, want:\n%s", diff)
		}
		if got := after.NoteWrites - notes.NoteWrites; got != 4 { // the lease twice, and the two detectors
			t.Errorf("an idle run has written %d notes, want 4", got)
		}
	})
}

func TestHistoryNamesTheRunThatDiedAndTheTroubleOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.mustRun(time.Minute)
		started := time.Now().UTC()
		note, err := w.ledger.Note(t.Context(), "run")
		if err != nil {
			t.Fatal(err)
		}
		dead := started.Format("20060102T150405") + "-12345678"
		note.Body = fmt.Appendf(nil, `{"owner":%q,"expires":%q}`, dead, started.Add(2*time.Minute).Format(time.RFC3339))
		if _, err := w.ledger.PutNote(t.Context(), note); err != nil {
			t.Fatal(err)
		}
		w.mustRun(5 * time.Minute)
		h := w.history()
		if len(h.Runs) != 3 || h.Runs[1].Run != dead || !h.Runs[1].Started.Equal(started) || !h.Runs[1].Ended.IsZero() {
			t.Errorf("after a run that died: got %+v", h.Runs)
		}

		down := &signup.Error{Class: signup.Transient, Code: "unavailable"}
		w.audit.fail, w.directory.fail = down, down
		for range 5 {
			if _, err := w.run(time.Minute); err == nil {
				t.Fatal("no detector could be read, and the run is good")
			}
		}
		h = w.history()
		if r := h.Runs[0]; len(h.Runs) != 4 || r.Trouble != "no-detector" || r.Before != 4 || r.Detectors[1].Trouble != "unavailable" || !r.Started.Equal(time.Now().UTC()) {
			t.Errorf("five runs with the same trouble: got %+v", h.Runs)
		}
		w.audit.fail = nil
		w.mustRun(time.Minute)
		if r := w.history().Runs[0]; r.Trouble != "" || r.Before != 0 || r.Detectors[0].Trouble != "" || r.Detectors[1].Trouble != "unavailable" {
			t.Errorf("one detector is back: got %+v", r)
		}
	})
}

func TestAHistoryThatCannotBeWrittenOrReadFailsNoRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		if _, err := w.ledger.PutNote(t.Context(), signup.Note{Name: "history", Body: []byte(`{"hours":7}`)}); err != nil {
			t.Fatal(err)
		}
		w.signUp(1)
		w.mustRun(time.Minute)
		wantFlows(t, "over one of another version", w.history().Hours, map[int]pipeline.Flow{0: {1, 1, 0, 0}})

		id := w.signUp(2)
		racing := &racedLedger{Ledger: w.ledger}
		w.engine.Ledger = racing
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		wantFlows(t, "written by another run meanwhile", w.history().Hours, map[int]pipeline.Flow{0: {2, 2, 0, 0}})
		if racing.times != 2 {
			t.Errorf("it was written %d times, want once in vain", racing.times)
		}
		racing.always = true
		w.signUp(3)
		w.mustRun(time.Minute)
		wantFlows(t, "written by others again and again", w.history().Hours, map[int]pipeline.Flow{0: {2, 2, 0, 0}})
	})
}

// racedLedger lets somebody else write the history right before us, the first time or always.
type racedLedger struct {
	signup.Ledger
	times  int
	always bool
}

func (r *racedLedger) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if n.Name != "history" {
		return r.Ledger.PutNote(ctx, n)
	}
	if r.times++; r.times == 1 || r.always {
		current, err := r.Ledger.Note(ctx, n.Name)
		if err != nil {
			return n, err
		}
		if _, err := r.Ledger.PutNote(ctx, current); err != nil {
			return n, err
		}
	}
	return r.Ledger.PutNote(ctx, n)
}

// A write whose answer is lost, and over which the next run has written by the time that it is looked for, is not done again.
func TestHistoryCountsARunOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.engine.Ledger = &deafLedger{Ledger: w.ledger}
		w.mustRun(time.Minute)
		h := w.history()
		wantFlows(t, "written, and said not to be", h.Hours, map[int]pipeline.Flow{0: {1, 1, 0, 0}})
		if len(h.Runs) != 1 {
			t.Errorf("got runs %+v", h.Runs)
		}
	})
}

func TestTheLeaseIsFreeBeforeTheHistoryIsWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		look := &lookingLedger{Ledger: w.ledger}
		w.engine.Ledger = look
		w.mustRun(time.Minute)
		if look.lease == "" || strings.Contains(look.lease, `"owner"`) {
			t.Errorf("the lease was %q", look.lease)
		}
	})
}

// lookingLedger looks at the lease when the history is written.
type lookingLedger struct {
	signup.Ledger
	lease string
}

func (l *lookingLedger) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if n.Name == "history" {
		lease, err := l.Ledger.Note(ctx, "run")
		if err != nil {
			return n, err
		}
		l.lease = string(lease.Body)
	}
	return l.Ledger.PutNote(ctx, n)
}

// deafLedger writes the history and takes it for not written.
type deafLedger struct{ signup.Ledger }

func (d *deafLedger) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	n, err := d.Ledger.PutNote(ctx, n)
	if err == nil && n.Name == "history" {
		err = signup.ErrConflict
	}
	return n, err
}

func TestHistoryShowsTheWindowOfThoseDetectorsThatWereRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.signUp(1)
		w.engine.Ledger = unreadNote{w.ledger, "watermark|directory"}
		w.mustRun(time.Minute)
		if r := w.history().Runs[0]; r.From.IsZero() || r.Detectors[1].Trouble == "" {
			t.Errorf("got %+v", r)
		}
	})
}

// unreadNote cannot read one note.
type unreadNote struct {
	signup.Ledger
	name string
}

func (u unreadNote) Note(ctx context.Context, name string) (signup.Note, error) {
	if name == u.name {
		return signup.Note{}, &signup.Error{Class: signup.Transient, Code: "unavailable"}
	}
	return u.Ledger.Note(ctx, name)
}

func TestHistoryKnowsTheCertificate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		until := time.Now().UTC().AddDate(1, 0, 0)
		w.engine.Certificate = func() (time.Time, time.Time) { return until.AddDate(-2, 0, 0), until }
		w.mustRun(0)
		if c := w.history().Certificate; c == nil || !c.NotAfter.Equal(until) {
			t.Errorf("got %+v, want one until %v", c, until)
		}
		until = until.AddDate(1, 0, 0)
		w.mustRun(time.Minute)
		if c := w.history().Certificate; c == nil || !c.NotAfter.Equal(until) {
			t.Errorf("after it was renewed: got %+v, want one until %v", c, until)
		}
	})
}

func TestStatusNamesWhoWaitsLongest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.systems["billing"].before = always(&signup.Error{Class: signup.Transient, Code: "unavailable"})
		at := time.Now().UTC()
		first := w.signUp(1)
		w.mustRun(time.Minute)
		w.signUp(2)
		w.mustRun(time.Minute)
		s := w.status()
		want := &pipeline.Unsettled{User: first, SignedUp: at, Due: w.row(first).Due, Destinations: []string{"billing", "crm", "profile"}}
		if diff := cmp.Diff(s.Longest, want); diff != "" {
			t.Errorf("got, want:\n%s", diff)
		}
		if s.Destinations[0].Pending != 2 || s.Destinations[2].Pending != 0 {
			t.Errorf("got %+v, want two who wait for billing and nobody for news", s.Destinations)
		}
	})
}
