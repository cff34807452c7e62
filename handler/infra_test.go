package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestInfraFollowsThePolicies holds infra/ to what neither Bicep's compiler nor its types know: the program's settings and
// names, least privilege, and that no secret is given out.
func TestInfraFollowsThePolicies(t *testing.T) {
	for _, problem := range infraProblems(readProject(t)) {
		t.Error(problem)
	}
}

// policies are what infra/ is held to, each a sentence for every breach.
var policies = []func(project, *findings){settingsPolicy, namesPolicy, packagePolicy, parametersPolicy, modulesPolicy, rolesPolicy, secretsPolicy, hardeningPolicy, exemptionsPolicy,
	alertsPolicy, workbookPolicy}

// findings are the breaches found.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// same finds what only one of two lists has; neither may be empty.
func (f *findings) same(what string, got, want []string) {
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if len(got) == 0 || !slices.Equal(got, want) {
		f.add("%s: got %q, want %q", what, got, want)
	}
}

func infraProblems(p project) []string {
	var f findings
	for _, policy := range policies {
		policy(p, &f)
	}
	return f
}

const appFile, mainFile = "infra/modules/functionapp.bicep", "infra/main.bicep"

// notDeployed are the program's settings that infra/ does not set, and why.
var notDeployed = map[string]string{
	"AzureWebJobsStorage":                    "a connection string has a key in it; the account is reached by identity",
	"AzureWebJobsStorage__tableServiceUri":   "of other clouds",
	"LEDGER":                                 "the others than tables are for one machine",
	"ENTRA_CLIENT_SECRET":                    "for local tests",
	"ENTRA_AUTHORITY":                        "of other clouds",
	"GRAPH_URL":                              "of other clouds",
	"SIGNUP_SYNC_CONFIG":                     "the package has signup-sync.yaml where it is looked for",
	"EXTRA_CA_FILE":                          "for simulations",
	"SIGNUP_SYNC_CLOCK":                      "for simulations",
	"AzureFunctionsJobHost__functionTimeout": "host.json has it",

	"OTEL_EXPORTER_OTLP_ENDPOINT":                       "of who has a collector: by the parameter settings",
	"OTEL_EXPORTER_OTLP_HEADERS":                        "… by the parameter vaultSettings",
	"OTEL_EXPORTER_OTLP_PROTOCOL":                       "there is one only",
	"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "there is one only",
	"OTEL_SERVICE_NAME":                                 "as the endpoint",
	"OTEL_RESOURCE_ATTRIBUTES":                          "as the endpoint",
	"OTEL_TRACES_SAMPLER":                               "as the endpoint",
	"OTEL_TRACES_SAMPLER_ARG":                           "as the endpoint",
	"OTEL_SDK_DISABLED":                                 "as the endpoint",
	"FUNCTIONS_CUSTOMHANDLER_PORT":                      "set by the host",
	"FUNCTIONS_APP_ROOT_PATH":                           "set by the host",
	"IDENTITY_ENDPOINT":                                 "set by Azure",
}

