package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"signup-sync/handler/functions"
	"signup-sync/handler/telemetry"
	"signup-sync/handler/telemetry/collectortest"
)

// TestAnInvocationThatPanicsIsTold: package functions makes a failed invocation of it, and so must the metrics.
func TestAnInvocationThatPanicsIsTold(t *testing.T) {
	t.Parallel()
	collector := &collectortest.Collector{}
	server := httptest.NewServer(collector)
	defer server.Close()
	tel := telemetry.Open(telemetry.Options{Endpoint: server.URL, Sampler: telemetry.Sampler{Name: "always_on"}, Transport: http.DefaultTransport, Log: slog.New(slog.DiscardHandler)})
	defer tel.Close(context.Background())
	a := &app{telemetry: tel} // without a tenant
	for name, f := range map[string]functions.Func{"SyncNewUsers": a.syncNewUsers, "TakeCensus": a.takeCensus} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			_, _ = f(t.Context(), functions.Invocation{Function: name, ID: "1"})
		}()
		spans, points := collector.Take()
		if len(spans) != 1 || spans[0].Name != name || !spans[0].Failed {
			t.Errorf("%s: got the spans %+v", name, spans)
		}
		told := false
		for _, p := range points {
			told = told || p.Metric == "signup_sync.runs" && p.Attributes["function"] == name && p.Attributes["outcome"] == "failed"
		}
		if !told {
			t.Errorf("%s: no failed run among %+v", name, points)
		}
	}
}
