package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

var errDown = errors.New("down")

// mustNotRun runs with a clock that is wrong.
func (w *world) mustNotRun(d time.Duration) {
	w.t.Helper()
	if _, err := w.run(d); !errors.Is(err, pipeline.ErrClock) {
		w.t.Errorf("got %v, want %v", err, pipeline.ErrClock)
	}
}

func TestARunWithAWrongClockWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, by := range []time.Duration{6 * time.Minute, -6 * time.Minute, year, -year} {
			w := newWorld(t, spec())
			w.mustRun(0)
			id := w.signUp(1)
			w.systems["billing"].before = func(context.Context, signup.Request) error { return errDown }
			w.mustRun(time.Minute)
			w.systems["billing"].before = nil
			clock := &wrongClock{}
			clock.by.Store(int64(by))
			w.engine.Clock = clock
			w.audit.fail, w.directory.fail, w.users.down = errDown, errDown, errDown // an error tells the time as well
			w.mustNotRun(time.Minute)
			w.audit.fail, w.directory.fail, w.users.down = nil, nil, nil
			clock.by.Store(0)
			w.mustRun(time.Minute)
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
	})
}

func TestARunWhoseClockGoesWrongMeanwhileGoesByTheTimeThatPasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, by := range []time.Duration{year, -year} {
			w := newWorld(t, spec())
			clock := &wrongClock{}
			w.engine.Clock = clock
			w.mustRun(0)
			id := w.signUp(1)
			w.systems["billing"].before = func(context.Context, signup.Request) error { return errDown }
			w.mustRun(time.Minute)
			w.systems["billing"].before = func(context.Context, signup.Request) error {
				clock.by.Store(int64(by))
				return errDown
			}
			w.mustRun(time.Minute)
			clock.by.Store(0)
			w.systems["billing"].before = nil
			w.mustRun(2 * time.Minute)
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
	})
}

func TestALeaseFromTheFutureKeepsNobodyAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		n, err := w.ledger.Note(context.Background(), "run")
		if err != nil {
			t.Fatal(err)
		}
		n.Body = fmt.Appendf(nil, `{"owner":"a-process-that-died","expires":%q}`, time.Now().Add(year).UTC().Format(time.RFC3339))
		if _, err := w.ledger.PutNote(context.Background(), n); err != nil {
			t.Fatal(err)
		}
		if sum := w.mustRun(time.Minute); sum.Busy {
			t.Error("it waits for a process that has had a wrong clock")
		}
	})
}

func TestNothingIsDoneWhileNobodyTellsTheTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		w.systems["billing"].before = func(context.Context, signup.Request) error { return errDown }
		w.mustRun(time.Minute)
		clock := &wrongClock{}
		clock.by.Store(int64(year))
		w.engine.Clock = clock
		for _, d := range []*detector{w.audit, w.directory} {
			d.fail, d.silent = errDown, true
		}
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrNoDetector) {
			t.Errorf("got %v, want %v", err, pipeline.ErrNoDetector)
		}
		for _, d := range []*detector{w.audit, w.directory} {
			d.fail, d.silent = nil, false
		}
		clock.by.Store(0)
		w.systems["billing"].before = nil
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestACommandDoesNothingByAWrongClock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		w.mustRun(time.Minute)
		replay := pipeline.ReplayOptions{Users: []signup.UserID{id}, Destinations: []string{"billing"}, State: signup.Associated, Act: true}
		w.audit.ahead, w.directory.ahead = 24*time.Hour, 24*time.Hour
		if err := w.engine.Replay(context.Background(), replay); !errors.Is(err, pipeline.ErrClock) {
			t.Errorf("got %v", err)
		}
		everywhere(w, id)
		w.audit.silent, w.directory.silent = true, true // nobody tells: whoever gives a command looks at a clock
		w.audit.fail, w.directory.fail = errors.New("unreachable"), errors.New("unreachable")
		if err := w.engine.Replay(context.Background(), replay); err != nil {
			t.Error(err)
		}
	})
}

func TestNoClockIsBelievedThatTheAnswersDoNotConfirm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		clock := &wrongClock{}
		clock.by.Store(int64(year))
		w.engine.Clock = clock
		w.directory.silent = true // it answers, and does not say when
		w.mustNotRun(time.Minute)
		w.audit.silent = true
		if _, err := w.run(time.Minute); !errors.Is(err, pipeline.ErrNoDetector) {
			t.Errorf("got %v, want %v", err, pipeline.ErrNoDetector)
		}
	})
}
