package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// replay runs Replay and returns what it showed, as "…nn: state destination (was reason), with …", and its error.
func (w *world) replay(ctx context.Context, o pipeline.ReplayOptions) ([]string, error) {
	w.t.Helper()
	shown := []string{}
	o.Show = func(one pipeline.Replayed) {
		line := fmt.Sprintf("%s: %s", one.User[34:], one.State)
		for _, r := range one.Reopened {
			line += " " + map[bool]string{true: "+"}[r.With] + r.Destination + "(" + strings.TrimSpace(string(r.State)+" "+r.Reason) + ")"
		}
		if (one.Err != nil) != (one.State == pipeline.FateFailed) {
			w.t.Errorf("%s: %v", line, one.Err)
		}
		shown = append(shown, line)
	}
	err := w.engine.Replay(ctx, o)
	return shown, err
}

func (w *world) wantReplay(o pipeline.ReplayOptions, want ...string) {
	w.t.Helper()
	got, err := w.replay(context.Background(), o)
	if err != nil {
		w.t.Errorf("replay: %v", err)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("got %q, want %q", got, want)
	}
}

var (
	refused = &signup.Error{Class: signup.Permanent, Code: "rejected", Status: 400}
	failed  = pipeline.ReplayOptions{State: signup.Failed}
)

func act(o pipeline.ReplayOptions) pipeline.ReplayOptions { o.Act = true; return o }

const chain = "billing(failed rejected) +crm(skipped needs) +profile(associated)"

func TestReplayReopensWhatFailedAndTheNextRunWorksIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].after = always(refused) // after the effect: what was refused may be there all the same
		one, two := w.signUp(1), w.signUp(2)
		w.mustRun(time.Minute)
		w.systems["billing"].after = nil
		w.signUp(3)
		w.mustRun(time.Minute)
		w.want(one, "billing: failed rejected", "crm: skipped needs", "news: skipped rule", "profile: associated")

		before, start := w.row(one), time.Now()
		for range 2 {
			w.wantReplay(failed, "01: planned "+chain, "02: planned "+chain)
		}
		if diff := cmp.Diff(before, w.row(one)); diff != "" || time.Since(start) > 0 {
			t.Errorf("a plan has changed something, or has waited:\n%s", diff)
		}
		w.wantReplay(act(failed), "01: reopened "+chain, "02: reopened "+chain)
		w.want(one, "billing: pending", "crm: pending", "news: skipped rule", "profile: pending")
		w.wantReplay(act(failed))
		w.mustRun(time.Minute)
		for _, id := range []signup.UserID{one, two} {
			w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
			if w.users.all[id].Attributes["billingId"] != w.row(id).Associations[0].Account {
				t.Errorf("the user's record has %v", w.users.all[id].Attributes)
			}
		}
		if w.systems["billing"].made != 3 || w.systems["crm"].made != 3 {
			t.Errorf("got %d and %d accounts for 3 users", w.systems["billing"].made, w.systems["crm"].made)
		}
	})
}

// refusedFor gives the calls for some users an answer, before any effect.
func refusedFor(err error, users ...signup.UserID) func(context.Context, signup.Request) error {
	return func(_ context.Context, req signup.Request) error {
		if slices.Contains(users, req.User) {
			return err
		}
		return nil
	}
}

