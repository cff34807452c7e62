package scripts_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"signup-sync/handler/sim"
)

// The whole way with the real program: it names the permissions, gets a token by the certificate that the script has made,
// and tells the rotation when the new version is used.
func TestTheProgramWorksWithWhatTheScriptsMake(t *testing.T) {
	handler, err := filepath.Abs("../bin/handler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(handler); err != nil {
		skip(t, "bin/handler is not built: 'make test' does that")
	}
	w := open(t)
	w.entra = sim.NewEntra(sim.EntraOptions{Tenant: externalTenant})
	tenant := sim.NewTenant(sim.TenantOptions{ID: externalTenant, Attributes: []string{"stripeCustomerId", "welcomeId"}, InstantAudit: true, InstantReplicas: true, Throttle: sim.ThrottleOff})
	server, err := sim.Serve(t.Context(), "127.0.0.1:0", &sim.World{Tenant: tenant, Entra: w.entra, Vault: w.vault.KeyVault})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	ca, config := filepath.Join(w.dir, "ca.pem"), filepath.Join(w.dir, "signup-sync.yaml")
	text := "profile:\n  displayName: user.givenName\n  attributes: { welcomeId: user.city }\ndestinations:\n  - name: crm\n    connector: webhook\n    mode: observe\n" +
		"    settings: { url: \"" + server.URL + "/webhook\", secret: \"${WELCOME_SECRET}\", allowPrivate: true }\n    record: { name: user.displayName }\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, server.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	w.environment = []string{"HANDLER=" + handler, "EXTRA_CA_FILE=" + ca, "SIGNUP_SYNC_CONFIG=" + config}
	w.must(w.register("--vault", server.URL))
	want := "AuditLog.Read.All Role User.ReadWrite.All Role Application.Read.All Role"
	if got := w.external.state()[0]; !strings.Contains(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	w.settings = map[string]string{"ENTRA_TENANT_ID": externalTenant, "ENTRA_CLIENT_ID": w.app().AppID, "KEY_VAULT_URL": server.URL, "ENTRA_CERTIFICATE": "signup-sync",
		"ENTRA_AUTHORITY": server.URL, "GRAPH_URL": server.URL, "LEDGER": "file:" + filepath.Join(w.dir, "ledger.db"), "WELCOME_SECRET": "whsec_c2ltdWxhdGVkLXNpbXVsYXRlZC1zaW11bGF0ZWQ=",
		"SYNC_SCHEDULE": "0 * * * * *", "CENSUS_SCHEDULE": "0 */15 * * * *"}
	for name, want := range map[string]string{"token": "ok", "certificate": "ok", "permissions": "ok", "own": "ok"} {
		if got := w.examine(handler)[name]; got.State != want {
			t.Errorf("the doctor says of %s: %+v", name, got)
		}
	}
	w.must(w.rotate("--now"))
	w.knows(2, 1)
	if got := w.examine(handler)["certificate"]; !strings.Contains(got.Why, w.vault.ids[1]) {
		t.Errorf("the doctor says %+v", got)
	}
}

// The configuration with which the README begins is one that the program takes.
func TestTheReadmeBeginsWithAGoodConfiguration(t *testing.T) {
	handler, err := filepath.Abs("../bin/handler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(handler); err != nil {
		skip(t, "bin/handler is not built: 'make test' does that")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, deploy, _ := strings.Cut(string(readme), "\n## Deploy\n")
	_, config, _ := strings.Cut(deploy, "```yaml\n")
	config, _, found := strings.Cut(config, "```\n")
	file := filepath.Join(t.TempDir(), "signup-sync.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil || !found {
		t.Fatal(found, err)
	}
	cmd := exec.CommandContext(t.Context(), handler, "doctor", "--permissions")
	cmd.Env = []string{"SIGNUP_SYNC_CONFIG=" + file}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(config, "mode: observe") {
		t.Errorf("%v: %s\n%s", err, out, config)
	}
}

// examine asks the real doctor; its lines by their names.
func (w *world) examine(handler string) map[string]finding {
	w.t.Helper()
	data, err := json.Marshal(w.settings)
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.dir, "local.settings.json")
	if err := os.WriteFile(file, []byte(`{"Values":`+string(data)+`}`), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), handler, "doctor", "--settings", file, "--json")
	cmd.Env = append([]string{"PATH=" + filepath.Join(w.dir, "bin") + ":" + os.Getenv("PATH"), "WORLD=" + w.url, "AZURE_CONFIG_DIR=" + filepath.Join(w.dir, "subscription")}, w.environment...)
	out, _ := cmd.Output() // the exit code is about other lines as well
	var answer struct{ Findings []finding }
	if err := json.Unmarshal(out, &answer); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	all := map[string]finding{}
	for _, f := range answer.Findings {
		all[f.Name] = f
	}
	return all
}

var realAz = flag.Bool("az", false, "run the script by the Azure CLI of this machine, which takes a while and reaches nothing but this test")

// What the Azure CLI itself does with the script's calls and queries. It puts no token to http, so that a login in name will do.
func TestTheAzureCLIUnderstandsTheScript(t *testing.T) {
	if !*realAz {
		t.Skip("only with -az")
	}
	w := open(t)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		tenant, resource := externalTenant, graphResource
		if strings.HasPrefix(r.URL.Path, "/certificates/") {
			tenant, resource = homeTenant, vaultResource
		}
		r.Header.Set("Authorization", "Bearer "+token(resource, tenant))
		rw.Header().Set("Content-Type", "application/json")
		w.serve(rw, r, tenant, body)
	}))
	t.Cleanup(server.Close)
	for name, tenant := range w.logins {
		profile := `{"installationId":"","subscriptions":[{"id":"` + tenant + `","name":"","state":"Enabled","user":{"name":"","type":"user"},"isDefault":true,"tenantId":"` + tenant + `","environmentName":"AzureCloud"}]}`
		if err := os.MkdirAll(filepath.Join(w.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.dir, name, "azureProfile.json"), []byte(profile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(w.dir, "bin/az")); err != nil {
		t.Fatal(err)
	}
	w.environment = []string{"GRAPH_URL=" + server.URL, "AZURE_CORE_COLLECT_TELEMETRY=no"}
	for range 2 {
		w.must(w.register("--vault", server.URL))
		w.check(variants()[0])
	}
}
