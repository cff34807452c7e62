package signup_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

var (
	t0   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	alex = signup.UserID("75b523ca-d064-4ddf-80af-87738f504026")
)

func full(d time.Duration) time.Duration { return d }

func intended() signup.Row {
	return signup.NewRow(signup.Event{User: alex, Kind: signup.Created, At: t0}, "audit", []string{"billing", "crm"}, t0).Intend("run1", t0)
}

func TestSettle(t *testing.T) {
	at := t0.Add(time.Minute)
	for name, c := range map[string]struct {
		outcome signup.Outcome
		want    signup.Association
	}{
		"success": {
			signup.Outcome{Account: signup.Account{ID: "cus_1"}},
			signup.Association{State: signup.Associated, Account: "cus_1", FirstTry: t0, Settled: at},
		},
		"an error without a class is transient": {
			signup.Outcome{Err: errors.New("x")},
			signup.Association{State: signup.Pending, Reason: "transient", Attempts: 1, FirstTry: t0, Next: at.Add(5 * time.Second)},
		},
		"throttled costs no attempt": {
			signup.Outcome{Err: &signup.Error{Class: signup.Throttled, Code: "throttled", RetryAfter: 90 * time.Second}},
			signup.Association{State: signup.Pending, Reason: "throttled", FirstTry: t0, Next: at.Add(90 * time.Second)},
		},
		"permanent": {
			signup.Outcome{Err: &signup.Error{Class: signup.Permanent, Code: "rejected", Detail: strings.Repeat("é", 200)}},
			signup.Association{State: signup.Failed, Reason: "rejected", Detail: strings.Repeat("é", 100), FirstTry: t0, Settled: at},
		},
		"skip": {
			signup.Outcome{Err: &signup.Error{Class: signup.Skip, Code: "rule"}},
			signup.Association{State: signup.Skipped, Reason: "rule", FirstTry: t0, Settled: at},
		},
		"systemic costs no attempt": {
			signup.Outcome{Err: &signup.Error{Class: signup.Systemic, Code: "unauthorized", Status: 401}},
			signup.Association{State: signup.Pending, Reason: "unauthorized", FirstTry: t0, Next: at.Add(time.Minute)},
		},
		"not started leaves no intent behind": {
			signup.Outcome{NotStarted: true, Wait: time.Hour},
			signup.Association{State: signup.Pending, Next: at.Add(time.Hour)},
		},
		"a spent key moves to the next generation": {
			signup.Outcome{Err: &signup.Error{Class: signup.Transient, Code: "key-spent"}},
			signup.Association{State: signup.Pending, Reason: "key-spent", Generation: 1, Attempts: 1, FirstTry: t0, Next: at.Add(5 * time.Second)},
		},
		"a key that settles is remembered": {
			signup.Outcome{Err: &signup.Error{Class: signup.Transient, Code: "key-settling", RetryAfter: time.Hour}},
			signup.Association{State: signup.Pending, Reason: "key-settling", Spent: at, Attempts: 1, FirstTry: t0, Next: at.Add(time.Hour)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.outcome.Destination, c.want.Destination = "billing", "billing"
			row := intended().Settle(at, []signup.Outcome{c.outcome}, full)
			got, _ := row.Association("billing")
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Errorf("got (-) want (+):\n%s", diff)
			}
			if row.Starts != 0 || !row.Intent.IsZero() {
				t.Errorf("got %d starts and an intent of %v, want the intent closed", row.Starts, row.Intent)
			}
			other, _ := row.Association("crm")
			if other.State != signup.Pending || other.FirstTry != t0 || !row.Due.Equal(t0) {
				t.Errorf("got %+v, due %v: without an outcome an association stays as a tried one, and due", other, row.Due)
			}
		})
	}
}