func TestReplaySelects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one, two := w.signUp(1), w.signUp(2)
		w.systems["billing"].before = refusedFor(refused, one)
		w.systems["crm"].before = always(&signup.Error{Class: signup.Permanent, Code: "data"})
		w.mustRun(time.Minute)
		w.systems["crm"].before = always(&signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 6 * time.Hour})
		three := w.signUp(3)
		w.mustRun(time.Minute)
		time.Sleep(time.Hour)
		w.want(three, "billing: associated", "crm: pending throttled", "news: skipped rule", "profile: associated")
		gone := signup.UserID("75b523ca-d064-4ddf-80af-000000000099")
		type o = pipeline.ReplayOptions
		for name, c := range map[string]struct {
			options o
			want    []string
		}{
			"failed":                           {failed, []string{"01: planned " + chain, "02: planned crm(failed data)"}},
			"failed at one destination":        {o{State: signup.Failed, Destinations: []string{"crm"}}, []string{"02: planned crm(failed data)"}},
			"for one reason":                   {o{State: signup.Failed, Reason: "rejected"}, []string{"01: planned " + chain}},
			"for no such reason":               {o{State: signup.Failed, Reason: "horizon"}, nil},
			"of one user":                      {o{State: signup.Failed, Users: []signup.UserID{two, two}}, []string{"02: planned crm(failed data)"}},
			"of one who has nothing so":        {o{State: signup.Failed, Users: []signup.UserID{three}}, []string{"03: nothing"}},
			"of a stranger":                    {o{State: signup.Failed, Users: []signup.UserID{gone, one}}, []string{"99: absent", "01: planned " + chain}},
			"older than it is":                 {o{State: signup.Failed, Older: 2 * time.Hour}, nil},
			"older than less":                  {o{State: signup.Failed, Older: 30 * time.Minute, Destinations: []string{"crm"}}, []string{"02: planned crm(failed data)"}},
			"newer than it is":                 {o{State: signup.Failed, Newer: 30 * time.Minute}, nil},
			"newer than more":                  {o{State: signup.Failed, Newer: 2 * time.Hour, Destinations: []string{"crm"}}, []string{"02: planned crm(failed data)"}},
			"pending, since its first try":     {o{State: signup.Pending, Older: 30 * time.Minute}, []string{"03: planned crm(pending throttled)"}},
			"pending, not for so long":         {o{State: signup.Pending, Older: 2 * time.Hour}, nil},
			"skipped by the rule":              {o{State: signup.Skipped, Reason: "rule", Users: []signup.UserID{one}}, []string{"01: planned news(skipped rule)"}},
			"skipped, which says more":         {o{State: signup.Skipped, Users: []signup.UserID{one}}, []string{"01: planned crm(skipped needs) news(skipped rule)"}},
			"associated":                       {o{State: signup.Associated, Destinations: []string{"billing"}}, []string{"02: planned billing(associated) +profile(associated)", "03: planned billing(associated) +profile(associated)"}},
			"the profile":                      {o{State: signup.Associated, Destinations: []string{"profile"}, Users: []signup.UserID{one}}, []string{"01: planned profile(associated)"}},
			"a destination that is not there":  {o{State: signup.Failed, Users: []signup.UserID{one}, Destinations: []string{"mail"}}, []string{"01: planned mail()"}},
			"… of everyone: that is backfill":  {o{State: signup.Failed, Destinations: []string{"mail"}}, nil},
			"… with a reason, which none has":  {o{State: signup.Failed, Users: []signup.UserID{one}, Destinations: []string{"mail"}, Reason: "x"}, []string{"01: nothing"}},
			"all, and the row lacks something": {o{State: signup.Skipped, Reason: "removed", Users: []signup.UserID{one}}, []string{"01: nothing"}},
		} {
			got, err := w.replay(context.Background(), c.options)
			if err != nil || !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
				t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
			}
		}
	})
}

func TestReplayMakesDueWhatIsPending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].before = always(&signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 6 * time.Hour})
		id := w.signUp(1)
		w.mustRun(time.Minute)
		pending := pipeline.ReplayOptions{State: signup.Pending}
		w.wantReplay(act(pending), "01: reopened billing(pending throttled) crm(pending) profile(pending)")
		w.wantReplay(act(pending)) // it is due now
		w.systems["billing"].before = nil
		w.engine = w.another()
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

// another is a new process with the same configuration.
func (w *world) another() *pipeline.Engine {
	e := w.engine
	return &pipeline.Engine{Tenant: e.Tenant, Settings: e.Settings, Mapping: e.Mapping, Destinations: e.Destinations, Detectors: e.Detectors,
		Backstop: e.Backstop, Directory: e.Directory, Ledger: e.Ledger, Clock: e.Clock, Rand: e.Rand, Each: e.Each, Log: e.Log}
}

