package entra_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	tenantID = "aaaabbbb-0000-4ccc-8111-dddd2222eeee"
	clientID = "94559aba-b733-468e-aaec-44cc4e7f0b58"
	aSecret  = "s3cr3t-value"
)

// onlyLoopback refuses every dial that would leave the machine: a test must not leak a secret.
func onlyLoopback(c *http.Client) *http.Client {
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			return nil, errors.New("dial of " + addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return c
}

// simulated is the whole way: the token endpoint, the tenant behind Graph, and the package in front of them.
type simulated struct {
	clock  *clock
	entra  *sim.Entra
	graph  *sim.Tenant
	tenant *entra.Tenant
	as     func(client, secret string) *entra.Tenant // the same tenant, in the eyes of another app
}

var allRoles = []string{"AuditLog.Read.All", "User.Read.All", "User.ReadWrite.All", "Application.Read.All"}

func simulate(t *testing.T, o sim.TenantOptions, roles ...string) simulated {
	t.Helper()
	s := simulated{clock: &clock{now: start}}
	o.ID, o.Clock, o.Seed, o.Domains = tenantID, s.clock, 7, []string{"contoso.com"}
	o.Attributes = []string{"stripeCustomerId", "marketingOptIn", foreign}
	s.graph = sim.NewTenant(o)
	// The credential keeps tokens by the machine's clock; a test's clock may run for days.
	s.entra = sim.NewEntra(sim.EntraOptions{Clock: s.clock, Tenant: tenantID, TokenLife: 1000 * time.Hour, Apps: []sim.App{{ID: clientID, Secret: aSecret, Roles: roles}}})
	server, err := sim.Serve(t.Context(), "127.0.0.1:0", &sim.World{Tenant: s.graph, Entra: s.entra})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	hc := onlyLoopback(server.Client())
	s.as = func(client, secret string) *entra.Tenant {
		c, err := identity.OpenApp(identity.AppOptions{
			Kind: identity.Secret, Tenant: tenantID, ClientID: client, Secret: secret, Authority: server.URL, HTTP: hc, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		tenant, err := entra.Open(entra.Options{
			GraphURL: server.URL, Credential: c, HTTP: hc, Clock: s.clock, Domain: "contoso.com",
			Attributes: []string{"stripeCustomerId", "marketingOptIn", "extensionAttribute1", "extensionAttribute2", foreign},
			Jitter:     func(d time.Duration) time.Duration { return d },
		})
		if err != nil {
			t.Fatal(err)
		}
		return tenant
	}
	s.tenant = s.as(clientID, aSecret)
	return s
}

// seen is which users a detector shows in the two hours from start.
func (s simulated) seen(t *testing.T, d signup.Detector) map[signup.UserID]int {
	t.Helper()
	got, err := events(t, d, signup.Window{From: start, To: start.Add(2 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	users := map[signup.UserID]int{}
	for _, e := range got {
		users[e.User] = 1
	}
	return users
}

func TestSimulatedTenant(t *testing.T) {
	s := simulate(t, sim.TenantOptions{InstantAudit: true, InstantReplicas: true}, allRoles...)
	ctx := t.Context()
	if err := s.tenant.Check(ctx); err != nil {
		t.Fatal(err)
	}
	id := s.graph.SignUp(sim.Person{Email: "jane@fabrikam.com", GivenName: "Jane", Surname: "Doe", Attributes: map[string]any{"marketingOptIn": true}})
	guest := s.graph.SignUp(sim.Person{How: sim.Guest, Email: "joan@fabrikam.com"})
	s.graph.SignUp(sim.Person{How: sim.Failed, Email: "nobody@fabrikam.com"})
	s.graph.Redeem(guest)
	_ = s.clock.Sleep(ctx, time.Minute)
	want := map[signup.UserID]int{id: 1, guest: 1}
	for _, d := range []signup.Detector{s.tenant.Audit(), s.tenant.Directory()} {
		if diff := cmp.Diff(s.seen(t, d), want); diff != "" {
			t.Errorf("%s: got, want:\n%s", d.Name(), diff)
		}
		if got := d.Served(); got.IsZero() || got.After(s.clock.Now()) {
			t.Errorf("%s: served at %v", d.Name(), got)
		}
	}
	users, err := s.tenant.Users(ctx, []signup.UserID{id, guest, jane})
	if err != nil || len(users) != 2 {
		t.Fatalf("got %d users, %v, want 2", len(users), err)
	}
	u := users[id]
	if origin, _, _ := signup.Classify(u, signup.Proof{}); origin != signup.SelfService || u.Email != "jane@fabrikam.com" || !u.EmailVerified ||
		u.Attributes["marketingOptIn"] != true || !u.HasGeneratedUPN() || !u.Created.Equal(start) {
		t.Errorf("got %+v", u)
	}
	if origin, _, _ := signup.Classify(users[guest], signup.Proof{}); origin != signup.Invitation || users[guest].ExternalUserState != "Accepted" {
		t.Errorf("got %+v", users[guest])
	}

	patch := signup.Patch{DisplayName: "Jane Doe", UserPrincipalName: "jane.doe@" + s.graph.Domain(), Attributes: map[string]string{"stripeCustomerId": "cus_1"}}
	for range 2 {
		if err := s.tenant.Update(ctx, id, patch); err != nil {
			t.Fatal(err)
		}
	}
	users, err = s.tenant.Users(ctx, []signup.UserID{id})
	if u := users[id]; err != nil || u.DisplayName != "Jane Doe" || u.UserPrincipalName != patch.UserPrincipalName || u.Attributes["stripeCustomerId"] != "cus_1" {
		t.Errorf("got %+v, %v", u, err)
	}
	if n := s.graph.SuspiciousEmptyPatches(); n != 0 {
		t.Errorf("%d patches were empty", n)
	}
	steps := []struct {
		patch signup.Patch
		want  map[string]any
	}{
		{signup.Patch{UserPrincipalName: "jane.doe@contoso.com", Attributes: map[string]string{foreign: "gold", "extensionAttribute1": "a", "extensionAttribute2": "b"}},
			map[string]any{"marketingOptIn": true, "stripeCustomerId": "cus_1", foreign: "gold", "extensionAttribute1": "a", "extensionAttribute2": "b"}},
		{signup.Patch{Attributes: map[string]string{"extensionAttribute1": "c"}, Clear: []string{"stripeCustomerId", "extensionAttribute2", foreign}},
			map[string]any{"marketingOptIn": true, "extensionAttribute1": "c"}},
	}
	for _, step := range steps {
		if err := s.tenant.Update(ctx, id, step.patch); err != nil {
			t.Fatal(err)
		}
		users, err = s.tenant.Users(ctx, []signup.UserID{id})
		if diff := cmp.Diff(users[id].Attributes, step.want); diff != "" || err != nil || users[id].UserPrincipalName != "jane.doe@contoso.com" {
			t.Errorf("%v, %s: got, want:\n%s", err, users[id].UserPrincipalName, diff)
		}
	}
	patch = steps[0].patch
	synced := s.graph.SignUp(sim.Person{Email: "jim@fabrikam.com", Synced: true})
	errorsOf := []struct {
		name  string
		patch signup.Patch
		id    signup.UserID
		code  string
	}{
		{"taken", signup.Patch{UserPrincipalName: patch.UserPrincipalName}, guest, "upn-taken"},
		{"a foreign domain", signup.Patch{UserPrincipalName: "jane@elsewhere.example"}, id, "upn-invalid"},
		{"a name with a space", signup.Patch{UserPrincipalName: "jane doe@" + s.graph.Domain()}, id, "upn-invalid"},
		{"an extension attribute of a synchronised user", signup.Patch{Attributes: map[string]string{"extensionAttribute1": "x"}}, synced, "attribute-read-only"},
		{"a value of another type", signup.Patch{Attributes: map[string]string{"marketingOptIn": "x"}}, id, "attribute-invalid"},
		{"an unknown extension of another app", signup.Patch{Attributes: map[string]string{foreign + "2": "x"}}, id, "attribute-missing"},
		{"an unknown attribute", signup.Patch{Attributes: map[string]string{"nope": "x"}}, id, "attribute-missing"},
		{"nobody", signup.Patch{DisplayName: "x"}, jane, "not-found"},
	}
	for _, test := range errorsOf {
		err := s.tenant.Update(ctx, test.id, test.patch)
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != test.code {
			t.Errorf("%s: got %v, want %s", test.name, err, test.code)
		}
	}
}

func TestSimulatedBurstIsReadToItsEnd(t *testing.T) {
	for _, o := range []sim.TenantOptions{
		{},
		{ShortPages: true, EmptyPages: 2, AuditOrder: sim.ShuffledWithinSecond, Duplicates: 0.2},
		{StrictAuditFilter: true, AuditMaxTop: 100, AuditOrder: sim.OldestFirst},
	} {
		o.InstantAudit, o.InstantReplicas = true, true
		s := simulate(t, o, allRoles...)
		want := map[signup.UserID]int{}
		for i := range 1500 {
			want[s.graph.SignUp(sim.Person{Email: fmt.Sprintf("p%d@fabrikam.com", i)})] = 1
			_ = s.clock.Sleep(t.Context(), 100*time.Millisecond)
		}
		for _, d := range []signup.Detector{s.tenant.Audit(), s.tenant.Directory()} {
			if diff := cmp.Diff(s.seen(t, d), want); diff != "" {
				t.Errorf("%s: got, want:\n%s", d.Name(), diff)
			}
		}
		if n := s.graph.MaxAuditCallsIn10s(); n > 5 {
			t.Errorf("%d audit calls in 10 s", n)
		}
	}
}

func TestSimulatedFaults(t *testing.T) {
	s := simulate(t, sim.TenantOptions{InstantAudit: true, InstantReplicas: true}, allRoles...)
	id := s.graph.SignUp(sim.Person{Email: "jane@fabrikam.com"})
	_ = s.clock.Sleep(t.Context(), time.Minute)
	if err := s.tenant.Check(t.Context()); err != nil { // the attributes are looked up
		t.Fatal(err)
	}
	faults := []sim.Fault{
		{Status: 502, Body: html}, {Status: 500, Body: "{}"}, {Status: 503, Header: http.Header{"Retry-After": {"1.5"}}}, {}, {After: true},
		{Method: http.MethodPatch, After: true, Status: 504}, {Method: http.MethodPatch, After: true, Status: 429, Header: http.Header{"Retry-After": {"1"}}},
	}
	for _, f := range faults {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			s.graph.Faults.Clear()
			name := strings.ReplaceAll(t.Name(), "/", " ")
			s.graph.Faults.Add(f)
			if err := s.tenant.Update(t.Context(), id, signup.Patch{DisplayName: name}); err != nil {
				t.Error(err)
			}
			users, err := s.tenant.Users(t.Context(), []signup.UserID{id})
			if err != nil || users[id].DisplayName != name {
				t.Errorf("got %q, %v, want %q", users[id].DisplayName, err, name)
			}
		})
	}
}

func TestSimulatedPermissions(t *testing.T) {
	s := simulate(t, sim.TenantOptions{}, "User.Read.All")
	tests := []struct {
		permission string
		do         func() error
	}{
		{"AuditLog.Read.All", func() error { _, err := events(t, s.tenant.Audit(), window); return err }},
		{"Application.Read.All", func() error { return s.tenant.Check(t.Context()) }},
		{"User.ReadWrite.All", func() error { return s.tenant.Update(t.Context(), jane, signup.Patch{DisplayName: "x"}) }},
	}
	for _, test := range tests {
		err := test.do()
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != signup.Systemic || !strings.Contains(e.Detail, test.permission) {
			t.Errorf("got %v, want a systemic error that names %s", err, test.permission)
		}
	}
}

// Replicas lag: whoever can be read by id is found though the list does not have them.
func TestSimulatedReplicas(t *testing.T) {
	lag, none := 10*time.Minute, time.Duration(0)
	s := simulate(t, sim.TenantOptions{InstantAudit: true}, allRoles...)
	ids := []signup.UserID{
		s.graph.SignUp(sim.Person{Email: "a@fabrikam.com", ReplicaLag: &none, IndexLag: &lag}),
		s.graph.SignUp(sim.Person{Email: "b@fabrikam.com", ReplicaLag: &none, IndexLag: &none}),
		s.graph.SignUp(sim.Person{Email: "c@fabrikam.com", ReplicaLag: &lag, IndexLag: &lag}),
	}
	users, err := s.tenant.Users(t.Context(), ids)
	_, a := users[ids[0]]
	_, b := users[ids[1]]
	_, c := users[ids[2]]
	if err != nil || !a || !b || c {
		t.Errorf("got %v %v %v, %v, want the first two", a, b, c, err)
	}
}

func TestManyAtOnceLookTheExtensionsUpOnce(t *testing.T) {
	s := simulate(t, sim.TenantOptions{InstantReplicas: true}, allRoles...)
	id := s.graph.SignUp(sim.Person{Email: "ada@example.com"})
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := s.tenant.Users(t.Context(), []signup.UserID{id})
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := s.tenant.Counts().Applications; got != 2 {
		t.Errorf("got %d calls for applications, want one for the app and one for its attributes", got)
	}
}