func TestForbiddenFailsOneUserOnlyWhereOthersAreAccepted(t *testing.T) {
	forbidden := signup.Outcome{Destination: "billing", Err: &signup.Error{Class: signup.Systemic, Code: "forbidden", Status: 403}}
	settle := func(after time.Duration, success time.Time) signup.State {
		row := intended().Settle(t0, []signup.Outcome{forbidden}, full) // the first 403
		o := forbidden
		o.LastSuccess = success
		a, _ := row.Intend("run2", t0.Add(after)).Settle(t0.Add(after), []signup.Outcome{o}, full).Association("billing")
		return a.State
	}
	if got := settle(25*time.Hour, t0.Add(-time.Hour)); got != signup.Pending {
		t.Errorf("others were accepted before, nobody since: got %s, want pending", got)
	}
	if got := settle(25*time.Hour, time.Time{}); got != signup.Pending {
		t.Errorf("nobody is accepted: got %s, want pending", got)
	}
	if got := settle(23*time.Hour, t0.Add(time.Hour)); got != signup.Pending {
		t.Errorf("others are accepted, 23 h: got %s, want pending", got)
	}
	if got := settle(25*time.Hour, t0.Add(time.Hour)); got != signup.Failed {
		t.Errorf("others are accepted, 25 h: got %s, want failed", got)
	}
}

func TestHorizonEndsInFailedNeverInNothing(t *testing.T) {
	row := intended()
	now := t0
	for tries := 1; ; tries++ {
		row = row.Settle(now, []signup.Outcome{
			{Destination: "billing", Err: errors.New("down")},
			{Destination: "crm", Account: signup.Account{ID: "1"}}, {Destination: signup.Profile},
		}, full)
		a, _ := row.Association("billing")
		if a.State == signup.Failed {
			if a.Reason != "horizon" || now.Sub(t0) < signup.Horizon || !row.Due.IsZero() {
				t.Fatalf("got %+v after %v, due %v; want failed: horizon after 14 days, nothing due", a, now.Sub(t0), row.Due)
			}
			if tries < 300 {
				t.Fatalf("got %d tries in 14 days, want one at least every hour", tries)
			}
			return
		}
		if now = a.Next; now.Sub(t0) > signup.Horizon+2*time.Hour {
			t.Fatalf("still pending after %v: %+v", now.Sub(t0), a)
		}
		row = row.Intend("run", now)
	}
}

func TestTriedTellsWhetherAnEffectMayExist(t *testing.T) {
	first, _ := intended().Association("billing")
	if intended().Tried(first) {
		t.Error("first intent: got tried")
	}
	crashed := intended().Intend("run2", t0.Add(time.Minute))
	if a, _ := crashed.Association("billing"); !crashed.Tried(a) || crashed.Starts != 2 {
		t.Errorf("an intent was left behind: got not tried, %d starts", crashed.Starts)
	}
	back := intended().Postpone(t0, time.Second).Intend("run2", t0.Add(time.Minute))
	if a, _ := back.Association("billing"); back.Tried(a) {
		t.Error("handed back unstarted: got tried")
	}
	cut := intended().Settle(t0, nil, full).Intend("run2", t0.Add(time.Minute))
	if a, _ := cut.Association("billing"); !cut.Tried(a) {
		t.Error("a call was cut short: got not tried")
	}
	again := intended().SettleAll(signup.Failed, "rejected", "", t0).Reopen("billing", t0.Add(time.Hour)).Intend("run2", t0.Add(time.Hour))
	if a, _ := again.Association("billing"); !again.Tried(a) || a.FirstTry != t0.Add(time.Hour) {
		t.Errorf("reopened: got %+v, want tried and its horizon anew", a)
	}
}

func TestBegunTellsWhetherAnAccountMayExist(t *testing.T) {
	end := func(r signup.Row) signup.Row { return r.SettleAll(signup.Skipped, "not-redeemed", "", t0) }
	for about, c := range map[string]struct {
		row  signup.Row
		want bool
	}{
		"nothing was sent":        {end(intended()), false},
		"handed back before":      {end(intended().Postpone(t0, 0).Intend("run2", t0.Add(time.Minute))), false},
		"somebody died at it":     {end(intended().Intend("run2", t0)), true},
		"a call was cut short":    {end(intended().Settle(t0, nil, full).Intend("run2", t0.Add(time.Minute))), true},
		"it was opened once more": {end(intended().SettleAll(signup.Failed, "", "", t0).Reopen("crm", t0).Intend("run2", t0)), true},
		"there is one":            {end(intended().Learn(t0, []signup.Outcome{{Destination: "crm"}}, full)), true},
	} {
		if got := c.row.Begun(); got != c.want {
			t.Errorf("%s: got %v", about, got)
		}
	}
}

