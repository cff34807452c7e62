package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/connector/tdstest"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
	"signup-sync/handler/telemetry/collectortest"
)

// leakWorld is the real program among simulated systems that repeat what they are sent, with people of whom everything is
// a marker, and secrets that are.
type leakWorld struct {
	*simulation
	t        *testing.T
	clock    signup.ScaledClock
	settings map[string]string
	born     int

	program *exec.Cmd
	root    string // where it listens
	exited  chan struct{}
	told    func() []byte // what the collector was told

	mu     sync.Mutex
	mood   *mood
	hits   int               // of the present mood
	secret map[string]string // what must be nowhere, by what it is
	out    map[string]*bytes.Buffer
}

// leakConfig sends all that there is to know of a user to a destination of each kind.
const leakConfig = `
sync: { overlap: 5m, detectors: [audit, directory, signUps] }
signups: { origins: [selfService, emailVerified, invitation, admin] }
status: { access: functionKey }
profile:
  displayName: user.givenName + " " + user.surname
  userPrincipalName: slug(user.givenName + "." + user.surname) + "." + short(user.id)
  attributes: { stripeCustomerId: accounts.billing?.id, welcomeId: accounts.welcome?.id }
destinations:
  - { name: billing, connector: stripe, breaker: BREAKER, settings: { url: "${SIMULATED_URL}", apiKey: "${STRIPE_API_KEY}", adopt: email },
      record: { email: user.email, name: user.displayName, phone: user.city, description: user.userPrincipalName, metadata: { nick: user.attributes.nickname } } }
  - { name: newsletter, connector: mailchimp, breaker: BREAKER, settings: { url: "${SIMULATED_URL}", apiKey: "${MAILCHIMP_API_KEY}", audience: 1a2b3c4d5e, tags: [t] },
      record: { status: '"subscribed"', mergeFields: { FNAME: user.givenName, LNAME: user.surname } } }
  - { name: crm, connector: salesforce, breaker: BREAKER, settings: { url: "${SIMULATED_URL}", auth: clientCredentials, clientId: app, clientSecret: "${SALESFORCE_SECRET}" },
      record: { FirstName: user.givenName, LastName: user.surname, Email: user.email } }
  - { name: welcome, connector: webhook, breaker: BREAKER, settings: { url: "${WELCOME_URL}", secret: "${WELCOME_SECRET}", allowPrivate: true }, record: RECORD }
  - { name: customers, connector: sql, settings: { driver: sqlite, dsn: "${CUSTOMERS_DSN}", table: customers, key: entra_id },
      record: { email: user.email, name: user.displayName, stripe_id: accounts.billing.id } }
  - { name: warehouse, connector: sql, breaker: BREAKER, settings: { driver: sqlserver, dsn: "${WAREHOUSE_DSN}", table: people, key: id }, record: RECORD }
  - { name: archive, connector: sql, breaker: BREAKER, settings: { driver: postgres, dsn: "${ARCHIVE_DSN}", table: people, key: id }, record: RECORD }
  - { name: stock, connector: sql, breaker: BREAKER, settings: { driver: mysql, dsn: "${STOCK_DSN}", statement: "insert into t values (:user_id, :given, :surname, :display, :upn, :email, :city, :country, :nick)" }, record: RECORD }
  - { name: queue, connector: storageQueue, breaker: BREAKER, settings: { connection: "${QUEUE_CONNECTION}", queue: signups }, record: RECORD }
  - { name: inbox, connector: storageQueue, breaker: BREAKER, settings: { url: "${SIMULATED_URL}/devstoreaccount1", queue: signups }, record: RECORD }
  - { name: bus, connector: serviceBus, breaker: BREAKER, settings: { url: "${SIMULATED_URL}", entity: signups }, record: RECORD }
  - { name: topic, connector: eventGrid, breaker: BREAKER, settings: { url: "${SIMULATED_URL}" }, record: RECORD }
  - { name: members, connector: group, breaker: BREAKER, settings: { groups: [` + simGroup + `] } }
  - { name: starter, connector: accessPackage, breaker: BREAKER, settings: { accessPackage: ` + simPackage + `, policy: ` + simPolicy + ` } }
`

const leakRecord = `{ given: user.givenName, surname: user.surname, display: user.displayName, upn: user.userPrincipalName, email: user.email, city: user.city, country: user.country, nick: user.attributes.nickname }`

// leakRate is how fast the simulated clock runs.
const leakRate = 1000

