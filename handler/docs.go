package main

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/connector"
	"signup-sync/handler/pipeline"
)

// environmentDocs says what every environment variable of the program means; a test compares it with what
// parseEnvironment and the other readers ask for.
var environmentDocs = []struct{ name, doc string }{
	{"AzureWebJobsStorage", "The ledger's storage account: a connection string, or `UseDevelopmentStorage=true` for Azurite."},
	{"AzureWebJobsStorage__accountName", "… or the account's name, reached by managed identity."},
	{"AzureWebJobsStorage__credential", "`managedidentity`, with the account's name."},
	{"AzureWebJobsStorage__clientId", "The client id of the user-assigned identity for it; absent is the system-assigned one."},
	{"AzureWebJobsStorage__tableServiceUri", "The tables' URL, where it is not `https://NAME.table.core.windows.net`."},
	{"LEDGER", "`tables` (default), `memory`, or `file:PATH` for a SQLite file; the latter two are for trying things out on one machine."},
	{"ENTRA_TENANT_ID", "The External ID tenant, a GUID."},
	{"ENTRA_CLIENT_ID", "The app registration in it, a GUID."},
	{"ENTRA_CREDENTIAL", "`certificate` (default, from Key Vault), `federated` (the managed identity, as the app's federated credential), or `secret` for local tests."},
	{"ENTRA_CLIENT_SECRET", "The client secret, for `secret`."},
	{"KEY_VAULT_URL", "The Key Vault with the certificate, such as `https://my-vault.vault.azure.net`."},
	{"ENTRA_CERTIFICATE", "The certificate's name in it; its key is RSA. One that can be exported is read as a secret (role Key Vault Secrets User); one that cannot stays in the vault and signs there (Key Vault Certificate User and Key Vault Crypto User). New versions are used once the app registration knows them."},
	{"ENTRA_AUTHORITY", "The root of the token endpoint; default `https://login.microsoftonline.com`. In national clouds `https://login.microsoftonline.us` or `https://login.partner.microsoftonline.cn`, with their `GRAPH_URL`."},
	{"GRAPH_URL", "The root of Microsoft Graph; default `https://graph.microsoft.com`."},
	{"AZURE_CLIENT_ID", "The Function App's user-assigned identity, for Key Vault and `federated`; outside Azure the Azure CLI's login is used instead."},
	{"SIGNUP_SYNC_CONFIG", "The configuration file; default `signup-sync.yaml`. `make package` takes the same one."},
	{"SYNC_SCHEDULE", "When `SyncNewUsers` runs, as NCRONTAB of six fields; read by the host. `0 * * * * *` is every minute."},
	{"CENSUS_SCHEDULE", "When `TakeCensus` runs, likewise. `0 */15 * * * *` is every quarter of an hour: each goes on with the census under way, and does nothing while the last one is less than a day old."},
	{"EXTRA_CA_FILE", "A PEM file of roots to trust besides the system's, for simulations on this machine."},
	{"SIGNUP_SYNC_CLOCK", "`<start>,<rate>`: a clock that runs faster, for local runs; accepted only with a `GRAPH_URL` on this machine."},
	{"OTEL_EXPORTER_OTLP_ENDPOINT", "The base URL of an OTLP/HTTP collector that gets [metrics and traces](telemetry.md), such as `https://otel.example.com:4318`; `http://` on this machine only. Absent: none are made, and the other `OTEL_` settings mean nothing."},
	{"OTEL_EXPORTER_OTLP_HEADERS", "What it wants to know the program by: `name=value,…`, the values percent-encoded. A secret, so a Key Vault reference."},
	{"OTEL_EXPORTER_OTLP_PROTOCOL", "`http/protobuf` (default); there is no other."},
	{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "`delta` (default); there is no other."},
	{"OTEL_SERVICE_NAME", "The name under which it is told; default `signup-sync`."},
	{"OTEL_RESOURCE_ATTRIBUTES", "What else to say of the sender: `deployment.environment.name=test,…`."},
	{"OTEL_TRACES_SAMPLER", "`always_on` (default), `always_off`, `traceidratio`, or one of these behind `parentbased_`, which leaves it to the host first; as a Functions host marks its timers as not sampled, that is no traces at all."},
	{"OTEL_TRACES_SAMPLER_ARG", "For `traceidratio`: from 0 to 1."},
	{"OTEL_SDK_DISABLED", "`true` turns all of it off."},
	{"AzureFunctionsJobHost__functionTimeout", "Overrides host.json's functionTimeout, for the host and for the deadline of a run alike."},
	{"FUNCTIONS_CUSTOMHANDLER_PORT", "Set by the host: where the program listens, on 127.0.0.1."},
	{"FUNCTIONS_APP_ROOT_PATH", "Set by the host: where host.json is."},
	{"IDENTITY_ENDPOINT", "Set by Azure: that there is a managed identity."},
}

