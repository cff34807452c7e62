package sim_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

const (
	homeTenant = "0a0a0a0a-0000-4000-8000-0000000a0a0a" // of the subscription
	principal  = "0b0b0b0b-0000-4000-8000-0000000b0b0b" // the managed identity's object id
	identityID = "0c0c0c0c-0000-4000-8000-0000000c0c0c" // its client id
	header     = "the identity header"
	exchange   = "api://AzureADTokenExchange"
)

// withIdentity adds a managed identity in another tenant, as that of a Function App is.
func withIdentity(t *testing.T) *rig {
	r := withEntra(t)
	r.world.Identity = sim.NewIdentity(sim.IdentityOptions{Clock: r.clock, Tenant: homeTenant, Header: header, ClientID: identityID, ObjectID: principal})
	return r
}

func (r *rig) identity(query string) answer {
	r.Helper()
	req := r.request("GET", "/msi/token?api-version=2019-08-01&"+query)
	req.Header.Set("X-IDENTITY-HEADER", header)
	return r.do(req)
}

func (r *rig) exchange(assertion string) answer {
	r.Helper()
	return r.ask(r.tenant.ID(), url.Values{"client_id": {client}, "grant_type": {"client_credentials"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "scope": {"https://graph.microsoft.com/.default"}})
}

func TestAnIdentityAsAFederatedCredential(t *testing.T) {
	r := withIdentity(t)
	given := r.identity("resource=" + url.QueryEscape(exchange) + "&client_id=" + identityID)
	if given.status != 200 || given.body["resource"] != exchange {
		t.Fatalf("got %d %s", given.status, given.raw)
	}
	token := given.body["access_token"].(string)
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims sim.Claims
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	want := sim.Claims{Audience: "fb60f99c-7a34-4190-8149-302f77469936", Issuer: "https://login.microsoftonline.com/" + homeTenant + "/v2.0", Tenant: homeTenant,
		App: identityID, Subject: principal, Object: principal, IssuedAt: start.Unix(), Expires: start.Add(24 * time.Hour).Unix()}
	if diff := cmp.Diff(claims, want); diff != "" {
		t.Errorf("claims (-got +want):\n%s", diff)
	}

	good := sim.FederatedCredential{Issuer: want.Issuer, Subject: principal}
	change := func(f func(*sim.FederatedCredential)) []sim.FederatedCredential {
		c := good
		f(&c)
		return []sim.FederatedCredential{{Issuer: "https://token.actions.githubusercontent.com", Subject: "x"}, c}
	}
	for name, tt := range map[string]struct {
		federated []sim.FederatedCredential
		home      string
		token     string
		code      float64
	}{
		"ours":                                 {[]sim.FederatedCredential{good}, homeTenant, token, 0},
		"one of two, audience written out":     {change(func(c *sim.FederatedCredential) { c.Audience = exchange }), homeTenant, token, 0},
		"none":                                 {nil, homeTenant, token, 70025},
		"another issuer":                       {change(func(c *sim.FederatedCredential) { c.Issuer += "/" }), homeTenant, token, 700211},
		"another audience":                     {change(func(c *sim.FederatedCredential) { c.Audience = "api://AzureADTokenExchangeUSGov" }), homeTenant, token, 700212},
		"the client id in place of the object": {change(func(c *sim.FederatedCredential) { c.Subject = identityID }), homeTenant, token, 700213},
		"subject in capitals":                  {change(func(c *sim.FederatedCredential) { c.Subject = strings.ToUpper(principal) }), homeTenant, token, 7002138},
		"app registered in this tenant":        {[]sim.FederatedCredential{good}, "", token, 700236},
		"forged":                               {[]sim.FederatedCredential{good}, homeTenant, token + "x", 50013},
	} {
		r.world.Entra.SetApp(sim.App{ID: client, Home: tt.home, Federated: tt.federated, Roles: []string{"User.Read.All"}})
		a := r.exchange(tt.token)
		if tt.code == 0 && a.status != 200 || tt.code != 0 && (a.status != 401 || a.aadsts() != tt.code || a.body["error"] != "invalid_client") {
			t.Errorf("%s: got %d %s, want %.0f", name, a.status, a.raw, tt.code)
		}
	}
	r.world.Entra.SetApp(sim.App{ID: client, Home: homeTenant, Federated: []sim.FederatedCredential{good}, Roles: []string{"User.Read.All"}})
	r.token, _ = r.exchange(token).body["access_token"].(string)
	if a := r.get(users); a.status != 200 {
		t.Errorf("Graph answers %d", a.status)
	}
	r.token = ""
	r.clock.Advance(25 * time.Hour)
	if a := r.exchange(token); a.aadsts() != 700024 {
		t.Errorf("expired: got %d %s", a.status, a.raw)
	}
	other := r.identity("resource=https://vault.azure.net&client_id=" + identityID).body["access_token"].(string)
	if a := r.exchange(other); a.status == 200 {
		t.Error("a token for the vault is an assertion")
	}
}

func TestTheIdentityEndpoint(t *testing.T) {
	r := withIdentity(t)
	good := "resource=https://vault.azure.net&client_id=" + identityID
	a := r.identity(good)
	if a.status != 200 || a.body["client_id"] != identityID || a.body["token_type"] != "Bearer" {
		t.Errorf("got %d %s", a.status, a.raw)
	}
	if _, isText := a.body["expires_on"].(string); !isText {
		t.Errorf("expires_on is %T", a.body["expires_on"])
	}
	for name, query := range map[string]string{
		"another client id":    "resource=https://vault.azure.net&client_id=x",
		"no client id":         "resource=https://vault.azure.net",
		"by its object":        "resource=https://vault.azure.net&principal_id=" + principal,
		"an unknown resource":  "resource=https://example.com&client_id=" + identityID,
		"a scope":              "resource=https://vault.azure.net/.default&client_id=" + identityID,
		"a secondary resource": "resource=api://another&client_id=" + identityID,
	} {
		if a := r.identity(query); a.status != 400 || a.body["statusCode"] != 400.0 || a.body["message"] == "" {
			t.Errorf("%s: got %d %s", name, a.status, a.raw)
		}
	}
	if a := r.get("/msi/token?api-version=2019-08-01&" + good); a.status != 401 {
		t.Errorf("without the header: got %d", a.status)
	}
	for _, status := range []int{404, 410, 429, 500} {
		r.world.Identity.Fail(status, 2, 3*time.Second)
		for _, want := range []int{status, status, 200} {
			a := r.identity(good)
			if a.status != want || want != 200 && (a.body["statusCode"] != float64(status) || (a.header.Get("Retry-After") == "3") != (status == 429)) {
				t.Errorf("got %d %v %s, want %d", a.status, a.header, a.raw, want)
			}
		}
	}
}
