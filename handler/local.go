package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

//go:embed local.yaml
var localConfig []byte

type localCommand struct {
	Tenant  string        `default:"external" enum:"external,workforce" help:"What kind of tenant it is: external, where customers sign up, or workforce, with partners and access packages."`
	Signups int           `default:"200" help:"So many people come into the tenant, of mixed origins."`
	Seed    uint64        `default:"1" help:"The same seed makes the same people, delays and faults."`
	Over    time.Duration `default:"6m" help:"… within this simulated time."`
	Rate    float64       `default:"30" help:"How many times as fast as the wall clock the simulation runs."`
	Faults  bool          `help:"Let things go wrong: answers lost after the effect, outages, throttling, broken pages, and the program killed at work."`
	JSON    bool          `help:"Print one JSON object instead of a table."`
	App     string        `default:"." type:"path" help:"The app's folder, with host.json, SyncNewUsers and bin/handler."`
	Dir     string        `default:".local" type:"path" help:"Folder for ledger.db, customers.db and the handler's log; what an earlier run left of them is removed."`
	Ledger  string        `default:"file" enum:"file,tables" help:"Where the ledger is: a SQLite file, or the tables of the account in AzureWebJobsStorage, such as Azurite's."`
	Keep    bool          `help:"Leave the status page up after the run, and the timers going, until Ctrl-C."`
	Give    time.Duration `default:"40m" help:"Simulated time after the last sign-up by which everything must be settled."`
}

// Run plays the whole job on this machine and checks what came of it.
func (c localCommand) Run(ctx context.Context, s system) error {
	switch {
	case c.Signups < 1:
		return refusal{errors.New("--signups: want at least 1")}
	case c.Over <= 0:
		return refusal{errors.New("--over: want a time above zero, such as 6m")}
	case !(c.Rate > 0 && c.Rate <= 1000):
		return refusal{errors.New("--rate: want more than 0 and at most 1000; faster than that, calls take hours of simulated time")}
	}
	l, err := c.open(ctx, s)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.play(ctx); err != nil {
		return err
	}
	census, err := l.census(ctx)
	if err != nil {
		return err
	}
	r, err := l.reconcile(ctx)
	if err == nil {
		r.certify(census, l.Tenant.Users())
	}
	if err != nil {
		return fmt.Errorf("compare what the tenant, the ledger and the destinations hold: %w", err)
	}
	if c.JSON {
		err = json.NewEncoder(s.stdout).Encode(r)
	} else {
		err = r.print(s.stdout, l)
	}
	if err == nil && c.Keep {
		l.keep(ctx)
	}
	if err == nil && len(r.Problems) > 0 {
		err = fmt.Errorf("%d things do not agree; the handler's log is %s", len(r.Problems), l.path("handler.log"))
	}
	return err
}

// local is one such play.
type local struct {
	*simulation
	command localCommand
	clock   signup.ScaledClock
	host    *devhost.Host
	page    *localPage
	ledger  *ledger.Ledger    // the program's own, read only
	app     map[string]string // settings
	log     *os.File
	show    *progress
	begun   time.Time

	mu      sync.Mutex
	people  map[signup.UserID]sim.Person
	reports []report
	latest  time.Time // when somebody last signed up
	died    int       // invocations that failed
	failed  int       // … in a row
	why     string    // the last thing that the handler wanted a person to know
}

