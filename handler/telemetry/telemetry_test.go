package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/telemetry"
	"signup-sync/handler/telemetry/collectortest"
)

const (
	hostTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	hostSpan  = "00f067aa0ba902b7"
)

// invocation is the host's, which marks its timers as not sampled.
var invocation = telemetry.Invocation{Function: "SyncNewUsers", ID: "i1", TraceParent: "00-" + hostTrace + "-" + hostSpan + "-00", TraceState: "az=1"}

// open sends to a collector without a network between.
func open(t *testing.T, c http.Handler, log io.Writer, sampler string, ratio float64) *telemetry.Telemetry {
	t.Helper()
	tel := telemetry.Open(telemetry.Options{Endpoint: "https://collector.example", Headers: map[string]string{"Authorization": "Bearer a-secret"},
		Resource: map[string]string{"service.name": "test"}, Sampler: telemetry.Sampler{Name: sampler, Ratio: ratio}, Transport: within{c},
		Log: slog.New(slog.NewTextHandler(log, nil))})
	t.Cleanup(func() { tel.Close(context.Background()) })
	return tel
}

// within answers by a handler, in the place of a network.
type within struct{ http.Handler }

func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer := httptest.NewRecorder()
	w.ServeHTTP(answer, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return answer.Result(), nil
}

var metric = &telemetry.Metric{Name: "signup_sync.test", Kind: telemetry.Counter, Unit: "{user}", Attributes: []string{"destination"}}

// invoke does an invocation with a piece of work and a call.
func invoke(tel *telemetry.Telemetry, call *http.Client) {
	ctx, end := tel.Begin(context.Background(), invocation)
	work, done := tel.Span()(ctx, "associate", slog.String("destination", "billing"), slog.Int("users", 3))
	if call != nil {
		r, _ := http.NewRequestWithContext(work, http.MethodPost, "https://api.example:8443/people/ada@example.com?key=k", strings.NewReader("x"))
		if resp, err := tel.Client(call).Do(r); err == nil {
			resp.Body.Close()
		}
	}
	done("forbidden")
	end(false, []telemetry.Point{{Metric: metric, Attributes: []string{"billing"}, Value: 2}})
}

// TestATraceGoesOn holds one trace from the host's header to what is called, and what spans say.
func TestATraceGoesOn(t *testing.T) {
	var c collectortest.Collector
	var log bytes.Buffer
	var got *http.Request
	tel := open(t, &c, &log, "always_on", 0)
	invoke(tel, &http.Client{Transport: within{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(403)
	})}})
	spans, points := c.Take()
	byName := map[string]collectortest.Span{}
	for _, s := range spans {
		if s.Trace != hostTrace {
			t.Errorf("%s is of trace %s", s.Name, s.Trace)
		}
		byName[s.Name] = s
	}
	root, work, call := byName["SyncNewUsers"], byName["associate"], byName["POST"]
	if len(spans) != 3 || root.Parent != hostSpan || work.Parent != root.ID || call.Parent != work.ID || root.State != "az=1" {
		t.Errorf("got the spans %+v", spans)
	}
	if want := "00-" + hostTrace + "-" + call.ID + "-01"; got.Header.Get("Traceparent") != want || got.Header.Get("Tracestate") != "az=1" {
		t.Errorf("the call carries %q and %q, want %q", got.Header.Get("Traceparent"), got.Header.Get("Tracestate"), want)
	}
	for _, want := range []struct {
		span       collectortest.Span
		failed     bool
		kind       string
		attributes map[string]string
	}{
		{root, false, "SPAN_KIND_SERVER", map[string]string{"faas.trigger": "timer", "faas.invocation_id": "i1"}},
		{work, true, "SPAN_KIND_INTERNAL", map[string]string{"signup_sync.destination": "billing", "signup_sync.users": "3", "error.type": "forbidden"}},
		{call, true, "SPAN_KIND_CLIENT", map[string]string{"http.request.method": "POST", "server.address": "api.example", "server.port": "8443",
			"http.response.status_code": "403", "error.type": "403"}},
	} {
		if want.span.Failed != want.failed || want.span.Kind != want.kind || !cmp.Equal(want.span.Attributes, want.attributes) {
			t.Errorf("%s: %s", want.span.Name, cmp.Diff(want.attributes, want.span.Attributes))
		}
	}
	if want := []collectortest.Point{{Metric: "signup_sync.test", Kind: "counter", Unit: "{user}", Attributes: map[string]string{"destination": "billing"}, Value: 2}}; !cmp.Equal(points, want) {
		t.Errorf("points: %s", cmp.Diff(want, points))
	}
	if c.Header().Get("Authorization") != "Bearer a-secret" || c.Resource()["service.name"] != "test" {
		t.Errorf("the collector got the header %v of %v", c.Header(), c.Resource())
	}
	if c.Faults() != nil || log.Len() > 0 || bytes.Contains(c.Bytes(), []byte("ada@")) || bytes.Contains(c.Bytes(), []byte("/people")) {
		t.Errorf("the protocol is broken, %q, or something is said, %s, or told: %q", c.Faults(), log.String(), c.Bytes())
	}
}

