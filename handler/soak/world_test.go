package soak_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// world is everything of one seed.
type world struct {
	seed      uint64
	plan      plan
	sched     *schedule
	sim       *sim.World
	ledger    *ledger.Ledger
	mapping   *pipeline.Mapping
	log       logLines
	processes []*process
	people    map[signup.UserID]*person
	order     []*person
	byHash    map[string]signup.UserID // by the hash of the address
	end       time.Time                // when all troubles are over
	gapped    []signup.Window          // what the audit log could not show any more
	marks     map[string]watermark     // the watermarks, by detector
	holder    *process                 // of the run lease
	holds     string                   // … as which run
	runs      int
	lost      bool              // the ledger was, and has to be rebuilt
	healed    bool              // the last census has come to its end
	replayed  bool              // … and what had failed was reopened
	linkedTo  map[string]string // of billing, by the id at crm

	mu       sync.Mutex
	problems []string
	kinds    []string // of the problems: the invariants
}

// person is somebody with what is known of them from outside.
type person struct {
	arrival
	id      signup.UserID
	since   time.Time // when everything that makes them a sign-up had happened
	reached map[string]time.Time
	hit     bool // something went wrong with a call about them
}

func newWorld(seed uint64, pl plan, people []arrival) *world {
	w := &world{seed: seed, plan: pl, sched: newSchedule(seed), people: map[signup.UserID]*person{}, byHash: map[string]signup.UserID{},
		ledger: ledger.Memory(tenantID), marks: map[string]watermark{}}
	w.log.world = w
	configured := spec()
	if pl.only > 0 {
		configured.Destinations = configured.Destinations[:pl.only]
	}
	mapping, problems := pipeline.Compile(configured)
	if len(problems) > 0 {
		panic(fmt.Sprint(problems))
	}
	w.mapping = mapping
	chance := rand.New(rand.NewPCG(seed, 3))
	o := sim.TenantOptions{ID: tenantID, Seed: seed, Attributes: []string{"stripeCustomerId", "salesforceId", "marketingOptIn"},
		Groups: []sim.Group{{ID: groupID}}, Retention: pl.retention, AuditMaxTop: pl.pageSize, AuditTail: true,
		AuditOrder: sim.Order(chance.IntN(3)), ShortPages: chance.IntN(2) == 0, EmptyPages: []int{0, 0, 2, 3}[chance.IntN(4)],
		RetryAfter: sim.RetryAfter(chance.IntN(5)), Duplicates: []float64{0, .05, .3}[chance.IntN(3)]}
	w.sim = &sim.World{Tenant: sim.NewTenant(o),
		Stripe:     sim.NewStripe(sim.StripeOptions{APIKey: stripeKey, SearchLag: []time.Duration{time.Minute, 10 * time.Minute, time.Hour}[chance.IntN(3)]}),
		Mailchimp:  sim.NewMailchimp(sim.MailchimpOptions{APIKey: chimpKey, Audience: audience}),
		Salesforce: sim.NewSalesforce(sim.SalesforceOptions{ClientID: "soak", ClientSecret: forceKey, Objects: sim.SalesforceObjects()}),
		Webhook:    sim.NewWebhook(sim.WebhookOptions{Secrets: []string{hookKey}})}
	for _, a := range people {
		p := &person{arrival: a, reached: map[string]time.Time{}}
		w.order = append(w.order, p)
		w.byHash[sim.MailchimpMember{Email: a.Email}.Hash()] = ""
	}
	last := pl.loses
	for _, p := range w.order {
		last = max(last, p.at, p.redeems, p.deleted, p.restored)
	}
	for _, t := range pl.troubles {
		last = max(last, t.to)
	}
	w.end = w.sched.begun.Add(last + 10*time.Minute)
	return w
}

