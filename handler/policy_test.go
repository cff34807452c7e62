package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// office is a played world with an administrator, in a tenant of one's choice.
type office struct {
	*played
}

func openOffice(t *testing.T, o sim.TenantOptions) office {
	t.Helper()
	f := office{openPlayed(t, 0)}
	o.ID, o.Seed, o.Clock, o.Throttle = simTenant, 1, f.clock, sim.ThrottleOff
	f.Tenant = sim.NewTenant(o)
	f.Entra.SetLogin(simAdministrator)
	f.Entra.SetApp(sim.App{ID: simClient, Secret: simSecret, Roles: simRoles})
	return f
}

// does runs a command; what it says may name who is invited.
func (f office) does(args ...string) (code int, stdout, stderr string) {
	f.t.Helper()
	var out, errs bytes.Buffer
	code = run(f.t.Context(), system{args: args, getenv: f.getenv, stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

// demand wants an exit code, and these texts in what is said.
func (f office) demand(code int, args []string, says ...string) (stdout, stderr string) {
	f.t.Helper()
	got, stdout, stderr := f.does(args...)
	for _, text := range says {
		if !strings.Contains(stdout+stderr, text) {
			f.t.Errorf("%s does not say %q", args, text)
		}
	}
	if got != code || f.t.Failed() {
		f.t.Errorf("%s: got exit code %d, want %d, and\n%s\n%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// switches are the authorization policy as it is.
func (f office) switches() (subscriptions, join bool) {
	f.t.Helper()
	token := sim.Token(sim.Claims{Audience: defaultGraph, Tenant: simTenant, Roles: []string{"Policy.Read.All"}, Expires: f.clock.Now().AddDate(1, 0, 0).Unix()})
	req, err := http.NewRequestWithContext(f.t.Context(), "GET", f.server.URL+"/v1.0/policies/authorizationPolicy", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := f.server.Client().Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	var p struct {
		Subscriptions bool `json:"allowedToSignUpEmailBasedSubscriptions"`
		Join          bool `json:"allowEmailVerifiedUsersToJoinOrganization"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		f.t.Fatal(err)
	}
	return p.Subscriptions, p.Join
}

// patches is how often something was changed in the tenant.
func (f office) patches() (n int) {
	for route, calls := range f.Tenant.Counts() {
		if strings.HasPrefix(route, "PATCH ") {
			n += calls
		}
	}
	return n
}

func TestPolicyIsShownInWords(t *testing.T) {
	words := map[[2]bool]string{{true, true}: "Anyone with a mailbox in a verified domain", {true, false}: "Only people who have an account here", {false, true}: "changes nothing while the other switch is off", {false, false}: "nobody becomes a member by a verified address"}
	said := map[string]bool{}
	for is, text := range words {
		f := openOffice(t, sim.TenantOptions{Type: sim.Workforce, NoEmailSubscriptions: !is[0], NoVerifiedJoin: !is[1]})
		out, errs := f.demand(0, []string{"policy"}, text, "Log in to the tenant "+simTenant, "Policy.Read.All, EventListener.Read.All", "microsoft.com/devicelogin", "is a guest here in any case", "no user flow")
		if strings.Contains(out, "devicelogin") || f.patches() > 0 || strings.Contains(errs, "state=") {
			t.Errorf("got %s\n%s, %d changes", out, errs, f.patches())
		}
		said[strings.Join(meaningOf(entra.SignUpPolicy{EmailSubscriptions: is[0], EmailVerifiedJoin: is[1]}), " ")] = true
	}
	if len(said) != 4 {
		t.Errorf("%d texts for 4 cases", len(said))
	}
	f := openOffice(t, sim.TenantOptions{UserFlows: []sim.UserFlow{{Name: "Customers"}, {Name: "Staff", Closed: true}}})
	f.demand(0, []string{"policy"}, "Customers ", "Anyone can sign up by 1 of 2")
	f.Tenant.Faults.Add(sim.Fault{Path: "/authenticationEventsFlows", Times: 3, Status: 503})
	f.demand(1, []string{"policy"}, "read the user flows")
	f.Tenant.Faults.Add(sim.Fault{Path: "/authenticationEventsFlows", Status: 404})
	f.demand(0, []string{"policy"}, "Not shown: read the user flows", "not in every cloud")
	out, _ := f.demand(0, []string{"policy", "--json"})
	var p shownPolicy
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Tenant != simTenant || len(p.Flows) != 2 || !p.Policy.EmailVerifiedJoin || len(p.Meaning) == 0 {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestPolicyIsChangedAfterItWasShown(t *testing.T) {
	f := openOffice(t, sim.TenantOptions{Type: sim.Workforce})
	f.demand(0, []string{"policy", "set", "--email-verified=off"}, emailVerifiedJoin+"   on -> off", "add --yes", "Only people who have an account", "for Policy.Read.All.")
	if f.patches() != 0 {
		t.Fatalf("the plan changed something")
	}
	_, errs := f.demand(0, []string{"policy", "set", "--email-verified=off", "--yes"}, "on -> off", "Changed.", "for Policy.ReadWrite.Authorization.")
	if s, j := f.switches(); !s || j {
		t.Errorf("got %v, %v", s, j)
	}
	for _, state := range []string{"begun", "changed"} {
		i := slices.IndexFunc(strings.Split(errs, "\n"), func(line string) bool {
			return strings.Contains(line, `msg="sign-up policy" by=`+simAdmin) && strings.Contains(line, "what="+emailVerifiedJoin+" before=on after=off state="+state+" at=")
		})
		if i < 0 {
			t.Errorf("no audit line that it has %s:\n%s", state, errs)
		}
	}
	f.demand(0, []string{"policy", "set", "--email-verified=off", "--yes"}, "It is so already")
	if f.patches() != 1 {
		t.Errorf("%d changes, want 1", f.patches())
	}
	out, _ := f.demand(0, []string{"policy", "set", "--email-subscriptions=off", "--email-verified=on", "--yes", "--json"})
	var got struct {
		Acted   bool
		Changes []policyChange
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || !got.Acted || len(got.Changes) != 2 || got.Changes[0].State != "changed" {
		t.Errorf("got %s, %v", out, err)
	}
	if s, j := f.switches(); s || !j {
		t.Errorf("got %v, %v", s, j)
	}
}

func TestUserFlowIsOpenedAndClosed(t *testing.T) {
	f := openOffice(t, sim.TenantOptions{UserFlows: []sim.UserFlow{{Name: "Customers"}, {Name: "Staff", Closed: true}}})
	f.demand(2, []string{"policy", "set", "--sign-up=off"}, "say which user flow", "Customers, Staff")
	f.demand(2, []string{"policy", "set", "--sign-up=off", "--flow=Else"}, "Customers, Staff")
	f.demand(0, []string{"policy", "set", "--sign-up=off", "--flow=customers", "--yes"}, "isSignUpAllowed of Customers", "nobody can sign up as a customer", "for EventListener.ReadWrite.All.", "state=changed")
	f.demand(0, []string{"policy"}, "no user flow of 2 lets people sign up")
	f.demand(0, []string{"policy", "set", "--sign-up=on", "--flow=Staff", "--yes"})
	f.demand(0, []string{"policy"}, "Anyone can sign up by 1 of 2")
	f.demand(1, []string{"policy", "set", "--sign-up=on", "--yes", "--flow=Staff", "--client-id=" + simClient}, "allow public client flows")
}

func TestPolicyIsNotChanged(t *testing.T) {
	act := []string{"policy", "set", "--email-verified=off", "--yes"}
	as := func(change func(*sim.Login)) func(office) {
		return func(f office) {
			l := simAdministrator
			change(&l)
			f.Entra.SetLogin(l)
		}
	}
	tests := []struct {
		name string
		is   func(office)
		args []string
		code int
		says []string
	}{
		{"nothing is asked", func(office) {}, []string{"policy", "set"}, 2, []string{"say what to change"}},
		{"a flow alone", func(office) {}, []string{"policy", "set", "--flow=x", "--email-verified=on"}, 2, []string{"--sign-up"}},
		{"a client that is none", func(office) {}, append(slices.Clone(act), "--client-id=az"), 2, []string{"wants the application (client) id"}},
		{"in Azure", func(f office) { f.settings["IDENTITY_ENDPOINT"] = f.server.URL }, act, 2, []string{"no person"}},
		{"another tenant's login", as(func(l *sim.Login) { l.Tenant = simGroup }), act, 1, []string{"the login is for the tenant " + simGroup}},
		{"declined", as(func(l *sim.Login) { l.Consent = nil }), act, 1, []string{"no-login", "administrator"}},
		{"expired", as(func(l *sim.Login) { l.Refuse = "expired_token" }), act, 1, []string{"in time"}},
		{"without the directory role", as(func(l *sim.Login) { l.Roles = []string{sim.GuestInviter} }), act, 1, []string{"Privileged Role Administrator", "state=failed"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := openOffice(t, sim.TenantOptions{Type: sim.Workforce})
			test.is(f)
			f.demand(test.code, test.args, test.says...)
			if _, join := f.switches(); join == (test.code == 0) {
				t.Errorf("the switch is %v", join)
			}
		})
	}
}

// The answer to a change is lost: what is true is read, and told.
func TestPolicyChangeWhoseAnswerIsLost(t *testing.T) {
	tests := []struct {
		name   string
		faults []sim.Fault
		code   int
		says   []string
		join   bool
	}{
		{"after the effect, always", []sim.Fault{{Method: "PATCH", Times: -1, After: true}}, 0, []string{"state=changed", "Changed."}, false},
		{"before the effect, always", []sim.Fault{{Method: "PATCH", Times: -1}}, 1, []string{"state=unknown", "nobody knows"}, true},
		{"before the effect, once", []sim.Fault{{Method: "PATCH"}}, 0, []string{"state=changed"}, false},
		{"throttled once", []sim.Fault{{Method: "PATCH", Status: 429, Header: http.Header{"Retry-After": {"5"}}}}, 0, []string{"state=changed"}, false},
		{"throttled for long", []sim.Fault{{Method: "PATCH", Times: -1, Status: 429, Header: http.Header{"Retry-After": {"600"}}}}, 1, []string{"state=failed", "throttled"}, true},
		{"and nothing can be read", []sim.Fault{{Method: "PATCH", Times: -1, After: true}, {Method: "GET", Path: "/policies", Skip: 1, Times: -1, Status: 503}}, 1, []string{"state=unknown"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := openOffice(t, sim.TenantOptions{Type: sim.Workforce})
			f.Tenant.Faults.Add(test.faults...)
			f.demand(test.code, []string{"policy", "set", "--email-verified=off", "--yes"}, test.says...)
			f.Tenant.Faults.Clear()
			if _, join := f.switches(); join != test.join {
				t.Errorf("the switch is %v", join)
			}
		})
	}
}

func TestContradictions(t *testing.T) {
	all := []signup.Origin{signup.SelfService, signup.EmailVerified}
	open, closed := entra.SignUpPolicy{EmailSubscriptions: true, EmailVerifiedJoin: true}, entra.SignUpPolicy{EmailVerifiedJoin: true}
	tests := []struct {
		origins []signup.Origin
		policy  entra.SignUpPolicy
		kind    entra.TenantKind
		want    string
	}{
		{all, open, "", ""},
		{all, closed, "", ""},
		{all, closed, entra.ExternalTenant, ""},
		{all, closed, entra.WorkforceTenant, "nobody can sign up with a work or school address, and signups.origins has emailVerified"},
		{all[1:], closed, "", "nobody can sign up with a work or school address, and signups.origins has emailVerified alone"},
		{all[1:], entra.SignUpPolicy{EmailSubscriptions: true}, "", "nobody without an account can sign up with a work or school address, and signups.origins has emailVerified alone"},
		{all[:1], open, entra.WorkforceTenant, "anyone with a mailbox in a verified domain can sign up, and signups.origins leaves them out"},
		{all[:1], open, entra.ExternalTenant, ""}, // where nobody comes so, and the doctor says of emailVerified that it is to be taken out
		{all[:1], open, entra.B2CTenant, ""},
		{all[:1], open, "", "anyone with a mailbox in a verified domain can sign up, and signups.origins leaves them out (in an external tenant nobody comes so)"},
		{all[:1], closed, "", ""},
	}
	for _, test := range tests {
		if got := contradiction(test.origins, test.policy, test.kind); got != test.want {
			t.Errorf("%v %+v %s: got %q, want %q", test.origins, test.policy, test.kind, got, test.want)
		}
	}
	flows := []entra.UserFlow{{Name: "a"}, {Name: "b", SignUpAllowed: true}}
	got := []string{flowContradiction(all, flows, ""), flowContradiction(all, flows[:1], ""), flowContradiction(all[1:], flows, ""), flowContradiction(all[1:], nil, ""),
		flowContradiction(all, nil, entra.WorkforceTenant), flowContradiction(all[:1], nil, entra.WorkforceTenant)}
	if diff := cmp.Diff(got, []string{"", "no user flow of 1 lets people sign up, and signups.origins has selfService (in a workforce tenant that may be as it should)", "people can sign up by a user flow, and signups.origins leaves them out", "",
		"", "no user flow of 0 lets people sign up, and signups.origins has selfService"}); diff != "" {
		t.Error(diff)
	}
	nobody, guests := entra.SignUpPolicy{InvitesFrom: "none"}, []signup.Origin{signup.Invitation}
	got = []string{inviteContradiction(guests, nobody), inviteContradiction(all, nobody), inviteContradiction(guests, entra.SignUpPolicy{InvitesFrom: "adminsAndGuestInviters"})}
	if diff := cmp.Diff(got, []string{"nobody can invite guests (allowInvitesFrom is none), and signups.origins has invitation", "", ""}); diff != "" {
		t.Error(diff)
	}
}
