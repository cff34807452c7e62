package identity_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestAReferenceIsRead(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		old := w.vault.SetSecret("stripe-key", "", "sk_old")
		w.vault.SetSecret("stripe-key", "", "sk_new")
		w.known["127.0.0.1:8443"] = true
		for _, test := range []struct{ text, vault, want string }{
			{"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/stripe-key)", "", "sk_new"},
			{"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/stripe-key/)", "", "sk_new"},
			{" @Microsoft.KeyVault(SecretUri=https://MY-vault.VAULT.azure.net/secrets/stripe-key/" + old + ") ", "", "sk_old"},
			{"@Microsoft.KeyVault(VaultName=my-vault;SecretName=stripe-key)", "", "sk_new"},
			{"@Microsoft.KeyVault(VaultName=my-vault;SecretName=stripe-key;SecretVersion=" + old + ")", vaultURL, "sk_old"},
			{"@Microsoft.KeyVault(vaultname=my-vault; secretname=stripe-key;)", vaultURL, "sk_new"},
			{"@Microsoft.KeyVault(VaultName=anything;SecretName=stripe-key)", "https://127.0.0.1:8443", "sk_new"},
			{"@Microsoft.KeyVault(SecretUri=https://127.0.0.1:8443/secrets/stripe-key)", "https://127.0.0.1:8443", "sk_new"},
		} {
			id := &own{}
			got, err := identity.ReadReference(t.Context(), test.text, test.vault, id, w.client)
			if err != nil || got != test.want {
				t.Errorf("%s: got %q, %v, want %q", test.text, got, err, test.want)
			}
		}
	})
}

// The vaults of another cloud are asked where KEY_VAULT_URL is one of them. The simulated one names the global cloud's
// audience, which its name does not fit: no token is sent.
func TestAReferenceOfAnotherCloud(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		w.route("https://my-vault.vault.usgovcloudapi.net")
		id := &own{}
		_, err := identity.ReadReference(t.Context(), "@Microsoft.KeyVault(VaultName=my-vault;SecretName=x)", "https://other.vault.usgovcloudapi.net", id, w.client)
		if err == nil || !strings.Contains(err.Error(), "my-vault.vault.usgovcloudapi.net") || len(id.got) > 0 {
			t.Errorf("got %v, and asked for %v", err, id.got)
		}
	})
}

func TestReferencesThatAreNotRead(t *testing.T) {
	inBubble(t, func(t *testing.T, w world) {
		for text, want := range map[string]string{
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/stripe-key": "wants the form",
			"sk_live_s3cr3t-value":       "wants the form",
			"@Microsoft.KeyVault()":      "VaultName",
			"@Microsoft.KeyVault(Foo=1)": "wants SecretUri, or VaultName",
			"@Microsoft.KeyVault(SecretUri=http://my-vault.vault.azure.net/secrets/x)":                     "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://u:p@my-vault.vault.azure.net/secrets/x)":                "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/x?a=b)":                "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/keys/x)":                       "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/x/y/z)":                "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/x%2F..%2Fy)":           "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net.evil.example/secrets/x)":       "no Key Vault's",
			"@Microsoft.KeyVault(SecretUri=https://evil.example/secrets/x)":                                "no Key Vault's",
			"@Microsoft.KeyVault(SecretUri=https://evil.example#.vault.azure.net/secrets/x)":               "SecretUri such as",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net:8443/secrets/x)":               "no Key Vault's",
			"@Microsoft.KeyVault(SecretUri=https://127.0.0.1/secrets/x)":                                   "no Key Vault's",
			"@Microsoft.KeyVault(SecretUri=https://a.b.vault.azure.net/secrets/x)":                         "no Key Vault's",
			"@Microsoft.KeyVault(VaultName=evil.example/;SecretName=x)":                                    "VaultName of 3 to 24",
			"@Microsoft.KeyVault(VaultName=my-vault)":                                                      "name or version",
			"@Microsoft.KeyVault(VaultName=my-vault;SecretName=../x)":                                      "name or version",
			"@Microsoft.KeyVault(VaultName=my-vault;SecretName=x;SecretName=y)":                            "each once",
			"@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/x;VaultName=my-vault)": "one form",
		} {
			id := &own{}
			_, err := identity.ReadReference(t.Context(), text, vaultURL, id, w.client)
			e, ok := errors.AsType[*signup.Error](err)
			if !ok || e.Class != signup.Systemic || !strings.Contains(e.Detail, want) || strings.Contains(e.Error(), aSecret) || len(e.Detail) > 200 {
				t.Errorf("%s: got %v, want %q", text, err, want)
			}
			if _, n := w.asked(); n > 0 || len(id.got) > 0 {
				t.Fatalf("%s: somebody was asked", text)
			}
		}
	})
}

func TestASecretThatIsNotToBeHad(t *testing.T) {
	const text = "@Microsoft.KeyVault(SecretUri=https://my-vault.vault.azure.net/secrets/stripe-key)"
	for name, test := range map[string]struct {
		prepare func(world)
		class   signup.Class
		want    string
	}{
		"none":      {func(world) {}, signup.Systemic, "secret stripe-key in my-vault.vault.azure.net: there is none of that name"},
		"disabled":  {func(w world) { w.vault.Disable("stripe-key", w.vault.SetSecret("stripe-key", "", aSecret)) }, signup.Systemic, "it is disabled"},
		"forbidden": {func(w world) { w.vault.SetSecret("stripe-key", "", aSecret); w.vault.Grant("nobody") }, signup.Systemic, "Key Vault Secrets User"},
		"throttled": {func(w world) {
			w.vault.Faults.Add(sim.Fault{Times: -1, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}})
		}, signup.Throttled, "throttled"},
		"hanging": {func(w world) { w.vault.Faults.Add(sim.Fault{Times: -1, Delay: day}) }, signup.Transient, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w world) {
				test.prepare(w)
				_, err := identity.ReadReference(t.Context(), text, vaultURL, &own{}, w.client)
				e, ok := errors.AsType[*signup.Error](err)
				if !ok || e.Class != test.class || !strings.Contains(e.Detail, test.want) || strings.Contains(e.Error(), aSecret) {
					t.Errorf("got %v, want %v with %q", err, test.class, test.want)
				}
			})
		})
	}
}
