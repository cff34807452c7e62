package soak_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// holdings is what the simulated systems have of each user.
type holdings map[signup.UserID]map[string][]string // ids by destination

func (w *world) holdings() holdings {
	h := holdings{}
	w.linkedTo = map[string]string{}
	add := func(id, destination, object string) {
		user := signup.UserID(strings.ToLower(id))
		if h[user] == nil {
			h[user] = map[string][]string{}
		}
		h[user][destination] = append(h[user][destination], object)
	}
	for _, c := range w.sim.Stripe.Customers() {
		if !c.Deleted {
			add(c.Metadata["entra_object_id"], "billing", c.ID)
		}
	}
	for _, m := range w.sim.Mailchimp.Members() {
		add(string(w.byHash[m.Hash()]), "newsletter", m.ID)
	}
	for _, r := range w.sim.Salesforce.Records() {
		id, _ := r.Fields["Entra_Object_Id__c"].(string)
		add(id, "crm", r.ID)
		w.linkedTo[r.ID], _ = r.Fields["Legacy_Id__c"].(string)
	}
	for _, d := range w.sim.Webhook.Deliveries() {
		add(d.Subject, "welcome", d.Account)
	}
	for _, id := range w.sim.Tenant.Members(groupID) {
		add(string(id), "members", string(id))
	}
	return h
}

// score is what came of a seed.
type score struct {
	signUps, lost, repeated int
	delays                  []time.Duration // at healthy destinations, where nothing went wrong but at others
}

// audit compares what is with what should be.
func (w *world) audit() (s score) {
	has := w.holdings()
	for _, p := range w.order {
		if p.id == "" {
			continue
		}
		due := w.due(p)
		if due != never {
			s.signUps++
		}
		lost := false
		for _, d := range destinations {
			objects := has[p.id][d]
			wanted := (d != "newsletter" || p.Attributes["marketingOptIn"] == true && p.Email != "") &&
				(d != "welcome" || p.How != sim.Guest) && (d != "members" || w.plan.only == 0)
			switch {
			case len(objects) > 1:
				s.repeated++
				w.broke("repeated", "%s has %d objects at %s", p.id, len(objects), d)
			case len(objects) == 1 && (due == never || !wanted):
				w.broke("nobody's", "%s (%s) is not to be at %s", p.id, p.How, d)
			case len(objects) == 0 && due == always && wanted:
				lost = true
				w.broke("lost", "%s (%s) is not at %s: %s", p.id, p.How, d, w.story(p.id))
			}
		}
		if billing, crm := has[p.id]["billing"], has[p.id]["crm"]; len(billing) == 1 && len(crm) == 1 && w.linkedTo[crm[0]] != billing[0] {
			w.broke("prerequisites", "%s has %q of billing at crm, want %q", p.id, w.linkedTo[crm[0]], billing[0])
		}
		if due == always && !lost {
			lost = !w.linked(p, has[p.id])
		}
		if lost {
			s.lost++
		}
		w.checkEnd(p)
		s.delays = append(s.delays, w.checkDelay(p)...)
	}
	if n := w.sim.Tenant.SuspiciousEmptyPatches(); n > 0 {
		w.broke("patches", "%d changed nothing", n)
	}
	delete(has, "")
	for id := range has {
		if w.people[id] == nil {
			w.broke("nobody's", "%s is nobody", id)
		}
	}
	return s
}

// duty says whether somebody has to be at the destinations at the end.
type duty int

const (
	never  duty = iota // made by an administrator, not redeemed, …
	maybe              // gone: it depends on when
	always             //
)

func (w *world) due(p *person) duty {
	switch {
	case p.How == sim.Admin, p.How == sim.Guest && p.redeems == 0 && !w.plan.invited:
		return never
	case p.deleted > 0 && p.restored == 0:
		return maybe
	}
	return always
}

// linked: the user's record carries the ids, and the name.
func (w *world) linked(p *person, has map[string][]string) bool {
	u, _ := w.sim.Tenant.User(p.id)
	onPremises, _ := u.Properties["onPremisesExtensionAttributes"].(map[string]any)
	shown := map[string]any{"billing": u.Properties[w.sim.Tenant.Extension("stripeCustomerId")], "crm": u.Properties[w.sim.Tenant.Extension("salesforceId")],
		"newsletter": onPremises["extensionAttribute1"]}
	whole := true
	for _, d := range []string{"billing", "crm", "newsletter"} {
		if len(has[d]) == 1 && shown[d] != has[d][0] {
			whole = false
			w.broke("link-backs", "%s has %v of %s on the record, want %s: %s", p.id, shown[d], d, has[d][0], w.story(p.id))
		}
	}
	if name, _ := u.Properties["displayName"].(string); p.GivenName != "" && (name == "" || name == "unknown") {
		w.broke("link-backs", "%s has no name", p.id)
	}
	return whole
}

