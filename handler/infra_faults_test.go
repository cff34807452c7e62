package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestInfraPoliciesSeeEveryFault breaks one text at a time and demands that a policy says so.
func TestInfraPoliciesSeeEveryFault(t *testing.T) {
	const (
		storage, vault, monitoring = "infra/modules/storage.bicep", "infra/modules/keyvault.bicep", "infra/modules/monitoring.bicep"
		network, params            = "infra/modules/network.bicep", "infra/main.bicepparam"
		owner                      = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635" // of everything
	)
	faults := []struct{ name, file, old, new, want string }{
		{"a setting is forgotten", appFile, "  CENSUS_SCHEDULE: censusSchedule\n", "", `programSettings`},
		{"a setting is misspelt", appFile, "  ENTRA_CERTIFICATE:", "  ENTRA_CERT:", `ENTRA_CERTIFICATE`},
		{"a setting that the program does not know", appFile, "  AZURE_CLIENT_ID:", "  LOG_LEVEL: 'debug'\n  AZURE_CLIENT_ID:", "LOG_LEVEL"},
		{"a setting that Flex refuses", appFile, "var hostSettings = {\n", "var hostSettings = {\n  WEBSITE_RUN_FROM_PACKAGE: '1'\n", "hostSettings"},
		{"the classic plan's settings on Flex", appFile, "flex ? {} : classicSettings)", "classicSettings)", "off Flex"},
		{"a destination's setting displaces the program's", appFile, "union(settings, vaultReferences, programSettings,", "union(programSettings, settings, vaultReferences,", "in this order"},
		{"a secret's name instead of a reference", appFile, "'@Microsoft.KeyVault(VaultName=${vaultName};SecretName=${s.value})'", "s.value", "Key Vault references"},
		{"another runtime", appFile, "runtime: { name: 'custom', version: '1.0' }", "runtime: { name: 'custom', version: '1' }", "runtime"},
		{"a schedule by another setting", "SyncNewUsers/function.json", "%SYNC_SCHEDULE%", "%SCHEDULE%", "SCHEDULE, which is no app setting"},
		{"a page for everybody", "Status/function.json", `"authLevel": "function"`, `"authLevel": "anonymous"`, "who has no key"},
		{"a page that does not say for whom", "Status/function.json", `      "authLevel": "function",
`, "", "who has no key"},
		{"a function by another name", "handler/serve.go", `"TakeCensus": frugal(a.`, `"Census": frugal(a.`, "functions that the program serves"},
		{"a table by another name", storage, "['signups', 'state']", "['signups', 'states']", "tables in Bicep"},
		{"a table renamed in the program", "handler/ledger/store.go", `state   = "state"`, `state   = "notes"`, "tables in Bicep"},
		{"another program is started", "host.json", `"bin/handler"`, `"./bin/handler"`, "bin/handler"},
		{"invocations longer than the classic plan's", "host.json", `"00:05:00"`, `"00:30:00"`, "ten minutes"},
		{"lines are sampled", "host.json", ";Trace", "", "samples traces"},
		{"lines are not logged", "host.json", `"Host.Function.Console": "Information"`, `"Host.Function.Console": "Warning"`, "does not log"},
		{"a package by another name", mainFile, "--src dist/signup-sync.zip", "--src dist/app.zip", "nextSteps"},
		{"the app comes before its roles", mainFile, "  dependsOn: [rbac]", "  // dependsOn: [rbac]", "does not wait"},
		{"a parameter without a word", mainFile, "@description('Tags of every resource.')\n", "", "describes"},
		{"a setting that signup-sync.yaml reads is not given", params, "  WELCOME_SECRET: 'welcome-secret'\n", "", "signup-sync.yaml reads"},
		{"a secret's name that no vault takes", params, "'welcome-secret'", "'welcome_secret'", "cannot be a secret's name"},

		{"a role under another's name", rbacFile, builtInRoles["storageBlobDataOwner"].id, owner, "storageBlobDataOwner is " + owner},
		{"a role on the resource group", rbacFile, "  scope: storage\n", "  scope: resourceGroup()\n", "not allowed"},
		{"a role more", rbacFile, "[roles.storageBlobDataOwner, ", "[roles.storageBlobDataOwner, roles.storageBlobDataContributor, ", "not allowed"},
		{"a role without its condition", rbacFile, "signsInVault ? [roles.keyVaultCryptoUser, roles", "true ? [roles.keyVaultCryptoUser, roles", "not allowed"},
		{"a role of the operator for the app", rbacFile, "concat([roles.keyVaultSecretsUser]", "concat([roles.keyVaultSecretsOfficer]", "not allowed"},
		{"a role less", rbacFile, ", roles.storageTableDataContributor]\n", "]\n", "does not give"},
		{"a role by its id", rbacFile, "roleDefinitions', roles.monitoringMetricsPublisher)", "roleDefinitions', '" + owner + "')", "ids outside"},
		{"a principal whose kind is left to be guessed", rbacFile, "    principalType: 'ServicePrincipal'\n", "", "has not one principalType"},
		{"a principal of another kind", rbacFile, "'ServicePrincipal'", "'User'", "of kind 'User'"},
		{"a role in another file", vault, "output id", "resource more 'Microsoft.Authorization/roleAssignments@2022-04-01' = {\n  name: 'more'\n}\n\noutput id", "alone may have"},

		{"a key is read", storage, "output name string = account.name", "output name string = account.listKeys().keys[0].value", "listKeys("},
		{"a connection string is given out", monitoring, "output insightsName string = insights.name", "output insightsName string = insights.properties.ConnectionString", "gives out insightsName"},
		{"a secret in the template", vault, "output id", "resource key 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = {\n  parent: vault\n  name: 'key'\n}\n\noutput id", "makes the secret"},
		{"shared keys", storage, "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", "allowSharedKeyAccess"},
		{"blobs for everyone", storage, "allowBlobPublicAccess: false", "allowBlobPublicAccess: true", "allowBlobPublicAccess"},
		{"packages for everyone", storage, "publicAccess: 'None'", "publicAccess: 'Blob'", "publicAccess"},
		{"an old TLS for storage", storage, "'TLS1_2'", "'TLS1_0'", "minimumTlsVersion"},
		{"an old TLS for the app", appFile, "      scmMinTlsVersion: '1.2'\n", "", "scmMinTlsVersion"},
		{"plain HTTP", appFile, "httpsOnly: true", "httpsOnly: false", "httpsOnly"},
		{"passwords for deployments", appFile, "['ftp', 'scm']", "['ftp']", "both ftp and scm"},
		{"passwords are allowed", appFile, "allow: false", "allow: true", "allow of passwords"},
		{"access policies in place of roles", vault, "enableRbacAuthorization: true", "enableRbacAuthorization: false", "enableRbacAuthorization"},
		{"a vault that can be purged", mainFile, "param purgeProtection bool = true", "param purgeProtection bool = false", "purge protection"},
		{"telemetry by key", monitoring, "DisableLocalAuth: true", "DisableLocalAuth: false", "DisableLocalAuth"},
		{"a private network with a public vault", mainFile, "public: !private\n    workspaceId", "public: true\n    workspaceId", "does not close"},
		{"a firewall that lets all in", storage, "defaultAction: public ? 'Allow' : 'Deny'", "defaultAction: 'Allow'", "defaultAction"},
		{"another check is switched off", network, "#disable-next-line BCP081", "#disable-next-line BCP036", "#disable"},
		{"a check is switched off elsewhere", storage, "resource blobs", "#disable-next-line BCP081\nresource blobs", "exempted"},

		{"an alert is gone", alertsFile, "name: 'no census'", "name: 'census'", "alerts: got"},
		{"an alert asks for a message that is not said", alertsFile, `msg="census done"`, `msg="census finished"`, "never says"},
		{"a message is changed in the program", "handler/pipeline/work.go", `"association failed; replay it after mending the cause"`, `"association failed"`, "never says"},
		{"an attribute is renamed in the program", "handler/pipeline/associate.go", `"destination left alone for a while", "destination", name`, `"destination left alone for a while", "name", name`, "have no destination"},
		{"an alert asks for an attribute that is not there", alertsFile, "extract('until=", "extract('till=", "have no till"},
		{"an alert asks for a member that is not there", alertsFile, "d.watermark", "d.mark", "no d.mark"},
		{"an alert asks for a list that is not there", alertsFile, "s.detectors", "s.detector", "no s.detector"},
		{"an alert asks for a function that is not there", alertsFile, `"Function.SyncNewUsers.User"`, `"Function.Sync.User"`, `no function "Sync"`},
		{"an alert for one function only", alertsFile, `in ("SyncNewUsers", "TakeCensus")`, `in ("SyncNewUsers")`, "functions: got"},
		{"what is missing is taken for what is found", alertsFile, "missing: true", "missing: false", "raised by nothing found"},
		{"nobody is told", alertsFile, "[people.id]", "[]", "people.id"},
		{"nobody says what to do", "docs/operations.md", "### runs fail\n", "### runs failing\n", `"runs fail"`},
		{"the page asks for a member that is not there", workbookFile, "d.associated", "d.done", "no d.done"},
		{"an alert asks for a member of a list that was put together", alertsFile, "tolong(d.throttled)", "tolong(d.throttle)", "no d.throttle"},
		{"the page asks for a census's member of a run", workbookFile, "s.graphCalls", "s.forgotten", "no s.forgotten"},
		{"the page asks for a message that is not said", workbookFile, "time is up; handing back users that were not begun", "time is up", "never says"},
		{"the page is of another component", workbookFile, `"<insights>"`, `"<component>"`, "asked of"},

		{"a setting in quotes that the program does not know", appFile, "  AZURE_CLIENT_ID:", "  'LOG_LEVEL': 'debug'\n  AZURE_CLIENT_ID:", "LOG_LEVEL"},
		{"a setting behind a spread", appFile, "var hostSettings = {\n", "var hostSettings = {\n  ...settings\n", "hostSettings"},
		{"two settings on a line", appFile, "  AZURE_CLIENT_ID:", "  AZURE_CLIENT_ID: '', LOG_LEVEL:", "LOG_LEVEL"},
		{"settings beside the list", appFile, "    siteConfig: {\n", "    siteConfig: {\n      appSettings: [{ name: 'LOG_LEVEL', value: 'debug' }]\n", "appSettings"},
		{"settings in a second resource", storage, "output id", "resource more 'Microsoft.Web/sites/config@2024-11-01' = {\n  name: 'app/appsettings'\n}\n\noutput id", "sites/config"},
		{"the object id of the identity for its client id", appFile, "AZURE_CLIENT_ID: identity.properties.clientId", "AZURE_CLIENT_ID: identity.properties.principalId", "AZURE_CLIENT_ID"},
		{"a secret in the open", params, "  CUSTOMERS_DSN: 'customers-dsn'\n}\n\n// … and what is no secret.\nparam settings = {\n", "}\n\nparam settings = {\n  CUSTOMERS_DSN: 'postgres://…'\n", "secret by its name"},
		{"secrets and settings change places", mainFile, "    vaultSettings: vaultSettings\n    settings: settings\n", "    vaultSettings: settings\n    settings: vaultSettings\n", "vaultSettings"},
		{"the schedules change places", mainFile, "    syncSchedule: syncSchedule\n", "    syncSchedule: censusSchedule\n", "syncSchedule"},
		{"the package by a storage key", appFile, "type: 'UserAssignedIdentity'\n            userAssignedIdentityResourceId: identity.id", "type: 'StorageAccountConnectionString'\n            storageAccountConnectionStringName: 'KEY'", "UserAssignedIdentity"},
		{"another module waits for the roles", mainFile, "  dependsOn: [rbac] // the app", "}\n\nmodule other 'modules/identity.bicep' = {\n  name: 'other'\n  dependsOn: [rbac] // the app", "does not wait"},
		{"a module from a registry", mainFile, "'modules/storage.bicep'", "'br/public:avm/res/storage/storage-account:0.9.0'", "modules"},
		{"the roles twice", mainFile, "module network ", "module more 'modules/rbac.bicep' = {\n  name: 'more'\n}\n\nmodule network ", "modules"},

		{"the app is the operator", mainFile, "    operatorId: operatorId\n", "    operatorId: identity.outputs.principalId\n", "operatorId"},
		{"the app signs in the vault without need", mainFile, "signsInVault: credential == 'certificate' && certificateStaysInVault", "signsInVault: true", "signsInVault"},
		{"a role in the other branch", rbacFile, "signsInVault ? [roles.keyVaultCryptoUser, roles.keyVaultCertificateUser] : []", "signsInVault ? [] : [roles.keyVaultCryptoUser, roles.keyVaultCertificateUser]", "appOnVault"},
		{"a role on the next line", rbacFile, "operatorUploads ? [roles.storageBlobDataContributor] : [])", "operatorUploads ? [roles.storageBlobDataContributor] : [],\n  [roles.storageBlobDataOwner])", "operatorOnStorage"},
		{"a role in another spelling", rbacFile, "resource operatorVaultRoles", "resource  more  'Microsoft.Authorization/roleAssignments@2022-04-01'  =  {\n  scope: storage\n  name: guid(storage.id)\n  properties: {\n    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.storageBlobDataOwner)\n    principalId: operatorId\n    principalType: operatorType\n  }\n}\n\nresource operatorVaultRoles", "more"},
		{"roles that the documentation does not have", "docs/security.md", "| | Key Vault Secrets User | the vault | a certificate", "| | Key Vault Reader | the vault | a certificate", "docs/security.md"},
		{"a role that the documentation has besides", "docs/security.md", "| | Monitoring Metrics Publisher |", "| | Storage Blob Data Reader | the storage account | nothing |\n| | Monitoring Metrics Publisher |", "docs/security.md"},

		{"a key that is not shown at once", monitoring, "output insightsName string = insights.name", "var name2 = insights.properties.ConnectionString\noutput insightsName string = name2", "ConnectionString"},
		{"a list with a key is given out", monitoring, "output insightsName string = insights.name", "output insightsName string[] = [\n  insights.properties.InstrumentationKey\n]", "InstrumentationKey"},
		{"a rule that is commented out", storage, "    allowSharedKeyAccess: false\n", "    /* later\n    allowSharedKeyAccess: false\n    */\n", "allowSharedKeyAccess"},
		{"a second account, less strict", vault, "output id", "resource more 'Microsoft.Storage/storageAccounts@2025-06-01' = [for i in range(0, 2): {\n  name: 'more${i}'\n  properties: {\n    allowSharedKeyAccess: false\n  }\n}]\n\noutput id", "minimumTlsVersion of more"},
		{"the vault's audit log is gone", vault, "categoryGroup: 'audit', enabled: true", "categoryGroup: 'audit', enabled: false", "audit"},
		{"tables are reached from everywhere", network, "  { service: 'table', target: storageId", "  // { service: 'table', target: storageId", "endpoints"},
		{"an alert that looks no further back than it is asked", alertsFile, "    window: 'PT30M'\n", "    window: 'PT15M'\n", "window"},
		{"a window that Azure does not know", alertsFile, "    window: 'PT30M'\n", "    window: 'PT25M'\n", "window"},
		{"a word of a quoted value", alertsFile, `reason=("[^"]*"|[^ ]+)`, `reason=([^ ]+)`, "reason is taken as"},
		{"a time with more digits than Kusto has", alertsFile, "todatetime(substring(tostring(d.watermark), 0, 19))", "todatetime(d.watermark)", "nine digits"},
		{"a property that Flex refuses", appFile, "      minTlsVersion: '1.2'\n", "      minTlsVersion: '1.2'\n      ftpsState: 'Disabled'\n", "ftpsState, which Flex refuses"},
		{"logs are kept for longer", monitoring, "'AppTraces'", "'AppMetrics'", "AppTraces"},
	}
	good := readProject(t)
	if problems := infraProblems(good); len(problems) > 0 {
		t.Fatalf("no fault can be told from these: %q", problems)
	}
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(good[c.file], c.old) {
				t.Fatalf("%s does not have %q any more", c.file, c.old)
			}
			bad := maps.Clone(good)
			bad[c.file] = strings.Replace(bad[c.file], c.old, c.new, 1)
			problems := infraProblems(bad)
			if !slices.ContainsFunc(problems, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("no policy says %q, but: %q", c.want, problems)
			}
		})
	}
}
