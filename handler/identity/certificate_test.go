package identity_test

import (
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const day = 24 * time.Hour

func TestACertificateFromKeyVaultGetsAToken(t *testing.T) {
	key := rsaKey(t, 0)
	cert, other := certify(t, key, day), certify(t, rsaKey(t, 1), day)
	text := pemOf(t, key, cert)
	tests := []struct{ name, contentType, value string }{
		{"PKCS#12, AES", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, key, cert)},
		{"PKCS#12, AES with PBMAC1", "application/x-pkcs12", pfx(t, pkcs12.Modern2026, key, cert)},
		{"PKCS#12, 3DES", "application/x-pkcs12", pfx(t, pkcs12.LegacyDES, key, cert)},
		{"PKCS#12, RC2", "application/x-pkcs12", pfx(t, pkcs12.LegacyRC2, key, cert)},
		{"PKCS#12 with a chain", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, key, cert, other)},
		{"PKCS#12 with the chain in front", "application/x-pkcs12", pfx(t, pkcs12.Modern2023, key, other, cert)},
		{"PKCS#12 without a password at all", "", pfx(t, pkcs12.Passwordless, key, cert)},
		{"PEM", "application/x-pem-file", text},
		{"PEM with the chain in front", "application/x-pem-file", pemOf(t, key, other, cert)},
		{"PEM with a byte order mark", "application/x-pem-file", "\ufeff" + text},
		{"PEM with CRLF, content type lost", "", strings.ReplaceAll(text, "\n", "\r\n")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, cert) // over the network, for once
			w.vault.SetSecret(name, test.contentType, test.value)
			c := w.open("")
			if entra, vault := w.asked(); entra+vault > 0 {
				t.Errorf("the constructor made %d requests", entra+vault)
			}
			if from, until := c.InUse(); !from.IsZero() || !until.IsZero() {
				t.Errorf("before the first token one is in use from %v to %v", from, until)
			}
			together(64, func() { w.token(c) })
			if entra, vault := w.asked(); entra != 1 || vault != 3 { // the challenge, the versions, the secret
				t.Errorf("got %d token requests and %d of the vault, want 1 and 3", entra, vault)
			}
			if from, until := c.InUse(); !from.Equal(cert.NotBefore) || !until.Equal(cert.NotAfter) {
				t.Errorf("in use from %v to %v, want %v to %v", from, until, cert.NotBefore, cert.NotAfter)
			}
			print := sha1.Sum(cert.Raw)
			if all, err := c.Certificates(t.Context()); err != nil || all[0].Thumbprint != fmt.Sprintf("%X", print) || !all[0].NotAfter.Equal(cert.NotAfter) {
				t.Errorf("got %+v, %v, want the thumbprint %X", all, err, print)
			}
		})
	}
}

