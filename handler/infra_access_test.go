package main

import (
	"regexp"
	"slices"
	"strings"
)

const rbacFile = "infra/modules/rbac.bicep"

// builtInRoles are Azure's ids of the roles that may be given.
var builtInRoles = map[string]string{
	"storageBlobDataOwner":        "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
	"storageBlobDataContributor":  "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
	"storageTableDataContributor": "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",
	"keyVaultSecretsUser":         "4633458b-17de-408a-b874-0445c86b69e6",
	"keyVaultSecretsOfficer":      "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
	"keyVaultCertificatesOfficer": "a4417e6f-fecd-4de8-b567-7b0420556985",
	"keyVaultCryptoUser":          "12338af0-0e69-4776-bea7-57ae8d297424",
	"keyVaultCertificateUser":     "db79e9a7-68ee-4b58-9aeb-b90e7c24fcba",
	"monitoringMetricsPublisher":  "3913510d-42f4-4e42-8a64-420c390055eb",
}

// allowedRoles is who may have which role on what; "when" is the condition under which alone it is given.
var allowedRoles = []grant{
	{"appPrincipalId", "Microsoft.Storage/storageAccounts", "storageBlobDataOwner", ""},
	{"appPrincipalId", "Microsoft.Storage/storageAccounts", "storageTableDataContributor", ""},
	{"appPrincipalId", "Microsoft.KeyVault/vaults", "keyVaultSecretsUser", ""},
	{"appPrincipalId", "Microsoft.KeyVault/vaults", "keyVaultCryptoUser", "signsInVault"},
	{"appPrincipalId", "Microsoft.KeyVault/vaults", "keyVaultCertificateUser", "signsInVault"},
	{"appPrincipalId", "Microsoft.Insights/components", "monitoringMetricsPublisher", ""},
	{"operatorId", "Microsoft.Storage/storageAccounts", "storageTableDataContributor", ""},
	{"operatorId", "Microsoft.Storage/storageAccounts", "storageBlobDataContributor", "operatorUploads"},
	{"operatorId", "Microsoft.KeyVault/vaults", "keyVaultCertificatesOfficer", ""},
	{"operatorId", "Microsoft.KeyVault/vaults", "keyVaultSecretsOfficer", ""},
	{"operatorId", "Microsoft.KeyVault/vaults", "keyVaultCryptoUser", "signsInVault"},
}

// grant is one role of somebody on one resource.
type grant struct{ principal, on, role, when string }

// rolesPolicy: every role is one of allowedRoles, on one resource, given to a principal whose kind is said; and no other file
// gives any.
func rolesPolicy(p project, f *findings) {
	id := regexp.MustCompile(`[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}`)
	for _, name := range p.files("infra/", ".bicep") {
		if text := p.bicep(name); name != rbacFile && (strings.Contains(text, "Microsoft.Authorization/") || id.MatchString(text)) {
			f.add("%s has a role or a well-known id, which %s alone may have", name, rbacFile)
		}
	}
	text := p.bicep(rbacFile)
	table := regexp.MustCompile(`(?m)^  (\w+): '(.+)'$`).FindAllStringSubmatch(declared(text, "roles"), -1)
	for _, m := range table {
		if builtInRoles[m[1]] != m[2] {
			f.add("%s: %s is %s, want %s", rbacFile, m[1], m[2], builtInRoles[m[1]])
		}
	}
	if len(id.FindAllString(text, -1)) != len(table) {
		f.add("%s has ids outside of its table of roles", rbacFile)
	}

	resources := p.resources(rbacFile)
	scopes := map[string]string{}
	for _, r := range resources {
		if r.existing {
			scopes[r.symbol] = r.kind
		}
	}
	var given []grant
	for _, r := range resources {
		if !r.existing {
			given = append(given, grants(text, r, scopes, f)...)
		}
	}
	for _, g := range given {
		if !slices.Contains(allowedRoles, g) {
			f.add("%s gives %+v, which is not allowed", rbacFile, g)
		}
	}
	for _, g := range allowedRoles {
		if !slices.Contains(given, g) {
			f.add("%s does not give %+v", rbacFile, g)
		}
	}
}

