package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/identity"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// settingsExaminations need nobody's answer.
var settingsExaminations = []examination{
	{"configuration", examineConfiguration},
	{"key vault references", examineReferences},
	{"secrets", examineSecrets},
	{"unknown", examineUnknown},
	{"ENTRA_CREDENTIAL", examineCredentialKind},
	{"SYNC_SCHEDULE", examineSchedule("SYNC_SCHEDULE", "0 * * * * *", func(c *Config) (time.Duration, string) { return c.Sync.Overlap, "sync.overlap" })},
	{"CENSUS_SCHEDULE", examineSchedule("CENSUS_SCHEDULE", "0 */15 * * * *", func(*Config) (time.Duration, string) { return time.Hour, "an hour, and a census may need many turns" })},
	{"AzureWebJobsStorage", examineStorage},
	{"clouds", examineClouds},
	{"functionTimeout", examineTimeout},
	{"host.json", examineHost},
}

// examineFile says why the settings' file cannot be read.
func examineFile(_ context.Context, p *patient) []finding {
	return []finding{fail("--settings", printSettings, "the file cannot be read: %s", strings.TrimPrefix(oneLine(p.unreadable), "--settings: "))}
}

// setSetting is the command that sets an app setting.
func setSetting(name, value string) string {
	return fmt.Sprintf(`az functionapp config appsettings set --name APP --resource-group GROUP --settings "%s=%s"`, name, value)
}

// settingFix is the command that mends a setting: a secret becomes a reference, and the ledger's account needs none.
func settingFix(name string) string {
	switch {
	case strings.HasPrefix(name, "AzureWebJobsStorage"):
		return byIdentity
	case secretKey.MatchString(name) || holdsSecret.MatchString(name):
		return setSetting(name, vaultReference)
	}
	return setSetting(name, "VALUE")
}

// holdsSecret ends the names of settings in which a secret is one part.
var holdsSecret = regexp.MustCompile(`(?i)(dsn|connection|connection_?string)$`)

// vaultReference is what a secret's app setting should be.
const vaultReference = "@Microsoft.KeyVault(SecretUri=https://VAULT.vault.azure.net/secrets/NAME)"

// printSettings is the command that prints the settings for --settings.
const printSettings = "az functionapp config appsettings list --name APP --resource-group GROUP --output json > settings.json\nbin/handler doctor --settings settings.json"

// examineConfiguration says what the program itself refuses, each with its setting or its place in the file.
func examineConfiguration(_ context.Context, p *patient) []finding {
	if p.refused == nil {
		return []finding{good("configuration", "%s and the %d settings that it reads are good", p.app.env.Config, len(namesRead(p.getenv)))}
	}
	var all []finding
	for _, err := range eachError(p.refused) {
		switch e := err.(type) {
		case settingError:
			all = append(all, fail(e.name, settingFix(e.name), "%s", e.message))
		case configError:
			place := fmt.Sprintf("%s:%d:%d", filepath.Base(e.file), e.line, e.column)
			switch {
			case e.setting == "":
				all = append(all, fail(place, "Mend the file; `bin/handler check` shows the place.", "%s", e.message))
			case p.unread(e.setting) == nil: // else it has its own line
				all = append(all, fail(e.setting, settingFix(e.setting), "%s: %s", place, e.message))
			}
		default:
			all = append(all, fail("configuration", "Mend it; `bin/handler check` tries again.", "%s", oneLine(err)))
		}
	}
	return all
}

// unread is why a setting's Key Vault reference could not be read; nil if that was not tried, or went well.
func (p *patient) unread(name string) error {
	if p.settings == nil {
		return nil
	}
	return p.settings.unread[name]
}

// examineReferences says which Key Vault references could not be read, with the operator's login.
func examineReferences(_ context.Context, p *patient) []finding {
	if p.settings == nil {
		return []finding{notAsked("key vault references", printSettings, "the environment has values, and not where they come from; what did not resolve is refused")}
	}
	var all []finding
	for _, name := range sortedKeys(p.settings.unread) {
		all = append(all, fail(name, p.referenceFix(name, p.settings.unread[name]), "its Key Vault reference could not be read with %s: %s", p.whose(), oneLine(p.settings.unread[name])))
	}
	switch {
	case len(all) == 0 && len(p.settings.resolved) == 0:
		all = append(all, good("key vault references", "the program needs none"))
	case len(all) == 0:
		all = append(all, good("key vault references", "all %d that the program needs could be read with %s", len(p.settings.resolved), p.whose()))
	}
	return all
}

// referenceFix says what to do about a reference that could not be read.
func (p *patient) referenceFix(name string, err error) string {
	e, ok := errors.AsType[*signup.Error](err)
	if !ok {
		return "Do as the message says, and run the doctor again."
	}
	vault, secret := partOf(p.settings.values[name], referredVault, "VAULT"), partOf(p.settings.values[name], referredSecret, "NAME")
	switch {
	case e.Code == "key-vault-reference":
		return setSetting(name, vaultReference)
	case e.Status == http.StatusForbidden:
		return p.assignRole(identity.SecretsUser, ofVault(vault)) + "\nand look at the vault's Networking, and whether the secret is enabled"
	case e.Status == http.StatusNotFound:
		return storeSecret(vault, secret) + restartApp + "\nor mend the reference:\n" + setSetting(name, vaultReference)
	case e.Status == http.StatusUnauthorized:
		return "az login --tenant TENANT_OF_THE_VAULT\n" + backToSubscription
	case passing(err):
		return again
	}
	return p.ownFix("") // there is no login
}

