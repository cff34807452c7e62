package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"signup-sync/handler/ledger"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

const tenantID = "04dcc6ab-388a-4559-b527-fbec656300ea"

// world is a tenant and its outside systems, small and in memory; time is the bubble's.
type world struct {
	t         *testing.T
	clock     signup.ScaledClock
	ledger    *ledger.Ledger
	faults    *faultyLedger
	audit     *detector
	directory *detector
	register  *register // what a census reads, if there is one
	users     *directory
	systems   map[string]*system
	engine    *pipeline.Engine
}

// newWorld has the destinations of spec, each a system of its own.
func newWorld(t *testing.T, spec pipeline.Spec) *world {
	t.Helper()
	w := &world{t: t, ledger: ledger.Memory(tenantID), audit: &detector{name: "audit", retention: 168 * time.Hour},
		directory: &detector{name: "directory"}, users: &directory{all: map[signup.UserID]signup.User{}}, systems: map[string]*system{}}
	w.faults = &faultyLedger{Ledger: w.ledger}
	for _, d := range spec.Destinations {
		w.systems[d.Name] = &system{name: d.Name, accounts: map[signup.UserID]string{}}
	}
	w.configure(spec)
	return w
}

// configure starts a new process with another configuration.
func (w *world) configure(spec pipeline.Spec) {
	w.t.Helper()
	mapping, problems := pipeline.Compile(spec)
	if len(problems) > 0 {
		w.t.Fatalf("compile: %v", problems)
	}
	w.engine = &pipeline.Engine{
		Tenant: tenantID, Mapping: mapping,
		Settings:  pipeline.Settings{Overlap: time.Hour, FirstLookBack: 24 * time.Hour, Origins: []signup.Origin{signup.SelfService}},
		Detectors: []signup.Detector{w.audit, w.directory}, Backstop: w.directory, Directory: w.users, Ledger: w.faults,
		Clock: w.clock, Rand: rand.New(rand.NewPCG(1, 2)), Each: pipeline.Each, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, d := range spec.Destinations {
		w.engine.Destinations = append(w.engine.Destinations, pipeline.Destination{Name: d.Name, Connector: w.systems[d.Name], Concurrency: 8})
	}
}

// run lets d pass and runs once, with the time that a run has.
func (w *world) run(d time.Duration) (pipeline.Summary, error) {
	time.Sleep(d)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	return w.engine.Run(ctx, pipeline.Trigger{Invocation: "test"})
}

func (w *world) mustRun(d time.Duration) pipeline.Summary {
	w.t.Helper()
	sum, err := w.run(d)
	if err != nil {
		w.t.Fatalf("run: %v", err)
	}
	return sum
}

// signUp makes a person sign up now; all detectors see it at once.
func (w *world) signUp(n int) signup.UserID {
	id := signup.UserID(fmt.Sprintf("75b523ca-d064-4ddf-80af-%012d", n))
	now := time.Now().UTC()
	w.users.put(signup.User{ID: id, GivenName: "Ana", Surname: fmt.Sprintf("Nr%d", n), DisplayName: "unknown", UserPrincipalName: string(id) + "@contoso.onmicrosoft.com",
		Email: fmt.Sprintf("ana%d@example.com", n), CreationType: "LocalAccount", UserType: "Member", Created: now, Attributes: map[string]any{},
		Identities: []signup.Identity{{SignInType: "emailAddress", IssuerAssignedID: fmt.Sprintf("ana%d@example.com", n)}}})
	for _, d := range []*detector{w.audit, w.directory} {
		d.see(signup.Event{User: id, Kind: signup.Created, At: now})
	}
	if w.register != nil {
		w.register.see(signup.Event{User: id, Kind: signup.Created, At: now})
	}
	return id
}

func (w *world) row(id signup.UserID) signup.Row {
	w.t.Helper()
	rows, err := w.ledger.Get(context.Background(), []signup.UserID{id})
	if err != nil || len(rows) != 1 {
		w.t.Fatalf("get row: %d rows, %v", len(rows), err)
	}
	return rows[0]
}

// states is every association as "name: state reason".
func (w *world) states(id signup.UserID) []string {
	w.t.Helper()
	var out []string
	for _, a := range w.row(id).Associations {
		s := a.Destination + ": " + string(a.State)
		if a.Reason != "" {
			s += " " + a.Reason
		}
		out = append(out, s)
	}
	return out
}

func (w *world) want(id signup.UserID, states ...string) {
	w.t.Helper()
	if got := w.states(id); !slices.Equal(got, states) {
		w.t.Errorf("got %q, want %q", got, states)
	}
}

// detector shows what it has seen, with scripted failures.
type detector struct {
	name      string
	retention time.Duration
	mu        sync.Mutex
	events    []signup.Event
	fail      error         // the next reads fail
	failAfter int           // … after so many events
	ahead     time.Duration // the service's clock is behind ours by so much
	silent    bool          // nothing answers, not even with an error
	windows   []signup.Window
}

var _ signup.Detector = (*detector)(nil)

func (d *detector) Name() string             { return d.name }
func (d *detector) Retention() time.Duration { return d.retention }
func (d *detector) Served() time.Time {
	if d.silent {
		return time.Time{}
	}
	return time.Now().UTC().Add(-d.ahead)
}

func (d *detector) see(e signup.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

func (d *detector) Events(_ context.Context, w signup.Window) iter.Seq2[signup.Event, error] {
	return func(yield func(signup.Event, error) bool) {
		d.mu.Lock()
		events, fail, after := slices.Clone(d.events), d.fail, d.failAfter
		d.windows = append(d.windows, w)
		d.mu.Unlock()
		for _, e := range events {
			lost := d.retention > 0 && time.Since(e.At) > d.retention
			if lost || e.At.Before(w.From) || !e.At.Before(w.To) {
				continue
			}
			if fail != nil && after == 0 {
				break
			}
			after--
			if !yield(e, nil) {
				return
			}
		}
		if fail != nil {
			yield(signup.Event{}, fail)
		}
	}
}

// directory is the tenant's users, with scripted failures.
type directory struct {
	mu         sync.Mutex
	all        map[signup.UserID]signup.User
	reads      int
	patches    []signup.Patch
	unreadable signup.UserID // whoever reads it gets an answer that cannot be decoded
	down       error         // every read fails
	patch      func(signup.UserID, signup.Patch) error
}

var _ signup.Directory = (*directory)(nil)

func (d *directory) put(u signup.User) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[u.ID] = u
}

func (d *directory) Users(_ context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	if len(ids) > 15 {
		return nil, errors.New("more than 15 ids")
	}
	if d.down != nil {
		return nil, d.down
	}
	if slices.Contains(ids, d.unreadable) {
		return nil, &signup.Error{Class: signup.Transient, Code: "bad-answer"}
	}
	out := map[signup.UserID]signup.User{}
	for _, id := range ids {
		if u, ok := d.all[id]; ok {
			out[id] = u
		}
	}
	return out, nil
}

func (d *directory) Update(_ context.Context, id signup.UserID, p signup.Patch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.patches = append(d.patches, p)
	if d.patch != nil {
		if err := d.patch(id, p); err != nil {
			return err
		}
	}
	u := d.all[id]
	if p.DisplayName != "" {
		u.DisplayName = p.DisplayName
	}
	if p.UserPrincipalName != "" {
		u.UserPrincipalName = p.UserPrincipalName
	}
	attributes := map[string]any{}
	for k, v := range u.Attributes {
		attributes[k] = v
	}
	for k, v := range p.Attributes {
		attributes[k] = v
	}
	for _, k := range p.Clear {
		delete(attributes, k)
	}
	u.Attributes = attributes
	d.all[id] = u
	return nil
}

// system is a destination without idempotency keys: it makes a second account whenever it is asked without being told
// to look first.
type system struct {
	name     string
	mu       sync.Mutex
	accounts map[signup.UserID]string
	made     int
	requests []signup.Request
	before   func(context.Context, signup.Request) error // instead of the effect
	after    func(context.Context, signup.Request) error // after the effect
}

var _ signup.Connector = (*system)(nil)

func (s *system) Check(context.Context) error { return nil }

func (s *system) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	s.mu.Lock()
	s.requests = append(s.requests, req)
	before, after := s.before, s.after
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, req); err != nil {
			return signup.Account{}, err
		}
	}
	s.mu.Lock()
	id, ok := s.accounts[req.User]
	if !ok || !req.Unsure {
		s.made++
		id = fmt.Sprintf("%s_%d", s.name, s.made)
		s.accounts[req.User] = id
	}
	s.mu.Unlock()
	if after != nil {
		if err := after(ctx, req); err != nil {
			return signup.Account{}, err
		}
	}
	return signup.Account{ID: id, Created: !ok}, nil
}