func (c localCommand) open(ctx context.Context, s system) (_ *local, err error) {
	l := &local{command: c, begun: time.Now(), people: map[signup.UserID]sim.Person{}}
	l.clock = signup.ScaledClock{Start: l.begun.UTC().Truncate(time.Second), Rate: c.Rate}
	l.show, l.page = newProgress(s, c.JSON), newLocalPage()
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.simulation, err = openSimulation(ctx, c.Dir, "127.0.0.1:0", c.Seed, l.clock, sim.TenantType(c.Tenant)); err != nil {
		return nil, err
	}
	if err = os.WriteFile(l.path("signup-sync.yaml"), configOf(sim.TenantType(c.Tenant)), 0o644); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	if l.log, err = os.Create(l.path("handler.log")); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	settings := l.settings()
	maps.Copy(settings, l.more())
	settings["SIGNUP_SYNC_CONFIG"] = l.path("signup-sync.yaml")
	settings["LEDGER"] = "file:" + l.path("ledger.db")
	if c.Ledger == "file" {
		l.ledger, err = ledger.OpenSQLite(l.path("ledger.db"), simTenant)
	} else {
		settings["LEDGER"], settings["AzureWebJobsStorage"] = "tables", s.getenv("AzureWebJobsStorage")
		l.ledger, err = ledger.OpenTables(ledger.TablesOptions{Tenant: simTenant, ConnectionString: settings["AzureWebJobsStorage"]})
	}
	if err != nil {
		return nil, err
	}
	settings["SYNC_SCHEDULE"], settings["CENSUS_SCHEDULE"] = "0 * * * * *", "30 * * * * *"
	settings["SIGNUP_SYNC_CLOCK"] = fmt.Sprintf("%s,%g", l.clock.Start.Format(time.RFC3339), c.Rate)
	for _, e := range environmentDocs { // a collector gets what a deployed one would
		if v := s.getenv(e.name); v != "" && strings.HasPrefix(e.name, "OTEL_") {
			settings[e.name] = v
		}
	}
	l.app = settings
	if l.host, err = devhost.Open(devhost.Options{Root: c.App, Settings: settings, Key: l.page.key, Clock: l.clock, Log: l.line}); err != nil {
		return nil, fmt.Errorf("open the app in %s: %w; run 'make build' first, or name the folder with --app", c.App, err)
	}
	ready, err := l.host.Start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the handler: %w; its log is %s", err, l.path("handler.log"))
	}
	if err = l.page.serve(l.host); err != nil {
		return nil, err
	}
	l.show.say("the handler answered after %d ms; one simulated minute takes %.1f s; its status page: %s", ready.Milliseconds(), 60/c.Rate, l.page.link)
	return l, nil
}

func (l *local) close() {
	l.page.close()
	if l.host != nil {
		l.host.Close()
	}
	if l.ledger != nil {
		_ = l.ledger.Close() // it was read only
	}
	if l.simulation != nil {
		l.server.Close()
	}
	if l.log != nil {
		_ = l.log.Close()
	}
}

// line takes the host's log: everything into the file, the runs' reports into the count.
func (l *local) line(line devhost.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.log, "%s %-7s %s\n", l.clock.Now().Format(time.TimeOnly), line.From, line.Text)
	var r report
	switch {
	case line.From == "logs" && json.Unmarshal([]byte(line.Text), &r) == nil && r.Run != "":
		l.reports, l.failed = append(l.reports, r), 0
	case line.From == "stderr":
		l.why = line.Text
	case line.From == "host" && line.Level == "Error":
		l.failed++
		l.died++
	}
}

// hopeless is an error when the handler fails every time.
func (l *local) hopeless() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed < 8 {
		return nil
	}
	return fmt.Errorf("the handler fails every time; its last words: %s; its log is %s", l.why, l.path("handler.log"))
}

// play lets people sign up while the timer fires, until everything is settled or the time given is over.
func (l *local) play(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	timers := make(chan error, 1)
	go func() { timers <- l.host.RunTimers(ctx) }()
	if l.command.Faults {
		l.addFaults()
	}
	crowd := make(chan struct{})
	go func() { defer close(crowd); l.signUps(ctx) }()

	end := l.clock.Start.Add(l.command.Over + l.command.Give)
	for {
		select {
		case err := <-timers:
			return errors.Join(errors.New("the host ended"), err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
		done, err := l.settled(ctx)
		if err = errors.Join(err, l.hopeless()); err != nil {
			return err
		}
		select {
		case <-crowd:
			if done && l.clock.Now().After(l.latest.Add(reachOf(sim.TenantType(l.command.Tenant)))) || l.clock.Now().After(end) {
				stop()
				<-timers
				l.show.done()
				return nil
			}
		default:
		}
	}
}

// census takes one as an operator would.
func (l *local) census(ctx context.Context) (c pipeline.Census, err error) {
	var stdout, stderr bytes.Buffer
	code := run(ctx, system{args: []string{"census", "--yes", "--json"}, getenv: func(name string) string { return l.app[name] }, stdout: &stdout, stderr: &stderr})
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.log, "%s census  exit code %d\n%s", l.clock.Now().Format(time.TimeOnly), code, stderr.String())
	if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
		return c, fmt.Errorf("take a census: exit code %d: %s", code, strings.TrimSpace(stderr.String()))
	}
	return c, nil
}

