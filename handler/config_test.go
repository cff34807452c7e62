package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"signup-sync/handler/signup"
)

var updateConfig = flag.Bool("update-config", false, "write the expected errors in testdata/config anew")

// testChecks stands for the connectors.
var testChecks = connectorChecks{
	Kinds: []string{"mailchimp", "sql", "stripe", "webhook"},
	Settings: func(kind string, settings, record map[string]any) []error {
		var errs []error
		if _, ok := settings["sekret"]; ok {
			errs = append(errs, fmt.Errorf("settings.sekret: not known; did you mean secret?"))
		}
		if nested, ok := settings["nested"].(map[string]any); ok && nested["deep"] == 1 {
			errs = append(errs, fmt.Errorf("settings.nested.deep: wants a string"))
		}
		if url, _ := settings["url"].(string); kind == "webhook" && url == "" {
			errs = append(errs, fmt.Errorf("settings.url: missing"))
		} else if strings.Contains(url, "indiscreet") {
			errs = append(errs, fmt.Errorf("settings.url: %s and %q", url, url))
		}
		return errs
	},
	Record: func(kind string, record map[string]any) []error {
		if _, ok := record["text"]; ok {
			return []error{fmt.Errorf("record.text: not known")}
		}
		return nil
	},
}

var testSettings = map[string]string{"STRIPE_API_KEY": "sk_test_fromtheenvironment", "MAILCHIMP_API_KEY": "00112233445566778899aabbccddeeff-us21",
	"CRM_DSN": "postgres://me:hunter2@db/crm", "KEY_VAULT": "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s)", "CRM_PASSWORD": "correct horse"}

func getTestSetting(name string) string { return testSettings[name] }

func TestConfigOfTheDesignParses(t *testing.T) {
	data, err := os.ReadFile("testdata/config/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseConfig("signup-sync.yaml", data, getTestSetting, testChecks)
	if err != nil {
		t.Fatalf("parseConfig:\n%v", err)
	}
	quiet := BreakerConfig{Pause: 30 * time.Second}
	want := &Config{
		Sync:    SyncConfig{Overlap: time.Hour, FirstLookBack: 24 * time.Hour, AuditRetention: 168 * time.Hour, Detectors: []string{"audit", "directory"}},
		Signups: SignupsConfig{Origins: []signup.Origin{signup.SelfService, signup.EmailVerified}, Guests: "redeemed"},
		Profile: ProfileConfig{
			DisplayName:       `user.givenName + " " + user.surname`,
			UserPrincipalName: `slug(user.givenName + "." + user.surname) + "." + short(user.id)`,
			Attributes:        map[string]Expression{"stripeCustomerId": "accounts.billing?.id"},
		},
		Destinations: []DestinationConfig{
			{Name: "billing", Connector: "stripe", Mode: "live", Breaker: quiet, Settings: map[string]any{"apiKey": "sk_test_fromtheenvironment"},
				Record: map[string]any{"email": "user.email", "name": "user.displayName"}},
			{Name: "newsletter", Connector: "mailchimp", Mode: "observe", Breaker: quiet, When: "user.attributes.marketingOptIn == true",
				Settings: map[string]any{"apiKey": "00112233445566778899aabbccddeeff-us21", "audience": "1a2b3c"},
				Record:   map[string]any{"mergeFields": map[string]any{"FNAME": "user.givenName"}}},
			{Name: "crm", Connector: "sql", Mode: "live", Breaker: quiet,
				Settings: map[string]any{"driver": "postgres", "dsn": "postgres://me:hunter2@db/crm", "table": "customers", "key": "entra_id"},
				Record:   map[string]any{"email": "user.email", "stripe_id": "accounts.billing.id"}},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Config{}, "Mapping")); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"billing", "newsletter", "crm"}, got.Mapping.Names()); diff != "" {
		t.Errorf("mapping (-want +got):\n%s", diff)
	}
}

