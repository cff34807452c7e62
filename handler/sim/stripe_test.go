package sim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

// shop is a simulated Stripe account behind a real server, and a caller.
type shop struct {
	*sim.Stripe
	clock *sim.Clock
	root  string
}

const shopKey = "sk_test_shop"

func newShop(t *testing.T, o sim.StripeOptions) shop {
	t.Helper()
	s := shop{clock: sim.NewClock(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))}
	o.Clock, o.APIKey = s.clock, shopKey
	s.Stripe = sim.NewStripe(o)
	server := httptest.NewServer(s.Stripe)
	t.Cleanup(server.Close)
	s.root = server.URL
	return s
}

// do makes a call; form is "a=b&c=d", key the idempotency key.
func (s shop) do(t *testing.T, method, path, form, key string) (int, http.Header, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.root+path, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+shopKey)
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return shopSend(t, req)
}

func shopSend(t *testing.T, req *http.Request) (int, http.Header, map[string]any) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatalf("%d with %q", resp.StatusCode, raw)
	}
	return resp.StatusCode, resp.Header, body
}

// stripeCode is the code of Stripe's error object, or its type.
func stripeCode(body map[string]any) string {
	e, _ := body["error"].(map[string]any)
	if code, ok := e["code"].(string); ok {
		return code
	}
	kind, _ := e["type"].(string)
	return kind
}

// pageIDs are those of a page.
func pageIDs(body map[string]any) string {
	var all []string
	for _, x := range body["data"].([]any) {
		all = append(all, x.(map[string]any)["id"].(string))
	}
	return strings.Join(all, " ")
}

func TestStripeCustomerLifeCycle(t *testing.T) {
	s := newShop(t, sim.StripeOptions{})
	status, header, made := s.do(t, "POST", "/v1/customers", "email=Ada%40example.com&name=Ada&preferred_locales[0]=de&metadata[plan]=free&metadata[gone]=x", "")
	id, _ := made["id"].(string)
	if status != 200 || !strings.HasPrefix(id, "cus_") || made["object"] != "customer" || made["created"] != float64(s.clock.Now().Unix()) ||
		!strings.HasPrefix(header.Get("Request-Id"), "req_") || made["phone"] != nil {
		t.Fatalf("created: %d %v", status, made)
	}
	_, _, changed := s.do(t, "POST", "/v1/customers/"+id, "name=Ada+King&metadata[seats]=3&metadata[gone]=", "")
	if diff := cmp.Diff(changed["metadata"], any(map[string]any{"plan": "free", "seats": "3"})); diff != "" || changed["name"] != "Ada King" || changed["email"] != "Ada@example.com" {
		t.Errorf("changed: %v %s", changed, diff)
	}
	_, _, read := s.do(t, "GET", "/v1/customers/"+id, "", "")
	if diff := cmp.Diff(read, changed); diff != "" {
		t.Error(diff)
	}
	gone := map[string]any{"id": id, "object": "customer", "deleted": true}
	for _, method := range []string{"DELETE", "GET"} {
		if status, _, got := s.do(t, method, "/v1/customers/"+id, "", ""); status != 200 || cmp.Diff(got, gone) != "" {
			t.Errorf("%s: %d %v", method, status, got)
		}
	}
	for _, method := range []string{"DELETE", "POST"} {
		if status, _, got := s.do(t, method, "/v1/customers/"+id, "", ""); status != 404 || stripeCode(got) != "resource_missing" {
			t.Errorf("%s a deleted one: %d %v", method, status, got)
		}
	}
}

