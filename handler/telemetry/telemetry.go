// Package telemetry tells an OpenTelemetry collector what was done: spans and metrics, by OTLP over HTTP in protobuf. A
// nil *Telemetry tells nothing and costs nothing.
//
// It is the only importer of go.opentelemetry.io, sets none of its globals, and imports nothing of the project. A collector
// that is down, slow or refuses is said once in the log and is nobody else's trouble: what it did not take is dropped.
package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// patience is how long an invocation waits in its end for the collector, and how long one request takes.
	patience = 3 * time.Second
	// held is how many spans wait for the collector at most, in memory; more are dropped. A span is about 1 KiB.
	held = 2048
	// again is how often the log says at most that a collector does not take what it is sent.
	again = time.Hour
)

// Options say where telemetry goes.
type Options struct {
	Endpoint  string            // the collector's base URL, without a slash at the end; v1/traces and v1/metrics are added
	Headers   map[string]string // of each request; secrets
	Resource  map[string]string // who sends: service.name, and what else there is to say
	Sampler   Sampler
	Transport http.RoundTripper // to the collector; redirects are not followed
	Log       *slog.Logger
}

// Sampler says which traces are recorded.
type Sampler struct {
	Name  string  // one of Samplers
	Ratio float64 // from 0 to 1, for those whose name ends in traceidratio
}

// Samplers are their names, as OTEL_TRACES_SAMPLER has them. Those that begin with parentbased_ leave the decision to the
// host, as far as it has sent one.
func Samplers() []string {
	return []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
}

// Telemetry sends to one collector; nil sends nothing.
type Telemetry struct {
	o        Options
	http     *http.Client
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	resource *resource.Resource

	mu      sync.Mutex
	trouble map[string]trouble // by signal
}

// Open makes the sender; it asks nothing of the outside. Close ends it.
func Open(o Options) *Telemetry {
	t := &Telemetry{o: o, trouble: map[string]trouble{}, http: &http.Client{Transport: o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	var attrs []attribute.KeyValue
	for _, name := range slices.Sorted(maps.Keys(o.Resource)) {
		attrs = append(attrs, attribute.String(name, o.Resource[name]))
	}
	t.resource = resource.NewSchemaless(attrs...)
	t.provider = sdk.NewTracerProvider(sdk.WithResource(t.resource), sdk.WithSampler(o.Sampler.make()),
		sdk.WithBatcher(otlptrace.NewUnstarted(spans{t}), sdk.WithMaxQueueSize(held), sdk.WithMaxExportBatchSize(held/4), sdk.WithExportTimeout(patience)))
	t.tracer = t.provider.Tracer("signup-sync")
	return t
}

func (s Sampler) make() sdk.Sampler {
	root := sdk.AlwaysSample()
	switch strings.TrimPrefix(s.Name, "parentbased_") {
	case "always_off":
		root = sdk.NeverSample()
	case "traceidratio":
		root = sdk.TraceIDRatioBased(s.Ratio)
	}
	if strings.HasPrefix(s.Name, "parentbased_") {
		return sdk.ParentBased(root)
	}
	return root
}

// Close gives up what has not been sent.
func (t *Telemetry) Close(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // what it cannot send it has said
}

// Invocation is one call of the host.
type Invocation struct {
	Function    string
	ID          string
	TraceParent string // W3C's headers; "" = none
	TraceState  string
}

// Begin starts an invocation's span, which goes on with the host's trace. What is done for it is done with the context;
// end sends what there is to tell, and returns after three seconds at most, or when ctx ends.
func (t *Telemetry) Begin(ctx context.Context, in Invocation) (_ context.Context, end func(failed bool, points []Point)) {
	if t == nil {
		return ctx, func(bool, []Point) {}
	}
	start := time.Now()
	host := propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": in.TraceParent, "tracestate": in.TraceState})
	work, span := t.tracer.Start(host, in.Function, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("faas.trigger", "timer"), attribute.String("faas.invocation_id", in.ID)))
	return work, func(failed bool, points []Point) {
		if failed {
			fail(span, "failed")
		}
		span.End()
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		var both sync.WaitGroup
		both.Go(func() { _ = t.provider.ForceFlush(ctx) }) // it has been said
		both.Go(func() { t.post(ctx, "metrics", t.metrics(start, time.Now(), points)) })
		both.Wait()
	}
}

// Span starts a span for a piece of an invocation's work; nil where nothing is told. Attributes get the prefix
// "signup_sync.", and a failure becomes the span's error.type.
func (t *Telemetry) Span() func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(failure string)) {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(string)) {
		ctx, span := t.tracer.Start(ctx, name)
		for _, a := range attrs {
			key := attribute.Key("signup_sync." + a.Key)
			if a.Value.Kind() == slog.KindInt64 {
				span.SetAttributes(key.Int64(a.Value.Int64()))
			} else {
				span.SetAttributes(key.String(a.Value.String()))
			}
		}
		return ctx, func(failure string) {
			if failure != "" {
				fail(span, failure)
			}
			span.End()
		}
	}
}
