package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	staffGroup   = "02bd9fd6-8f93-4758-87c3-1fb73740a315"
	readersGroup = "02bd9fd6-8f93-4758-87c3-1fb73740a316"
	aPackage     = "a914b616-e04e-476b-aa37-91038f0b165b"
	aPolicy      = "2264bf65-76ba-417b-a27d-54d291f0cbc8"
)

// harnesses says how each kind of main's own is put to the test; package connector does so for its kinds.
var harnesses = map[string]connectortest.Harness{
	"group": {New: groupSystem, Skip: map[string]string{
		connectortest.FailedLookup:   "nothing is looked up: a membership that exists is refused",
		connectortest.SpentKey:       "there is no idempotency key: a membership is the pair of group and user",
		connectortest.RejectedRecord: "nothing of a record is sent",
	}},
	"accessPackage": {New: accessPackageSystem, Skip: map[string]string{
		connectortest.SpentKey:       "there is no idempotency key: a second request is refused",
		connectortest.RejectedRecord: "nothing of a record is sent",
	}},
}

func TestEveryKindKeepsThePromisesOfAConnector(t *testing.T) {
	own := map[string]bool{}
	for _, k := range connector.Kinds() {
		own[k.Name] = true
	}
	all := kinds(nil)
	if !slices.IsSortedFunc(all, func(a, b connector.Kind) int { return strings.Compare(a.Name, b.Name) }) || len(all) != len(own)+len(harnesses) {
		t.Errorf("got %d kinds, want %d, sorted", len(all), len(own)+len(harnesses))
	}
	for _, k := range all {
		if own[k.Name] {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			h, ok := harnesses[k.Name]
			if !ok {
				t.Fatalf("kind %q has no harness", k.Name)
			}
			connectortest.Run(t, h)
		})
	}
}

func TestBirthrightsTakeNoRecord(t *testing.T) {
	for kind, settings := range map[string]map[string]any{
		"group": {"groups": []any{staffGroup}}, "accessPackage": {"accessPackage": aPackage, "policy": aPolicy},
	} {
		k, err := connector.Find(kinds(nil), kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := k.Open(settings, connector.Env{}); len(errs) > 0 {
			t.Errorf("%s: got %v", kind, errs)
		}
		if _, errs := k.Open(map[string]any{}, connector.Env{}); len(errs) != len(settings) {
			t.Errorf("%s without settings: got %v, want %d errors", kind, errs, len(settings))
		}
		if errs := k.CheckRecord(map[string]any{"email": nil}); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "record.email: ") {
			t.Errorf("%s: got %v for a record with a field", kind, errs)
		}
		if errs := k.CheckRecord(map[string]any{}); len(errs) > 0 {
			t.Errorf("%s: got %v for an empty record", kind, errs)
		}
	}
}

// stepClock moves when somebody sleeps.
type stepClock struct{ *sim.Clock }

func (c stepClock) Sleep(ctx context.Context, d time.Duration) error {
	c.Advance(d)
	return ctx.Err()
}

// fixedToken is a credential that has its token already.
type fixedToken string

func (f fixedToken) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(f), ExpiresOn: time.Now().Add(time.Hour)}, ctx.Err()
}

// front stands before the simulated tenant: it can spoil the caller's token, and hang.
type front struct {
	next http.Handler

	mu      sync.Mutex
	spoil   bool
	stalled chan struct{}
}

func (f *front) set(spoil bool, stalled chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoil, f.stalled = spoil, stalled
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	spoil, stalled := f.spoil, f.stalled
	f.stalled = nil
	f.mu.Unlock()
	if stalled != nil {
		// Only a server that has read the request notices that the caller has gone.
		_, _ = bytes.NewBuffer(nil).ReadFrom(r.Body)
		close(stalled)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // to return would be an answer, which the caller may still see
	}
	if spoil {
		r.Header.Set("Authorization", "Bearer spoiled")
	}
	f.next.ServeHTTP(w, r)
}