func TestStripeRefusals(t *testing.T) {
	s := newShop(t, sim.StripeOptions{})
	long := strings.Repeat("x", 501)
	tests := []struct {
		method, path, form string
		status             int
		code               string
	}{
		{"POST", "/v1/customers", "emial=x", 400, "parameter_unknown"},
		{"POST", "/v1/customers", "email=ada+at+example.com", 400, "email_invalid"},
		{"POST", "/v1/customers", "metadata[x]=" + long, 400, "invalid_request_error"},
		{"POST", "/v1/customers", "metadata[" + long[:41] + "]=x", 400, "invalid_request_error"},
		{"GET", "/v1/customers?limit=101", "", 400, "parameter_invalid_integer"},
		{"GET", "/v1/customers?e-mail=x", "", 400, "parameter_unknown"},
		{"GET", "/v1/customers?starting_after=cus_no", "", 404, "resource_missing"},
		{"GET", "/v1/customers/search?query=metadata", "", 400, "invalid_request_error"},
		{"GET", "/v1/customers/cus_no", "", 404, "resource_missing"},
		{"GET", "/v1/charges", "", 404, "invalid_request_error"},
	}
	for _, tt := range tests {
		if status, _, body := s.do(t, tt.method, tt.path, tt.form, ""); status != tt.status || stripeCode(body) != tt.code {
			t.Errorf("%s %s: got %d %v, want %d %s", tt.method, tt.path, status, body, tt.status, tt.code)
		}
	}
	if got := len(s.Customers()); got != 0 {
		t.Errorf("%d customers were made", got)
	}
}

func TestStripeKeys(t *testing.T) {
	s := newShop(t, sim.StripeOptions{})
	for header, want := range map[string]int{"": 401, "Bearer sk_test_other": 401, "Basic c2tfdGVzdF9zaG9wOg==": 200} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.root+"/v1/customers", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", header)
		if got, _, _ := shopSend(t, req); got != want {
			t.Errorf("%q: got %d, want %d", header, got, want)
		}
	}
}

func TestStripeListIsExactAndImmediateAndSearchIsLate(t *testing.T) {
	s := newShop(t, sim.StripeOptions{SearchLag: time.Hour})
	id := s.Add(sim.StripeCustomer{Email: "Ada@example.com", Metadata: map[string]string{"k": "V"}})
	list := func(email string) string {
		_, _, body := s.do(t, "GET", "/v1/customers?email="+url.QueryEscape(email), "", "")
		return pageIDs(body)
	}
	search := func() string {
		_, _, body := s.do(t, "GET", "/v1/customers/search?query="+url.QueryEscape("metadata['k']:'v'"), "", "")
		return pageIDs(body)
	}
	if list("Ada@example.com") != id || list("ada@example.com") != "" {
		t.Error("the list is not exact and immediate")
	}
	steps := []struct {
		wait time.Duration
		do   func()
		want string
	}{
		{0, func() {}, ""},
		{time.Hour - time.Second, func() {}, ""},
		{time.Second, func() {}, id},
		{0, func() { s.Edit(id, func(c *sim.StripeCustomer) { c.Deleted = true }) }, id},
		{time.Hour, func() {}, ""},
	}
	for i, step := range steps {
		s.clock.Advance(step.wait)
		step.do()
		if got := search(); got != step.want {
			t.Errorf("search at step %d: got %q, want %q", i, got, step.want)
		}
	}
	if list("Ada@example.com") != "" {
		t.Error("the list shows a deleted customer")
	}
}

func TestStripePages(t *testing.T) {
	s := newShop(t, sim.StripeOptions{})
	var want []string
	for range 5 {
		want = append([]string{s.Add(sim.StripeCustomer{Email: "a@example.com", Metadata: map[string]string{"k": "v"}})}, want...)
		s.clock.Advance(time.Minute)
	}
	_, _, first := s.do(t, "GET", "/v1/customers?limit=3&email=a%40example.com", "", "")
	_, _, second := s.do(t, "GET", "/v1/customers?limit=3&email=a%40example.com&starting_after="+want[2], "", "")
	if pageIDs(first)+" "+pageIDs(second) != strings.Join(want, " ") || first["has_more"] != true || second["has_more"] != false {
		t.Errorf("list: got %v and %v, want %v", first, second, want)
	}
	_, _, first = s.do(t, "GET", "/v1/customers/search?limit=3&query=metadata['k']:'v'", "", "")
	_, _, second = s.do(t, "GET", fmt.Sprint("/v1/customers/search?limit=3&query=metadata['k']:'v'&page=", first["next_page"]), "", "")
	if pageIDs(first)+" "+pageIDs(second) != strings.Join(want, " ") || second["next_page"] != nil {
		t.Errorf("search: got %v and %v, want %v", first, second, want)
	}
}