// signUps spreads the crowd over the time, unevenly; every second guest redeems the invitation a minute later.
func (l *local) signUps(ctx context.Context) {
	chance := rand.New(rand.NewPCG(l.command.Seed, 3))
	crowd := crowdOf(sim.TenantType(l.command.Tenant), l.command.Signups, l.command.Seed)
	step := l.command.Over / time.Duration(len(crowd))
	for i, p := range crowd {
		at := l.clock.Start.Add(time.Duration(i) * step).Add(time.Duration(chance.Int64N(int64(step) + 1)))
		if l.clock.Sleep(ctx, at.Sub(l.clock.Now())) != nil {
			return
		}
		id := l.Tenant.SignUp(p)
		l.mu.Lock()
		l.people[id], l.latest = p, l.clock.Now()
		l.mu.Unlock()
		if (p.How == sim.Guest || p.How == sim.Requested) && i%2 == 0 {
			time.AfterFunc(time.Duration(float64(time.Minute)/l.command.Rate), func() { l.Tenant.Redeem(id) })
		}
	}
}

// settled reads the ledger, shows how far it is, and reports whether everyone is in it and nothing is pending.
func (l *local) settled(ctx context.Context) (bool, error) {
	l.mu.Lock()
	people := len(l.people)
	l.mu.Unlock()
	rows, pending := 0, 0
	for row, err := range l.ledger.All(ctx) {
		if err != nil {
			return false, fmt.Errorf("read the ledger: %w", err)
		}
		rows++
		if !row.Due.IsZero() || l.isLate(row) {
			pending++
		}
	}
	all := l.command.Signups
	width := len(fmt.Sprint(all))
	l.show.share(rows-pending, all, fmt.Sprintf("simulated %6s   signed up %*d of %d   in the ledger %*d   settled %*d",
		l.clock.Now().Sub(l.clock.Start).Truncate(time.Second), width, people, all, width, rows, width, rows-pending))
	return people == all && rows == people && pending == 0, nil
}

// isLate reports that a guest has accepted the invitation, and no detector has said so yet.
func (l *local) isLate(row signup.Row) bool {
	_, reason := row.State()
	u, _ := l.Tenant.User(row.User)
	return reason == "not-redeemed" && u.Properties["externalUserState"] == "Accepted"
}

// addFaults lets a share of the calls go wrong in the ways that hurt.
func (l *local) addFaults() {
	l.killAtWork()
	destinations := []*sim.Faults{&l.Stripe.Faults, &l.Mailchimp.Faults, &l.Salesforce.Faults, &l.Webhook.Faults,
		&l.Queue.Faults, &l.ServiceBus.Faults, &l.EventGrid.Faults}
	for _, f := range destinations {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
			f.Add(sim.Fault{Method: method, After: true, Times: -1, Chance: 0.05},
				sim.Fault{Method: method, Status: http.StatusServiceUnavailable, Times: -1, Chance: 0.05})
		}
		f.Seed(l.command.Seed)
	}
	l.Webhook.Faults.Add(sim.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"20"}}, Times: -1, Chance: 0.02})
	l.Identity.Faults.Add(sim.Fault{Status: http.StatusServiceUnavailable, Times: -1, Chance: 0.1})
	l.Tenant.Faults.Add(
		sim.Fault{Method: http.MethodPatch, After: true, Status: http.StatusServiceUnavailable, Times: -1, Chance: 0.05},
		sim.Fault{Method: http.MethodPost, After: true, Times: -1, Chance: 0.05},
		sim.Fault{Method: http.MethodGet, Status: http.StatusOK, Body: `{"value":[{"id":"`, Times: -1, Chance: 0.03},
		sim.Fault{Method: http.MethodGet, Status: http.StatusBadGateway, Body: "<html>Bad Gateway</html>", Times: -1, Chance: 0.03},
		sim.Fault{Method: http.MethodGet, Times: -1, Chance: 0.02},
	)
	for _, f := range []*sim.Faults{&l.Identity.Faults, &l.Tenant.Faults} {
		f.Seed(l.command.Seed)
	}
}

// killAtWork kills the program when it has next made a customer in Stripe, before it learns of it.
func (l *local) killAtWork() {
	l.Stripe.Faults.Add(sim.Fault{Method: http.MethodPost, After: true, Then: func() {
		l.show.say("the program is killed at work")
		if err := l.host.Kill(); err != nil {
			l.show.say("kill: %v", err)
		}
	}})
}
