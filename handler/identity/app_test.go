package identity_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestASecretGetsAToken(t *testing.T) {
	w := newWorld(t)
	c := w.open(identity.Secret)
	for range 2 {
		w.token(c)
	}
	if n, _ := w.asked(); n != 1 {
		t.Errorf("got %d token requests, want the token kept", n)
	}
	if all, err := c.Certificates(t.Context()); all != nil || err != nil {
		t.Errorf("got the certificates %v, %v", all, err)
	}
}

// refuse is an answer of the token endpoint.
func refuse(status, code int) sim.Fault {
	return sim.Fault{Path: "/token", Times: -1, Status: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: fmt.Sprintf(`{"error":"invalid_client","error_description":"AADSTS%d: text with s3cr3t-value. Trace ID: x","error_codes":[%d]}`, code, code)}
}

func TestTokenErrors(t *testing.T) {
	tests := []struct {
		name  string
		fault sim.Fault
		class signup.Class
		code  string
		text  string
	}{
		{"an expired secret", refuse(401, 7000222), signup.Systemic, "aadsts7000222", "has expired"},
		{"a wrong secret", refuse(401, 7000215), signup.Systemic, "aadsts7000215", "not its id"},
		{"an unknown app", refuse(400, 700016), signup.Systemic, "aadsts700016", "not known in this tenant"},
		{"an unknown tenant", refuse(400, 90002), signup.Systemic, "aadsts90002", "no such tenant"},
		{"no consent", refuse(400, 65001), signup.Systemic, "aadsts65001", "grant it under API permissions"},
		{"the federated credential's issuer", refuse(400, 700211), signup.Systemic, "aadsts700211", "issuer"},
		{"the federated credential's audience", refuse(400, 700212), signup.Systemic, "aadsts700212", "api://AzureADTokenExchange"},
		{"the federated credential's subject", refuse(400, 700213), signup.Systemic, "aadsts700213", "object id"},
		{"an app of the external tenant", refuse(400, 700236), signup.Systemic, "aadsts700236", "use a certificate"},
		{"a code that nobody knows", refuse(400, 999999), signup.Systemic, "aadsts999999", "error?code=999999"},
		{"an outage with a code that nobody knows", refuse(503, 999999), signup.Transient, "aadsts999999", "error?code=999999"},
		{"unavailable", refuse(400, 90033), signup.Transient, "aadsts90033", "unavailable"},
		{"throttled", refuse(400, 90055), signup.Throttled, "aadsts90055", "throttled"},
		{"a code in the text alone", sim.Fault{Path: "/token", Times: -1, Status: 400, Body: `{"error_description":"AADSTS700016: x"}`}, signup.Systemic, "aadsts700016", "not known"},
		{"a refusal without a code", sim.Fault{Path: "/token", Times: -1, Status: 400, Body: `{}`}, signup.Systemic, "no-token", "refuses the app"},
		{"HTML 502", sim.Fault{Path: "/token", Times: -1, Status: 502, Body: html}, signup.Transient, "no-token", "answers with an error"},
		{"HTML 200", sim.Fault{Path: "/token", Times: -1, Status: 200, Body: html}, signup.Transient, "no-token", ""},
		{"no answer at all", sim.Fault{Times: -1}, signup.Transient, "no-token", "cannot be reached"},
		{"it hangs", sim.Fault{Times: -1, Delay: time.Hour}, signup.Transient, "no-token", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				w.entra.Faults.Add(test.fault)
				before := time.Now()
				e := failure(t, w.open(identity.Secret))
				if e.Class != test.class || e.Code != test.code || !strings.Contains(e.Detail, test.text) || len(e.Detail) > 200 {
					t.Errorf("got %v, want %v %s with %q", e, test.class, test.code, test.text)
				}
				if strings.Contains(e.Error(), "127.0.0.1") || strings.Contains(e.Error(), clientID) {
					t.Errorf("the error says too much: %v", e)
				}
				if d := time.Since(before); d > 20*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// Of the codes in the notes on the token endpoint each has advice of its own, and all of it fits an error's detail.
func TestEveryKnownCodeHasAdvice(t *testing.T) {
	codes := []int{700016, 70001, 700011, 90002, 900023, 7000215, 7000222, 700027, 7000214, 700030, 700024, 500133, 50012, 50013, 50194, 500011, 500014, 7000112,
		65001, 650056, 650057, 90094, 53003, 530035, 700211, 700212, 700213, 700236, 70011, 1002012, 90033, 90090, 90024, 90006, 50196, 90055, 90038, 900382, 900432,
		700021, 700023, 5002723, 5002738, 70025, 7002138, 7000229, 50027}
	inBubble(t, func(t *testing.T, w world) {
		for _, code := range codes {
			w.entra.Faults.Clear()
			w.entra.Faults.Add(refuse(400, code))
			if e := failure(t, w.open(identity.Secret)); e.Code != fmt.Sprintf("aadsts%d", code) || strings.Contains(e.Detail, "error?code=") || len(e.Detail) > 200 {
				t.Errorf("%d: got %v", code, e)
			}
		}
	})
}

func TestConsentIsWithdrawnWhileATokenIsGood(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		c := w.open(identity.Secret)
		first := w.token(c)
		w.entra.Faults.Add(refuse(400, 65001))
		time.Sleep(56 * time.Minute)
		if again := w.token(c); again.Token != first.Token {
			t.Error("got another token")
		}
		time.Sleep(4 * time.Minute)
		if e := failure(t, c); e.Code != "aadsts65001" {
			t.Errorf("got %v", e)
		}
		w.entra.Faults.Clear()
		time.Sleep(time.Minute)
		w.token(c)
	})
}

func TestAFederatedIdentityGivesItsTokenAsTheAssertion(t *testing.T) {
	for host, want := range map[string]string{
		authority:                                  "api://AzureADTokenExchange/.default",
		"https://login.microsoftonline.us":         "api://AzureADTokenExchangeUSGov/.default",
		"https://login.chinacloudapi.cn":           "api://AzureADTokenExchangeChina/.default",
		"https://login.partner.microsoftonline.cn": "api://AzureADTokenExchangeChina/.default",
	} {
		inBubble(t, func(t *testing.T, w world) {
			id := &own{}
			o := w.options(identity.Federated)
			o.Identity, o.Authority = id, host
			w.route(host)
			_, err := open(t, o).GetToken(t.Context(), graphToken)
			// Whether the assertion is accepted is Entra's; here it is that it comes there.
			if len(id.got) != 1 || id.got[0] != want {
				t.Errorf("%s: asked the identity for %v: %v", host, id.got, err)
			}
			if n, _ := w.asked(); n != 1 {
				t.Errorf("%s: got %d token requests: %v", host, n, err)
			}
		})
	}
}

// The simulated Entra compares the identity's token with the app's federated credentials.
func TestAFederatedIdentityAtTheTokenEndpoint(t *testing.T) {
	const object, home = "0b1ec7ed-5eed-4000-8000-000000000001", "40ffe000-5eed-4000-8000-000000000002"
	right := sim.FederatedCredential{Issuer: "https://login.microsoftonline.com/" + home + "/v2.0", Subject: object}
	wrong := func(change func(*sim.FederatedCredential)) []sim.FederatedCredential {
		c := right
		change(&c)
		return []sim.FederatedCredential{c}
	}
	tests := []struct {
		name       string
		registered string // the tenant where the app is registered
		federated  []sim.FederatedCredential
		code, text string
	}{
		{"right", home, []sim.FederatedCredential{right}, "", ""},
		{"none", home, nil, "aadsts70025", "add one"},
		{"another issuer", home, wrong(func(c *sim.FederatedCredential) { c.Issuer += "/" }), "aadsts700211", "set it to https://login.microsoftonline.com/TENANT/v2.0"},
		{"another audience", home, wrong(func(c *sim.FederatedCredential) { c.Audience = "api://AzureADTokenExchangeChina" }), "aadsts700212", "api://AzureADTokenExchange"},
		{"another subject", home, wrong(func(c *sim.FederatedCredential) { c.Subject = clientID }), "aadsts700213", "object id"},
		{"another letter case", home, wrong(func(c *sim.FederatedCredential) { c.Subject = strings.ToUpper(object) }), "aadsts7002138", "letter for letter"},
		{"an app of the external tenant", "", []sim.FederatedCredential{right}, "aadsts700236", "or use a certificate"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				w.entra.SetApp(sim.App{ID: clientID, Home: test.registered, Federated: test.federated})
				client := someClient()
				o := w.options(identity.Federated)
				o.Identity = w.managed(sim.NewIdentity(sim.IdentityOptions{Tenant: home, Header: header, ClientID: client, ObjectID: object}), client)
				c := open(t, o)
				if test.code == "" {
					together(64, func() { w.token(c) })
					return
				}
				if e := failure(t, c); e.Class != signup.Systemic || e.Code != test.code || !strings.Contains(e.Detail, test.text) {
					t.Errorf("got %v, want %s with %q", e, test.code, test.text)
				}
			})
		})
	}
}

