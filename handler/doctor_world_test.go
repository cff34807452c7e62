package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signup-sync/handler/functions"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// clinicConfig uses a bit of everything that the doctor looks at.
const clinicConfig = `sync: { auditRetention: 168h, firstLookBack: 1m }
profile:
  displayName: user.givenName + " " + user.surname
  attributes: { stripeCustomerId: accounts.billing?.id }
destinations:
  - name: billing
    connector: stripe
    settings: { url: "${STRIPE_URL}", apiKey: "${STRIPE_API_KEY}" }
    record: { email: user.email }
  - name: welcome
    connector: webhook
    settings: { url: "${WELCOME_URL}", secret: "${WELCOME_SECRET}", allowPrivate: true }
    record: { marketing: user.attributes.marketingOptIn == true, name: user.displayName, stripe: user.attributes.stripeCustomerId }
  - name: customers
    connector: sql
    settings: { driver: sqlite, dsn: "${CUSTOMERS_DSN}", table: customers, key: entra_id }
    record: { email: user.email, stripe_id: accounts.billing.id }
  - name: members
    connector: group
    settings: { groups: [` + simGroup + `] }
`

// clinicRoles are what clinicConfig needs, and nothing else.
var clinicRoles = []string{"AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All"}

const (
	simCertificate = "signup-sync"
	simIdentity    = "7c1f9b1a-0000-4000-8000-0000000c0b04"
)

// clinic is an installation in which all is well, as its operator sees it: the app's settings are in a file, its secrets
// and its certificate in a Key Vault, the operator is logged in, and the ledger knows of a run and a census.
type clinic struct {
	*simulation
	t        *testing.T
	settings map[string]string
	config   string
	roles    []string
	managed  bool // the doctor runs in Azure
}

func openClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{t: t, config: clinicConfig, roles: clinicRoles}
	var err error
	if c.simulation, err = openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{}, sim.External); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.server.Close)
	c.tenant(sim.TenantOptions{})
	c.Vault = sim.NewKeyVault(sim.KeyVaultOptions{Tenant: simTenant})
	c.certify(certificateUntil(t, time.Now().AddDate(1, 0, 0)))
	app := appFolder(t)
	c.settings = c.simulation.settings()
	delete(c.settings, "ENTRA_CLIENT_SECRET")
	for name, value := range map[string]string{"STRIPE_API_KEY": simSecret, "WELCOME_SECRET": simWelcome} {
		c.Vault.SetSecret(strings.ReplaceAll(name, "_", "-"), "", value)
		c.settings[name] = "@Microsoft.KeyVault(SecretUri=" + c.server.URL + "/secrets/" + strings.ReplaceAll(name, "_", "-") + ")"
	}
	for name, value := range map[string]string{"ENTRA_CREDENTIAL": "certificate", "KEY_VAULT_URL": c.server.URL, "ENTRA_CERTIFICATE": simCertificate,
		"LEDGER": "file:" + c.path("ledger.db"), "SIGNUP_SYNC_CONFIG": filepath.Join(app, "signup-sync.yaml"), "SYNC_SCHEDULE": "0 * * * * *", "CENSUS_SCHEDULE": "0 */15 * * * *"} {
		c.settings[name] = value
	}
	c.logIn("Policy.Read.All", "EventListener.Read.All", "Organization.Read.All")
	return c
}

// tenant makes another tenant of it, and a person who has signed up there.
func (c *clinic) tenant(o sim.TenantOptions) {
	o.ID, o.Seed, o.InstantAudit, o.InstantReplicas, o.Throttle = simTenant, 1, true, true, sim.ThrottleOff
	if o.Attributes == nil {
		o.Attributes = []string{"stripeCustomerId"}
	}
	if o.UserFlows == nil {
		o.UserFlows = []sim.UserFlow{simFlow}
	}
	o.Groups = []sim.Group{{ID: simGroup}}
	c.Tenant = sim.NewTenant(o)
	c.Tenant.SignUp(sim.Crowd(1, 1)[0])
}

// clinicKey is the key of every certificate; making one takes a while.
var clinicKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func certificateUntil(t *testing.T, end time.Time) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(end.Unix()), Subject: pkix.Name{CommonName: simCertificate}, NotBefore: end.AddDate(-2, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, clinicKey().Public(), clinicKey())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// certify puts a new version of the certificate into the vault, and registers it on the app.
func (c *clinic) certify(cert *x509.Certificate) {
	c.keep(cert)
	c.Entra.SetApp(sim.App{ID: simClient, Secret: simSecret, Roles: c.roles, Certificates: []*x509.Certificate{cert}})
}

// keep puts a new version of the certificate into the vault alone.
func (c *clinic) keep(cert *x509.Certificate) {
	der, err := x509.MarshalPKCS8PrivateKey(clinicKey())
	if err != nil {
		c.t.Fatal(err)
	}
	var text bytes.Buffer
	_ = pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	c.Vault.SetSecret(simCertificate, "application/x-pem-file", text.String())
}

