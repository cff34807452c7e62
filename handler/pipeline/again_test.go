package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// A run that has been at work for a minute looks again for who has signed up meanwhile, if it has the time; a shorter one
// leaves that to the timer.
func TestALongRunLooksAgain(t *testing.T) {
	tests := []struct {
		takes    time.Duration // the first user
		finds    bool
		detected int // how often each detector was read
	}{
		{50 * time.Second, false, 1},
		{70 * time.Second, true, 2},
		{130 * time.Second, true, 2},
		{200 * time.Second, false, 1}, // too little time is left
	}
	for _, tt := range tests {
		bubble(t, func(t *testing.T) {
			w := newWorld(t, oneDestination())
			w.mustRun(0)
			w.signUp(1)
			var second signup.UserID
			w.systems["crm"].before = first(func(context.Context, signup.Request) error {
				time.Sleep(10 * time.Second)
				second = w.signUp(2)
				time.Sleep(tt.takes - 10*time.Second)
				return nil
			})
			before := len(w.audit.windows)
			sum := w.mustRun(time.Minute)
			if got := len(w.audit.windows) - before; got != tt.detected {
				t.Errorf("the first takes %v: the log was read %d times, want %d", tt.takes, got, tt.detected)
			}
			users := 1
			if tt.finds {
				users = 2
				w.want(second, "crm: associated", "profile: associated")
			}
			d := sum.Detectors
			if sum.Users != users || len(d) != 2 || d[0].New+d[1].New != users || d[0].Slices != tt.detected || d[0].From.After(sum.Started.Add(-time.Hour)) {
				t.Errorf("the first takes %v: got %+v", tt.takes, sum)
			}
			w.mustRun(time.Minute)
			w.want(second, "crm: associated", "profile: associated")
			if made := w.systems["crm"].made; made != 2 {
				t.Errorf("the first takes %v: %d accounts were made, want 2", tt.takes, made)
			}
		})
	}
}

// The second look takes up whom the first had to leave, and reads what is new since, not again what the host had missed.
func TestASecondLookTakesUpWhoWasLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		var ids []signup.UserID
		for n := range 16 { // a batch, and one more
			ids = append(ids, w.signUp(n))
		}
		hasty, slow := ids[0], ids[15]
		tries := 0
		w.systems["crm"].before = func(_ context.Context, req signup.Request) error {
			if req.User == slow {
				time.Sleep(70 * time.Second)
				return nil
			}
			if req.User != hasty {
				return nil
			}
			if tries++; tries == 1 {
				return &signup.Error{Class: signup.Transient, Code: "unavailable"}
			}
			return nil
		}
		time.Sleep(time.Minute)
		begun, before := time.Now(), len(w.audit.windows)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		if _, err := w.engine.Run(ctx, pipeline.Trigger{PastDue: true, Last: begun.Add(-time.Minute - time.Second)}); err != nil {
			t.Fatal(err)
		}
		w.want(hasty, "crm: associated", "profile: associated")
		windows := w.audit.windows[before:]
		if len(windows) != 2 || !windows[1].From.Equal(begun.Add(-w.engine.Settings.Overlap)) {
			t.Errorf("the second window of %v is to begin an overlap before %v", windows, begun)
		}
	})
}

// What the second look cannot read is the next run's: this one has done its job.
func TestASecondLookThatFailsIsTheNextRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		var second signup.UserID
		down := errors.New("down")
		w.systems["crm"].before = first(func(context.Context, signup.Request) error {
			second = w.signUp(2)
			w.audit.fail, w.directory.fail = down, down
			time.Sleep(70 * time.Second)
			return nil
		})
		if sum := w.mustRun(time.Minute); sum.Users != 1 || sum.Detectors[0].Trouble == "" {
			t.Errorf("got %+v", sum)
		}
		w.audit.fail, w.directory.fail = nil, nil
		w.mustRun(time.Minute)
		w.want(second, "crm: associated", "profile: associated")
	})
}

