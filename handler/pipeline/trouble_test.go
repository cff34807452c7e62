package pipeline_test

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// slowDetector takes its time for each read.
type slowDetector struct {
	signup.Detector
	each time.Duration
}

func (d slowDetector) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		select {
		case <-time.After(d.each):
		case <-ctx.Done():
			yield(signup.Event{}, ctx.Err())
			return
		}
		d.Detector.Events(ctx, w)(yield)
	}
}

func TestALongGapIsClosedOverManyRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		w.engine.Backstop = slowDetector{w.directory, 200 * time.Millisecond}
		time.Sleep(24 * time.Hour)
		id := w.signUp(1)
		time.Sleep(60 * 24 * time.Hour)
		var sum pipeline.Summary
		for range 30 {
			sum, _ = w.run(time.Minute)
		}
		if sum.Detectors[0].Gaps != 0 || time.Since(sum.Detectors[0].Watermark) > time.Hour {
			t.Errorf("after 30 runs: %+v; want the gap closed, and the watermark near now", sum.Detectors)
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestTheLeaseIsKeptThroughALongCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.signUp(1)
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			time.Sleep(170 * time.Second)
			return nil
		}
		done := make(chan error)
		go func() { _, err := w.run(time.Minute); done <- err }()
		time.Sleep(time.Minute + 160*time.Second)
		other := newWorld(t, spec())
		other.faults.Ledger = w.ledger
		if sum, err := other.run(0); err != nil || !sum.Busy {
			t.Errorf("a second run beside the first: got %+v, %v; want it busy", sum, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestASlowDestinationDoesNotStarveTheOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := spec()
		s.Destinations = append(s.Destinations, pipeline.DestinationSpec{Name: "slow", Record: map[string]any{"x": "user.id"}})
		w := newWorld(t, s)
		w.systems["slow"].before = func(ctx context.Context, _ signup.Request) error {
			select {
			case <-time.After(20 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		w.mustRun(0)
		for n := range 250 {
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		id := w.signUp(1000)
		at := time.Now()
		for range 30 {
			w.mustRun(time.Minute)
			if _, ok := w.systems["billing"].accounts[id]; ok {
				break
			}
		}
		if got := len(w.systems["billing"].accounts); got < 251 || time.Since(at) > 3*time.Minute {
			t.Errorf("billing has %d of 251; a new sign-up reached it after %v", got, time.Since(at))
		}
	})
}

// badDirectory has users whose profile nobody can decode.
type badDirectory struct {
	*directory
	bad map[signup.UserID]bool
}

func (d badDirectory) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	time.Sleep(100 * time.Millisecond)
	for _, id := range ids {
		if d.bad[id] {
			return nil, &signup.Error{Class: signup.Transient, Code: "bad-answer"}
		}
	}
	return d.directory.Users(ctx, ids)
}

func TestUnreadableProfilesEndAndStopNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		a, b := w.signUp(1), w.signUp(2)
		w.engine.Directory = badDirectory{w.users, map[signup.UserID]bool{a: true, b: true}}
		w.engine.Detectors = []signup.Detector{slowDetector{w.audit, time.Second}, slowDetector{w.directory, time.Second}}
		w.mustRun(time.Minute)
		for n := 10; n < 15; n++ {
			id := w.signUp(n)
			w.mustRun(time.Minute)
			if got, _ := w.row(id).Association("billing"); got.State != signup.Associated {
				t.Error("a good user was not worked in the run that saw it")
			}
		}
		w.engine.Detectors = []signup.Detector{w.directory}
		time.Sleep(20 * 24 * time.Hour)
		w.mustRun(0)
		w.want(a, "billing: failed horizon", "crm: failed horizon", "news: failed horizon", "profile: failed horizon")
	})
}

func TestOneUsersRefusalIsNotTheDestinations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		poison := w.signUp(0)
		w.systems["billing"].before = func(_ context.Context, r signup.Request) error {
			time.Sleep(300 * time.Millisecond)
			if r.User == poison {
				return &signup.Error{Class: signup.Systemic, Code: "forbidden", Status: 403}
			}
			return nil
		}
		w.mustRun(time.Minute)
		late := 0
		for n := 1; n < 61; n++ {
			id := w.signUp(n)
			w.mustRun(time.Minute)
			for i := range 20 {
				if _, ok := w.systems["billing"].accounts[id]; ok {
					if i > 0 {
						late++
					}
					break
				}
				w.mustRun(time.Minute)
			}
		}
		if late > 3 {
			t.Errorf("%d of 60 others were not associated in the run that saw them", late)
		}
	})
}