// logIn is an Azure CLI with the operator's login: a program that prints tokens, with these permissions.
func (c *clinic) logIn(roles ...string) {
	dir := c.t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in\n"
	for _, audience := range []string{"https://graph.microsoft.com", "https://vault.azure.net", "https://storage.azure.com"} {
		token := sim.Token(sim.Claims{Audience: audience, Tenant: simTenant, App: "az", Expires: time.Now().Add(time.Hour).Unix(), Roles: roles})
		script += fmt.Sprintf("*%s*) echo '{\"accessToken\":%q,\"expires_on\":%d,\"tokenType\":\"Bearer\"}' ;;\n", audience, token, time.Now().Add(time.Hour).Unix())
	}
	script += "esac\n"
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(script), 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// logOut lets the Azure CLI have no login.
func (c *clinic) logOut() {
	dir := c.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte("#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n"), 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// write puts the settings and the configuration where the program looks for them.
func (c *clinic) write() (settings string) {
	c.t.Helper()
	var list []map[string]any
	for _, name := range sortedKeys(c.settings) {
		list = append(list, map[string]any{"name": name, "value": c.settings[name], "slotSetting": false})
	}
	data, err := json.Marshal(list)
	if err != nil {
		c.t.Fatal(err)
	}
	for path, text := range map[string][]byte{c.path("settings.json"): data, c.settings["SIGNUP_SYNC_CONFIG"]: []byte(c.config)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.path("settings.json")
}

func (c *clinic) environment(name string) string {
	if name == "IDENTITY_ENDPOINT" && c.managed {
		return c.server.URL + "/msi/token"
	}
	return ""
}

// handler runs a command with the settings' file.
func (c *clinic) handler(args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	var out, errs bytes.Buffer
	code = run(c.t.Context(), system{args: append([]string{"--settings", c.write()}, args...), getenv: c.environment, stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

// app is the installation's own program.
func (c *clinic) app() *app {
	c.t.Helper()
	s, err := withSettings(system{getenv: c.environment}, c.write())
	if err != nil {
		c.t.Fatal(err)
	}
	s.settings.resolve(c.t.Context(), s.getenv)
	a, err := openApp(s.getenv, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// live lets the timers fire once.
func (c *clinic) live() {
	c.t.Helper()
	a := c.app()
	defer a.ledger.Close()
	for _, f := range []functions.Func{a.syncNewUsers, a.takeCensus} {
		if _, err := f(c.t.Context(), functions.Invocation{ID: "clinic"}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// note writes a note of the ledger as if the program had.
func (c *clinic) note(name string, change func(body map[string]any)) {
	c.t.Helper()
	a := c.app()
	defer a.ledger.Close()
	n, err := a.ledger.Note(c.t.Context(), name)
	body := map[string]any{}
	if err == nil && len(n.Body) > 0 {
		err = json.Unmarshal(n.Body, &body)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	change(body)
	n.Name = name
	if n.Body, err = json.Marshal(body); err == nil {
		_, err = a.ledger.PutNote(c.t.Context(), n)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// diagnosis is what the doctor finds, by area and name.
type diagnosis map[string]finding

func (c *clinic) doctor() (code int, found diagnosis, order []string) {
	c.t.Helper()
	code, out, errs := c.handler("doctor", "--json")
	var object struct {
		Good     bool
		Findings []finding
	}
	if err := json.Unmarshal([]byte(out), &object); err != nil {
		c.t.Fatalf("got %v, exit code %d\n%s\n%s", err, code, out, errs)
	}
	found = diagnosis{}
	for _, f := range object.Findings {
		key := f.Area + ": " + f.Name
		if _, twice := found[key]; twice {
			c.t.Errorf("there are two lines %q", key)
		}
		if f.Why == "" || (f.Fix == "") != (f.State == conditionOK) || strings.Contains(f.Why+f.Fix, "%!") || strings.Contains(f.Why, "\n") {
			c.t.Errorf("a line is not complete: %+v", f)
		}
		found[key] = f
		order = append(order, key)
	}
	if fails := countOf(object.Findings, conditionFail); object.Good != (fails == 0) || code == exitOK && fails > 0 || code == exitFailed && fails == 0 {
		c.t.Errorf("got exit code %d and good %v with %d lines that fail", code, object.Good, fails)
	}
	return code, found, order
}

// bad are the lines that are not ok.
func (d diagnosis) bad() (lines []string) {
	for key, f := range d {
		if f.State != conditionOK {
			lines = append(lines, fmt.Sprintf("%s %s: %s", f.State, key, f.Why))
		}
	}
	slices.Sort(lines)
	return lines
}
