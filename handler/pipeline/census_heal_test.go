package pipeline_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func oneDestination() pipeline.Spec {
	return pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "crm"}}}
}

// invite makes a guest, who may accept later; detectors see the creation.
func (w *world) invite(n int) signup.UserID {
	id := w.signUp(n)
	u := w.users.all[id]
	u.CreationType, u.UserType, u.ExternalUserState, u.Identities = "Invitation", "Guest", "PendingAcceptance", nil
	w.users.put(u)
	return id
}

// accept is seen by the audit log, if it is read in time, and by a census.
func (w *world) accept(id signup.UserID) {
	u := w.users.all[id]
	u.ExternalUserState, u.Attributes = "Accepted", map[string]any{"accepted": time.Now().UTC()}
	w.users.put(u)
	w.audit.see(signup.Event{User: id, Kind: signup.Redeemed, At: time.Now().UTC()})
}

func (w *world) takesGuests() {
	w.engine.Settings.Origins = []signup.Origin{signup.SelfService, signup.Invitation}
}

func TestAnOutageLongerThanTheRetentionEndsHealed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		w.takesGuests()
		time.Sleep(time.Minute)
		guest := w.invite(1)
		w.mustRun(time.Minute)
		w.want(guest, "crm: skipped not-redeemed", "profile: skipped not-redeemed")
		time.Sleep(2 * time.Hour)
		w.accept(guest)         // … whose record the log has no more, nor does the creation's time show it
		stranger := w.unseen(2) // … and somebody whom the log never had
		person := w.signUp(3)
		w.engine.Backstop = w.directory // what closes the gap does not show the stranger either
		w.mustRun(9 * 24 * time.Hour)
		w.withRegister()
		w.want(guest, "crm: skipped not-redeemed", "profile: skipped not-redeemed")
		c := w.certify()
		if c.Missing != 1 || c.Redeemed != 1 {
			t.Errorf("got %+v", c)
		}
		w.mustRun(time.Minute)
		for _, id := range []signup.UserID{guest, stranger, person} {
			w.want(id, "crm: associated", "profile: associated")
		}
		if c := w.certify(); c.Associated != 3 || c.Users != 3 {
			t.Errorf("the next one: got %+v", c)
		}
	})
}

func TestACensusReopensWhoWasRestored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(time.Minute)
		id := w.signUp(1)
		user := w.users.all[id]
		delete(w.users.all, id)
		w.mustRun(time.Minute)
		w.audit.forgetLast()
		w.directory.forgetLast() // so that only a census can show the user again
		for range 40 {
			w.mustRun(time.Minute)
		}
		w.want(id, "crm: skipped deleted", "profile: skipped deleted")
		w.mustRun(24 * time.Hour)
		if c := w.certify(); c.Users != 0 {
			t.Errorf("a user in the recycle bin was counted: %+v", c)
		}
		w.users.put(user)
		w.mustRun(24 * time.Hour) // too late for a detector
		w.want(id, "crm: skipped deleted", "profile: skipped deleted")
		before := w.ledger.Transactions()
		if c, err := w.census(pipeline.CensusOptions{}); err != nil || c.Restored != 1 || w.ledger.Transactions() != before {
			t.Errorf("without acting: got %+v, %v, %d transactions", c, err, w.ledger.Transactions()-before)
		}
		if c := w.certify(); c.Restored != 1 || c.Pending != 1 || c.Redeemed != 0 {
			t.Fatalf("got %+v", c)
		}
		w.mustRun(time.Minute)
		w.want(id, "crm: associated", "profile: associated")
		if !w.systems["crm"].requests[0].Unsure {
			t.Error("a restored user was made an account without a look")
		}
		if c := w.certify(); c.Restored != 0 || c.Associated != 1 {
			t.Errorf("the next one: got %+v", c)
		}
	})
}

func TestAMissingUserWhoIsDeletedMeanwhileIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newCensusWorld(t, oneDestination())
		time.Sleep(time.Minute)
		id := w.unseen(1)
		w.mustRun(3 * time.Hour)
		if c := w.certify(); c.Missing != 1 {
			t.Fatalf("got %+v", c)
		}
		delete(w.users.all, id)
		for range 40 {
			w.mustRun(time.Minute)
		}
		w.want(id, "crm: skipped deleted", "profile: skipped deleted")
		if w.systems["crm"].calls() != 0 {
			t.Error("the destination heard of a deleted user")
		}
	})
}

