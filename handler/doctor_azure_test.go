package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// moveToAzure lets the doctor run where the app does, with every kind of destination.
func (c *clinic) moveToAzure() {
	c.t.Helper()
	c.config = strings.Replace(string(configOf(sim.Workforce)), "sync:\n", "sync:\n  firstLookBack: 1m\n", 1)
	c.tenant(sim.TenantOptions{Type: sim.Workforce, Attributes: []string{"stripeCustomerId", "salesforceId", "welcomeId", "marketingOptIn"}, EntitlementManagement: true,
		AccessPackages: []sim.AccessPackage{{ID: simPackage, Policies: []string{simPolicy}}}})
	c.roles = append(c.roles, "EntitlementManagement.ReadWrite.All")
	c.certify(certificateUntil(c.t, time.Now().AddDate(1, 0, 0)))
	c.managed = true
	for name, value := range c.more() {
		if strings.HasPrefix(name, "IDENTITY_") {
			c.t.Setenv(name, value)
			continue
		}
		c.settings[name] = value
	}
}

// state is all that the outside and the ledger hold.
func (c *clinic) state() map[string]any {
	c.t.Helper()
	a := c.app()
	defer a.ledger.Close()
	all := map[string]any{"users": c.Tenant.Users(), "members": c.Tenant.Members(simGroup), "assignments": c.Tenant.Assignments(), "stripe": c.Stripe.Customers(),
		"mailchimp": c.Mailchimp.Members(), "salesforce": c.Salesforce.Records(), "webhook": c.Webhook.Deliveries(), "queue": c.Queue.Messages(), "bus": c.ServiceBus.Messages(), "topic": c.EventGrid.Events()}
	var rows []signup.Row
	for row, err := range a.ledger.All(c.t.Context()) {
		if err != nil {
			c.t.Fatal(err)
		}
		rows = append(rows, row)
	}
	all["rows"] = rows
	for _, name := range []string{"run", "state", "census", "certificate", "watermark|audit", "watermark|directory", "watermark|signups"} {
		n, err := a.ledger.Note(c.t.Context(), name)
		if err != nil {
			c.t.Fatal(err)
		}
		all["note "+name] = fmt.Sprint(n.Version, string(n.Body))
	}
	customers, err := os.ReadFile(c.path("customers.db"))
	if err != nil {
		c.t.Fatal(err)
	}
	all["customers"] = string(customers)
	return all
}

// reads are what the simulations call that by which nothing is changed.
var reads = []string{"list", "search", "get", "ping", "audience", "fields", "describe", "token", "POST /{tenant}/oauth2/v2.0/token"}

// TestTheDoctorChangesNothing is with every kind of destination, by what they hold and by what was sent.
func TestTheDoctorChangesNothing(t *testing.T) {
	c := openClinic(t)
	c.moveToAzure()
	c.live()
	before := c.state()
	sent := func() map[string]int {
		all := map[string]int{}
		for _, counts := range []map[string]int{c.Tenant.Counts(), c.Entra.Counts(), c.Vault.Counts(), c.Stripe.Calls(), c.Mailchimp.Calls(), c.Salesforce.Calls()} {
			for call, n := range counts {
				if !strings.HasPrefix(call, "GET ") && !slices.Contains(reads, call) {
					all[call] += n
				}
			}
		}
		return all
	}
	writes := sent()
	_, found, _ := c.doctor()
	for call, n := range sent() {
		if n != writes[call] {
			t.Errorf("the doctor has sent %s", call)
		}
	}
	if diff := cmp.Diff(before, c.state()); diff != "" {
		t.Errorf("the doctor has changed (-before +after):\n%s", diff)
	}
	for key, f := range found {
		if strings.HasPrefix(key, "destinations: ") && f.State != conditionOK {
			t.Errorf("%s: %s", key, f.Why)
		}
	}
}

// TestInAzureNobodyIsThereToAsk is the one thing that the doctor cannot do there.
func TestInAzureNobodyIsThereToAsk(t *testing.T) {
	c := openClinic(t)
	c.moveToAzure()
	c.settings["AZURE_CLIENT_ID"] = simIdentity
	c.Identity = sim.NewIdentity(sim.IdentityOptions{Tenant: simTenant, Header: simSecret, ClientID: simIdentity})
	c.live()
	code, found, _ := c.doctor()
	for key, f := range found {
		if f.State == conditionOK || strings.HasPrefix(key, "settings: plain") {
			continue
		}
		if f.State != conditionWarn || !strings.HasPrefix(f.Why, "not asked: ") || !strings.Contains(f.Fix, "az login --tenant "+simTenant) || !slices.Contains([]string{"tenant: kind", "tenant: sign-up policy", "tenant: user flows"}, key) {
			t.Errorf("%s: %+v", key, f)
		}
	}
	if own := found["identity: own"]; code != exitOK || own.Why != "the app's managed identity, client id "+simIdentity {
		t.Errorf("got exit code %d, %+v", code, own)
	}
}

