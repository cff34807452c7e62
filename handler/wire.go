package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"signup-sync/handler/connector"
	"signup-sync/handler/entra"
	"signup-sync/handler/functions"
	"signup-sync/handler/identity"
	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/status"
	"signup-sync/handler/telemetry"
)

// app is the program, wired.
type app struct {
	env        environment
	config     *Config
	http       *http.Client
	telemetry  *telemetry.Telemetry   // nil = none
	identity   azcore.TokenCredential // the program's own, at Azure's services
	credential *identity.App          // the app's, in the tenant
	tenant     *entra.Tenant
	ledger     *ledger.Ledger
	engine     *pipeline.Engine

	timeout time.Duration // of one invocation
}

// openApp reads the environment and the configuration and wires the parts. It asks nothing of the outside. Its error
// joins all that is wrong.
func openApp(getenv func(string) string, log *slog.Logger) (*app, error) {
	env, envErr := parseEnvironment(getenv)
	config, configErr := readConfig(env.Config, getenv)
	hc, caErr := newHTTPClient(env.CAFile)
	timeout, timeoutErr := invocationTime(getenv("FUNCTIONS_APP_ROOT_PATH"), getenv("AzureFunctionsJobHost__functionTimeout"))
	if err := errors.Join(envErr, configErr, caErr, timeoutErr); err != nil {
		return nil, err
	}
	a := &app{env: env, config: config, timeout: timeout}
	if env.Telemetry != nil {
		o := *env.Telemetry
		o.Transport, o.Log = hc.Transport, log
		a.telemetry = telemetry.Open(o)
	}
	a.http = a.telemetry.Client(hc)
	if err := errors.Join(a.openTenant(getenv, log), a.openLedger(getenv)); err != nil {
		return nil, err
	}
	destinations, err := a.openDestinations(log)
	if err != nil {
		return nil, err
	}
	a.engine = &pipeline.Engine{
		Tenant: env.Tenant,
		Settings: pipeline.Settings{Overlap: config.Sync.Overlap, FirstLookBack: config.Sync.FirstLookBack, Origins: config.Signups.Origins,
			Invited: config.Signups.Guests == "invited"},
		Mapping:      config.Mapping,
		Destinations: destinations,
		Backstop:     a.tenant.Backstop(),
		Directory:    a.tenant,
		Ledger:       a.ledger,
		Clock:        env.Clock,
		Rand:         rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		Each:         pipeline.Each,
		Log:          log,
		Span:         a.telemetry.Span(),
	}
	if config.Signups.Entitlement {
		a.engine.Entitlements = a.tenant
	}
	if env.Credential == identity.Certificate {
		a.engine.Certificate = a.credential.InUse
	}
	for _, d := range []signup.Detector{a.tenant.Audit(), a.tenant.Directory(), a.tenant.SignUps()} {
		if slices.Contains(config.Sync.Detectors, d.Name()) {
			a.engine.Detectors = append(a.engine.Detectors, d)
		}
	}
	return a, nil
}

// readConfig reads and checks the configuration file.
func readConfig(path string, getenv func(string) string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w; put signup-sync.yaml beside host.json, or name it in SIGNUP_SYNC_CONFIG", err)
	}
	return parseConfig(path, data, getenv, newConnectorChecks())
}

// newConnectorChecks lets the configuration's check know what connectors take.
func newConnectorChecks() connectorChecks {
	all := kinds(nil)
	checks := connectorChecks{
		Settings: func(kind string, settings, record map[string]any) []error {
			k, err := connector.Find(all, kind)
			if err != nil {
				return []error{err}
			}
			c, errs := k.Open(settings, connector.Env{Shape: shape(record)})
			closeConnector(c)
			return errs
		},
		Record: func(kind string, record map[string]any) []error {
			k, err := connector.Find(all, kind)
			if err != nil {
				return []error{err}
			}
			return k.CheckRecord(record)
		},
	}
	checks.Most = func(kind string) int {
		k, _ := connector.Find(all, kind) // of a kind that is not known nothing is demanded
		return k.Most
	}
	for _, k := range all {
		checks.Kinds = append(checks.Kinds, k.Name)
	}
	return checks
}

