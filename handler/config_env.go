package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/telemetry"
)

// environment is what the program takes from environment variables, checked. Secrets are among it: it is never logged.
type environment struct {
	Port    int           // FUNCTIONS_CUSTOMHANDLER_PORT; 0 if the host did not start us
	Config  string        // SIGNUP_SYNC_CONFIG
	Storage storageSource // AzureWebJobsStorage and its parts
	Ledger  string        // LEDGER: "tables", "memory", or "file"
	File    string        // the path behind LEDGER=file:

	Tenant       string // ENTRA_TENANT_ID, in lower case
	Client       string // ENTRA_CLIENT_ID, in lower case
	Credential   string // ENTRA_CREDENTIAL: "certificate", "federated" or "secret"
	ClientSecret string // ENTRA_CLIENT_SECRET, for "secret"
	KeyVault     string // KEY_VAULT_URL, for "certificate"
	Certificate  string // ENTRA_CERTIFICATE, its name in the vault
	Authority    string // ENTRA_AUTHORITY
	Graph        string // GRAPH_URL

	Identity string             // AZURE_CLIENT_ID; "" is the system-assigned identity
	CAFile   string             // EXTRA_CA_FILE
	Clock    signup.ScaledClock // SIGNUP_SYNC_CLOCK; zero is the wall clock

	Telemetry *telemetry.Options // OTEL_…; nil is off
}

// storageSource says how to reach the storage account.
type storageSource struct {
	Connection string // AzureWebJobsStorage; "" = by identity
	Account    string // AzureWebJobsStorage__accountName
	Tables     string // AzureWebJobsStorage__tableServiceUri
	Identity   string // AzureWebJobsStorage__clientId; "" is the system-assigned identity
}

const (
	defaultAuthority = "https://login.microsoftonline.com"
	defaultGraph     = "https://graph.microsoft.com"
	defaultConfig    = "signup-sync.yaml"
)

// parseEnvironment reads the environment. The error joins all that is wrong; each names its variable and the fix, and
// none holds the value of one that may be secret.
func parseEnvironment(getenv func(string) string) (environment, error) {
	p := envParser{getenv: getenv}
	e := environment{
		Port:      p.port("FUNCTIONS_CUSTOMHANDLER_PORT"),
		Config:    p.text("SIGNUP_SYNC_CONFIG", defaultConfig),
		Tenant:    p.guid("ENTRA_TENANT_ID", true),
		Client:    p.guid("ENTRA_CLIENT_ID", true),
		Authority: p.root("ENTRA_AUTHORITY", defaultAuthority),
		Graph:     p.root("GRAPH_URL", defaultGraph),
		Identity:  p.guid("AZURE_CLIENT_ID", false),
		CAFile:    p.text("EXTRA_CA_FILE", ""),
	}
	p.credential(&e)
	p.ledger(&e)
	p.clock(&e)
	p.telemetry(&e)
	return e, errors.Join(p.errs...)
}

type envParser struct {
	getenv func(string) string
	errs   []error
}

// settingError is what is wrong with one environment variable.
type settingError struct{ name, message string }

func (e settingError) Error() string { return e.name + ": " + e.message }

func (p *envParser) problem(name, format string, args ...any) {
	p.errs = append(p.errs, settingError{name, fmt.Sprintf(format, args...)})
}

// text reads a variable; one whose Key Vault reference did not resolve is a problem.
func (p *envParser) text(name, absent string) string {
	v := strings.TrimSpace(p.getenv(name))
	if strings.HasPrefix(v, keyVaultReference) {
		p.problem(name, "%s", unresolved(name))
		return ""
	}
	if v == "" {
		return absent
	}
	return v
}

func (p *envParser) oneOf(name string, known ...string) string {
	v := p.text(name, known[0])
	for _, k := range known {
		if v == k {
			return v
		}
	}
	p.problem(name, "wants %s", strings.Join(known, " or "))
	return known[0]
}

func (p *envParser) port(name string) int {
	v := p.text(name, "")
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 65535 {
		p.problem(name, "wants a port from 1 to 65535; the Functions host sets it")
		return 0
	}
	return n
}

func (p *envParser) guid(name string, required bool) string {
	v := p.text(name, "")
	switch {
	case v == "" && required && !strings.HasPrefix(p.getenv(name), keyVaultReference):
		p.problem(name, "missing: set the GUID from the app registration's overview page")
	case v != "" && !guid.MatchString(v):
		p.problem(name, "wants a GUID such as 11111111-2222-3333-4444-555555555555")
	}
	return strings.ToLower(v)
}

