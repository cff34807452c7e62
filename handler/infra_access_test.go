package main

import (
	"regexp"
	"slices"
	"strings"
)

const rbacFile, securityFile = "infra/modules/rbac.bicep", "docs/security.md"

// builtInRoles are the roles that may be given: as docs/security.md calls them, and Azure's ids.
var builtInRoles = map[string]struct{ title, id string }{
	"storageBlobDataOwner":        {"Storage Blob Data Owner", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"},
	"storageBlobDataContributor":  {"Storage Blob Data Contributor", "ba92f5b4-2d11-453d-a403-e96b0029c9fe"},
	"storageTableDataContributor": {"Storage Table Data Contributor", "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3"},
	"keyVaultSecretsUser":         {"Key Vault Secrets User", "4633458b-17de-408a-b874-0445c86b69e6"},
	"keyVaultSecretsOfficer":      {"Key Vault Secrets Officer", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"},
	"keyVaultCertificatesOfficer": {"Key Vault Certificates Officer", "a4417e6f-fecd-4de8-b567-7b0420556985"},
	"keyVaultCryptoUser":          {"Key Vault Crypto User", "12338af0-0e69-4776-bea7-57ae8d297424"},
	"keyVaultCertificateUser":     {"Key Vault Certificate User", "db79e9a7-68ee-4b58-9aeb-b90e7c24fcba"},
	"monitoringMetricsPublisher":  {"Monitoring Metrics Publisher", "3913510d-42f4-4e42-8a64-420c390055eb"},
}

// grant is one role of somebody on one resource; when is the condition under which alone it is given, "" for always.
type grant struct{ principal, on, role, when string }

// allowedRoles is who may have which role on what, by docs/security.md. What it says of others than the app and the operator,
// and of the destinations, is not given here.
func allowedRoles(p project, f *findings) (all []grant) {
	_, table, _ := strings.Cut(p[securityFile], "\n| who | role | on | for |\n|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	principals := map[string]string{"the app's identity": "appPrincipalId", "the operator": "operatorId"}
	resources := map[string]string{"the storage account": "Microsoft.Storage/storageAccounts", "the vault": "Microsoft.KeyVault/vaults", "Application Insights": "Microsoft.Insights/components"}
	who := ""
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "|\n "), "|")
		if strings.HasPrefix(line, "| |") {
			cells = append([]string{who}, cells...)
		}
		if len(cells) != 4 {
			f.add("%s: a row is not understood: %s", securityFile, line)
			continue
		}
		who = strings.TrimSpace(cells[0])
		on, why, when := strings.TrimSpace(cells[2]), cells[3], ""
		switch {
		case principals[who] == "" || strings.Contains(line, "those of its destinations"):
			continue
		case strings.Contains(why, "cannot be exported"):
			when = "signsInVault"
		case strings.Contains(why, "classic plan"):
			when = "operatorUploads"
		}
		for title := range strings.SplitSeq(strings.TrimSpace(cells[1]), ", ") {
			role := ""
			for name, r := range builtInRoles {
				if r.title == title {
					role = name
				}
			}
			if role == "" || resources[on] == "" {
				f.add("%s gives %s the role %q on %q, which is not known", securityFile, who, title, on)
			}
			all = append(all, grant{principals[who], resources[on], role, when})
		}
	}
	return all
}