type docsCommand struct {
	Dir string `default:"docs" type:"path" help:"Where the pages go."`
}

// Run writes the generated pages.
func (c docsCommand) Run(s system) error {
	pages := generatedDocs()
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if err := os.WriteFile(filepath.Join(c.Dir, name), pages[name], 0o644); err != nil {
			return fmt.Errorf("write the docs: %w", err)
		}
		fmt.Fprintln(s.stdout, filepath.Join(c.Dir, name))
	}
	return nil
}

// generatedDocs are the pages that are made from the code, by file name.
func generatedDocs() map[string][]byte {
	return map[string][]byte{
		"settings.md":             settingsPage(),
		"origins.md":              originsPage(),
		"destinations.md":         destinationsPage(),
		"permissions.md":          permissionsPage(),
		"telemetry.md":            telemetryPage(),
		"signup-sync.schema.json": configSchema(kinds(nil)...),
	}
}

const expressionsIntro = `
## Expressions

Expressions are of the [expr language](https://expr-lang.org): ` + "`user.givenName + \" \" + user.surname`, `user.country in [\"DE\", \"AT\"]`" + `.
They are type-checked before anything runs.

| name | meaning |
|---|---|
`

const expressionsRules = `
* ` + "`slug(text)` is text as part of an address: `slug(\"Zoë Ó Brien\")` is `zoe-o-brien`; other scripts drop out. `short(user.id)` is the id's first 8 characters. `clip(text, 40)` is the first 40 characters." + `
* ` + "`accounts.NAME` makes the destination NAME a prerequisite: this one waits for it. Where NAME has a `when`, write `accounts.NAME?.id`, which is nil for users who are not brought there. A name with a hyphen is `accounts[\"my-crm\"]`." + `
* An absent text is empty; an empty result changes nothing, and leaves its field out of a record.
* A custom attribute that a user does not have counts as the empty value of what it is compared with: ` + "for consent write `== true`, never `!= false`." + `
* What would make results differ between two tries (the present time, chance, the order of a map) is not there.
`

const generated = "<!-- Generated from the code by `make docs`; do not edit. -->\n\n"

func settingsPage() []byte {
	var b strings.Builder
	b.WriteString("# Settings\n\n" + generated)
	b.WriteString("## signup-sync.yaml\n\nThe file lies beside host.json. For completion in editors put this line on top of it:\n`# yaml-language-server: $schema=docs/signup-sync.schema.json`.\n")
	for f := range reflect.TypeFor[Config]().Fields() {
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		t := f.Type
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", name, f.Tag.Get("doc"))
		fieldTable(&b, t)
	}
	b.WriteString(expressionsIntro)
	for _, m := range pipeline.Members() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", m.Name, m.Doc)
	}
	b.WriteString(expressionsRules)
	b.WriteString("\n## App settings\n\nEnvironment variables of the Function App. A value that is a Key Vault reference must have resolved: one that still\nbegins `@Microsoft.KeyVault(` is refused.\n\n| name | meaning |\n|---|---|\n")
	for _, e := range environmentDocs {
		fmt.Fprintf(&b, "| `%s` | %s |\n", e.name, e.doc)
	}
	return []byte(b.String())
}

//go:embed examples/*.yaml examples/*.md
var examples embed.FS

