package connector_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// golden compares got with a file of testdata; GOLDEN=write writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("%s (-got +want; GOLDEN=write go test writes it):\n%s", name, diff)
	}
}

func TestWebhookRequest(t *testing.T) {
	var header http.Header
	var body []byte
	c := hook(t, func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}, "previousSecret", otherWhsec)
	req := ada
	req.Record = map[string]any{"name": "Ada <Lovelace> & Co", "vip": true, "seats": 3, "score": 0.5, "tags": []any{"a", "b"}, "deep": map[string]any{"x": "ü"}}
	if _, err := c.Associate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	var pretty any
	if err := json.Unmarshal(body, &pretty); err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, name := range []string{"Content-Type", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		text += name + ": " + header.Get(name) + "\n"
	}
	golden(t, "webhook-request.txt", text+"\n"+asJSON(pretty)+"\n")
	if strings.Contains(string(body), `\u003c`) {
		t.Error("the body escapes what needs no escape")
	}
}

// The vector is the one of the Standard Webhooks reference implementations.
func TestWebhookSignatureVector(t *testing.T) {
	got, err := connector.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", `{"test": 2432232314}`, whsec)
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// The library has a tolerance of five minutes around the wall clock, so this one runs by it.
func TestWebhookSignaturesAreGoodToTheReferenceLibrary(t *testing.T) {
	verified := 0
	root, client := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, secret := range []string{whsec, otherWhsec} {
			wh, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Error(err)
				return
			}
			if err := wh.Verify(body, r.Header); err != nil {
				t.Error(err)
			}
			verified++
		}
	}))
	c := open(t, "webhook", map[string]any{"url": root, "secret": whsec, "previousSecret": otherWhsec, "allowPrivate": true},
		connector.Env{HTTP: client, Clock: signup.ScaledClock{}})
	if _, err := c.Associate(t.Context(), ada); err != nil || verified != 2 {
		t.Errorf("%d verified, %v", verified, err)
	}
}

func TestAReceiverTakesEitherSecretWhileTheyChange(t *testing.T) {
	for _, secrets := range [][]string{{whsec}, {otherWhsec}} {
		clock := sim.NewClock(start)
		there := sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: secrets})
		root, client := serve(t, there)
		c := open(t, "webhook", map[string]any{"url": root, "secret": otherWhsec, "previousSecret": whsec, "allowPrivate": true},
			connector.Env{HTTP: client, Clock: clock})
		if _, err := c.Associate(t.Context(), ada); err != nil {
			t.Error(err)
		}
	}
}

func TestWebhookEventIsTheSameInEveryTry(t *testing.T) {
	clock := sim.NewClock(start)
	there := sim.NewWebhook(sim.WebhookOptions{Clock: clock, Secrets: []string{whsec}})
	root, client := serve(t, there)
	c := open(t, "webhook", map[string]any{"url": root, "secret": whsec, "allowPrivate": true}, connector.Env{HTTP: client, Clock: clock})
	for range 3 {
		if _, err := c.Associate(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		clock.Advance(26 * time.Hour)
	}
	next := ada
	next.Key = strings.Repeat("f", 64)
	if _, err := c.Associate(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	got := there.Deliveries()
	if len(got) != 2 || got[0].Times != 3 || got[1].Times != 1 {
		t.Fatalf("got %s, want one delivery three times and one once", asJSON(got))
	}
	var e struct {
		ID   string
		Time time.Time
	}
	if err := json.Unmarshal(got[0].Body, &e); err != nil || e.ID != got[0].ID || !e.Time.Equal(ada.Created) {
		t.Errorf("event %q of %s, %v; want %q of %s", e.ID, e.Time, err, got[0].ID, ada.Created)
	}
}

func TestWebhookAccount(t *testing.T) {
	event := "ea1_" + ada.Key
	tests := map[string]string{
		`{"id":"contact-1"}`:       "contact-1",
		`{"id":"ünï"}`:             "ünï",
		``:                         event,
		`thanks`:                   event,
		`{"id":42}`:                event,
		`{"id":""}`:                event,
		`{"id":"ada@example.com"}`: event,
		`{"id":"a\nb"}`:            event,
		`{"id":"Ada Lovelace"}`:    event, // what was sent is no id of the receiver's own
		`{"id":"ada.lovelace"}`:    event,
		`{"id":"LOVELACE"}`:        event,
		`{"id":"ada-7"}`:           "ada-7", // which may be a prefix that all have
		`{"id":"` + strings.Repeat("x", 251) + `"}`:   event,
		`{"id":"` + strings.Repeat("x", 250) + `"}`:   strings.Repeat("x", 250),
		`[{"id":"contact-1"}]`:                        event,
		`{"id":"contact-1"} and then something else.`: event,
	}
	for answer, want := range tests {
		c := hook(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) })
		got, err := c.Associate(t.Context(), ada)
		if err != nil || got.ID != want {
			t.Errorf("%s: got %q, %v; want %q", answer, got.ID, err, want)
		}
	}
}

func TestWebhookPayloadLimit(t *testing.T) {
	largest := 0
	c := hook(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		largest = len(body)
	})
	req := ada
	req.Record = map[string]any{"x": ""}
	if _, err := c.Associate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	room := 19_999 - largest
	req.Record = map[string]any{"x": strings.Repeat("x", room)}
	if _, err := c.Associate(t.Context(), req); err != nil || largest != 19_999 {
		t.Errorf("got %v with %d bytes, want 19,999 to be fine", err, largest)
	}
	req.Record = map[string]any{"x": strings.Repeat("x", room+1)}
	if e := call(t, c, req); e.Class != signup.Permanent || e.Code != "invalid-record" {
		t.Errorf("got %s, %q; want permanent, invalid-record", e.Class, e.Code)
	}
}

func TestWebhookCheckSendsNoEvent(t *testing.T) {
	for _, status := range []int{200, 204, 404, 405, 410, 503} {
		var methods []string
		c := hook(t, func(w http.ResponseWriter, r *http.Request) {
			methods = append(methods, r.Method+" "+strconv.FormatInt(r.ContentLength, 10))
			w.WriteHeader(status)
		})
		err := c.Check(t.Context())
		if bad := status == 410 || status == 503; (err != nil) != bad {
			t.Errorf("%d: got %v", status, err)
		}
		if diff := cmp.Diff(methods, []string{"HEAD 0"}); diff != "" {
			t.Error(diff)
		}
	}
}