func TestWhoWaitsIsDueWithWhomItWaitsFor(t *testing.T) {
	at := t0.Add(time.Minute)
	row := intended().Settle(at, []signup.Outcome{
		{Destination: "billing", Err: &signup.Error{Class: signup.Throttled, RetryAfter: 7 * time.Minute}},
		{Destination: "crm", NotStarted: true, For: []string{"billing"}},
		{Destination: signup.Profile, NotStarted: true, For: []string{"crm"}},
	}, full)
	if want := at.Add(7 * time.Minute); !row.Due.Equal(want) {
		t.Errorf("got due %v, want %v", row.Due, want)
	}
}

func TestRowSharesNothingWithTheOneItCameFrom(t *testing.T) {
	before := intended()
	kept := intended()
	before.Settle(t0, []signup.Outcome{{Destination: "billing"}}, full)
	before.SettleAll(signup.Skipped, "origin", "", t0)
	before.Reopen("billing", t0)
	before.Skip(signup.Profile, "undone", t0)
	if diff := cmp.Diff(before, kept); diff != "" {
		t.Errorf("a transition changed the row it was called on:\n%s", diff)
	}
}

func TestBackoffGrowsToAnHour(t *testing.T) {
	for n, want := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 11: time.Hour, 400: time.Hour} {
		if got := signup.Backoff(n, full); got != want {
			t.Errorf("after %d: got %v, want %v", n, got, want)
		}
	}
}

func TestTheHorizonCountsForThoseNeverLetInAgain(t *testing.T) {
	row := intended().Settle(t0, []signup.Outcome{{Destination: "billing", Err: errors.New("down")}}, full)
	at := t0.Add(signup.Horizon)
	row = row.Intend("run2", at).Settle(at, []signup.Outcome{{Destination: "billing", NotStarted: true, Wait: time.Hour}}, full)
	if a, _ := row.Association("billing"); a.State != signup.Failed || a.Reason != "horizon" {
		t.Errorf("got %+v, want failed: horizon", a)
	}
}

func TestSkipEndsOneAssociationInAnyState(t *testing.T) {
	at := t0.Add(time.Hour)
	settle := func(err error) signup.Row {
		return intended().Settle(t0, []signup.Outcome{
			{Destination: signup.Profile, Err: err}, {Destination: "billing", Account: signup.Account{ID: "cus_1"}}, {Destination: "crm", Err: errors.New("down")},
		}, full)
	}
	undone := signup.Association{Destination: signup.Profile, State: signup.Skipped, Reason: "undone", FirstTry: t0, Settled: at}
	for name, c := range map[string]struct {
		row  signup.Row
		want signup.Association
	}{
		"associated":      {settle(nil), undone},
		"failed":          {settle(&signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "x"}), undone},
		"pending":         {intended(), undone},
		"skipped already": {settle(&signup.Error{Class: signup.Skip, Code: "rule"}), signup.Association{Destination: signup.Profile, State: signup.Skipped, Reason: "rule", FirstTry: t0, Settled: t0}},
	} {
		t.Run(name, func(t *testing.T) {
			row := c.row.Skip(signup.Profile, "undone", at)
			got, _ := row.Association(signup.Profile)
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Errorf("got (-) want (+):\n%s", diff)
			}
			for _, d := range []string{"billing", "crm"} {
				before, _ := c.row.Association(d)
				if after, _ := row.Association(d); after != before {
					t.Errorf("%s: got %+v, want it left as %+v", d, after, before)
				}
			}
			if crm, _ := row.Association("crm"); crm.State != signup.Pending || !row.Due.Equal(firstDue(crm.Next, row)) {
				t.Errorf("got due %v, want it with what is still pending", row.Due)
			}
			if again := row.Skip(signup.Profile, "undone", at.Add(time.Hour)); !cmp.Equal(again, row) {
				t.Error("the second time changed something")
			}
		})
	}
	row := intended().SettleAll(signup.Associated, "", "", t0).Skip(signup.Profile, "undone", at)
	if !row.Due.IsZero() {
		t.Errorf("got due %v, want nothing due", row.Due)
	}
	if a, _ := row.Reopen(signup.Profile, at).Association(signup.Profile); a.State != signup.Pending || a.Reason != "" || a.Next != at {
		t.Errorf("reopened: got %+v", a)
	}
}

// firstDue is when the row's first pending association is due.
func firstDue(next time.Time, row signup.Row) time.Time {
	for _, a := range row.Associations {
		if a.State == signup.Pending && a.Next.Before(next) {
			next = a.Next
		}
	}
	return next
}