func TestGuestsOlderThanTheInstallationCountFromTheirAcceptance(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.withRegister()
		w.takesGuests()
		never, early, late, missed := w.invite(1), w.invite(2), w.invite(3), w.invite(4)
		w.accept(early)
		time.Sleep(30 * 24 * time.Hour)
		w.mustRun(0)
		time.Sleep(time.Hour)
		w.accept(missed)
		w.audit.forgetLast()
		w.mustRun(5 * time.Hour)
		w.accept(late) // beyond the range: the audit log may be late
		w.mustRun(time.Minute)
		w.want(late, "crm: associated", "profile: associated")
		c := w.certify()
		if c.Users != 4 || c.Before != 2 || c.Missing != 1 || c.Associated != 1 {
			t.Errorf("got %+v", c)
		}
		w.mustRun(time.Minute)
		w.want(missed, "crm: associated", "profile: associated")
		for _, id := range []signup.UserID{never, early} {
			if rows, _ := w.ledger.Get(context.Background(), []signup.UserID{id}); len(rows) > 0 {
				t.Errorf("somebody from before was taken in: %+v", rows)
			}
		}
	})
}

func TestWhoAcceptedAfterTheRangesEndIsTheDetectorsBusiness(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.withRegister()
		guest := w.invite(1)
		time.Sleep(30 * 24 * time.Hour)
		w.mustRun(0)
		w.mustRun(3 * time.Hour)
		w.accept(guest)
		if c := w.certify(); c.Users != 1 || c.Before != 1 || c.Missing != 0 {
			t.Errorf("got %+v", c)
		}
	})
}

func TestACensusAddsDestinationsThatWereAbsentForAWhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		both := pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "crm"}, {Name: "news"}}}
		w := newWorld(t, both)
		w.configure(oneDestination())
		w.mustRun(0)
		time.Sleep(time.Minute)
		old := w.signUp(1)
		w.mustRun(time.Hour)
		w.configure(both)
		w.mustRun(time.Hour) // from now on there is news
		w.configure(oneDestination())
		young := w.signUp(2)
		w.mustRun(time.Hour)
		w.configure(both)
		w.withRegister()
		w.mustRun(3 * time.Hour)
		w.want(young, "crm: associated", "profile: associated")
		c := w.certify()
		if len(c.Added) != 1 || c.Added[0] != (pipeline.Tally{Destination: "news", Users: 1}) || c.Pending != 1 || c.Associated != 1 {
			t.Errorf("got %+v", c)
		}
		w.mustRun(time.Minute)
		w.want(young, "crm: associated", "news: associated", "profile: associated")
		w.want(old, "crm: associated", "profile: associated")

		if err := w.engine.Backfill(context.Background(), time.Now().Add(-30*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if c, err := w.census(pipeline.CensusOptions{Act: true}); err != nil || len(c.Added) != 1 || c.Added[0].Users != 1 || c.Missing+c.Backfilled != 0 {
			t.Errorf("backfill: got %+v, %v", c, err)
		}
		w.mustRun(time.Minute)
		w.want(old, "crm: associated", "news: associated", "profile: associated")
		if s := w.systems["crm"]; s.made != 2 || s.calls() != 2 {
			t.Errorf("crm was called %d times for %d accounts, want 2 and 2", s.calls(), s.made)
		}
	})
}

// keyed is a system that knows idempotency keys for a day.
type keyed struct {
	*system
	keys  map[string]time.Time
	looks int
}

func (k *keyed) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	k.mu.Lock()
	at, known := k.keys[req.Key]
	if known && time.Since(at) < 24*time.Hour && !req.Unsure {
		req.Unsure = true // the answer of the first time
	} else if req.Unsure {
		k.looks++
	}
	k.keys[req.Key] = time.Now()
	k.mu.Unlock()
	return k.system.Associate(ctx, req)
}

