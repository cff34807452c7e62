package bench_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
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
	burstTenant = "04dcc6ab-388a-4559-b527-fbec656300ea"
	burstGroup  = "6d2c0f5e-0000-4000-8000-0000000c0b01"
	burstHook   = "whsec_c29ha3NlY3JldDQtc29ha3NlY3JldDQtc29ha3NlY3JldDQ="
	burstRoot   = "http://127.0.0.1"
)

// The systems, as calls are counted.
const (
	atGraphReads  = "Graph, reads"
	atGraphLogs   = "Graph, reports"
	atGraphWrites = "Graph, writes"
	atStripe      = "Stripe"
	atMailchimp   = "Mailchimp"
	atSalesforce  = "Salesforce"
	atWebhook     = "webhook"
)

// burstLatency is how long a call takes as a rule. One in a hundred takes eight times as long.
var burstLatency = map[string]time.Duration{atGraphReads: 150 * time.Millisecond, atGraphLogs: 500 * time.Millisecond, atGraphWrites: 250 * time.Millisecond,
	atStripe: 300 * time.Millisecond, atMailchimp: 400 * time.Millisecond, atSalesforce: 500 * time.Millisecond, atWebhook: 200 * time.Millisecond}

// burstWorld is a tenant with many sign-ups, and the program beside it, in a bubble of simulated time.
type burstWorld struct {
	mix      burstMix
	sim      *sim.World
	engine   *pipeline.Engine
	ledger   *watchedLedger
	turns    map[string]int           // of each destination's gate
	calls    map[string]int           // that each system has answered
	refused  map[string]int           // of these, for being too many
	busy     map[string]time.Duration // how long all calls of a system took
	patches  int                      // of Graph's writes, those of users
	runs     [][2]time.Time           // when they began and ended
	problems []string

	mu     sync.Mutex
	chance *rand.Rand
}

func newBurstWorld(m burstMix) *burstWorld {
	w := &burstWorld{mix: m, turns: map[string]int{}, calls: map[string]int{}, refused: map[string]int{}, busy: map[string]time.Duration{},
		chance: rand.New(rand.NewPCG(17, 4))}
	w.ledger = &watchedLedger{Ledger: ledger.Memory(burstTenant)}
	w.sim = &sim.World{
		Tenant: sim.NewTenant(sim.TenantOptions{ID: burstTenant, Seed: 17, AuditTail: true, Groups: []sim.Group{{ID: burstGroup}},
			Attributes: []string{"stripeCustomerId", "salesforceId", "mailchimpId", "welcomeId", "marketingOptIn"}}),
		Stripe:    sim.NewStripe(sim.StripeOptions{APIKey: "sk_test_burst"}),
		Mailchimp: sim.NewMailchimp(sim.MailchimpOptions{APIKey: "burst-us1", During: func() { time.Sleep(w.takes(atMailchimp)) }}),
		Salesforce: sim.NewSalesforce(sim.SalesforceOptions{ClientID: "burst", ClientSecret: "burst", Objects: sim.SalesforceObjects(),
			Takes: func() time.Duration { return w.takes(atSalesforce) }}),
		Webhook: sim.NewWebhook(sim.WebhookOptions{Secrets: []string{burstHook}}),
	}
	w.open()
	return w
}

// takes draws how long a call takes.
func (w *burstWorld) takes(system string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := burstLatency[system]
	if w.mix.quick {
		d /= 2
	}
	d = d/2 + time.Duration(w.chance.Int64N(int64(d)))
	if w.chance.IntN(100) == 0 {
		d *= 8
	}
	w.busy[system] += d
	return d
}

// open wires the program as main does.
func (w *burstWorld) open() {
	mapping, bad := pipeline.Compile(w.mix.spec())
	if len(bad) > 0 {
		panic(fmt.Sprint(w.mix.name, bad))
	}
	hc := &http.Client{Transport: w}
	log := slog.New(slog.NewTextHandler(burstLog{w}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	tenant, err := entra.Open(entra.Options{GraphURL: burstRoot, Credential: w, HTTP: hc, Clock: signup.ScaledClock{}, Log: log,
		Attributes: mapping.Attributes()})
	if err != nil {
		panic(err)
	}
	w.engine = &pipeline.Engine{
		Tenant: burstTenant, Mapping: mapping, Destinations: w.destinations(tenant, hc, log),
		Settings:  pipeline.Settings{Overlap: time.Hour, FirstLookBack: 24 * time.Hour, Origins: []signup.Origin{signup.SelfService}},
		Detectors: []signup.Detector{tenant.Audit(), tenant.Directory()}, Backstop: tenant.Backstop(), Directory: tenant,
		Ledger: w.ledger, Clock: signup.ScaledClock{}, Rand: rand.New(rand.NewPCG(17, 5)), Log: log, Each: pipeline.Each,
	}
}

// destinations are those of the mix, at the rates that their kinds have.
func (w *burstWorld) destinations(tenant *entra.Tenant, hc *http.Client, log *slog.Logger) []pipeline.Destination {
	var all []pipeline.Destination
	for _, spec := range w.mix.spec().Destinations {
		d := pipeline.Destination{Name: spec.Name, Observe: spec.Name == w.mix.observe}
		if spec.Name == "members" {
			groups, errs := entra.NewGroups(tenant, []string{burstGroup})
			if len(errs) > 0 {
				panic(errors.Join(errs...))
			}
			d.Connector, d.Rate, d.Burst, d.Concurrency = groups, 15, 15, 2 // as its kind has it in package main
		} else {
			kind, settings := w.mix.settings(spec.Name)
			k, err := connector.Find(connector.Kinds(), kind)
			if err != nil {
				panic(err)
			}
			c, errs := k.Open(settings, connector.Env{HTTP: hc, Clock: signup.ScaledClock{}, Log: log, Shape: spec.Record})
			if len(errs) > 0 {
				panic(errors.Join(errs...))
			}
			d.Connector, d.Rate, d.Burst, d.Concurrency = c, k.Rate, k.Burst, k.Concurrency
		}
		if b, ok := d.Connector.(signup.Batcher); ok {
			d.Connector = countedBatches{b, counted{d.Connector, w, d.Name}}
		} else {
			d.Connector = counted{d.Connector, w, d.Name}
		}
		all = append(all, d)
	}
	return all
}

// counted is a connector whose turns at the gate are counted.
type counted struct {
	signup.Connector
	w    *burstWorld
	name string
}

func (c counted) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	c.w.turn(c.name)
	return c.Connector.Associate(ctx, req)
}

type countedBatches struct {
	batcher signup.Batcher
	counted
}

func (c countedBatches) AssociateAll(ctx context.Context, reqs []signup.Request) []signup.Result {
	c.w.turn(c.name)
	return c.batcher.AssociateAll(ctx, reqs)
}

func (w *burstWorld) turn(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turns[name]++
}

// forget forgets what was counted so far.
func (w *burstWorld) forget() {
	clear(w.calls)
	clear(w.refused)
	clear(w.busy)
	clear(w.turns)
	w.patches, w.runs = 0, nil
}

// GetToken is the app's credential at Graph.
func (w *burstWorld) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	c := sim.Claims{Audience: "https://graph.microsoft.com", Tenant: burstTenant, App: "burst", Subject: "burst",
		Roles:    []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All"},
		IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix()}
	return azcore.AccessToken{Token: sim.Token(c), ExpiresOn: now.Add(time.Hour)}, nil
}

