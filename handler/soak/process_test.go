package soak_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"signup-sync/handler/connector"
	"signup-sync/handler/entra"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// process is one life of the program: an engine with all that is in memory. After its death no call of it has an effect.
type process struct {
	*world
	name   string
	engine *pipeline.Engine
	ctx    context.Context
	kill   func()
	dead   atomic.Bool
	died   time.Time
	paused time.Time // until then nothing of it runs; the driver's
	hinder bool      // something has kept it from renewing the lease, or from giving it back, since it took it
	skew   func(now time.Time) time.Duration
	began  time.Time            // of the run that is going on
	from   map[string]time.Time // where it has begun to read, by detector
	rates  rates
}

var errDead = errors.New("the process is dead")

// newProcess starts the program.
func (w *world) newProcess(name string, skew func(time.Time) time.Duration) *process {
	p := &process{world: w, name: name, skew: skew}
	ctx, cancel := context.WithCancel(context.Background())
	p.ctx, p.kill = ctx, func() {
		if !p.dead.Load() {
			p.died = time.Now()
		}
		p.dead.Store(true)
		cancel()
	}
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	source := &constant{seed: w.seed ^ uint64(len(w.processes)+1)<<32}
	hc := &http.Client{Transport: p}
	tenant, err := entra.Open(entra.Options{GraphURL: "http://127.0.0.1", Credential: p, HTTP: hc, Clock: p, Log: log,
		Jitter:     func(d time.Duration) time.Duration { return d/2 + time.Duration(source.Uint64()%uint64(d/2+1)) },
		Attributes: w.mapping.Attributes(), AuditRetention: w.plan.retention})
	if err != nil {
		panic(err)
	}
	p.engine = &pipeline.Engine{
		Tenant: tenantID, Mapping: w.mapping,
		Settings: pipeline.Settings{Overlap: overlap, FirstLookBack: 24 * time.Hour,
			Origins: []signup.Origin{signup.SelfService, signup.EmailVerified, signup.Invitation}, Invited: w.plan.invited},
		Destinations: p.destinations(tenant, hc, log),
		Detectors:    []signup.Detector{tenant.Audit(), tenant.Directory()}, Backstop: tenant.Backstop(), Directory: tenant,
		Ledger: &ledgerAt{p}, Clock: p, Rand: rand.New(source), Log: log,
		Each: func(n int, f func(int)) { w.sched.each(p, n, f) },
	}
	if w.plan.signUps {
		p.engine.Detectors = append(p.engine.Detectors, tenant.SignUps())
	}
	w.processes = append(w.processes, p)
	return p
}

const (
	tenantID  = "04dcc6ab-388a-4559-b527-fbec656300ea"
	groupID   = "6d2c0f5e-0000-4000-8000-0000000c0b01"
	audience  = "1a2b3c4d5e"
	stripeKey = "sk_test_soaksecret1"
	chimpKey  = "soaksecret2-us1"
	forceKey  = "soaksecret3"
	hookKey   = "whsec_c29ha3NlY3JldDQtc29ha3NlY3JldDQtc29ha3NlY3JldDQ="
	graphKey  = "soaksecret5"
)

// spec is the configuration: crm needs billing's account, the newsletter and the welcome have rules, the profile shows the ids.
func spec() pipeline.Spec {
	return pipeline.Spec{
		DisplayName:       `user.givenName + " " + user.surname`,
		UserPrincipalName: `slug(user.givenName + "." + user.surname) + "." + short(user.id)`,
		Attributes: map[string]string{"stripeCustomerId": "accounts.billing?.id", "salesforceId": "accounts.crm?.id",
			"extensionAttribute1": "accounts.newsletter?.id"},
		Destinations: []pipeline.DestinationSpec{
			{Name: "billing", Record: map[string]any{"email": "user.email", "name": "user.displayName"}},
			{Name: "newsletter", When: "user.attributes.marketingOptIn == true",
				Record: map[string]any{"status": `"subscribed"`, "mergeFields": map[string]any{"FNAME": "user.givenName"}}},
			{Name: "crm", Record: map[string]any{"FirstName": "clip(user.givenName, 40)",
				"LastName": `user.surname != "" ? clip(user.surname, 80) : "(unknown)"`, "Email": "user.email", "Legacy_Id__c": "accounts.billing.id"}},
			{Name: "welcome", When: `signup.origin != "invitation"`, Record: map[string]any{"name": "user.displayName"}},
			{Name: "members"},
		},
	}
}

