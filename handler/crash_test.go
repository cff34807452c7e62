package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// TestCrash kills the real program by SIGKILL before and after every request that changes something: in the ledger, in
// the tenant, at each kind of destination. After each death the next invocations bring everyone everywhere, once.
//
// A boundary that is not reached fails the test, and so does a request that changes something and at which nobody dies.
func TestCrash(t *testing.T) {
	t.Parallel()
	all, plays := newTally(), map[string]func(*crashWorld){
		"at the ledger": dieAtTheLedger, "at the destinations": dieAtTheDestinations, "again and again": dieAtOnePerson,
		"at a census": dieAtACensus,
	}
	worlds := make(chan *crashWorld, len(plays))
	t.Run("dies", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(plays)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := openCrashWorld(t, name == "at the destinations")
				plays[name](w)
				worlds <- w
			})
		}
	})
	close(worlds)
	database := false
	for w := range worlds {
		all.add(w.edge.tally)
		database = database || w.table != nil
	}
	for _, what := range slices.Sorted(maps.Keys(all.nameless)) {
		t.Errorf("no crash is tested at a new kind of write: %s", what)
	}
	for _, name := range slices.Sorted(maps.Keys(all.met)) {
		t.Logf("%-32s %4d requests, died %d before and %d after", name, all.met[name], all.died[name][before], all.died[name][after])
		if all.died[name][before] == 0 || all.died[name][after] == 0 {
			t.Errorf("no crash is tested at %q, on both sides", name)
		}
	}
	for _, x := range effects {
		if x.name != "" && all.met[x.name] == 0 {
			t.Errorf("%q was never met", x.name)
		}
	}
	if all.met[rowUpserted] == 0 && database {
		t.Error("nothing was written to the database")
	}
}

var sides = []side{before, after}

func dieAtTheDestinations(w *crashWorld) {
	w.signUp(1)
	w.settle("one, and nothing goes wrong")
	w.signUp(3)
	w.settle("three, and nothing goes wrong")
	arrangements := map[string]func(){
		memberAdded: func() { w.signUp(1) }, // several are added by one call
		contactChanged: func() {
			w.Mailchimp.Add(sim.MailchimpMember{Email: w.address(w.born + 1)})
			w.signUp(2)
		},
		crmAlone: func() { // the rules have matched something that is gone when the record comes alone
			w.Salesforce.RefuseRecords(1, "DUPLICATES_DETECTED", "Use one of these records?")
			w.signUp(2)
		},
		crmLinked: func() {
			w.Salesforce.Add(sim.SalesforceRecord{Object: "Contact", Fields: map[string]any{"Email": w.address(w.born + 1), "LastName": "Crash"}})
			w.signUp(2)
		},
	}
	var names []string
	for _, x := range effects {
		if x.name != "" {
			names = append(names, x.name)
		}
	}
	if w.table != nil {
		names = append(names, rowUpserted)
	}
	for _, name := range names {
		for _, s := range sides {
			arrange := arrangements[name]
			if arrange == nil {
				arrange = func() { w.signUp(2) }
			}
			w.dieAt(name, s, "", arrange)
			w.settle(name + ", " + string(s))
		}
	}
	w.dieAndMove()
}

// dieAndMove lets somebody's contact get another address while the program is dead: the next one has to look for what
// this one may have made, wherever it is now.
func (w *crashWorld) dieAndMove() {
	var id signup.UserID
	w.dieAt(contactMade, after, "", func() { id = w.signUp(1)[0] })
	moved := 0
	for _, m := range w.Mailchimp.Members() {
		if m.Merge[contactOwner] == string(id) {
			w.Mailchimp.Edit(m.ID, func(m *sim.MailchimpMember) { m.Email = "moved-" + m.Email })
			moved++
		}
	}
	if moved != 1 {
		w.t.Errorf("%d contacts were made before the program died, want 1", moved)
	}
	w.settle("the contact has moved")
}

func dieAtTheLedger(w *crashWorld) {
	w.signUp(2)
	for _, name := range []string{"table of notes made", "state written", "gap stored", "table of rows made", "gap narrowed"} { // only once in a ledger's life
		for _, s := range sides {
			w.dieAt(name, s, "", nil)
		}
	}
	w.settle("the ledger is made")

	people := func() { w.signUp(2) }
	failing := func(status int) func() {
		return func() {
			w.Webhook.Faults.Add(sim.Fault{Status: status})
			w.signUp(1) // somebody else's success would say that all is well
		}
	}
	slow := func() { // a run that is over before the lease wants to be renewed renews none
		w.Webhook.Faults.Add(sim.Fault{Delay: 3 * leaseRenewal, Status: http.StatusServiceUnavailable})
		w.signUp(2)
	}
	for _, b := range []struct {
		name    string
		arrange func()
	}{
		{"lease taken", people},
		{rowInserted, people},
		{"watermark moved", people},
		{"lease renewed", slow},
		{"row settled", people},
		{"lease freed", people},
		{"history kept", people},
		{"intent written", failing(http.StatusServiceUnavailable)},
		{"breakers saved", failing(http.StatusUnauthorized)},
	} {
		for _, s := range sides {
			w.dieAt(b.name, s, "", b.arrange)
			w.settle(b.name + ", " + string(s))
		}
	}
	w.dieAtAGuest()
	w.dieAtASlowLog()
	// More than a run takes from memory; last, since the runs after it see them too. A census inserts such rows as well.
	w.dieAt(rowWaiting, after, "", func() {
		for range 310 {
			w.come(sim.Admin)
		}
	})
	w.settle(rowWaiting)
}