// shape is a destination's record as connectors are told of it; one without fields is known too.
func shape(record map[string]any) map[string]any {
	if record == nil {
		return map[string]any{}
	}
	return record
}

// closeConnector gives back what a connector holds, if it holds anything.
func closeConnector(c signup.Connector) {
	if closer, ok := c.(io.Closer); ok {
		_ = closer.Close() // nothing was sent through it
	}
}

func (a *app) openTenant(getenv func(string) string, log *slog.Logger) error {
	var err error
	if a.identity, err = identity.OpenOwn(getenv("IDENTITY_ENDPOINT") != "", a.env.Identity, bounded(a.http)); err != nil {
		return err
	}
	a.credential, err = identity.OpenApp(identity.AppOptions{
		Kind: a.env.Credential, Tenant: a.env.Tenant, ClientID: a.env.Client, Authority: a.env.Authority, HTTP: bounded(a.http), Log: log,
		Secret: a.env.ClientSecret, Vault: a.env.KeyVault, Name: a.env.Certificate, Identity: a.identity,
	})
	if err != nil {
		return err
	}
	a.tenant, err = entra.Open(entra.Options{
		GraphURL: a.env.Graph, Credential: a.credential, HTTP: a.http, Clock: a.env.Clock, Log: log,
		Attributes: a.config.Mapping.Attributes(), ExtensionsApp: a.config.Profile.ExtensionsApp, Domain: a.config.Profile.UserPrincipalNameDomain,
		AuditRetention: a.config.Sync.AuditRetention,
	})
	return err
}

func (a *app) openLedger(getenv func(string) string) (err error) {
	switch a.env.Ledger {
	case "memory":
		a.ledger = ledger.Memory(a.env.Tenant)
	case "file":
		a.ledger, err = ledger.OpenSQLite(a.env.File, a.env.Tenant)
	default:
		o := ledger.TablesOptions{Tenant: a.env.Tenant, ConnectionString: a.env.Storage.Connection,
			TableServiceURL: a.env.Storage.Tables, AccountName: a.env.Storage.Account, Transport: bounded(a.http)}
		if o.ConnectionString == "" {
			if o.Credential, err = identity.OpenOwn(getenv("IDENTITY_ENDPOINT") != "", a.env.Storage.Identity, bounded(a.http)); err != nil {
				return err
			}
		}
		a.ledger, err = ledger.OpenTables(o)
	}
	return err
}

func (a *app) openDestinations(log *slog.Logger) ([]pipeline.Destination, error) {
	known := kinds(a.tenant)
	var all []pipeline.Destination
	for _, d := range a.config.Destinations {
		k, err := connector.Find(known, d.Connector)
		if err != nil {
			return nil, err
		}
		c, errs := k.Open(d.Settings, connector.Env{HTTP: a.http, Token: a.identity, Clock: a.env.Clock, Log: log, Shape: shape(d.Record)})
		if len(errs) > 0 {
			return nil, fmt.Errorf("open the destination %s: %w", d.Name, errors.Join(errs...))
		}
		all = append(all, pipeline.Destination{Name: d.Name, Connector: c, Observe: d.Mode == "observe",
			Rate: cmp.Or(d.Rate, k.Rate), Burst: cmp.Or(d.Burst, k.Burst), Concurrency: cmp.Or(d.Concurrency, k.Concurrency),
			Fuse: pipeline.Fuse{Failures: d.Breaker.Failures, Pause: d.Breaker.Pause}})
	}
	return all, nil
}