// RoundTrip carries a call to the simulated systems. It takes its time, half of it on the way there; Mailchimp and
// Salesforce take theirs themselves, since what they limit is calls at the same time.
func (w *burstWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	system, patch := burstSystem(r)
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body) // a reader of bytes
		_ = r.Body.Close()
	}
	var there, back time.Duration
	if system != atMailchimp && system != atSalesforce {
		d := w.takes(system)
		there, back = d/2, d-d/2
	}
	answered := make(chan *http.Response, 1)
	go func() {
		time.Sleep(there)
		in := r.Clone(context.Background())
		in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		in.RequestURI = r.URL.RequestURI()
		rec := httptest.NewRecorder()
		w.sim.ServeHTTP(rec, in)
		w.count(system, patch, rec)
		time.Sleep(back)
		answered <- rec.Result()
	}()
	select {
	case a := <-answered:
		a.Request = r
		return a, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// burstSystem is the system that a call goes to, and whether it is the patch of a user.
func burstSystem(r *http.Request) (system string, patch bool) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case first == "v1":
		return atStripe, false
	case first == "3.0":
		return atMailchimp, false
	case first == "services":
		return atSalesforce, false
	case first == "webhook":
		return atWebhook, false
	case strings.HasPrefix(rest, "auditLogs"):
		return atGraphLogs, false
	case r.Method == http.MethodGet:
		return atGraphReads, false
	}
	return atGraphWrites, strings.HasPrefix(rest, "users/")
}

func (w *burstWorld) count(system string, patch bool, answer *httptest.ResponseRecorder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[system]++
	if patch {
		w.patches++
	}
	if answer.Code == http.StatusTooManyRequests || strings.Contains(answer.Body.String(), "REQUEST_LIMIT_EXCEEDED") {
		w.refused[system]++
	}
}

// watchedLedger is the ledger, which takes as long as a table service does. It remembers when each user was settled.
type watchedLedger struct {
	*ledger.Ledger
	mu      sync.Mutex
	first   time.Time   // intent
	settled []time.Time // of users with nothing left to do
	failed  int
	writes  int
}

const (
	tableRead  = 25 * time.Millisecond // of some 15 rows
	tableWrite = 40 * time.Millisecond // of a transaction
)

func (l *watchedLedger) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	time.Sleep(tableWrite * time.Duration(1+len(rows)/50))
	l.see(rows)
	return l.Ledger.Insert(ctx, rows)
}

func (l *watchedLedger) Get(ctx context.Context, ids []signup.UserID) ([]signup.Row, error) {
	time.Sleep(tableRead * time.Duration(1+len(ids)/15))
	return l.Ledger.Get(ctx, ids)
}

func (l *watchedLedger) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	time.Sleep(tableWrite)
	rows, err := l.Ledger.Replace(ctx, rows)
	l.see(rows)
	return rows, err
}

func (l *watchedLedger) see(rows []signup.Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	now := time.Now()
	for _, row := range rows {
		if !row.Intent.IsZero() && l.first.IsZero() {
			l.first = now
		}
		if row.Due.IsZero() {
			l.settled = append(l.settled, now)
			l.failed += len(slices.DeleteFunc(slices.Clone(row.Associations), func(a signup.Association) bool { return a.State != signup.Failed }))
		}
	}
}

func (l *watchedLedger) Due(ctx context.Context, by time.Time) iter.Seq2[signup.Row, error] {
	return func(yield func(signup.Row, error) bool) {
		n := 0
		for row, err := range l.Ledger.Due(ctx, by) {
			if n%15 == 0 {
				time.Sleep(tableRead)
			}
			if n++; !yield(row, err) {
				return
			}
		}
	}
}

// burstLog keeps the log's lines: in a burst at the quotas there is nothing to warn of.
type burstLog struct{ w *burstWorld }

func (l burstLog) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if len(l.w.problems) < 10 {
		l.w.problems = append(l.w.problems, string(p))
	}
	return len(p), nil
}
