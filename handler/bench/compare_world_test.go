package bench_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// What the simulated systems and the programs agree on. None of it is a secret.
const (
	simTenant    = "04dcc6ab-388a-4559-b527-fbec656300ea"
	simClient    = "5f7f1f6a-0000-4000-8000-00000000c11e"
	simSecret    = "simulated"
	simMailchimp = "0123456789abcdef0123456789abcdef-us1"
	simAudience  = "1a2b3c4d5e"
)

// links are the custom attributes that hold the accounts' ids.
var links = []string{"stripeCustomerId", "mailchimpId", "salesforceId"}

// latencies are how long the simulated systems take for a call, whatever it carries.
var latencies = map[string]time.Duration{"Graph": 150 * time.Millisecond, "Stripe": 300 * time.Millisecond,
	"Mailchimp": 400 * time.Millisecond, "Salesforce": 500 * time.Millisecond}

// system is who answers a path.
func system(path string) string {
	switch first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); first {
	case "v1":
		return "Stripe"
	case "3.0":
		return "Mailchimp"
	case "services":
		return "Salesforce"
	}
	return "Graph" // and the token endpoint
}

// newcomer is somebody who signs up so long after the start.
type newcomer struct {
	sim.Person
	at time.Duration
}

// newcomers are n people who sign up within a time. Their audit rows show after 60 s in the middle and 300 s at the 99th
// percentile, those of one in two hundred after 12 to 40 minutes. All of it comes from the seed, so that every program meets
// the same people; when which replica of the directory shows them is drawn anew in each world, as the tenant does it.
func newcomers(n int, over time.Duration, seed uint64) []newcomer {
	chance := rand.New(rand.NewPCG(seed, 5))
	var all []newcomer
	for i, rank := range chance.Perm(n) {
		p := person(i, chance)
		share := (float64(rank) + 0.5) / float64(n)
		lag := 60 * math.Pow(5, math.Sqrt2*math.Erfinv(2*share-1)/2.3263) // log-normal
		if share > 0.995 {
			lag = 60 * (12 + 28*chance.Float64())
		}
		p.AuditLag = new(time.Duration(lag * float64(time.Second)))
		all = append(all, newcomer{p, time.Duration((float64(i) + chance.Float64()) / float64(n) * float64(over))})
	}
	return all
}

// allAtOnce are n people who sign up at once and can be seen at once.
func allAtOnce(n int, seed uint64) []newcomer {
	chance := rand.New(rand.NewPCG(seed, 6))
	var all []newcomer
	for i := range n {
		p := person(i, chance)
		p.AuditLag, p.ReplicaLag, p.IndexLag = new(time.Duration), new(time.Duration), new(time.Duration)
		all = append(all, newcomer{Person: p})
	}
	return all
}

func person(i int, chance *rand.Rand) sim.Person {
	const digits = "0123456789abcdef"
	id := []byte("00000000-0000-4000-8000-000000000000")
	for at, c := range id {
		if c == '0' {
			id[at] = digits[chance.IntN(16)]
		}
	}
	return sim.Person{ID: signup.UserID(id), How: sim.Email, Email: "person" + string(id[:8]) + "@example.com",
		GivenName: []string{"Ada", "Ben", "Zoë", "Tom"}[i%4], Surname: []string{"Smith", "Novák", "Okafor"}[i%3]}
}

// contestWorld is the systems among which one program works, each with its latency, and what an observer sees of it.
type contestWorld struct {
	sim.World
	clock  signup.ScaledClock
	server *sim.Server
	dir    string
	people []newcomer
	begin  time.Time // of the people's time: when the program was there

	mu     sync.Mutex
	linked map[signup.UserID]time.Time // when the user's record first held the ids of all accounts
	calls  map[string]int              // by system and method
}

