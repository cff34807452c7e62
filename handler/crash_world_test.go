package main

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/connector/databasetest"
	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/ledger"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// crashRate is how fast the simulated clock runs: a dead run's lease is over after 120 ms.
const crashRate = 1000

// leaseRenewal is how often a run renews its lease: each 40 s, in real time.
const leaseRenewal = 40 * time.Second / crashRate

// crashOverlap is the setting sync.overlap.
const crashOverlap = 20 * time.Minute

// crashPause is between two invocations, most of which only find the lease of a dead run; 80 ms of real time.
const crashPause = 80 * time.Millisecond * crashRate

// crashWorld is the real program under devhost, with its ledger in Azurite and a customers table in PostgreSQL, among
// the simulated systems; everything that it sends passes an edge.
type crashWorld struct {
	*local
	t         *testing.T
	edge      *edge
	functions []string // what an invocation is of, one after the other
	settings  map[string]string
	app       string
	table     *sql.DB // of customers; nil = none
	born      int
	apart     map[signup.UserID]bool // whose end is not the ordinary one
	unseen    map[signup.UserID]bool // whom the detectors never see

	mu     sync.Mutex
	target *devhost.Host // the present host, for whoever kills
	lines  []string      // of the log
}

func openCrashWorld(t *testing.T, database bool) *crashWorld {
	t.Helper()
	w := &crashWorld{t: t, app: appFolder(t), functions: []string{"SyncNewUsers"}, apart: map[signup.UserID]bool{}, unseen: map[signup.UserID]bool{},
		local: &local{people: map[signup.UserID]sim.Person{}}}
	w.edge = newEdge(w.kill)
	w.clock = signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: crashRate}
	account := ledgertest.StartAzurite(t)
	_, emulator, _ := strings.Cut(account, "TableEndpoint=")
	emulator = strings.TrimSuffix(emulator, "/devstoreaccount1;")
	var err error
	if w.ledger, err = ledger.OpenTables(ledger.TablesOptions{Tenant: simTenant, ConnectionString: account}); err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(w.edge.wrap(w.edge.nameWrite(w.ledger), forward(emulator)))
	t.Cleanup(proxy.Close)

	if w.simulation, err = openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, w.clock, sim.Workforce); err != nil {
		t.Fatal(err)
	}
	w.Salesforce = sim.NewSalesforce(sim.SalesforceOptions{Clock: w.clock, ClientID: simSecret, ClientSecret: simSecret, Objects: sim.SalesforceObjects(), Duplicates: "block"})
	w.Mailchimp = sim.NewMailchimp(sim.MailchimpOptions{Clock: w.clock, APIKey: simMailchimp, Audience: simAudience,
		Fields: []sim.MailchimpField{{Tag: "FNAME"}, {Tag: "LNAME"}, {Tag: contactOwner}}})
	w.server.Close()
	if w.server, err = sim.Serve(t.Context(), "127.0.0.1:0", w.edge.wrap(w.nameEffect, w.World)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	if err := os.WriteFile(w.path("ca.pem"), w.server.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	w.settings = w.simulation.settings()
	maps.Copy(w.settings, w.more())
	w.settings["AzureWebJobsStorage"] = strings.Replace(account, emulator, proxy.URL, 1)
	w.settings["LEDGER"], w.settings["SYNC_SCHEDULE"] = "tables", "0 * * * * *"
	w.settings["CENSUS_SCHEDULE"] = "30 * * * * *"
	w.settings["SIGNUP_SYNC_CLOCK"] = fmt.Sprintf("%s,%d", w.clock.Start.Format(time.RFC3339), crashRate)
	w.settings["SIGNUP_SYNC_CONFIG"] = w.configure(database)
	w.open(nil)
	t.Cleanup(func() {
		w.host.Close()
		if t.Failed() {
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("the end of the log:\n%s", strings.Join(w.lines[max(0, len(w.lines)-40):], "\n"))
		}
	})
	return w
}

// kill is what the edge does.
func (w *crashWorld) kill() {
	w.mu.Lock()
	host := w.target
	w.mu.Unlock()
	if err := host.Kill(); err != nil {
		w.t.Errorf("kill: %v", err)
	}
}

// contactOwner is the merge field that says whose a contact is.
const contactOwner = "ENTRAOID"

// configure writes local.yaml with what makes more kinds of writes: a first window that is longer than the log, guests,
// records to be linked, contacts that can move, and a customers table in a database that has a wire.
func (w *crashWorld) configure(database bool) (path string) {
	config := everyKind()
	replace := func(old, new string) {
		if !strings.Contains(config, old) {
			w.t.Fatalf("local.yaml has no %q any more", old)
		}
		config = strings.Replace(config, old, new, 1)
	}
	replace("auth: clientCredentials", "auth: clientCredentials, duplicates: link")
	replace("audience: 1a2b3c4d5e", "audience: 1a2b3c4d5e, idField: "+contactOwner)
	if dsn := w.openCustomers(database); dsn != "" {
		w.settings["CUSTOMERS_DSN"] = dsn
		replace("driver: sqlite", "driver: postgres")
	}
	replace("overlap: 5m", fmt.Sprintf("overlap: %v\n  firstLookBack: 26h\n  auditRetention: 24h", crashOverlap))
	replace("signups:\n", "signups:\n  origins: [selfService, emailVerified, invitation]\n")
	path = w.path("signup-sync.yaml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// openCustomers makes the customers table in PostgreSQL behind the edge, and returns how to reach it. Without
// PostgreSQL the table stays in SQLite, whose writes cannot be seen; in CI that is an error.
func (w *crashWorld) openCustomers(database bool) (dsn string) {
	if !database {
		return ""
	}
	t := w.t
	server, err := databasetest.StartPostgres()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Log("NOT TESTED at a database: PostgreSQL is missing, which 'make databases' installs:", err)
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	w.table = server.Admin
	if _, err := w.table.Exec("CREATE TABLE customers (entra_id text PRIMARY KEY, email text, name text, stripe_id text NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	port := w.edge.serveWire(t, server.Socket)
	return fmt.Sprintf("host=127.0.0.1 port=%s dbname=postgres user=postgres password=%s sslmode=disable", port, databasetest.AdminPassword)
}

// open starts a host, which goes on where the one before it ended.
func (w *crashWorld) open(status map[string]devhost.ScheduleStatus) {
	w.t.Helper()
	host, err := devhost.Open(devhost.Options{Root: w.app, Settings: w.settings, Clock: w.clock, Status: status, Log: func(l devhost.Line) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.lines = append(w.lines, fmt.Sprintf("%s %.300s", l.From, l.Text))
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.host = host
	w.mu.Lock()
	w.target = host
	w.mu.Unlock()
	if _, err := w.host.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// fire invokes the program. A host that has given up after three crashes is followed by another, as the platform
// does it.
func (w *crashWorld) fire() error {
	w.t.Helper()
	for _, function := range w.functions {
		_, err := w.host.Fire(w.t.Context(), function, "")
		if errors.Is(err, devhost.ErrEnded) {
			w.reopen()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reopen closes the host and starts another one.
func (w *crashWorld) reopen() {
	w.t.Helper()
	status := w.host.Status()
	w.host.Close()
	w.open(status)
}

// signUp brings n people in who are to be everywhere.
func (w *crashWorld) signUp(n int) (ids []signup.UserID) {
	for range n {
		ids = append(ids, w.come(sim.Email))
	}
	return ids
}

// come brings somebody in who can be seen at once.
func (w *crashWorld) come(how sim.How) signup.UserID {
	var none time.Duration
	w.born++
	return w.Tenant.SignUp(sim.Person{How: how, Email: w.address(w.born), GivenName: "Ada", Surname: "Crash",
		Attributes: map[string]any{"marketingOptIn": true}, AuditLag: &none, ReplicaLag: &none, IndexLag: &none})
}

// address is the nth person's.
func (w *crashWorld) address(n int) string { return fmt.Sprintf("crash%d@example.com", n) }

// dieAt runs the program until it dies at a boundary, and looks at what it leaves behind.
func (w *crashWorld) dieAt(name string, s side, about string, arrange func()) {
	w.t.Helper()
	fired := w.edge.arm(name, s, about)
	if arrange != nil {
		arrange()
	}
	for end := time.Now().Add(30 * time.Second); ; {
		wait := 40 * time.Millisecond
		if w.fire() != nil { // perhaps of this death, of which the host may know before the edge does
			wait = 300 * time.Millisecond
		}
		select {
		case <-fired:
			w.noWatermarkAhead(name, s)
			return
		case <-time.After(wait):
		}
		if time.Now().After(end) {
			w.edge.arm("", before, "")
			w.t.Errorf("%s: the program was never there, %s", name, s)
			return
		}
	}
}

// settle runs the program until nothing is left to do, and compares all sides.
func (w *crashWorld) settle(what string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		err := w.fire()
		left := w.unfinished()
		if err == nil && left == "" {
			break
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s: does not come to rest: %v; %s", what, err, left)
		}
		_ = w.clock.Sleep(w.t.Context(), crashPause) // ends early with the test
	}
	w.compareAll(what)
}