// faultyLedger refuses the operations that are down; the others the ledger behind it does.
type faultyLedger struct {
	signup.Ledger
	mu      sync.Mutex
	down    map[string]bool
	insert  func(do func() ([]signup.Row, error)) ([]signup.Row, error) // in place of Insert, which it may do
	replace func(do func() ([]signup.Row, error)) ([]signup.Row, error) // likewise
}

// set takes operations ("Insert", "Replace", "PutNote") down, all others up.
func (f *faultyLedger) set(down ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = map[string]bool{}
	for _, op := range down {
		f.down[op] = true
	}
}

func (f *faultyLedger) err(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down[op] {
		return errors.New("the ledger is down")
	}
	return nil
}

func (f *faultyLedger) Insert(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	if err := f.err("Insert"); err != nil {
		return nil, err
	}
	do := func() ([]signup.Row, error) { return f.Ledger.Insert(ctx, rows) }
	if f.insert != nil {
		return f.insert(do)
	}
	return do()
}

func (f *faultyLedger) Replace(ctx context.Context, rows []signup.Row) ([]signup.Row, error) {
	if err := f.err("Replace"); err != nil {
		return nil, err
	}
	do := func() ([]signup.Row, error) { return f.Ledger.Replace(ctx, rows) }
	if f.replace != nil {
		return f.replace(do)
	}
	return do()
}