func openContestWorld(t *testing.T, rate float64, people []newcomer, lifted bool) *contestWorld {
	t.Helper()
	clock := signup.ScaledClock{Start: time.Now().UTC(), Rate: rate}
	life := time.Duration(rate * float64(time.Hour)) // clients keep tokens by the machine's clock
	w := &contestWorld{clock: clock, dir: t.TempDir(), people: people, linked: map[signup.UserID]time.Time{}, calls: map[string]int{}}
	w.World = sim.World{
		Tenant: sim.NewTenant(sim.TenantOptions{ID: simTenant, Clock: clock, Seed: 1, Type: sim.External, Attributes: links}),
		Entra: sim.NewEntra(sim.EntraOptions{Clock: clock, Tenant: simTenant, Seed: 1, TokenLife: life, Apps: []sim.App{{ID: simClient, Secret: simSecret,
			Roles: []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All"}}}}),
		Stripe: sim.NewStripe(sim.StripeOptions{Clock: clock, APIKey: simSecret, NoLimits: lifted}),
		// Mailchimp counts the calls that are under way, so its latency is within.
		Mailchimp: sim.NewMailchimp(sim.MailchimpOptions{Clock: clock, APIKey: simMailchimp, Audience: simAudience,
			During: func() { _ = clock.Sleep(t.Context(), latencies["Mailchimp"]) }}),
		Salesforce: sim.NewSalesforce(sim.SalesforceOptions{Clock: clock, ClientID: simSecret, ClientSecret: simSecret, Objects: sim.SalesforceObjects()}),
	}
	var err error
	if w.server, err = sim.Serve(t.Context(), "127.0.0.1:0", w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	if err := os.WriteFile(w.path("ca.pem"), w.server.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *contestWorld) path(name string) string { return filepath.Join(w.dir, name) }

// ServeHTTP lets a call take its time, and looks at the user whom it has changed, also where the answer is lost.
func (w *contestWorld) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	to := system(r.URL.Path)
	w.mu.Lock()
	w.calls[to+" "+r.Method]++
	w.mu.Unlock()
	if to != "Mailchimp" {
		_ = w.clock.Sleep(r.Context(), latencies[to]) // a caller who has gone away has called nevertheless
	}
	defer w.look(r)
	w.World.ServeHTTP(rw, r)
}

func (w *contestWorld) look(r *http.Request) {
	id, ok := strings.CutPrefix(r.URL.Path, "/v1.0/users/")
	if !ok || r.Method != http.MethodPatch {
		return
	}
	u, ok := w.Tenant.User(signup.UserID(id))
	if !ok || slices.ContainsFunc(links, func(name string) bool { return u.Properties[w.Tenant.Extension(name)] == nil }) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.linked[u.ID].IsZero() {
		w.linked[u.ID] = w.clock.Now()
	}
}

// signUps lets the people come at their times.
func (w *contestWorld) signUps(t *testing.T) {
	for _, p := range w.people {
		if w.until(t, p.at) != nil {
			return
		}
		w.Tenant.SignUp(p.Person)
	}
}

// until waits for so long after the beginning.
func (w *contestWorld) until(t *testing.T, at time.Duration) error {
	return w.clock.Sleep(t.Context(), w.begin.Add(at).Sub(w.clock.Now()))
}

// billed are the people with an account at Stripe and one at Salesforce, by the time of the later one.
func (w *contestWorld) billed() (out []time.Duration) {
	first := map[string]time.Time{}
	for _, c := range w.Stripe.Customers() {
		first[c.Email] = c.Created
	}
	for _, r := range w.Salesforce.Records() {
		if at, ok := first[r.Fields["Email"].(string)]; ok {
			out = append(out, max(at.Sub(w.begin), r.Created.Sub(w.begin)))
		}
	}
	slices.Sort(out)
	return out
}

// tally is what came of the people, as the systems have it.
type tally struct {
	Lost     int             // people without an account somewhere
	Repeated int             // people with more than one somewhere
	Accounts [2]int          // that are missing, and that are too many
	Unlinked int             // people whose record does not carry all ids
	Delays   []time.Duration // from the sign-up until the record carries all ids, sorted; of those that do
	Calls    map[string]int  // by system and method
}

func (w *contestWorld) tally() tally {
	held := map[string]*[3]int{}
	for _, p := range w.people {
		held[p.Email] = new([3]int)
	}
	for _, c := range w.Stripe.Customers() {
		held[c.Email][0]++
	}
	for _, m := range w.Mailchimp.Members() {
		held[m.Email][1]++
	}
	for _, r := range w.Salesforce.Records() {
		held[r.Fields["Email"].(string)][2]++
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v := tally{Calls: maps.Clone(w.calls)}
	for _, p := range w.people {
		missing, more := 0, 0
		for _, n := range held[p.Email] {
			missing, more = missing+max(1-n, 0), more+max(n-1, 0)
		}
		v.Accounts[0], v.Accounts[1] = v.Accounts[0]+missing, v.Accounts[1]+more
		v.Lost, v.Repeated = v.Lost+min(missing, 1), v.Repeated+min(more, 1)
		u, came := w.Tenant.User(p.ID)
		if at, ok := w.linked[p.ID]; came && ok {
			v.Delays = append(v.Delays, at.Sub(u.Created))
		} else {
			v.Unlinked++
		}
	}
	slices.Sort(v.Delays)
	return v
}

// quantile is in seconds, of all people: infinite, if the record of so many never carries all ids.
func (v tally) quantile(q float64) float64 {
	all := len(v.Delays) + v.Unlinked
	if i := min(int(q*float64(all)), all-1); i < len(v.Delays) {
		return v.Delays[i].Seconds()
	}
	return math.Inf(1)
}
