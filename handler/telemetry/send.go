package telemetry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// spans is what the SDK's exporter sends through: OTLP's own client for HTTP brings gRPC into the program, 6 MB, and logs
// by a global of its own. It returns no error, for the same reason.
type spans struct{ t *Telemetry }

func (spans) Start(context.Context) error { return nil }
func (spans) Stop(context.Context) error  { return nil }

// UploadTraces sends a TracesData, which is on the wire what an ExportTraceServiceRequest is: that one is made with gRPC's.
func (s spans) UploadTraces(ctx context.Context, all []*traces.ResourceSpans) error {
	s.t.post(ctx, "traces", &traces.TracesData{ResourceSpans: all})
	return nil
}

// trouble is how it goes with one signal.
type trouble struct {
	bad, said bool
	told      time.Time // when the log said last that it is bad
}

// post sends a message once, and says in the log when that begins to fail, and when it no longer does; of one that comes
// and goes once an hour.
func (t *Telemetry) post(ctx context.Context, signal string, m proto.Message) {
	why := t.send(ctx, signal, m)
	if why == cancelled { // the program is told to stop, of which nothing follows for the collector
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.trouble[signal]
	switch {
	case why != "" && !now.bad:
		if now.bad, now.said = true, time.Since(now.told) >= again; now.said {
			now.told = time.Now()
			t.o.Log.Warn("telemetry does not arrive at the collector", "signal", signal, "reason", why)
		}
	case why == "" && now.bad:
		if now.bad = false; now.said {
			t.o.Log.Info("telemetry arrives again", "signal", signal)
		}
	}
	t.trouble[signal] = now
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 64 << 10

// send returns a word for what went wrong; "" = nothing.
func (t *Telemetry) send(ctx context.Context, signal string, m proto.Message) string {
	body, err := proto.Marshal(m)
	if err != nil {
		return "not-encoded" // some text is no UTF-8
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.o.Endpoint+"/v1/"+signal, bytes.NewReader(body))
	if err != nil {
		return "address"
	}
	for name, value := range t.o.Headers {
		r.Header.Set(name, value)
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("User-Agent", "signup-sync")
	resp, err := t.http.Do(r)
	if err != nil {
		return failure(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return strconv.Itoa(resp.StatusCode)
	case err != nil:
		return failure(err)
	case rejected(answer):
		return "rejected"
	}
	return ""
}

// rejected reports that the collector has taken a part of a message only: the answer's partial_success, field 1, says by
// its field 1 how much it has not.
func rejected(answer []byte) bool {
	partial, ok := field(answer, 1, protowire.BytesType)
	if !ok {
		return false
	}
	message, _ := protowire.ConsumeBytes(partial)
	count, ok := field(message, 1, protowire.VarintType)
	n, _ := protowire.ConsumeVarint(count)
	return ok && n > 0
}

// field is where a field's value begins.
func field(message []byte, number protowire.Number, kind protowire.Type) ([]byte, bool) {
	for len(message) > 0 {
		n, t, length := protowire.ConsumeTag(message)
		if length < 0 {
			return nil, false
		}
		if message = message[length:]; n == number && t == kind {
			return message, true
		}
		if length = protowire.ConsumeFieldValue(n, t, message); length < 0 {
			return nil, false
		}
		message = message[length:]
	}
	return nil, false
}