func TestTheIdentityBehindAFederatedCredentialGivesNoToken(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		for _, kind := range []string{identity.Federated, identity.Certificate} {
			o := w.options(kind)
			o.Identity = &own{err: errors.New("no such identity s3cr3t-value")}
			if e := failure(t, open(t, o)); e.Class != signup.Transient || kind == identity.Federated && e.Code != "no-identity" {
				t.Errorf("%s: got %v", kind, e)
			}
			refused := &signup.Error{Class: signup.Systemic, Code: "no-identity", Status: 403, Detail: "the managed identity is refused"}
			o.Identity = &own{err: refused}
			if e := failure(t, open(t, o)); e.Class != signup.Systemic || !strings.Contains(e.Detail, refused.Detail) {
				t.Errorf("%s: got %v", kind, e)
			}
		}
	})
}

func TestOpenAppReportsAllErrorsAtOnce(t *testing.T) {
	tests := []struct {
		name string
		o    identity.AppOptions
		want []string
	}{
		{"nothing set", identity.AppOptions{}, []string{"ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "KEY_VAULT_URL", "ENTRA_CERTIFICATE", "Azure identity", "logger"}},
		{"a secret without one", identity.AppOptions{Kind: "secret", Tenant: tenantID, ClientID: clientID, Authority: "http://127.0.0.1"}, []string{"ENTRA_CLIENT_SECRET", "ENTRA_AUTHORITY"}},
		{"an authority with a path", identity.AppOptions{Kind: "federated", Tenant: tenantID, ClientID: clientID, Authority: "https://x.ciamlogin.com/tenant"}, []string{"ENTRA_AUTHORITY", "managed identity"}},
		{"the identifier of a certificate", identity.AppOptions{Tenant: tenantID, ClientID: clientID, Vault: vaultURL + "/certificates", Name: vaultURL + "/certificates/signup-sync"},
			[]string{"KEY_VAULT_URL", "ENTRA_CERTIFICATE"}},
		{"another kind", identity.AppOptions{Kind: "password", Tenant: tenantID, ClientID: clientID}, []string{`"password", want certificate, federated or secret`}},
	}
	for _, test := range tests {
		_, err := identity.OpenApp(test.o)
		for _, want := range test.want {
			if !strings.Contains(errorText(err), want) {
				t.Errorf("%s: %q is not in %v", test.name, want, err)
			}
		}
	}
}

const html = `<html><body>Service Unavailable jane@fabrikam.com</body></html>`
