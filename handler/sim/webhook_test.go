package sim_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"signup-sync/handler/sim"
)

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// deliver signs a body with the reference library and sends it.
func deliver(t *testing.T, root, id string, at time.Time, body string, change func(http.Header)) (int, string) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := wh.Sign(id, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", root, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
	req.Header.Set("Webhook-Signature", "v1a,AAAA v1,"+strings.Repeat("A", 43)+"= "+signature)
	if change != nil {
		change(req.Header)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

const cloudEvent = `{"specversion":"1.0","id":"e1","source":"/s","type":"t","subject":"u1","data":{}}`

func TestWebhookTakesAnEventOnce(t *testing.T) {
	clock := sim.NewClock(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	there := sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: []string{"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", hookSecret}})
	server := httptest.NewServer(there)
	defer server.Close()
	for i, id := range []string{"m1", "m1", "m2", "m1"} {
		want := map[string]string{"m1": `{"id":"contact-1"}`, "m2": `{"id":"contact-2"}`}[id]
		if status, got := deliver(t, server.URL+"/any/path", id, clock.Now(), cloudEvent, nil); status != 200 || got != want {
			t.Errorf("delivery %d: %d %s, want %s", i, status, got, want)
		}
	}
	got := there.Deliveries()
	if len(got) != 2 || got[0].Times != 3 || got[1].Times != 1 || got[0].Subject != "u1" || string(got[0].Body) != cloudEvent {
		t.Errorf("got %+v", got)
	}
}

func TestWebhookRefusals(t *testing.T) {
	clock := sim.NewClock(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	there := sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: []string{hookSecret}})
	server := httptest.NewServer(there)
	defer server.Close()
	now := clock.Now()
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	tests := []struct {
		name   string
		at     time.Time
		body   string
		change func(http.Header)
		want   int
	}{
		{"early by the tolerance", now.Add(5 * time.Minute), cloudEvent, nil, 200},
		{"too early", now.Add(5*time.Minute + time.Second), cloudEvent, nil, 401},
		{"late by the tolerance", now.Add(-5 * time.Minute), cloudEvent, nil, 200},
		{"too late", now.Add(-5*time.Minute - time.Second), cloudEvent, nil, 401},
		{"other id", now, cloudEvent, set("Webhook-Id", "m2"), 401},
		{"no id", now, cloudEvent, set("Webhook-Id", ""), 401},
		{"no time", now, cloudEvent, set("Webhook-Timestamp", ""), 401},
		{"other time", now, cloudEvent, set("Webhook-Timestamp", strconv.FormatInt(now.Unix()+1, 10)), 401},
		{"no signature", now, cloudEvent, set("Webhook-Signature", ""), 401},
		{"not JSON", now, "x", nil, 400},
		{"no event", now, `{"id":"e1"}`, nil, 400},
		{"other content", now, cloudEvent, set("Content-Type", "application/json"), 400},
		{"too large", now, `{"specversion":"1.0","x":"` + strings.Repeat("x", 20_000) + `"}`, nil, 413},
	}
	for _, tt := range tests {
		if got, _ := deliver(t, server.URL, "m1", tt.at, tt.body, tt.change); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	resp, err := http.Head(server.URL)
	if err != nil || resp.StatusCode != 405 {
		t.Errorf("HEAD: %v %v", resp, err)
	}
}

// The vector is the one of the Standard Webhooks reference implementations; its body is no event, which is found out
// only after the signature was good.
func TestWebhookSignatureVector(t *testing.T) {
	there := sim.NewWebhook(sim.WebhookOptions{Clock: sim.NewClock(time.Unix(1614265330, 0)), Secrets: []string{hookSecret}})
	for signature, want := range map[string]int{
		"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=": 400,
		"v1,h0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=": 401,
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{"test": 2432232314}`))
		r.Header.Set("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
		r.Header.Set("Webhook-Timestamp", "1614265330")
		r.Header.Set("Webhook-Signature", signature)
		w := httptest.NewRecorder()
		there.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", signature, w.Code, want)
		}
	}
}
