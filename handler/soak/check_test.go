package soak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// broke notes that an invariant does not hold.
func (w *world) broke(invariant, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.kinds, invariant) {
		w.kinds = append(w.kinds, invariant)
	}
	if len(w.problems) < 20 {
		w.problems = append(w.problems, fmt.Sprintf("%s: %v: %s", invariant, time.Since(w.sched.begun).Round(time.Millisecond), fmt.Sprintf(format, args...)))
	}
}

// checkIntent: the intent is durable before the first byte that can have an effect.
func (p *process) checkIntent(c call) {
	name := c.system
	if name == "patch" {
		name = signup.Profile
	}
	if len(c.users) == 0 {
		p.broke("intent", "%s %s is about nobody", c.method, c.path)
	}
	rows, err := p.ledger.Get(context.Background(), c.users)
	if err != nil {
		panic(err)
	}
	for _, id := range c.users {
		i := slices.IndexFunc(rows, func(r signup.Row) bool { return r.User == id })
		if i < 0 {
			p.broke("intent", "%s %s: %s is not in the ledger", c.method, c.path, id)
			continue
		}
		a, _ := rows[i].Association(name)
		// Another process may have ended the work meanwhile; what it left shows that there was an intent.
		before := !a.FirstTry.IsZero() || a.State != signup.Pending || rows[i].Unsure
		if p.alone() && rows[i].Intent.IsZero() || !before && name != signup.Profile {
			p.broke("intent", "%s %s: no intent for %s at %s: %+v", c.method, c.path, id, name, rows[i])
		}
	}
}

// alone reports that no other process can have done anything since this one's run began. Where clocks are minutes apart two may
// be at work, and what one of them has written is there also when it has died.
func (p *process) alone() bool {
	return !slices.ContainsFunc(p.processes, func(q *process) bool {
		if q.dead.Load() {
			return q != p && q.died.After(p.began)
		}
		return q != p && time.Since(q.began) < 10*time.Minute
	})
}

// checkRow: the ledger names nobody, and takes nobody for deleted who is there.
func (p *process) checkRow(r signup.Row) {
	if q := p.people[r.User]; q.deleted == 0 && slices.ContainsFunc(r.Associations, func(a signup.Association) bool { return a.Reason == "deleted" }) {
		p.broke("deleted", "%s is there", r.User)
	}
	body, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	p.checkText("ledger", body)
}

// checkText looks for addresses, names and secrets.
func (w *world) checkText(where string, text []byte) {
	if bytes.IndexByte(text, '@') >= 0 {
		w.broke("personal data", "an address in the %s: %s", where, text)
	}
	for _, secret := range []string{stripeKey, chimpKey, forceKey, hookKey, "Bearer "} {
		if bytes.Contains(text, []byte(secret)) {
			w.broke("secrets", "in the %s: %s", where, text)
		}
	}
	for _, p := range w.order {
		for _, name := range []string{p.GivenName, p.Surname} {
			if len(name) >= 5 && bytes.Contains(text, []byte(name)) {
				w.broke("personal data", "the name %q in the %s: %s", name, where, text)
			}
		}
	}
}

// logLines is where the processes log to.
type logLines struct {
	world *world
	lines []string
}

func (l *logLines) Write(line []byte) (int, error) {
	l.world.mu.Lock()
	l.lines = append(l.lines, string(line))
	l.world.mu.Unlock()
	l.world.checkText("log", line)
	return len(line), nil
}

// checkLease: nobody takes the lease from a process that is at work.
func (p *process) checkLease(n signup.Note) {
	var lease struct {
		Owner   string
		Expires time.Time
	}
	if err := json.Unmarshal(n.Body, &lease); err != nil {
		panic(err)
	}
	if lease.Owner == "" {
		p.world.holder, p.world.holds = nil, ""
		return
	}
	now, other := time.Now(), p.holder
	if other != nil && p.holds != lease.Owner && !other.dead.Load() {
		// Who stands still, or cannot write it down, loses the lease, and so does who meets a clock ahead of the own one.
		if ahead := p.skew(now) - other.skew(now); !other.hinder && ahead.Abs() < time.Minute {
			p.broke("lease", "%s takes it from %s, which is at work", p.name, other.name)
		}
	}
	p.world.holder, p.world.holds = p, lease.Owner
	p.hinder = p.paused.After(p.began) // a lease begins with its run, and may be over when it is written
}

// watermark is what was last written of a detector.
type watermark struct {
	at   time.Time
	rest signup.Window
}

