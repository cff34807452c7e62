package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Client is a client whose every call for an invocation has a span, and carries the trace on; the client itself where
// nothing is told.
func (t *Telemetry) Client(hc *http.Client) *http.Client {
	if t == nil {
		return hc
	}
	told := *hc
	told.Transport = Transport{t, hc.Transport}
	return &told
}

// Transport makes a span of each call for an invocation, until the answer's header is there. It holds neither path nor
// query, which have ids and addresses in them.
type Transport struct {
	t     *Telemetry
	inner http.RoundTripper
}

// Unwrap is the transport within.
func (t Transport) Unwrap() http.RoundTripper { return t.inner }

// Around tells likewise of another one's calls.
func (t Transport) Around(inner http.RoundTripper) http.RoundTripper { return Transport{t.t, inner} }

// RoundTrip implements http.RoundTripper.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !trace.SpanContextFromContext(r.Context()).IsValid() {
		return t.inner.RoundTrip(r) // for no invocation
	}
	ctx, span := t.t.tracer.Start(r.Context(), r.Method, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("server.address", r.URL.Hostname())))
	defer span.End()
	if port, err := strconv.Atoi(r.URL.Port()); err == nil {
		span.SetAttributes(attribute.Int("server.port", port))
	}
	r = r.Clone(ctx) // a RoundTripper changes no request
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(r.Header))
	resp, err := t.inner.RoundTrip(r)
	if err != nil {
		fail(span, failure(err))
		return resp, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	if resp.StatusCode >= 400 {
		fail(span, strconv.Itoa(resp.StatusCode))
	}
	return resp, nil
}

func fail(span trace.Span, failure string) {
	span.SetAttributes(attribute.String("error.type", failure))
	span.SetStatus(codes.Error, "")
}

const cancelled = "cancelled"

// failure is a word for why a call had no answer. The error's own text may have the URL in it.
func failure(err error) string {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if errors.Is(err, context.Canceled) {
		return cancelled
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "name-not-found"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "certificate"
	}
	return "connection"
}