// examineSecrets looks for secrets that stand in the app settings themselves, where everybody with a reader's role and
// a word in the portal sees them.
func examineSecrets(_ context.Context, p *patient) []finding {
	if p.settings == nil {
		return []finding{notAsked("secrets", printSettings, "the environment has values, and not where they come from")}
	}
	read := append(namesRead(p.getenv), "ENTRA_CLIENT_SECRET")
	var all []finding
	for _, name := range sortedKeys(p.settings.values) {
		value := p.settings.values[name]
		kind, _ := secret(value)
		switch {
		case strings.HasPrefix(strings.TrimSpace(value), keyVaultReference) || value == "":
		case name == "AzureWebJobsStorage" && cmp.Or(p.getenv("LEDGER"), "tables") == "tables": // has its own line
		case strings.HasPrefix(name, "AzureWebJobsStorage") && kind != "":
			all = append(all, warn("plain "+name, byIdentity, "%s stands in the setting itself; the identity needs none", kind))
		case kind != "" || slices.Contains(read, name) && secretKey.MatchString(name):
			all = append(all, warn("plain "+name, storeSecret("VAULT", "NAME")+setSetting(name, vaultReference),
				"the secret stands in the setting itself, where a Key Vault reference should; replace it, since it was shown"))
		}
	}
	if len(all) == 0 {
		all = append(all, good("secrets", "none stands in the settings themselves"))
	}
	return all
}

// platformNames begin the names that the platform, the host or the deployment reads.
var platformNames = []string{"AzureWebJobs", "AzureFunctions", "FUNCTIONS_", "WEBSITE_", "WEBSITES_", "APPLICATIONINSIGHTS_", "APPINSIGHTS_", "SCM_", "DEPLOYMENT_",
	"ENABLE_ORYX_BUILD", "BUILD_FLAGS", "XDG_CACHE_HOME", "DOCKER_", "IDENTITY_", "MSI_", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_", "TZ"}

// examineUnknown looks for names that nobody reads: one of ours that is misspelled, above all.
func examineUnknown(_ context.Context, p *patient) []finding {
	known := append(environmentNames(), namesRead(p.getenv)...)
	var names []string
	if p.settings != nil {
		names = sortedKeys(p.settings.values)
	} else if p.environ != nil {
		for _, pair := range p.environ() {
			name, _, _ := strings.Cut(pair, "=")
			names = append(names, name)
		}
		slices.Sort(names)
	}
	var all []finding
	for _, name := range names {
		if slices.Contains(known, name) {
			continue
		}
		near := nearest(name, known)
		platform := slices.ContainsFunc(platformNames, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		remove := fmt.Sprintf("az functionapp config appsettings delete --name APP --resource-group GROUP --setting-names %q", name)
		switch {
		case near != "" && p.getenv(near) == "":
			all = append(all, warn("unknown "+name, setSetting(near, "VALUE")+"\n"+remove, "nobody reads it, and %s is not set: is that what is meant?", near))
		case p.settings != nil && !platform:
			all = append(all, warn("unknown "+name, remove, "nobody reads it: neither the program nor, by its name, the platform"))
		}
	}
	if len(all) == 0 {
		all = append(all, good("unknown", "there is no name that nobody reads"))
		if p.settings == nil {
			all[0].Why = "no name in the environment looks like a misspelled one of ours"
		}
	}
	return all
}

// nearest is the known name that differs in two characters at most; "" if there is none.
func nearest(name string, known []string) string {
	best, distance := "", 2
	for _, k := range known {
		if d := pipeline.EditDistance(strings.ToUpper(name), strings.ToUpper(k)); d <= distance && len(k) > 4 {
			best, distance = k, d-1
		}
	}
	return best
}

// toCertificate are the settings of an app with a certificate.
var toCertificate = setSetting("KEY_VAULT_URL", "https://VAULT.vault.azure.net") + "\n" + setSetting("ENTRA_CERTIFICATE", "NAME") + "\n" + setSetting("ENTRA_CREDENTIAL", "certificate")

func examineCredentialKind(_ context.Context, p *patient) []finding {
	const name = "ENTRA_CREDENTIAL"
	switch kind := cmp.Or(p.getenv(name), "certificate"); kind {
	case "secret":
		return []finding{warn(name, toCertificate, "a client secret is for tries on one machine: whoever reads it is the app; use a certificate in Key Vault, or federated")}
	case "certificate", "federated":
		return []finding{good(name, "%s: no secret is kept in the settings for the tenant", kind)}
	}
	return nil // refused above
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