type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tenantSystem is a connector of that kind to a simulated tenant in which the suite's users have signed up.
func tenantSystem(t testing.TB, kind string, settings map[string]any, o sim.TenantOptions) (*connectortest.System, *sim.Tenant) {
	t.Helper()
	clock := stepClock{sim.NewClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	o.Clock, o.InstantReplicas, o.Throttle, o.Seed = clock, true, sim.ThrottleOff, 1
	there := sim.NewTenant(o)
	for n := range 3 {
		there.SignUp(sim.Person{ID: signup.UserID(fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", n)), Email: "Ada.Lovelace+signup@example.com", Surname: "Lovelace"})
	}
	f := &front{next: there}
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	log, token := &lockedLog{}, sim.Token(sim.Claims{Audience: "https://graph.microsoft.com", Tenant: there.ID(), App: simClient,
		Expires: clock.Now().AddDate(1, 0, 0).Unix(), Roles: []string{"User.ReadWrite.All", "GroupMember.ReadWrite.All", "EntitlementManagement.ReadWrite.All"}})
	logger := slog.New(slog.NewTextHandler(log, nil))
	tenant, err := entra.Open(entra.Options{GraphURL: server.URL, Credential: fixedToken(token), HTTP: server.Client(), Clock: clock, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	k, err := connector.Find(kinds(tenant), kind)
	if err != nil {
		t.Fatal(err)
	}
	c, errs := k.Open(settings, connector.Env{HTTP: server.Client(), Clock: clock, Log: logger})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	const chatty = `{"error":{"code":"ada.lovelace+signup@example.com","message":"Ada.Lovelace+signup@example.com"}}`
	always := func(f sim.Fault) func() {
		f.Times, f.Body = -1, chatty
		return func() { there.Faults.Add(f) }
	}
	s := &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{token},
		Record:          func(string, string) map[string]any { return map[string]any{} },
		Stranger:        func() string { return "99999999-5eed-4000-8000-00000000beef" },
		Move:            func(signup.UserID, string) {}, // neither kind keeps an address
		LoseAnswer:      func() { there.Faults.Add(sim.Fault{Method: http.MethodPost, After: true}) },
		FailAfterEffect: func() { there.Faults.Add(sim.Fault{Method: http.MethodPost, After: true, Status: 503, Body: chatty}) },
		Unavailable:     always(sim.Fault{Status: 503}),
		FailLookups:     always(sim.Fault{Method: http.MethodGet, Status: 503}),
		Throttle: func(after time.Duration) {
			always(sim.Fault{Status: 429, Header: http.Header{"Retry-After": {fmt.Sprint(after.Seconds() - 0.4)}}})()
		},
		BreakCredential: func() { f.set(true, nil) },
		Stall: func() <-chan struct{} {
			stalled := make(chan struct{})
			f.set(false, stalled)
			return stalled
		},
		Heal: func() { there.Faults.Clear(); f.set(false, nil) },
	}
	return s, there
}

func groupSystem(t testing.TB) *connectortest.System {
	s, there := tenantSystem(t, "group", map[string]any{"groups": []any{staffGroup, readersGroup}},
		sim.TenantOptions{Groups: []sim.Group{{ID: staffGroup}, {ID: readersGroup}}})
	s.Accounts = func(user signup.UserID) int {
		in := func(group string) (n int) {
			for _, id := range there.Members(group) {
				if id == user {
					n++
				}
			}
			return n
		}
		if a, b := in(staffGroup), in(readersGroup); a == b {
			return a
		}
		return -1 // half of it
	}
	s.State = func() string { return fmt.Sprint(there.Members(staffGroup), there.Members(readersGroup)) }
	return s
}

func accessPackageSystem(t testing.TB) *connectortest.System {
	s, there := tenantSystem(t, "accessPackage", map[string]any{"accessPackage": aPackage, "policy": aPolicy},
		sim.TenantOptions{EntitlementManagement: true, AccessPackages: []sim.AccessPackage{{ID: aPackage, Policies: []string{aPolicy}}}})
	s.Accounts = func(user signup.UserID) (n int) {
		for _, a := range there.Assignments() {
			if a.User == user {
				n++
			}
		}
		return n
	}
	s.State = func() string {
		all, err := json.Marshal(there.Assignments())
		if err != nil {
			t.Error(err)
		}
		return string(all)
	}
	return s
}
