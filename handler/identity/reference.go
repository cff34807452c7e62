package identity

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"signup-sync/handler/signup"
)

// vaultSuffixes are what the host names of Key Vaults end with in the global cloud and the national ones. No token goes
// to another host, save to the one of KEY_VAULT_URL, which is a simulation where it is on this machine.
var vaultSuffixes = []string{".vault.azure.net", ".vault.usgovcloudapi.net", ".vault.azure.cn"}

// suffixOf is the suffix of a Key Vault's host name; "" if it is none.
func suffixOf(host string) string {
	for _, s := range vaultSuffixes {
		if name, ok := strings.CutSuffix(strings.ToLower(host), s); ok && vaultName.MatchString(name) {
			return s
		}
	}
	return ""
}

// VaultScope is what a token for a Key Vault's URL is asked for, by the vault's cloud.
func VaultScope(root string) string {
	suffix := suffixOf(hostOf(root))
	if suffix == "" {
		suffix = vaultSuffixes[0]
	}
	return "https://" + strings.TrimPrefix(suffix, ".") + "/.default"
}

var (
	vaultName     = regexp.MustCompile(`^[0-9A-Za-z-]{3,24}$`)
	secretName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	secretVersion = regexp.MustCompile(`^[0-9A-Za-z]{0,64}$`)
)

// reference is a Key Vault reference, taken apart.
type reference struct{ vault, name, version string }

// ReadReference reads the secret that an app setting's value, such as @Microsoft.KeyVault(SecretUri=…), stands for (docs:
// Use Key Vault references, "Understand source app settings from Key Vault"), as the platform does for the Function App.
// vault is KEY_VAULT_URL, or "": its cloud is where VaultName looks, and its host is trusted as it is. Errors are
// *signup.Error; they name vault and secret, and hold no value.
func ReadReference(ctx context.Context, text, vault string, own azcore.TokenCredential, hc *http.Client) (string, error) {
	r, err := parseReference(text, vault)
	if err != nil {
		return "", err
	}
	v := vaultObject{host: hostOf(r.vault), kind: "secret", name: r.name}
	secrets, err := azsecrets.NewClient(r.vault, own, &azsecrets.ClientOptions{
		ClientOptions: clientOptions(hc), DisableChallengeResourceVerification: loopback(v.host),
	})
	if err != nil {
		return "", v.failed(signup.Systemic, 0, "the client for it cannot be made")
	}
	answer, err := secrets.GetSecret(ctx, r.name, r.version, nil)
	if err != nil {
		return "", v.explain(err, SecretsUser)
	}
	if answer.Value == nil {
		return "", v.failed(signup.Systemic, 0, "it is empty")
	}
	return *answer.Value, nil
}

func parseReference(text, vault string) (reference, error) {
	bad := func(why string) (reference, error) {
		return reference{}, &signup.Error{Class: signup.Systemic, Code: "key-vault-reference", Detail: "the Key Vault reference " + why}
	}
	inside, opened := strings.CutPrefix(strings.TrimSpace(text), "@Microsoft.KeyVault(")
	inside, closed := strings.CutSuffix(inside, ")")
	if !opened || !closed {
		return bad("wants the form @Microsoft.KeyVault(SecretUri=https://VAULT.vault.azure.net/secrets/NAME)")
	}
	values := map[string]string{}
	for part := range strings.SplitSeq(inside, ";") {
		name, value, _ := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" && value == "" {
			continue
		}
		if _, twice := values[name]; twice || !slices.Contains([]string{"secreturi", "vaultname", "secretname", "secretversion"}, name) {
			return bad("wants SecretUri, or VaultName and SecretName and perhaps SecretVersion, each once")
		}
		values[name] = strings.TrimSpace(value)
	}
	r := reference{name: values["secretname"], version: values["secretversion"]}
	uri, byURI := values["secreturi"]
	switch {
	case byURI && len(values) > 1:
		return bad("has SecretUri and other parts: it wants one form")
	case byURI:
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return bad("wants a SecretUri such as https://VAULT.vault.azure.net/secrets/NAME")
		}
		if !strings.EqualFold(u.Host, hostOf(vault)) && suffixOf(u.Host) == "" {
			return bad("names a host that is no Key Vault's: no token goes there")
		}
		path := strings.Split(strings.Trim(u.Path, "/"), "/")
		if len(path) < 2 || len(path) > 3 || !strings.EqualFold(path[0], "secrets") {
			return bad("wants a SecretUri such as https://VAULT.vault.azure.net/secrets/NAME")
		}
		r.vault, r.name, r.version = "https://"+strings.ToLower(u.Host), path[1], strings.Join(path[2:], "")
	case loopback(hostOf(vault)): // a simulated vault has one address and no name
		r.vault = vault
	case !vaultName.MatchString(values["vaultname"]):
		return bad("wants a VaultName of 3 to 24 letters, digits and hyphens")
	default:
		suffix := suffixOf(hostOf(vault))
		if suffix == "" {
			suffix = vaultSuffixes[0]
		}
		r.vault = "https://" + values["vaultname"] + suffix
	}
	if !secretName.MatchString(r.name) || !secretVersion.MatchString(r.version) {
		return bad("has a name or version that no secret can have")
	}
	return r, nil
}

// hostOf is the host of an https URL, with the port if it has one; "" if it is none.
func hostOf(root string) string {
	u, err := url.Parse(root)
	if err != nil || u.Scheme != "https" {
		return ""
	}
	return u.Host
}