func (f *faultyLedger) PutNote(ctx context.Context, n signup.Note) (signup.Note, error) {
	if err := f.err("PutNote"); err != nil {
		return n, err
	}
	return f.Ledger.PutNote(ctx, n)
}

// first is a hook that does something at the first call only.
func first(f func(context.Context, signup.Request) error) func(context.Context, signup.Request) error {
	var called atomic.Bool // not a sync.Once: in a bubble nobody may wait for a mutex while its holder sleeps
	return func(ctx context.Context, req signup.Request) error {
		if called.CompareAndSwap(false, true) {
			return f(ctx, req)
		}
		return nil
	}
}

// calls counts the requests so far.
func (s *system) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// bubble runs a test where time stands still until everyone waits.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// spec is billing, crm that needs it, and news for those who want it; billing's id is linked back.
func spec() pipeline.Spec {
	return pipeline.Spec{
		DisplayName:       `user.givenName + " " + user.surname`,
		UserPrincipalName: `slug(user.givenName + "." + user.surname)`,
		Attributes:        map[string]string{"billingId": "accounts.billing?.id"},
		Destinations: []pipeline.DestinationSpec{
			{Name: "billing", Record: map[string]any{"email": "user.email", "name": "user.displayName"}},
			{Name: "crm", Record: map[string]any{"billing": "accounts.billing.id"}},
			{Name: "news", When: "user.attributes.optIn == true", Record: map[string]any{"email": "user.email"}},
		},
	}
}