// grants are what one declaration of role assignments gives.
func grants(text string, r bicepResource, scopes map[string]string, f *findings) (all []grant) {
	one := func(property string) string {
		if v := r.values(property); len(v) == 1 {
			return v[0]
		}
		f.add("%s: %s has not one %s", r.file, r.symbol, property)
		return ""
	}
	principal, scope, kind, role := one("principalId"), one("scope"), one("principalType"), one("roleDefinitionId")
	if want := map[string]string{"appPrincipalId": "'ServicePrincipal'", "operatorId": "operatorType"}[principal]; kind != want || r.kind != "Microsoft.Authorization/roleAssignments" {
		f.add("%s: %s gives a role to %s of kind %s", r.file, r.symbol, principal, kind)
	}
	if conditional := strings.Contains(r.body, "if (!empty(operatorId)) {"); conditional != (principal == "operatorId") {
		f.add("%s: %s is conditional: %v", r.file, r.symbol, conditional)
	}
	m := regexp.MustCompile(`^subscriptionResourceId\('Microsoft\.Authorization/roleDefinitions'$`).FindString(role)
	named := regexp.MustCompile(`roleDefinitions', (?:roles\.)?(\w+)\)`).FindStringSubmatch(r.body)
	if m == "" || named == nil {
		f.add("%s: %s has the role %s", r.file, r.symbol, role)
		return nil
	}
	add := func(role, when string) { all = append(all, grant{principal, scopes[scope], role, when}) }
	loop := regexp.MustCompile(`^\[for role in (\w+): `).FindStringSubmatch(r.body)
	if loop == nil {
		add(named[1], "")
		return all
	}
	list := regexp.MustCompile(`(?m)^var ` + loop[1] + ` = (.+)$`).FindStringSubmatch(text)
	if list == nil {
		f.add("%s: %s gives the roles of %s, which is no list", r.file, r.symbol, loop[1])
		return nil
	}
	always, sometimes, _ := strings.Cut(list[1], " ? ")
	condition := regexp.MustCompile(`, (\w+)$`).FindStringSubmatch(always)
	for _, m := range regexp.MustCompile(`roles\.(\w+)`).FindAllStringSubmatch(always, -1) {
		add(m[1], "")
	}
	for _, m := range regexp.MustCompile(`roles\.(\w+)`).FindAllStringSubmatch(sometimes, -1) {
		if condition == nil {
			f.add("%s: %s has a condition that is not understood", r.file, loop[1])
			return nil
		}
		add(m[1], condition[1])
	}
	return all
}

// secretsPolicy: nothing reads a key, and nothing that could be one is given out.
func secretsPolicy(p project, f *findings) {
	outputs := 0
	for _, name := range p.files("infra/", ".bicep") {
		text := p.bicep(name)
		if m := regexp.MustCompile(`\blist[A-Z]\w*\(|\bgetSecret\(|AccountKey|SharedAccessSignature`).FindString(text); m != "" {
			f.add("%s reads or writes a key: %s", name, m)
		}
		for _, m := range regexp.MustCompile(`(?m)^output (\w+) \w+ = (.+)$`).FindAllStringSubmatch(text, -1) {
			outputs++
			if regexp.MustCompile(`(?i)ConnectionString|InstrumentationKey|password|vaultReferences|appSettings`).MatchString(m[1] + m[2]) {
				f.add("%s gives out %s", name, m[1])
			}
		}
		for _, r := range p.resources(name) {
			if r.kind == "Microsoft.KeyVault/vaults/secrets" {
				f.add("%s makes the secret %s: its value would be in the deployment's history", name, r.symbol)
			}
		}
	}
	if outputs == 0 {
		f.add("infra/ has no outputs")
	}
}

