package sim_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

// withEntra adds a token endpoint, where the client has a secret.
func withEntra(t *testing.T) *rig {
	r := serve(t, calm())
	r.token = ""
	r.world.Entra = sim.NewEntra(sim.EntraOptions{Clock: r.clock, Assertion: r.clock, Tenant: r.tenant.ID(), Domain: r.tenant.Domain(),
		Apps: []sim.App{{ID: client, Secret: "s3cret", Roles: []string{"User.Read.All"}}}})
	return r
}

func (r *rig) ask(tenant string, form url.Values) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "POST", r.server.URL+"/"+tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.do(req)
}

func secretForm() url.Values {
	return url.Values{"client_id": {client}, "client_secret": {"s3cret"}, "grant_type": {"client_credentials"},
		"scope": {"https://graph.microsoft.com/.default openid offline_access profile"}}
}

func TestTokenBySecret(t *testing.T) {
	r := withEntra(t)
	a := r.ask(r.tenant.ID(), secretForm())
	if a.status != 200 || a.body["expires_in"] != 3599.0 || a.body["token_type"] != "Bearer" {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	token := a.body["access_token"].(string)
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims sim.Claims
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	want := sim.Claims{Audience: "https://graph.microsoft.com", Issuer: "https://sts.windows.net/" + r.tenant.ID() + "/", Tenant: r.tenant.ID(),
		App: client, Subject: client, Roles: []string{"User.Read.All"}, IssuedAt: start.Unix(), Expires: start.Unix() + 3599}
	if diff := cmp.Diff(claims, want); diff != "" {
		t.Errorf("claims (-got +want):\n%s", diff)
	}
	r.token = token
	if a := r.get(users); a.status != 200 {
		t.Errorf("Graph answers %d", a.status)
	}
	r.want(r.get(audits), 403, "Authorization_RequestDenied") // the token was had, the permission is missing
	r.clock.Advance(3599 * time.Second)
	r.want(r.get(users), 401, "InvalidAuthenticationToken")
}

func TestTokenRefusals(t *testing.T) {
	r := withEntra(t)
	r.world.Entra.SetApp(sim.App{ID: "old", Secret: "s3cret", SecretExpires: start})
	tests := []struct {
		name, tenant, field, value string
		status                     int
		kind                       string
		code                       float64
	}{
		{"wrong tenant", "another", "", "", 400, "invalid_request", 90002},
		{"tenant by its domain", r.tenant.Domain(), "", "", 200, "", 0},
		{"unknown app", r.tenant.ID(), "client_id", "x", 400, "unauthorized_client", 700016},
		{"wrong secret", r.tenant.ID(), "client_secret", "x", 401, "invalid_client", 7000215},
		{"expired secret", r.tenant.ID(), "client_id", "old", 401, "invalid_client", 7000222},
		{"no secret", r.tenant.ID(), "client_secret", "", 401, "invalid_client", 7000216},
		{"another grant", r.tenant.ID(), "grant_type", "password", 400, "unsupported_grant_type", 70003},
		{"scope without .default", r.tenant.ID(), "scope", "https://graph.microsoft.com/User.Read.All", 400, "invalid_scope", 1002012},
		{"two resources", r.tenant.ID(), "scope", "https://graph.microsoft.com/.default https://vault.azure.net/.default", 400, "invalid_scope", 1002012},
		{"unknown resource", r.tenant.ID(), "scope", "https://127.0.0.1/.default", 400, "invalid_resource", 500011},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			form := secretForm()
			if tt.field != "" {
				form.Set(tt.field, tt.value)
			}
			a := r.ask(tt.tenant, form)
			if a.status != tt.status {
				t.Fatalf("got %d %s", a.status, a.raw)
			}
			if tt.status == 200 {
				return
			}
			var want map[string]any
			if err := json.Unmarshal(sample(t, "error-token.json"), &want); err != nil {
				t.Fatal(err)
			}
			sameKeys(t, "error", a.body, want)
			codes, _ := a.body["error_codes"].([]any)
			text, _ := a.body["error_description"].(string)
			if a.body["error"] != tt.kind || len(codes) != 1 || codes[0] != tt.code || !strings.HasPrefix(text, fmt.Sprintf("AADSTS%.0f: ", tt.code)) {
				t.Errorf("got %s", a.raw)
			}
		})
	}
}

