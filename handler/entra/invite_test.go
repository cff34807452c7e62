package entra_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// inviting is a workforce tenant, and somebody who may invite there.
func inviting(t *testing.T) simulated {
	return simulate(t, sim.TenantOptions{Type: sim.Workforce, InstantReplicas: true, InstantAudit: true, BlockedDomains: []string{"blocked.example"}}, "User.Invite.All", "User.Read.All")
}

var toJane = entra.Invitation{Address: "jane@fabrikam.com", Redirect: "https://app.example.com", Name: "Jane", Message: "Welcome", Mail: true}

func TestInvite(t *testing.T) {
	s := inviting(t)
	got, err := s.tenant.Invite(t.Context(), toJane)
	if err != nil || got.User != s.graph.Invited("jane@fabrikam.com") || !strings.HasPrefix(got.RedeemURL, "https://login.microsoftonline.com/redeem") || got.Accepted {
		t.Fatalf("got %+v, %v", got, err)
	}
	if mails := s.graph.Mails(); len(mails) != 1 || mails[0].Body != "Welcome" || mails[0].URL != got.RedeemURL {
		t.Errorf("got %+v", mails)
	}
	s.graph.Redeem(got.User)
	silent := toJane
	silent.Mail = false
	if again, err := s.tenant.Invite(t.Context(), silent); err != nil || again.User != got.User || !again.Accepted || len(s.graph.Mails()) != 1 {
		t.Errorf("once more: got %+v, %v, %d mails", again, err, len(s.graph.Mails()))
	}
}

func TestAnInvitationIsRefused(t *testing.T) {
	s := inviting(t)
	s.graph.SignUp(sim.Person{How: sim.Admin, Email: "boss@elsewhere.example"})
	for address, want := range map[string]string{"boss@elsewhere.example": "permanent exists", "a@blocked.example": "permanent domain-blocked", "a@contoso.com": "permanent own-domain", "a+b@x.example": "permanent bad-address"} {
		in := toJane
		in.Address = address
		_, err := s.tenant.Invite(t.Context(), in)
		if codeOf(err) != want || entra.Unsure(err) || strings.Contains(err.Error(), address) {
			t.Errorf("%s: got %v, want %s", address, err, want)
		}
	}
	if n := len(s.graph.Users()); n != 1 {
		t.Errorf("%d users", n)
	}
}

// An invitation whose answer is lost was perhaps sent: it is not sent again by the client itself, which cannot know.
func TestAnInvitationIsSentOnce(t *testing.T) {
	tests := []struct {
		name   string
		fault  sim.Fault
		code   string
		unsure bool
		mails  int
	}{
		{"lost before", sim.Fault{Path: "/invitations"}, "transient unreachable", true, 0},
		{"lost after", sim.Fault{Path: "/invitations", After: true}, "transient unreachable", true, 1},
		{"an error after", sim.Fault{Path: "/invitations", After: true, Status: 502}, "transient unavailable", true, 1},
		{"an answer cut off", sim.Fault{Path: "/invitations", After: true, Status: 201, Body: `{"id":"x","inv`}, "transient bad-answer", true, 1},
		{"an answer of nothing", sim.Fault{Path: "/invitations", After: true, Status: 201, Body: `{}`}, "transient bad-answer", true, 1},
		{"throttled for long", sim.Fault{Path: "/invitations", Status: 429, Header: http.Header{"Retry-After": {"300"}}}, "throttled throttled", false, 0},
		{"throttled for a moment", sim.Fault{Path: "/invitations", Status: 429, Header: http.Header{"Retry-After": {"2"}}}, "", false, 1},
		{"not allowed", sim.Fault{Path: "/invitations", Status: 401, Body: `{"error":{"code":"Unauthorized","message":"Guest invitations not allowed for your company."}}`}, "systemic unauthorized", false, 0},
		{"forbidden", sim.Fault{Path: "/invitations", Status: 403}, "systemic forbidden", false, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := inviting(t)
			s.graph.Faults.Add(test.fault)
			_, err := s.tenant.Invite(t.Context(), toJane)
			if codeOf(err) != test.code || entra.Unsure(err) != test.unsure {
				t.Errorf("got %v (unsure %v), want %s", err, entra.Unsure(err), test.code)
			}
			if n := len(s.graph.Mails()); n != test.mails {
				t.Errorf("%d mails, want %d", n, test.mails)
			}
			if signup.ClassOf(err) == signup.Systemic && err != nil && !strings.Contains(err.Error(), "Guest Inviter") {
				t.Errorf("got %v, want what to do", err)
			}
		})
	}
}

func TestWhoHasAnAddress(t *testing.T) {
	s := inviting(t)
	guest, err := s.tenant.Invite(t.Context(), toJane)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := s.tenant.Invite(t.Context(), entra.Invitation{Address: "o'brien@fabrikam.com", Redirect: "https://app.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	s.graph.Redeem(accepted.User)
	customer := s.graph.SignUp(sim.Person{How: sim.Email, Email: "Customer@mail.example"})
	member := s.graph.SignUp(sim.Person{How: sim.Admin, Email: "member@mail.example"})
	want := map[string]entra.Holder{"jane@fabrikam.com": {User: guest.User, Guest: true, Pending: true}, "o'brien@fabrikam.com": {User: accepted.User, Guest: true},
		"customer@mail.example": {User: customer}, "member@mail.example": {User: member}}
	addresses := []string{"jane@fabrikam.com", "o'brien@fabrikam.com", "customer@mail.example", "member@mail.example"}
	for i := range 40 {
		addresses = append(addresses, fmt.Sprintf("nobody%d@mail.example", i))
	}
	var seen []int
	got, err := s.tenant.Holders(t.Context(), addresses, func(done int) { seen = append(seen, done) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	if len(seen) != 3 || slices.Max(seen) != len(addresses) {
		t.Errorf("shown: %v", seen)
	}
}

// A look-up that fails is not "nobody has it".
func TestALookUpOfAddressesFails(t *testing.T) {
	for _, fault := range []sim.Fault{{Path: "/users", Skip: 3, Times: -1, Status: 503}, {Path: "/users", Skip: 40, Times: -1, Status: 403}, {Path: "/organization", Times: -1, Status: 403}} {
		s := inviting(t)
		s.graph.Faults.Add(fault)
		var addresses []string
		for i := range 100 {
			addresses = append(addresses, fmt.Sprintf("nobody%d@mail.example", i))
		}
		if got, err := s.tenant.Holders(t.Context(), addresses, func(int) {}); err == nil || got != nil {
			t.Errorf("%+v: got %v, %v", fault, got, err)
		}
	}
}
