package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// auditFirst makes the directory a little slower, so that the audit log comes first.
func (w *world) auditFirst() {
	w.engine.Detectors = []signup.Detector{w.audit, slowDetector{w.directory, time.Second}}
}

// seen is the matrix.
func (w *world) seen() map[string]pipeline.Sightings {
	w.t.Helper()
	all, err := w.engine.Matrix(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]pipeline.Sightings{}
	for _, s := range all {
		out[s.Name] = s.Seen
	}
	return out
}

func after(detector string, users int) []pipeline.After {
	return []pipeline.After{{Detector: detector, Users: users}}
}

func counts(s pipeline.Sightings) [2]int { return [2]int{s.First, s.Lags.N()} }

func TestWhoSawWhomFirstAndHowLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.auditFirst()
		w.mustRun(0)
		w.mustRun(time.Minute)
		w.signUp(1)
		sum := w.mustRun(time.Minute)
		got := w.seen()
		if counts(got["audit"]) != [2]int{1, 1} || len(got["audit"].Also) != 0 || counts(got["directory"]) != [2]int{0, 1} ||
			!cmp.Equal(got["directory"].Also, after("audit", 1)) {
			t.Errorf("got %+v", got)
		}
		if d := sum.Detectors; d[0].New != 1 || d[0].Also != 0 || d[0].LagP99 != 60 || d[1].New != 0 || d[1].Also != 1 || d[1].LagP50 != 61 {
			t.Errorf("got %+v", d)
		}
		// Shown again, and shown by a record that was published twice: nothing new.
		for range 5 {
			w.mustRun(time.Minute)
		}
		if diff := cmp.Diff(w.seen(), got); diff != "" {
			t.Errorf("five runs later: got (-) want (+):\n%s", diff)
		}
		// The audit record of another comes 40 minutes later.
		id := w.signUp(2)
		late := w.audit.events
		w.audit.events = late[:1]
		for range 40 {
			w.mustRun(time.Minute)
		}
		w.audit.events = late
		w.mustRun(time.Minute)
		got = w.seen()
		if s := got["audit"]; s.First != 1 || !cmp.Equal(s.Also, after("directory", 1)) || s.Lags.Most < 40*time.Minute {
			t.Errorf("%s: got %+v", w.row(id).Detector, s)
		}
		if got["directory"].First != 1 {
			t.Errorf("got %+v", got["directory"])
		}
	})
}

func TestCountsSurviveRestartsAndCountNobodyTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.auditFirst()
		w.mustRun(0)
		for n := range 30 {
			w.signUp(n)
			w.mustRun(time.Minute)
			w.configure(spec()) // another process
			w.auditFirst()
		}
		w.mustRun(time.Minute)
		got := w.seen()
		if counts(got["audit"]) != [2]int{30, 30} || !cmp.Equal(got["directory"].Also, after("audit", 30)) || got["directory"].First != 0 {
			t.Errorf("got %+v", got)
		}
		if p50 := got["audit"].Lags.Quantile(0.5); p50 != time.Minute {
			t.Errorf("got a median of %v, want a minute", p50)
		}
	})
}

func TestARowWhoseCountWasLostIsCountedByTheNextRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		id := w.signUp(1)
		w.engine.Ledger = &noWatermark{w.faults}
		_, _ = w.run(time.Minute)
		if w.row(id).Detector != "audit" || w.seen()["audit"].First != 0 {
			t.Fatal("the test needs a row without its count")
		}
		w.configure(spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(time.Minute)
		if got := w.seen()["audit"]; got.First != 1 || len(got.Also) != 0 {
			t.Errorf("got %+v", got)
		}
	})
}

// noWatermark refuses the detectors' notes.
type noWatermark struct{ signup.Ledger }

func (l *noWatermark) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if strings.HasPrefix(n.Name, "watermark|") {
		return n, errors.New("the ledger is down")
	}
	return l.Ledger.PutNote(ctx, n)
}

func TestARunThatCannotWriteTheWatermarkHasFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.engine.Ledger = &noWatermark{w.faults}
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrNoDetector) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhoWasInTheLedgerBeforeTheProcessIsCountedWhereItIsCertain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.auditFirst()
		w.mustRun(0)
		w.directory.fail = errors.New("down")
		w.signUp(1)
		forgotten := w.signUp(2)
		w.mustRun(time.Minute)
		row := w.row(forgotten).Forget(time.Now().UTC())
		if _, err := w.ledger.Replace(context.Background(), []signup.Row{row}); err != nil {
			t.Fatal(err)
		}
		w.configure(spec())
		w.auditFirst()
		w.directory.fail = nil
		w.mustRun(time.Minute)
		got := w.seen()
		if got["audit"].First != 2 || len(got["audit"].Also) != 0 || got["directory"].First != 0 || !cmp.Equal(got["directory"].Also, after("audit", 1)) {
			t.Errorf("got %+v; want the one counted whose sign-up the directory cannot have shown before, and not who is forgotten", got)
		}
	})
}

