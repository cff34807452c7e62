package entra_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// reader is another app, which may read what ours should not.
func (s simulated) reader(roles ...string) *entra.Tenant {
	const client, secret = "0f7f1f6a-0000-4000-8000-0000000000aa", "an0ther-secret"
	s.entra.SetApp(sim.App{ID: client, Secret: secret, Roles: roles})
	return s.as(client, secret)
}

func TestSimulatedGrantIsWhatWasGranted(t *testing.T) {
	s := simulate(t, sim.TenantOptions{}, allRoles...)
	got, err := s.tenant.Grant(t.Context())
	want := entra.Grant{Tenant: tenantID, Client: clientID, Roles: []string{"Application.Read.All", "AuditLog.Read.All", "User.Read.All", "User.ReadWrite.All"}}
	if diff := cmp.Diff(got, want); diff != "" || err != nil {
		t.Errorf("error %v; got, want:\n%s", err, diff)
	}
}

// TestLeastPermissionsAreEnough has each feature do its work with just what Least says for it, and see which is missing
// without each of them.
func TestLeastPermissionsAreEnough(t *testing.T) {
	needs := entra.Needs{Audit: true, SignUps: true, Profile: true, LookUp: true, Domain: true}
	const audit, users, apps = "AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All"
	features := []struct {
		takes []string
		works func(s simulated) error
	}{
		{[]string{audit}, func(s simulated) error { _, err := events(t, s.tenant.Audit(), window); return err }},
		{[]string{audit}, func(s simulated) error { _, err := events(t, s.tenant.SignUps(), window); return err }},
		{[]string{audit}, func(s simulated) error { _, err := s.tenant.AuditState(t.Context()); return err }},
		{[]string{users}, func(s simulated) error { _, err := events(t, s.tenant.Directory(), window); return err }},
		{[]string{users}, func(s simulated) error { _, err := s.tenant.Organization(t.Context()); return err }},
		{[]string{users, apps}, func(s simulated) error { return s.tenant.Check(t.Context()) }},
		{[]string{apps}, func(s simulated) error { _, err := s.tenant.AttributeTypes(t.Context()); return err }},
		{[]string{users, apps}, func(s simulated) error {
			id := s.graph.SignUp(sim.Person{Email: "jane@fabrikam.com"})
			if _, err := s.tenant.Users(t.Context(), []signup.UserID{id}); err != nil {
				return err
			}
			return s.tenant.Update(t.Context(), id, signup.Patch{DisplayName: "Jane Doe"})
		}},
	}
	least := names(entra.Least(needs))
	for _, without := range append([]string{""}, least...) {
		var roles []string
		for _, name := range least {
			if name != without {
				roles = append(roles, name)
			}
		}
		s := simulate(t, sim.TenantOptions{InstantReplicas: true}, roles...)
		for i, f := range features {
			_ = s.clock.Sleep(t.Context(), time.Minute)
			if err := f.works(s); (err != nil) != slices.Contains(f.takes, without) || err != nil && !strings.Contains(err.Error(), permissionIn(without)) {
				t.Errorf("without %q feature %d, which takes %q: got %v", without, i, f.takes, err)
			}
		}
	}
}

// permissionIn is what an error says of a permission that is missing: to read users is asked for by its own name.
func permissionIn(name string) string {
	return strings.TrimSuffix(strings.Replace(name, "ReadWrite", "Read", 1), ".Read.All")
}

func TestSimulatedOrganizationShowsItsKindToFew(t *testing.T) {
	for kind, want := range map[sim.TenantType]entra.TenantKind{sim.External: entra.ExternalTenant, sim.Workforce: entra.WorkforceTenant, sim.B2C: entra.B2CTenant} {
		s := simulate(t, sim.TenantOptions{Type: kind}, "User.Read.All")
		domains := []string{"contoso.onmicrosoft.com", "contoso.com"}
		if got, err := s.tenant.Organization(t.Context()); err != nil || got.Kind != "" || got.ID != tenantID || !cmp.Equal(got.Domains, domains) {
			t.Errorf("%s in the app's eyes: got %+v, %v", kind, got, err)
		}
		if got, err := s.reader("Organization.Read.All").Organization(t.Context()); err != nil || got.Kind != want {
			t.Errorf("%s: got %+v, %v", kind, got, err)
		}
	}
}

