package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/entra"
)

func TestDocsAreCurrent(t *testing.T) {
	for name, want := range generatedDocs() {
		got, err := os.ReadFile(filepath.Join("..", "docs", name))
		if err != nil || string(got) != string(want) {
			t.Errorf("docs/%s is not what the code makes (%v): run 'make docs'\n%s", name, err, cmp.Diff(string(got), string(want)))
		}
	}
}

func TestEveryFeatureHasItsPermissionsExplained(t *testing.T) {
	fields := 0
	for f := range reflect.TypeFor[entra.Needs]().Fields() {
		if fields++; features[f.Name] == "" {
			t.Errorf("entra.Needs.%s is not among the features of docs/permissions.md", f.Name)
		}
	}
	if fields != len(features) {
		t.Errorf("got %d features for %d fields", len(features), fields)
	}
}

// TestEverySettingIsExplained compares the page with what the program really asks the environment for.
func TestEverySettingIsExplained(t *testing.T) {
	asked := map[string]bool{}
	for _, credential := range []string{"", "secret", "federated"} {
		settings := map[string]string{"ENTRA_CREDENTIAL": credential, "GRAPH_URL": "https://127.0.0.1:1", "SIGNUP_SYNC_CLOCK": "2026-01-02T03:04:05Z,2"}
		_, _ = parseEnvironment(func(name string) string { asked[name] = true; return settings[name] })
	}
	// Asked for by serve and by the credentials, and by the host itself.
	for _, name := range []string{"AzureFunctionsJobHost__functionTimeout", "FUNCTIONS_APP_ROOT_PATH", "IDENTITY_ENDPOINT", "SYNC_SCHEDULE", "CENSUS_SCHEDULE"} {
		asked[name] = true
	}
	var explained []string
	for _, e := range environmentDocs {
		explained = append(explained, e.name)
		if !asked[e.name] {
			t.Errorf("%s is explained, and nobody asks for it", e.name)
		}
	}
	for name := range asked {
		if !slices.Contains(explained, name) {
			t.Errorf("%s is asked for, and environmentDocs does not explain it", name)
		}
	}
}

// TestOperationsExplainsEveryMessage compares docs/operations.md with what the program can say on stderr.
func TestOperationsExplainsEveryMessage(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(`\.(?:Warn|Error|Log)(?:Context)?\((?:ctx, )?(?:level, )?"([^"]+)"`)
	found := 0
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range says.FindAllSubmatch(source, -1) {
			found++
			if !bytes.Contains(page, append([]byte("\n## "), append(m[1], '\n')...)) {
				t.Errorf("%s says %q: docs/operations.md has no section of that name", path, m[1])
			}
		}
		return err
	})
	if err != nil || found < 10 {
		t.Errorf("found %d messages (%v): does the test look in the right place?", found, err)
	}
}

// exampleSettings are the app settings that the examples read.
func exampleSettings(t *testing.T) func(name string) string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) string {
		return map[string]string{
			"STRIPE_API_KEY": "rk_live_example", "WELCOME_SECRET": simWelcome, "WELCOME_SECRET_BEFORE": simWelcome,
			"MAILCHIMP_API_KEY": simMailchimp, "SALESFORCE_SECRET": "example", "QUEUE_CONNECTION": "AccountName=contoso;AccountKey=ZXhhbXBsZQ==",
			"SALESFORCE_KEY":  string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
			"CUSTOMERS_DSN":   "postgres://sync:example@db.contoso.example/crm?sslmode=verify-full",
			"CUSTOMERS_MYSQL": "sync:example@tcp(db.contoso.example:3306)/crm",
		}[name]
	}
}

// TestExamplesAreGoodConfigurations reads each example as the program would, and demands that a kind's examples show
// everything that it can be told.
func TestExamplesAreGoodConfigurations(t *testing.T) {
	getenv := exampleSettings(t)
	for _, k := range kinds(nil) {
		titles, texts := examplesOf(k.Name)
		if len(titles) < 2 || titles[0] != "minimal" || titles[1] != "full" {
			t.Errorf("kind %s has the examples %v: write handler/examples/%s.minimal.yaml and .full.yaml", k.Name, titles, k.Name)
			continue
		}
		for _, wanted := range []string{"**Set up.**", "**Once.**", "**Conflicts.**"} {
			if !strings.Contains(notesOf(k.Name), wanted) {
				t.Errorf("handler/examples/%s.md does not say %s", k.Name, wanted)
			}
		}
		shown := map[string]bool{}
		for i, text := range texts {
			c, err := parseConfig(k.Name+"."+titles[i]+".yaml", []byte(text), getenv, newConnectorChecks())
			if err != nil {
				t.Error(err)
				continue
			}
			for _, d := range c.Destinations {
				if d.Connector != k.Name {
					continue
				}
				shown["any"] = true
				for name := range d.Settings {
					shown["settings."+name] = true
				}
				for name, v := range d.Record {
					if _, nested := v.(map[string]any); nested {
						name += ".*"
					}
					shown["record."+name] = true
				}
			}
			if !shown["any"] {
				t.Errorf("%s.%s.yaml has no destination of that kind", k.Name, titles[i])
			}
		}
		for _, want := range described(k) {
			if !shown[want] {
				t.Errorf("no example of %s shows %s", k.Name, want)
			}
		}
	}
}

// described names what a kind can be told.
func described(k connector.Kind) []string {
	var all []string
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		for f := range t.Fields() {
			if f.Anonymous {
				add(f.Type)
				continue
			}
			all = append(all, "settings."+f.Tag.Get("json"))
		}
	}
	add(reflect.TypeOf(k.Settings))
	for _, f := range k.Record {
		all = append(all, "record."+f.Name)
	}
	return all
}