func TestTheBackstopReopensWhoWasRestored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		w.engine.Backstop = registry{w.directory, nil}
		w.audit.fail = errors.New("down")
		time.Sleep(24 * time.Hour)
		id := w.signUp(1)
		u := w.users.all[id]
		delete(w.users.all, id)
		seen := w.directory.events
		for range 35 {
			w.mustRun(time.Minute)
			w.directory.events = nil
		}
		w.want(id, "billing: skipped deleted", "crm: skipped deleted", "news: skipped deleted", "profile: skipped deleted")
		w.mustRun(9 * 24 * time.Hour)
		w.users.put(u)
		w.directory.events, w.audit.fail = seen, nil
		w.mustRun(time.Minute)
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestOurOwnPauseIsNotTheDetectorsLag(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.signUp(0)
		w.mustRun(10 * time.Hour) // the first run
		w.signUp(1)
		w.mustRun(5 * time.Hour) // an outage
		if got := counts(w.seen()["audit"]); got != [2]int{2, 0} {
			t.Errorf("got %v, want both counted and no lag", got)
		}
	})
}

func TestCountingSightingsCostsNoWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.auditFirst()
		w.mustRun(0)
		w.mustRun(time.Minute)
		cost := func() int64 {
			before := w.ledger.Counts().NoteWrites
			w.mustRun(time.Minute)
			return w.ledger.Counts().NoteWrites - before
		}
		idle := cost()
		w.signUp(1)
		if got := cost(); got != idle+1 {
			t.Errorf("a run with a sign-up writes %d notes, one without %d, want the history more", got, idle)
		}
	})
}

func TestUsersFoundInAGapAreNobodysSightings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.engine.Backstop = registry{w.directory, nil}
		w.mustRun(0)
		time.Sleep(24 * time.Hour)
		id := w.signUp(1)
		sum := w.mustRun(9 * 24 * time.Hour)
		if got := w.seen()["audit"]; got.First != 0 || got.Healed != 1 || got.Lags.N() != 0 || w.row(id).Detector != "backstop" {
			t.Errorf("got %+v by %s", got, w.row(id).Detector)
		}
		if sum.Detectors[0].New != 1 {
			t.Errorf("got %+v", sum.Detectors)
		}
	})
}

func TestADetectorThatIsLateIsSaidOnceADay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, pipeline.Spec{DisplayName: "user.givenName"})
		var log bytes.Buffer
		w.engine.Log = slog.New(slog.NewTextHandler(&log, nil))
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		said := func() int { return strings.Count(log.String(), "sign-ups are shown late; raise sync.overlap") }
		n := 0
		show := func(late time.Duration, users int) { // users whose records come so late
			for range users {
				n++
				w.signUp(n)
			}
			hidden := w.audit.events
			w.audit.events = nil
			for range int(late / time.Minute) {
				w.mustRun(time.Minute)
			}
			w.audit.events = hidden
			w.mustRun(0)
		}
		show(40*time.Minute, 99)
		if said() != 0 {
			t.Error("99 are too few to say anything")
		}
		show(40*time.Minute, 1)
		if said() != 1 {
			t.Errorf("said %d times: %s", said(), &log)
		}
		for range 23 * 4 {
			w.mustRun(15 * time.Minute)
		}
		if said() != 1 {
			t.Errorf("said %d times on one day", said())
		}
		for range 2 * 4 {
			w.mustRun(15 * time.Minute)
		}
		if said() != 2 {
			t.Errorf("said %d times on two days", said())
		}
		status, err := w.engine.Matrix(context.Background())
		if err != nil || !status[0].Late(time.Hour) || status[0].Late(2*time.Hour) {
			t.Errorf("got %+v, %v", status, err)
		}
		// A day of good records, and it is forgotten.
		for range 20 {
			show(time.Minute, 100)
		}
		log.Reset()
		for range 25 * 4 {
			w.mustRun(15 * time.Minute)
		}
		if said() != 0 {
			t.Error("it is not late any more")
		}
	})
}

func TestLateNeedsEnough(t *testing.T) {
	status := func(n int, lag time.Duration) pipeline.DetectorStatus {
		var s pipeline.DetectorStatus
		for range n {
			s.Recent.Add(lag)
		}
		return s
	}
	for _, c := range []struct {
		status  pipeline.DetectorStatus
		overlap time.Duration
		want    bool
	}{
		{status(0, 0), 0, false}, {status(99, time.Hour), time.Hour, false}, {status(100, time.Hour), time.Hour, true},
		{status(100, 30*time.Minute), time.Hour, false}, {status(100, 31*time.Minute), time.Hour, true}, {status(5000, 5*time.Minute), time.Hour, false},
	} {
		if got := c.status.Late(c.overlap); got != c.want {
			t.Errorf("%d of %v with an overlap of %v: got %t", c.status.Recent.N(), c.status.Recent.Most, c.overlap, got)
		}
	}
}

func TestALedgerThatIsLostIsFilledAgainByAProcessThatKnewIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		time.Sleep(time.Minute)
		id := w.signUp(1)
		w.mustRun(time.Minute)
		everywhere(w, id)
		w.ledger = ledger.Memory(tenantID)
		w.faults.Ledger = w.ledger
		w.mustRun(time.Minute)
		everywhere(w, id)
		if made := w.systems["billing"].made; made != 1 {
			t.Errorf("%d accounts", made)
		}
	})
}
