package connector_test

import (
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// bench is a connector with its simulated Stripe account.
type bench struct {
	signup.Connector
	there *sim.Stripe
	clock *sim.Clock
	log   *lockedBuffer
}

func stripeBench(t *testing.T, o sim.StripeOptions, adopt string, wrap func(http.Handler) http.Handler) bench {
	t.Helper()
	b := bench{clock: sim.NewClock(start), log: &lockedBuffer{}}
	o.Clock, o.APIKey, o.NoLimits = b.clock, stripeKey, true
	b.there = sim.NewStripe(o)
	var h http.Handler = b.there
	if wrap != nil {
		h = wrap(h)
	}
	root, client := serve(t, h)
	b.Connector = open(t, "stripe", map[string]any{"apiKey": stripeKey, "url": root, "adopt": adopt},
		connector.Env{HTTP: client, Clock: b.clock, Log: slog.New(slog.NewTextHandler(b.log, nil))})
	return b
}

// stripeAt opens a connector to a server with this handler.
func stripeAt(t *testing.T, h http.HandlerFunc) signup.Connector {
	t.Helper()
	root, client := serve(t, h)
	return open(t, "stripe", map[string]any{"apiKey": stripeKey, "url": root}, connector.Env{HTTP: client, Clock: sim.NewClock(start)})
}

func linked(req signup.Request) map[string]string {
	return map[string]string{"entra_object_id": string(req.User), "entra_tenant_id": req.Tenant}
}

func unsure(req signup.Request) signup.Request { req.Unsure = true; return req }

func spentAt(req signup.Request, since time.Time) signup.Request { req.Spent = since; return req }

func nextKey(req signup.Request) signup.Request { req.Key = strings.Repeat("1", 64); return req }

func noAddress(req signup.Request) signup.Request {
	req.Email, req.EmailVerified, req.Record = "", false, map[string]any{"name": "Ada Lovelace"}
	return req
}

func renamed(req signup.Request) signup.Request {
	req.Record = maps.Clone(req.Record)
	req.Record["name"] = "Ada King"
	return req
}

// want associates and demands this account.
func (b bench) want(t *testing.T, req signup.Request, id string) {
	t.Helper()
	if a, err := b.Associate(t.Context(), req); err != nil || a.ID != id {
		t.Fatalf("got %q, %v; want %q", a.ID, err, id)
	}
}

// wantCode associates and demands this outcome.
func (b bench) wantCode(t *testing.T, req signup.Request, code string, retryAfter time.Duration) {
	t.Helper()
	e := call(t, b, req)
	if e.Class != signup.Transient || e.Code != code || e.RetryAfter != retryAfter {
		t.Fatalf("got %s, %q after %s; want transient, %q after %s", e.Class, e.Code, e.RetryAfter, code, retryAfter)
	}
}

// live are the ids of the customers that are not deleted.
func (b bench) live() (ids []string) {
	for _, c := range b.there.Customers() {
		if !c.Deleted {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func TestStripeCreation(t *testing.T) {
	answer, err := os.ReadFile("testdata/stripe-customer.json")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	c := stripeAt(t, func(w http.ResponseWriter, r *http.Request) {
		got.Reset()
		got.WriteString(r.Method + " " + r.URL.String() + "\n")
		for _, name := range []string{"Authorization", "Content-Type", "Idempotency-Key", "Stripe-Version", "X-Stripe-Client-Telemetry"} {
			got.WriteString(name + ": " + r.Header.Get(name) + "\n")
		}
		body, _ := io.ReadAll(r.Body)
		pairs := strings.Split(string(body), "&")
		slices.Sort(pairs)
		text, _ := url.QueryUnescape(strings.Join(pairs, "\n"))
		got.WriteString("\n" + text + "\n")
		w.Header().Set("Request-Id", "req_1")
		_, _ = w.Write(answer)
	})
	// Telemetry, were it on, would tell about the first call in the second.
	if _, err := c.Associate(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	req := ada
	req.Record = map[string]any{
		"email": "ada+1@example.com", "name": "Ada Lovelace", "phone": "+44 20 7946 0000", "description": "signed up alone",
		"preferredLocales": []any{"en-GB", "fr"}, "metadata": map[string]any{"plan": "free", "seats": 3, "vip": true, "score": 0.25},
	}
	a, err := c.Associate(t.Context(), req)
	if diff := cmp.Diff(a, signup.Account{ID: "cus_NffrFeUfNV2Hib", Created: true}); diff != "" || err != nil {
		t.Errorf("account (-got +want):\n%s%v", diff, err)
	}
	golden(t, "stripe-create.txt", got.String())
}

func TestStripeRecordOfWrongTypes(t *testing.T) {
	for field, v := range map[string]any{
		"email": 1, "name": true, "preferredLocales": []any{1}, "metadata": "x", "shipping": "x", "phone": map[string]any{},
	} {
		b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
		req := ada
		req.Record = map[string]any{field: v}
		if e := call(t, b, req); e.Class != signup.Permanent || e.Code != "invalid-record" || !strings.Contains(e.Detail, "record."+field) {
			t.Errorf("%s: got %s, %v", field, e.Class, e)
		}
	}
}

func TestStripeOutcomes(t *testing.T) {
	refused := func(kind, code string) string {
		return `{"error":{"type":"` + kind + `","code":"` + code + `","message":"about ada@example.com","param":"email"}}`
	}
	reason := http.Header{"Stripe-Rate-Limited-Reason": {"endpoint-concurrency"}}
	tests := []struct {
		status int
		header http.Header
		body   string
		want   signup.Error
	}{
		{400, nil, refused("invalid_request_error", "email_invalid"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "stripe: email_invalid"}},
		{400, nil, refused("invalid_request_error", ""), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "stripe: invalid_request_error"}},
		{400, nil, refused("invalid_request_error", "Ada@Example"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "stripe: invalid_request_error"}},
		{400, http.Header{"Stripe-Should-Retry": {"true"}}, refused("invalid_request_error", "x_y"), signup.Error{Class: signup.Transient, Code: "rejected", Detail: "stripe: x_y"}},
		{402, nil, refused("card_error", "card_declined"), signup.Error{Class: signup.Permanent, Code: "rejected", Detail: "stripe: card_declined"}},
		{401, nil, refused("invalid_request_error", "api_key_expired"), signup.Error{Class: signup.Systemic, Code: "unauthorized", Detail: "stripe: api_key_expired"}},
		{401, nil, "<html>", signup.Error{Class: signup.Systemic, Code: "unauthorized"}},
		{403, nil, "", signup.Error{Class: signup.Systemic, Code: "forbidden"}},
		{404, nil, "no such page", signup.Error{Class: signup.Systemic, Code: "not-found"}},
		{404, nil, refused("invalid_request_error", "resource_missing"), signup.Error{Class: signup.Transient, Code: "missing", Detail: "stripe: resource_missing"}},
		{409, nil, refused("idempotency_error", "idempotency_key_in_use"), signup.Error{Class: signup.Transient, Code: "conflict", Detail: "stripe: idempotency_key_in_use"}},
		{429, nil, refused("invalid_request_error", "lock_timeout"), signup.Error{Class: signup.Transient, Code: "conflict", Detail: "stripe: lock_timeout"}},
		{429, reason, refused("invalid_request_error", "rate_limit"), signup.Error{Class: signup.Throttled, Code: "throttled", Detail: "stripe: endpoint-concurrency"}},
		{429, http.Header{"Stripe-Rate-Limited-Reason": {"ada@example.com"}}, "", signup.Error{Class: signup.Throttled, Code: "throttled"}},
		{500, nil, refused("api_error", ""), signup.Error{Class: signup.Transient, Code: "unavailable", Detail: "stripe: api_error"}},
		{503, nil, "upstream connect error", signup.Error{Class: signup.Transient, Code: "unavailable"}},
		{302, http.Header{"Location": {"/login"}}, "{}", signup.Error{Class: signup.Systemic, Code: "redirected"}},
		{200, nil, "{}", signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, nil, "", signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, nil, "<html>ada@example.com", signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, nil, `{"object":"list","data":[]}`, signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, nil, `{"object":"customer","id":{}}`, signup.Error{Class: signup.Transient, Code: "not-understood"}},
		{200, nil, `{"object":"customer","id":"ada@example.com"}`, signup.Error{Class: signup.Transient, Code: "not-understood"}},
	}
	for _, tt := range tests {
		calls := 0
		c := stripeAt(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			maps.Copy(w.Header(), tt.header)
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		})
		e := *call(t, c, ada)
		if tt.status != 200 && e.Status != tt.status {
			t.Errorf("%d %s: status %d", tt.status, tt.body, e.Status)
		}
		if e.Status = 0; e.Code == "not-understood" {
			e.Detail = ""
		}
		if e != tt.want || calls != 1 {
			t.Errorf("%d %s: got %s, %v in %d calls; want %s, %v in one", tt.status, tt.body, e.Class, &e, calls, tt.want.Class, &tt.want)
		}
	}
}

func TestStripeLookUpsTakeNoOtherAnswerForNone(t *testing.T) {
	for _, body := range []string{
		"", "{}", "null", "[]", `{"object":"customer","id":"cus_1"}`, "<html>",
		`{"object":"list"}`, `{"object":"list","data":null,"has_more":false}`, `{"object":"list","data":[]}`,
		`{"object":"list","data":[],"has_more":true}`, `{"object":"search_result","data":[],"has_more":false}`,
	} {
		var created bool
		c := stripeAt(t, func(w http.ResponseWriter, r *http.Request) {
			created = created || r.Method == "POST"
			_, _ = w.Write([]byte(body))
		})
		if e := call(t, c, unsure(ada)); e.Class != signup.Transient || created {
			t.Errorf("%s: got %s, %v; created %t", body, e.Class, e, created)
		}
	}
}

func TestStripeOtherBodyUnderTheKeySettlesAfterAnHour(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{SearchLag: time.Hour}, "metadata", nil)
	req := noAddress(ada)
	b.there.Faults.Add(sim.Fault{Method: "POST", After: true})
	call(t, b, req)
	b.clock.Advance(time.Minute)
	b.wantCode(t, unsure(renamed(req)), "key-settling", 10*time.Minute)
	settling := spentAt(unsure(renamed(req)), b.clock.Now())
	b.clock.Advance(58 * time.Minute)
	b.wantCode(t, settling, "key-settling", 2*time.Minute)
	b.clock.Advance(time.Minute)
	b.want(t, settling, b.live()[0])
	if got := len(b.live()); got != 1 {
		t.Errorf("%d customers, want 1", got)
	}
}

func TestStripeKeyIsSpentOnlyAfterAnHourOfLooking(t *testing.T) {
	for name, prepare := range map[string]func(bench){
		"failure without effect": func(b bench) { b.there.FailCreates(1, false) },
		"customer deleted since": func(b bench) { b.there.Faults.Add(sim.Fault{Method: "POST", After: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := stripeBench(t, sim.StripeOptions{SearchLag: time.Hour}, "metadata", nil)
			prepare(b)
			call(t, b, ada)
			for _, id := range b.live() {
				b.there.Edit(id, func(c *sim.StripeCustomer) { c.Deleted = true })
			}
			b.wantCode(t, unsure(ada), "key-settling", 10*time.Minute)
			settling := spentAt(unsure(ada), b.clock.Now())
			b.clock.Advance(time.Hour - time.Second)
			b.wantCode(t, settling, "key-settling", time.Second)
			b.clock.Advance(time.Second)
			b.wantCode(t, settling, "key-spent", 0)
			if _, err := b.Associate(t.Context(), unsure(nextKey(ada))); err != nil || len(b.live()) != 1 {
				t.Errorf("got %v and %d customers, want 1", err, len(b.live()))
			}
		})
	}
}

func TestStripeStoredFailureWithEffectIsFoundAtOnce(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{SearchLag: time.Hour}, "metadata", nil)
	b.there.FailCreates(1, true)
	call(t, b, ada)
	b.want(t, ada, b.live()[0]) // not even unsure: the replayed failure is what makes it look
	b.want(t, unsure(ada), b.live()[0])
}

func TestStripeWithoutDoubtIsOneCall(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
	if _, err := b.Associate(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.there.Calls(), map[string]int{"create": 1}); diff != "" {
		t.Error(diff)
	}
}

func TestStripeKnown(t *testing.T) {
	tests := []struct {
		name  string
		there sim.StripeCustomer
		taken bool
	}{
		{"the user's", sim.StripeCustomer{Metadata: linked(ada)}, true},
		{"written in upper case", sim.StripeCustomer{Metadata: map[string]string{
			"entra_object_id": strings.ToUpper(string(ada.User)), "entra_tenant_id": strings.ToUpper(ada.Tenant),
		}}, true},
		{"deleted", sim.StripeCustomer{Metadata: linked(ada), Deleted: true}, false},
		{"nobody's", sim.StripeCustomer{Email: ada.Email}, false},
		{"of another tenant", sim.StripeCustomer{Email: ada.Email, Metadata: map[string]string{"entra_object_id": string(ada.User), "entra_tenant_id": "other"}}, false},
		{"without a tenant", sim.StripeCustomer{Email: ada.Email, Metadata: map[string]string{"entra_object_id": string(ada.User)}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
			req := ada
			req.Known = b.there.Add(tt.there)
			a, err := b.Associate(t.Context(), req)
			if err != nil || (a.ID == req.Known) != tt.taken {
				t.Errorf("got %q, %v beside the known %q; want it taken: %t", a.ID, err, req.Known, tt.taken)
			}
		})
	}
	t.Run("not an id", func(t *testing.T) {
		b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
		req := ada
		req.Known = "../charges"
		if _, err := b.Associate(t.Context(), req); err != nil || b.there.Calls()["unknown"]+b.there.Calls()["retrieve"] != 0 {
			t.Errorf("got %v, %v", err, b.there.Calls())
		}
	})
}

func TestStripeTakesTheOldestOfSeveralAndSaysSo(t *testing.T) {
	for name, email := range map[string]string{"by list": ada.Email, "by search": "moved@example.com"} {
		b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
		newer := b.there.Add(sim.StripeCustomer{Email: email, Metadata: linked(ada), Created: start.Add(-time.Hour)})
		older := b.there.Add(sim.StripeCustomer{Email: email, Metadata: linked(ada), Created: start.Add(-2 * time.Hour)})
		b.clock.Advance(time.Minute)
		b.want(t, unsure(ada), older)
		log := b.log.String()
		if !strings.Contains(log, "count=2") || !strings.Contains(log, older) || !strings.Contains(log, newer) || strings.Contains(log, "@") {
			t.Errorf("%s: log %q", name, log)
		}
	}
}

func TestStripeListsTheAddressInLowerCaseToo(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{SearchLag: time.Hour}, "metadata", nil)
	own := b.there.Add(sim.StripeCustomer{Email: "ada@example.com", Metadata: linked(ada)})
	req := unsure(ada)
	req.Email, req.Record = "Ada@Example.com", map[string]any{"email": "Ada@Example.com"}
	b.want(t, req, own)
}

func TestStripeDoesNotBelieveALateSearch(t *testing.T) {
	for name, change := range map[string]func(*sim.StripeCustomer){
		"deleted":  func(c *sim.StripeCustomer) { c.Deleted = true },
		"unlinked": func(c *sim.StripeCustomer) { c.Metadata = nil },
	} {
		b := stripeBench(t, sim.StripeOptions{SearchLag: time.Hour}, "metadata", nil)
		id := b.there.Add(sim.StripeCustomer{Metadata: linked(ada)})
		b.clock.Advance(time.Hour)
		b.there.Edit(id, change)
		a, err := b.Associate(t.Context(), unsure(ada))
		if err != nil || a.ID == id || b.there.Calls()["retrieve"] != 1 {
			t.Errorf("%s: got %q, %v; the search showed %q as it was", name, a.ID, err, id)
		}
	}
}

func TestStripeListsToTheLastPage(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
	own := b.there.Add(sim.StripeCustomer{Email: ada.Email, Metadata: linked(ada)})
	for range 249 {
		b.there.Add(sim.StripeCustomer{Email: ada.Email})
	}
	b.want(t, unsure(ada), own)
	if got := b.there.Calls()["list"]; got != 3 {
		t.Errorf("%d pages, want 3", got)
	}
	b.there.Faults.Add(sim.Fault{Method: "GET", Skip: 2, Status: 500})
	if e := call(t, b, unsure(ada)); e.Class != signup.Transient {
		t.Errorf("a failed last page: got %v", e)
	}
}

func TestStripeSearchesToTheLastPage(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
	own := b.there.Add(sim.StripeCustomer{Metadata: linked(ada), Created: start.Add(-time.Hour)})
	for range 100 {
		b.there.Add(sim.StripeCustomer{Metadata: linked(ada)})
	}
	b.clock.Advance(time.Minute)
	b.want(t, unsure(ada), own)
	if got := b.there.Calls()["search"]; got != 2 {
		t.Errorf("%d pages, want 2", got)
	}
}

func TestStripeSearchThatDoesNotSayWhereItGoesOnIsNotWhole(t *testing.T) {
	searches, created := 0, false
	c := stripeAt(t, func(w http.ResponseWriter, r *http.Request) {
		created = created || r.Method == "POST"
		body := `{"object":"list","data":[],"has_more":false}`
		switch {
		case strings.HasSuffix(r.URL.Path, "/search"):
			body = `{"object":"search_result","data":[{"object":"customer","id":"cus_1"}],"has_more":true,"next_page":null}`
			if searches++; searches > 3 {
				body = `{"object":"search_result","data":[],"has_more":false}`
			}
		case strings.HasSuffix(r.URL.Path, "/cus_1"):
			body = `{"object":"customer","id":"cus_1"}`
		}
		_, _ = w.Write([]byte(body))
	})
	if e := call(t, c, unsure(ada)); e.Code != "not-understood" || searches != 1 || created {
		t.Errorf("got %v after %d searches, created %t; want not-understood after one", e, searches, created)
	}
}

func TestStripeAdoption(t *testing.T) {
	other := linked(signup.Request{User: "2", Tenant: ada.Tenant})
	tests := []struct {
		name     string
		adopt    string
		verified bool
		there    []sim.StripeCustomer
		adopted  bool
	}{
		{"the only unlinked one", "email", true, []sim.StripeCustomer{{Email: ada.Email}}, true},
		{"beside one of somebody else", "email", true, []sim.StripeCustomer{{Email: ada.Email}, {Email: ada.Email, Metadata: other}}, true},
		{"beside a deleted one", "email", true, []sim.StripeCustomer{{Email: ada.Email}, {Email: ada.Email, Deleted: true}}, true},
		{"two", "email", true, []sim.StripeCustomer{{Email: ada.Email}, {Email: ada.Email}}, false},
		{"not verified", "email", false, []sim.StripeCustomer{{Email: ada.Email}}, false},
		{"of somebody else", "email", true, []sim.StripeCustomer{{Email: ada.Email, Metadata: other}}, false},
		{"other address", "email", true, []sim.StripeCustomer{{Email: "x" + ada.Email}}, false},
		{"not asked for", "metadata", true, []sim.StripeCustomer{{Email: ada.Email}}, false},
	}
	for _, tt := range tests {
		for _, unsure := range []bool{false, true} {
			b := stripeBench(t, sim.StripeOptions{}, tt.adopt, nil)
			var first string
			for i, c := range tt.there {
				if id := b.there.Add(c); i == 0 {
					first = id
				}
			}
			req := ada
			req.EmailVerified, req.Unsure = tt.verified, unsure
			a, err := b.Associate(t.Context(), req)
			if err != nil || (a.ID == first) != tt.adopted || a.Created == tt.adopted {
				t.Errorf("%s: got %+v, %v beside %q; want it adopted: %t", tt.name, a, err, first, tt.adopted)
			}
			if again, err := b.Associate(t.Context(), req); err != nil || again.ID != a.ID {
				t.Errorf("%s: again: %q, %v; want %q", tt.name, again.ID, err, a.ID)
			}
			var count int
			for _, c := range b.there.Customers() {
				if c.Metadata["entra_object_id"] == string(req.User) && c.Metadata["entra_tenant_id"] == req.Tenant {
					count++
				}
			}
			if count != 1 {
				t.Errorf("%s: %d customers carry the user, want 1", tt.name, count)
			}
		}
	}
}

// A list that does not filter by the address shows other people's customers.
func TestStripeAdoptsNoOtherAddressWhateverTheListShows(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{}, "email", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" {
				r.URL.RawQuery = ""
			}
			next.ServeHTTP(w, r)
		})
	})
	id := b.there.Add(sim.StripeCustomer{Email: "byron@example.com"})
	if a, err := b.Associate(t.Context(), ada); err != nil || a.ID == id || !a.Created {
		t.Errorf("got %+v, %v; want a customer of its own", a, err)
	}
}

