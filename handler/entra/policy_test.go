package entra_test

import (
	"net/http"
	"strings"
	"testing"

	"signup-sync/handler/entra"
	"signup-sync/handler/sim"
)

func TestPoliciesAreChanged(t *testing.T) {
	s := simulate(t, sim.TenantOptions{InstantReplicas: true, UserFlows: []sim.UserFlow{{Name: "Sign up"}}}, "Policy.ReadWrite.Authorization", "EventListener.ReadWrite.All")
	for _, fault := range []sim.Fault{{Path: "/nothing"}, {Method: "PATCH", After: true}, {Method: "PATCH", Status: 503}, {Method: "PATCH", Status: 429, Header: http.Header{"Retry-After": {"3"}}}} {
		for _, on := range []bool{false, true} {
			s.graph.Faults.Clear()
			s.graph.Faults.Add(fault)
			if err := s.tenant.ChangeSignUpPolicy(t.Context(), entra.SignUpChange{EmailVerifiedJoin: &on}); err != nil {
				t.Fatal(err)
			}
			if p, err := s.tenant.SignUpPolicy(t.Context()); err != nil || p.EmailVerifiedJoin != on || !p.EmailSubscriptions {
				t.Errorf("%+v: got %+v, %v, want %v", fault, p, err, on)
			}
			s.graph.Faults.Add(fault)
			flows, err := s.tenant.UserFlows(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.tenant.AllowSignUp(t.Context(), flows[0].ID, on); err != nil {
				t.Fatal(err)
			}
			if flows, err := s.tenant.UserFlows(t.Context()); err != nil || flows[0].SignUpAllowed != on {
				t.Errorf("%+v: got %+v, %v, want %v", fault, flows, err, on)
			}
		}
	}
	s.entra.SetApp(sim.App{ID: clientID, Secret: aSecret, Roles: []string{"Policy.Read.All", "EventListener.Read.All"}})
	weak := s.as(clientID, aSecret)
	off := false
	for what, err := range map[string]error{"Privileged Role Administrator": weak.ChangeSignUpPolicy(t.Context(), entra.SignUpChange{EmailSubscriptions: &off}), "External ID User Flow Administrator": weak.AllowSignUp(t.Context(), "x", off)} {
		if codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want %s", err, what)
		}
	}
}
