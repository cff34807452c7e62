package pipeline_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func TestWhoWaitedForADestinationThatWasRemovedGetsItOnceItIsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, spec())
		whole := w.engine
		w.systems["billing"].before = func(context.Context, signup.Request) error {
			return &signup.Error{Class: signup.Transient, Code: "unavailable", Status: 503}
		}
		time.Sleep(time.Minute)
		id := w.signUp(1)
		w.mustRun(time.Minute)
		// The program of the day before runs once more.
		w.configure(pipeline.Spec{DisplayName: spec().DisplayName, Destinations: spec().Destinations[2:]})
		w.mustRun(time.Minute)
		w.engine = whole
		w.systems["billing"].before = nil
		for range 3 {
			w.mustRun(time.Hour)
		}
		w.certify()
		for range 2 {
			w.mustRun(time.Minute)
		}
		if a, _ := w.row(id).Association("billing"); a.State != signup.Associated {
			t.Errorf("got %q", w.states(id))
		}
	})
}

func TestADestinationThatACensusAddsIsShownInTheProfileToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, spec())
		whole := w.engine
		w.configure(pipeline.Spec{DisplayName: spec().DisplayName, Destinations: spec().Destinations[2:]})
		w.mustRun(time.Minute)
		id := w.signUp(1)
		for range 3 {
			w.mustRun(time.Hour)
		}
		w.want(id, "news: skipped rule", "profile: associated")
		w.engine = whole
		w.mustRun(time.Minute)
		w.certify()
		w.mustRun(time.Minute)
		if got := w.users.all[id].Attributes["billingId"]; got != w.systems["billing"].accounts[id] || got == nil {
			t.Errorf("the user carries %v, want %q; %q", got, w.systems["billing"].accounts[id], w.states(id))
		}
	})
}

func TestABackfillOfALostLedgerMakesNobodySurer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(0)
		id := w.signUp(1)
		w.mustRun(time.Minute)
		everywhere(w, id)
		w.ledger = ledger.Memory(tenantID)
		w.faults.Ledger = w.ledger
		w.users.down = errors.New("unavailable")
		_, _ = w.run(time.Minute)
		w.users.down = nil
		if err := w.engine.Backfill(context.Background(), time.Now().AddDate(-1, 0, 0)); err != nil {
			t.Fatal(err)
		}
		w.mustRun(time.Minute)
		everywhere(w, id)
		if made := w.systems["billing"].made; made != 1 {
			t.Errorf("%d accounts", made)
		}
	})
}
