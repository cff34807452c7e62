package main

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
)

const (
	testTenant = "11111111-2222-3333-4444-55555555AAAA"
	testClient = "66666666-7777-8888-9999-000000000000"
)

func environmentWith(changes map[string]string) func(string) string {
	all := map[string]string{"ENTRA_TENANT_ID": testTenant, "ENTRA_CLIENT_ID": testClient, "KEY_VAULT_URL": "https://kv.vault.azure.net/",
		"ENTRA_CERTIFICATE": "signup-sync", "AzureWebJobsStorage__accountName": "ledger123"}
	maps.Copy(all, changes)
	return func(name string) string { return all[name] }
}

func TestEnvironment(t *testing.T) {
	base := environment{Config: "signup-sync.yaml", Ledger: "tables", Storage: storageSource{Account: "ledger123"}, Tenant: strings.ToLower(testTenant), Client: testClient,
		Credential: "certificate", KeyVault: "https://kv.vault.azure.net", Certificate: "signup-sync", Authority: "https://login.microsoftonline.com", Graph: "https://graph.microsoft.com"}
	tests := []struct {
		name    string
		changes map[string]string
		want    func(e *environment)
	}{
		{"the least in Azure", nil, func(*environment) {}},
		{"started by the host", map[string]string{"FUNCTIONS_CUSTOMHANDLER_PORT": "7071", "AZURE_CLIENT_ID": testClient}, func(e *environment) { e.Port, e.Identity = 7071, testClient }},
		{"a connection string", map[string]string{"AzureWebJobsStorage": "UseDevelopmentStorage=true", "AzureWebJobsStorage__accountName": ""},
			func(e *environment) { e.Storage = storageSource{Connection: "UseDevelopmentStorage=true"} }},
		{"an identity with a table endpoint", map[string]string{"AzureWebJobsStorage__accountName": "", "AzureWebJobsStorage__tableServiceUri": "https://a.table.core.windows.net/",
			"AzureWebJobsStorage__credential": "managedIdentity", "AzureWebJobsStorage__clientId": testClient},
			func(e *environment) {
				e.Storage = storageSource{Tables: "https://a.table.core.windows.net", Identity: testClient}
			}},
		{"a federated credential", map[string]string{"ENTRA_CREDENTIAL": "federated", "KEY_VAULT_URL": "", "ENTRA_CERTIFICATE": ""},
			func(e *environment) { e.Credential, e.KeyVault, e.Certificate = "federated", "", "" }},
		{"the local run", map[string]string{"LEDGER": "file:state.db", "GRAPH_URL": "http://127.0.0.1:8080", "ENTRA_AUTHORITY": "https://localhost:8443/", "ENTRA_CREDENTIAL": "secret",
			"ENTRA_CLIENT_SECRET": "s", "KEY_VAULT_URL": "", "EXTRA_CA_FILE": "ca.pem", "SIGNUP_SYNC_CONFIG": "x.yaml", "SIGNUP_SYNC_CLOCK": "2026-01-02T03:04:05+01:00,60"},
			func(e *environment) {
				e.Ledger, e.File, e.Storage, e.Graph, e.Authority = "file", "state.db", storageSource{}, "http://127.0.0.1:8080", "https://localhost:8443"
				e.Credential, e.ClientSecret, e.KeyVault, e.Certificate, e.CAFile, e.Config = "secret", "s", "", "", "ca.pem", "x.yaml"
				e.Clock = signup.ScaledClock{Start: time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC), Rate: 60}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := base
			tt.want(&want)
			got, err := parseEnvironment(environmentWith(tt.changes))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestEnvironmentErrorsComeAllAtOnce(t *testing.T) {
	_, err := parseEnvironment(func(string) string { return "" })
	want := `ENTRA_TENANT_ID: missing: set the GUID from the app registration's overview page
ENTRA_CLIENT_ID: missing: set the GUID from the app registration's overview page
KEY_VAULT_URL: missing: set the vault with the certificate, such as https://my-vault.vault.azure.net, or ENTRA_CREDENTIAL=federated
ENTRA_CERTIFICATE: missing: set the certificate's name in the vault
AzureWebJobsStorage: missing: set AzureWebJobsStorage__accountName (by identity), a connection string, or LEDGER=memory for a try`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("nothing set (-want +got):\n%s", diff)
	}
}

func TestEnvironmentErrors(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"FUNCTIONS_CUSTOMHANDLER_PORT", "http", "wants a port from 1 to 65535; the Functions host sets it"},
		{"FUNCTIONS_CUSTOMHANDLER_PORT", "0", "wants a port from 1 to 65535; the Functions host sets it"},
		{"ENTRA_TENANT_ID", "contoso.onmicrosoft.com", "wants a GUID such as 11111111-2222-3333-4444-555555555555"},
		{"ENTRA_CREDENTIAL", "password", "wants certificate or federated or secret"},
		{"ENTRA_CREDENTIAL", "secret", "ENTRA_CLIENT_SECRET: missing: ENTRA_CREDENTIAL=secret needs it; use a certificate outside of local tests"},
		{"ENTRA_CERTIFICATE", "my_cert", "wants the certificate's name in the vault: letters, digits and hyphens"},
		{"GRAPH_URL", "http://graph.example", "http:// is for this machine only; use https://"},
		{"GRAPH_URL", "http://127.0.0.1.example", "http:// is for this machine only; use https://"},
		{"GRAPH_URL", "https://graph.microsoft.com/v1.0", "wants the root only, without a path or query; versions and tenants are added here"},
		{"ENTRA_AUTHORITY", "https://me:hunter2@login.example", "must not hold a user name or password"},
		{"KEY_VAULT_URL", "my-vault", "wants a URL such as https://example.com"},
		{"LEDGER", "postgres", "wants tables, memory or file:PATH"},
		{"LEDGER", "file:", "wants tables, memory or file:PATH"},
		{"AzureWebJobsStorage", "hunter2", "wants a connection string with AccountName or TableEndpoint, or UseDevelopmentStorage=true"},
		{"AzureWebJobsStorage__accountName", "My_Account", "wants a storage account's name: 3 to 24 lower-case letters and digits"},
		{"AzureWebJobsStorage__credential", "secret", "wants managedidentity"},
		{"SIGNUP_SYNC_CLOCK", "2026-01-02T03:04:05Z,60", "is for a simulated tenant only: it wants a GRAPH_URL on this machine"},
	}
	for _, tt := range tests {
		_, err := parseEnvironment(environmentWith(map[string]string{tt.name: tt.value}))
		want := tt.want
		if !strings.HasPrefix(want, "ENTRA_CLIENT_SECRET") {
			want = tt.name + ": " + want
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s=%s\n got %v\nwant %s", tt.name, tt.value, err, want)
		}
	}
	for _, clock := range []string{"now", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z,0", "2026-01-02T03:04:05Z,NaN"} {
		_, err := parseEnvironment(environmentWith(map[string]string{"GRAPH_URL": "https://[::1]:8443", "SIGNUP_SYNC_CLOCK": clock}))
		if want := "SIGNUP_SYNC_CLOCK: wants a start and a rate above 0, such as 2026-01-02T03:04:05Z,60"; err == nil || err.Error() != want {
			t.Errorf("clock %s\n got %v\nwant %s", clock, err, want)
		}
	}
}

func TestEnvironmentRefusesReferencesThatDidNotResolve(t *testing.T) {
	const reference = "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/hunter2)"
	for _, name := range []string{"AzureWebJobsStorage", "ENTRA_CLIENT_SECRET", "ENTRA_TENANT_ID", "ENTRA_CERTIFICATE", "KEY_VAULT_URL", "GRAPH_URL", "LEDGER", "EXTRA_CA_FILE", "SIGNUP_SYNC_CONFIG"} {
		changes := map[string]string{name: reference}
		if name == "ENTRA_CLIENT_SECRET" {
			changes["ENTRA_CREDENTIAL"] = "secret"
		}
		_, err := parseEnvironment(environmentWith(changes))
		switch {
		case err == nil || !strings.HasPrefix(err.Error(), name+": the Key Vault reference in the app setting "+name+" did not resolve"):
			t.Errorf("%s: %v", name, err)
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s shows the reference: %v", name, err)
		}
	}
}
