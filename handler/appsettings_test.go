package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signup-sync/handler/sim"
)

func TestAppSettingsAreReadAsTheToolsPrintThem(t *testing.T) {
	tests := []struct{ name, text, wrong string }{
		{"az functionapp config appsettings list", `[{"name":"A","slotSetting":false,"value":"s3cr3t"},{"name":"NULL","value":null}]`, ""},
		{"with a byte order mark", "\ufeff" + `[{"name":"A","value":"s3cr3t"}]`, ""},
		{"local.settings.json", `{"IsEncrypted":false,"Values":{"A":"s3cr3t"},"Host":{"CORS":"*"}}`, ""},
		{"an encrypted local.settings.json", `{"IsEncrypted":true,"Values":{"A":"s3cr3t"}}`, "func settings decrypt"},
		{"UTF-16", "\xff\xfe[\x00]\x00", "UTF-16"},
		{"a list of nothing", `[]`, "no setting in it"},
		{"something else", `{"A":"s3cr3t"}`, "az functionapp config appsettings list"},
		{"a value that is no text", `[{"name":"A","value":{"s3cr3t":1}}]`, "az functionapp config appsettings list"},
		{"no JSON", `A=s3cr3t`, "az functionapp config appsettings list"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "settings.json")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := readAppSettings(file)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("got %v, want %q", err, test.wrong)
				}
				return
			}
			if err != nil || len(s.values) != 1 || s.values["A"] != "s3cr3t" {
				t.Errorf("got %v, %v", s, err)
			}
		})
	}
}

func TestTheFileTakesThePlaceOfTheEnvironment(t *testing.T) {
	a := &appSettings{values: map[string]string{"STRIPE_API_KEY": "file", "EXTRA_CA_FILE": "file"}, resolved: map[string]string{"STRIPE_API_KEY": "resolved"}}
	getenv := a.getenv(func(string) string { return "environment" })
	for name, want := range map[string]string{
		"STRIPE_API_KEY":     "resolved",
		"EXTRA_CA_FILE":      "file",
		"SIGNUP_SYNC_CONFIG": "environment", // of this machine
		"IDENTITY_ENDPOINT":  "environment",
		"ENTRA_TENANT_ID":    "", // what the file does not have is not set
		"ENTRA_AUTHORITY":    "",
	} {
		if got := getenv(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestKeyVaultReferencesOfTheFileAreRead is by the operator's login, against a simulated vault.
func TestKeyVaultReferencesOfTheFileAreRead(t *testing.T) {
	c := openClinic(t)
	c.settings["UNUSED"] = "@Microsoft.KeyVault(SecretUri=" + c.server.URL + "/secrets/nobody-has-this)"
	if code, out, errs := c.handler("check"); code != exitOK || errs != "" {
		t.Errorf("got exit code %d\n%s%s", code, out, errs)
	}
	for _, call := range c.Vault.Requests() {
		if strings.Contains(call.URL, "nobody-has-this") {
			t.Error("a reference that the program does not need was read")
		}
	}
	c.Vault.Delete("STRIPE-API-KEY")
	code, out, errs := c.handler("check")
	if code != exitRefused || !strings.HasPrefix(errs, "error: --settings: STRIPE_API_KEY: read the Key Vault reference: ") || strings.Count(errs, "\n") != 1 ||
		strings.Contains(out+errs, simWelcome) || strings.Contains(errs, "@Microsoft") {
		t.Errorf("got exit code %d\n%s%s", code, out, errs)
	}
	c.Vault.Faults.Add(sim.Fault{Path: "/secrets", Times: -1, Status: 403})
	if code, _, errs := c.handler("explain", stranger); code != exitRefused || strings.Count(errs, "read the Key Vault reference") != 2 {
		t.Errorf("got exit code %d\n%s", code, errs)
	}
}

func TestSettingsAreRefusedWhereThereIsNoAppToSpeakOf(t *testing.T) {
	for _, command := range []string{"serve", "local", "sim", "package", "licences", "docs"} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), system{args: []string{command, "--settings", "../local.settings.json"}, getenv: func(string) string { return "" }, stdout: &stdout, stderr: &stderr})
		if code != exitRefused || !strings.HasPrefix(stderr.String(), "error: --settings: 'handler "+command) {
			t.Errorf("%s: got exit code %d, %s", command, code, stderr.String())
		}
	}
	var stderr bytes.Buffer
	code := run(t.Context(), system{args: []string{"check", "--settings", filepath.Join(t.TempDir(), "missing")}, getenv: func(string) string { return "" }, stdout: &stderr, stderr: &stderr})
	if code != exitRefused || !strings.Contains(stderr.String(), "error: --settings: open ") {
		t.Errorf("got exit code %d, %s", code, stderr.String())
	}
}