func TestStripeIdempotency(t *testing.T) {
	s := newShop(t, sim.StripeOptions{})
	_, header, made := s.do(t, "POST", "/v1/customers", "name=Ada&phone=1", "k1")
	if header.Get("Idempotent-Replayed") != "" {
		t.Error("the first answer says that it is replayed")
	}
	status, header, again := s.do(t, "POST", "/v1/customers", "phone=1&name=Ada", "k1")
	if status != 200 || header.Get("Idempotent-Replayed") != "true" || cmp.Diff(again, made) != "" {
		t.Errorf("again: %d %v", status, again)
	}
	if status, _, body := s.do(t, "POST", "/v1/customers", "name=Eve", "k1"); status != 400 || stripeCode(body) != "idempotency_error" {
		t.Errorf("other parameters: %d %v", status, body)
	}
	if status, _, body := s.do(t, "POST", "/v1/customers/"+made["id"].(string), "name=Ada&phone=1", "k1"); status != 400 || stripeCode(body) != "idempotency_error" {
		t.Errorf("other endpoint: %d %v", status, body)
	}
	s.do(t, "POST", "/v1/customers", "email=bad", "k2")
	if status, _, _ := s.do(t, "POST", "/v1/customers", "name=good", "k2"); status != 200 {
		t.Errorf("after a failed validation the key is used up: %d", status)
	}
	s.clock.Advance(24*time.Hour - time.Second)
	s.do(t, "POST", "/v1/customers", "name=Ada&phone=1", "k1")
	if got := len(s.Customers()); got != 2 {
		t.Errorf("%d customers within a day, want 2", got)
	}
	s.clock.Advance(time.Second)
	s.do(t, "POST", "/v1/customers", "name=Ada&phone=1", "k1")
	if got := len(s.Customers()); got != 3 {
		t.Errorf("%d customers after a day, want 3", got)
	}
}

func TestStripeStoresFailures(t *testing.T) {
	for _, effect := range []bool{false, true} {
		s := newShop(t, sim.StripeOptions{})
		s.FailCreates(1, effect)
		for i := range 2 {
			status, header, _ := s.do(t, "POST", "/v1/customers", "name=Ada", "k")
			if status != 500 || (header.Get("Idempotent-Replayed") == "true") != (i == 1) {
				t.Errorf("call %d: %d %v", i, status, header)
			}
		}
		if got := len(s.Customers()); (got == 1) != effect {
			t.Errorf("effect %t: %d customers", effect, got)
		}
		if status, _, _ := s.do(t, "POST", "/v1/customers", "name=Ada", "k2"); status != 200 {
			t.Errorf("with another key: %d", status)
		}
	}
}

func TestStripeKeyInUse(t *testing.T) {
	var s shop
	inside := func() {
		if status, _, body := s.do(t, "POST", "/v1/customers", "name=Ada", "k"); status != 409 || stripeCode(body) != "idempotency_key_in_use" {
			t.Errorf("the same: %d %v", status, body)
		}
		if status, _, body := s.do(t, "POST", "/v1/customers", "name=Eve", "k"); status != 400 || stripeCode(body) != "idempotency_error" {
			t.Errorf("other parameters: %d %v", status, body)
		}
	}
	s = newShop(t, sim.StripeOptions{During: func() { inside() }})
	if status, _, _ := s.do(t, "POST", "/v1/customers", "name=Ada", "k"); status != 200 {
		t.Errorf("the first: %d", status)
	}
}

func TestStripeLimits(t *testing.T) {
	s := newShop(t, sim.StripeOptions{})
	count := func(path string, calls int) (passed int, reason string) {
		for range calls {
			status, header, _ := s.do(t, "GET", path, "", "")
			if status == 429 {
				reason = header.Get("Stripe-Rate-Limited-Reason")
				continue
			}
			passed++
		}
		return passed, reason
	}
	if n, reason := count("/v1/customers", 30); n != 25 || reason != "endpoint-rate" {
		t.Errorf("list: %d passed, %s", n, reason)
	}
	if n, reason := count("/v1/customers/search?query=email:'x'", 30); n != 20 || reason != "endpoint-rate" {
		t.Errorf("search: %d passed, %s", n, reason)
	}
	count("/v1/customers/cus_x", 25)
	count("/v1/other", 25)
	s.clock.Advance(999 * time.Millisecond)
	if n, _ := count("/v1/customers", 1); n != 0 {
		t.Error("the second is not over")
	}
	s.clock.Advance(time.Millisecond)
	if n, _ := count("/v1/customers", 1); n != 1 {
		t.Error("the second is over")
	}
}