// The simulated Entra checks the signature, the thumbprint, the audience and the times.
func TestAKeyThatCannotBeExportedSignsInTheVault(t *testing.T) {
	both := []sim.DataAction{sim.GetSecret, sim.ListSecrets, sim.ReadCertificate, sim.SignWithKey}
	tests := []struct {
		name, contentType string
		grants            []sim.DataAction
	}{
		{"PKCS#12", "application/x-pkcs12", both},
		{"PEM", "application/x-pem-file", both},
		{"secrets may be listed and not read", "", []sim.DataAction{sim.ListSecrets, sim.ReadCertificate, sim.SignWithKey}},
		{"secrets may not even be listed", "", []sim.DataAction{sim.ReadCertificate, sim.SignWithKey}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				cert := certify(t, rsaKey(t, 0), 60*day)
				w.register(cert)
				w.vault.Grant(identityID, test.grants...)
				id := w.vault.AddCertificate(name, sim.Certificate{Key: rsaKey(t, 0), Chain: []*x509.Certificate{cert}, ContentType: test.contentType, NonExportable: true})
				c := w.open("")
				first := w.token(c)
				time.Sleep(58 * time.Minute)
				w.token(c)
				time.Sleep(time.Minute)
				if w.token(c).Token == first.Token {
					t.Error("the token was not renewed")
				}
				if n := w.vault.Counts()["POST /keys/{name}/{version}/sign"]; n != 3 { // one is the challenge
					t.Errorf("got %d signatures, want one a token", n)
				}
				all, err := c.Certificates(t.Context())
				if len(all) != 1 || all[0].Version != id || !all[0].InVault || !all[0].InUse || len(all[0].Thumbprint) != 40 {
					t.Errorf("got %+v, %v", all, err)
				}
				seen := map[string]bool{}
				for _, r := range w.entra.Requests() {
					form, _ := url.ParseQuery(string(r.Body))
					parts := strings.Split(form.Get("client_assertion"), ".")
					if len(parts) != 3 {
						continue
					}
					var claims struct {
						ID      string `json:"jti"`
						Expires int64  `json:"exp"`
						Begins  int64  `json:"nbf"`
					}
					head, _ := base64.RawURLEncoding.DecodeString(parts[0])
					body, _ := base64.RawURLEncoding.DecodeString(parts[1])
					if err := json.Unmarshal(body, &claims); err != nil || claims.Expires-claims.Begins > 600 || claims.ID == "" || seen[claims.ID] || strings.Contains(string(head), "x5c") {
						t.Errorf("got the assertion %s %s", head, body)
					}
					seen[claims.ID] = true
				}
				if len(seen) != 2 {
					t.Errorf("got %d assertions, want 2", len(seen))
				}
			})
		})
	}
}

func TestAKeyThatCanBeExportedSignsHere(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		cert := certify(t, rsaKey(t, 0), 60*day)
		w.register(cert)
		w.vault.Grant(identityID, sim.GetSecret, sim.ListSecrets) // Key Vault Secrets User is enough
		w.vault.AddCertificate(name, sim.Certificate{Key: rsaKey(t, 0), Chain: []*x509.Certificate{cert, certify(t, rsaKey(t, 1), day)}})
		c := w.open("")
		w.token(c)
		if all, err := c.Certificates(t.Context()); err != nil || len(all) != 1 || all[0].InVault || !all[0].InUse {
			t.Errorf("got %+v, %v", all, err)
		}
	})
}