// An account that has gone is made again, one that is there is found; nobody gets a second one.
func TestReplayRepairsADestination(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		one, two := w.signUp(1), w.signUp(2)
		w.mustRun(time.Minute)
		delete(w.systems["billing"].accounts, one)
		kept := w.row(two).Associations[0].Account
		o := pipeline.ReplayOptions{State: signup.Associated, Destinations: []string{"billing"}}
		w.wantReplay(act(o), "01: reopened billing(associated) +profile(associated)", "02: reopened billing(associated) +profile(associated)")
		w.mustRun(time.Minute)
		if w.systems["billing"].made != 3 || w.row(two).Associations[0].Account != kept {
			t.Errorf("got %d accounts, and %+v", w.systems["billing"].made, w.row(two).Associations[0])
		}
		if now := w.row(one).Associations[0].Account; now != "billing_3" || w.users.all[one].Attributes["billingId"] != now {
			t.Errorf("got %s, and on the record %v", now, w.users.all[one].Attributes)
		}
	})
}

func TestReplayLeavesAnUndoneProfileUntilItIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id := w.signUp(1)
		w.mustRun(time.Minute)
		w.wantUndo(pipeline.UndoOptions{Act: true}, "01: undone "+everything)
		w.wantReplay(pipeline.ReplayOptions{State: signup.Skipped}, "01: planned news(skipped rule)")
		w.wantReplay(pipeline.ReplayOptions{State: signup.Skipped, Reason: "undone"}, "01: planned profile(skipped undone)")
		w.wantReplay(act(pipeline.ReplayOptions{State: signup.Associated, Destinations: []string{"billing"}}), "01: reopened billing(associated)")
		w.mustRun(time.Minute)
		if !w.asCreated(id) {
			t.Errorf("written again: %+v", w.users.all[id])
		}
		w.wantReplay(act(pipeline.ReplayOptions{State: signup.Skipped, Destinations: []string{"profile"}}), "01: reopened profile(skipped undone)")
		w.mustRun(time.Minute)
		if w.asCreated(id) {
			t.Error("not written again")
		}
	})
}

func TestReplayGivesAUserADestinationConfiguredLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		id, other := w.signUp(1), w.signUp(2)
		w.mustRun(time.Minute)
		more := spec()
		more.Destinations = append(more.Destinations, pipeline.DestinationSpec{Name: "mail", Record: map[string]any{"billing": "accounts.billing.id"}})
		w.systems["mail"] = &system{name: "mail", accounts: map[signup.UserID]string{}}
		w.configure(more)
		w.wantReplay(pipeline.ReplayOptions{State: signup.Failed, Users: []signup.UserID{id}}, "01: nothing")
		w.wantReplay(act(pipeline.ReplayOptions{State: signup.Failed, Users: []signup.UserID{id}, Destinations: []string{"mail"}}), "01: reopened mail()")
		w.mustRun(time.Minute)
		w.want(id, "billing: associated", "crm: associated", "news: skipped rule", "mail: associated", "profile: associated")
		w.want(other, "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
	})
}

// With more users than one write takes, a replay that breaks off anywhere is finished by another, and nobody is worked twice.
func TestReplayIsFinishedByAnother(t *testing.T) {
	const people = 250
	for name, c := range map[string]struct {
		spoil func(w *world, n int, cancel func(), do func() ([]signup.Row, error)) ([]signup.Row, error) // the nth Replace
		fails bool
		shown int // users of the first replay
	}{
		"the ledger is away": {func(_ *world, n int, _ func(), do func() ([]signup.Row, error)) ([]signup.Row, error) {
			if n == 2 {
				return nil, errors.New("the ledger is down")
			}
			return do()
		}, true, 100},
		"the answer of half a write is lost": {func(_ *world, n int, _ func(), do func() ([]signup.Row, error)) ([]signup.Row, error) {
			rows, err := do()
			if n == 2 {
				return rows[:40], errors.New("connection reset")
			}
			return rows, err
		}, true, 140},
		"it is stopped": {func(_ *world, n int, cancel func(), do func() ([]signup.Row, error)) ([]signup.Row, error) {
			if n == 2 {
				cancel()
				return nil, context.Canceled
			}
			return do()
		}, true, 100},
		"a run that has lost its lease writes a row": {func(w *world, n int, _ func(), do func() ([]signup.Row, error)) ([]signup.Row, error) {
			if n == 1 {
				id := signup.UserID("75b523ca-d064-4ddf-80af-000000000007")
				if _, err := w.ledger.Replace(context.Background(), []signup.Row{w.row(id)}); err != nil {
					w.t.Error(err)
				}
			}
			return do()
		}, false, people},
		"nothing happens": {func(_ *world, _ int, _ func(), do func() ([]signup.Row, error)) ([]signup.Row, error) { return do() }, false, people},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, spec())
				w.systems["billing"].before = always(refused)
				for n := range people {
					w.signUp(n)
				}
				w.mustRun(time.Minute)
				w.systems["billing"].before = nil
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				n := 0
				w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) { n++; return c.spoil(w, n, cancel, do) }
				shown, err := w.replay(ctx, act(failed))
				if (err != nil) != c.fails || len(shown) != c.shown {
					t.Errorf("got %d users, %v", len(shown), err)
				}
				for _, line := range shown {
					if !strings.HasSuffix(line, ": reopened "+chain) {
						t.Errorf("got %q", line)
					}
				}
				w.faults.replace = nil
				if name == "nothing happens" && n != 3 {
					t.Errorf("got %d writes: memory is to hold what one write takes", n)
				}
				if _, err := w.replay(context.Background(), act(failed)); err != nil {
					t.Error(err)
				}
				for range 3 {
					w.mustRun(time.Minute)
				}
				for n := range people {
					w.want(signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", n)), "billing: associated", "crm: associated", "news: skipped rule", "profile: associated")
				}
				if w.systems["billing"].made != people {
					t.Errorf("got %d accounts", w.systems["billing"].made)
				}
			})
		})
	}
}