// TestCallsForNoInvocationAreNobodysBusiness is a token that is renewed ahead, or a command.
func TestCallsForNoInvocationAreNobodysBusiness(t *testing.T) {
	var c collectortest.Collector
	tel := open(t, &c, io.Discard, "always_on", 0)
	var got http.Header
	client := tel.Client(&http.Client{Transport: within{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header })}})
	if _, err := client.Get("https://api.example"); err != nil {
		t.Fatal(err)
	}
	tel.Close(t.Context())
	if spans, _ := c.Take(); spans != nil || got.Get("Traceparent") != "" {
		t.Errorf("got %v, and %v", spans, got)
	}
}

func TestSamplers(t *testing.T) {
	sampled := strings.TrimSuffix(invocation.TraceParent, "00") + "01"
	for _, tc := range []struct {
		name            string
		ratio           float64
		host            string
		want            bool
		wantTraceparent string // its end
	}{
		{"always_on", 0, invocation.TraceParent, true, "-01"},
		{"always_on", 0, "", true, "-01"},
		{"always_on", 0, "00-no-trace", true, "-01"},
		{"always_off", 1, sampled, false, "-00"},
		{"traceidratio", 0, sampled, false, "-00"},
		{"traceidratio", 1, invocation.TraceParent, true, "-01"},
		{"parentbased_always_on", 0, invocation.TraceParent, false, "-00"},
		{"parentbased_always_on", 0, sampled, true, "-01"},
		{"parentbased_always_on", 0, "", true, "-01"},
		{"parentbased_always_off", 1, sampled, true, "-01"},
		{"parentbased_always_off", 1, "", false, "-00"},
		{"parentbased_traceidratio", 0, "", false, "-00"},
		{"parentbased_traceidratio", 0, sampled, true, "-01"},
	} {
		var c collectortest.Collector
		tel := open(t, &c, io.Discard, tc.name, tc.ratio)
		ctx, end := tel.Begin(t.Context(), telemetry.Invocation{Function: "F", TraceParent: tc.host})
		var got string
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example", nil)
		_, _ = tel.Client(&http.Client{Transport: within{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Traceparent") })}}).Do(r)
		end(false, nil)
		spans, _ := c.Take()
		if (len(spans) > 0) != tc.want || !strings.HasSuffix(got, tc.wantTraceparent) || strings.Contains(tc.host, hostTrace) && !strings.Contains(got, hostTrace) {
			t.Errorf("%s %v after %q: got %d spans and sent %q", tc.name, tc.ratio, tc.host, len(spans), got)
		}
	}
}

// collectors that do not do what they should, and the word for it.
var collectors = []struct {
	name   string
	answer func(w http.ResponseWriter, r *http.Request)
	reason string
	takes  time.Duration
}{
	{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "timeout", 3 * time.Second},
	{"unauthorized", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "401", 0},
	{"unavailable", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	}, "503", 0},
	{"redirects", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example", http.StatusTemporaryRedirect)
	}, "307", 0},
	{"takes a part", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{10, 5, 8, 7, 18, 1, 'x'}) }, "rejected", 0},
}

// TestACollectorThatDoesNotTakeIt delays nobody for more than three seconds, and is said once; also that it does again.
func TestACollectorThatDoesNotTakeIt(t *testing.T) {
	for _, tc := range collectors {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var bad atomic.Bool
				bad.Store(true)
				var c collectortest.Collector
				c.Answer = func(w http.ResponseWriter, r *http.Request) bool {
					if bad.Load() {
						tc.answer(w, r)
					}
					return bad.Load()
				}
				tel := open(t, &c, &log, "always_on", 0)
				for range 3 {
					start := time.Now()
					invoke(tel, nil)
					if took := time.Since(start); took != tc.takes {
						t.Errorf("an invocation's end takes %s, want %s", took, tc.takes)
					}
					time.Sleep(time.Minute)
				}
				bad.Store(false)
				invoke(tel, nil)
				time.Sleep(time.Minute)
				bad.Store(true)
				invoke(tel, nil) // within the hour: neither this …
				bad.Store(false)
				invoke(tel, nil) // … nor that is said
				for _, signal := range []string{"metrics", "traces"} {
					for _, line := range []string{fmt.Sprintf(`level=WARN msg="telemetry does not arrive at the collector" signal=%s reason=%s`, signal, tc.reason),
						fmt.Sprintf(`level=INFO msg="telemetry arrives again" signal=%s`, signal)} {
						if n := strings.Count(log.String(), line+"\n"); n != 1 {
							t.Errorf("%d lines say %s, want 1:\n%s", n, line, log.String())
						}
					}
				}
				if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "collector.example") {
					t.Errorf("the log has a secret or an address: %s", log.String())
				}
				tel.Close(t.Context())
			})
		})
	}
}

