package main

import (
	"strings"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/telemetry"
)

// measured is a metric, and where the summary line of SyncNewUsers, or TakeCensus where it says so, has the same figure.
type measured struct {
	telemetry.Metric
	Field string // as a path into the JSON; [] is each of a list. "" = beside the line
}

// metrics are all that there are. Names, units and attributes are promised: dashboards are made of them.
var metrics = struct {
	runs, runDuration, signups, detected, detectionDelay, gaps, watermarkAge, associations, associationDelay, throttled, breakerOpen,
	graphCalls, graphThrottled, undecodable, ledgerTransactions, ledgerNotes, ledgerReads, censusUsers, censusMissing *measured
}{
	runs: counter("runs", "{run}", "", "Invocations. `outcome` is done, busy (another one holds the lease), idle (no census is due) or failed.", "function", "outcome"),
	runDuration: histogram("run.duration", []float64{1, 2, 5, 10, 20, 30, 60, 120, 180, 240}, "ended − started",
		"How long a run of the engine took."),
	signups:        counter("signups", "{user}", "signups[].users", "Users whose origin was told first in this run.", "origin", "detector"),
	detected:       counter("detected", "{user}", "detectors[].new", "Users whom this detector was the first to show.", "detector"),
	detectionDelay: histogram("detection.delay", lagBounds(), "detectors[].lags.counts", "From the sign-up until the detector showed it.", "detector"),
	gaps:           gauge("gaps", "{gap}", "detectors[].gaps", "Ranges of time that the log no longer had and that are still to be read from the directory.", "detector"),
	watermarkAge:   gauge("watermark.age", "s", "ended − detectors[].watermark", "How far back everything is in the ledger that the detector has shown.", "detector"),
	associations: counter("associations", "{association}", "destinations[].associated, .skipped, .failed, .pending",
		"What became of tries: `state` is associated, skipped, failed, or pending (to be tried again).", "destination", "state"),
	associationDelay:   histogram("association.delay", lagBounds(), "destinations[].lags.counts", "From the sign-up until associated.", "destination"),
	throttled:          counter("throttled", "{call}", "destinations[].throttled", "Turns that the destination answered with throttling.", "destination"),
	breakerOpen:        gauge("breaker.open", "1", "destinations[].breaker", "1 while the destination is left alone (open or half-open), 0 once it works; nothing where nobody was to be brought.", "destination"),
	graphCalls:         counter("graph.calls", "{call}", "graphCalls", "Calls to Microsoft Graph.", "function"),
	graphThrottled:     counter("graph.throttled", "{call}", "graphThrottled", "… that were answered with throttling."),
	undecodable:        counter("undecodable", "{record}", "undecodable", "Records of detectors that were passed over."),
	ledgerTransactions: counter("ledger.transactions", "{transaction}", "ledgerTransactions", "Writes of rows.", "function"),
	ledgerNotes:        counter("ledger.notes", "{write}", "ledgerNotes", "Writes of notes: watermarks, the lease.", "function"),
	ledgerReads:        counter("ledger.reads", "{read}", "ledgerReads", "Reads.", "function"),
	censusUsers: gauge("census.users", "{user}", "TakeCensus: before, associated, pending, skipped[].users, failed[].users, forgotten, backfilled",
		"What a census has found, when it ended: once a day.", "state"),
	censusMissing: gauge("census.missing", "{user}", "TakeCensus: missing", "… users who should have been in the ledger, and are since."),
}

// allMetrics are the metrics in the order of the page.
func allMetrics() []*measured {
	m := metrics
	return []*measured{m.runs, m.runDuration, m.signups, m.detected, m.detectionDelay, m.gaps, m.watermarkAge, m.associations, m.associationDelay, m.throttled,
		m.breakerOpen, m.graphCalls, m.graphThrottled, m.undecodable, m.ledgerTransactions, m.ledgerNotes, m.ledgerReads, m.censusUsers, m.censusMissing}
}

func newMetric(kind telemetry.Kind, name, unit, field, doc string, attributes []string) *measured {
	return &measured{telemetry.Metric{Name: "signup_sync." + name, Kind: kind, Unit: unit, Attributes: attributes, Doc: doc}, field}
}

func counter(name, unit, field, doc string, attributes ...string) *measured {
	return newMetric(telemetry.Counter, name, unit, field, doc, attributes)
}

func gauge(name, unit, field, doc string, attributes ...string) *measured {
	return newMetric(telemetry.Gauge, name, unit, field, doc, attributes)
}

func histogram(name string, bounds []float64, field, doc string, attributes ...string) *measured {
	m := newMetric(telemetry.Histogram, name, "s", field, doc, attributes)
	m.Bounds = bounds
	return m
}

// lagBounds are the bounds of the engine's classes, in seconds.
func lagBounds() (bounds []float64) {
	for _, b := range pipeline.LagBounds() {
		bounds = append(bounds, b.Seconds())
	}
	return bounds
}

// points are those of one invocation.
type points []telemetry.Point

func (p *points) add(m *measured, value float64, attributes ...string) {
	*p = append(*p, telemetry.Point{Metric: &m.Metric, Attributes: attributes, Value: value})
}

// some adds a figure that says something only above zero.
func (p *points) some(m *measured, n int, attributes ...string) {
	if n > 0 {
		p.add(m, float64(n), attributes...)
	}
}

