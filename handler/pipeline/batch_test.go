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

// bulk is a system that takes many users in one call. fail is the error of the whole call; shorten drops answers.
type bulk struct {
	*system
	calls   []int // users of each call
	fail    error
	shorten int
	refuse  signup.UserID // this one alone is refused
	invalid bool          // every second user has a record that cannot be sent
}

var _ signup.Batcher = (*bulk)(nil)

func (b *bulk) AssociateAll(ctx context.Context, reqs []signup.Request) []signup.Result {
	b.calls = append(b.calls, len(reqs))
	results := make([]signup.Result, len(reqs))
	for i, req := range reqs {
		switch {
		case b.invalid && i%2 == 1:
			results[i].Err = &signup.Error{Class: signup.Permanent, Code: "invalid-record"}
		case b.fail != nil:
			results[i].Err = b.fail
		case req.User == b.refuse:
			results[i].Err = &signup.Error{Class: signup.Permanent, Code: "rejected"}
		default:
			results[i].Account, results[i].Err = b.system.Associate(ctx, req)
		}
	}
	return results[:len(reqs)-b.shorten]
}

func newBulkWorld(t *testing.T) (*world, *bulk) {
	w := newWorld(t, pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "crm"}}})
	b := &bulk{system: w.systems["crm"]}
	w.engine.Destinations[0].Connector = b
	return w, b
}

func TestUsersOfOneReadGoInOneCallAndEachHasAnOutcomeOfItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, b := newBulkWorld(t)
		var ids []signup.UserID
		for n := range 10 {
			ids = append(ids, w.signUp(n))
		}
		b.refuse = ids[4]
		w.mustRun(time.Minute)
		if len(b.calls) != 1 || b.calls[0] != 10 {
			t.Errorf("calls of %v users, want one of 10", b.calls)
		}
		for i, id := range ids {
			want := []string{"crm: associated", "profile: associated"}
			if i == 4 {
				want[0] = "crm: failed rejected"
			}
			w.want(id, want...)
			if a, _ := w.row(id).Association("crm"); i != 4 && a.Account != b.accounts[id] {
				t.Errorf("user %d has the account %q, want %q", i, a.Account, b.accounts[id])
			}
		}
	})
}

func TestACallForManyUsersIsOneOfTheRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, b := newBulkWorld(t)
		w.engine.Destinations[0].Rate, w.engine.Destinations[0].Burst, w.engine.Destinations[0].Concurrency = 1, 5, 1
		for n := range 7 * 15 {
			w.signUp(n)
		}
		begun := time.Now().Add(time.Minute)
		w.mustRun(time.Minute)
		if took := time.Since(begun); len(b.calls) != 7 || took != 2*time.Second {
			t.Errorf("%d calls in %v, want 7, of which five are a burst and two wait for a second each", len(b.calls), took)
		}
	})
}

func TestOneFailedCallIsOneFailureHoweverManyUsersWereInIt(t *testing.T) {
	unavailable := &signup.Error{Class: signup.Transient, Code: "unavailable", Status: 503}
	for name, fail := range map[string]error{"as it is": unavailable, "wrapped": fmt.Errorf("add 10 users: %w", unavailable)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, b := newBulkWorld(t)
				b.fail = fail
				for n := range 10 {
					w.signUp(n)
				}
				w.mustRun(time.Minute)
				b.fail = nil
				w.signUp(10)
				w.mustRun(time.Second)
				w.want("75b523ca-d064-4ddf-80af-000000000010", "crm: associated", "profile: associated") // or the breaker was open
				w.mustRun(5 * time.Minute)
				w.want("75b523ca-d064-4ddf-80af-000000000007", "crm: associated", "profile: associated")
				if b.made != 11 {
					t.Errorf("%d accounts, want 11", b.made)
				}
			})
		})
	}
}

func TestOneFailedCallIsOneFailureAlsoWithUsersInBetweenWhoWereNotInIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, b := newBulkWorld(t)
		b.fail, b.invalid = &signup.Error{Class: signup.Transient, Code: "unavailable", Status: 503}, true
		for n := range 12 {
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		b.fail, b.invalid = nil, false
		w.signUp(12)
		w.mustRun(time.Second)
		w.want("75b523ca-d064-4ddf-80af-000000000012", "crm: associated", "profile: associated") // or the breaker was open
	})
}

func TestManyFailuresInOneCallAreAsMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, b := newBulkWorld(t)
		b.before = func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Transient, Code: "unavailable", Status: 503}
		}
		for n := range 10 {
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		b.before = nil
		w.signUp(10)
		w.mustRun(time.Second)
		w.want("75b523ca-d064-4ddf-80af-000000000010", "crm: pending", "profile: associated") // the breaker is open
	})
}

func TestAnswersThatAreMissingAreNoAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, b := newBulkWorld(t)
		b.shorten = 1
		for n := range 3 {
			w.signUp(n)
		}
		w.mustRun(time.Minute)
		for n := range 3 {
			w.want(signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", n)), "crm: pending panic", "profile: associated")
		}
		b.shorten = 0
		w.mustRun(5 * time.Minute)
		if b.made != 3 {
			t.Errorf("%d accounts, want 3", b.made)
		}
	})
}

func TestARunAndACensusShareAnEngine(t *testing.T) {
	w := newWorld(t, spec())
	w.withRegister()
	for i := range 60 {
		w.signUp(i)
	}
	w.mustRun(0)
	time.Sleep(10 * time.Millisecond)
	for i := range 60 {
		w.signUp(60 + i)
	}
	w.engine.Settings.Overlap = 0 // so that the census counts whom the runs bring
	done := make(chan error, 2)
	go func() {
		for range 5 {
			if _, err := w.run(0); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	go func() {
		for range 5 {
			if _, err := w.census(pipeline.CensusOptions{Act: true, Fresh: true}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestALostAnswerToWhatIsDoneSoFarKeepsNobodyFromBeingSettled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		u := w.users.all[id]
		u.Attributes = map[string]any{"optIn": true}
		w.users.put(u)
		w.systems["news"].before = func(context.Context, signup.Request) error {
			time.Sleep(10 * time.Second)
			return nil
		}
		replaced := 0
		w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			rows, err := do()
			if replaced++; replaced == 1 {
				return nil, errors.New("no answer")
			}
			return rows, err
		}
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: associated", "profile: associated")
		if row := w.row(id); !row.Intent.IsZero() || replaced < 2 {
			t.Errorf("after %d writes: got %+v", replaced, row)
		}
	})
}