// checkNote: a watermark is never ahead of the rows, nor of the time.
func (p *process) checkNote(n signup.Note) {
	p.checkText("ledger", n.Body)
	if n.Name == "run" {
		p.checkLease(n)
	}
	detector, ok := strings.CutPrefix(n.Name, "watermark|")
	if !ok {
		return
	}
	var mark struct {
		Watermark time.Time
		Gaps      []signup.Window
		Rest      signup.Window
	}
	if err := json.Unmarshal(n.Body, &mark); err != nil {
		panic(err)
	}
	if mark.Watermark.After(time.Now().Add(2 * time.Minute)) {
		p.broke("watermark", "%s is ahead of the time: %v", detector, mark.Watermark)
	}
	old := p.marks[detector]
	if _, later := p.from[detector]; !later { // what this run reads begins an overlap before the watermark, or where the last one had to stop
		switch {
		case !old.rest.Empty():
			p.from[detector] = old.rest.From
		case old.at.IsZero():
			p.from[detector] = p.began.Add(-24*time.Hour + 5*time.Minute)
		default:
			p.from[detector] = old.at.Add(-overlap)
		}
	}
	from := p.from[detector]
	p.marks[detector] = watermark{mark.Watermark, mark.Rest}
	if !mark.Watermark.After(old.at) {
		return // it has not moved
	}
	shown := p.sim.Tenant.AuditShown
	switch detector {
	case "directory":
		shown = p.sim.Tenant.UsersListed
	case "signups":
		shown = p.sim.Tenant.SignUpsShown
	}
	if detector != "directory" {
		p.gapped = append(p.gapped, mark.Gaps...)
	}
	for _, e := range shown(p.began) {
		if !e.At.Before(mark.Watermark) || e.At.Before(from) || p.people[e.User] == nil || detector == "directory" && p.people[e.User].deleted > 0 {
			continue
		}
		if detector != "directory" && slices.ContainsFunc(p.gapped, func(w signup.Window) bool { return !e.At.Before(w.From) && e.At.Before(w.To) }) {
			continue
		}
		if _, there := p.row(e.User); !there {
			p.broke("watermark", "%s is at %v, and %s, whom it has shown at %v, is not in the ledger", detector, mark.Watermark, e.User, e.At)
		}
	}
}

func (w *world) row(id signup.UserID) (signup.Row, bool) {
	rows, err := w.ledger.Get(context.Background(), []signup.UserID{id})
	if err != nil {
		panic(err)
	}
	if len(rows) == 0 {
		return signup.Row{}, false
	}
	return rows[0], true
}

// reached notes when users came to be associated.
func (w *world) reached(r signup.Row) {
	p := w.people[r.User]
	for _, a := range r.Associations {
		if _, before := p.reached[a.Destination]; a.State == signup.Associated && !before {
			p.reached[a.Destination] = time.Now()
		}
	}
}

// rates counts one process's calls in sliding windows, and compares them with what is published.
type rates struct {
	windows map[string][]time.Time
	skew    time.Duration
	since   time.Time // the clock was put right
}

func (r *rates) count(p *process, c call) {
	endpoint := "stripe " + c.method + " retrieve"
	switch {
	case strings.HasSuffix(c.path, "/search"):
		endpoint = "stripe search"
	case strings.HasSuffix(c.path, "/customers"):
		endpoint = "stripe " + c.method
	}
	limits := map[string][]struct {
		name   string
		most   int
		period time.Duration
	}{
		"audit":      {{"audit", 5, 10 * time.Second}},
		"billing":    {{endpoint, 25, time.Second}, {"stripe", 100, time.Second}},
		"patch":      {{"writes", 3000, 150 * time.Second}, {"writes/s", 40, time.Second}},
		"members":    {{"writes", 3000, 150 * time.Second}, {"writes/s", 40, time.Second}},
		"newsletter": {{"mailchimp", 100, time.Second}},
		"crm":        {{"salesforce", 25, time.Second}},
	}
	now := time.Now()
	if skew := p.skew(now); r.windows == nil || skew != r.skew { // whose clock is put right begins to count anew
		if r.windows != nil {
			r.since = now
		}
		r.windows, r.skew = map[string][]time.Time{}, skew
	}
	if now.Sub(r.since) < time.Minute {
		return
	}
	if p.plan.pauses > 0 && c.system == "audit" { // who stands still sends at once what was spread in time
		return
	}
	for _, l := range limits[c.system] {
		calls := append(r.windows[l.name], now)
		for len(calls) > 0 && now.Sub(calls[0]) >= l.period {
			calls = calls[1:]
		}
		r.windows[l.name] = calls
		if len(calls) > l.most {
			p.broke("rates", "%d calls of %s in %v", len(calls), l.name, l.period)
		}
	}
}
