package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"signup-sync/handler/functions/devhost"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
	"signup-sync/handler/telemetry"
	"signup-sync/handler/telemetry/collectortest"
)

// telemetryWorld is the real program under devhost, with a destination of every kind and a collector beside them, over TLS.
type telemetryWorld struct {
	*simulation
	t         *testing.T
	collector *collectortest.Collector
	host      *devhost.Host

	mu     sync.Mutex
	parent string              // the host's latest traceparent; "" = it has sent none
	log    []string            // of the program
	traced map[string][]string // of each system that was called: the trace ids, "" = none
}

const telemetryRate = 1000

// everyKind is a configuration with all kinds of destinations, which no one tenant has.
func everyKind() string {
	packages, _, _ := strings.Cut(workforcePart, "\nsync:")
	return string(localConfig) + packages
}

func openTelemetryWorld(t *testing.T, more map[string]string, collector *collectortest.Collector) *telemetryWorld {
	t.Helper()
	w := &telemetryWorld{t: t, collector: collector, traced: map[string][]string{}}
	clock := signup.ScaledClock{Start: time.Now().UTC().Truncate(time.Second), Rate: telemetryRate}
	var err error
	if w.simulation, err = openSimulation(t.Context(), t.TempDir(), "127.0.0.1:0", 1, clock, sim.Workforce); err != nil {
		t.Fatal(err)
	}
	w.server.Close()
	told := http.StripPrefix("/otlp", collector)
	if w.server, err = sim.Serve(t.Context(), "127.0.0.1:0", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/otlp/") {
			told.ServeHTTP(rw, r)
			return
		}
		w.see(r)
		w.World.ServeHTTP(rw, r)
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	if err := os.WriteFile(w.path("ca.pem"), w.server.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("signup-sync.yaml"), []byte(everyKind()), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := w.settings()
	maps.Copy(settings, w.more())
	maps.Copy(settings, map[string]string{"LEDGER": "file:" + w.path("ledger.db"), "SIGNUP_SYNC_CONFIG": w.path("signup-sync.yaml"),
		"SYNC_SCHEDULE": "0 * * * * *", "CENSUS_SCHEDULE": "30 * * * * *", "SIGNUP_SYNC_CLOCK": fmt.Sprintf("%s,%d", clock.Start.Format(time.RFC3339), telemetryRate),
		"OTEL_EXPORTER_OTLP_ENDPOINT": w.server.URL + "/otlp/", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20secret", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"})
	maps.Copy(settings, more)
	if w.host, err = devhost.Open(devhost.Options{Root: appFolder(t), Settings: settings, Clock: clock, Log: w.line}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.host.Close)
	if _, err := w.host.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

var sentParent = regexp.MustCompile(`msg="invocation started".* traceparent=(\S*)`)

func (w *telemetryWorld) line(l devhost.Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, l.Text)
	if m := sentParent.FindStringSubmatch(l.Text); m != nil {
		w.parent = strings.Trim(m[1], `"`)
	}
}

// see notes of which trace a call says it is.
func (w *telemetryWorld) see(r *http.Request) {
	trace := ""
	if parts := strings.Split(r.Header.Get("Traceparent"), "-"); len(parts) == 4 {
		trace = parts[1]
	}
	first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case strings.HasSuffix(rest, "/token") || first == "msi":
		first = "token" // renewed ahead, for no invocation, or asked for in one
	case first == "v1.0" || first == "beta":
		for _, part := range []string{"auditLogs", "groups", "entitlementManagement"} {
			if strings.Contains(rest, part) {
				first = "Graph's " + part
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.traced[first], trace) {
		w.traced[first] = append(w.traced[first], trace)
	}
}

// fired is what came of one invocation.
type fired struct {
	summary string
	trace   string // the host's; "" = it has sent none
	span    string // … and its span
	traced  map[string][]string
	spans   []collectortest.Span
	points  []collectortest.Point
	took    time.Duration
}

func (w *telemetryWorld) fire(function string) fired {
	w.t.Helper()
	w.mu.Lock()
	w.traced, w.parent = map[string][]string{}, ""
	w.mu.Unlock()
	r, err := w.host.Fire(w.t.Context(), function, "")
	if err != nil || len(r.Logs) != 1 {
		w.t.Fatalf("%s: %v, %q\n%s", function, err, r.Logs, strings.Join(w.log[max(0, len(w.log)-20):], "\n"))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f := fired{summary: r.Logs[0], traced: w.traced, took: r.Took}
	if parts := strings.Split(w.parent, "-"); len(parts) == 4 {
		f.trace, f.span = parts[1], parts[2]
	}
	f.spans, f.points = w.collector.Take()
	return f
}

// TestOneTraceFromTheHostToEveryDestination runs the program with the simulation until everyone is everywhere. The
// host's trace must be in every call, in the spans, and the metrics what the summary line says.
func TestOneTraceFromTheHostToEveryDestination(t *testing.T) {
	t.Parallel()
	w := openTelemetryWorld(t, nil, &collectortest.Collector{})
	w.check(w.fire("SyncNewUsers"))
	const people = 4
	var none time.Duration
	for i := range people {
		w.Tenant.SignUp(sim.Person{How: sim.Email, Email: fmt.Sprintf("traced%d@example.com", i), GivenName: "Ada", Surname: "Traced",
			Attributes: map[string]any{"marketingOptIn": true}, AuditLag: &none, ReplicaLag: &none, IndexLag: &none})
	}
	called, sums := map[string]bool{}, map[string]float64{}
	for end := time.Now().Add(time.Minute); ; time.Sleep(60 * time.Millisecond) {
		f := w.fire("SyncNewUsers")
		w.check(f)
		for system := range f.traced {
			called[system] = called[system] || f.trace != ""
		}
		for _, p := range f.points {
			if p.Metric == "signup_sync.associations" && p.Attributes["state"] == "associated" {
				sums[p.Attributes["destination"]] += p.Value
			}
			if p.Metric == "signup_sync.signups" {
				sums["signups "+p.Attributes["origin"]] += p.Value
			}
		}
		if sums["starter"] == people && sums["profile"] == people {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not everyone is everywhere: %v; the last summary is %s", sums, f.summary)
		}
	}
	want := map[string]float64{"signups selfService": people}
	for _, d := range []string{"billing", "newsletter", "crm", "welcome", "customers", "queue", "bus", "topic", "members", "starter", "profile"} {
		want[d] = people
	}
	if diff := gocmp.Diff(want, sums); diff != "" {
		t.Errorf("the metrics of all runs (-want +got):\n%s", diff)
	}
	w.check(w.fire("TakeCensus"))
	for _, system := range []string{"v1.0", "Graph's auditLogs", "Graph's groups", "Graph's entitlementManagement", "v1", "3.0", "services", "webhook", "devstoreaccount1", "signups", "api"} {
		if !called[system] {
			t.Errorf("%s was never called in a trace of the host's: %v", system, called)
		}
	}
	if got := w.collector.Faults(); got != nil {
		t.Errorf("breaches of the protocol: %q", got)
	}
	if got, want := w.collector.Resource(), map[string]string{"service.name": "signup-sync", "deployment.environment.name": "test"}; !gocmp.Equal(got, want) {
		t.Errorf("got telemetry of %v, want %v", got, want)
	}
	if got := w.collector.Header().Get("Api-Key"); got != "a secret" {
		t.Errorf("the collector got the key %q", got)
	}
	never := []string{"traced", "Ada", "/users", "/customers", "a secret"}
	for _, u := range w.Tenant.Users() {
		never = append(never, string(u.ID))
	}
	for _, never := range never {
		if strings.Contains(string(w.collector.Bytes()), never) {
			t.Errorf("the collector was told %q", never)
		}
	}
}

// TestTheLocalRunIsToldToACollector as well, of whom the environment says where it is.
func TestTheLocalRunIsToldToACollector(t *testing.T) {
	t.Parallel()
	var c collectortest.Collector
	server := httptest.NewServer(&c)
	defer server.Close()
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return map[string]string{collectorSetting: server.URL}[name] }
	code := run(t.Context(), system{args: []string{"local", "--json", "--signups", "3", "--app", appFolder(t), "--dir", t.TempDir()}, getenv: getenv, stdout: &stdout, stderr: &stderr})
	if spans, points := c.Take(); code != exitOK || len(spans) < 20 || len(points) < 20 || c.Faults() != nil {
		t.Errorf("exit code %d, %d spans, %d points, %q: %s", code, len(spans), len(points), c.Faults(), stderr.String())
	}
}

// check holds one invocation's spans and metrics against the host's trace and the summary line.
func (w *telemetryWorld) check(f fired) {
	w.t.Helper()
	ids, roots, trace := map[string]bool{}, 0, f.trace
	for _, s := range f.spans {
		ids[s.ID] = true
		if s.Kind == "SPAN_KIND_SERVER" {
			roots, trace = roots+1, cmp.Or(trace, s.Trace)
		}
	}
	for _, s := range f.spans {
		switch root := s.Kind == "SPAN_KIND_SERVER"; {
		case s.Trace != trace:
			w.t.Errorf("%s is of the trace %s, want %s", s.Name, s.Trace, trace)
		case root && s.Parent != f.span:
			w.t.Errorf("%s has the parent %q, want the host's %q", s.Name, s.Parent, f.span)
		case !root && !ids[s.Parent]:
			w.t.Errorf("%s has the parent %q, which is nowhere", s.Name, s.Parent)
		}
	}
	if roots != 1 {
		w.t.Errorf("got %d invocations among %d spans, want 1", roots, len(f.spans))
	}
	for _, system := range slices.Sorted(maps.Keys(f.traced)) {
		if got := f.traced[system]; system != "token" && !slices.Equal(got, []string{trace}) {
			w.t.Errorf("calls of %s are of the traces %q, want %q", system, got, trace)
		}
	}
	if got, want := sorted(f.points), sorted(told(w.t, f.summary)); !gocmp.Equal(got, want) {
		w.t.Errorf("the metrics are not what the summary says (-summary +metrics):\n%s\n%s", gocmp.Diff(want, got), f.summary)
	}
}

// told are the metrics that a summary line stands for.
func told(t *testing.T, line string) (all []collectortest.Point) {
	t.Helper()
	var points []telemetry.Point
	if strings.Contains(line, `"destinations"`) || strings.Contains(line, `"detectors"`) && strings.Contains(line, `"run"`) {
		var r report
		decodeLine(t, line, &r)
		points = measureRun(r, nil)
	} else {
		var r censusReport
		decodeLine(t, line, &r)
		points = measureCensus(r, nil)
	}
	for _, p := range points {
		q := collectortest.Point{Metric: p.Metric.Name, Kind: string(p.Metric.Kind), Unit: p.Metric.Unit, Attributes: map[string]string{}, Value: p.Value, Counts: p.Counts}
		if p.Counts != nil {
			q.Bounds = p.Metric.Bounds
		}
		for i, name := range p.Metric.Attributes {
			q.Attributes[name] = p.Attributes[i]
		}
		all = append(all, q)
	}
	return all
}

func decodeLine(t *testing.T, line string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), into); err != nil {
		t.Fatalf("decode the summary: %v: %s", err, line)
	}
}