// play is the whole story: people come and go, the host's timers run, troubles come and end, and then there is time.
func (w *world) play() {
	var hosts sync.WaitGroup
	hosts.Add(2)
	go w.populate()
	go func() { defer hosts.Done(); w.host(0) }()
	go func() { defer hosts.Done(); w.host(1) }()
	go func() { hosts.Wait(); w.sched.end() }()
	w.sched.drive()
}

// event is what somebody does.
type event struct {
	at time.Duration
	do func()
}

// populate lets people come and go.
func (w *world) populate() {
	defer w.sched.named("people")()
	var events []event
	for _, p := range w.order {
		events = append(events, event{p.at, func() { w.signUp(p) }})
		if p.redeems > 0 {
			events = append(events, event{p.redeems, func() { w.redeem(p) }})
		}
		if p.deleted > 0 {
			events = append(events, event{p.deleted, func() { w.sim.Tenant.Delete(p.id) }})
		}
		if p.restored > 0 {
			events = append(events, event{p.restored, func() { w.sim.Tenant.Restore(p.id); p.since = time.Now() }})
		}
	}
	if w.plan.loses > 0 {
		events = append(events, event{w.plan.loses, w.loseLedger})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	for i, e := range events {
		time.Sleep(time.Until(w.sched.begun.Add(e.at)))
		w.sched.park(nil, fmt.Sprintf("event %d", i), nil)
		e.do()
	}
}

// redeem lets a guest accept, which makes the sign-up where it does not come of the invitation.
func (w *world) redeem(p *person) {
	w.sim.Tenant.Redeem(p.id)
	if !w.plan.invited {
		p.since = time.Now()
	}
}

func (w *world) signUp(p *person) {
	p.since = time.Now()
	p.id = w.sim.Tenant.SignUp(p.Person)
	if p.id == "" {
		return
	}
	w.people[p.id] = p
	w.byHash[sim.MailchimpMember{Email: p.Email}.Hash()] = p.id
	if p.broken {
		w.sim.Tenant.AddAudit(json.RawMessage(fmt.Sprintf(`{"id":"Directory_%s","activityDisplayName":"Add user","activityDateTime":%q,"result":"success",`+
			`"targetResources":[{"id":42,"type":"User"}]}`, p.id, time.Now().UTC().Format(time.RFC3339Nano))))
	}
	if p.doubled && p.AuditLag == nil {
		w.sim.Tenant.Republish(p.id, w.sched.chance.IntN(2) == 0)
	}
}

// host is one instance of the app with its timer; the second is at work in some hours only.
func (w *world) host(n int) {
	name := []string{"a", "b"}[n]
	defer w.sched.named("host " + name)()
	var p *process
	started := 0
	for {
		time.Sleep(w.pause(n))
		w.sched.park(nil, "tick "+name, nil)
		if w.finished() {
			if n == 1 || w.conclude(p) {
				return
			}
		}
		if w.in("host", "down") || n == 1 && !w.in("second", "timer") {
			p = nil // scaled in
			continue
		}
		if p == nil || p.dead.Load() || w.calm() == false && w.sched.chance.IntN(300) == 0 {
			started++
			p = w.newProcess(fmt.Sprintf("%s%d", name, started), w.skew(n))
		}
		w.runs++
		if n == 0 && w.runs%15 == 0 { // the census has a timer of its own
			w.sched.each(p, 2, func(i int) {
				if i == 0 {
					p.run()
				} else {
					p.census(pipeline.CensusOptions{Act: true})
				}
			})
			continue
		}
		p.run()
	}
}

// conclude ends the story with a census, which brings back who was lost with the ledger, and with a replay of what had
// failed, and reports that nothing is left to do after them.
func (w *world) conclude(p *process) bool {
	switch {
	case !w.healed:
		return w.heal(p)
	case !w.replayed:
		w.checkRefused()
		w.replayed = true
		if err := p.engine.Replay(p.ctx, pipeline.ReplayOptions{State: signup.Failed, Act: true}); err != nil {
			w.broke("replay", "%v", err)
		}
		return false
	}
	c, err := p.census(pipeline.CensusOptions{})
	if err != nil || c.Ended.IsZero() || c.CheckSum() != nil || c.Missing > 0 || c.Pending > 0 || len(c.Failed) > 0 {
		w.broke("certificate", "%+v %v %v", c, c.CheckSum(), err)
	}
	return true
}

// heal takes in who is missing, and reports that it does not come to an end.
func (w *world) heal(p *process) bool {
	if w.lost {
		if err := p.engine.Backfill(p.ctx, w.sched.begun); err != nil {
			w.broke("certificate", "backfill: %v", err)
		}
	}
	for range 20 {
		c, err := p.census(pipeline.CensusOptions{Act: true, Fresh: !w.lost})
		if w.healed = err == nil && !c.Ended.IsZero(); w.healed {
			if (c.Missing > 0 || c.Redeemed > 0) && !w.lost && !w.blind() {
				w.broke("missing", "%+v", c)
			}
			return false
		}
		if err != nil {
			w.broke("certificate", "%v", err)
		}
	}
	w.broke("certificate", "the census does not end")
	return true
}

// blind reports that users may have passed by the detectors: a log was down for longer than it remembers.
func (w *world) blind() bool { return len(w.gapped) > 0 }

// loseLedger empties the ledger, under processes that die of it.
func (w *world) loseLedger() {
	for _, p := range w.processes {
		p.kill()
	}
	w.ledger, w.marks, w.lost = ledger.Memory(tenantID), map[string]watermark{}, true
}

// pause is the time until the next tick: a minute while there is something to see or to do, more while there is not.
func (w *world) pause(n int) time.Duration {
	now := time.Now()
	next := now.Truncate(time.Minute).Add(time.Minute + time.Duration(n)*time.Millisecond)
	if n == 1 && !w.in("second", "timer") {
		return next.Add(9 * time.Minute).Sub(now)
	}
	if w.plan.steady && now.Before(w.end) {
		return next.Sub(now)
	}
	for _, p := range w.order {
		for _, at := range []time.Duration{p.at, p.redeems, p.restored} {
			if at > 0 && now.Sub(w.sched.begun)+15*time.Minute > at && now.Sub(w.sched.begun) < at+15*time.Minute {
				return next.Sub(now)
			}
		}
	}
	idle := next.Add(14 * time.Minute)
	for r := range w.ledger.Due(context.Background(), idle) {
		if r.Due.Before(idle) {
			idle = r.Due
		}
		break
	}
	if idle.Before(next) {
		idle = next
	}
	return idle.Truncate(time.Minute).Add(time.Minute).Sub(now)
}

// calm reports that all troubles are over.
func (w *world) calm() bool { return time.Now().After(w.end) }

// finished reports that the troubles are over, that detectors had their overlap since, and that nothing is left to do, or
// that it takes too long.
func (w *world) finished() bool {
	since := time.Since(w.end)
	if since < 3*time.Hour {
		return false
	}
	for range w.ledger.Due(context.Background(), time.Now().Add(10000*24*time.Hour)) {
		return since > 4*24*time.Hour
	}
	return true
}

// in reports that a trouble of that kind is going on.
func (w *world) in(system, how string) bool {
	at := time.Since(w.sched.begun)
	for _, t := range w.plan.troubles {
		if t.system == system && t.how == how && at >= t.from && at < t.to {
			return true
		}
	}
	return false
}

// skew is the clock of one host.
func (w *world) skew(n int) func(time.Time) time.Duration {
	return func(now time.Time) time.Duration {
		if w.calm() {
			return 0
		}
		switch {
		case n != 0: // only one clock goes wrong at a time
		case w.in("clock", "ahead"):
			return 5 * time.Hour
		case w.in("clock", "behind"):
			return -5 * time.Hour
		case w.in("clock", "year-ahead"):
			return 365 * 24 * time.Hour
		case w.in("clock", "year-behind"):
			return -365 * 24 * time.Hour
		}
		return w.plan.skews[n]
	}
}
