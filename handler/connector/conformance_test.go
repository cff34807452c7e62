package connector_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"signup-sync/handler/connector"
	"signup-sync/handler/connector/connectortest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// harnesses says how each kind is put to the test.
var harnesses = map[string]connectortest.Harness{
	"eventGrid": {New: eventGridSystem, Skip: map[string]string{
		connectortest.FailedLookup: "a topic cannot be asked for anything: subscribers take an id once",
		connectortest.SpentKey:     "a topic takes an id that it refused before",
	}},
	"mailchimp": {New: mailchimpSystem(""), Skip: mailchimpSkips},
	"serviceBus": {New: serviceBusSystem, Skip: map[string]string{
		connectortest.FailedLookup:    "nothing can be looked up in a queue: receivers take an id once",
		connectortest.SpentKey:        "an entity takes an id that it refused before",
		connectortest.CheckCredential: "who may only send is refused the entity's description as a stranger is: a refusal shows nothing",
	}},
	"storageQueue": {New: func(t testing.TB) *connectortest.System { return storageQueueSystem(t, false) }, Skip: map[string]string{
		connectortest.FailedLookup: "nothing can be looked up in a queue: receivers take an id once",
		connectortest.SpentKey:     "a queue takes an id that it refused before",
	}},
	"salesforce": salesforceHarness("fail"),
	"stripe":     {New: func(t testing.TB) *connectortest.System { return stripeSystem(t, time.Minute, "metadata") }},
	"webhook": {New: webhookSystem, Skip: map[string]string{
		connectortest.FailedLookup:    "a receiver cannot be asked for anything: it de-duplicates by webhook-id",
		connectortest.SpentKey:        "a receiver takes an id that it refused before",
		connectortest.CheckCredential: "a secret is proven by an event only, and a check sends none",
	}},
	"sql": {New: sqliteSystem, Skip: map[string]string{
		connectortest.FailedLookup:    "the upsert is one statement; nothing is looked up",
		connectortest.SpentKey:        "there is no idempotency key: the row's key is the user",
		connectortest.Throttled:       "a database does not ask for a pause",
		connectortest.CheckCredential: "the right to write is proven by a row only, and a check writes none",
	}},
}

func TestEveryKindKeepsThePromisesOfAConnector(t *testing.T) {
	for _, k := range connector.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			h, ok := harnesses[k.Name]
			if !ok {
				t.Fatalf("kind %q has no harness", k.Name)
			}
			connectortest.Run(t, h)
		})
	}
}

func TestStripeKeepsThePromisesWithASearchAnHourLate(t *testing.T) {
	connectortest.Run(t, connectortest.Harness{
		New: func(t testing.TB) *connectortest.System { return stripeSystem(t, time.Hour, "metadata") },
	})
}

func TestStripeKeepsThePromisesWhenItAdoptsByEmail(t *testing.T) {
	connectortest.Run(t, connectortest.Harness{
		New: func(t testing.TB) *connectortest.System { return stripeSystem(t, time.Hour, "email") },
	})
}

func TestStorageQueueKeepsThePromisesWithAnAccountKey(t *testing.T) {
	h := harnesses["storageQueue"]
	h.New = func(t testing.TB) *connectortest.System { return storageQueueSystem(t, true) }
	connectortest.Run(t, h)
}

var start = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

// lockedBuffer is a log that calls at the same time may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// gate stands before a simulated system: it can swap the caller's credential, and hang.
type gate struct {
	next http.Handler

	mu         sync.Mutex
	credential func(*http.Request)
	stalled    chan struct{}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	credential, stalled := g.credential, g.stalled
	g.stalled = nil
	g.mu.Unlock()
	if stalled != nil {
		// Only a server that has read the request notices that the caller has gone.
		_, _ = bytes.NewBuffer(nil).ReadFrom(r.Body)
		close(stalled)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // returning would answer 200, which the caller may still see
	}
	if credential != nil {
		credential(r)
	}
	g.next.ServeHTTP(w, r)
}

func (g *gate) set(credential func(*http.Request), stalled chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.credential, g.stalled = credential, stalled
}

// serve serves h over TLS on loopback and returns its root and a client that trusts it.
func serve(t testing.TB, h http.Handler) (root string, client *http.Client) {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	t.Cleanup(transport.CloseIdleConnections)
	return server.URL, &http.Client{Transport: transport}
}