// rolesPolicy: every role is one of docs/security.md, on one resource, given to a principal whose kind is said; and no other file
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
		if builtInRoles[m[1]].id != m[2] {
			f.add("%s: %s is %s, want %s", rbacFile, m[1], m[2], builtInRoles[m[1]].id)
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
	allowed := allowedRoles(p, f)
	for _, g := range given {
		if !slices.Contains(allowed, g) {
			f.add("%s gives %+v, which is not allowed by %s", rbacFile, g, securityFile)
		}
	}
	for _, g := range allowed {
		if !slices.Contains(given, g) {
			f.add("%s does not give %+v, as %s says", rbacFile, g, securityFile)
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
	head := regexp.MustCompile(`(?m)^var ` + loop[1] + ` = (?:concat)?`).FindStringIndex(text)
	list := []string(nil)
	if head != nil {
		list = roleList.FindStringSubmatch(bracketed(text, head[1]))
	}
	if list == nil {
		f.add("%s: the list %s is not understood", r.file, loop[1])
		return nil
	}
	for _, m := range roleNamed.FindAllStringSubmatch(list[1], -1) {
		add(m[1], "")
	}
	for _, m := range roleNamed.FindAllStringSubmatch(list[3], -1) {
		add(m[1], list[2])
	}
	return all
}

// roleList is a list of roles, or concat's arguments: roles that are always given, and roles that are given on a condition.
var roleList = regexp.MustCompile(`^\(?\[([^\[\]]*)\](?:, (\w+) \? \[([^\[\]]*)\] : \[\]\))?$`)

var roleNamed = regexp.MustCompile(`roles\.(\w+)`)

// secretsPolicy: nothing reads a key, and nothing that could be one is given out.
func secretsPolicy(p project, f *findings) {
	outputs := 0
	for _, name := range p.files("infra/", ".bicep") {
		text := p.bicep(name)
		if m := regexp.MustCompile(`\blist[A-Z]\w*\(|\bgetSecret\(|AccountKey|SharedAccessSignature`).FindString(text); m != "" {
			f.add("%s reads or writes a key: %s", name, m)
		}
		for _, m := range regexp.MustCompile(`(?m)^output +(\w+) +[^=\n]+ *= *(.+)$`).FindAllStringSubmatch(text, -1) {
			outputs++
			if regexp.MustCompile(`(?i)ConnectionString|InstrumentationKey|password|vaultReferences|appSettings`).MatchString(m[1] + m[2]) {
				f.add("%s gives out %s", name, m[1])
			}
		}
		want := 0
		if name == appFile {
			want = 1 // of telemetry, which is no key: both ends take identities only
		}
		if got := regexp.MustCompile(`(?i)ConnectionString|InstrumentationKey`).FindAllString(text, -1); len(got) != want {
			f.add("%s has %q, which %s alone may have, once", name, got, appFile)
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
	{"Microsoft.Web/sites", map[string]string{"httpsOnly": "true", "minTlsVersion": "'1.2'", "scmMinTlsVersion": "'1.2'", "remoteDebuggingEnabled": "false",
		"keyVaultReferenceIdentity": "identity.id"}},
	{"Microsoft.Web/sites/basicPublishingCredentialsPolicies", map[string]string{"allow": "false"}},
	{"Microsoft.Insights/diagnosticSettings", map[string]string{"workspaceId": "workspaceId", "enabled": "true"}},
	{"Microsoft.OperationalInsights/workspaces/tables", map[string]string{"retentionInDays": "logDays", "totalRetentionInDays": "logDays"}},
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
	for name, words := range map[string]string{"infra/modules/keyvault.bicep": "categoryGroup: 'audit'", appFile: "category: 'FunctionAppLogs'",
		"infra/modules/monitoring.bicep": "[for table in ['AppTraces', 'AppExceptions', 'AppRequests']: {"} {
		if !strings.Contains(p.bicep(name), words) {
			f.add("%s does not say %q", name, words)
		}
	}
	var endpoints []string
	for _, m := range regexp.MustCompile(`\{ service: '(\w+)', target: `).FindAllStringSubmatch(p.bicep("infra/modules/network.bicep"), -1) {
		endpoints = append(endpoints, m[1])
	}
	f.same("private endpoints", endpoints, []string{"blob", "table", "vault"})
	if text := p.bicep(mainFile); strings.Count(text, "public: !private\n") != 2 || !strings.Contains(text, "param purgeProtection bool = true\n") {
		f.add("%s: the private network does not close storage and vault, or purge protection is off", mainFile)
	}
}

// exempt are the types that the check without a compiler knows nothing of.
var exempt = []string{"Microsoft.Network/virtualNetworks", "Microsoft.Network/privateDnsZones", "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
	"Microsoft.Network/privateEndpoints", "Microsoft.Network/privateEndpoints/privateDnsZoneGroups", "Microsoft.OperationalInsights/workspaces/tables"}

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