func TestConfigDefaultsStandForWhatIsAbsent(t *testing.T) {
	const text = "\ufeffprofile:\r\n  displayName: user.givenName\r\nsync:\r\n  overlap: 0\r\ndestinations:\r\n" +
		"  - {name: a, connector: sql, when: true, rate: 5, burst: 2, concurrency: 3, breaker: {failures: 2, pause: 10m}, settings: {escaped: \"$${x} ${CRM_PASSWORD}\", n: 1, l: [\"${CRM_PASSWORD}\"]}}\r\n"
	got, err := parseConfig("f", []byte(text), getTestSetting, testChecks)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Sync:    SyncConfig{FirstLookBack: 24 * time.Hour, AuditRetention: 168 * time.Hour, Detectors: []string{"audit", "directory"}},
		Signups: SignupsConfig{Origins: []signup.Origin{signup.SelfService, signup.EmailVerified}, Guests: "redeemed"},
		Profile: ProfileConfig{DisplayName: "user.givenName"},
		Destinations: []DestinationConfig{{Name: "a", Connector: "sql", Mode: "live", When: "true", Rate: 5, Burst: 2, Concurrency: 3, Breaker: BreakerConfig{2, 10 * time.Minute},
			Settings: map[string]any{"escaped": "${x} correct horse", "n": 1, "l": []any{"correct horse"}}}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Config{}, "Mapping")); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestConfigErrors compares all that is wrong with each file of testdata/config with the text beside it.
func TestConfigErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("testdata/config has %d files: %v", len(files), err)
	}
	for _, file := range files {
		if filepath.Base(file) == "example.yaml" {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseConfig("signup-sync.yaml", data, getTestSetting, testChecks)
			all, ok := errors.AsType[ConfigErrors](err)
			if !ok {
				t.Fatalf("got %v, want ConfigErrors", err)
			}
			if !slices.IsSortedFunc(all, func(a, b configError) int { return a.line - b.line }) {
				t.Error("the errors are not in the order of the lines")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			got := all.Error() + "\n"
			if *updateConfig {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("errors (-want +got); if they are right, run go test ./handler -run TestConfigErrors -update-config:\n%s", diff)
			}
			noSecret(t, got)
		})
	}
}

// noSecret fails if a message shows one of the secrets of the test data.
func noSecret(t *testing.T, message string) {
	t.Helper()
	for _, secret := range []string{"hunter2", "4eC39HqL", "abcdefghijklmnop", "9f8e7d6c5b4a", "fromtheenvironment", "correct horse", "vault.azure.net"} {
		if strings.Contains(message, secret) {
			t.Errorf("the message shows %q:\n%s", secret, message)
		}
	}
}

func TestConfigRefusesWhatWouldCostTooMuch(t *testing.T) {
	const size, lines, deep = "more than 262144", "the file has more than 5000 lines, or a line has more than 5000 bytes", "nested more than 40 deep"
	tests := []struct{ name, text, want string }{
		{"too large", "#" + strings.Repeat("x\n#", 100<<10), size},
		{"too many lines", strings.Repeat("a:\n", 6000), lines},
		{"a long line", "a: " + strings.Repeat("x", 6000), lines},
		{"open brackets", strings.Repeat("[", 4000), deep},
		{"open brackets in many lines", strings.Repeat("- [[[[[\n", 400), deep},
		{"nested dashes", strings.Repeat("- ", 2000), deep},
		{"nested maps", nested("a:"), deep},
		{"nested lists", nested("-"), deep},
		{"many keys", "a: {" + strings.Repeat(strings.Repeat("b,", 2000)+"\n", 60) + "}", "too many values"},
		{"many questions", strings.Repeat("? ", 2000), "not YAML"},
		{"many anchors", strings.Repeat("&a ", 1500), "not YAML"},
		{"many tags", strings.Repeat("!!a ", 1200), "tags are not available"},
		{"many documents", strings.Repeat("---\n", 4000), ""},
		{"many aliases", strings.Repeat("k: *a\n", 4000), "anchors and aliases are not available"},
		{"a zero byte", "a: \x00", "zero byte"},
		{"not UTF-8", "a: \xff", "not UTF-8"},
	}
	for _, tt := range tests {
		start := time.Now()
		_, err := parseConfig("f", []byte(tt.text), getTestSetting, testChecks)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %.200v, want %q in it", tt.name, err, tt.want)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %v", tt.name, took)
		}
	}
}

// TestConfigHidesAppSettingsThatAConnectorShows has a connector that breaks its promise.
func TestConfigHidesAppSettingsThatAConnectorShows(t *testing.T) {
	const text = `destinations: [{name: a, connector: sql, settings: {x: "${S}"}}]`
	for setting, shown := range map[string]string{
		"correct horse":                         "it is correct horse",
		"two\nlines":                            `it is "two\nlines"`,
		"first; https://me:S3cr3t@db.example/x": "second part: https://me:S3cr3t@db.example/x",
	} {
		checks := connectorChecks{Settings: func(string, map[string]any, map[string]any) []error {
			return []error{errors.New("settings.x: " + shown)}
		}}
		_, err := parseConfig("f", []byte(text), func(string) string { return setting }, checks)
		if err == nil || !strings.Contains(err.Error(), "[hidden]") || strings.Contains(err.Error(), "correct") || strings.Contains(err.Error(), "lines") || strings.Contains(err.Error(), "S3cr3t") {
			t.Errorf("got %v, want the setting hidden", err)
		}
	}
}