// classes adds a histogram, by classes that were counted elsewhere: each lag counts as the upper bound of its class, so
// that the sum is too high rather than too low.
func (p *points) classes(m *measured, lags pipeline.Lags, attribute string) {
	if lags.N() == 0 {
		return
	}
	counts, sum := make([]uint64, len(m.Bounds)+1), 0.0
	class := 0
	for bound, n := range lags.Classes() {
		counts[class] = uint64(n)
		sum += float64(n) * min(bound, lags.Most).Seconds()
		class++
	}
	*p = append(*p, telemetry.Point{Metric: &m.Metric, Attributes: []string{attribute}, Value: sum, Counts: counts})
}

// measureRun is what a summary says, as metrics; nothing else is told, so that the line and the metrics cannot disagree.
func measureRun(r report, err error) []telemetry.Point {
	const function = "SyncNewUsers"
	p := points{}
	p.add(metrics.runs, 1, function, outcome(err, r.Busy, ""))
	if took := r.Ended.Sub(r.Started); !r.Started.IsZero() && took >= 0 {
		counts, class := make([]uint64, len(metrics.runDuration.Bounds)+1), 0
		for class < len(metrics.runDuration.Bounds) && took.Seconds() > metrics.runDuration.Bounds[class] {
			class++
		}
		counts[class] = 1
		p = append(p, telemetry.Point{Metric: &metrics.runDuration.Metric, Value: took.Seconds(), Counts: counts})
	}
	for _, s := range r.Signups {
		p.some(metrics.signups, s.Users, string(s.Origin), s.Detector)
	}
	for _, d := range r.Detectors {
		p.some(metrics.detected, d.New, d.Name)
		p.add(metrics.gaps, float64(d.Gaps), d.Name)
		p.classes(metrics.detectionDelay, d.Lags, d.Name)
		if !d.Watermark.IsZero() {
			p.add(metrics.watermarkAge, r.Ended.Sub(d.Watermark).Seconds(), d.Name)
		}
	}
	for _, d := range r.Destinations {
		p.destination(d)
	}
	p.costs(function, r.GraphCalls, r.LedgerTransactions, r.LedgerNotes, r.LedgerReads)
	p.some(metrics.graphThrottled, int(r.GraphThrottled))
	p.some(metrics.undecodable, int(r.Undecodable))
	return p
}

func (p *points) destination(d pipeline.DestinationSummary) {
	p.some(metrics.associations, d.Associated, d.Name, "associated")
	p.some(metrics.associations, d.Skipped, d.Name, "skipped")
	p.some(metrics.associations, d.Failed, d.Name, "failed")
	p.some(metrics.associations, d.Pending, d.Name, "pending")
	p.classes(metrics.associationDelay, d.Lags, d.Name)
	p.some(metrics.throttled, d.Throttled, d.Name)
	open := 0.0
	if d.Breaker != "" {
		open = 1
	}
	p.add(metrics.breakerOpen, open, d.Name)
}

// costs are what an invocation has asked of others.
func (p *points) costs(function string, graph, transactions, notes, reads int64) {
	p.add(metrics.graphCalls, float64(graph), function)
	p.add(metrics.ledgerTransactions, float64(transactions), function)
	p.add(metrics.ledgerNotes, float64(notes), function)
	p.add(metrics.ledgerReads, float64(reads), function)
}

// measureCensus is likewise what the summary of TakeCensus says.
func measureCensus(r censusReport, err error) []telemetry.Point {
	const function = "TakeCensus"
	p := points{}
	p.add(metrics.runs, 1, function, outcome(err, r.Busy, r.Idle))
	p.costs(function, r.GraphCalls, r.LedgerTransactions, r.LedgerNotes, r.LedgerReads)
	if err != nil || r.Ended.IsZero() || r.Idle != "" {
		return p
	}
	tallied := func(all []pipeline.Tally) (users int) {
		for _, t := range all {
			users += t.Users
		}
		return users
	}
	for _, s := range []struct {
		state string
		users int
	}{{"before", r.Before}, {"associated", r.Associated}, {"pending", r.Pending}, {"skipped", tallied(r.Skipped)}, {"failed", tallied(r.Failed)},
		{"forgotten", r.Forgotten}, {"backfilled", r.Backfilled}} {
		p.add(metrics.censusUsers, float64(s.users), s.state)
	}
	p.add(metrics.censusMissing, float64(r.Missing))
	return p
}

func outcome(err error, busy bool, idle string) string {
	switch {
	case err != nil:
		return "failed"
	case busy:
		return "busy"
	case idle != "":
		return "idle"
	}
	return "done"
}

// metricsTable is the page's.
func metricsTable(b *strings.Builder) {
	b.WriteString("| name | kind | unit | attributes | in the summary line | meaning |\n|---|---|---|---|---|---|\n")
	for _, m := range allMetrics() {
		attributes := ""
		for i, a := range m.Attributes {
			if i > 0 {
				attributes += ", "
			}
			attributes += "`" + a + "`"
		}
		field := m.Field
		if field != "" {
			field = "`" + field + "`"
		}
		b.WriteString("| `" + m.Name + "` | " + string(m.Kind) + " | " + m.Unit + " | " + attributes + " | " + field + " | " + m.Doc + " |\n")
	}
}