// hardened are the properties that a kind of resource must have, with these values wherever they stand.
var hardened = []struct {
	kind   string
	values map[string]string
}{
	{"Microsoft.Storage/storageAccounts", map[string]string{"allowSharedKeyAccess": "false", "defaultToOAuthAuthentication": "true", "allowBlobPublicAccess": "false",
		"allowCrossTenantReplication": "false", "minimumTlsVersion": "'TLS1_2'", "supportsHttpsTrafficOnly": "true", "publicNetworkAccess": "public ? 'Enabled' : 'Disabled'",
		"defaultAction": "public ? 'Allow' : 'Deny'"}},
	{"Microsoft.Storage/storageAccounts/blobServices/containers", map[string]string{"publicAccess": "'None'"}},
	{"Microsoft.KeyVault/vaults", map[string]string{"enableRbacAuthorization": "true", "enableSoftDelete": "true", "enablePurgeProtection": "purgeProtection ? true : null",
		"publicNetworkAccess": "public ? 'Enabled' : 'Disabled'", "defaultAction": "public ? 'Allow' : 'Deny'"}},
	{"Microsoft.Web/sites", map[string]string{"httpsOnly": "true", "minTlsVersion": "'1.2'", "scmMinTlsVersion": "'1.2'", "ftpsState": "'Disabled'", "remoteDebuggingEnabled": "false",
		"keyVaultReferenceIdentity": "identity.id"}},
	{"Microsoft.Web/sites/basicPublishingCredentialsPolicies", map[string]string{"allow": "false"}},
	{"Microsoft.OperationalInsights/workspaces", map[string]string{"disableLocalAuth": "true"}},
	{"Microsoft.Insights/components", map[string]string{"DisableLocalAuth": "true"}},
}

// hardeningPolicy: TLS, keys, passwords and the public's access are as hardened says, everywhere.
func hardeningPolicy(p project, f *findings) {
	var all []bicepResource
	for _, name := range p.files("infra/", ".bicep") {
		all = append(all, p.resources(name)...)
	}
	for _, h := range hardened {
		found := 0
		for _, r := range all {
			if r.existing || r.kind != h.kind {
				continue
			}
			found++
			for property, want := range h.values {
				if got := r.values(property); len(got) == 0 || slices.ContainsFunc(got, func(v string) bool { return v != want }) {
					f.add("%s: %s of %s is %q, want %s", r.file, property, r.symbol, got, want)
				}
			}
		}
		if found == 0 {
			f.add("infra/ has no %s", h.kind)
		}
	}
	if !strings.Contains(p.bicep(appFile), "basicPublishingCredentialsPolicies@2024-11-01' = [for way in ['ftp', 'scm']: {") {
		f.add("%s does not switch off the passwords of both ftp and scm", appFile)
	}
	if text := p.bicep(mainFile); strings.Count(text, "public: !private\n") != 2 || !strings.Contains(text, "param purgeProtection bool = true\n") {
		f.add("%s: the private network does not close storage and vault, or purge protection is off", mainFile)
	}
}

// exempt are the types that the check without a compiler knows nothing of.
var exempt = []string{"Microsoft.Network/virtualNetworks", "Microsoft.Network/privateDnsZones", "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
	"Microsoft.Network/privateEndpoints", "Microsoft.Network/privateEndpoints/privateDnsZoneGroups"}

// exemptionsPolicy: nothing is exempted from a check but the types that it does not know.
func exemptionsPolicy(p project, f *findings) {
	var got []string
	for _, name := range p.files("infra/", ".bicep") {
		lines := strings.Split(p[name], "\n")
		for i, line := range lines {
			if !strings.Contains(line, "#disable") {
				continue
			}
			if m := resourceHead.FindStringSubmatch(lines[i+1]); line == "#disable-next-line BCP081" && m != nil {
				got = append(got, m[2])
			} else {
				f.add("%s:%d: %s", name, i+1, line)
			}
		}
	}
	f.same("types that are exempted", got, exempt)
}
