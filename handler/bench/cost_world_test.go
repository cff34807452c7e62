package bench_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/connector"
	"signup-sync/handler/entra"
	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	costTenant = "04dcc6ab-388a-4559-b527-fbec656300ea"
	costKey    = "sk_test_cost"
	costHook   = "whsec_c29ha3NlY3JldDQtc29ha3NlY3JldDQtc29ha3NlY3JldDQ="

	// How long calls take: assumed, not measured. They decide GB-seconds and nothing else.
	costGraph       = 200 * time.Millisecond
	costDestination = 300 * time.Millisecond
	costLedger      = 15 * time.Millisecond
)

// costWorld is the real engine with the real clients of tenant and destinations, in simulated time: the configuration is that
// of signup-sync.yaml, without its database. Whoever calls out is counted.
type costWorld struct {
	sim    *sim.World
	store  *ledger.Ledger
	engine *pipeline.Engine

	graph, units, writes, destinations atomic.Int64
	billed                             float64 // GB-s
	people                             int
}

// use is what something has used.
type use struct {
	Graph, Units, Writes, Destinations float64 // calls to Graph, the resource units that it charged, and its writes; calls to destinations
	Transactions, Notes, Reads         float64 // of the ledger
	GBs                                float64
}

func (a use) storage() float64 { return a.Transactions + a.Notes + a.Reads }

func (a use) less(b use, times float64) use {
	return use{a.Graph - times*b.Graph, a.Units - times*b.Units, a.Writes - times*b.Writes, a.Destinations - times*b.Destinations,
		a.Transactions - times*b.Transactions, a.Notes - times*b.Notes, a.Reads - times*b.Reads, a.GBs - times*b.GBs}
}

func (a use) per(n float64) use {
	return use{a.Graph / n, a.Units / n, a.Writes / n, a.Destinations / n, a.Transactions / n, a.Notes / n, a.Reads / n, a.GBs / n}
}

func (w *costWorld) used() use {
	c := w.store.Counts()
	return use{float64(w.graph.Load()), float64(w.units.Load()), float64(w.writes.Load()), float64(w.destinations.Load()),
		float64(c.Transactions), float64(c.NoteWrites), float64(c.Reads), w.billed}
}

// newCostWorld is a tenant that shows everything at once, or as late as a real one does.
func newCostWorld(t *testing.T, late bool) *costWorld {
	t.Helper()
	w := &costWorld{store: ledger.Memory(costTenant), sim: &sim.World{
		Tenant: sim.NewTenant(sim.TenantOptions{ID: costTenant, Seed: 1, Attributes: []string{"stripeCustomerId", "welcomeId", "marketingOptIn"},
			InstantAudit: !late, InstantReplicas: !late, Duplicates: -1}),
		Stripe:  sim.NewStripe(sim.StripeOptions{APIKey: costKey}),
		Webhook: sim.NewWebhook(sim.WebhookOptions{Secrets: []string{costHook}})}}
	spec := pipeline.Spec{
		DisplayName:       `user.givenName + " " + user.surname`,
		UserPrincipalName: `slug(user.givenName + "." + user.surname) + "." + short(user.id)`,
		Attributes:        map[string]string{"stripeCustomerId": "accounts.billing?.id", "welcomeId": "accounts.welcome?.id"},
		Destinations: []pipeline.DestinationSpec{
			{Name: "billing", Record: map[string]any{"email": "user.email", "name": "user.displayName"}},
			{Name: "welcome", Record: map[string]any{"name": "user.displayName", "marketing": "user.attributes.marketingOptIn == true"}},
		}}
	mapping, problems := pipeline.Compile(spec)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	hc := &http.Client{Transport: w}
	tenant, err := entra.Open(entra.Options{GraphURL: "http://127.0.0.1", Credential: w, HTTP: hc, Clock: signup.ScaledClock{}, Attributes: mapping.Attributes()})
	if err != nil {
		t.Fatal(err)
	}
	w.engine = &pipeline.Engine{Tenant: costTenant, Mapping: mapping, Backstop: tenant.Backstop(), Directory: tenant,
		Settings:  pipeline.Settings{Overlap: time.Hour, FirstLookBack: time.Hour, Origins: []signup.Origin{signup.SelfService, signup.EmailVerified}},
		Detectors: []signup.Detector{tenant.Audit(), tenant.Directory()}, Ledger: slowLedger{w.store}, Clock: signup.ScaledClock{},
		Rand: rand.New(rand.NewPCG(1, 1)), Each: pipeline.Each, Log: discard}
	for i, settings := range []map[string]any{{"url": "http://127.0.0.1", "apiKey": costKey}, {"url": "http://127.0.0.1/webhook", "secret": costHook, "allowPrivate": true}} {
		k, err := connector.Find(connector.Kinds(), []string{"stripe", "webhook"}[i])
		if err != nil {
			t.Fatal(err)
		}
		c, errs := k.Open(settings, connector.Env{HTTP: hc, Clock: signup.ScaledClock{}, Log: discard, Shape: spec.Destinations[i].Record})
		if len(errs) > 0 {
			t.Fatal(errors.Join(errs...))
		}
		w.engine.Destinations = append(w.engine.Destinations, pipeline.Destination{Name: spec.Destinations[i].Name, Connector: c, Rate: k.Rate, Burst: k.Burst, Concurrency: k.Concurrency})
	}
	return w
}

