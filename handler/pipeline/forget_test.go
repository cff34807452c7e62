package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// forget runs Forget and returns what it showed, as "…nn: state known", and its error.
func (w *world) forget(act bool, users ...signup.UserID) ([]string, error) {
	w.t.Helper()
	shown := []string{}
	err := w.engine.Forget(context.Background(), pipeline.ForgetOptions{Users: users, Act: act, Show: func(done, total int, one pipeline.ForgottenUser) {
		if done != len(shown)+1 || done > total || (one.Err != nil) != (one.State == pipeline.FateFailed) {
			w.t.Errorf("%d of %d after %d: %+v", done, total, len(shown), one)
		}
		shown = append(shown, fmt.Sprintf("%s: %s %v", one.User[34:], one.State, one.Known))
	}})
	return shown, err
}

func (w *world) wantForget(act bool, users []signup.UserID, want ...string) {
	w.t.Helper()
	if got, err := w.forget(act, users...); err != nil || !slices.Equal(got, want) {
		w.t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// wantTombstone demands that nothing but the id is left in the ledger.
func (w *world) wantTombstone(id signup.UserID) {
	w.t.Helper()
	row := w.row(id)
	if row.Forgotten.IsZero() || row.Owner == "" {
		w.t.Errorf("got forgotten %v, by %q", row.Forgotten, row.Owner)
	}
	row.Forgotten, row.Owner, row.Version = time.Time{}, "", ""
	if diff := cmp.Diff(signup.Row{User: id}, row); diff != "" {
		w.t.Errorf("more than the id is left (-want +got):\n%s", diff)
	}
	for row, err := range w.ledger.Due(context.Background(), time.Now().Add(100*24*time.Hour)) {
		if err != nil || row.User == id {
			w.t.Errorf("the index leads to %+v, %v", row, err)
		}
	}
}

func TestWhoIsForgottenIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one, two := w.signUp(1), w.signUp(2)
		w.systems["crm"].before = refusedFor(refused, two)
		w.mustRun(time.Minute)
		w.systems["billing"].before = always(errors.New("down"))
		three := w.signUp(3)
		w.mustRun(time.Minute) // it is due, and has tries behind it
		users := []signup.UserID{one, two, three}
		before := w.row(three)
		w.wantForget(false, users, "01: planned true", "02: planned true", "03: planned true")
		if diff := cmp.Diff(before, w.row(three)); diff != "" {
			t.Errorf("a plan has changed something:\n%s", diff)
		}
		w.wantForget(true, append(users, one), "01: forgotten true", "02: forgotten true", "03: forgotten true")
		since := w.row(one).Forgotten
		time.Sleep(time.Minute)
		w.wantForget(true, users, "01: nothing false", "02: nothing false", "03: nothing false")
		if again := w.row(one).Forgotten; !again.Equal(since) {
			t.Errorf("forgotten %v, and again %v", since, again)
		}
		w.systems["billing"].before, w.systems["crm"].before = nil, nil
		w.leaveAlone(users...)
		if w.systems["billing"].made != 2 || len(w.systems["billing"].accounts) != 2 {
			t.Errorf("got %d accounts: what was made stays", w.systems["billing"].made)
		}
	})
}

// leaveAlone lets everything happen to tombstones that may bring a user back, and demands that nothing does.
func (w *world) leaveAlone(users ...signup.UserID) {
	w.t.Helper()
	calls, patches := w.systems["billing"].calls()+w.systems["crm"].calls(), len(w.users.patches)
	for _, engine := range []*pipeline.Engine{w.engine, w.another()} { // the latter remembers nobody
		w.engine = engine
		for _, id := range users {
			for _, d := range []*detector{w.audit, w.directory} { // seen once more, redeemed, restored
				for _, kind := range []signup.Kind{signup.Created, signup.Redeemed} {
					d.see(signup.Event{User: id, Kind: kind, At: time.Now().UTC()})
				}
			}
		}
		if sum := w.mustRun(time.Minute); sum.Users != 0 {
			w.t.Errorf("a run has worked %d users", sum.Users)
		}
		w.mustRun(25 * time.Hour)
		for _, state := range []signup.State{signup.Failed, signup.Skipped, signup.Pending, signup.Associated} {
			w.wantReplay(pipeline.ReplayOptions{State: state, Act: true})
		}
		for _, id := range users {
			n := string(id[34:])
			w.wantReplay(pipeline.ReplayOptions{State: signup.Failed, Act: true, Users: []signup.UserID{id}, Destinations: []string{"billing"}}, n+": forgotten")
			w.wantUndo(pipeline.UndoOptions{Act: true, Users: []signup.UserID{id}}, n+": nothing")
		}
		w.wantUndo(pipeline.UndoOptions{Act: true})
		for _, id := range users {
			w.wantTombstone(id)
			if x, err := w.engine.Explain(context.Background(), id); err != nil || x.State != signup.Forgotten || len(x.Waits) > 0 {
				w.t.Errorf("explained as %+v, %v", x, err)
			}
		}
	}
	if now := w.systems["billing"].calls() + w.systems["crm"].calls(); now != calls || len(w.users.patches) != patches {
		w.t.Errorf("somebody was asked: %d calls and %d patches more", now-calls, len(w.users.patches)-patches)
	}
}