// root reads the root of a service: https, or http on this machine, and nothing behind the host.
func (p *envParser) root(name, absent string) string {
	v := p.text(name, absent)
	if v == "" {
		return ""
	}
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		p.problem(name, "wants a URL such as https://example.com")
	case u.User != nil:
		p.problem(name, "must not hold a user name or password")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		p.problem(name, "wants the root only, without a path or query; versions and tenants are added here")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		p.problem(name, "http:// is for this machine only; use https://")
	default:
		return u.Scheme + "://" + u.Host
	}
	return ""
}

// loopback reports that a host is this machine by its very name.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var certificateName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

func (p *envParser) credential(e *environment) {
	e.Credential = p.oneOf("ENTRA_CREDENTIAL", "certificate", "federated", "secret")
	switch e.Credential {
	case "secret":
		if e.ClientSecret = p.text("ENTRA_CLIENT_SECRET", ""); e.ClientSecret == "" && p.getenv("ENTRA_CLIENT_SECRET") == "" {
			p.problem("ENTRA_CLIENT_SECRET", "missing: ENTRA_CREDENTIAL=secret needs it; use a certificate outside of local tests")
		}
	case "certificate":
		if e.KeyVault = p.root("KEY_VAULT_URL", ""); p.getenv("KEY_VAULT_URL") == "" {
			p.problem("KEY_VAULT_URL", "missing: set the vault with the certificate, such as https://my-vault.vault.azure.net, or ENTRA_CREDENTIAL=federated")
		}
		if e.Certificate = p.text("ENTRA_CERTIFICATE", ""); p.getenv("ENTRA_CERTIFICATE") == "" {
			p.problem("ENTRA_CERTIFICATE", "missing: set the certificate's name in the vault")
		} else if e.Certificate != "" && !certificateName.MatchString(e.Certificate) {
			p.problem("ENTRA_CERTIFICATE", "wants the certificate's name in the vault: letters, digits and hyphens")
		}
	}
}

func (p *envParser) ledger(e *environment) {
	ledger := p.text("LEDGER", "tables")
	path, isFile := strings.CutPrefix(ledger, "file:")
	switch {
	case isFile && path != "":
		e.Ledger, e.File = "file", path
	case ledger == "memory":
		e.Ledger = "memory"
	case ledger == "tables":
		e.Ledger = "tables"
		p.storage(&e.Storage)
	default:
		p.problem("LEDGER", "wants tables, memory or file:PATH")
	}
}

var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

// storage reads the account of the ledger the way the Functions host reads its own.
func (p *envParser) storage(s *storageSource) {
	const name = "AzureWebJobsStorage"
	s.Connection = p.text(name, "")
	s.Account = p.text(name+"__accountName", "")
	s.Tables = p.root(name+"__tableServiceUri", "")
	s.Identity = p.guid(name+"__clientId", false)
	if credential := p.text(name+"__credential", "managedidentity"); !strings.EqualFold(credential, "managedidentity") {
		p.problem(name+"__credential", "wants managedidentity")
	}
	switch {
	case s.Connection != "":
		development := strings.EqualFold(strings.TrimSuffix(s.Connection, ";"), "UseDevelopmentStorage=true")
		if !development && !strings.Contains(s.Connection, "AccountName=") && !strings.Contains(s.Connection, "TableEndpoint=") {
			p.problem(name, "wants a connection string with AccountName or TableEndpoint, or UseDevelopmentStorage=true")
		}
	case s.Account != "" && !accountName.MatchString(s.Account):
		p.problem(name+"__accountName", "wants a storage account's name: 3 to 24 lower-case letters and digits")
	case s.Account == "" && s.Tables == "" && p.getenv(name) == "" && p.getenv(name+"__accountName") == "" && p.getenv(name+"__tableServiceUri") == "":
		p.problem(name, "missing: set AzureWebJobsStorage__accountName (by identity), a connection string, or LEDGER=memory for a try")
	}
}

// clock reads <start>,<rate>. A clock that runs differently would lose sign-ups of a real tenant.
func (p *envParser) clock(e *environment) {
	const name = "SIGNUP_SYNC_CLOCK"
	v := p.text(name, "")
	if v == "" {
		return
	}
	if u, err := url.Parse(e.Graph); err != nil || !loopback(u.Hostname()) {
		p.problem(name, "is for a simulated tenant only: it wants a GRAPH_URL on this machine")
		return
	}
	first, second, _ := strings.Cut(v, ",")
	start, err := time.Parse(time.RFC3339, strings.TrimSpace(first))
	rate, rateErr := strconv.ParseFloat(strings.TrimSpace(second), 64)
	if err != nil || rateErr != nil || math.IsNaN(rate) || rate <= 0 || rate > 1e6 {
		p.problem(name, "wants a start and a rate above 0, such as 2026-01-02T03:04:05Z,60")
		return
	}
	e.Clock = signup.ScaledClock{Start: start.UTC(), Rate: rate}
}