// GetToken is the app's credential at Graph.
func (w *costWorld) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	c := sim.Claims{Audience: "https://graph.microsoft.com", Tenant: costTenant, App: "cost", Subject: "cost",
		Roles: []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All"}, IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix()}
	return azcore.AccessToken{Token: sim.Token(c), ExpiresOn: now.Add(time.Hour)}, nil
}

// RoundTrip takes a call to the simulated systems, in as much time as it is assumed to take.
func (w *costWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	isGraph, takes := strings.HasPrefix(r.URL.Path, "/v1.0/"), costDestination
	if isGraph {
		takes = costGraph
	}
	if err := (signup.ScaledClock{}).Sleep(r.Context(), takes); err != nil {
		return nil, err
	}
	in := r.Clone(context.Background())
	in.Body, in.ContentLength, in.RequestURI, in.Host = io.NopCloser(bytes.NewReader(body)), int64(len(body)), r.URL.RequestURI(), r.URL.Host
	rec := httptest.NewRecorder()
	w.sim.ServeHTTP(rec, in)
	answer := rec.Result()
	answer.Request = r
	if !isGraph {
		w.destinations.Add(1)
		return answer, nil
	}
	w.graph.Add(1)
	if r.Method != http.MethodGet {
		w.writes.Add(1)
	}
	if charged, err := strconv.Atoi(answer.Header.Get("X-Ms-Resource-Unit")); err == nil { // reports are not charged by units
		w.units.Add(int64(charged))
	}
	return answer, nil
}

// run is one invocation, billed as the Flex plan does: its time, at least a second, in tenths of a second, by half a GB.
func (w *costWorld) run(t *testing.T) pipeline.Summary {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	sum, err := w.engine.Run(ctx, pipeline.Trigger{Invocation: "cost"})
	if err != nil || sum.Busy {
		t.Fatalf("run: %+v, %v", sum, err)
	}
	w.billed += 0.5 * max(1, math.Ceil(time.Since(begun).Seconds()*10)/10)
	return sum
}

// minute lets n people sign up, evenly within a minute, and runs at its end.
func (w *costWorld) minute(t *testing.T, n int) {
	t.Helper()
	next := time.Now().Truncate(time.Minute).Add(time.Minute)
	for i := range n {
		time.Sleep(time.Until(next.Add(-time.Duration(n-i) * 50 * time.Second / time.Duration(n))))
		w.people++
		w.sim.Tenant.SignUp(sim.Person{How: sim.Email, GivenName: "Anna", Surname: "Smith", Email: fmt.Sprintf("person%d@example.com", w.people)})
	}
	time.Sleep(time.Until(next))
	w.run(t)
}

// allAssociated fails the test unless everybody has arrived everywhere, with ids on their own records.
func (w *costWorld) allAssociated(t *testing.T) {
	t.Helper()
	n := 0
	for row, err := range w.store.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		for _, a := range row.Associations {
			if a.State != signup.Associated {
				t.Fatalf("%s: %+v", row.User, a)
			}
		}
	}
	if n != w.people {
		t.Fatalf("%d of %d people are in the ledger", n, w.people)
	}
}

// slowLedger answers in as much time as it is assumed to take.
type slowLedger struct{ signup.Ledger }

func (l slowLedger) wait(ctx context.Context) error {
	return signup.ScaledClock{}.Sleep(ctx, costLedger)
}

func (l slowLedger) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	return answered(ctx, l, func() ([]signup.Row, error) { return l.Ledger.Insert(ctx, rows) })
}

func (l slowLedger) Get(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
	for range len(ids) / 8 { // it reads eight at a time
		_ = l.wait(ctx)
	}
	return answered(ctx, l, func() ([]signup.Row, error) { return l.Ledger.Get(ctx, ids) })
}

func (l slowLedger) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	return answered(ctx, l, func() ([]signup.Row, error) { return l.Ledger.Replace(ctx, rows) })
}

func (l slowLedger) Note(ctx context.Context, name string) (signup.Note, error) {
	return answered(ctx, l, func() (signup.Note, error) { return l.Ledger.Note(ctx, name) })
}

func (l slowLedger) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	return answered(ctx, l, func() (signup.Note, error) { return l.Ledger.PutNote(ctx, n) })
}

func answered[T any](ctx context.Context, l slowLedger, do func() (T, error)) (T, error) {
	if err := l.wait(ctx); err != nil {
		var none T
		return none, err
	}
	return do()
}
