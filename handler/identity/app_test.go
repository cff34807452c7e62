package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"software.sslmate.com/src/go-pkcs12"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	tenantID = "aaaabbbb-0000-4ccc-8111-dddd2222eeee"
	clientID = "94559aba-b733-468e-aaec-44cc4e7f0b58"
	aSecret  = "s3cr3t-value"
	scope    = "https://graph.microsoft.com/.default"
)

var graphToken = policy.TokenRequestOptions{Scopes: []string{scope}, EnableCAE: true}

// makeKey makes a certificate for an RSA key, or, with a curve, for an elliptic one.
func makeKey(t *testing.T, curve elliptic.Curve) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	var key crypto.Signer
	var err error
	if key, err = rsa.GenerateKey(rand.Reader, 2048); curve != nil {
		key, err = ecdsa.GenerateKey(curve, rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signup-sync"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func pfx(t *testing.T, enc *pkcs12.Encoder, key crypto.Signer, cert *x509.Certificate, chain ...*x509.Certificate) string {
	t.Helper()
	der, err := enc.Encode(key, cert, chain, "")
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func pemOf(t *testing.T, key crypto.Signer, cert *x509.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return b.String()
}

// own is this program's own: a token for the vault, or the assertion.
type own struct {
	err error
	mu  sync.Mutex
	got []string
}

func (i *own) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got = append(i.got, o.Scopes...)
	token := sim.Token(sim.Claims{Audience: "https://vault.azure.net", Tenant: tenantID, App: "identity", Expires: time.Now().Add(time.Hour).Unix()})
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, i.err
}

type world struct {
	*sim.Server
	entra *sim.Entra
	vault *sim.KeyVault
}

func newWorld(t *testing.T, certificates ...*x509.Certificate) world {
	t.Helper()
	w := world{
		entra: sim.NewEntra(sim.EntraOptions{Tenant: tenantID, Apps: []sim.App{{ID: clientID, Secret: aSecret, Certificates: certificates}}}),
		vault: sim.NewKeyVault(sim.KeyVaultOptions{Tenant: tenantID}),
	}
	s, err := sim.Serve(t.Context(), "127.0.0.1:0", &sim.World{Entra: w.entra, Vault: w.vault})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w.Server = s
	return w
}

// onlyLoopback refuses every dial that would leave the machine: a test must not leak an assertion.
func onlyLoopback(c *http.Client) *http.Client {
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			return nil, errors.New("dial of " + addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return c
}

func (w world) options(kind string) identity.AppOptions {
	return identity.AppOptions{
		Kind: kind, Tenant: tenantID, ClientID: clientID, Authority: w.URL, HTTP: onlyLoopback(w.Client()),
		Secret: aSecret, Vault: w.URL, Name: "signup-sync", Identity: &own{},
	}
}

func TestASecretGetsAToken(t *testing.T) {
	w := newWorld(t)
	c, err := identity.OpenApp(w.options(identity.Secret))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if token, err := c.GetToken(t.Context(), graphToken); err != nil || token.Token == "" {
			t.Fatal(err)
		}
	}
	if n := w.entra.Counts()["POST /{tenant}/oauth2/v2.0/token"]; n > 1 {
		t.Errorf("got %d token requests, want the token kept", n)
	}
}

func TestACertificateFromKeyVaultGetsAToken(t *testing.T) {
	key, cert := makeKey(t, nil)
	_, other := makeKey(t, nil)
	text := pemOf(t, key, cert)
	tests := []struct{ name, contentType, value string }{
		{"PKCS#12, AES", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, key, cert)},
		{"PKCS#12, 3DES", "application/x-pkcs12", pfx(t, pkcs12.LegacyDES, key, cert)},
		{"PKCS#12 with a chain", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, key, cert, other)},
		{"PKCS#12 without a password at all", "", pfx(t, pkcs12.Passwordless, key, cert)},
		{"PEM", "application/x-pem-file", text},
		{"PEM with a byte order mark", "application/x-pem-file", "\ufeff" + text},
		{"PEM with CRLF, content type lost", "", strings.ReplaceAll(text, "\n", "\r\n")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, cert)
			w.vault.SetSecret("signup-sync", test.contentType, test.value)
			c, err := identity.OpenApp(w.options(""))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(w.vault.Requests()) + len(w.entra.Requests()); n > 0 {
				t.Errorf("the constructor made %d requests", n)
			}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if token, err := c.GetToken(t.Context(), graphToken); err != nil || token.Token == "" {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := len(w.vault.Requests()); n != 2 { // the challenge, and the secret
				t.Errorf("got %d vault requests, want 2", n)
			}
		})
	}
}

