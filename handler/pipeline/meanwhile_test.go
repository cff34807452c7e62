package pipeline_test

import (
	"context"
	"iter"
	"slices"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// lingering shows so many at once, and then takes its time before it goes on.
type lingering struct {
	*detector
	many  int
	pause func()
}

func (d lingering) Events(ctx context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		n := 0
		for e, err := range d.detector.Events(ctx, w) {
			if !yield(e, err) {
				return
			}
			if n++; n%d.many == 0 {
				d.pause()
			}
		}
	}
}

// Who is recorded for the ledger's index is worked as soon as somebody has time, also while a detector is at its read, and
// each time.
func TestWhoWaitsInTheLedgerIsWorkedWhileDetectionGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		for n := range 1600 {
			w.signUp(n)
		}
		var made []int
		slow := lingering{w.audit, 800, func() {
			time.Sleep(30 * time.Second)
			s := w.systems["crm"]
			s.mu.Lock()
			made = append(made, len(s.accounts))
			s.mu.Unlock()
		}}
		w.engine.Detectors = []signup.Detector{slow}
		w.mustRun(time.Minute)
		if !slices.Equal(made, []int{800, 1600}) {
			t.Errorf("while detection went on %v users were associated, want 800 and then 1600", made)
		}
	})
}

// A run that has little time uses it.
func TestAShortRunWorks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		id := w.signUp(1)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		if _, err := w.engine.Run(ctx, pipeline.Trigger{}); err != nil {
			t.Fatal(err)
		}
		w.want(id, "crm: associated", "profile: associated")
	})
}

// However long batches take, a run does not end its work longer before its end than twenty seconds.
func TestLongBatchesAreBegunUntilShortlyBeforeTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.engine.Destinations[0].Concurrency = 8 * 15
		w.mustRun(0)
		for n := range 8 * 15 * 4 {
			w.signUp(n)
		}
		w.systems["crm"].before = func(ctx context.Context, _ signup.Request) error {
			select {
			case <-time.After(70 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		w.mustRun(time.Minute)
		if got := w.systems["crm"].calls(); got <= 8*15*3 {
			t.Errorf("%d were begun, want some of 210 s, after those of 0, 70 and 140 s", got)
		}
	})
}

// A guest who was begun when invited, and must accept since the configuration has changed, is looked for from the
// invitation on.
func TestAGuestBegunWhenInvitedIsLookedForSinceThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.takesGuests()
		w.engine.Settings.Invited = true
		time.Sleep(time.Minute)
		guest := w.invite(1)
		invited := time.Now()
		w.systems["crm"].after = func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Transient, Code: "lost"}
		}
		w.mustRun(time.Second)
		w.engine.Settings.Invited = false
		w.mustRun(10 * time.Minute)
		w.want(guest, "crm: skipped not-redeemed", "profile: associated")
		w.systems["crm"].after = nil
		w.engine.Settings.Invited = true // nobody is begun by that
		w.mustRun(time.Hour)
		w.want(guest, "crm: skipped not-redeemed", "profile: associated")
		w.engine.Settings.Invited = false
		time.Sleep(24 * time.Hour)
		w.accept(guest)
		w.mustRun(time.Minute)
		w.want(guest, "crm: associated", "profile: associated")
		s := w.systems["crm"]
		last := s.requests[len(s.requests)-1]
		if s.made != 1 || !last.Unsure || last.Created.After(invited) {
			t.Errorf("%d accounts; the guest invited at %v is looked for from %v on, unsure %v", s.made, invited, last.Created, last.Unsure)
		}
		w.engine.Settings.Invited = true
		w.mustRun(time.Minute)
		if len(s.requests) != 2 {
			t.Errorf("got %d calls, want 2", len(s.requests))
		}
	})
}

// A guest of whom nothing was sent anywhere has signed up when they accepted.
func TestAGuestNotBegunHasSignedUpWhenAccepting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.takesGuests()
		guest := w.invite(1)
		w.mustRun(time.Minute)
		time.Sleep(24 * time.Hour)
		w.accept(guest)
		accepted := time.Now()
		w.mustRun(time.Minute)
		if got := w.systems["crm"].requests[0].Created; !got.Equal(accepted) {
			t.Errorf("got a sign-up at %v, want %v", got, accepted)
		}
	})
}

// confused is entitlement management with an answer that our code does not stand.
type confused struct{}

func (confused) Requested(context.Context, signup.User) (bool, error) { panic("an answer") }

func TestAPanicInEntitlementManagementIsOneGuests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.mustRun(0)
		w.takesGuests()
		w.engine.Settings.Invited, w.engine.Entitlements = true, confused{}
		guest, person := w.invite(1), w.signUp(2)
		w.mustRun(time.Minute)
		w.want(guest, "crm: pending", "profile: pending")
		w.want(person, "crm: associated", "profile: associated")
	})
}

// The summary that stands in the lease is not to grow beyond what a note may have.
func TestARunOfManyDestinationsEnds(t *testing.T) {
	const many = 165 // whose rows fit, just so
	bubble(t, func(t *testing.T) {
		var s pipeline.Spec
		for n := range many {
			s.Destinations = append(s.Destinations, pipeline.DestinationSpec{Name: "destination-of-the-longest-na" + string(rune('a'+n/26)) + string(rune('a'+n%26))})
		}
		w := newWorld(t, s)
		w.mustRun(0)
		for n := range 24 { // some of each class of lags
			for i := range 12 {
				w.signUp(100*n + i)
			}
			time.Sleep(time.Duration(n*n) * time.Minute / 4)
		}
		w.mustRun(time.Minute)
		w.mustRun(time.Minute)
	})
}