func TestStripeAdoptionSurvivesALostAnswer(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{}, "email", nil)
	id := b.there.Add(sim.StripeCustomer{Email: ada.Email})
	b.there.Faults.Add(sim.Fault{Method: "POST", After: true})
	call(t, b, ada)
	b.want(t, unsure(ada), id)
}

func TestTwoUsersCannotAdoptTheSameCustomer(t *testing.T) {
	var b bench
	rival := ada
	rival.User, rival.Key = "00000002-5eed-4000-8000-00000000beef", strings.Repeat("2", 64)
	var id string
	raced := false
	b = stripeBench(t, sim.StripeOptions{}, "email", func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" && !raced {
				// The first user has looked, and not yet linked; the rival does both now.
				raced = true
				b.want(t, rival, id)
			}
			next.ServeHTTP(w, r)
		})
	})
	id = b.there.Add(sim.StripeCustomer{Email: ada.Email})
	if e := call(t, b, ada); e.Class != signup.Transient || e.Code != "adoption-raced" || e.Status != 409 {
		t.Errorf("got %s, %v; want a conflict, which is the one user's trouble", e.Class, e)
	}
	a, err := b.Associate(t.Context(), unsure(ada))
	if err != nil || a.ID == id || !a.Created {
		t.Errorf("got %+v, %v; want a customer of its own", a, err)
	}
	b.want(t, unsure(rival), id)
}

