package entra_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestAGuestOfAnApprovedRequestIsKnown(t *testing.T) {
	s := simulate(t, withPackages(), "User.Read.All", "Application.Read.All", "EntitlementManagement.ReadWrite.All")
	partner := s.graph.SignUp(sim.Person{How: sim.Requested, Email: "joan@fabrikam.com"})
	guest := s.graph.SignUp(sim.Person{How: sim.Guest, Email: "jim@fabrikam.com"})
	requested := func(id signup.UserID) bool {
		t.Helper()
		users, err := s.tenant.Users(t.Context(), []signup.UserID{id})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.tenant.Requested(t.Context(), users[id])
		if err != nil {
			t.Error(err)
		}
		return got
	}
	if requested(partner) {
		t.Error("the simulation names the account before it is delivered: the test does not show what it is for")
	}
	_ = s.clock.Sleep(t.Context(), 4*time.Minute)
	if !requested(partner) || requested(guest) {
		t.Errorf("got %v for the one who asked and %v for the one who was invited", requested(partner), requested(guest))
	}
	// Our own request for somebody who is there already says nothing of where they come from.
	if _, _, err := s.follow(t, accessPackage(t, s.tenant, pack, direct), requests(guest)[0]); err != nil || requested(guest) {
		t.Errorf("after an assignment of ours: got %v, %v", requested(guest), err)
	}
}

func TestWhichRequestHasBroughtAGuest(t *testing.T) {
	const before, after = "2026-01-02T02:00:00.5Z", "2026-01-02T04:00:00Z"
	created := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	row := func(kind, state, made, completed string) string {
		if completed != "null" {
			completed = `"` + completed + `"`
		}
		return fmt.Sprintf(`{"requestType":%q,"state":%q,"createdDateTime":%q,"completedDateTime":%s,"assignment":{"target":{"objectId":%q}}}`, kind, state, made, completed, jane)
	}
	for name, c := range map[string]struct {
		rows string
		want bool
	}{
		"nobody asked":               {"", false},
		"asked, approved, delivered": {row("userAdd", "delivered", before, after), true},
		"being delivered":            {row("userAdd", "Delivering", before, "null"), true},
		"delivery failed later":      {row("userAdd", "deliveryFailed", before, after), true},
		"assigned by an address":     {row("adminAdd", "delivered", before, after), true},
		"asked in the same second":   {row("userAdd", "delivered", "2026-01-02T03:00:00.9Z", after), true},
		"a second later":             {row("userAdd", "delivered", "2026-01-02T03:00:01.1Z", after), false},
		"assigned afterwards":        {row("adminAdd", "delivered", after, after), false},
		"not approved yet":           {row("userAdd", "pendingApproval", before, "null"), false},
		"refused":                    {row("userAdd", "denied", before, after), false},
		"at its end before":          {row("userAdd", "delivered", before, "2026-01-02T02:30:00Z"), false},
		"a removal":                  {row("userRemove", "delivered", before, after), false},
		"the second of two":          {row("adminAdd", "delivered", after, after) + "," + row("userAdd", "delivered", before, after), true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGraph(t, page("", c.rows))
			got, err := g.open().Requested(t.Context(), signup.User{ID: jane, Created: created})
			if err != nil || got != c.want {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
			if filter := g.asked()[0].Query.Get("$filter"); filter != "assignment/target/objectId eq '"+string(jane)+"'" || len(g.asked()) != 1 {
				t.Errorf("got filter %q in %d calls", filter, len(g.asked()))
			}
		})
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"somebody else's request":   {page("", strings.ReplaceAll(row("userAdd", "delivered", before, after), string(jane), string(joan))), "transient bad-answer"},
		"it does not answer":        {answer(503, html), "transient unavailable"},
		"the question is refused":   {refusal(400, "InvalidFilter", "x"), "systemic rejected"},
		"the permission is missing": {refusal(403, "UnAuthorized", "x"), "systemic forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newGraph(t, c.answer).open().Requested(t.Context(), signup.User{ID: jane, Created: created})
			if got := codeOf(err); got != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if c.want == "systemic forbidden" && !strings.Contains(err.Error(), "EntitlementManagement.Read.All") {
				t.Errorf("%v does not name the permission", err)
			}
		})
	}
}