// checkRefused: an association fails where its destination does not take the user, and nowhere else; who needs it is
// skipped. A process that dies again and again at somebody's work is a reason too.
func (w *world) checkRefused() {
	for _, p := range w.order {
		r, there := w.row(p.id)
		if !there || w.due(p) != always {
			continue
		}
		for _, a := range r.Associations {
			refused := p.refused == a.Destination && !(a.Destination == "welcome" && p.How == sim.Guest)
			needs := p.refused == "billing" && a.Destination == "crm"
			switch {
			case a.State == signup.Failed && a.Reason == "crash" && w.plan.deaths > 0:
			case refused != (a.State == signup.Failed), needs != (a.Reason == signup.ReasonNeeds):
				w.broke("failed", "%s, whom %q refuses, at %s: %s %s %s", p.id, p.refused, a.Destination, a.State, a.Reason, a.Detail)
			}
		}
	}
}

// checkEnd: nothing is left to do, and nothing failed for good.
func (w *world) checkEnd(p *person) {
	r, there := w.row(p.id)
	if !there {
		if w.due(p) == always {
			w.broke("lost", "%s (%s) is not in the ledger", p.id, p.How)
		}
		return
	}
	for _, a := range r.Associations {
		switch a.State {
		case signup.Failed:
			w.broke("failed", "%s at %s: %s %s", p.id, a.Destination, a.Reason, a.Detail)
		case signup.Pending:
			w.broke("pending", "%s at %s: %s", p.id, a.Destination, w.story(p.id))
		}
	}
}

// story is what the ledger has of a user.
func (w *world) story(id signup.UserID) string {
	r, there := w.row(id)
	if !there {
		return "not in the ledger"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s by %s, due %v, starts %d", r.Kind, r.Detector, at(r.Due, w), r.Starts)
	for _, a := range r.Associations {
		fmt.Fprintf(&b, "; %s %s %s %s tried %d since %v next %v", a.Destination, a.State, a.Account, a.Reason, a.Attempts, at(a.FirstTry, w), at(a.Next, w))
	}
	return b.String()
}

func at(t time.Time, w *world) string {
	if t.IsZero() {
		return "-"
	}
	return t.Sub(w.sched.begun).Round(time.Second).String()
}

// checkDelay: a healthy destination gets its users soon, and at once where nothing goes wrong but at others.
func (w *world) checkDelay(p *person) (delays []time.Duration) {
	// The list shows everybody but these within two minutes; who was a guest before is seen in the log.
	prompt := w.plan.quiet && p.IndexLag == nil && p.How != sim.Guest
	spared := p.hit || p.AuditLag != nil || p.IndexLag != nil || p.doubled || w.plan.deaths > 0 || w.plan.pauses > 0 || w.plan.writes > 0
	// After a burst a log of two records a page takes runs to read, at four calls in ten seconds, and each pass begins anew.
	slowLog := w.plan.burst && w.plan.pageSize == 2 && p.How == sim.Guest
	if p.deleted > 0 || w.due(p) != always || slowLog || spared && !prompt {
		return nil
	}
	needs := map[string][]string{"billing": {"billing"}, "newsletter": {"newsletter"}, "crm": {"crm", "billing"}, "welcome": {"welcome"},
		"members": {"members"}, signup.Profile: {"billing", "newsletter", "crm", "patch"}}
	from := p.since.Sub(w.sched.begun)
	for _, d := range append([]string{signup.Profile}, destinations...) {
		at, ok := p.reached[d]
		if !ok || slices.Contains(needs[d], p.refused) {
			continue
		}
		healthy := !slices.ContainsFunc(w.plan.troubles, func(t trouble) bool {
			all := slices.Contains([]string{"audit", "directory", "profile", "graph", "ledger", "host", "clock"}, t.system)
			return (all || slices.Contains(needs[d], t.system)) && t.from < from+slowest && t.to+slowest > from
		})
		if !healthy {
			continue
		}
		delay, most := at.Sub(p.since), slowest
		if prompt {
			most = promptly
			delays = append(delays, delay)
		}
		if delay > most {
			w.broke("delay", "%s (%s) came to %s after %v", p.id, p.How, d, delay)
		}
	}
	return delays
}

const (
	// slowest is what a sign-up may take where nothing is wrong for it: a log or list that shows it after 45 minutes at
	// most, a breaker that others' mishaps have opened (15 minutes), and the pauses of a few tries.
	slowest = 65 * time.Minute
	// promptly is what it may take where nothing is wrong but at others: two minutes until the list shows it, a minute
	// until a run begins, which may find another at work for four minutes, and the next minute's run, with a margin.
	promptly = 10 * time.Minute
)