// aadsts is the code of the token endpoint's error; 0 = none.
func (a answer) aadsts() float64 {
	codes, _ := a.body["error_codes"].([]any)
	if len(codes) != 1 {
		return 0
	}
	code, _ := codes[0].(float64)
	return code
}

func TestChangesOfARegistration(t *testing.T) {
	r := withEntra(t)
	ask := func() answer { return r.ask(r.tenant.ID(), secretForm()) }
	app := sim.App{ID: client, Secret: "s3cret"}
	r.world.Entra.SetApp(app)
	a := ask()
	r.token, _ = a.body["access_token"].(string)
	if a.status != 200 {
		t.Fatalf("consent withdrawn: got %d %s", a.status, a.raw)
	}
	r.want(r.get(users), 403, "Authorization_RequestDenied")
	app.Disabled = true
	r.world.Entra.SetApp(app)
	if a := ask(); a.status != 400 || a.aadsts() != 7000112 || a.body["error"] != "unauthorized_client" {
		t.Errorf("disabled: got %d %s", a.status, a.raw)
	}
	r.world.Entra.RemoveApp(client)
	if a := ask(); a.status != 400 || a.aadsts() != 700016 {
		t.Errorf("removed: got %d %s", a.status, a.raw)
	}
}

func TestAThrottledTokenEndpoint(t *testing.T) {
	r := withEntra(t)
	r.world.Entra.Throttle(1, 9*time.Second)
	if a := r.get("/" + r.tenant.ID() + "/v2.0/.well-known/openid-configuration"); a.status != 200 {
		t.Errorf("the configuration is throttled too: %d", a.status)
	}
	a := r.ask(r.tenant.ID(), secretForm())
	var want map[string]any
	if err := json.Unmarshal(sample(t, "error-token.json"), &want); err != nil {
		t.Fatal(err)
	}
	sameKeys(t, "error", a.body, want)
	if a.status != 429 || a.header.Get("Retry-After") != "9" || a.aadsts() != 90055 || a.body["error"] != "temporarily_unavailable" {
		t.Errorf("got %d %v %s", a.status, a.header, a.raw)
	}
	if a := r.ask(r.tenant.ID(), secretForm()); a.status != 200 {
		t.Errorf("afterwards: got %d", a.status)
	}
}

func TestOpenIDConfiguration(t *testing.T) {
	r := withEntra(t)
	a := r.get("/" + r.tenant.ID() + "/v2.0/.well-known/openid-configuration")
	if got := a.body["token_endpoint"]; got != r.server.URL+"/"+r.tenant.ID()+"/oauth2/v2.0/token" {
		t.Errorf("got %v", got)
	}
	if a := r.get("/another/v2.0/.well-known/openid-configuration"); a.status != 400 {
		t.Errorf("unknown tenant: got %d", a.status)
	}
	if got := r.world.Entra.Counts()["GET /{tenant}/v2.0/.well-known/openid-configuration"]; got != 2 {
		t.Errorf("counted %d", got)
	}
}