// open opens a connector whose settings are right.
func open(t testing.TB, kind string, settings map[string]any, env connector.Env) signup.Connector {
	t.Helper()
	c, errs := kindOf(t, kind).Open(settings, env)
	for _, err := range errs {
		t.Fatal(err)
	}
	if closer, ok := c.(interface{ Close() error }); ok {
		t.Cleanup(func() { _ = closer.Close() })
	}
	return c
}

const stripeKey = "sk_test_51Simulated"

// overHTTP fills in what goes wrong with any simulated system over HTTP, where write is the method that changes
// something and look the one that does not. The answers hold what must not get out.
func overHTTP(s *connectortest.System, faults *sim.Faults, g *gate, write, look string, wrongCredential func(*http.Request)) {
	const chatty = `{"error":{"type":"api_error","code":"ada.lovelace+signup@example.com","message":"Ada.Lovelace+signup@example.com"}}`
	always := func(f sim.Fault) func() {
		f.Times, f.Body = -1, chatty
		return func() { faults.Add(f) }
	}
	s.LoseAnswer = func() { faults.Add(sim.Fault{Method: write, After: true}) }
	s.FailAfterEffect = func() { faults.Add(sim.Fault{Method: write, After: true, Status: 503, Body: chatty}) }
	s.Unavailable = always(sim.Fault{Status: 503})
	s.FailLookups = always(sim.Fault{Method: look, Status: 503})
	s.Throttle = func(after time.Duration) {
		header := http.Header{"Retry-After": {fmt.Sprint(after.Seconds() - 0.4)}}
		always(sim.Fault{Status: 429, Header: header})()
	}
	s.BreakCredential = func() { g.set(wrongCredential, nil) }
	s.Stall = func() <-chan struct{} {
		stalled := make(chan struct{})
		g.set(nil, stalled)
		return stalled
	}
	s.Heal = func() { faults.Clear(); g.set(nil, nil) }
}

func stripeSystem(t testing.TB, lag time.Duration, adopt string) *connectortest.System {
	clock := sim.NewClock(start)
	there := sim.NewStripe(sim.StripeOptions{Clock: clock, APIKey: stripeKey, SearchLag: lag})
	g := &gate{next: there}
	root, client := serve(t, g)
	log := &lockedBuffer{}
	c := open(t, "stripe", map[string]any{"apiKey": stripeKey, "url": root, "adopt": adopt},
		connector.Env{HTTP: client, Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil))})
	s := &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{stripeKey},
		Accounts: func(user signup.UserID) (n int) {
			for _, x := range there.Customers() {
				if !x.Deleted && x.Metadata["entra_object_id"] == string(user) {
					n++
				}
			}
			return n
		},
		State: func() string { return asJSON(there.Customers()) },
		Record: func(email, name string) map[string]any {
			r := map[string]any{"name": name, "preferredLocales": []any{"de", "en"}, "metadata": map[string]any{"plan": "free", "seats": 3}}
			if email != "" {
				r["email"] = email
			}
			return r
		},
		Rejected: func(signup.UserID) map[string]any { return map[string]any{"email": "ada.lovelace at example.com"} },
		Stranger: func() string {
			return there.Add(sim.StripeCustomer{Email: "stranger@example.com", Metadata: map[string]string{"entra_object_id": "99999999-5eed-4000-8000-00000000beef"}})
		},
		Move: func(user signup.UserID, email string) {
			for _, x := range there.Customers() {
				if x.Metadata["entra_object_id"] == string(user) {
					there.Edit(x.ID, func(c *sim.StripeCustomer) { c.Email = email })
				}
			}
		},
		SpoilKey: func() { there.FailCreates(1, false) },
	}
	overHTTP(s, &there.Faults, g, "POST", "GET", func(r *http.Request) { r.Header.Set("Authorization", "Bearer sk_test_other") })
	return s
}