func TestSimulatedAuditState(t *testing.T) {
	for name, order := range map[string]sim.Order{"newest first": sim.NewestFirst, "oldest first": sim.OldestFirst} {
		s := simulate(t, sim.TenantOptions{InstantAudit: true, StrictAuditFilter: true, AuditOrder: order, EmptyPages: 2}, allRoles...)
		if got, err := s.tenant.AuditState(t.Context()); err != nil || got != (entra.AuditState{}) {
			t.Errorf("%s, nobody yet: got %+v, %v", name, got, err)
		}
		s.graph.SignUp(sim.Person{Email: "jane@fabrikam.com"})
		_ = s.clock.Sleep(t.Context(), 6*24*time.Hour+time.Hour)
		s.graph.SignUp(sim.Person{Email: "joan@fabrikam.com"})
		at := s.clock.Now()
		_ = s.clock.Sleep(t.Context(), time.Minute)
		if got, err := s.tenant.AuditState(t.Context()); err != nil || !got.Kept || got.Newest.Sub(at).Abs() > time.Second {
			t.Errorf("%s, six days on: got %+v, %v, want the newest of %v", name, got, err, at)
		}
		_ = s.clock.Sleep(t.Context(), 24*time.Hour)
		if got, err := s.tenant.AuditState(t.Context()); err != nil || got.Kept {
			t.Errorf("%s, when the first has gone: got %+v, %v", name, got, err)
		}
	}
}

func TestSimulatedPolicyAndFlowsAreForAnotherReader(t *testing.T) {
	s := simulate(t, sim.TenantOptions{NoVerifiedJoin: true, UserFlows: []sim.UserFlow{
		{Name: "Shop", Attributes: []sim.FlowAttribute{{Name: "displayName"}, {Name: "marketingOptIn", Type: "boolean"}, {Name: "shoeSize", Type: "int64"}}},
		{Name: "Old shop", Closed: true, UserType: "guest"},
	}}, allRoles...)
	if _, err := s.tenant.SignUpPolicy(t.Context()); codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), "Policy.Read.All") {
		t.Errorf("the app reads the policy: got %v", err)
	}
	if _, err := s.tenant.UserFlows(t.Context()); codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), "EventListener.Read.All") {
		t.Errorf("the app reads the flows: got %v", err)
	}
	reader := s.reader("Policy.Read.All", "EventListener.Read.All")
	if got, err := reader.SignUpPolicy(t.Context()); err != nil || got != (entra.SignUpPolicy{EmailSubscriptions: true, InvitesFrom: "everyone"}) || got.SelfService() != "existing" {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err := reader.UserFlows(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	want := []entra.UserFlow{
		{ID: got[0].ID, Name: "Shop", SignUpAllowed: true, UserType: "member", IdentityProviders: []string{"EmailPassword"},
			Attributes: []entra.FlowAttribute{{Name: "email", Type: signup.StringType}, {Name: "displayName", Type: signup.StringType},
				{Name: "marketingOptIn", Type: signup.BoolType, Custom: true}, {Name: "shoeSize", Type: signup.NumberType, Custom: true}}},
		{ID: got[1].ID, Name: "Old shop", UserType: "guest", IdentityProviders: []string{"EmailPassword"}, Attributes: []entra.FlowAttribute{{Name: "email", Type: signup.StringType}}},
	}
	if diff := cmp.Diff(got, want); diff != "" || got[0].ID == "" {
		t.Errorf("got, want:\n%s", diff)
	}
	types, err := s.tenant.AttributeTypes(t.Context())
	if err != nil || types["shoeSize"] != signup.NumberType || types["stripeCustomerId"] != signup.StringType {
		t.Errorf("got the types %v, %v", types, err)
	}
}

func TestSimulatedSkew(t *testing.T) {
	s := simulate(t, sim.TenantOptions{DateSkew: -10 * time.Minute}, "User.Read.All")
	if got, err := s.tenant.Skew(t.Context()); err != nil || got < 10*time.Minute-2*time.Second || got > 10*time.Minute+2*time.Second {
		t.Errorf("got %v, %v, want that we are ten minutes ahead", got, err)
	}
}