func TestCertificatesThatCannotBeUsed(t *testing.T) {
	key, cert := makeKey(t, nil)
	ec, ecCert := makeKey(t, elliptic.P256())
	tests := []struct {
		name, secret, contentType, value string
		fault                            *sim.Fault
		class                            signup.Class
		code, text                       string
	}{
		{"none of that name", "another", "", "x", nil, signup.Systemic, "key-vault", "there is none of that name"},
		{"forbidden", "", "", "x", &sim.Fault{Path: "/secrets", Times: -1, Status: 403, Body: `{"error":{"code":"Forbidden","message":"s3cr3t-value"}}`}, signup.Systemic, "key-vault", "Key Vault Secrets User"},
		{"the vault is down", "", "", "x", &sim.Fault{Path: "/secrets", Times: -1, Status: 503}, signup.Transient, "key-vault", "answers with an error"},
		{"rubbish", "", "application/x-pkcs12", "not base64!", nil, signup.Systemic, "key-vault", "neither PEM nor PKCS#12"},
		{"base64 of rubbish", "", "application/x-pkcs12", "c3Ryb25n", nil, signup.Systemic, "key-vault", "not PKCS#12"},
		{"PEM without a key", "", "application/x-pem-file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", nil, signup.Systemic, "key-vault", "not PEM with"},
		{"an elliptic key", "", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, ec, ecCert), nil, signup.Systemic, "key-vault", "not RSA"},
		{"a certificate that the app does not know", "", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, key, cert), nil, signup.Systemic, "aadsts700027", "not registered on the app"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.secret == "" {
				test.secret = "signup-sync"
			}
			w.vault.SetSecret(test.secret, test.contentType, test.value)
			if test.fault != nil {
				w.vault.Faults.Add(*test.fault)
			}
			c, err := identity.OpenApp(w.options(identity.Certificate))
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.GetToken(t.Context(), graphToken)
			e, ok := errors.AsType[*signup.Error](err)
			if !ok || e.Class != test.class || e.Code != test.code || !strings.Contains(e.Detail, test.text) || len(e.Detail) > 200 {
				t.Fatalf("got %v, want %v %s with %q", err, test.class, test.code, test.text)
			}
			if test.code == "key-vault" && (!strings.Contains(e.Detail, w.Addr) || !strings.Contains(e.Detail, "signup-sync")) {
				t.Errorf("the error does not name vault and secret: %v", err)
			}
			if strings.Contains(err.Error(), aSecret) {
				t.Errorf("the error quotes the answer: %v", err)
			}
		})
	}
}

func TestAFederatedIdentityGivesItsTokenAsTheAssertion(t *testing.T) {
	var form string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		root := "https://" + r.Host + "/" + tenantID
		if strings.HasSuffix(r.URL.Path, "/token") {
			_ = r.ParseForm()
			form = r.PostForm.Get("client_assertion")
			answer(200, `{"token_type":"Bearer","expires_in":3599,"access_token":"t"}`)(w, r)
			return
		}
		answer(200, fmt.Sprintf(`{"token_endpoint":"%[1]s/oauth2/v2.0/token","authorization_endpoint":"%[1]s/a","issuer":"%[1]s/v2.0"}`, root))(w, r)
	}))
	defer s.Close()
	id := &own{}
	o := identity.AppOptions{Kind: identity.Federated, Tenant: tenantID, ClientID: clientID, Authority: s.URL, HTTP: s.Client(), Identity: id}
	c, err := identity.OpenApp(o)
	if err != nil {
		t.Fatal(err)
	}
	if token, err := c.GetToken(t.Context(), graphToken); err != nil || token.Token != "t" || form == "" {
		t.Errorf("got %v, %v with the assertion %q", token, err, form)
	}
	if len(id.got) != 1 || id.got[0] != "api://AzureADTokenExchange/.default" {
		t.Errorf("asked the identity for %v", id.got)
	}

	o.Identity = &own{err: errors.New("no such identity s3cr3t-value")}
	if c, err = identity.OpenApp(o); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetToken(t.Context(), graphToken)
	if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != "no-identity" || strings.Contains(err.Error(), aSecret) {
		t.Errorf("got %v, want no-identity", err)
	}
}

// What the endpoint of the identity refuses is for a person to mend, but while an identity is being changed it may say for
// minutes that there is none.
func TestTheIdentityGivesNoToken(t *testing.T) {
	answered := func(status int) error {
		return &azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: status, Body: http.NoBody}}
	}
	for name, test := range map[string]struct {
		err   error
		class signup.Class
	}{
		"not assigned":   {answered(400), signup.Systemic},
		"wrong header":   {answered(401), signup.Systemic},
		"forbidden":      {answered(403), signup.Systemic},
		"being changed":  {answered(404), signup.Transient},
		"being upgraded": {answered(410), signup.Transient},
		"throttled":      {answered(429), signup.Transient},
		"outage":         {answered(503), signup.Transient},
		"no answer":      {&azidentity.AuthenticationFailedError{}, signup.Transient},
	} {
		w := newWorld(t)
		for _, kind := range []string{identity.Federated, identity.Certificate} {
			o := w.options(kind)
			o.Identity = &own{err: test.err}
			c, err := identity.OpenApp(o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.GetToken(t.Context(), graphToken)
			if e, ok := errors.AsType[*signup.Error](err); !ok || e.Class != test.class || strings.Contains(err.Error(), aSecret) {
				t.Errorf("%s, %s: got %v, want %s", name, kind, err, test.class)
			}
		}
	}
}

