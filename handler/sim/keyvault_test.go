package sim_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"software.sslmate.com/src/go-pkcs12"

	"signup-sync/handler/sim"
)

const apiVersion = "?api-version=2026-04-01"

// withVault adds a vault to which the client has every access, and gives the client a token for it.
func withVault(t *testing.T) (*rig, *sim.KeyVault) {
	r := serve(t, calm())
	r.world.Vault = sim.NewKeyVault(sim.KeyVaultOptions{Clock: r.clock, Tenant: r.tenant.ID()})
	r.token = r.tokenFor(func(c *sim.Claims) { c.Audience, c.Subject = "https://vault.azure.net", "an-object" })
	return r, r.world.Vault
}

// inner is the code of the inner error.
func (a answer) inner() string {
	e, _ := a.body["error"].(map[string]any)
	in, _ := e["innererror"].(map[string]any)
	code, _ := in["code"].(string)
	return code
}

func TestSecrets(t *testing.T) {
	r, v := withVault(t)
	first := v.SetSecret("signup-sync", "text/plain", "one")
	r.clock.Advance(time.Hour)
	second := v.SetSecret("signup-sync", "", "two")
	for _, path := range []string{"/secrets/signup-sync/", "/secrets/signup-sync", "/secrets/SIGNUP-SYNC"} {
		if a := r.get(path + apiVersion); a.status != 200 || a.body["value"] != "two" {
			t.Errorf("%s: got %d %s", path, a.status, a.raw)
		}
	}
	a := r.get("/secrets/signup-sync/" + first + apiVersion)
	want := map[string]any{"value": "one", "id": r.server.URL + "/secrets/signup-sync/" + first, "contentType": "text/plain",
		"attributes": map[string]any{"enabled": true, "created": float64(start.Unix()), "updated": float64(start.Unix()), "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90.0}}
	if diff := cmp.Diff(a.body, want); diff != "" {
		t.Errorf("by version (-got +want):\n%s", diff)
	}
	r.want(r.get("/secrets/other/"+apiVersion), 404, "SecretNotFound")
	r.want(r.get("/secrets/signup-sync/0000"+apiVersion), 404, "SecretNotFound")
	r.want(r.get("/secrets/signup-sync"), 400, "BadParameter")
	r.want(r.get("/secrets"+apiVersion), 400, "BadParameter")
	if got := v.Counts()["GET /secrets/{name}/{version}"]; got != 2 {
		t.Errorf("counted %d", got)
	}

	v.Disable("signup-sync", second)
	for _, path := range []string{"/secrets/signup-sync/", "/secrets/signup-sync/" + second} {
		a := r.get(path + apiVersion)
		r.want(a, 403, "Forbidden")
		if a.inner() != "SecretDisabled" || a.message() != "Operation get is not allowed on a disabled secret." {
			t.Errorf("disabled: got %s", a.raw)
		}
	}
	if a := r.get("/secrets/signup-sync/" + first + apiVersion); a.body["value"] != "one" {
		t.Errorf("the older version: got %d %s", a.status, a.raw)
	}
	v.Delete("signup-sync")
	r.want(r.get("/secrets/signup-sync/"+first+apiVersion), 404, "SecretNotFound")
	if a := r.get("/secrets/signup-sync/versions" + apiVersion); a.status != 200 || len(a.rows()) != 0 {
		t.Errorf("versions of what is not there: got %d %s", a.status, a.raw)
	}
}

func TestVersionsInPages(t *testing.T) {
	r, v := withVault(t)
	want := []string{}
	for i := range 30 {
		id := v.SetSecret("many", "text/plain", "x")
		want = append(want, r.server.URL+"/secrets/many/"+id)
		if i == 20 {
			v.Disable("many", id)
		}
	}
	slices.Sort(want) // and so not by age
	for query, sizes := range map[string][]int{"": {25, 5}, "&maxresults=10": {10, 10, 10}, "&maxresults=25": {25, 5}, "&maxresults=1": slices.Repeat([]int{1}, 30)} {
		var got []string
		var pages []int
		a := r.get("/secrets/many/versions" + apiVersion + query)
		for {
			for _, row := range a.rows() {
				got = append(got, row["id"].(string))
				if _, has := row["value"]; has || row["contentType"] != "text/plain" || row["attributes"] == nil {
					t.Fatalf("got %v", row)
				}
			}
			pages = append(pages, len(a.rows()))
			next, more := a.body["nextLink"].(string)
			if !more {
				break
			}
			if len(pages) > 30 || !strings.Contains(next, "api-version=2026-04-01&$skiptoken=") {
				t.Fatalf("next link %s", next)
			}
			a = r.get(next)
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%q: ids (-got +want):\n%s", query, diff)
		}
		if diff := cmp.Diff(pages, sizes); diff != "" {
			t.Errorf("%q: pages (-got +want):\n%s", query, diff)
		}
	}
	for _, query := range []string{"&maxresults=26", "&maxresults=0", "&maxresults=x", "&$skiptoken=!"} {
		r.want(r.get("/secrets/many/versions"+apiVersion+query), 400, "BadParameter")
	}
}

func TestCertificates(t *testing.T) {
	r, v := withVault(t)
	key, cert := keyPair(t, start.Add(-time.Hour), start.Add(time.Hour))
	old := v.AddCertificate("app", sim.Certificate{Key: key, Chain: []*x509.Certificate{cert}, ContentType: "application/x-pem-file"})
	r.clock.Advance(2 * time.Hour) // both are expired, and shown all the same
	latest := v.AddCertificate("app", sim.Certificate{Key: key, Chain: []*x509.Certificate{cert}, NonExportable: true})
	v.SetSecret("plain", "", "x")

	print := sha1.Sum(cert.Raw)
	bundle := func(id string, made time.Time) map[string]any {
		return map[string]any{"id": r.server.URL + "/certificates/app/" + id, "kid": r.server.URL + "/keys/app/" + id, "sid": r.server.URL + "/secrets/app/" + id,
			"x5t": base64.RawURLEncoding.EncodeToString(print[:]), "cer": base64.StdEncoding.EncodeToString(cert.Raw),
			"attributes": map[string]any{"enabled": true, "nbf": float64(cert.NotBefore.Unix()), "exp": float64(cert.NotAfter.Unix()),
				"created": float64(made.Unix()), "updated": float64(made.Unix()), "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90.0}}
	}
	a := r.get("/certificates/app/" + apiVersion)
	props, _ := a.body["policy"].(map[string]any)["key_props"].(map[string]any)
	if diff := cmp.Diff(props, map[string]any{"exportable": false, "kty": "RSA", "key_size": 2048.0, "reuse_key": false}); diff != "" {
		t.Errorf("key_props (-got +want):\n%s", diff)
	}
	delete(a.body, "policy")
	delete(a.body, "pending")
	if diff := cmp.Diff(a.body, bundle(latest, start.Add(2*time.Hour))); diff != "" {
		t.Errorf("latest (-got +want):\n%s", diff)
	}
	a = r.get("/certificates/app/" + old + apiVersion)
	want := bundle(old, start)
	want["subject"], want["issuer"], want["sans"], want["serialnumber"] = "CN=signup-sync", "CN=signup-sync", map[string]any{}, "1"
	if diff := cmp.Diff(a.body, want); diff != "" {
		t.Errorf("by version, which has no policy (-got +want):\n%s", diff)
	}
	if rows := r.get("/certificates/app/versions" + apiVersion).rows(); len(rows) != 2 || rows[0]["x5t"] != bundle("", start)["x5t"] {
		t.Errorf("versions: got %v", rows)
	}
	s := r.get("/secrets/app/" + old + apiVersion)
	if s.body["managed"] != true || s.body["kid"] != r.server.URL+"/keys/app/"+old || s.body["attributes"].(map[string]any)["exp"] != float64(cert.NotAfter.Unix()) {
		t.Errorf("its secret: got %s", s.raw)
	}
	r.want(r.get("/certificates/plain"+apiVersion), 404, "CertificateNotFound")

	v.Disable("app", latest)
	if a := r.get("/certificates/app" + apiVersion); a.status != 200 || a.body["attributes"].(map[string]any)["enabled"] != false {
		t.Errorf("disabled: got %d %s", a.status, a.raw)
	}
	r.want(r.get("/secrets/app"+apiVersion), 403, "Forbidden")
}

func TestASecretOfACertificate(t *testing.T) {
	r, v := withVault(t)
	key, cert := keyPair(t, start, start.Add(time.Hour))
	_, above := keyPair(t, start, start.Add(time.Hour))
	chain := []*x509.Certificate{cert, above}
	read := func(c sim.Certificate) (string, string) {
		c.Key, c.Chain = key, chain
		a := r.get("/secrets/app/" + v.AddCertificate("app", c) + apiVersion)
		return a.body["contentType"].(string), a.body["value"].(string)
	}
	blocks := func(text string) (out []string) {
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			out = append(out, block.Type)
		}
		return out
	}
	kind, value := read(sim.Certificate{ContentType: "application/x-pem-file"})
	if diff := cmp.Diff(blocks(value), []string{"PRIVATE KEY", "CERTIFICATE", "CERTIFICATE"}); kind != "application/x-pem-file" || diff != "" {
		t.Errorf("%s: blocks (-got +want):\n%s", kind, diff)
	}
	if _, value = read(sim.Certificate{ContentType: "application/x-pem-file", NonExportable: true}); !slices.Equal(blocks(value), []string{"CERTIFICATE", "CERTIFICATE"}) {
		t.Errorf("non-exportable: got %v", blocks(value))
	}
	decode := func(value string) (any, *x509.Certificate, []*x509.Certificate, error) {
		der, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		return pkcs12.DecodeChain(der, "")
	}
	kind, value = read(sim.Certificate{})
	gotKey, leaf, others, err := decode(value)
	if err != nil || !key.Equal(gotKey) || !leaf.Equal(cert) || len(others) != 1 || kind != "application/x-pkcs12" {
		t.Errorf("PKCS #12: got %v, %d others, %s", err, len(others), kind)
	}
	_, value = read(sim.Certificate{NonExportable: true, Secret: "not used"})
	if _, _, _, err = decode(value); err == nil {
		t.Error("non-exportable: there is a key")
	}
	if der, _ := base64.StdEncoding.DecodeString(value); !strings.Contains(string(der), string(cert.Raw)) || !strings.Contains(string(der), string(above.Raw)) {
		t.Error("non-exportable: the certificates are missing")
	}
	if _, value = read(sim.Certificate{Secret: "as given"}); value != "as given" {
		t.Errorf("got %q", value)
	}
}

func TestKeysSign(t *testing.T) {
	r, v := withVault(t)
	key, cert := keyPair(t, start.Add(-time.Hour), start.Add(time.Hour))
	id := v.AddCertificate("app", sim.Certificate{Key: key, Chain: []*x509.Certificate{cert}, NonExportable: true})
	sum, long := sha256.Sum256([]byte("signed")), sha512.Sum384([]byte("signed"))
	body := func(alg string, digest []byte) string {
		return fmt.Sprintf(`{"alg":%q,"value":%q}`, alg, base64.RawURLEncoding.EncodeToString(digest))
	}
	for _, path := range []string{"/keys/app/" + id + "/sign", "/keys/app//sign"} {
		for _, alg := range []string{"PS256", "RS256", "PS384"} {
			digest, hash := sum[:], crypto.SHA256
			if alg == "PS384" {
				digest, hash = long[:], crypto.SHA384
			}
			a := r.send("POST", path+apiVersion, body(alg, digest))
			if a.status != 200 || a.body["kid"] != r.server.URL+"/keys/app/"+id {
				t.Fatalf("%s: got %d %s", alg, a.status, a.raw)
			}
			signature, err := base64.RawURLEncoding.DecodeString(a.body["value"].(string))
			if err != nil {
				t.Fatal(err)
			}
			err = rsa.VerifyPSS(&key.PublicKey, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
			if alg == "RS256" {
				err = rsa.VerifyPKCS1v15(&key.PublicKey, hash, digest, signature)
			}
			if err != nil {
				t.Errorf("%s: %v", alg, err)
			}
		}
	}

	disabled := v.AddCertificate("app", sim.Certificate{Key: key, Chain: []*x509.Certificate{cert}})
	v.Disable("app", disabled)
	add := func(from, to time.Duration) string {
		k, c := keyPair(t, start.Add(from), start.Add(to))
		return v.AddCertificate("app", sim.Certificate{Key: k, Chain: []*x509.Certificate{c}})
	}
	encipher := *cert
	encipher.KeyUsage = x509.KeyUsageKeyEncipherment
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.Add(time.Hour)}, cert, ec.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ecCert, err := x509.ParseCertificate(ecDER)
	if err != nil {
		t.Fatal(err)
	}
	v.SetSecret("plain", "", "x")
	for _, tt := range []struct {
		name, path, body  string
		status            int
		code, inner, text string
	}{
		{"no such key", "/keys/none//sign", body("PS256", sum[:]), 404, "KeyNotFound", "", "A key with (name/id) none was not found"},
		{"no such version", "/keys/app/00/sign", body("PS256", sum[:]), 404, "KeyNotFound", "", "A key with (name/id) app/00 was not found"},
		{"a secret is no key", "/keys/plain//sign", body("PS256", sum[:]), 404, "KeyNotFound", "", ""},
		{"disabled", "/keys/app/" + disabled + "/sign", body("PS256", sum[:]), 403, "Forbidden", "KeyDisabled", "Operation sign is not allowed on a disabled key."},
		{"expired", "/keys/app/" + add(-2*time.Hour, -time.Hour) + "/sign", body("PS256", sum[:]), 403, "Forbidden", "KeyExpired", ""},
		{"not yet valid", "/keys/app/" + add(time.Hour, 2*time.Hour) + "/sign", body("PS256", sum[:]), 403, "Forbidden", "KeyNotYetValid", ""},
		{"not for signatures", "/keys/app/" + v.AddCertificate("app", sim.Certificate{Key: key, Chain: []*x509.Certificate{&encipher}}) + "/sign", body("PS256", sum[:]),
			403, "Forbidden", "KeyOperationForbidden", "Operation sign is not permitted on this key."},
		{"an elliptic key", "/keys/app/" + v.AddCertificate("app", sim.Certificate{Key: ec, Chain: []*x509.Certificate{ecCert}}) + "/sign", body("PS256", sum[:]),
			400, "BadParameter", "", "is of type 'EC', and algorithm 'PS256' can only be used with a key of type 'RSA' or 'RSA-HSM'."},
		{"digest too long", "/keys/app/" + id + "/sign", body("PS256", long[:]), 400, "BadParameter", "", "Invalid length of 'value': 48 bytes. PS256 requires 32 bytes, encoded with base64url."},
		{"another algorithm", "/keys/app/" + id + "/sign", body("HS256", sum[:]), 400, "BadParameter", "", "Property has invalid value"},
		{"not base64url", "/keys/app/" + id + "/sign", `{"alg":"PS256","value":"a+b="}`, 400, "BadParameter", "", "Property has invalid value"},
		{"not JSON", "/keys/app/" + id + "/sign", `alg=PS256`, 400, "BadParameter", "", ""},
	} {
		a := r.send("POST", tt.path+apiVersion, tt.body)
		if a.status != tt.status || a.code() != tt.code || a.inner() != tt.inner || !strings.Contains(a.message(), tt.text) {
			t.Errorf("%s: got %d %s", tt.name, a.status, a.raw)
		}
	}
}

func TestVaultAccess(t *testing.T) {
	r, v := withVault(t)
	key, cert := keyPair(t, start, start.Add(time.Hour))
	v.AddCertificate("app", sim.Certificate{Key: key, Chain: []*x509.Certificate{cert}})
	sum := sha256.Sum256(nil)
	calls := []struct {
		action sim.DataAction
		path   string
		ask    func(path string) answer
	}{
		{sim.GetSecret, "/secrets/app/", func(p string) answer { return r.get(p + apiVersion) }},
		{sim.ListSecrets, "/secrets/app/versions", func(p string) answer { return r.get(p + apiVersion) }},
		{sim.ReadCertificate, "/certificates/app", func(p string) answer { return r.get(p + apiVersion) }},
		{sim.ReadCertificate, "/certificates/app/versions", func(p string) answer { return r.get(p + apiVersion) }},
		{sim.SignWithKey, "/keys/app//sign", func(p string) answer {
			return r.send("POST", p+apiVersion, `{"alg":"PS256","value":"`+base64.RawURLEncoding.EncodeToString(sum[:])+`"}`)
		}},
	}
	for _, granted := range calls {
		v.Grant(client, granted.action)
		for _, c := range calls {
			a := c.ask(c.path)
			if c.action == granted.action {
				if a.status != 200 {
					t.Errorf("%s with %s: got %d %s", c.path, granted.action, a.status, a.raw)
				}
				continue
			}
			r.want(a, 403, "Forbidden")
			if a.inner() != "ForbiddenByRbac" || !strings.Contains(a.message(), "\r\nAction: '"+string(c.action)+"'\r\n") ||
				!strings.HasPrefix(a.message(), "Caller is not authorized to perform action on resource.\r\n") || !strings.Contains(a.message(), "appid="+client+";oid=an-object;") {
				t.Errorf("%s: got %q", c.path, a.message())
			}
		}
	}
	r.want(r.get("/secrets/none"+apiVersion), 403, "Forbidden") // who has no access learns nothing
	v.Grant(client, sim.GetSecret)
	v.Grant("another", sim.SignWithKey)
	if a := r.get("/secrets/app" + apiVersion); a.status != 200 {
		t.Errorf("a grant to another takes this one's: %d", a.status)
	}
}

func TestVaultTokens(t *testing.T) {
	r, v := withVault(t)
	v.SetSecret("app", "", "x")
	good := r.token
	for name, tt := range map[string]struct{ token, text string }{
		"none":           {"", "AKV10000: Request is missing a Bearer or PoP token."},
		"for Graph":      {r.tokenFor(func(*sim.Claims) {}), "AKV10022: Invalid audience. Expected https://vault.azure.net, found: https://graph.microsoft.com."},
		"another tenant": {r.tokenFor(func(c *sim.Claims) { c.Audience, c.Tenant = "https://vault.azure.net", "x" }), "AKV10032: Invalid issuer."},
		"forged":         {good + "x", "[BearerReadAccessTokenFailed]"},
		"expired":        {r.tokenFor(func(c *sim.Claims) { c.Audience, c.Expires = "https://vault.azure.net", start.Unix() }), "[BearerReadAccessTokenFailed]"},
	} {
		r.token = tt.token
		a := r.get("/secrets/app/" + apiVersion)
		r.want(a, 401, "Unauthorized")
		if want := `Bearer authorization="https://login.microsoftonline.com/` + r.tenant.ID() + `", resource="https://vault.azure.net"`; a.header.Get("WWW-Authenticate") != want {
			t.Errorf("%s: challenge %q", name, a.header.Get("WWW-Authenticate"))
		}
		if !strings.HasPrefix(a.message(), tt.text) {
			t.Errorf("%s: got %q", name, a.message())
		}
	}
	r.world.Entra = sim.NewEntra(sim.EntraOptions{Clock: r.clock, Tenant: r.tenant.ID(), Apps: []sim.App{{ID: client, Secret: "s3cret"}}})
	form := secretForm()
	form.Set("scope", "https://vault.azure.net/.default")
	r.token, _ = r.ask(r.tenant.ID(), form).body["access_token"].(string)
	if a := r.get("/secrets/app" + apiVersion); a.status != 200 {
		t.Errorf("with Entra's token: got %d", a.status)
	}
}

func TestAThrottledVault(t *testing.T) {
	r, v := withVault(t)
	v.SetSecret("app", "", "x")
	v.Throttle(2, 7*time.Second)
	for _, want := range []int{429, 429, 200} {
		a := r.get("/secrets/app" + apiVersion)
		if a.status != want || want == 429 && (a.header.Get("Retry-After") != "7" || a.code() != "Throttled") {
			t.Errorf("got %d %v %s", a.status, a.header, a.raw)
		}
	}
	v.Throttle(1, 0)
	if a := r.get("/secrets/app" + apiVersion); a.status != 429 || a.header.Get("Retry-After") != "" {
		t.Errorf("got %d %v", a.status, a.header)
	}
}

// The link to the next page has the port that the address did without.
func TestANextLinkHasAPort(t *testing.T) {
	r, v := withVault(t)
	v.SetSecret("app", "", "x")
	v.SetSecret("app", "", "y")
	req := r.request("GET", "/secrets/app/versions"+apiVersion+"&maxresults=1")
	req.Host = "vault.azure.net"
	next, _ := r.do(req).body["nextLink"].(string)
	if u, err := url.Parse(next); err != nil || u.Host != "vault.azure.net:443" {
		t.Errorf("got %q", next)
	}
}