func openLeakWorld(t *testing.T, tables bool) *leakWorld {
	t.Helper()
	w := &leakWorld{t: t, secret: map[string]string{}, out: map[string]*bytes.Buffer{}}
	w.clock = signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: leakRate}
	var err error
	if w.simulation, err = openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, w.clock, sim.External); err != nil {
		t.Fatal(err)
	}
	w.server.Close()
	w.Tenant = sim.NewTenant(sim.TenantOptions{ID: simTenant, Clock: w.clock, Seed: 1, Attributes: []string{"stripeCustomerId", "welcomeId", "nickname"},
		Groups: []sim.Group{{ID: simGroup}}, EntitlementManagement: true,
		AccessPackages: []sim.AccessPackage{{ID: simPackage, Policies: []string{simPolicy}}}})
	w.settings = w.secrets()
	w.server, err = sim.Serve(t.Context(), "127.0.0.1:0", w.moody("", w.World))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	if err := os.WriteFile(w.path("ca.pem"), w.server.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	url, addr := w.server.URL, w.server.Addr
	maps.Copy(w.settings, map[string]string{
		"ENTRA_TENANT_ID": simTenant, "ENTRA_CLIENT_ID": simClient, "ENTRA_AUTHORITY": url, "GRAPH_URL": url, "EXTRA_CA_FILE": w.path("ca.pem"),
		"ENTRA_CREDENTIAL": "certificate", "KEY_VAULT_URL": url, "ENTRA_CERTIFICATE": "the-app", "IDENTITY_ENDPOINT": url + "/msi/token",
		"SIMULATED_URL": url, "WELCOME_URL": url + "/webhook/" + w.secret["a secret path"], "CUSTOMERS_DSN": w.path("customers.db"),
		"QUEUE_CONNECTION": "AccountName=devstoreaccount1;AccountKey=" + w.secret["an account key"] + ";QueueEndpoint=https://" + addr + "/devstoreaccount1",
		"WAREHOUSE_DSN":    fmt.Sprintf("sqlserver://sa:%s@127.0.0.1:%d?database=crm&encrypt=disable", w.secret["a password of SQL Server"], w.sqlServer()),
		"ARCHIVE_DSN":      fmt.Sprintf("postgres://p:%s@%s/crm?sslmode=disable", w.secret["a password of PostgreSQL"], w.postgres()),
		"STOCK_DSN":        fmt.Sprintf("m:%s@tcp(%s)/crm", w.secret["a password of MySQL"], closedPort(t)),
		"LEDGER":           "file:" + w.path("ledger.db"), "SIGNUP_SYNC_CONFIG": w.path("signup-sync.yaml"),
		"SIGNUP_SYNC_CLOCK":                      fmt.Sprintf("%s,%d", w.clock.Start.Format(time.RFC3339), leakRate),
		"AzureFunctionsJobHost__functionTimeout": "00:00:20",
		"OTEL_EXPORTER_OTLP_ENDPOINT":            w.collector(),
		"OTEL_EXPORTER_OTLP_HEADERS":             "api-key=" + w.secret["a collector's key"],
	})
	if tables {
		account := ledgertest.StartAzurite(t)
		_, emulator, _ := strings.Cut(account, "TableEndpoint=")
		emulator = strings.TrimSuffix(emulator, "/devstoreaccount1;")
		proxy := httptest.NewServer(w.moody("what was sent to Table Storage", forward(emulator)))
		t.Cleanup(proxy.Close)
		w.settings["LEDGER"], w.settings["AzureWebJobsStorage"] = "tables", strings.Replace(account, emulator, proxy.URL, 1)
		_, key, _ := strings.Cut(account, "AccountKey=")
		w.secret["the ledger's key"], _, _ = strings.Cut(key, ";")
	}
	config := strings.NewReplacer("RECORD", leakRecord, "BREAKER", "{ failures: 1000, pause: 1s }").Replace(leakConfig)
	if err := os.WriteFile(w.path("signup-sync.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	return w
}

// secrets makes all secrets, gives them to the simulated systems, and returns the settings that hold nothing else.
func (w *leakWorld) secrets() map[string]string {
	for _, what := range []string{"an identity header", "a secret path", "a password of SQL Server", "a password of PostgreSQL", "a password of MySQL",
		"a Salesforce secret", "a client secret", "a wrong secret", "a collector's key"} {
		w.secret[what] = "zqz" + rand.Text()
	}
	w.secret["a Stripe key"] = "sk_test_zqz" + rand.Text()
	w.secret["a Mailchimp key"] = fmt.Sprintf("%x", []byte(rand.Text()[:16])) + "-us1"
	w.secret["an account key"] = "enF6" + strings.Repeat(rand.Text()[:20], 4) // base64
	w.secret["a webhook's secret"] = "enF6" + strings.Repeat(rand.Text()[:20], 2)
	key, certificate := makeCertificate(w.t)
	for i, line := range strings.Split(key, "\n") {
		if len(line) == 64 {
			w.secret[fmt.Sprintf("the certificate's key, line %d", i)] = line
		}
	}
	clock := w.clock
	w.Entra = sim.NewEntra(sim.EntraOptions{Clock: clock, Tenant: simTenant, TokenLife: tokenLife(clock), Apps: []sim.App{{ID: simClient, Secret: w.secret["a client secret"],
		Certificates: []*x509.Certificate{certificate}, Roles: []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All",
			"GroupMember.ReadWrite.All", "EntitlementManagement.ReadWrite.All"}}}})
	w.Vault = sim.NewKeyVault(sim.KeyVaultOptions{Clock: clock, Tenant: simTenant})
	w.Vault.SetSecret("the-app", "application/x-pem-file", key)
	w.Stripe = sim.NewStripe(sim.StripeOptions{Clock: clock, APIKey: w.secret["a Stripe key"]})
	w.Mailchimp = sim.NewMailchimp(sim.MailchimpOptions{Clock: clock, APIKey: w.secret["a Mailchimp key"], Audience: simAudience})
	w.Salesforce = sim.NewSalesforce(sim.SalesforceOptions{Clock: clock, ClientID: "app", ClientSecret: w.secret["a Salesforce secret"], Objects: sim.SalesforceObjects()})
	w.Webhook = sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: []string{"whsec_" + w.secret["a webhook's secret"]}})
	w.Queue = sim.NewStorageQueue(sim.StorageQueueOptions{Clock: clock, Queues: []string{simQueue}, Key: w.secret["an account key"]})
	w.Identity = sim.NewIdentity(sim.IdentityOptions{Clock: clock, Tenant: simTenant, Header: w.secret["an identity header"], TokenLife: tokenLife(clock)})
	return map[string]string{
		"IDENTITY_HEADER": w.secret["an identity header"], "STRIPE_API_KEY": w.secret["a Stripe key"], "MAILCHIMP_API_KEY": w.secret["a Mailchimp key"],
		"SALESFORCE_SECRET": w.secret["a Salesforce secret"], "WELCOME_SECRET": "whsec_" + w.secret["a webhook's secret"],
	}
}