// Who is not in the ledger yet is forgotten too: the user signs up later, or has just done so.
func TestWhoIsForgottenBeforehandIsNeverTakenIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.mustRun(time.Minute)
		id := w.signUp(1)
		w.wantForget(false, []signup.UserID{id}, "01: planned false")
		w.wantForget(true, []signup.UserID{id}, "01: forgotten false")
		w.wantForget(true, []signup.UserID{id}, "01: nothing false")
		w.leaveAlone(id)
	})
}

// A user who was taken for deleted, and a guest who has not redeemed, come back by themselves; not when forgotten.
func TestNobodyComesBackFromBeingForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		deleted, guest := w.signUp(1), w.signUp(2)
		user := w.users.all[deleted]
		delete(w.users.all, deleted)
		invited := w.users.all[guest]
		invited.CreationType, invited.UserType, invited.ExternalUserState = "Invitation", "Guest", "PendingAcceptance"
		w.users.put(invited)
		w.engine.Settings.Origins = append(w.engine.Settings.Origins, signup.Invitation)
		for range 20 {
			w.mustRun(5 * time.Minute)
		}
		w.want(deleted, "billing: skipped deleted", "crm: skipped deleted", "news: skipped deleted", "profile: skipped deleted")
		w.want(guest, "billing: skipped not-redeemed", "crm: skipped not-redeemed", "news: skipped not-redeemed", "profile: skipped not-redeemed")
		w.wantForget(true, []signup.UserID{deleted, guest}, "01: forgotten true", "02: forgotten true")
		w.users.put(user)
		invited.ExternalUserState = "Accepted"
		w.users.put(invited)
		w.leaveAlone(deleted, guest)
	})
}

func TestForgetIsFinishedByAnother(t *testing.T) {
	for name, spoil := range map[string]func(w *world, do func() ([]signup.Row, error)) ([]signup.Row, error){
		"the ledger is away": func(*world, func() ([]signup.Row, error)) ([]signup.Row, error) { return nil, errors.New("down") },
		"the answer is lost": func(_ *world, do func() ([]signup.Row, error)) ([]signup.Row, error) {
			_, err := do()
			return nil, errors.Join(err, errors.New("connection reset"))
		},
		"others write each time": func(w *world, _ func() ([]signup.Row, error)) ([]signup.Row, error) { return nil, signup.ErrConflict },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, spec())
				id, stranger := w.signUp(1), signup.UserID("75b523ca-d064-4ddf-80af-000000000099")
				w.mustRun(time.Minute)
				w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) { return spoil(w, do) }
				if shown, err := w.forget(true, id, stranger); err == nil && !slices.Equal(shown, []string{"01: failed true", "99: forgotten false"}) ||
					err != nil && !slices.Equal(shown, []string{"99: forgotten false"}) {
					t.Errorf("got %q, %v", shown, err)
				}
				w.faults.replace = nil
				if _, err := w.forget(true, id, stranger); err != nil {
					t.Error(err)
				}
				w.wantTombstone(id)
				w.wantTombstone(stranger)
			})
		})
	}
}

// A run that has lost its lease may bring a stranger into the ledger, or write a row, between our look and our write.
func TestForgetWinsAgainstARunThatHasLostItsLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one := w.signUp(1)
		w.mustRun(time.Minute)
		stranger := signup.UserID("75b523ca-d064-4ddf-80af-000000000099")
		w.faults.insert = func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			row := signup.NewRow(signup.Event{User: stranger, Kind: signup.Created, At: time.Now()}, "audit", []string{"billing"}, time.Now())
			if _, err := w.ledger.Insert(context.Background(), []signup.Row{row}); err != nil {
				t.Error(err)
			}
			return do()
		}
		raced := false
		w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			if !raced {
				raced = true
				if _, err := w.ledger.Replace(context.Background(), []signup.Row{w.row(one)}); err != nil {
					t.Error(err)
				}
			}
			return do()
		}
		w.wantForget(true, []signup.UserID{one, stranger}, "01: forgotten true", "99: forgotten false")
		w.faults.insert, w.faults.replace = nil, nil
		w.wantTombstone(one)
		w.wantTombstone(stranger)
	})
}

func TestForgetEndsWithoutTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.mustRun(time.Minute)
		take := func() { // for longer than a command waits, and no longer than a lease can be
			n, _ := w.ledger.Note(context.Background(), "run")
			n.Name, n.Body = "run", fmt.Appendf(nil, `{"owner":"thief","expires":%q}`, time.Now().Add(6*time.Minute).UTC().Format(time.RFC3339))
			if _, err := w.ledger.PutNote(context.Background(), n); err != nil {
				t.Fatal(err)
			}
		}
		take()
		if shown, err := w.forget(true, id); !errors.Is(err, pipeline.ErrBusy) || len(shown) > 0 {
			t.Errorf("got %q, %v, want it busy", shown, err)
		}
		take()
		if shown, err := w.replay(context.Background(), pipeline.ReplayOptions{State: signup.Associated, Act: true}); !errors.Is(err, pipeline.ErrBusy) || len(shown) > 0 {
			t.Errorf("got %q, %v, want it busy", shown, err)
		}
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}