func (p *process) destinations(tenant *entra.Tenant, hc *http.Client, log *slog.Logger) []pipeline.Destination {
	const root = "http://127.0.0.1"
	settings := []struct {
		name, kind string
		settings   map[string]any
	}{
		{"billing", "stripe", map[string]any{"url": root, "apiKey": stripeKey}},
		{"newsletter", "mailchimp", map[string]any{"url": root, "apiKey": chimpKey, "audience": audience}},
		{"crm", "salesforce", map[string]any{"url": root, "auth": "clientCredentials", "clientId": "soak", "clientSecret": forceKey}},
		{"welcome", "webhook", map[string]any{"url": root + "/webhook", "secret": hookKey, "allowPrivate": true}},
	}
	shapes := map[string]map[string]any{}
	for _, d := range spec().Destinations {
		shapes[d.Name] = d.Record
	}
	var all []pipeline.Destination
	for _, s := range settings {
		k, err := connector.Find(connector.Kinds(), s.kind)
		if err != nil {
			panic(err)
		}
		c, errs := k.Open(s.settings, connector.Env{HTTP: hc, Clock: p, Log: log, Shape: shapes[s.name]})
		if len(errs) > 0 {
			panic(errors.Join(errs...))
		}
		all = append(all, pipeline.Destination{Name: s.name, Connector: c, Rate: k.Rate, Burst: k.Burst, Concurrency: k.Concurrency})
	}
	groups, errs := entra.NewGroups(tenant, []string{groupID})
	if len(errs) > 0 {
		panic(errors.Join(errs...))
	}
	all = append(all, pipeline.Destination{Name: "members", Connector: groups, Rate: 15, Burst: 15, Concurrency: 2})
	if p.plan.only > 0 {
		all = all[:p.plan.only]
	}
	return all
}

// GetToken is the app's credential at Graph.
func (p *process) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	c := sim.Claims{Audience: "https://graph.microsoft.com", Tenant: tenantID, App: "soak", Subject: graphKey,
		Roles:    []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All"},
		IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix()}
	return azcore.AccessToken{Token: sim.Token(c), ExpiresOn: now.Add(time.Hour)}, nil
}

// Now is the time by the process's own clock.
func (p *process) Now() time.Time {
	now := time.Now()
	return now.Add(p.skew(now)).UTC()
}

// Sleep is over when it is the goroutine's turn again.
func (p *process) Sleep(ctx context.Context, d time.Duration) error {
	if p.dead.Load() {
		return errDead
	}
	err := signup.ScaledClock{}.Sleep(ctx, d)
	if p.sched.park(p, fmt.Sprintf("woke %s %s %v", p.name, p.sched.self().name, err), nil).dead {
		return errDead
	}
	return err
}

// run is one invocation by the host.
func (p *process) run() (pipeline.Summary, error) {
	p.began, p.from = time.Now(), map[string]time.Time{}
	ctx, cancel := context.WithTimeout(p.ctx, runTime)
	defer cancel()
	return p.engine.Run(ctx, p.trigger())
}

// census is one invocation of the other timer, or of an operator's command.
func (p *process) census(o pipeline.CensusOptions) (pipeline.Census, error) {
	ctx, cancel := context.WithTimeout(p.ctx, runTime)
	defer cancel()
	return p.engine.Census(ctx, pipeline.Trigger{Invocation: p.name}, o)
}

// overlap is how far windows reach back.
const overlap = time.Hour

// runTime is the longest that an invocation takes.
const runTime = 4 * time.Minute

// trigger is what the host says, which is a hint: it may be nothing, or nonsense.
func (p *process) trigger() pipeline.Trigger {
	t := pipeline.Trigger{Invocation: p.name}
	switch p.sched.chance.IntN(6) {
	case 0:
		t.PastDue, t.Last = true, time.Now().Add(-time.Duration(p.sched.chance.Int64N(int64(3*time.Hour))))
	case 1:
		t.PastDue, t.Last = true, time.Now().Add(1000*time.Hour)
	case 2:
		t.PastDue = true
	}
	return t
}

var _ io.Writer = (*logLines)(nil)