func sorted(points []collectortest.Point) []collectortest.Point {
	return slices.SortedFunc(slices.Values(points), func(a, b collectortest.Point) int {
		return cmp.Or(cmp.Compare(a.Metric, b.Metric), cmp.Compare(fmt.Sprint(a.Attributes), fmt.Sprint(b.Attributes)))
	})
}

// TestABadCollectorIsNobodyElsesTrouble runs the program with one that does not answer.
func TestABadCollectorIsNobodyElsesTrouble(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]map[string]string{
		"hangs": nil,
		"down":  {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://" + closedPort(t)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := openTelemetryWorld(t, more, &collectortest.Collector{Answer: func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }})
			w.Tenant.SignUp(sim.Person{How: sim.Email, Email: "late@example.com"})
			for range 3 {
				f := w.fire("SyncNewUsers")
				if f.took > 8*time.Second || name == "down" && f.took > 4*time.Second {
					t.Errorf("a run takes %s", f.took)
				}
				if !strings.Contains(f.summary, `"run":"`) {
					t.Errorf("the summary is %s", f.summary)
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			said := strings.Join(w.log, "\n")
			for _, signal := range []string{"traces", "metrics"} {
				if n := strings.Count(said, `msg="telemetry does not arrive at the collector" signal=`+signal); n != 1 {
					t.Errorf("it is said %d times of %s, want once:\n%s", n, signal, said)
				}
			}
			if strings.Contains(said, "a%20secret") || strings.Contains(said, "a secret") || strings.Contains(said, "/otlp") {
				t.Errorf("the log has the collector's address or key:\n%s", said)
			}
		})
	}
}