func TestTokenErrors(t *testing.T) {
	refuse := func(status int, code int) *sim.Fault {
		return &sim.Fault{Path: "/token", Times: -1, Status: status, Header: http.Header{"Content-Type": {"application/json"}},
			Body: fmt.Sprintf(`{"error":"invalid_client","error_description":"AADSTS%d: text with s3cr3t-value. Trace ID: x","error_codes":[%d]}`, code, code)}
	}
	tests := []struct {
		name  string
		fault *sim.Fault
		class signup.Class
		code  string
		text  string
	}{
		{"an expired secret", refuse(401, 7000222), signup.Systemic, "aadsts7000222", "has expired"},
		{"a wrong secret", refuse(401, 7000215), signup.Systemic, "aadsts7000215", "not its id"},
		{"an unknown app", refuse(400, 700016), signup.Systemic, "aadsts700016", "not known in this tenant"},
		{"an unknown tenant", refuse(400, 90002), signup.Systemic, "aadsts90002", "no such tenant"},
		{"no consent", refuse(400, 65001), signup.Systemic, "aadsts65001", "consent"},
		{"federation mismatch", refuse(400, 700213), signup.Systemic, "aadsts700213", "does not match"},
		{"a code that nobody knows", refuse(400, 999999), signup.Systemic, "aadsts999999", "list of error codes"},
		{"unavailable", refuse(400, 90033), signup.Transient, "aadsts90033", "unavailable"},
		{"throttled", refuse(400, 90055), signup.Throttled, "aadsts90055", "throttled"},
		{"a refusal without a code", &sim.Fault{Path: "/token", Times: -1, Status: 400, Body: `{}`}, signup.Systemic, "no-token", "refuses the app"},
		{"HTML 502", &sim.Fault{Path: "/token", Times: -1, Status: 502, Body: html}, signup.Transient, "no-token", ""},
		{"no answer at all", &sim.Fault{Times: -1}, signup.Transient, "no-token", "cannot be reached"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.entra.Faults.Add(*test.fault)
			c, err := identity.OpenApp(w.options(identity.Secret))
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			_, err = c.GetToken(t.Context(), graphToken)
			e, ok := errors.AsType[*signup.Error](err)
			if !ok || e.Class != test.class || e.Code != test.code || !strings.Contains(e.Detail, test.text) {
				t.Errorf("got %v, want %v %s with %q", err, test.class, test.code, test.text)
			}
			if strings.Contains(errorText(err), aSecret) || strings.Contains(errorText(err), "127.0.0.1") {
				t.Errorf("the error says too much: %v", err)
			}
			if d := time.Since(before); d > 20*time.Second { // seconds, on a machine that has nothing else to do
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestATokenThatDoesNotComeEndsWithTheContext(t *testing.T) {
	w := newWorld(t)
	w.entra.Faults.Add(sim.Fault{Times: -1, Delay: time.Minute, Status: 200})
	c, err := identity.OpenApp(w.options(identity.Secret))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	before := time.Now()
	if _, err = c.GetToken(ctx, graphToken); signup.ClassOf(err) != signup.Transient || err == nil {
		t.Errorf("got %v, want a transient error", err)
	}
	if d := time.Since(before); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestOpenAppReportsAllErrorsAtOnce(t *testing.T) {
	tests := []struct {
		name string
		o    identity.AppOptions
		want []string
	}{
		{"nothing set", identity.AppOptions{}, []string{"ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "KEY_VAULT_URL", "ENTRA_CERTIFICATE", "Azure identity"}},
		{"a secret without one", identity.AppOptions{Kind: "secret", Tenant: tenantID, ClientID: clientID, Authority: "http://127.0.0.1"}, []string{"ENTRA_CLIENT_SECRET", "ENTRA_AUTHORITY"}},
		{"an authority with a path", identity.AppOptions{Kind: "federated", Tenant: tenantID, ClientID: clientID, Authority: "https://x.ciamlogin.com/tenant"}, []string{"ENTRA_AUTHORITY", "managed identity"}},
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

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const html = `<html><body>Service Unavailable jane@fabrikam.com</body></html>`

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