// makeCertificate makes the app's, as Key Vault keeps one: key and certificate in PEM.
func makeCertificate(t *testing.T) (text string, certificate *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signup-sync"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	return string(secret) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), certificate
}

// collector puts out what it is told, and every other time answers with all of it and the key.
func (w *leakWorld) collector() (root string) {
	var c collectortest.Collector
	n := 0
	c.Answer = func(rw http.ResponseWriter, r *http.Request) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if n++; n%8 < 4 {
			return false
		}
		said := c.Bytes()
		explain(rw, 401, fmt.Sprint(r.Header, string(said[max(0, len(said)-2000):])))
		return true
	}
	s := httptest.NewServer(&c)
	w.t.Cleanup(s.Close)
	w.told = c.Bytes
	return s.URL
}

// sqlServer is one that repeats what it is sent in its errors, each of another kind.
func (w *leakWorld) sqlServer() (port int) {
	var n int
	var mu sync.Mutex
	s, err := tdstest.New(tdstest.Options{Answer: func(_ context.Context, s tdstest.Statement) tdstest.Reply {
		mu.Lock()
		defer mu.Unlock()
		n++
		number := []int32{2628, 2627, 8114, 50001, 208, 1205, 99999}[n%7]
		return tdstest.Reply{Errors: []tdstest.Error{{Number: number, Text: fmt.Sprintf("Truncated value: '%v' in %s", s.Values, s.SQL)}}}
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s.Port()
}

// postgres asks for the password in the clear, and repeats it.
func (w *leakWorld) postgres() (address string) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				said := make([]byte, 4096)
				_, _ = c.Read(said)
				_, _ = c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3})
				n, _ := c.Read(said)
				text := fmt.Sprintf("SFATAL\x00C28P01\x00Mpassword authentication failed for %q\x00\x00", said[5:max(n-1, 5)])
				size := len(text) + 4
				_, _ = c.Write(append([]byte{'E', 0, 0, byte(size >> 8), byte(size)}, text...))
			})
		}
	})
	w.t.Cleanup(func() { _ = l.Close(); conns.Wait() })
	return l.Addr().String()
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
