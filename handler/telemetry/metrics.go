package telemetry

import (
	"maps"
	"slices"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	pb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
)

// Kind is what a metric is.
type Kind string

// What metrics are. Counters and histograms tell what has been added since the last point (delta temporality): an
// invocation's own figures are all that a process knows that may be the last one.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Metric is one of those that there are.
type Metric struct {
	Name       string
	Kind       Kind
	Unit       string   // of UCUM: "s", "{user}"
	Attributes []string // the names, in the order of a Point's
	Bounds     []float64
	Doc        string
}

// Point is a figure of one invocation.
type Point struct {
	Metric     *Metric
	Attributes []string // the values
	Value      float64  // of a counter a whole number; of a histogram the sum
	Counts     []uint64 // of a histogram, by class: one more than there are bounds
}

// metrics are the points as the collector takes them. Points of one metric need not stand together.
func (t *Telemetry) metrics(from, to time.Time, points []Point) *pb.MetricsData {
	start, end := uint64(from.UnixNano()), uint64(to.UnixNano())
	byName := map[string]*pb.Metric{}
	for _, p := range points {
		m := byName[p.Metric.Name]
		if m == nil {
			m = newMetric(p.Metric)
			byName[p.Metric.Name] = m
		}
		var attrs []*common.KeyValue
		for i, value := range p.Attributes {
			attrs = append(attrs, keyValue(p.Metric.Attributes[i], value))
		}
		switch into := m.Data.(type) {
		case *pb.Metric_Sum:
			into.Sum.DataPoints = append(into.Sum.DataPoints, &pb.NumberDataPoint{Attributes: attrs, StartTimeUnixNano: start, TimeUnixNano: end,
				Value: &pb.NumberDataPoint_AsInt{AsInt: int64(p.Value)}})
		case *pb.Metric_Gauge:
			into.Gauge.DataPoints = append(into.Gauge.DataPoints, &pb.NumberDataPoint{Attributes: attrs, TimeUnixNano: end,
				Value: &pb.NumberDataPoint_AsDouble{AsDouble: p.Value}})
		case *pb.Metric_Histogram:
			d := &pb.HistogramDataPoint{Attributes: attrs, StartTimeUnixNano: start, TimeUnixNano: end, Sum: &p.Value,
				BucketCounts: p.Counts, ExplicitBounds: p.Metric.Bounds}
			for _, n := range p.Counts {
				d.Count += n
			}
			into.Histogram.DataPoints = append(into.Histogram.DataPoints, d)
		}
	}
	scope := &pb.ScopeMetrics{Scope: &common.InstrumentationScope{Name: "signup-sync"}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		scope.Metrics = append(scope.Metrics, byName[name])
	}
	sender := &resource.Resource{}
	for _, a := range t.resource.Attributes() {
		sender.Attributes = append(sender.Attributes, keyValue(string(a.Key), a.Value.AsString()))
	}
	return &pb.MetricsData{ResourceMetrics: []*pb.ResourceMetrics{{Resource: sender, ScopeMetrics: []*pb.ScopeMetrics{scope}}}}
}

func newMetric(m *Metric) *pb.Metric {
	const delta = pb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	out := &pb.Metric{Name: m.Name, Unit: m.Unit, Description: m.Doc}
	switch m.Kind {
	case Counter:
		out.Data = &pb.Metric_Sum{Sum: &pb.Sum{AggregationTemporality: delta, IsMonotonic: true}}
	case Histogram:
		out.Data = &pb.Metric_Histogram{Histogram: &pb.Histogram{AggregationTemporality: delta}}
	default:
		out.Data = &pb.Metric_Gauge{Gauge: &pb.Gauge{}}
	}
	return out
}

func keyValue(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}
