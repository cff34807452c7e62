// Package collectortest is an OpenTelemetry collector for tests: it takes traces and metrics by OTLP over HTTP, in
// protobuf, as the specification has it (OTLP 1.x, OTLP/HTTP), and keeps them.
package collectortest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is one that has arrived.
type Span struct {
	Trace, ID, Parent, State, Name, Kind string
	Attributes                           map[string]string
	Failed                               bool
}

// Point is a metric's.
type Point struct {
	Metric, Kind, Unit string
	Attributes         map[string]string
	Value              float64 // of a histogram the sum
	Counts             []uint64
	Bounds             []float64
}

// Collector is the zero value and takes everything.
type Collector struct {
	Answer func(w http.ResponseWriter, r *http.Request) bool // true: it has answered, and nothing is kept; nil = none

	mu       sync.Mutex
	spans    []Span
	points   []Point
	resource map[string]string
	bytes    []byte
	header   http.Header
	faults   []string
	requests int
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	c.requests++
	c.bytes = append(append(c.bytes, r.Method+" "+r.RequestURI+"\n"...), body...)
	c.header = r.Header.Clone()
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.faults = append(c.faults, fmt.Sprintf("%s %s of type %q: %v", r.Method, r.URL, r.Header.Get("Content-Type"), err))
	}
	c.mu.Unlock()
	if c.Answer != nil && c.Answer(w, r) {
		return
	}
	switch r.URL.Path {
	case "/v1/traces":
		var m traces.TracesData
		c.fault(proto.Unmarshal(body, &m))
		c.takeSpans(&m)
	case "/v1/metrics":
		var m metrics.MetricsData
		c.fault(proto.Unmarshal(body, &m))
		c.takeMetrics(&m)
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty message: all was taken
}

func (c *Collector) fault(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.faults = append(c.faults, err.Error())
	}
}

func (c *Collector) takeSpans(m *traces.TracesData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range m.ResourceSpans {
		c.resource = texts(r.Resource.GetAttributes())
		for _, s := range r.ScopeSpans {
			for _, span := range s.Spans {
				c.spans = append(c.spans, Span{hex.EncodeToString(span.TraceId), hex.EncodeToString(span.SpanId), hex.EncodeToString(span.ParentSpanId),
					span.TraceState, span.Name, span.Kind.String(), texts(span.Attributes), span.Status.GetCode() == traces.Status_STATUS_CODE_ERROR})
			}
		}
	}
}

func (c *Collector) takeMetrics(m *metrics.MetricsData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range m.ResourceMetrics {
		c.resource = texts(r.Resource.GetAttributes())
		for _, s := range r.ScopeMetrics {
			for _, metric := range s.Metrics {
				c.takeMetric(metric)
			}
		}
	}
}

func (c *Collector) takeMetric(m *metrics.Metric) {
	add := func(kind string, attrs []*common.KeyValue, value float64, counts []uint64, bounds []float64) {
		c.points = append(c.points, Point{m.Name, kind, m.Unit, texts(attrs), value, counts, bounds})
	}
	delta := func(t metrics.AggregationTemporality, start, end uint64) {
		if t != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA || start == 0 || end < start {
			c.faults = append(c.faults, fmt.Sprintf("%s: temporality %v from %d to %d", m.Name, t, start, end))
		}
	}
	for _, p := range m.GetSum().GetDataPoints() {
		delta(m.GetSum().AggregationTemporality, p.StartTimeUnixNano, p.TimeUnixNano)
		add("counter", p.Attributes, float64(p.GetAsInt()), nil, nil)
	}
	for _, p := range m.GetGauge().GetDataPoints() {
		add("gauge", p.Attributes, p.GetAsDouble(), nil, nil)
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		delta(m.GetHistogram().AggregationTemporality, p.StartTimeUnixNano, p.TimeUnixNano)
		n := uint64(0)
		for _, count := range p.BucketCounts {
			n += count
		}
		if len(p.BucketCounts) != len(p.ExplicitBounds)+1 || n != p.Count {
			c.faults = append(c.faults, fmt.Sprintf("%s: %d counts for %d bounds, %d in all and %d in classes", m.Name, len(p.BucketCounts), len(p.ExplicitBounds), p.Count, n))
		}
		add("histogram", p.Attributes, p.GetSum(), p.BucketCounts, p.ExplicitBounds)
	}
}

func texts(attrs []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attrs {
		switch v := a.Value.GetValue().(type) {
		case *common.AnyValue_IntValue:
			all[a.Key] = fmt.Sprint(v.IntValue)
		default:
			all[a.Key] = a.Value.GetStringValue()
		}
	}
	return all
}

// Take returns what has come since the last time, and forgets it.
func (c *Collector) Take() (spans []Span, points []Point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans, points = c.spans, c.points
	c.spans, c.points = nil, nil
	return spans, points
}

// Resource is who the latest message was from.
func (c *Collector) Resource() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resource
}

// Header is that of the latest request.
func (c *Collector) Header() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header
}

// Bytes are all requests, one behind the other.
func (c *Collector) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.bytes...)
}

// Requests is how many there were.
func (c *Collector) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests
}

// Faults are breaches of the protocol.
func (c *Collector) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.faults...)
}