// examplesOf are the configurations that show a kind, by title: minimal, full, and others.
func examplesOf(kind string) (titles []string, texts []string) {
	names, err := fs.Glob(examples, "examples/"+kind+".*.yaml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	order := []string{"minimal", "full"}
	for _, name := range names {
		if title := strings.Split(name, ".")[1]; !slices.Contains(order, title) {
			order = append(order, title)
		}
	}
	for _, title := range order {
		text, err := examples.ReadFile("examples/" + kind + "." + title + ".yaml")
		if err != nil {
			continue // a test demands those that must be there
		}
		titles, texts = append(titles, title), append(texts, string(text))
	}
	return titles, texts
}

// notesOf is what a person does for a kind, and may rely on; a test demands that there is some.
func notesOf(kind string) string {
	text, _ := examples.ReadFile("examples/" + kind + ".md")
	return string(text)
}

const destinationsIntro = `A destination's ` + "`connector`" + ` is one of the kinds below. Secrets come from app settings: ` + "`${NAME}`" + `.

Every destination has a rate, a number of calls at the same time, and a breaker of its own, so that one's trouble is not
another's. The defaults below stay under the vendors' limits; ` + "`rate`, `burst`, `concurrency` and `breaker`" + ` of the destination
change them. A breaker opens after 5 failures in a row, or at once when the destination refuses everybody (a wrong key), for
30 s at first and twice as long each time, up to 15 minutes; then one call tries. Throttling (Retry-After) holds the whole
destination and is no failure. With ` + "`mode: observe`" + ` everything is evaluated, the fields that would be sent are recorded, and
nothing is sent.

A destination hears of a user once: what changes in the profile later is not sent. The account's id that it gives is in the
ledger, and for others to use, as ` + "`accounts.NAME.id`" + `. Who signed up before the destination was added is brought there
by backfill only ([operations](operations.md#bringing-those-who-signed-up-earlier)).
Whatever a system answers, no user is dropped: transient trouble is tried again for 14 days, and a user whom the system
refuses for good is ` + "`failed`" + ` with a code ([operations](operations.md#what-the-codes-mean)). Before the first user:
` + "`bin/handler doctor`" + `, which changes nothing anywhere.
`

func destinationsPage() []byte {
	var b strings.Builder
	b.WriteString("# Destinations\n\n" + generated + destinationsIntro)
	for _, k := range kinds(nil) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s\n", k.Name, k.Doc, notesOf(k.Name))
		rate := "no limit"
		if k.Rate > 0 {
			rate = fmt.Sprintf("%g calls a second, %d at once", k.Rate, k.Burst)
		}
		fmt.Fprintf(&b, "Default rate: %s; %d at the same time", rate, k.Concurrency)
		if k.Most > 0 {
			fmt.Fprintf(&b, ", and no more than %d whatever is set", k.Most)
		}
		b.WriteString(".")
		if k.Limit != "" {
			fmt.Fprintf(&b, " Published limits: %s.", k.Limit)
		}
		b.WriteString("\n\n")
		fieldTable(&b, reflect.TypeOf(k.Settings))
		recordTable(&b, k)
		titles, texts := examplesOf(k.Name)
		for i, title := range titles {
			fmt.Fprintf(&b, "\n%s:\n\n```yaml\n%s```\n", strings.ToUpper(title[:1])+title[1:], texts[i])
		}
	}
	return []byte(b.String())
}

func recordTable(b *strings.Builder, k connector.Kind) {
	switch {
	case len(k.Record) > 0:
		b.WriteString("\n| record | meaning |\n|---|---|\n")
		for _, f := range k.Record {
			fmt.Fprintf(b, "| `%s` | %s |\n", f.Name, f.Doc)
		}
	case !takesNoRecord(k):
		b.WriteString("\nThe record may have any fields.\n")
	default:
		b.WriteString("\nIt takes no record.\n")
	}
}

// fieldTable describes the fields of a tagged struct.
func fieldTable(b *strings.Builder, t reflect.Type) {
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	fieldRows(b, "", t)
}

func fieldRows(b *strings.Builder, above string, t reflect.Type) {
	for f := range t.Fields() {
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		if f.Anonymous {
			fieldRows(b, above, f.Type)
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			fieldRows(b, above+name+".", f.Type)
			continue
		}
		doc := f.Tag.Get("doc")
		if enum := f.Tag.Get("enum"); enum != "" {
			doc += " One of: " + strings.ReplaceAll(enum, ",", ", ") + "."
		}
		if low, high := f.Tag.Get("min"), f.Tag.Get("max"); low+high != "" {
			doc += fmt.Sprintf(" From %s to %s.", cmp.Or(low, "any"), cmp.Or(high, "any"))
		}
		absent := f.Tag.Get("default")
		switch {
		case f.Tag.Get("required") == "true":
			absent = "required"
		case absent != "":
			absent = "`" + absent + "`"
		}
		if f.Tag.Get("secret") == "true" {
			doc += " **Secret.**"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", above, name, typeName(f.Type), absent, doc)
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t == reflect.TypeFor[Expression]():
		return "expression"
	case t == reflect.TypeFor[map[string]Expression]():
		return "expressions by name"
	case t.Kind() == reflect.Slice:
		return "list"
	case t.Kind() == reflect.Map:
		return "map"
	case t.Kind() == reflect.Float64, t.Kind() == reflect.Int:
		return "number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "text"
}