// A detector whose read takes long is not read again with less time.
func TestALongRunDoesNotReadASlowLogAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.signUp(1)
		w.systems["crm"].before = first(func(context.Context, signup.Request) error {
			time.Sleep(80 * time.Second)
			return nil
		})
		w.engine.Detectors = []signup.Detector{lingering{w.audit, 1, func() { time.Sleep(30 * time.Second) }}}
		before := len(w.audit.windows)
		w.mustRun(time.Minute)
		if got := len(w.audit.windows) - before; got != 1 {
			t.Errorf("the log was read %d times, want once", got)
		}
	})
}

// Who signs up all the time is worked all the time, and the run ends when it is to.
func TestARunInABurstEndsInTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		n := 0
		w.systems["crm"].before = func(context.Context, signup.Request) error {
			n++
			w.signUp(n)
			time.Sleep(65 * time.Second)
			return nil
		}
		w.signUp(0)
		begun := time.Now().Add(time.Minute)
		sum := w.mustRun(time.Minute)
		if took := time.Since(begun); took > 4*time.Minute || sum.Users != 3 {
			t.Errorf("%d users in %v, want 3 in four minutes", sum.Users, took)
		}
	})
}

// A new user whom the replica that is asked does not have is asked for once more, and associated in the same run; the next
// runs ask once.
func TestAUserWhoIsNotThereIsAskedForTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		late := w.signUp(1)
		there := w.users.all[late]
		delete(w.users.all, late)
		onRead := &showing{w.users, func(read int) {
			if read == 1 {
				time.AfterFunc(900*time.Millisecond, func() { w.users.put(there) })
			}
		}}
		w.engine.Directory = onRead
		w.mustRun(time.Minute)
		w.want(late, "crm: associated", "profile: associated")
		if onRead.reads != 2 {
			t.Errorf("the profile was read %d times, want 2", onRead.reads)
		}
		gone := w.signUp(2)
		there = w.users.all[gone]
		delete(w.users.all, gone)
		for run, want := range []int{2, 1, 1} {
			onRead.reads = 2
			w.mustRun(time.Minute)
			if got := onRead.reads - 2; got != want {
				t.Errorf("run %d: who is not there was read %d times, want %d", run, got, want)
			}
		}
		w.want(gone, "crm: pending", "profile: pending")
		w.users.put(there)
		w.mustRun(time.Minute)
		w.want(gone, "crm: associated", "profile: associated")
	})
}

// Only who was not there is asked for again.
func TestWhoIsThereIsAskedForOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		for n := range 10 {
			w.signUp(n)
		}
		late := w.signUp(10)
		delete(w.users.all, late)
		asked := &asking{Directory: w.users}
		w.engine.Directory = asked
		w.mustRun(time.Minute)
		if len(asked.ids) != 2 || len(asked.ids[0]) != 11 || !slices.Equal(asked.ids[1], []signup.UserID{late}) {
			t.Errorf("asked for %v", asked.ids)
		}
	})
}

// asking remembers who was asked for.
type asking struct {
	signup.Directory
	ids [][]signup.UserID
}

func (d *asking) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	d.ids = append(d.ids, ids)
	return d.Directory.Users(ctx, ids)
}

// A second read that fails leaves those alone whom the first has brought.
func TestASecondReadThatFailsHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		here, late := w.signUp(1), w.signUp(2)
		delete(w.users.all, late)
		w.engine.Directory = &showing{w.users, func(read int) {
			w.users.down = errors.New("down")
		}}
		w.mustRun(time.Minute)
		w.want(here, "crm: associated", "profile: associated")
		if w.row(late).Missing.IsZero() {
			t.Error("who is not there is not known to be missing")
		}
	})
}

// showing tells after each read.
type showing struct {
	*directory
	after func(read int)
}

func (d *showing) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	users, err := d.directory.Users(ctx, ids)
	d.after(d.reads)
	return users, err
}