// dieAtAGuest dies when somebody's row is reopened.
func (w *crashWorld) dieAtAGuest() {
	for _, s := range sides {
		guest := w.come(sim.Guest)
		w.apart[guest] = true
		w.settle("a guest who has not redeemed")
		if _, reason := w.rows()[guest].State(); reason != "not-redeemed" {
			w.t.Errorf("the guest's row says %q, want not-redeemed", reason)
		}
		w.dieAt("row reopened", s, "", func() { w.Tenant.Redeem(guest) })
		w.settle("row reopened, " + string(s))
		held := w.holdings()
		for _, p := range places {
			if ids := held[p.name][guest]; len(ids) != 1 {
				w.t.Errorf("row reopened, %s: the guest has the accounts %q at %s, want one", s, ids, p.name)
			}
		}
	}
}

// dieAtASlowLog dies when a slice is halved, since it could not be read in time.
func (w *crashWorld) dieAtASlowLog() {
	const timeout = "AzureFunctionsJobHost__functionTimeout"
	w.settings[timeout] = "00:00:02"
	w.reopen()
	for _, s := range sides {
		w.dieAt("slice halved", s, "", func() {
			w.Tenant.Faults.Add(sim.Fault{Path: "/auditLogs/", Delay: 2 * time.Second, Status: http.StatusServiceUnavailable, Times: -1})
		})
		w.Tenant.Faults.Clear()
	}
	delete(w.settings, timeout)
	w.reopen()
	w.settle("slice halved")
}

// dieAtACensus dies while somebody is found whom no detector has shown.
func dieAtACensus(w *crashWorld) {
	w.signUp(2)
	w.settle("those who are seen")
	missing := w.hide()
	w.functions = append(w.functions, "TakeCensus")
	for _, b := range []struct{ name, about string }{{"census moved", ""}, {rowWaiting, string(missing)}, {"certificate stored", ""}} {
		for _, s := range sides {
			w.dieAt(b.name, s, b.about, nil)
		}
	}
	delete(w.unseen, missing)
	w.settle("the census")
	n, err := w.ledger.Note(w.t.Context(), "certificate")
	if err != nil {
		w.t.Fatal(err)
	}
	var c pipeline.Census
	if err := json.Unmarshal(n.Body, &c); err != nil {
		w.t.Fatal(err)
	}
	if err := c.CheckSum(); err != nil || c.Missing != 1 || c.Users < 1 || c.Users > 3 {
		w.t.Errorf("got the certificate %s (%v), want one user missing", n.Body, err)
	}
}

// hide brings somebody in whom no detector shows, since the watermarks pass before the directory lists the user.
func (w *crashWorld) hide() signup.UserID {
	var none time.Duration
	late, never := 3*time.Hour, 1000*time.Hour
	w.born++
	id := w.Tenant.SignUp(sim.Person{How: sim.Email, Email: w.address(w.born), GivenName: "Ada", Surname: "Crash",
		Attributes: map[string]any{"marketingOptIn": true}, AuditLag: &never, ReplicaLag: &none, IndexLag: &late})
	w.unseen[id] = true
	created := w.clock.Now()
	for passed := false; !passed; {
		_ = w.fire()
		passed = true
		for _, detector := range []string{"audit", "directory"} {
			passed = passed && w.watermark(detector).After(created.Add(crashOverlap))
		}
	}
	_ = w.clock.Sleep(w.t.Context(), created.Add(late+time.Minute).Sub(w.clock.Now())) // ends early with the test
	if err := w.fire(); err != nil {
		w.t.Error(err)
	}
	if _, ok := w.rows()[id]; ok {
		w.t.Fatal("a detector has shown whom none was to show")
	}
	return id
}

// dieAtOnePerson dies whenever it is at one person, who is given up at last. The others are not kept waiting until then.
func dieAtOnePerson(w *crashWorld) {
	people := w.signUp(4)
	slices.Sort(people)
	fatal, others := people[0], people[1:] // who comes first when all are due at the same time
	w.apart[fatal] = true
	for n := 1; n <= 6; n++ {
		w.dieAt("welcome: event delivered", before, string(fatal), nil)
		if row := w.rows()[fatal]; row.Starts != n {
			w.t.Errorf("after death %d: the row says %d starts", n, row.Starts)
		}
		if n == 3 {
			others = append(others, w.signUp(1)...)
		}
		for _, id := range others {
			if state, reason := w.rows()[id].State(); n == 6 && state != signup.Associated {
				w.t.Errorf("after death %d: user %s, at whom nothing is wrong, is %s %s", n, id, state, reason)
			}
		}
	}
	for _, s := range sides {
		w.dieAt("row given up", s, "", nil)
	}
	w.settle("row given up")
	row := w.rows()[fatal]
	if state, reason := row.State(); state != signup.Failed || reason != "crash" {
		w.t.Errorf("the row is %s %s, want failed crash", state, reason)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.lines, func(l string) bool {
		return strings.HasPrefix(l, "stderr ") && strings.Contains(l, "died at this user") && strings.Contains(l, string(fatal))
	}) {
		w.t.Error("nobody is told that a user was given up")
	}
}
