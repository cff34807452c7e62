package connector_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// readers are n requests; bulk says how large the record of each is, in bytes.
func readers(n int, bulk func(i int) int) []signup.Request {
	var all []signup.Request
	for i := range n {
		req := ada
		req.User = signup.UserID(fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", i))
		req.Key = fmt.Sprintf("%064x", i)
		req.Record = map[string]any{"x": strings.Repeat("x", bulk(i))}
		all = append(all, req)
	}
	return all
}

func topic(t *testing.T, h http.Handler) signup.Batcher {
	t.Helper()
	root, client := serve(t, h)
	clock := sim.NewClock(start)
	return open(t, "eventGrid", map[string]any{"url": root}, connector.Env{HTTP: client, Token: &simIdentity{clock: clock}, Clock: clock}).(signup.Batcher)
}

// outcomes are results in short: "ok" or the outcome's code, and the accounts must be the events' own.
func outcomes(t *testing.T, reqs []signup.Request, results []signup.Result) (all []string) {
	t.Helper()
	if len(results) != len(reqs) {
		t.Fatalf("%d results for %d requests", len(results), len(reqs))
	}
	for i, r := range results {
		if e, ok := errors.AsType[*signup.Error](r.Err); ok {
			all = append(all, e.Code)
		} else if r.Err != nil || r.Account != (signup.Account{ID: "ea1_" + reqs[i].Key, Created: true}) {
			t.Errorf("%d: %+v", i, r)
		} else {
			all = append(all, "ok")
		}
		if r.Err != nil && r.Account.ID != "" {
			t.Errorf("%d: an account beside the error %v", i, r.Err)
		}
	}
	return all
}

func TestEventGridSendsTheUsersOfOneReadInOneArray(t *testing.T) {
	there := sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(start)})
	c := topic(t, there)
	reqs := readers(15, func(i int) int {
		if i == 7 {
			return 2_000_000 // alone refused, before anything is sent
		}
		return 100
	})
	got := outcomes(t, reqs, c.AssociateAll(t.Context(), reqs))
	want := strings.Fields("ok ok ok ok ok ok ok invalid-record ok ok ok ok ok ok ok")
	if diff := cmp.Diff(got, want); diff != "" || there.Calls() != 1 || len(there.Events()) != 14 {
		t.Errorf("%d calls with %d events (-got +want):\n%s", there.Calls(), len(there.Events()), diff)
	}
	for i, e := range there.Events() {
		if want := reqs[i+i/7].User; e.Subject != string(want) {
			t.Errorf("event %d is about %s, want %s", i, e.Subject, want)
		}
	}
	if got := c.AssociateAll(t.Context(), nil); len(got) != 0 || there.Calls() != 1 {
		t.Errorf("nobody: %v after %d calls", got, there.Calls())
	}
}

func TestEventGridArraysStayBelowTheLimit(t *testing.T) {
	there := sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(start)})
	largest := 0
	c := topic(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		largest = max(largest, int(r.ContentLength))
		there.ServeHTTP(w, r)
	}))
	reqs := readers(15, func(int) int { return 200_000 })
	for _, o := range outcomes(t, reqs, c.AssociateAll(t.Context(), reqs)) {
		if o != "ok" {
			t.Error(o)
		}
	}
	if there.Calls() != 4 || largest > 1_000_000 || len(there.Events()) != 15 {
		t.Errorf("%d calls, the largest with %d bytes, %d events; want 4 of at most 1,000,000 with 15", there.Calls(), largest, len(there.Events()))
	}
}

func TestEventGridArraysAreAsLargeAsTheLimit(t *testing.T) {
	for over, want := range []int{1, 2} { // calls
		there := sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(start)})
		c := topic(t, there)
		const both = 1_000_000 - len("[,]") - 2*eventFrame
		reqs := readers(2, func(i int) int { return both/2 + i*(both%2+over) })
		if got := outcomes(t, reqs, c.AssociateAll(t.Context(), reqs)); there.Calls() != want || got[0] != "ok" || got[1] != "ok" {
			t.Errorf("%d bytes over: %v after %d calls, want %d", over, got, there.Calls(), want)
		}
	}
}