// TestAManagedIdentityStandsForTheApp is the federated credential, for which there is no certificate to look at.
func TestAManagedIdentityStandsForTheApp(t *testing.T) {
	c := openClinic(t)
	c.moveToAzure()
	const object = "288c666e-6a00-408b-b594-657aabf84198"
	c.Identity = sim.NewIdentity(sim.IdentityOptions{Tenant: stranger, Header: simSecret, ClientID: simIdentity, ObjectID: object})
	c.settings["AZURE_CLIENT_ID"], c.settings["ENTRA_CREDENTIAL"] = simIdentity, "federated"
	for _, name := range []string{"STRIPE_API_KEY", "WELCOME_SECRET"} { // the vault's tenant is another one
		c.settings[name] = map[string]string{"STRIPE_API_KEY": simSecret, "WELCOME_SECRET": simWelcome}[name]
	}
	app := sim.App{ID: simClient, Home: stranger, Roles: c.roles, Federated: []sim.FederatedCredential{{Issuer: "https://login.microsoftonline.com/" + stranger + "/v2.0", Subject: object}}}
	c.Entra.SetApp(app)
	_, found, _ := c.doctor()
	for name, why := range map[string]string{"identity: token": "got a token", "identity: certificate": "there is nothing to rotate"} {
		if f := found[name]; f.State != conditionOK || !strings.Contains(f.Why, why) {
			t.Errorf("%s: got %+v", name, f)
		}
	}
	app.Federated[0].Subject = stranger
	c.Entra.SetApp(app)
	_, found, _ = c.doctor()
	if f := found["identity: token"]; f.State != conditionFail || !strings.Contains(f.Fix, "Federated credentials > Managed identity") {
		t.Errorf("another subject: got %+v", f)
	}
}

// TestAFreshInstallation is the doctor before the first run, which is when it is needed most.
func TestAFreshInstallation(t *testing.T) {
	c := openClinic(t)
	code, found, _ := c.doctor()
	bad := map[string]string{}
	for key, f := range found {
		if f.State != conditionOK {
			bad[key] = string(f.State) + ": " + f.Why
		}
	}
	want := map[string]string{
		"detectors: audit":     "warn: nothing has run yet for this tenant",
		"detectors: directory": "warn: nothing has run yet for this tenant",
		"ledger: ledger":       "warn: not asked: it is not there yet, and the first run makes it; whether it may cannot be tried before",
		"state: runs":          "warn: nothing has run yet for this tenant; the first run begins the ledger, and looks back by sync.firstLookBack",
		"state: census":        "warn: nothing has run yet for this tenant",
	}
	if diff := cmp.Diff(want, bad); code != exitOK || diff != "" {
		t.Errorf("got exit code %d (-want +got):\n%s", code, diff)
	}
	if _, err := os.Stat(c.path("ledger.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the doctor has made the ledger: %v", err)
	}
}

// TestALedgerThatCannotBeWritten is in a storage account, to which another role is assigned.
func TestALedgerThatCannotBeWritten(t *testing.T) {
	writes := http.StatusNotFound // of an entity that is not there: it would be allowed
	var methods []string
	account := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods = append(methods, r.Method)
		status, code := http.StatusNotFound, "ResourceNotFound"
		if r.Method != http.MethodGet {
			status = writes
		}
		if status == http.StatusForbidden {
			code = "AuthorizationPermissionMismatch"
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Ms-Error-Code", code)
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"odata.error":{"code":%q,"message":{"value":"x"}}}`, code)
	}))
	defer account.Close()
	c := openClinic(t)
	delete(c.settings, "LEDGER")
	c.settings["AzureWebJobsStorage"] = "DefaultEndpointsProtocol=http;AccountName=contoso;AccountKey=czNjcjN0;TableEndpoint=" + account.URL + "/contoso"
	_, found, _ := c.doctor()
	if f := found["ledger: ledger"]; f.State != conditionOK {
		t.Errorf("a ledger that may be written: got %+v", f)
	}
	if f := found["settings: AzureWebJobsStorage"]; f.State != conditionWarn || !strings.Contains(f.Fix, "AzureWebJobsStorage__credential=managedidentity") {
		t.Errorf("a connection string: got %+v", f)
	}
	writes = http.StatusForbidden
	code, after, _ := c.doctor()
	for key, f := range after {
		if key == "ledger: ledger" {
			if code != exitFailed || f.State != conditionFail || !strings.Contains(f.Fix, "Storage Table Data Contributor") || strings.Contains(f.Why, "czNjcjN0") || strings.Contains(f.Why, account.URL) {
				t.Errorf("a ledger that may not be written: got exit code %d, %+v", code, f)
			}
		} else if f.State != found[key].State {
			t.Errorf("%s: got %+v", key, f)
		}
	}
}