func TestRefusalsInABacklogDoNotHoldItBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, bad := range []bool{false, true} {
			w := newWorld(t, spec())
			w.mustRun(0)
			poison := map[signup.UserID]bool{}
			for n := range 300 {
				id := w.signUp(n)
				if n%30 == 0 && bad {
					poison[id] = true
				}
			}
			w.systems["billing"].before = func(_ context.Context, r signup.Request) error {
				time.Sleep(300 * time.Millisecond)
				if poison[r.User] {
					return &signup.Error{Class: signup.Systemic, Code: "forbidden", Status: 403}
				}
				return nil
			}
			runs := 0
			for ; runs < 600 && len(w.systems["billing"].accounts) < 300-len(poison); runs++ {
				w.mustRun(time.Minute)
			}
			if runs > 10 {
				t.Errorf("with refused ones %t: %d runs for 300 users", bad, runs)
			}
		}
	})
}

func TestProgressIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.engine.Detectors = []signup.Detector{w.audit}
		w.mustRun(0)
		w.engine.Detectors = []signup.Detector{slowDetector{w.audit, 5 * time.Second}}
		sum, err := w.run(6 * 24 * time.Hour)
		if err != nil || sum.Detectors[0].Slices == 0 {
			t.Errorf("%d slices read and yet: %v", sum.Detectors[0].Slices, err)
		}
	})
}

func TestAnUnknownOriginIsLookedAtAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		u := w.users.all[id]
		good := u
		u.Identities = nil
		w.users.put(u)
		w.mustRun(time.Minute)
		w.users.put(good)
		row := w.row(id)
		for _, a := range row.Associations {
			row = row.Reopen(a.Destination, time.Now().UTC())
		}
		if _, err := w.ledger.Replace(context.Background(), []signup.Row{row}); err != nil {
			t.Fatal(err)
		}
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

// lostAnswer writes the first renewal of the lease and loses the answer.
type lostAnswer struct {
	*faultyLedger
	puts atomic.Int32
}

func (l *lostAnswer) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	out, err := l.faultyLedger.PutNote(ctx, n)
	if n.Name == "run" && l.puts.Add(1) == 2 { // the first renewal
		return signup.Note{}, errors.New("timeout")
	}
	return out, err
}

func TestALostAnswerToTheRenewalIsNoTheft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		l := &lostAnswer{faultyLedger: w.faults}
		w.engine.Ledger = l
		id := w.signUp(1)
		w.systems["billing"].before = func(ctx context.Context, _ signup.Request) error {
			select {
			case <-time.After(100 * time.Second): // two renewals
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if _, err := w.run(time.Minute); err != nil || l.puts.Load() < 3 {
			t.Errorf("got %v; nobody else took the lease", err)
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		if sum, err := w.run(10 * time.Second); err != nil || sum.Busy {
			t.Errorf("10 s later: busy %t, %v", sum.Busy, err)
		}
	})
}

// panicking is a detector, or a directory, with a defect.
type panicking struct {
	signup.Detector
	signup.Directory
}

func (panicking) Events(context.Context, signup.Window) iter.Seq2[signup.Event, error] {
	panic("defect")
}

func (panicking) Users(context.Context, []signup.UserID) (map[signup.UserID]signup.User, error) {
	panic("defect")
}

func TestADefectOutsideOfAConnectorDoesNotKillTheProgram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.engine.Detectors = []signup.Detector{panicking{Detector: w.audit}, w.directory}
		w.engine.Directory = panicking{Directory: w.users}
		w.mustRun(time.Minute)
		w.want(id, "billing: pending bad-answer", "crm: pending bad-answer", "news: pending bad-answer", "profile: pending bad-answer")
		w.engine.Directory = w.users
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

func TestAStateThatCannotBeReadIsNotWrittenOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, spec())
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401}
		}
		w.mustRun(0)
		time.Sleep(time.Minute)
		w.signUp(1)
		w.mustRun(time.Minute) // billing is left alone from now on
		n, err := w.ledger.Note(ctx, "state")
		if err != nil {
			t.Fatal(err)
		}
		n.Body = []byte(`{"version":2,"since":["another version writes it so"]}`)
		if n, err = w.ledger.PutNote(ctx, n); err != nil {
			t.Fatal(err)
		}
		if _, err := w.run(time.Second); err == nil {
			t.Error("it ran by a state that it cannot read")
		}
		if now, _ := w.ledger.Note(ctx, "state"); now.Version != n.Version {
			t.Errorf("it wrote %s", now.Body)
		}
	})
}

func TestNobodyIsGivenUpForAnswersOfTheLedgerThatAreLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		lost := func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			_, _ = do()
			return nil, errors.New("no answer")
		}
		w.faults.insert, w.faults.replace = lost, lost
		for range 10 { // nobody dies
			_, _ = w.run(time.Minute)
		}
		w.faults.insert, w.faults.replace = nil, nil
		w.mustRun(time.Minute)
		everywhere(w, id)
		if made := w.systems["billing"].made; made != 1 {
			t.Errorf("%d accounts", made)
		}
	})
}