func nested(step string) string {
	var b strings.Builder
	for i := range 400 {
		b.WriteString(strings.Repeat(" ", i) + step + "\n")
	}
	return b.String()
}

// TestConfigShowsNoSecret puts secrets of every form at every kind of place, and looks at all that is said about it.
func TestConfigShowsNoSecret(t *testing.T) {
	secrets := []string{
		"sk_live_4eC39HqLyjWDarjtT1zdp7dc", "sk_test_4eC39HqLyjWDarjtT1zdp7dc", "rk_live_4eC39HqLyjWDarjtT1zdp7dc", "whsec_4eC39HqLyjWDarjt",
		"0123456789abcdef0123456789abcdef-us21", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN", "https://me:S3cr3tS3cr3t@db.example",
		"me:S3cr3tS3cr3t@tcp(db)/crm", "Server=db;Password=S3cr3tS3cr3t;", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S3cr3tS3cr3t==",
		"SharedAccessSignature=S3cr3tS3cr3t", "https://a.example/c?sv=1&sig=S3cr3tS3cr3t", "Bearer S3cr3tS3cr3t", "-----BEGIN RSA PRIVATE KEY-----S3cr3tS3cr3t",
	}
	places := []string{
		"destinations: [{name: a, connector: webhook, settings: {apiKey: %s}}]", "destinations: [{name: a, connector: webhook, settings: {list: [%s]}}]",
		"destinations: [{name: a, connector: webhook, settings: {headers: {%s: x}}}]", "destinations: [{name: a, connector: %s}]", "destinations: [{name: %s, connector: sql}]",
		"destinations: [{name: a, connector: sql, mode: %s}]", "destinations: [{name: a, connector: sql, when: %s}]", "destinations: [{name: a, connector: sql, record: {x: %s}}]",
		"destinations: [{name: a, connector: sql, record: {%s: foo}}]", "profile: {displayName: %s}", "profile: {attributes: {%s: foo}}", "sync: {overlap: %s}", "sync: {detectors: [%s]}",
		"%s: 1", "profile: {extensionsApp: %s}", "%s", "sync: [%s", "destinations: [{name: a, connector: webhook, settings: {url: indiscreet %s}}]",
	}
	part := func(s string) string { // what must not be shown
		for _, p := range []string{"S3cr3tS3cr3t", "4eC39HqLyjWDarjt", "dozjgNryP4J3jVmN", "89abcdef0123"} {
			if strings.Contains(s, p) {
				return p
			}
		}
		t.Fatalf("no part of %s", s)
		return ""
	}
	for _, secret := range secrets {
		for _, place := range places {
			for _, quoted := range []string{secret, "'" + secret + "'", `"` + secret + `"`} {
				text := fmt.Sprintf(place, quoted)
				_, err := parseConfig("f", []byte(text), getTestSetting, testChecks)
				if err == nil {
					t.Errorf("accepted: %s", text)
				} else if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(part(secret))) {
					t.Errorf("%s\nshows the secret:\n%v", text, err)
				}
			}
			// The same from an app setting is no error of its own, and not shown in another one.
			text := fmt.Sprintf(place, `"${S}"`)
			_, err := parseConfig("f", []byte(text), func(string) string { return secret }, testChecks)
			if err != nil && strings.Contains(err.Error(), part(secret)) {
				t.Errorf("%s\nshows the app setting:\n%v", text, err)
			}
		}
	}
}

