package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// localReport is what came of a local run, as read from the tenant, the ledger and every destination.
type localReport struct {
	Tenant     sim.TenantType `json:"tenant"`
	Signups    int            `json:"signups"`    // people who came into the tenant
	Detected   int            `json:"detected"`   // of them in the ledger
	Associated int            `json:"associated"` // settled, with every destination that is for them, and the profile
	Skipped    int            `json:"skipped"`    // by their origin
	Failed     int            `json:"failed"`     // with something failed
	Lost       int            `json:"lost"`       // accounts that should be at a destination and are not
	Repeated   int            `json:"repeated"`   // accounts that a destination has twice

	Destinations       map[string]map[string]int `json:"destinations"` // associations by state; "profile" is one of them
	Reasons            map[string]map[string]int `json:"reasons"`      // of those that are not associated
	Origins            map[string]map[string]int `json:"origins"`      // sign-ups by origin, with the way, and first detector
	Delay              quantiles                 `json:"delay"`        // from sign-up to detection, seconds of simulated time
	DelayAssociated    quantiles                 `json:"delayAssociated"`
	GraphCalls         int                       `json:"graphCalls"`   // counted by the simulated tenant
	Graph              map[string]int            `json:"graph"`        // the same by route
	ProfileReads       int                       `json:"profileReads"` // of them, among the last 10,000
	Patches            int                       `json:"patches"`      // of them, that were accepted, likewise
	Refused            int                       `json:"refused"`      // patches that were not, likewise
	LedgerTransactions int64                     `json:"ledgerTransactions"`
	LedgerNotes        int64                     `json:"ledgerNotes"` // writes of watermarks, the lease and the like
	Runs               int                       `json:"runs"`        // that answered; only their transactions are counted
	Died               int                       `json:"died"`        // that did not
	Census             pipeline.Census           `json:"census"`      // taken at the end
	Elapsed            float64                   `json:"elapsed"`     // seconds of real time, from start to settled
	Problems           []string                  `json:"problems"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

func (q *quantiles) of(delays []time.Duration) {
	if len(delays) == 0 {
		return
	}
	slices.Sort(delays)
	at := func(p float64) float64 {
		return delays[min(int(p*float64(len(delays))), len(delays)-1)].Round(100 * time.Millisecond).Seconds()
	}
	q.P50, q.P99 = at(0.50), at(0.99)
}

// reconcile reads all sides and compares them.
func (l *local) reconcile(ctx context.Context) (*localReport, error) {
	r := &localReport{Tenant: sim.TenantType(l.command.Tenant), Signups: len(l.people), Elapsed: time.Since(l.begun).Seconds(), Runs: len(l.reports), Died: l.died, Problems: []string{},
		Destinations: map[string]map[string]int{}, Reasons: map[string]map[string]int{}, Origins: map[string]map[string]int{}, Graph: l.Tenant.Counts()}
	for _, n := range r.Graph {
		r.GraphCalls += n
	}
	for _, call := range l.Tenant.Requests() {
		switch {
		case call.Method == "GET" && strings.Contains(call.URL, "/users?") && strings.Contains(call.URL, "in%20"):
			r.ProfileReads++
		case call.Method == "PATCH" && strings.Contains(call.URL, "/users/") && call.Status == 204:
			r.Patches++
		case call.Method == "PATCH" && strings.Contains(call.URL, "/users/"):
			r.Refused++
		}
	}
	for _, run := range l.reports {
		r.LedgerTransactions += run.LedgerTransactions
		r.LedgerNotes += run.LedgerNotes
	}
	rows := map[signup.UserID]signup.Row{}
	for row, err := range l.ledger.All(ctx) {
		if err != nil {
			return nil, err
		}
		rows[row.User] = row
	}
	held, err := l.held(ctx)
	if err != nil {
		return nil, err
	}
	var detected, associated []time.Duration
	for _, u := range l.Tenant.Users() {
		row, ok := rows[u.ID]
		if !ok {
			r.Lost++
			r.problem("user %s is in the tenant and not in the ledger", u.ID)
			continue
		}
		r.Detected++
		delete(rows, u.ID)
		r.count(row)
		r.compare(u, row, held)
		detected = append(detected, row.Detected.Sub(u.Created))
		for _, a := range row.Associations {
			if a.State == signup.Associated {
				associated = append(associated, a.Settled.Sub(u.Created))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		r.problem("user %s is in the ledger and not in the tenant", id)
	}
	for _, p := range places {
		for _, id := range slices.Sorted(maps.Keys(held[p.name])) {
			if _, ok := l.Tenant.User(id); !ok {
				r.problem("%s has an account for %q, who is not in the tenant", p.name, id)
			}
		}
	}
	r.Delay.of(detected)
	r.DelayAssociated.of(associated)
	return r, nil
}

// certify holds the census against the tenant: everyone who was there before its range ended is in it, and is settled.
func (r *localReport) certify(c pipeline.Census, users []sim.DirectoryUser) {
	r.Census = c
	there := 0
	for _, u := range users {
		if u.Created.Before(c.To) {
			there++
		}
	}
	if c.Users != there || there == 0 {
		r.problem("the census up to %s has %d users, the tenant %d", c.To.Format(time.TimeOnly), c.Users, there)
	}
	if n := c.Missing + c.Backfilled + c.Before + c.Pending; n > 0 {
		r.problem("the census has %d users missing, %d backfilled, %d from before and %d pending", c.Missing, c.Backfilled, c.Before, c.Pending)
	}
}

func (r *localReport) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *localReport) count(row signup.Row) {
	add := func(m map[string]map[string]int, a, b string) {
		if m[a] == nil {
			m[a] = map[string]int{}
		}
		m[a][b]++
	}
	add(r.Origins, row.OriginText(), row.Detector)
	states := map[signup.State]int{}
	for _, a := range row.Associations {
		add(r.Destinations, a.Destination, string(a.State))
		if a.State != signup.Associated {
			add(r.Reasons, a.Destination, string(a.State)+": "+a.Reason)
		}
		states[a.State]++
	}
	switch n := len(row.Associations); {
	case states[signup.Failed] > 0:
		r.Failed++
	case states[signup.Skipped] == n:
		r.Skipped++
	case states[signup.Pending] == 0:
		r.Associated++
	}
}

// compare holds one user's row against the truth: how the person came in, what the destinations hold, and what stands
// on the user's own record.
func (r *localReport) compare(u sim.DirectoryUser, row signup.Row, held map[string]holdings) {
	own := r.own(u)
	if a, _ := row.Association(signup.Profile); own && a.State != signup.Associated || !own && a.State != signup.Skipped {
		r.problem("user %s came in by %s; of the profile the ledger says %s %s", u.ID, u.How, a.State, a.Reason)
	}
	for _, p := range places {
		if p.only != "" && p.only != r.Tenant {
			continue
		}
		wanted := own && (p.wants == nil || p.wants(u))
		a, _ := row.Association(p.name)
		ids := held[p.name][u.ID]
		switch {
		case len(ids) > 1:
			r.Repeated += len(ids) - 1
			r.problem("user %s has %d accounts at %s", u.ID, len(ids), p.name)
		case wanted && len(ids) == 0:
			r.Lost++
			r.problem("user %s has no account at %s; the ledger says %s %s", u.ID, p.name, a.State, a.Reason)
		case !wanted && len(ids) > 0:
			r.problem("user %s came in by %s and has an account at %s, which is not for that user", u.ID, u.How, p.name)
		case wanted && (a.State != signup.Associated || a.Account != ids[0]):
			r.problem("user %s has the account %s at %s; the ledger says %s %s", u.ID, ids[0], p.name, a.State, a.Account)
		case !wanted && a.State != signup.Skipped:
			r.problem("user %s came in by %s; at %s the ledger says %s %s", u.ID, u.How, p.name, a.State, a.Reason)
		}
	}
	if billing, _ := row.Association("billing"); own && !slices.Equal(held[stripeColumn][u.ID], []string{billing.Account}) {
		r.problem("user %s has stripe_id %q in the customers table; the ledger says %q", u.ID, held[stripeColumn][u.ID], billing.Account)
	}
	r.compareRecord(u, row, own)
}

// compareRecord looks at the user's own record: the names that the profile section makes, and the link-backs, which
// nobody else has.
func (r *localReport) compareRecord(u sim.DirectoryUser, row signup.Row, own bool) {
	for attribute, name := range linkBacks {
		want, value := "", attributeOf(u, attribute)
		if a, _ := row.Association(name); own {
			want = a.Account
		}
		if text, _ := value.(string); text != want {
			r.problem("user %s has %s %q on the record; the ledger says %q", u.ID, attribute, text, want)
		}
	}
	text := func(property string) string { s, _ := u.Properties[property].(string); return s }
	name := strings.TrimSpace(text("givenName") + " " + text("surname"))
	local, _, _ := strings.Cut(text("userPrincipalName"), "@")
	generated := u.How == sim.Email || u.How == sim.Social // others have a user principal name that stays
	if own && (name != "" && text("displayName") != name || generated && !strings.HasSuffix(local, string(u.ID[:8]))) {
		r.problem("user %s has other names on the record than the profile makes", u.ID)
	}
}

// print shows the report to a person.
func (r *localReport) print(w io.Writer, l *local) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t)
	fmt.Fprintln(t, "ORIGIN\tSIGN-UPS\tFIRST SEEN BY")
	for _, origin := range slices.Sorted(maps.Keys(r.Origins)) {
		total, by := 0, []string{}
		for _, d := range slices.Sorted(maps.Keys(r.Origins[origin])) {
			total += r.Origins[origin][d]
			by = append(by, fmt.Sprintf("%s %d", d, r.Origins[origin][d]))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", origin, total, strings.Join(by, ", "))
	}
	fmt.Fprintln(t, "\nDESTINATION\tASSOCIATED\tOTHERWISE")
	for _, name := range slices.Sorted(maps.Keys(r.Destinations)) {
		var other []string
		for _, reason := range slices.Sorted(maps.Keys(r.Reasons[name])) {
			other = append(other, fmt.Sprintf("%s %d", reason, r.Reasons[name][reason]))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\n", name, r.Destinations[name][string(signup.Associated)], strings.Join(other, ", "))
	}
	users := float64(max(r.Detected, 1))
	fmt.Fprintf(t, "\nsign-up to detection\tp50 %.0f s, p99 %.0f s\t(simulated time; the timer fires every minute)\n", r.Delay.P50, r.Delay.P99)
	fmt.Fprintf(t, "sign-up to associated\tp50 %.0f s, p99 %.0f s\n", r.DelayAssociated.P50, r.DelayAssociated.P99)
	fmt.Fprintf(t, "Graph calls\t%d\t%.2f a user: %s\n", r.GraphCalls, float64(r.GraphCalls)/users, graphByKind(r.Graph))
	changed := max(r.Destinations[signup.Profile][string(signup.Associated)], 1)
	if all := len(l.Tenant.Requests()); all < r.GraphCalls {
		fmt.Fprintf(t, "of the last %d of them\tprofile reads %d, patches %d, refused ones %d\n", all, r.ProfileReads, r.Patches, r.Refused)
	} else {
		fmt.Fprintf(t, "profile reads\t%d\t%.1f users each\n", r.ProfileReads, users/float64(max(r.ProfileReads, 1)))
		fmt.Fprintf(t, "patches\t%d\t%.2f a user with a changed record; %d more were refused, as of users not replicated yet, or failed\n",
			r.Patches, float64(r.Patches)/float64(changed), r.Refused)
	}
	fmt.Fprintf(t, "ledger transactions\t%d\t%.2f a user, and %d notes, in %d runs\n", r.LedgerTransactions, float64(r.LedgerTransactions)/users, r.LedgerNotes, r.Runs)
	fmt.Fprintf(t, "census\t%d\tassociated %d, skipped %d, failed %d, pending %d, missing %d\n", r.Census.Users, r.Census.Associated,
		pipeline.Total(r.Census.Skipped), pipeline.Total(r.Census.Failed), r.Census.Pending, r.Census.Missing)
	fmt.Fprintf(t, "lost, repeated\t%d, %d\n", r.Lost, r.Repeated)
	fmt.Fprintf(t, "took\t%.1f s\n", r.Elapsed)
	if err := t.Flush(); err != nil {
		return err
	}
	where := l.path("ledger.db")
	if l.command.Ledger != "file" {
		where = "the table signups"
	}
	fmt.Fprintf(w, "\nLook into %s (the customers) and %s (the ledger); the handler's log is %s.\n", l.path("customers.db"), where, l.path("handler.log"))
	if len(r.Problems) == 0 {
		_, err := fmt.Fprintln(w, "The tenant, the ledger and the destinations agree about everyone.")
		return err
	}
	for _, p := range r.Problems[:min(len(r.Problems), 20)] {
		fmt.Fprintln(w, "PROBLEM:", p)
	}
	return nil
}

func graphByKind(routes map[string]int) string {
	var parts []string
	for _, route := range slices.Sorted(maps.Keys(routes)) {
		parts = append(parts, fmt.Sprintf("%s %d", strings.Replace(route, "/v1.0", "", 1), routes[route]))
	}
	return strings.Join(parts, ", ")
}