// keyPair is an RSA certificate.
func keyPair(t *testing.T, from, to time.Time) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signup-sync"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func assertion(t *testing.T, key *rsa.PrivateKey, head, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(head) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	if head["alg"] == "RS256" {
		sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	} else {
		sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestTokenByCertificate(t *testing.T) {
	key, cert := keyPair(t, start.Add(-time.Hour), start.Add(24*time.Hour))
	otherKey, otherCert := keyPair(t, start.Add(-time.Hour), start.Add(24*time.Hour))
	oldKey, oldCert := keyPair(t, start.Add(-48*time.Hour), start.Add(-time.Hour))
	revokedKey, revoked := keyPair(t, start.Add(-time.Hour), start.Add(24*time.Hour))
	r := withEntra(t)
	r.world.Entra.SetApp(sim.App{ID: client, Certificates: []*x509.Certificate{oldCert, cert, revoked}, Revoked: []*x509.Certificate{revoked}})
	print := func(c *x509.Certificate) []byte { s := sha256.Sum256(c.Raw); return s[:] }
	aud := r.server.URL + "/" + r.tenant.ID() + "/oauth2/v2.0/token"
	type m = map[string]any
	head := m{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.StdEncoding.EncodeToString(print(cert))}
	claims := m{"aud": aud, "iss": client, "sub": client, "exp": start.Unix() + 600, "nbf": start.Unix()}
	with := func(a m, k string, v any) m {
		b := m{}
		for x, y := range a {
			b[x] = y
		}
		b[k] = v
		return b
	}
	tests := []struct {
		name      string
		assertion string
		code      float64
	}{
		{"PS256, thumbprint in the standard alphabet", assertion(t, key, head, claims), 0},
		{"RS256", assertion(t, key, with(head, "alg", "RS256"), claims), 0},
		{"thumbprint for URLs", assertion(t, key, with(head, "x5t#S256", base64.RawURLEncoding.EncodeToString(print(cert))), claims), 0},
		{"certificate not registered", assertion(t, otherKey, with(head, "x5t#S256", base64.StdEncoding.EncodeToString(print(otherCert))), claims), 700027},
		{"certificate expired", assertion(t, oldKey, with(head, "x5t#S256", base64.StdEncoding.EncodeToString(print(oldCert))), claims), 700027},
		{"signed by another key", assertion(t, otherKey, head, claims), 700027},
		{"no algorithm", assertion(t, key, with(head, "alg", "none"), claims), 5002738},
		{"no thumbprint", assertion(t, key, with(head, "x5t#S256", ""), claims), 5002723},
		{"expired", assertion(t, key, head, with(claims, "exp", start.Unix()-301)), 700024},
		{"from the future", assertion(t, key, head, with(claims, "nbf", start.Unix()+301)), 700024},
		{"without an end", assertion(t, key, head, with(claims, "exp", 0)), 700024},
		{"another issuer", assertion(t, key, head, with(claims, "iss", "x")), 700021},
		{"another subject", assertion(t, key, head, with(claims, "sub", "x")), 700021},
		{"of another app", assertion(t, key, head, with(with(claims, "iss", "x"), "sub", "x")), 700021},
		{"another endpoint", assertion(t, key, head, with(claims, "aud", "https://login.microsoftonline.com/x/oauth2/v2.0/token")), 700023},
		{"for the tenant's issuer", assertion(t, key, head, with(claims, "aud", r.server.URL+"/"+r.tenant.ID()+"/v2.0")), 0},
		{"for years", assertion(t, key, head, with(claims, "exp", start.Unix()+1e8)), 0},
		{"revoked", assertion(t, revokedKey, with(head, "x5t#S256", base64.StdEncoding.EncodeToString(print(revoked))), claims), 7000214},
		{"without a type", assertion(t, key, with(head, "typ", ""), claims), 50027},
		{"of another type", assertion(t, key, with(head, "typ", "at+jwt"), claims), 50027},
		{"not a token", "abc", 50027},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := r.ask(r.tenant.ID(), url.Values{"client_id": {client}, "grant_type": {"client_credentials"}, "client_assertion": {tt.assertion},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "scope": {"https://graph.microsoft.com/.default"}})
			if tt.code == 0 {
				if a.status != 200 {
					t.Errorf("got %d %s", a.status, a.raw)
				}
				return
			}
			if a.status != 401 || a.aadsts() != tt.code {
				t.Errorf("got %d %s", a.status, a.raw)
			}
		})
	}
	r.world.Entra.SetApp(sim.App{ID: client}) // the certificate is withdrawn
	a := r.ask(r.tenant.ID(), url.Values{"client_id": {client}, "grant_type": {"client_credentials"}, "client_assertion": {assertion(t, key, head, claims)},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "scope": {"https://graph.microsoft.com/.default"}})
	if a.status != 401 {
		t.Errorf("after the rotation: got %d", a.status)
	}
}
