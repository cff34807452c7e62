package entra_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestTheBackstopTellsWhoHasRedeemedAndWhen(t *testing.T) {
	s := simulate(t, sim.TenantOptions{InstantReplicas: true}, allRoles...)
	id := s.graph.SignUp(sim.Person{Email: "jane@fabrikam.com"})
	pending := s.graph.SignUp(sim.Person{How: sim.Guest, Email: "joan@fabrikam.com"})
	late := s.graph.SignUp(sim.Person{How: sim.Guest, Email: "jim@fabrikam.com"})
	_ = s.clock.Sleep(t.Context(), 3*time.Hour)
	s.graph.Redeem(late)
	accepted := s.clock.Now()
	_ = s.clock.Sleep(t.Context(), time.Minute)
	collect := func(d signup.Detector) map[signup.UserID]signup.Event {
		got, err := events(t, d, window)
		if err != nil {
			t.Fatal(err)
		}
		users := map[signup.UserID]signup.Event{}
		for _, e := range got {
			users[e.User] = e
		}
		return users
	}
	want := map[signup.UserID]signup.Event{id: created(id, start), pending: created(pending, start), late: {User: late, Kind: signup.Redeemed, At: accepted, Created: start}}
	if diff := cmp.Diff(collect(s.tenant.Backstop()), want); diff != "" {
		t.Errorf("backstop: got, want:\n%s", diff)
	}
	want[late] = created(late, start)
	if diff := cmp.Diff(collect(s.tenant.Directory()), want); diff != "" {
		t.Errorf("directory: got, want:\n%s", diff)
	}
}

func TestBackstopRecords(t *testing.T) {
	record := func(rest string) string {
		return `{"id":"` + string(jane) + `","createdDateTime":"2026-01-02T03:00:00Z"` + rest + `}`
	}
	redeemed := func(at time.Time) signup.Event {
		return signup.Event{User: jane, Kind: signup.Redeemed, At: at, Created: start}
	}
	for _, test := range []struct {
		name, rest string
		want       signup.Event
	}{
		{"no guest", ``, created(jane, start)},
		{"nulls", `,"externalUserState":null,"externalUserStateChangeDateTime":null`, created(jane, start)},
		{"pending", `,"externalUserState":"PendingAcceptance","externalUserStateChangeDateTime":"2026-01-02T03:00:00Z"`, created(jane, start)},
		{"accepted", `,"externalUserState":"Accepted","externalUserStateChangeDateTime":"2026-02-02T03:00:00Z"`, redeemed(start.AddDate(0, 1, 0))},
		{"accepted, in small letters", `,"externalUserState":"accepted","externalUserStateChangeDateTime":"2026-01-02T03:00:01.5Z"`, redeemed(start.Add(1500 * time.Millisecond))},
		{"accepted, no time", `,"externalUserState":"Accepted"`, redeemed(start)},
		{"accepted, a time that is none", `,"externalUserState":"Accepted","externalUserStateChangeDateTime":"02.01.2026"`, redeemed(start)},
		{"accepted, a number for a time", `,"externalUserState":"Accepted","externalUserStateChangeDateTime":7`, redeemed(start)},
		{"accepted before the creation", `,"externalUserState":"Accepted","externalUserStateChangeDateTime":"0001-01-01T00:00:00Z"`, redeemed(start)},
		{"a state that is none", `,"externalUserState":{}`, created(jane, start)},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, page("", record(test.rest)))
			tenant := g.open()
			got, err := events(t, tenant.Backstop(), window)
			if err != nil || !cmp.Equal(got, []signup.Event{test.want}) || tenant.Counts().Undecodable != 0 {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
			if got, want := g.asked()[0].Query.Get("$select"), "id,createdDateTime,externalUserState,externalUserStateChangeDateTime"; got != want {
				t.Errorf("got $select=%s, want %s", got, want)
			}
		})
	}
	b := newGraph(t, page("")).open().Backstop()
	if b.Name() != "backstop" || b.Retention() != 0 {
		t.Errorf("got %s, %v: the name is in the ledger", b.Name(), b.Retention())
	}
}

func TestARecordBetweenTwoWindowsIsPassedOverOnce(t *testing.T) {
	bad := page("", `{"id":"illegible","createdDateTime":"2026-01-02T03:00:00Z"}`)
	b := newGraph(t, bad, bad).open().Backstop()
	for _, w := range []signup.Window{{From: start.Add(-time.Hour), To: start}, {From: start, To: start.Add(time.Hour)}} {
		if _, err := events(t, b, w); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.(interface{ PassedOver() int64 }).PassedOver(); n != 1 {
		t.Errorf("it was passed over %d times", n)
	}
}