// TestConfigSchemaKnowsTheExamples holds the decoder's example, and those of every kind, against the schema, as an editor
// would.
func TestConfigSchemaKnowsTheExamples(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal(configSchema(kinds(nil)...), &schema); err != nil {
		t.Fatal(err)
	}
	design, err := os.ReadFile("testdata/config/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(design)}
	for _, k := range kinds(nil) {
		_, more := examplesOf(k.Name)
		texts = append(texts, more...)
	}
	for _, text := range texts {
		for _, problem := range conforms("$", schema, decoded(t, text)) {
			t.Errorf("%s\n%s", problem, text)
		}
	}
	const wrong = `
sync: { overlapp: 1h, detectors: [graph] }
destinations:
  - { name: a, connector: stripe, settings: { apikey: x }, record: { mail: user.email } }
  - { name: b, connector: strype }
  - { name: c, settings: { url: "https://example.com" } }
`
	if got := conforms("$", schema, decoded(t, wrong)); len(got) != 7 {
		t.Errorf("of seven mistakes the schema found %q", got)
	}
	if !bytes.Contains(configSchema(), []byte(`"description": "How far each read reaches back`)) {
		t.Error("the schema does not describe sync.overlap")
	}
}

func TestAllThatAKindFindsWrongWithOneValueIsSaid(t *testing.T) {
	const text = `
destinations:
  - name: crm
    connector: sql
    settings: { driver: postgres, dsn: "${CUSTOMERS_DSN}", statement: "insert into customers values (:emial)" }
    record: { email: user.email }
`
	_, err := parseConfig("f", []byte(text), exampleSettings(t), newConnectorChecks())
	all, _ := errors.AsType[ConfigErrors](err)
	if len(all) != 3 {
		t.Errorf("got %v; want that it has no :user_id, that :emial is no field, and that email is not used", err)
	}
}

// decoded is a YAML text as JSON has it.
func decoded(t *testing.T, yaml string) (value any) {
	t.Helper()
	r := &reader{nodes: map[string]*yamlNode{}, keys: map[string]position{}}
	text, err := json.Marshal(r.parse([]byte(yaml)).plain())
	if err := errors.Join(err, json.Unmarshal(text, &value)); err != nil {
		t.Fatal(err)
	}
	return value
}

// conforms checks the few words of JSON Schema that configSchema uses.
func conforms(path string, schema map[string]any, value any) []string {
	var problems []string
	if types, ok := schema["type"]; ok && !typed(types, value) {
		return []string{fmt.Sprintf("%s: %T is not %v", path, value, types)}
	}
	if only, ok := schema["const"]; ok && only != value {
		problems = append(problems, fmt.Sprintf("%s: %v is not %v", path, value, only))
	}
	all, _ := schema["allOf"].([]any)
	for _, part := range all {
		part := part.(map[string]any)
		if len(conforms(path, part["if"].(map[string]any), value)) == 0 {
			problems = append(problems, conforms(path, part["then"].(map[string]any), value)...)
		}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, value) {
		problems = append(problems, fmt.Sprintf("%s: %v is not in %v", path, value, enum))
	}
	switch value := value.(type) {
	case []any:
		for i, item := range value {
			problems = append(problems, conforms(fmt.Sprintf("%s[%d]", path, i), schema["items"].(map[string]any), item)...)
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := value[name.(string)]; !ok {
				problems = append(problems, fmt.Sprintf("%s.%s is missing", path, name))
			}
		}
		for name, v := range value {
			if below, ok := properties[name].(map[string]any); ok {
				problems = append(problems, conforms(path+"."+name, below, v)...)
			} else if schema["additionalProperties"] == false {
				problems = append(problems, path+"."+name+" is not known")
			}
		}
	}
	return problems
}

func typed(types, value any) bool {
	if list, ok := types.([]any); ok {
		return slices.ContainsFunc(list, func(t any) bool { return typed(t, value) })
	}
	name := map[string]string{"string": "string", "bool": "boolean", "float64": "number", "[]interface {}": "array", "map[string]interface {}": "object"}[fmt.Sprintf("%T", value)]
	return name == types || name == "number" && types == "integer"
}

func FuzzParseConfig(f *testing.F) {
	files, _ := filepath.Glob("testdata/config/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{"? a", "a: [", "{", "- - -", "a: |\n b", "%YAML", "'", "\"\\", "a: &b", "*a", "a:\t- b", "\r", "\u2028", "<<: {a: 1}", "!!binary a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("f", data, getTestSetting, testChecks)
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		if all, ok := errors.AsType[ConfigErrors](err); err != nil && (!ok || len(all) == 0) {
			t.Fatalf("%v is not ConfigErrors", err)
		} else {
			for _, e := range all {
				if e.line < 1 || e.column < 1 || e.message == "" {
					t.Fatalf("%+v has no place or text", e)
				}
			}
		}
	})
}

func TestConcurrencyStaysWithinWhatAVendorAllows(t *testing.T) {
	const text = "destinations:\n  - name: news\n    connector: mailchimp\n    concurrency: %d\n    settings: { apiKey: \"${MAILCHIMP_API_KEY}\", audience: 1a2b3c }\n"
	for n, want := range map[int]string{10: "", 11: "f:4:18: destination news: concurrency: must be from 1 to 10 for mailchimp"} {
		_, err := parseConfig("f", fmt.Appendf(nil, text, n), getTestSetting, newConnectorChecks())
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && err != nil {
			t.Errorf("%d: got %v, want %q", n, err, want)
		}
	}
}