// A topic that is stricter than it says halves the array until who is to blame stands alone.
func TestEventGridOneEventDoesNotHoldTheOthers(t *testing.T) {
	for _, status := range []int{400, 413} {
		seen := map[string]int{}
		c := topic(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			var events []struct{ Subject string }
			if err := json.Unmarshal(body, &events); err != nil {
				t.Error(err)
			}
			if strings.Contains(string(body), "xxx") {
				w.WriteHeader(status)
				return
			}
			for _, e := range events {
				seen[e.Subject]++
			}
		}))
		reqs := readers(15, func(i int) int {
			if i == 3 || i == 14 {
				return 3
			}
			return 0
		})
		results := c.AssociateAll(t.Context(), reqs)
		got := outcomes(t, reqs, results)
		want := strings.Fields("ok ok ok rejected ok ok ok ok ok ok ok ok ok ok rejected")
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%d (-got +want):\n%s", status, diff)
		}
		for _, i := range []int{3, 14} {
			if signup.ClassOf(results[i].Err) != signup.Permanent {
				t.Errorf("%d: user %d: %v is %s; the others were taken", status, i, results[i].Err, signup.ClassOf(results[i].Err))
			}
		}
		for i, req := range reqs {
			if n := seen[string(req.User)]; n != 1 && want[i] == "ok" || n != 0 && want[i] != "ok" {
				t.Errorf("%d: user %d was taken %d times", status, i, n)
			}
		}
	}
}

// A topic is made with its input schema and keeps it: nobody's event would ever be taken, and nobody is to blame.
func TestEventGridAWrongInputSchemaIsNobodysEnd(t *testing.T) {
	c := topic(t, sim.NewEventGrid(sim.EventGridOptions{Clock: sim.NewClock(start), OldSchema: true}))
	reqs := readers(15, func(int) int { return 1 })
	for _, r := range append(c.AssociateAll(t.Context(), reqs), c.AssociateAll(t.Context(), reqs[:1])...) {
		if e, ok := errors.AsType[*signup.Error](r.Err); !ok || e.Class != signup.Systemic || e.Code != "rejected" {
			t.Errorf("got %v, want a systemic outcome", r.Err)
		}
	}
}

// An outage in the middle of a read is no refusal of an event.
func TestEventGridAnOutageBesideATakenEventIsTransient(t *testing.T) {
	calls := 0
	c := topic(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader([]int{413, 200, 503}[calls])
		calls++
	}))
	reqs := readers(2, func(int) int { return 1 })
	results := c.AssociateAll(t.Context(), reqs)
	if got := strings.Join(outcomes(t, reqs, results), " "); got != "ok unavailable" || signup.ClassOf(results[1].Err) != signup.Transient {
		t.Errorf("got %s, %s", got, signup.ClassOf(results[1].Err))
	}
}

func TestEventGridAnOutageIsEverybodys(t *testing.T) {
	for _, status := range []int{401, 429, 503} {
		calls := 0
		c := topic(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { calls++; w.WriteHeader(status) }))
		reqs := readers(4, func(int) int { return 1 })
		got := outcomes(t, reqs, c.AssociateAll(t.Context(), reqs))
		word := map[int]string{401: "unauthorized", 429: "throttled", 503: "unavailable"}[status]
		if diff := cmp.Diff(got, []string{word, word, word, word}); diff != "" || calls != 1 {
			t.Errorf("%d: %d calls (-got +want):\n%s", status, calls, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := topic(t, http.NotFoundHandler())
	for _, r := range c.AssociateAll(ctx, readers(3, func(int) int { return 1 })) {
		if !errors.Is(r.Err, context.Canceled) || r.Account.ID != "" {
			t.Errorf("cancelled: %+v", r)
		}
	}
}
