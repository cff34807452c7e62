package signup_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

// rowOf has associations of "destination state reason detail", settled an hour before t0, and a pending one due in an hour.
func rowOf(associations ...string) signup.Row {
	r := signup.Row{User: alex, Kind: signup.Created, At: t0.Add(-2 * time.Hour)}
	for _, text := range associations {
		var a signup.Association
		_, _ = fmt.Sscan(text, &a.Destination, &a.State, &a.Reason, &a.Detail) // the last ones may be missing
		if a.Settled, a.FirstTry = t0.Add(-time.Hour), t0.Add(-2*time.Hour); a.State == signup.Pending {
			a.Settled, a.Next = time.Time{}, t0.Add(time.Hour)
		}
		r.Associations = append(r.Associations, a)
	}
	return r
}

func TestReplayReopensWithADestinationWhatWasDecidedByIt(t *testing.T) {
	for name, c := range map[string]struct {
		row   signup.Row
		names []string
		want  []string // that are pending and due now
	}{
		"a failed one alone":                     {rowOf("billing failed rejected", "crm associated", "profile skipped rule"), []string{"billing"}, []string{"billing", "profile"}},
		"what it does not show stays":            {rowOf("billing failed rejected", "crm failed rejected", "profile associated"), []string{"crm"}, []string{"crm"}},
		"those that need it":                     {rowOf("billing failed rejected", "crm skipped needs billing", "news skipped needs billing", "profile associated"), []string{"billing"}, []string{"billing", "crm", "news", "profile"}},
		"those that need another":                {rowOf("billing failed rejected", "crm skipped needs news", "news skipped rule", "profile pending"), []string{"billing"}, []string{"billing"}},
		"those that need those, before them too": {rowOf("mail skipped needs crm", "crm skipped needs billing", "billing failed rejected", "profile pending"), []string{"billing"}, []string{"mail", "crm", "billing"}},
		"the profile through those":              {rowOf("crm failed rejected", "billing skipped needs crm", "profile associated"), []string{"crm"}, []string{"crm", "billing", "profile"}},
		"two at once":                            {rowOf("billing failed rejected", "crm failed rejected", "mail skipped needs crm", "profile failed mapping"), []string{"crm", "billing"}, []string{"billing", "crm", "mail", "profile"}},
		"a pending one becomes due":              {rowOf("billing pending transient", "crm pending", "profile pending"), []string{"billing"}, []string{"billing"}},
		"an associated one":                      {rowOf("billing associated", "crm associated", "profile associated"), []string{"billing"}, []string{"billing", "profile"}},
		"an undone profile stays undone":         {rowOf("billing failed rejected", "profile skipped undone"), []string{"billing"}, []string{"billing"}},
		"… unless it is named":                   {rowOf("billing failed rejected", "profile skipped undone"), []string{"profile"}, []string{"profile"}},
		"one that the row lacks is added":        {rowOf("crm skipped needs billing", "profile associated"), []string{"billing"}, []string{"crm", "billing", "profile"}},
		"nothing":                                {rowOf("billing failed rejected", "profile associated"), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := rowOf()
			before.Associations = slices.Clone(c.row.Associations)
			names := append(slices.Clone(c.names), "unused")[:len(c.names)] // with room behind it
			got := c.row.Replay(names, []string{"billing"}, t0)
			var due []string
			for _, a := range got.Associations {
				old, _ := before.Association(a.Destination)
				switch {
				case a.State == signup.Pending && a.Next.Equal(t0):
					due = append(due, a.Destination)
					if a.Reason != "" || a.Detail != "" || !a.Settled.IsZero() || !a.FirstTry.IsZero() {
						t.Errorf("reopened as %+v", a)
					}
				case a != old:
					t.Errorf("%s was %+v and is %+v", a.Destination, old, a)
				}
			}
			if !slices.Equal(due, c.want) {
				t.Errorf("got %q due, want %q", due, c.want)
			}
			if wantDue := len(c.want) > 0; got.Unsure != wantDue || got.Due.Equal(t0) != wantDue {
				t.Errorf("got unsure %v, due %v", got.Unsure, got.Due)
			}
			if diff := cmp.Diff(before.Associations, c.row.Associations); diff != "" {
				t.Errorf("it has changed the row that it was called on:\n%s", diff)
			}
			if behind := names[:len(names)+1]; behind[len(names)] != "unused" {
				t.Errorf("it has written %q into the caller's list", behind[len(names)])
			}
			if again := got.Replay(c.names, []string{"billing"}, t0); !cmp.Equal(again, got) {
				t.Errorf("the second time changed something:\n%s", cmp.Diff(got, again))
			}
		})
	}
}

// What counts towards an end counts anew: after a reopening neither an old 403 nor an old 404 ends it at once.
func TestReopenCountsAnew(t *testing.T) {
	row := rowOf("billing failed forbidden")
	row.Missing = t0.Add(-time.Hour)
	row.Associations[0].Forbidden, row.Associations[0].Attempts, row.Associations[0].Generation, row.Associations[0].Account = t0.Add(-48*time.Hour), 7, 2, "cus_1"
	row.Associations[0].Spent = t0.Add(-time.Hour)
	row = row.Reopen("billing", t0)
	want := signup.Association{Destination: "billing", State: signup.Pending, Account: "cus_1", Generation: 2, Spent: t0.Add(-time.Hour), Opened: t0, Next: t0}
	if diff := cmp.Diff(want, row.Associations[0]); diff != "" || !row.Missing.IsZero() || !row.Unsure {
		t.Errorf("missing since %v, unsure %v (-want +got):\n%s", row.Missing, row.Unsure, diff)
	}
	forbidden := signup.Outcome{Destination: "billing", Err: &signup.Error{Class: signup.Systemic, Code: "forbidden", Status: 403}, LastSuccess: t0}
	if a, _ := row.Intend("run", t0).Settle(t0.Add(time.Minute), []signup.Outcome{forbidden}, full).Association("billing"); a.State != signup.Pending {
		t.Errorf("got %+v after the first 403", a)
	}
}

func TestATombstoneStaysOne(t *testing.T) {
	row := intended()
	row.Version, row.Missing, row.Unsure = "v", t0, true
	grave := row.Forget(t0)
	if diff := cmp.Diff(signup.Row{User: alex, Owner: "run1", Forgotten: t0, Version: "v"}, grave); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	at := t0.Add(time.Hour)
	for name, next := range map[string]signup.Row{
		"reopen": grave.Reopen("billing", at), "add": grave.Add("billing", at), "replay": grave.Replay([]string{"billing", signup.Profile}, []string{"billing"}, at),
		"skip": grave.Skip("billing", "undone", at), "settle all": grave.SettleAll(signup.Failed, "crash", "", at),
	} {
		if diff := cmp.Diff(grave, next); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