// TestAnAnswerWithoutEndIsNotRead to its end.
func TestAnAnswerWithoutEndIsNotRead(t *testing.T) {
	var read endless
	tel := telemetry.Open(telemetry.Options{Endpoint: "https://collector.example", Sampler: telemetry.Sampler{Name: "always_off"}, Transport: &read, Log: slog.New(slog.DiscardHandler)})
	defer tel.Close(t.Context())
	invoke(tel, nil)
	if read == 0 || read > 1<<17 {
		t.Errorf("%d bytes of the answer are read", read)
	}
}

// endless is a collector with an answer of a gigabyte, and how much of it was read.
type endless int64

func (e *endless) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(e)}, nil
}

func (e *endless) Read(p []byte) (int, error) {
	if *e += endless(len(p)); *e > 1<<30 {
		return 0, io.EOF
	}
	return len(p), nil
}

// TestTheBoundIsTheRunsDeadline as well, and a run that is called off waits for nobody.
func TestTheBoundIsTheRunsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tel := open(t, http.HandlerFunc(collectors[0].answer), &log, "always_on", 0)
		ctx, cancel := context.WithCancel(t.Context())
		_, end := tel.Begin(ctx, invocation)
		cancel()
		if end(true, nil); log.Len() > 0 {
			t.Errorf("a run that is called off says %s", log.String())
		}
		for _, left := range []time.Duration{time.Second, 0, time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			_, end := tel.Begin(ctx, invocation)
			start := time.Now()
			end(true, nil)
			if took, want := time.Since(start), min(left, 3*time.Second); took != want {
				t.Errorf("with %s left it takes %s, want %s", left, took, want)
			}
			cancel()
		}
		tel.Close(t.Context())
	})
}

// TestMemoryIsBounded makes many more spans than a collector takes that hangs.
func TestMemoryIsBounded(t *testing.T) {
	var c collectortest.Collector
	hang := make(chan struct{})
	c.Answer = func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return true
	}
	tel := open(t, &c, io.Discard, "always_on", 0)
	ctx, _ := tel.Begin(t.Context(), invocation)
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 25_000 {
				_, end := tel.Span()(ctx, "associate", slog.String("destination", "billing"), slog.Int("users", 15))
				end("")
			}
		})
	}
	all.Wait()
	grown := int64(used()) - int64(before)
	t.Logf("100,000 spans: %d KiB more on the heap", grown>>10)
	if grown > 8<<20 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
	close(hang)
}

// TestNothingIsNothing holds that a nil one costs nothing.
func TestNothingIsNothing(t *testing.T) {
	var tel *telemetry.Telemetry
	hc := &http.Client{}
	if tel.Client(hc) != hc || tel.Span() != nil {
		t.Error("a nil Telemetry does something")
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		got, end := tel.Begin(ctx, invocation)
		if end(true, nil); got != ctx {
			t.Error("the context is another")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	tel.Close(ctx)
}

// TestACallThatFailsHasAWordForIt and not its error's text, in which its address stands.
func TestACallThatFailsHasAWordForIt(t *testing.T) {
	var c collectortest.Collector
	tel := open(t, &c, io.Discard, "always_on", 0)
	for _, err := range []error{context.DeadlineExceeded, context.Canceled, errors.New("dial ada@example.com")} {
		ctx, end := tel.Begin(t.Context(), invocation)
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/ada@example.com", nil)
		if _, got := tel.Client(&http.Client{Transport: fails{err}}).Do(r); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
		end(true, nil)
	}
	var got []string
	spans, _ := c.Take()
	for _, s := range spans {
		got = append(got, s.Attributes["error.type"])
	}
	slices.Sort(got)
	if want := []string{"cancelled", "connection", "failed", "failed", "failed", "timeout"}; !slices.Equal(got, want) || bytes.Contains(c.Bytes(), []byte("ada@")) {
		t.Errorf("got %q, want %q", got, want)
	}
}

type fails struct{ err error }

func (f fails) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// BenchmarkInvocation is a busy run: a hundred users in seven batches at ten destinations, each called once a user.
func BenchmarkInvocation(b *testing.B) {
	discard := within{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })}
	tel := telemetry.Open(telemetry.Options{Endpoint: "https://collector.example", Sampler: telemetry.Sampler{Name: "always_on"}, Transport: discard, Log: slog.New(slog.DiscardHandler)})
	defer tel.Close(context.Background())
	var points []telemetry.Point
	for range 60 {
		points = append(points, telemetry.Point{Metric: metric, Attributes: []string{"billing"}, Value: 2})
	}
	client := tel.Client(&http.Client{Transport: answers{}})
	b.ReportAllocs()
	for b.Loop() {
		ctx, end := tel.Begin(context.Background(), invocation)
		for range 70 {
			work, done := tel.Span()(ctx, "associate", slog.String("destination", "billing"), slog.Int("users", 15))
			for range 15 {
				r, _ := http.NewRequestWithContext(work, http.MethodPost, "https://api.example/x", nil)
				_, _ = client.Do(r)
			}
			done("")
		}
		end(false, points)
	}
}

// answers answers at once.
type answers struct{}

func (answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
}
