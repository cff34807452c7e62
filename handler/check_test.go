package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestCheckOnlineAsksEveryone(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", "../signup-sync.yaml"
	check := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), system{args: append([]string{"check"}, args...), getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
		return code, stdout.String(), stderr.String()
	}
	if code, out, errs := check("--online"); code != exitOK || strings.Count(out, " works\n") != 5 || errs != "" {
		t.Errorf("got exit code %d\n%s%s", code, out, errs)
	}
	calls := len(world.Tenant.Requests())
	settings["STRIPE_API_KEY"] = "sk_test_Another"
	if code, out, errs := check(); code != exitOK || strings.Contains(out, "work") || errs != "" || len(world.Tenant.Requests()) != calls {
		t.Errorf("offline: got exit code %d\n%s%s", code, out, errs)
	}
	code, out, errs := check("--online")
	if code != exitFailed || strings.Count(out, " works\n") != 4 || !strings.Contains(out, "billing              stripe       live     does not work\n") ||
		!strings.HasPrefix(errs, "error: billing: list customers: unauthorized (HTTP 401)") || strings.Contains(out+errs, "Another") {
		t.Errorf("got exit code %d\n%s%s", code, out, errs)
	}
	var object struct {
		Good   bool
		Errors []string
		Checks []struct {
			Name   string
			Works  bool
			Errors []string
		}
	}
	code, out, _ = check("--online", "--json")
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exitFailed || object.Good || len(object.Errors) != 1 || len(object.Checks) != 5 ||
		object.Checks[0].Name != "tenant" || !object.Checks[0].Works || object.Checks[1].Name != "ledger" || !object.Checks[1].Works ||
		object.Checks[2].Works || len(object.Checks[2].Errors) != 1 {
		t.Errorf("--json: got exit code %d, %v\n%s", code, err, out)
	}
}