func TestCertificatesThatCannotBeUsed(t *testing.T) {
	key := rsaKey(t, 0)
	ec := elliptical(t)
	forbid := &sim.Fault{Path: "/secrets", Times: -1, Status: 403, Body: `{"error":{"code":"Forbidden","message":"s3cr3t-value","innererror":{"code":"ForbiddenByFirewall"}}}`}
	tests := []struct {
		name, secret, value string
		inVault             crypto.Signer // the key of a certificate that cannot be exported, where there is no value
		grants              []sim.DataAction
		fault               *sim.Fault
		class               signup.Class
		code, text          string
	}{
		{name: "none of that name", secret: "another", value: "x", class: signup.Systemic, code: "key-vault", text: "there is none of that name"},
		{name: "forbidden", value: "x", grants: []sim.DataAction{sim.SignWithKey}, class: signup.Systemic, code: "key-vault", text: "Key Vault Secrets User"},
		{name: "the firewall", value: "x", grants: []sim.DataAction{}, fault: forbid, class: signup.Systemic, code: "key-vault", text: "network rules do not let"},
		{name: "the certificate may not be read", grants: []sim.DataAction{sim.GetSecret, sim.ListSecrets}, class: signup.Systemic, code: "key-vault", text: "Key Vault Certificate User"},
		{name: "the key may not sign", grants: []sim.DataAction{sim.GetSecret, sim.ListSecrets, sim.ReadCertificate}, class: signup.Systemic, code: "key-vault", text: "Key Vault Crypto User"},
		{name: "the vault is down", value: "x", fault: &sim.Fault{Path: "/secrets", Times: -1, Status: 503}, class: signup.Transient, code: "key-vault", text: "answers with an error"},
		{name: "the vault is cut off", value: "x", fault: &sim.Fault{Times: -1}, class: signup.Transient, code: "key-vault", text: "cannot be reached"},
		{name: "the vault hangs", value: "x", fault: &sim.Fault{Times: -1, Delay: day}, class: signup.Transient, code: "key-vault", text: "in time"},
		{name: "the vault hangs before it signs", fault: &sim.Fault{Path: "/keys", Times: -1, Delay: day}, class: signup.Transient, code: "key-vault", text: ""},
		{name: "the vault throttles", value: "x", fault: &sim.Fault{Times: -1, Status: 429, Header: http.Header{"Retry-After": {"60"}}}, class: signup.Throttled, code: "key-vault", text: "throttled"},
		{name: "another tenant's vault", value: "x", fault: &sim.Fault{Skip: 1, Times: -1, Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"`}}},
			class: signup.Systemic, code: "key-vault", text: "another tenant"},
		{name: "a challenge that is not a vault's", value: "x", fault: &sim.Fault{Times: -1, Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer authorization="https://login.microsoftonline.com/t", resource="https://evil.example"`}}},
			class: signup.Transient, code: "key-vault", text: ""},
		{name: "an elliptic key that cannot be exported", inVault: ec, class: signup.Systemic, code: "key-vault", text: "not RSA"},
		{name: "nothing", value: " ", class: signup.Systemic, code: "key-vault", text: "it is empty"},
		{name: "rubbish", value: "not base64!", class: signup.Systemic, code: "key-vault", text: "neither PEM nor PKCS#12"},
		{name: "base64 of rubbish", value: "c3Ryb25n", class: signup.Systemic, code: "key-vault", text: "not PKCS#12"},
		{name: "PEM without a key", value: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", class: signup.Systemic, code: "key-vault", text: "not PEM with"},
		{name: "an elliptic key", value: pfx(t, pkcs12.Modern2023, ec, certify(t, ec, day)), class: signup.Systemic, code: "key-vault", text: "not RSA"},
		{name: "another's key", value: pemOf(t, key, certify(t, rsaKey(t, 1), day)), class: signup.Systemic, code: "key-vault", text: "does not belong"},
		{name: "an expired one", value: "expired", class: signup.Systemic, code: "key-vault", text: "expired"},
		{name: "one that the app does not know", value: "good", class: signup.Systemic, code: "aadsts700027", text: "not registered on the app"},
		{name: "one that may not be listed, and that the app does not know", value: "good", grants: []sim.DataAction{sim.GetSecret}, class: signup.Systemic, code: "aadsts700027", text: "may not list them"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				if test.secret == "" {
					test.secret = name
				}
				switch test.value {
				case "expired":
					test.value = pemOf(t, key, certify(t, key, -time.Minute))
				case "good":
					test.value = pfx(t, pkcs12.Modern2023, key, certify(t, key, day))
				}
				if test.value == "" {
					if test.inVault == nil {
						test.inVault = key
					}
					cert := certify(t, test.inVault, day)
					w.register(cert)
					w.vault.AddCertificate(test.secret, sim.Certificate{Key: test.inVault, Chain: []*x509.Certificate{cert}, NonExportable: true})
				} else {
					w.vault.SetSecret(test.secret, "", test.value)
				}
				if test.grants != nil {
					w.vault.Grant(identityID, test.grants...)
				}
				if test.fault != nil {
					w.vault.Faults.Add(*test.fault)
				}
				before := time.Now()
				o, id := w.options(identity.Certificate), &own{}
				o.Identity = id
				e := failure(t, open(t, o))
				if e.Class != test.class || e.Code != test.code || !strings.Contains(e.Detail, test.text) || len(e.Detail) > 200 {
					t.Fatalf("got %v, want %v %s with %q", e, test.class, test.code, test.text)
				}
				if test.code == "key-vault" && (!strings.Contains(e.Detail, "my-vault.vault.azure.net") || !strings.Contains(e.Detail, name)) {
					t.Errorf("the error does not name vault and certificate: %v", e)
				}
				if d := time.Since(before); d > 30*time.Second {
					t.Errorf("it took %v", d)
				}
				if slices.ContainsFunc(id.got, func(s string) bool { return s != "https://vault.azure.net/.default" }) {
					t.Errorf("the identity was asked for %v", id.got)
				}
			})
		})
	}
}