// A row that somebody else changes each time is not overwritten; the user is told of, and the others are reopened.
func TestReplayNeverOverwritesSomebodyElsesWord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].before = always(refused)
		one, two := w.signUp(1), w.signUp(2)
		w.mustRun(time.Minute)
		w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			row := w.row(one)
			row.Owner = "somebody else"
			if _, err := w.ledger.Replace(context.Background(), []signup.Row{row}); err != nil {
				t.Error(err)
			}
			return do()
		}
		w.wantReplay(act(failed), "01: failed "+chain, "02: reopened "+chain)
		if got := w.row(one).Owner; got != "somebody else" {
			t.Errorf("written by %s", got)
		}
		w.want(two, "billing: pending", "crm: pending", "news: skipped rule", "profile: pending")

		// Who was worked to a good end in between is left alone.
		w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			row := w.row(one)
			for i := range row.Associations {
				row.Associations[i].State = signup.Associated
			}
			_, err := w.ledger.Replace(context.Background(), []signup.Row{row})
			return nil, errors.Join(err, signup.ErrConflict)
		}
		w.wantReplay(act(failed))
		w.want(one, "billing: associated rejected", "crm: associated needs", "news: associated rule", "profile: associated")
	})
}

// A run that has died with the lease is waited for, one that is alive too, and two operators come one after the other.
func TestReplayHoldsTheRunLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, spec())
		w.systems["billing"].before = always(refused)
		w.signUp(1)
		w.mustRun(time.Minute)
		n, err := w.ledger.Note(t.Context(), "run")
		n.Name, n.Body = "run", fmt.Appendf(nil, `{"owner":"dead","expires":%q}`, time.Now().Add(2*time.Minute).UTC().Format(time.RFC3339))
		if _, e := w.ledger.PutNote(t.Context(), n); err != nil || e != nil {
			t.Fatal(err, e)
		}
		start := time.Now()
		w.faults.replace = func(do func() ([]signup.Row, error)) ([]signup.Row, error) {
			if sum, err := w.another().Run(context.Background(), pipeline.Trigger{}); !sum.Busy || err != nil {
				t.Errorf("a run meanwhile: %+v, %v", sum, err)
			}
			return do()
		}
		second := make(chan []string)
		go func() {
			time.Sleep(time.Second)
			shown, err := w.replay(context.Background(), act(failed))
			if err != nil {
				t.Error(err)
			}
			second <- shown
		}()
		shown, err := w.replay(context.Background(), act(failed))
		if all := append(shown, <-second...); err != nil || !slices.Equal(all, []string{"01: reopened " + chain}) {
			t.Errorf("the two have shown %q, %v", all, err)
		}
		if took := time.Since(start); took < 2*time.Minute-time.Second || took > 2*time.Minute+10*time.Second {
			t.Errorf("took %v, want the dead run's two minutes", took)
		}
	})
}