// settingsPolicy: the app settings are the program's, those of the host that telemetry by identity needs, and on the classic plan
// the four that Flex refuses.
func settingsPolicy(p project, f *findings) {
	text := p.bicep(appFile)
	var want []string
	for _, e := range environmentDocs {
		if _, not := notDeployed[e.name]; !not {
			want = append(want, e.name)
		}
	}
	got := keys(declared(text, "programSettings"))
	f.same("programSettings against environmentDocs less notDeployed", got, want)
	for name := range notDeployed {
		if !slices.ContainsFunc(environmentDocs, func(e struct{ name, doc string }) bool { return e.name == name }) {
			f.add("notDeployed has %s, which the program does not know", name)
		}
	}
	f.same("hostSettings", keys(declared(text, "hostSettings")), []string{"APPLICATIONINSIGHTS_CONNECTION_STRING", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"})
	f.same("classicSettings", keys(declared(text, "classicSettings")),
		[]string{"FUNCTIONS_EXTENSION_VERSION", "FUNCTIONS_WORKER_RUNTIME", "WEBSITE_RUN_FROM_PACKAGE", "WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID"})
	// The program's come last, so that a destination's setting of the same name cannot displace one.
	if !strings.Contains(text, "properties: union(settings, vaultReferences, programSettings, hostSettings, flex ? {} : classicSettings)\n") {
		f.add("%s: the app settings are not made of settings, vaultReferences, programSettings, hostSettings and, off Flex, classicSettings, in this order", appFile)
	}
	if !strings.Contains(text, "'@Microsoft.KeyVault(VaultName=${vaultName};SecretName=${s.value})'") {
		f.add("%s: vaultReferences are no Key Vault references", appFile)
	}
	if strings.Contains(text, "principalId") {
		f.add("%s: AZURE_CLIENT_ID and the like are the identity's client id, no principalId", appFile)
	}
	lists := 0
	for _, name := range p.files("infra/", ".bicep") {
		for _, r := range p.resources(name) {
			if r.kind == "Microsoft.Web/sites/config" {
				lists++
			}
			if len(r.values("appSettings"))+len(r.values("connectionStrings")) > 0 {
				f.add("%s: %s has appSettings beside the list", name, r.symbol)
			}
		}
	}
	if lists != 1 {
		f.add("infra/ has %d Microsoft.Web/sites/config, want the app settings alone", lists)
	}
	settingsAreEnough(got, f)
}

// settingsAreEnough lets the program read the settings, with values such as Bicep gives them.
func settingsAreEnough(names []string, f *findings) {
	values := map[string]string{"AzureWebJobsStorage__accountName": "stabc", "AzureWebJobsStorage__credential": "managedidentity", "AzureWebJobsStorage__clientId": testClient,
		"AZURE_CLIENT_ID": testClient, "ENTRA_TENANT_ID": testTenant, "ENTRA_CLIENT_ID": testClient, "ENTRA_CERTIFICATE": "signup-sync", "KEY_VAULT_URL": "https://kv-abc.vault.azure.net/"}
	for _, credential := range []string{"certificate", "federated"} {
		_, err := parseEnvironment(func(name string) string {
			if name == "ENTRA_CREDENTIAL" {
				return credential
			}
			if !slices.Contains(names, name) {
				return ""
			}
			return values[name]
		})
		if err != nil {
			f.add("with programSettings alone, ENTRA_CREDENTIAL=%s, the program says: %v", credential, err)
		}
	}
}

// functionNames are those of the package: the folders that have a function.json.
func functionNames() (names []string) {
	for _, name := range packageFiles {
		if dir, ok := strings.CutSuffix(name, "/function.json"); ok {
			names = append(names, dir)
		}
	}
	return names
}

// namesPolicy: functions, settings of schedules and tables have one name each, wherever they stand.
func namesPolicy(p project, f *findings) {
	settings := keys(declared(p.bicep(appFile), "programSettings"))
	for _, name := range functionNames() {
		if strings.Contains(p[name+"/function.json"], "httpTrigger") {
			if level := regexp.MustCompile(`"authLevel": "(\w+)"`).FindStringSubmatch(p[name+"/function.json"]); level == nil || level[1] != "function" {
				f.add("%s/function.json lets in who has no key", name)
			}
			continue
		}
		found := regexp.MustCompile(`"%(\w+)%"`).FindAllStringSubmatch(p[name+"/function.json"], -1)
		if len(found) == 0 {
			f.add("%s/function.json has no schedule by setting", name)
		}
		for _, m := range found {
			if !slices.Contains(settings, m[1]) {
				f.add("%s/function.json reads %s, which is no app setting", name, m[1])
			}
		}
	}
	var served []string
	for _, m := range regexp.MustCompile(`"(\w+)": (?:frugal\()?a\.`).FindAllStringSubmatch(p["handler/serve.go"], -1) {
		served = append(served, m[1])
	}
	f.same("functions that the program serves, against the package", served, functionNames())

	var tables []string
	for _, m := range regexp.MustCompile(`(?m)^\t(?:signups|state) += "(\w+)"`).FindAllStringSubmatch(p["handler/ledger/store.go"], -1) {
		tables = append(tables, m[1])
	}
	m := regexp.MustCompile(`tables@[^']+' = \[for table in \[(.+)\]: \{`).FindStringSubmatch(p.bicep("infra/modules/storage.bicep"))
	if m == nil {
		f.add("infra/modules/storage.bicep has no list of tables")
		return
	}
	f.same("tables in Bicep, against the ledger's", strings.Split(strings.ReplaceAll(m[1], "'", ""), ", "), tables)
}

// flexRefuses are members of siteConfig with which Flex Consumption refuses the whole app, in some regions (error 51021).
var flexRefuses = []string{"alwaysOn", "ftpsState", "functionAppScaleLimit", "functionsRuntimeScaleMonitoringEnabled", "javaVersion", "linuxFxVersion", "netFrameworkVersion",
	"nodeVersion", "phpVersion", "powerShellVersion", "preWarmedInstanceCount", "pythonVersion", "use32BitWorkerProcess", "windowsFxVersion"}

// packagePolicy: what is deployed is what the plans expect.
func packagePolicy(p project, f *findings) {
	var host struct {
		FunctionTimeout string
		CustomHandler   struct {
			Description struct{ DefaultExecutablePath string }
		}
		Logging struct {
			LogLevel            map[string]string
			ApplicationInsights struct {
				SamplingSettings struct{ ExcludedTypes string }
			}
		}
	}
	if err := json.Unmarshal([]byte(p["host.json"]), &host); err != nil {
		f.add("host.json: %v", err)
	}
	if host.CustomHandler.Description.DefaultExecutablePath != "bin/handler" {
		f.add("host.json does not start bin/handler, which the package has")
	}
	limit, err := time.Parse(time.TimeOnly, host.FunctionTimeout)
	if err != nil || limit.Hour() > 0 || limit.Minute() > 10 {
		f.add("host.json: functionTimeout %q is not within the classic plan's ten minutes", host.FunctionTimeout)
	}
	if !strings.Contains(host.Logging.ApplicationInsights.SamplingSettings.ExcludedTypes, "Trace") {
		f.add("host.json samples traces, of which alerts are made: exclude Trace")
	}
	if host.Logging.LogLevel["default"] != "Information" || host.Logging.LogLevel["Host.Function.Console"] != "Information" {
		f.add("host.json does not log the program's lines and summaries")
	}
	field, _ := reflect.TypeFor[packageCommand]().FieldByName("Out")
	out := field.Tag.Get("default")
	steps := declared(strings.ReplaceAll(p.bicep(mainFile), "output nextSteps array", "var nextSteps"), "nextSteps")
	for _, words := range []string{"--src " + out, "-f " + out, "-n " + path.Base(out)} {
		if !strings.Contains(steps, words) {
			f.add("%s: nextSteps do not say %q", mainFile, words)
		}
	}
	app := p.bicep(appFile)
	for _, words := range []string{"${packageContainer}/" + path.Base(out) + "'\n", "runtime: { name: 'custom', version: '1.0' }\n", "type: 'UserAssignedIdentity'\n", "flex ? { name: 'FC1', tier: 'FlexConsumption' } : { name: 'Y1', tier: 'Dynamic' }\n"} {
		if !strings.Contains(app, words) {
			f.add("%s does not say %q", appFile, words)
		}
	}
	for _, r := range p.resources(appFile) {
		for _, name := range flexRefuses {
			if v := r.values(name); len(v) > 0 {
				f.add("%s: %s has %s, which Flex refuses", appFile, r.symbol, name)
			}
		}
	}
	if !slices.ContainsFunc(p.modules(), func(m bicepModule) bool {
		return m.path == "modules/functionapp.bicep" && strings.Contains(m.body, "\n  dependsOn: [rbac]")
	}) {
		f.add("%s: the Function App does not wait for its roles", mainFile)
	}
}

// parametersPolicy: each is described, and what the shipped signup-sync.yaml reads is given.
func parametersPolicy(p project, f *findings) {
	for _, name := range p.files("infra/", ".bicep") {
		text := p.bicep(name)
		params := regexp.MustCompile(`(?m)^param (\w+)`).FindAllStringSubmatch(text, -1)
		described := regexp.MustCompile(`(?m)^@description\('.+'\)\n(?:@.+\n)*param (\w+)`).FindAllStringSubmatch(text, -1)
		if len(params) == 0 || len(described) != len(params) {
			f.add("%s has %d parameters, and describes %d", name, len(params), len(described))
		}
	}
	values := p.bicep("infra/main.bicepparam")
	given := keys(declared(values, "vaultSettings"))
	var secret []string
	for _, m := range regexp.MustCompile(`(?m)^  \w+: '(.*)'$`).FindAllStringSubmatch(declared(values, "vaultSettings"), -1) {
		if !certificateName.MatchString(m[1]) { // the rule for secrets' names as well
			f.add("infra/main.bicepparam: %q cannot be a secret's name", m[1])
		}
		secret = append(secret, m[1])
	}
	if len(secret) != len(given) {
		f.add("infra/main.bicepparam: %d of %d vaultSettings have a secret's name", len(secret), len(given))
	}
	for _, name := range keys(declared(values, "settings")) {
		if regexp.MustCompile(`KEY|SECRET|PASSWORD|TOKEN|DSN|CONNECTION`).MatchString(name) {
			f.add("infra/main.bicepparam: %s is a secret by its name, and stands in settings", name)
		}
	}
	read := map[string]bool{}
	for line := range strings.Lines(p["signup-sync.yaml"]) {
		line, _, _ = strings.Cut(line, "# ")
		for _, m := range regexp.MustCompile(`\$\{(\w+)\}`).FindAllStringSubmatch(line, -1) {
			read[m[1]] = true
		}
	}
	f.same("infra/main.bicepparam, against what signup-sync.yaml reads", append(given, keys(declared(values, "settings"))...), slices.Collect(maps.Keys(read)))
}

// modulesPolicy: main.bicep uses each file in modules/ once and nothing from elsewhere, and hands on its parameters under their
// own names; a module's own name alone is made of main's.
func modulesPolicy(p project, f *findings) {
	params := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^param (\w+)`).FindAllStringSubmatch(p.bicep(mainFile), -1) {
		params[m[1]] = m[1] != "name"
	}
	var used []string
	for _, m := range p.modules() {
		used = append(used, "infra/"+m.path)
		for _, e := range entries(bracketed(m.body, max(0, strings.Index(m.body, " params: ")))) {
			if params[e.key] && e.value != e.key || e.value == "" {
				f.add("%s: %s is given %s as %s", mainFile, m.symbol, e.value, e.key)
			}
		}
	}
	f.same("modules that "+mainFile+" uses, against those that there are", used, p.files("infra/modules/", ".bicep"))
	for _, words := range []string{"appPrincipalId: identity.outputs.principalId\n", "signsInVault: credential == 'certificate' && certificateStaysInVault\n", "operatorUploads: !flex\n"} {
		if !strings.Contains(p.bicep(mainFile), words) {
			f.add("%s does not say %q", mainFile, words)
		}
	}
}
