package connector_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azqueue/v2"
	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/ledger/ledgertest"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

func TestStorageQueueInTheEmulator(t *testing.T) {
	connection := ledgertest.StartAzuriteQueues(t)
	q, err := azqueue.NewQueueClientFromConnectionString(connection, "newcomers", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	at := func(connection, queue, ttl string) signup.Connector {
		settings := map[string]any{"connection": connection, "queue": queue}
		if ttl != "" {
			settings["ttl"] = ttl
		}
		return open(t, "storageQueue", settings, connector.Env{Clock: sim.NewClock(start)})
	}
	forever, hour := at(connection, "newcomers", ""), at(connection, "newcomers", "1h")
	if err := forever.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
	large := ada
	large.Record = map[string]any{"x": strings.Repeat("x", 48<<10-eventFrame)}
	odd := ada
	odd.Record = map[string]any{"x": "???>>>~~~üüü"} // base64 has two alphabets
	for _, send := range []struct {
		c   signup.Connector
		req signup.Request
	}{{forever, large}, {hour, odd}} {
		if a, err := send.c.Associate(t.Context(), send.req); err != nil || a.ID != "ea1_"+ada.Key {
			t.Fatalf("got %+v, %v", a, err)
		}
	}
	for _, life := range []time.Duration{0, time.Hour} {
		m := dequeue(t, q)
		event, err := base64.StdEncoding.DecodeString(*m.MessageText)
		var e struct{ ID, Subject string }
		if err != nil || json.Unmarshal(event, &e) != nil || e.ID != "ea1_"+ada.Key || e.Subject != string(ada.User) {
			t.Errorf("got %+v, %v", e, err)
		}
		got := m.ExpirationTime.Sub(*m.InsertionTime).Round(time.Minute)
		if life != 0 && got != life || life == 0 && m.ExpirationTime.Year() < 9000 {
			t.Errorf("the message expires at %s after %s, want %s", m.ExpirationTime, got, life)
		}
	}

	otherKey := strings.Replace(connection, "AccountKey=Eby8", "AccountKey=Eby9", 1)
	for name, bad := range map[string]signup.Connector{"not-found": at(connection, "nobody", ""), "unauthorized": at(otherKey, "newcomers", "")} {
		if e := call(t, bad, ada); e.Class != signup.Systemic || e.Code != name {
			t.Errorf("%s: got %s, %v", name, e.Class, e)
		}
		if e, ok := errors.AsType[*signup.Error](bad.Check(t.Context())); !ok || e.Class != signup.Systemic || e.Code != name {
			t.Errorf("%s: check: %v", name, e)
		}
	}
}

// dequeue takes the next message.
func dequeue(t *testing.T, q *azqueue.QueueClient) *azqueue.DequeuedMessage {
	t.Helper()
	got, err := q.DequeueMessage(context.Background(), nil)
	if err != nil || len(got.Messages) != 1 {
		t.Fatalf("%d messages, %v", len(got.Messages), err)
	}
	return got.Messages[0]
}

func TestASharedAccessSignatureGoesWithTheCallsAndNowhereElse(t *testing.T) {
	var calls []string
	root, client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r.Method+" "+r.URL.Path+" "+r.URL.Query().Get("sig")+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
	}))
	c := open(t, "storageQueue", map[string]any{"queue": "newcomers", "connection": "QueueEndpoint=" + root + ";SharedAccessSignature=sv=2022-11-02&sig=s3cr3t%3D"},
		connector.Env{HTTP: client, Clock: sim.NewClock(start)})
	_, err := c.Associate(t.Context(), ada)
	for _, err := range []error{err, c.Check(t.Context())} {
		if err == nil || err.Error() != "forbidden" {
			t.Errorf("got %v, want forbidden", err)
		}
	}
	if diff := cmp.Diff(calls, []string{"POST /newcomers/messages s3cr3t=", "GET /newcomers s3cr3t="}); diff != "" {
		t.Errorf("calls (-got +want):\n%s", diff)
	}
}
