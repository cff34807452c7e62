package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/identity"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

// examine asks one question of an app that has these settings and this environment, and wants one line.
func examineOne(t *testing.T, ask func(context.Context, *patient) []finding, settings map[string]string, env environment) finding {
	t.Helper()
	p := &patient{system: system{getenv: func(name string) string { return settings[name] }}, app: &app{env: env, config: &Config{}}}
	all := ask(t.Context(), p)
	if len(all) != 1 {
		t.Fatalf("got %+v, want one line", all)
	}
	return all[0]
}

func TestCloudsThatDoNotFitTogether(t *testing.T) {
	for _, test := range []struct {
		name, authority, graph string
		state                  condition
		fix                    string
	}{
		{"the global cloud", "https://login.microsoftonline.com", "https://graph.microsoft.com", conditionOK, ""},
		{"the US government's", "https://login.microsoftonline.us", "https://graph.microsoft.us", conditionOK, ""},
		{"the US government's for defence", "https://login.microsoftonline.us", "https://dod-graph.microsoft.us", conditionOK, ""},
		{"China's", "https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn", conditionOK, ""},
		{"a token of one for the Graph of another", "https://login.microsoftonline.us", "https://graph.microsoft.com", conditionFail, `"GRAPH_URL=https://graph.microsoft.us"`},
		{"a Graph of one without its token endpoint", "https://login.example.com", "https://microsoftgraph.chinacloudapi.cn", conditionWarn, `"ENTRA_AUTHORITY=https://login.partner.microsoftonline.cn"`},
		{"of no cloud at all", "https://login.example.com", "https://graph.example.com", conditionWarn, `"GRAPH_URL=https://graph.microsoft.com"`},
		{"a simulation", "https://127.0.0.1:1", "https://127.0.0.1:1", conditionOK, ""},
	} {
		if f := examineOne(t, examineClouds, nil, environment{Authority: test.authority, Graph: test.graph}); f.State != test.state || !strings.Contains(f.Fix, test.fix) {
			t.Errorf("%s: got %+v", test.name, f)
		}
	}
}

func TestHowTheStorageAccountIsReached(t *testing.T) {
	const account, credential, client = "AzureWebJobsStorage__accountName", "AzureWebJobsStorage__credential", "AzureWebJobsStorage__clientId"
	for _, test := range []struct {
		name     string
		settings map[string]string
		line     string
		state    condition
	}{
		{"by identity", map[string]string{account: "ledger123", credential: "managedidentity", client: testClient, "AZURE_CLIENT_ID": testClient}, "AzureWebJobsStorage", conditionOK},
		{"by the system-assigned identity", map[string]string{account: "ledger123", credential: "managedidentity"}, "AzureWebJobsStorage", conditionOK},
		{"by any identity", map[string]string{account: "ledger123", client: testClient, "AZURE_CLIENT_ID": testClient}, credential, conditionWarn},
		{"by another identity than the rest", map[string]string{account: "ledger123", credential: "managedidentity", "AZURE_CLIENT_ID": testClient}, client, conditionWarn},
		{"by a key", map[string]string{"AzureWebJobsStorage": "AccountName=a;AccountKey=b"}, "AzureWebJobsStorage", conditionWarn},
		{"the emulator, and a real tenant", map[string]string{"AzureWebJobsStorage": "UseDevelopmentStorage=true"}, "AzureWebJobsStorage", conditionWarn},
		{"the emulator, and a simulated tenant", map[string]string{"AzureWebJobsStorage": "UseDevelopmentStorage=true", "GRAPH_URL": "https://127.0.0.1:1"}, "AzureWebJobsStorage", conditionOK},
		{"not at all", map[string]string{"LEDGER": "memory"}, "LEDGER", conditionWarn},
	} {
		f := examineOne(t, examineStorage, test.settings, environment{})
		if f.Name != test.line || f.State != test.state || (f.State == conditionWarn) != strings.Contains(f.Fix, "appsettings set") {
			t.Errorf("%s: got %+v", test.name, f)
		}
	}
}

// TestAMisspelledNameInTheEnvironment is without --settings, where most names are nobody's business.
func TestAMisspelledNameInTheEnvironment(t *testing.T) {
	t.Chdir(t.TempDir())
	settings := map[string]string{"ENTRA_CLIENT_ID": testClient, "ENTRA_CLIENT_IDS": "x"}
	p := &patient{system: system{getenv: func(name string) string { return settings[name] }, environ: func() []string {
		return []string{"PATH=/bin", "ENTRA_CLIENT_IDS=x", "ENTRA_CLIENT_ID=" + testClient, "ENTRA_TENNANT_ID=" + testTenant, "HOME=/root", "AZURE_TENANT_ID=x"}
	}}}
	all := examineUnknown(t.Context(), p)
	if len(all) != 1 || all[0].Name != "unknown ENTRA_TENNANT_ID" || !strings.Contains(all[0].Why, "ENTRA_TENANT_ID is not set") || strings.Contains(all[0].Fix, testTenant) {
		t.Errorf("got %+v", all)
	}
}