// report is the summary of one invocation: what the engine did, and what it asked of others for it.
type report struct {
	pipeline.Summary
	GraphCalls         int64 `json:"graphCalls"`
	GraphThrottled     int64 `json:"graphThrottled,omitempty"` // of those calls
	LedgerTransactions int64 `json:"ledgerTransactions"`       // that wrote rows; notes are counted apart
	LedgerNotes        int64 `json:"ledgerNotes"`
	LedgerReads        int64 `json:"ledgerReads"`
	Undecodable        int64 `json:"undecodable,omitempty"` // records that detectors passed over
}

// syncNewUsers is the function SyncNewUsers.
func (a *app) syncNewUsers(ctx context.Context, in functions.Invocation) (any, error) {
	var r report
	err := errPanic
	ctx, end := a.begin(ctx, in)
	defer func() { end(err != nil, measureRun(r, err)) }()
	calls, counts, graph := a.tenant.Calls(), a.ledger.Counts(), a.tenant.Counts()
	sum, err := a.engine.Run(ctx, pipeline.Trigger{Invocation: in.ID, PastDue: in.Timer.PastDue, Last: in.Timer.Last})
	after, graphAfter := a.ledger.Counts(), a.tenant.Counts()
	r = report{Summary: sum, GraphCalls: a.tenant.Calls() - calls, GraphThrottled: graphAfter.Throttled - graph.Throttled,
		LedgerTransactions: after.Transactions - counts.Transactions,
		LedgerNotes:        after.NoteWrites - counts.NoteWrites, LedgerReads: after.Reads - counts.Reads,
		Undecodable: graphAfter.Undecodable - graph.Undecodable}
	return r, err
}

// errPanic is what is told of an invocation that comes to no end; package functions says where it was.
var errPanic = errors.New("the invocation has panicked")

// begin starts the invocation's span.
func (a *app) begin(ctx context.Context, in functions.Invocation) (context.Context, func(failed bool, points []telemetry.Point)) {
	return a.telemetry.Begin(ctx, telemetry.Invocation{Function: in.Function, ID: in.ID, TraceParent: in.TraceParent, TraceState: in.TraceState})
}

// censusReport is the summary of one invocation of TakeCensus. Both functions may be at work at once, and then their
// calls are in both summaries.
type censusReport struct {
	pipeline.Census
	GraphCalls         int64 `json:"graphCalls"`
	LedgerTransactions int64 `json:"ledgerTransactions"`
	LedgerNotes        int64 `json:"ledgerNotes"`
	LedgerReads        int64 `json:"ledgerReads"`
}

// statusPage is the function Status, which is not there as long as the configuration does not say who may see it.
func (a *app) statusPage(log *slog.Logger) http.Handler {
	if a.config.Status.Access == "" {
		return status.Off()
	}
	return status.New(a.engine, log)
}

// takeCensus is the function TakeCensus. Whom the certificate names stands in the ledger; here are the counts.
func (a *app) takeCensus(ctx context.Context, in functions.Invocation) (any, error) {
	var r censusReport
	err := errPanic
	ctx, end := a.begin(ctx, in)
	defer func() { end(err != nil, measureCensus(r, err)) }()
	calls, counts := a.tenant.Calls(), a.ledger.Counts()
	c, err := a.engine.Census(ctx, pipeline.Trigger{Invocation: in.ID}, pipeline.CensusOptions{Act: true})
	after := a.ledger.Counts()
	c.Unnamed += len(c.Exceptions)
	c.Exceptions = nil
	r = censusReport{Census: c, GraphCalls: a.tenant.Calls() - calls, LedgerTransactions: after.Transactions - counts.Transactions,
		LedgerNotes: after.NoteWrites - counts.NoteWrites, LedgerReads: after.Reads - counts.Reads}
	return r, err
}

const (
	// runTime is the longest that an invocation takes, whatever functionTimeout allows: another comes in a minute.
	runTime = 4 * time.Minute
	// runMargin is kept below functionTimeout, at which the host kills the process.
	runMargin = 30 * time.Second
)