const (
	whsec      = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherWhsec = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

func webhookSystem(t testing.TB) *connectortest.System {
	clock := sim.NewClock(start)
	there := sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: []string{whsec}})
	g := &gate{next: there}
	root, client := serve(t, g)
	log := &lockedBuffer{}
	c := open(t, "webhook", map[string]any{"url": root + "/hook?token=in-the-query", "secret": whsec, "allowPrivate": true},
		connector.Env{HTTP: client, Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil))})
	s := &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{whsec, "in-the-query"},
		Accounts: func(user signup.UserID) (n int) {
			for _, d := range there.Deliveries() {
				if d.Subject == string(user) {
					n++
				}
			}
			return n
		},
		State: func() string { return asJSON(there.Deliveries()) },
		Record: func(email, name string) map[string]any {
			r := map[string]any{"name": name}
			if email != "" {
				r["email"] = email
			}
			return r
		},
		Rejected: func(signup.UserID) map[string]any { return map[string]any{"bio": strings.Repeat("lovelace", 3000)} },
		Stranger: func() string { return "contact-99" },
		Move:     func(signup.UserID, string) {},
	}
	overHTTP(s, &there.Faults, g, "POST", "GET", func(r *http.Request) { r.Header.Set("Webhook-Signature", "v1,bm90IGl0") })
	return s
}

// lossy is a connector whose caller may miss an answer, as one that dies does.
type lossy struct {
	signup.Connector
	lose bool
}

func (l *lossy) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	a, err := l.Connector.Associate(ctx, req)
	if l.lose && err == nil {
		l.lose = false
		return signup.Account{}, &signup.Error{Class: signup.Transient, Code: "cut"}
	}
	return a, err
}

const customers = `CREATE TABLE customers (
	entra_id TEXT NOT NULL UNIQUE, email TEXT, name TEXT NOT NULL CHECK (length(name) < 100), seats INTEGER, vip BOOLEAN, note TEXT DEFAULT 'none')`

// sqliteFile makes a database with the statements and returns its path and a connection of its own.
func sqliteFile(t testing.TB, statements ...string) (string, *sql.DB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "crm 100%41.db")
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	return path, db
}

func sqliteSystem(t testing.TB) *connectortest.System {
	path, db := sqliteFile(t, customers)
	clock := sim.NewClock(start)
	log := &lockedBuffer{}
	env := connector.Env{Clock: clock, Log: slog.New(slog.NewTextHandler(log, nil))}
	settings := func(more string) map[string]any {
		return map[string]any{"driver": "sqlite", "dsn": path + "?_busy_timeout=500" + more, "table": "customers", "key": "entra_id"}
	}
	good, readOnly := open(t, "sql", settings(""), env), open(t, "sql", settings("&mode=ro"), env)
	c := &lossy{Connector: good}
	var lock *sql.Conn
	do := func(conn *sql.Conn, statement string) {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			t.Error(err)
		}
	}
	s := &connectortest.System{
		Connector: c, Clock: clock, Log: log.String, Secrets: []string{path},
		Accounts: func(user signup.UserID) (n int) {
			if err := db.QueryRow("SELECT count(*) FROM customers WHERE entra_id = ?", string(user)).Scan(&n); err != nil {
				t.Error(err)
			}
			return n
		},
		State: func() string { return dump(t, db) },
		Record: func(email, name string) map[string]any {
			return map[string]any{"email": email, "name": name, "seats": 3, "vip": true}
		},
		Rejected: func(signup.UserID) map[string]any { return map[string]any{"name": strings.Repeat("lovelace", 20)} },
		Stranger: func() string { return "99999999-5eed-4000-8000-00000000beef" },
		Move: func(user signup.UserID, email string) {
			if _, err := db.Exec("UPDATE customers SET email = ? WHERE entra_id = ?", email, string(user)); err != nil {
				t.Error(err)
			}
		},
		LoseAnswer: func() { c.lose = true }, FailAfterEffect: func() { c.lose = true },
		BreakCredential: func() { c.Connector = readOnly },
		Unavailable: func() {
			var err error
			if lock, err = db.Conn(context.Background()); err != nil {
				t.Fatal(err)
			}
			do(lock, "BEGIN EXCLUSIVE")
		},
	}
	s.Heal = func() {
		c.Connector, c.lose = good, false
		if lock != nil {
			do(lock, "ROLLBACK")
			_ = lock.Close()
			lock = nil
		}
	}
	return s
}

// dump is the whole table as text.
func dump(t testing.TB, db *sql.DB) string {
	t.Helper()
	var all sql.NullString
	err := db.QueryRow(`SELECT group_concat(entra_id || '|' || coalesce(email, 'NULL') || '|' || name || '|' || coalesce(seats, 'NULL') || '|' ||
		coalesce(vip, 'NULL') || '|' || coalesce(note, 'NULL'), x'0a') FROM customers`).Scan(&all)
	if err != nil {
		t.Error(err)
	}
	return all.String
}

func asJSON(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}