func TestTheLongestPauseOfASchedule(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0 * * * * *":          time.Minute,
		"*/10 * * * * *":       10 * time.Second,
		"0 0 8-18 * * MON-FRI": 62 * time.Hour, // from Friday evening to Monday morning
		"0 0 3 1 * *":          31 * 24 * time.Hour,
		"0 0 3 1 1 *":          365 * 24 * time.Hour,
	} {
		s, err := devhost.ParseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := longestPause(s, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestWhatIsSaidOfCertificates(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	version := func(id string, days int, change func(*identity.CertificateStatus)) identity.CertificateStatus {
		v := identity.CertificateStatus{Version: id, Thumbprint: "AB12", NotAfter: now.AddDate(0, 0, days)}
		if change != nil {
			change(&v)
		}
		return v
	}
	used := func(v *identity.CertificateStatus) { v.InUse, v.InVault = true, true }
	refused := func(v *identity.CertificateStatus) { v.Refused = "aadsts700027" }
	p := &patient{system: system{getenv: func(string) string { return "" }}, app: &app{env: environment{KeyVault: "https://contoso.vault.azure.net", Certificate: "signup-sync"}}}
	for _, test := range []struct {
		name     string
		versions []identity.CertificateStatus
		want     []string // the states and names, and a part of what is said
		says     string
	}{
		{"none", nil, []string{"fail certificate"}, "there is no version of signup-sync"},
		{"one in use", []identity.CertificateStatus{version("a", 90, used)}, []string{"ok certificate"}, "its key never leaves the vault, and has 90 days left"},
		{"one that ends in 29 days", []identity.CertificateStatus{version("a", 29, used)}, []string{"warn certificate"}, "29 days left"},
		{"one that has ended", []identity.CertificateStatus{version("a", -1, nil)}, []string{"fail certificate"}, "has expired on 2026-01-01"},
		{"one that was not tried", []identity.CertificateStatus{version("a", 90, nil)}, []string{"warn certificate"}, "no version is in use"},
		{"one of which nothing was read", []identity.CertificateStatus{{Version: "a", InUse: true}}, []string{"warn certificate"}, "is not known"},
		{"a newer one that is refused", []identity.CertificateStatus{version("b", 90, refused), version("a", 60, used)}, []string{"ok certificate", "warn newest certificate"}, "(aadsts700027)"},
		{"a newer one that is not valid yet", []identity.CertificateStatus{version("b", 90, nil), version("a", 60, used)}, []string{"ok certificate"}, "60 days left"},
	} {
		var got, said []string
		for _, f := range p.judgeCertificates(test.versions, nil, now) {
			got, said = append(got, string(f.State)+" "+f.Name), append(said, f.Why)
			if f.State != conditionOK && !strings.Contains(f.Fix, "--vault-name contoso --name signup-sync") {
				t.Errorf("%s: the fix is %s", test.name, f.Fix)
			}
		}
		if strings.Join(got, ", ") != strings.Join(test.want, ", ") || !strings.Contains(strings.Join(said, "\n"), test.says) {
			t.Errorf("%s: got %v, %v", test.name, got, said)
		}
	}
}

// TestACertificateWithoutAToken is about who is to blame where there is no token.
func TestACertificateWithoutAToken(t *testing.T) {
	p := &patient{system: system{getenv: func(string) string { return "" }}, app: &app{env: environment{KeyVault: "https://contoso.vault.azure.net", Certificate: "signup-sync"}}}
	forbidden := &signup.Error{Class: signup.Systemic, Code: "key-vault", Detail: "forbidden"}
	elsewhere := &signup.Error{Class: signup.Systemic, Code: "aadsts90002"}
	read := identity.CertificateStatus{Version: "a", Thumbprint: "AB12", NotAfter: time.Now().AddDate(1, 0, 0)}
	inVault := read
	inVault.InVault = true
	for _, test := range []struct {
		name    string
		version identity.CertificateStatus
		refused error
		state   condition
		fix     string
		not     string
	}{
		{"another's fault", read, elsewhere, conditionWarn, "Mend identity, token, first.", "az "},
		{"a key that may not be signed with", inVault, forbidden, conditionFail, `--role "Key Vault Crypto User"`, "Secrets User"},
		{"a key that may not be read", read, forbidden, conditionFail, `--role "Key Vault Secrets User"`, "Crypto User"},
		{"one that is disabled, or forbidden", identity.CertificateStatus{Version: "a"}, forbidden, conditionFail, "set-attributes --vault-name contoso --name signup-sync --version a --enabled true", "()"},
	} {
		all := p.judgeCertificates([]identity.CertificateStatus{test.version}, test.refused, time.Now())
		if len(all) != 1 || all[0].State != test.state || !strings.Contains(all[0].Fix, test.fix) || strings.Contains(all[0].Fix+all[0].Why, test.not) {
			t.Errorf("%s: got %+v", test.name, all)
		}
	}
}

// TestTheTokensCodesHaveFixes is for those with something to do that is exactly known.
func TestTheTokensCodesHaveFixes(t *testing.T) {
	p := &patient{system: system{getenv: func(string) string { return "" }}, app: &app{env: environment{Tenant: testTenant, Client: testClient, Authority: defaultAuthority, KeyVault: "https://contoso.vault.azure.net", Certificate: "signup-sync"}}}
	for code, want := range map[string]string{
		"aadsts700016":  "ENTRA_CLIENT_ID=",
		"aadsts90002":   "ENTRA_TENANT_ID=",
		"aadsts7000222": "New client secret",
		"aadsts700027":  "az ad app credential reset --id " + testClient,
		"aadsts65001":   defaultAuthority + "/" + testTenant + "/adminconsent?client_id=" + testClient,
		"aadsts700213":  "Federated credentials",
		"aadsts900382":  "ENTRA_AUTHORITY=",
		"no-az":         "https://aka.ms/azure-cli",
		"no-login":      "az login",
		"key-vault":     "Mend identity, certificate, first.",
		"aadsts700024":  "timedatectl",
		"aadsts7000112": "az ad sp update --id " + testClient + " --set accountEnabled=true",
		"aadsts500014":  "az ad sp update --id " + graphApp,
		"aadsts7000214": "az keyvault certificate create",
		"aadsts70025":   "Federated credentials",
		"aadsts500011":  "GRAPH_URL=",
		"no-token":      "curl -sS -o /dev/null -w '%{http_code}\\n' '" + defaultAuthority + "/" + testTenant + "/v2.0/.well-known/openid-configuration'",
		"aadsts1":       "https://login.microsoftonline.com/error",
	} {
		if got := p.tokenFix(code); !strings.Contains(got, want) {
			t.Errorf("%s: got %s", code, got)
		}
	}
}

// TestATokenOfAnotherTenant is of a login that leads elsewhere.
func TestATokenOfAnotherTenant(t *testing.T) {
	for _, grant := range []entra.Grant{{Tenant: testClient, Client: testClient}, {Tenant: testTenant, Client: testTenant}} {
		p := &patient{app: &app{env: environment{Tenant: testTenant, Client: testClient}}}
		_, _ = p.granted.get(t.Context(), func(context.Context) (entra.Grant, error) { return grant, nil })
		if all := examineToken(t.Context(), p); len(all) != 1 || all[0].State != conditionFail {
			t.Errorf("%+v: got %+v", grant, all)
		}
	}
	p := &patient{app: &app{env: environment{Tenant: testTenant}, config: &Config{}}}
	_, _ = p.organization.get(t.Context(), func(context.Context) (entra.Organization, error) {
		return entra.Organization{ID: testClient, Kind: entra.ExternalTenant}, nil
	})
	if all := examineKind(t.Context(), p); len(all) != 1 || all[0].State != conditionFail || !strings.Contains(all[0].Fix, "ENTRA_TENANT_ID="+testClient) {
		t.Errorf("got %+v", all)
	}
}

// TestATokenThatCannotBeRead is one all the same, and only the comparison of permissions is left to a person.
func TestATokenThatCannotBeRead(t *testing.T) {
	p := &patient{app: &app{env: environment{Client: testClient}, config: &Config{}}}
	_, _ = p.granted.get(t.Context(), func(context.Context) (entra.Grant, error) {
		return entra.Grant{}, &signup.Error{Class: signup.Permanent, Code: tokenUnreadable}
	})
	if all := examineToken(t.Context(), p); len(all) != 1 || all[0].State != conditionOK {
		t.Errorf("token: got %+v", all)
	}
	if all := permissionExaminations[0].ask(t.Context(), p); len(all) != 1 || all[0].State != conditionWarn || !strings.Contains(all[0].Fix, "bin/handler doctor --permissions") {
		t.Errorf("permissions: got %+v", all)
	}
}

func TestWhatAConfigurationNeeds(t *testing.T) {
	const something = "destinations: [{ name: members, connector: group, settings: { groups: [" + simGroup + "] } }]\n"
	for text, want := range map[string]entra.Needs{
		something: {Audit: true, Groups: true},
		"sync: { detectors: [directory, signUps] }\n" + something:                                                                           {SignUps: true, Groups: true},
		"profile: { displayName: user.givenName }":                                                                                          {Audit: true, Profile: true},
		"profile: { userPrincipalName: user.givenName, userPrincipalNameDomain: fabrikam.example }":                                         {Audit: true, Profile: true, Domain: true},
		"profile: { attributes: { city1: user.city } }":                                                                                     {Audit: true, Profile: true, LookUp: true},
		"profile: { extensionsApp: " + testClient + ", attributes: { city1: user.city } }":                                                  {Audit: true, Profile: true},
		"profile: { attributes: { extensionAttribute1: user.city } }":                                                                       {Audit: true, Profile: true},
		"signups: { entitlement: true, migrated: user.attributes.legacyId != \"\" }\n" + something:                                          {Audit: true, LookUp: true, Groups: true, Entitlement: true},
		"profile: { displayName: user.attributes.nick }":                                                                                    {Audit: true, Profile: true, LookUp: true},
		"destinations: [{ name: a, connector: accessPackage, settings: { accessPackage: " + simPackage + ", policy: " + simPolicy + " } }]": {Audit: true, AccessPackages: true},
	} {
		c, err := parseConfig("x.yaml", []byte(text), func(string) string { return "" }, connectorChecks{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, needsOf(c)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestWhatToDoAboutADestination(t *testing.T) {
	p := &patient{system: system{getenv: func(string) string { return "" }}, app: &app{env: environment{Config: "x/signup-sync.yaml"}}}
	for _, test := range []struct{ connector, code, want string }{
		{"serviceBus", "unauthorized", `--assignee "$(az ad signed-in-user show --query id -o tsv)" --role "Azure Service Bus Data Sender"`},
		{"storageQueue", "forbidden", `--role "Storage Queue Data Message Sender"`},
		{"eventGrid", "unauthorized", `--role "EventGrid Data Sender"`},
		{"stripe", "unauthorized", "signup-sync.yaml names at destinations > it > settings to a new key"},
		{"stripe", "timeout", "Look up timeout in docs/operations.md"},
		{"sql", "", "Look up the error in docs/operations.md"},
	} {
		if got := p.destinationFix(DestinationConfig{Name: "it", Connector: test.connector}, test.code); !strings.Contains(got, test.want) || !strings.Contains(got, "docs/destinations.md, "+test.connector) {
			t.Errorf("%s, %s: got %s", test.connector, test.code, got)
		}
	}
}

func TestWhomADetectorHasShown(t *testing.T) {
	var recent pipeline.Lags
	recent.Add(4 * time.Minute)
	d := pipeline.DetectorStatus{Seen: pipeline.Sightings{First: 98, Also: []pipeline.After{{Detector: "directory", Users: 7}}}, Recent: recent}
	if got, want := sightings(d), "it was the first to show 98 users, and showed 7 after directory; lately 99 of 100 within 4m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestABacklogThatIsTooLongToCount(t *testing.T) {
	now := time.Now()
	p := &patient{system: system{getenv: func(string) string { return "" }}, app: &app{}}
	all := examineBacklog(p, pipeline.Status{Now: now, Backlog: pipeline.Backlog{Due: 900, Waiting: 100, More: true, Oldest: now}})
	if len(all) != 1 || all[0].State != conditionWarn || !strings.Contains(all[0].Why, "900 users and more") {
		t.Errorf("got %+v", all)
	}
}

// docLine is a line of the table in docs/operations.md: its area, or none for the one above, and its names.
var docLine = regexp.MustCompile(`(?m)^\| (\w*) *\| ([^|]*) \|`)

// explained reports that docs/operations.md has the line in its table.
func explained(t *testing.T) func(area, name string) bool {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| area | line | it is not ok when |")
	if table, _, _ = strings.Cut(table, "\n\n"); !found {
		t.Fatal("docs/operations.md has no table of the doctor's lines")
	}
	names, area := map[string][]*regexp.Regexp{}, ""
	for _, m := range docLine.FindAllStringSubmatch(table, -1) {
		if m[1] != "" {
			area = m[1]
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[2], -1) {
			pattern := strings.NewReplacer("NAME", ".+", "…", ".*").Replace(regexp.QuoteMeta(name[1]))
			names[area] = append(names[area], regexp.MustCompile("^"+pattern+"$"))
		}
		for words, pattern := range map[string]string{"a setting's name": "^[A-Za-z_]+$", "a place in signup-sync.yaml": `^signup-sync\.yaml:\d+:\d+$`, "the detector's name": "^(audit|directory|signUps)$", "the destination's name": "^[a-z][a-z0-9-]*$"} {
			if strings.Contains(m[2], words) {
				names[area] = append(names[area], regexp.MustCompile(pattern))
			}
		}
	}
	return func(area, name string) bool {
		for _, pattern := range names[area] {
			if pattern.MatchString(name) {
				return true
			}
		}
		return false
	}
}
