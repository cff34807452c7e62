package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
	"signup-sync/handler/telemetry"
)

// TestMetricsAreThoseOfTheTable fills every member of a summary, and demands every metric of the page, each with its
// attributes; and that the page's fields are members of the summary.
func TestMetricsAreThoseOfTheTable(t *testing.T) {
	start := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	lags := pipeline.Lags{}
	for _, d := range []time.Duration{time.Second, 15 * time.Second, 16 * time.Second, time.Hour, 30 * 24 * time.Hour} {
		lags.Add(d)
	}
	r := report{Summary: pipeline.Summary{Started: start, Ended: start.Add(7 * time.Second),
		Signups:   []pipeline.OriginSummary{{Origin: signup.SelfService, Detector: "audit", Users: 3}},
		Detectors: []pipeline.DetectorSummary{{Name: "audit", Watermark: start.Add(-time.Minute), New: 3, Gaps: 1, Lags: lags}},
		Destinations: []pipeline.DestinationSummary{{Name: "billing", Associated: 1, Skipped: 2, Failed: 3, Pending: 4, Throttled: 5, Breaker: "half-open", Lags: lags},
			{Name: "crm", Associated: 1}}}, GraphCalls: 1, GraphThrottled: 2, LedgerTransactions: 3, LedgerNotes: 4, LedgerReads: 5, Undecodable: 6}
	c := censusReport{Census: pipeline.Census{Ended: start, Users: 28, Before: 1, Associated: 2, Pending: 3, Forgotten: 6, Backfilled: 7, Missing: 8,
		Skipped: []pipeline.Tally{{Users: 2}, {Users: 2}}, Failed: []pipeline.Tally{{Users: 5}}}}
	got := map[string]float64{}
	kinds := map[string]telemetry.Point{}
	for _, p := range append(measureRun(r, nil), measureCensus(c, nil)...) {
		if len(p.Attributes) != len(p.Metric.Attributes) {
			t.Errorf("%s has the attributes %q, want %q", p.Metric.Name, p.Attributes, p.Metric.Attributes)
		}
		name := strings.Join(append([]string{strings.TrimPrefix(p.Metric.Name, "signup_sync.")}, p.Attributes...), " ")
		if _, twice := got[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		got[name], kinds[p.Metric.Name] = p.Value, p
	}
	sum := (15 + 15 + 30 + 3600 + 30*24*3600.)
	want := map[string]float64{
		"runs SyncNewUsers done": 1, "runs TakeCensus done": 1, "run.duration": 7, "signups selfService audit": 3, "detected audit": 3, "gaps audit": 1,
		"detection.delay audit": sum, "association.delay billing": sum, "watermark.age audit": 67, "associations billing associated": 1, "associations billing skipped": 2,
		"associations billing failed": 3, "associations billing pending": 4, "associations crm associated": 1, "throttled billing": 5, "breaker.open billing": 1, "breaker.open crm": 0,
		"graph.calls SyncNewUsers": 1, "graph.calls TakeCensus": 0, "graph.throttled": 2, "undecodable": 6, "ledger.transactions SyncNewUsers": 3, "ledger.transactions TakeCensus": 0,
		"ledger.notes SyncNewUsers": 4, "ledger.notes TakeCensus": 0, "ledger.reads SyncNewUsers": 5, "ledger.reads TakeCensus": 0, "census.users before": 1, "census.users associated": 2,
		"census.users pending": 3, "census.users skipped": 4, "census.users failed": 5, "census.users forgotten": 6, "census.users backfilled": 7, "census.missing": 8,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p := kinds["signup_sync.association.delay"]; p.Counts[0] != 2 || p.Counts[1] != 1 || p.Counts[len(p.Counts)-1] != 1 || len(p.Counts) != len(p.Metric.Bounds)+1 {
		t.Errorf("the classes are %v", p.Counts)
	}
	if p := kinds["signup_sync.run.duration"]; p.Counts[3] != 1 {
		t.Errorf("7 s are in the classes %v of %v", p.Counts, p.Metric.Bounds)
	}
	for _, m := range allMetrics() {
		if _, ok := kinds[m.Name]; !ok {
			t.Errorf("%s is on the page, and in no summary", m.Name)
		}
		delete(kinds, m.Name)
		function, fields, census := strings.Cut(m.Field, ": ")
		if !census {
			function, fields = "SyncNewUsers", m.Field
		}
		list := "" // of which the path before was
		for path := range strings.FieldsFuncSeq(fields, func(r rune) bool { return r == ',' || r == ' ' || r == '−' }) {
			if rest, ok := strings.CutPrefix(path, "."); ok {
				path = list + rest
			}
			list = path[:strings.LastIndex(path, ".")+1]
			if !memberAt(summaries[function], path) {
				t.Errorf("%s: the summary of %s has no %s", m.Name, function, path)
			}
		}
	}
	for name := range kinds {
		t.Errorf("%s is in a summary and not on the page", name)
	}
}

// memberAt reports that a JSON path such as destinations[].lags.counts is one of a summary.
func memberAt(t reflect.Type, path string) bool {
	for part := range strings.SplitSeq(path, ".") {
		name, list := strings.CutSuffix(part, "[]")
		if t == nil || t.Kind() != reflect.Struct {
			return false
		}
		if t = jsonField(t, name); list && t != nil && t.Kind() == reflect.Slice {
			t = t.Elem()
		}
	}
	return t != nil
}

func TestOutcomes(t *testing.T) {
	first := func(p []telemetry.Point) string { return p[0].Attributes[1] }
	for want, got := range map[string]string{
		"failed": first(measureRun(report{Summary: pipeline.Summary{Busy: true}}, errors.New("no ledger"))),
		"busy":   first(measureRun(report{Summary: pipeline.Summary{Busy: true}}, nil)),
		"done":   first(measureRun(report{}, nil)),
		"idle":   first(measureCensus(censusReport{Census: pipeline.Census{Idle: "the last one ended an hour ago"}}, nil)),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, p := range measureCensus(censusReport{Census: pipeline.Census{Missing: 3}}, nil) {
		if strings.HasPrefix(p.Metric.Name, "signup_sync.census.") {
			t.Errorf("a census under way tells %s", p.Metric.Name)
		}
	}
}