func TestStripeKeyInUseIsTransient(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	b := stripeBench(t, sim.StripeOptions{During: func() { close(began); <-finish }}, "metadata", nil)
	done := make(chan error)
	go func() {
		_, err := b.Associate(t.Context(), ada)
		done <- err
	}()
	<-began
	b.wantCode(t, ada, "conflict", 0)
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.want(t, unsure(ada), b.live()[0])
}

func TestStripeRateLimit(t *testing.T) {
	clock := sim.NewClock(start)
	there := sim.NewStripe(sim.StripeOptions{Clock: clock, APIKey: stripeKey})
	root, client := serve(t, there)
	c := open(t, "stripe", map[string]any{"apiKey": stripeKey, "url": root}, connector.Env{HTTP: client, Clock: clock})
	for range 25 {
		if _, err := c.Associate(t.Context(), ada); err != nil && call(t, c, ada).Class == signup.Throttled {
			break
		}
	}
	if e := call(t, c, ada); e.Class != signup.Throttled || e.RetryAfter != 0 || e.Detail != "stripe: endpoint-rate" {
		t.Errorf("got %s after %s, %v", e.Class, e.RetryAfter, e)
	}
}

func TestStripeCheck(t *testing.T) {
	b := stripeBench(t, sim.StripeOptions{}, "metadata", nil)
	if err := b.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(b.there.Calls(), map[string]int{"list": 1, "search": 1}); diff != "" {
		t.Error(diff)
	}
	b.there.Faults.Add(sim.Fault{Path: "search", Status: 403})
	if err := b.Check(t.Context()); signup.ClassOf(err) != signup.Systemic {
		t.Errorf("without the right to search: got %v", err)
	}
}