// TestCheckOnlineReadsTheLedger is against the real service's protocol: tables that are not there yet are fine, and are not
// made; another account's key is not.
func TestCheckOnlineReadsTheLedger(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	refuse := 0 // a status
	var methods []string
	account := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods = append(methods, r.Method)
		status, code := http.StatusNotFound, "TableNotFound"
		if refuse != 0 {
			status, code = refuse, "AuthenticationFailed"
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Ms-Error-Code", code)
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"odata.error":{"code":%q,"message":{"value":"x"}}}`, code)
	}))
	defer account.Close()
	settings := world.settings()
	settings["SIGNUP_SYNC_CONFIG"] = "../signup-sync.yaml"
	delete(settings, "LEDGER")
	settings["AzureWebJobsStorage"] = "DefaultEndpointsProtocol=http;AccountName=contoso;AccountKey=czNjcjN0;TableEndpoint=" + account.URL + "/contoso"
	check := func() (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), system{args: []string{"check", "--online"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
		return code, stdout.String(), stderr.String()
	}
	if code, out, errs := check(); code != exitOK || !strings.Contains(out, "ledger") || errs != "" {
		t.Errorf("no tables yet: got exit code %d\n%s%s", code, out, errs)
	}
	for _, m := range methods {
		if m != http.MethodGet {
			t.Errorf("a check has sent a %s to the account", m)
		}
	}
	refuse = http.StatusForbidden
	code, out, errs := check()
	if code != exitFailed || strings.Count(out, "does not work") != 1 || !strings.HasPrefix(errs, "error: ledger: check the ledger: read the table") ||
		strings.Contains(errs, "s3cr3t") || strings.Contains(errs, "czNjcjN0") || strings.Contains(errs, account.URL) {
		t.Errorf("a wrong key: got exit code %d\n%s%s", code, out, errs)
	}
}

// TestCheckOnlineSaysWhatKeepsBirthrightsFromWorking is for what only the tenant knows.
func TestCheckOnlineSaysWhatKeepsBirthrightsFromWorking(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	world.Tenant = sim.NewTenant(sim.TenantOptions{ID: simTenant, Groups: []sim.Group{{ID: staffGroup, Kind: sim.DynamicGroup}}})
	world.Entra.SetApp(sim.App{ID: simClient, Secret: simSecret, Roles: []string{"User.ReadWrite.All", "GroupMember.ReadWrite.All"}})
	config := filepath.Join(t.TempDir(), "signup-sync.yaml")
	file := fmt.Sprintf("destinations:\n  - name: staff\n    connector: group\n    settings: { groups: [%s, %s] }\n  - name: pack\n    connector: accessPackage\n    settings: { accessPackage: %s, policy: %s }\n",
		staffGroup, readersGroup, aPackage, aPolicy)
	if err := os.WriteFile(config, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := world.settings()
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "memory", config
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), system{args: []string{"check", "--online"}, getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if code != exitFailed || len(lines) != 3 || !strings.Contains(lines[0], "staff: group-unsuitable: settings.groups: the group "+staffGroup) ||
		!strings.Contains(lines[1], "staff: group-missing") || !strings.Contains(lines[2], "pack: no-entitlement-management") {
		t.Errorf("got exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
}

func TestCheckOnlineShowsTheDetectors(t *testing.T) {
	world, err := openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, signup.ScaledClock{})
	if err != nil {
		t.Fatal(err)
	}
	defer world.server.Close()
	settings := world.settings()
	path := filepath.Join(t.TempDir(), "ledger.db")
	settings["LEDGER"], settings["SIGNUP_SYNC_CONFIG"] = "file:"+path, "../signup-sync.yaml"
	l, err := ledger.OpenSQLite(path, simTenant)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	for name, body := range map[string]string{
		"watermark|audit": fmt.Sprintf(`{"watermark":%q,"gaps":[{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z"}],
			"seen":{"first":98,"also":[{"after":"directory","users":7}]},"recent":[{"counts":[98,0,0,0,0,0,0,0,0,0,0,0,0,0,0,7],"most":3600000000000},{}]}`, now.Add(-2*time.Minute).Format(time.RFC3339)),
	} {
		if _, err := l.PutNote(t.Context(), signup.Note{Name: name, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(args ...string) string {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), system{args: append([]string{"check", "--online"}, args...), getenv: func(n string) string { return settings[n] }, stdout: &stdout, stderr: &stderr})
		if code != exitOK || stderr.Len() > 0 {
			t.Errorf("got exit code %d, %s: a warning is no failure", code, stderr.String())
		}
		return stdout.String()
	}
	out := check()
	for _, want := range []string{"audit                detector     read up to 2m", "ago, 1 gaps to close\n", "  warning: of 100 sign-ups 99 are shown within 1h0m0s",
		"set that to 2h0m0s or more\n", "directory            detector     not read yet\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	var object struct {
		Good      bool
		Detectors []struct {
			Name         string
			WatermarkAge float64
			Gaps         []signup.Window
			Warning      string
			LagP99       float64
			Seen         struct {
				First int
				Also  []struct {
					After string
					Users int
				}
			}
		}
	}
	out = check("--json")
	if err := json.Unmarshal([]byte(out), &object); err != nil || !object.Good || len(object.Detectors) != 2 {
		t.Fatalf("got %v\n%s", err, out)
	}
	d := object.Detectors[0]
	if d.Name != "audit" || d.WatermarkAge < 120 || d.WatermarkAge > 180 || len(d.Gaps) != 1 || d.Warning == "" || d.LagP99 != 3600 ||
		d.Seen.First != 98 || d.Seen.Also[0].After != "directory" || d.Seen.Also[0].Users != 7 {
		t.Errorf("got %+v", d)
	}
	if l, err = ledger.OpenSQLite(path, simTenant); err != nil {
		t.Fatal(err)
	}
	if _, err := l.PutNote(t.Context(), signup.Note{Name: "watermark|directory", Body: []byte(`[]`)}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := (checkedDetector{Age: new(0.0)}).String(), "read up to 0s ago"; got != want {
		t.Errorf("just read: got %q, want %q", got, want)
	}
	var stderr bytes.Buffer
	code := run(t.Context(), system{args: []string{"check", "--online"}, getenv: func(n string) string { return settings[n] }, stdout: io.Discard, stderr: &stderr})
	if code != exitFailed || !strings.Contains(stderr.String(), "error: ledger: read the watermark of directory") {
		t.Errorf("a note that cannot be read: got exit code %d, %s", code, stderr.String())
	}
}