// loseLedger gives the world a new one with the notes of the old that are named.
func (w *world) loseLedger(kept ...string) {
	w.t.Helper()
	empty := ledger.Memory(tenantID)
	for _, name := range kept {
		n, err := w.ledger.Note(context.Background(), name)
		if err != nil {
			w.t.Fatal(err)
		}
		if n.Version = ""; len(n.Body) > 0 {
			if _, err = empty.PutNote(context.Background(), n); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.ledger = empty
	w.faults = &faultyLedger{Ledger: empty}
}

func TestALostLedgerIsRebuiltByLooking(t *testing.T) {
	for name, kept := range map[string][]string{
		"the rows":  {"state", "run", "watermark|audit", "watermark|directory", "census", "certificate"},
		"all of it": nil,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, oneDestination())
				crm := &keyed{system: w.systems["crm"], keys: map[string]time.Time{}}
				restart := func() {
					w.configure(oneDestination())
					w.engine.Destinations[0].Connector = crm
					w.withRegister()
				}
				restart()
				w.signUp(900) // long before
				time.Sleep(100 * 24 * time.Hour)
				installed := time.Now()
				w.mustRun(0)
				var ids []signup.UserID
				for n := range 90 {
					ids = append(ids, w.signUp(n))
					w.mustRun(3 * time.Hour)
				}
				w.certify()
				w.loseLedger(kept...)
				restart()
				w.mustRun(time.Minute)
				c, err := w.census(pipeline.CensusOptions{Since: installed})
				if err != nil {
					t.Fatal(err)
				}
				if len(kept) == 0 {
					if c.Backfilled < 80 || c.Missing != 0 || c.Before != 1 {
						t.Errorf("as if backfilled: got %+v", c)
					}
					if err := w.engine.Backfill(context.Background(), installed); err != nil {
						t.Fatal(err)
					}
					if c, err = w.census(pipeline.CensusOptions{Act: true}); err != nil || c.Ended.IsZero() || c.Backfilled < 80 || c.Missing != 0 {
						t.Errorf("backfilled: got %+v, %v", c, err)
					}
				} else if c = w.certify(); c.Missing < 80 || c.Backfilled != 0 {
					t.Errorf("got %+v", c)
				}
				looks := crm.looks
				for range 5 {
					w.mustRun(time.Minute)
				}
				for _, id := range ids {
					w.want(id, "crm: associated", "profile: associated")
				}
				if crm.made != len(ids) || crm.looks-looks < 80 {
					t.Errorf("%d accounts for %d people, after %d looks", crm.made, len(ids), crm.looks-looks)
				}
				if c := w.certify(); c.Associated != len(ids)-countAfter(c, ids, w) || c.Before != 1 || c.Missing != 0 {
					t.Errorf("then: got %+v", c)
				}
			})
		})
	}
}

// countAfter is how many of the users signed up after the census' range.
func countAfter(c pipeline.Census, ids []signup.UserID, w *world) (n int) {
	for _, id := range ids {
		if !w.row(id).At.Before(c.To) {
			n++
		}
	}
	return n
}

func TestBackfillTakesInWhoSignedUpBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, oneDestination())
		w.withRegister()
		older := w.signUp(1)
		time.Sleep(24 * time.Hour)
		since := time.Now()
		var ids []signup.UserID
		for n := range 30 {
			ids = append(ids, w.signUp(10+n))
			time.Sleep(time.Hour)
		}
		time.Sleep(30 * 24 * time.Hour)
		w.mustRun(0)
		w.mustRun(3 * time.Hour)
		if c := w.certify(); c.Before != 31 {
			t.Fatalf("got %+v", c)
		}
		before := w.ledger.Counts()
		c, err := w.census(pipeline.CensusOptions{Since: since})
		if after := w.ledger.Counts(); err != nil || c.Backfilled != 30 || c.Before != 1 || after.NoteWrites != before.NoteWrites || after.Transactions != before.Transactions {
			t.Errorf("the plan: got %+v, %v, with %+v", c, err, after)
		}
		if err := w.engine.Backfill(context.Background(), since); err != nil {
			t.Fatal(err)
		}
		c, err = w.census(pipeline.CensusOptions{Act: true}) // although the last one is young
		if err != nil || c.Ended.IsZero() || c.Backfilled != 30 || c.Before != 1 || c.Missing != 0 || !c.Since.Equal(since.UTC()) {
			t.Errorf("got %+v, %v", c, err)
		}
		w.mustRun(time.Minute)
		for _, id := range ids {
			w.want(id, "crm: associated", "profile: associated")
		}
		if slices.ContainsFunc(w.systems["crm"].requests, func(r signup.Request) bool { return r.User == older || !r.Unsure }) {
			t.Error("somebody from before was brought, or somebody without a look")
		}
		if c := w.certify(); c.Associated != 30 || c.Before != 1 || c.Backfilled+c.Missing != 0 {
			t.Errorf("then: got %+v", c)
		}
	})
}

func TestALedgerThatWasLostMakesNothingTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.ledger = ledger.Memory(tenantID)
		w.faults.Ledger = w.ledger
		w.configure(spec())
		w.mustRun(time.Hour) // whose look-back has the user, and whose destinations know no keys
		later := w.signUp(2)
		w.mustRun(time.Minute)
		for _, user := range []signup.UserID{id, later} {
			w.want(user, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
		}
		if got := w.systems["billing"].made; got != 2 {
			t.Errorf("got %d accounts of two people", got)
		}
		if r := w.systems["billing"].requests; r[len(r)-1].Unsure {
			t.Error("who signed up since is looked for in vain")
		}
	})
}
