package connector_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// otherStripe is a mock of Stripe by others, which remembers customers and idempotency keys: what our own simulation
// makes of Stripe's reference is compared with what somebody else makes of it.
//
// It is of API version 2020-08-27 and knows no search: it takes /v1/customers/search for a customer with the id
// "search", and answers 404. In front of it stands a handler that answers a search from the mock's own list, at once and
// without Stripe's lag; without it every unsure call ends as a failed look-up, which is tested too. It does not keep a
// customer's name or phone either, nor does it forget a key, replay a 500, throttle or check an address: that is the
// simulation's alone.
type otherStripe struct {
	root   string
	faults sim.Faults
	search bool // answer searches
}

// startOtherStripe runs the mock for as long as the test, on a port of its own.
func startOtherStripe(t *testing.T) *otherStripe {
	t.Helper()
	const untested = "stripe is NOT tested against the mock of others"
	needNPM(t, "stripe-stateful-mock/package.json", untested)
	node, err := exec.LookPath("node")
	if err != nil {
		leave(t, untested, err)
	}
	// It ends with its input, so that it does not outlive a test that was killed.
	mock := exec.CommandContext(t.Context(), node, "-e", `process.stdin.on("end", () => process.exit()).resume()
		require("stripe-stateful-mock").createExpressApp().listen(0, "127.0.0.1", function () { console.log("port " + this.address().port) })`)
	if _, err := mock.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	mock.Dir = "npm"
	mock.Env = append(mock.Environ(), "LOG_LEVEL=silent")
	out, err := mock.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := mock.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = mock.Process.Kill() // it may have ended by the test's context
		_ = mock.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok {
			return &otherStripe{root: "http://127.0.0.1:" + port, search: true}
		}
	}
	t.Fatal("the mock ended before it listened")
	return nil
}

// connect opens a connector to the mock, through the faults and the searches.
func (o *otherStripe) connect(t *testing.T, key string) signup.Connector {
	t.Helper()
	to, err := url.Parse(o.root)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	root, client := serve(t, o.faults.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.search && r.URL.Path == "/v1/customers/search" {
			o.answerSearch(t, w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	})))
	return open(t, "stripe", map[string]any{"apiKey": key, "url": root}, connector.Env{HTTP: client, Clock: sim.NewClock(start)})
}

var metadataQuery = regexp.MustCompile(`^metadata\['([a-z_]+)'\]:'([^']*)'$`)

func (o *otherStripe) answerSearch(t *testing.T, w http.ResponseWriter, r *http.Request) {
	m := metadataQuery.FindStringSubmatch(r.URL.Query().Get("query"))
	if m == nil {
		t.Errorf("the query %q is not one that is answered here", r.URL.Query().Get("query"))
		return
	}
	found := slices.DeleteFunc(o.customers(t), func(c map[string]any) bool { return metadataOf(c)[m[1]] != m[2] })
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"object": "search_result", "url": "/v1/customers/search", "has_more": false, "next_page": nil, "data": append([]map[string]any{}, found...),
	})
}

func metadataOf(customer map[string]any) map[string]any {
	m, _ := customer["metadata"].(map[string]any)
	return m
}

// customers are all that the mock has.
func (o *otherStripe) customers(t *testing.T) []map[string]any {
	r, err := http.NewRequestWithContext(t.Context(), "GET", o.root+"/v1/customers?limit=100", nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	r.Header.Set("Authorization", "Bearer "+stripeKey)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer resp.Body.Close()
	var list struct {
		Data []map[string]any
		More bool `json:"has_more"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || list.More {
		t.Errorf("list the mock's customers: %v, more: %v", err, list.More)
	}
	return list.Data
}

// of are the ids of a user's customers.
func (o *otherStripe) of(t *testing.T, user signup.UserID) (ids []string) {
	for _, c := range o.customers(t) {
		if metadataOf(c)["entra_object_id"] == string(user) {
			ids = append(ids, fmt.Sprint(c["id"]))
		}
	}
	return ids
}

// person is the n-th user's request.
func stripePerson(n int) signup.Request {
	req := ada
	req.User = signup.UserID(fmt.Sprintf("%08d-5eed-4000-8000-00000000beef", n))
	req.Key = strings.Repeat(fmt.Sprintf("%08x", n), 8)
	req.Email = fmt.Sprintf("ada%d@example.com", n)
	req.Record = map[string]any{"email": req.Email, "description": "signed up", "metadata": map[string]any{"plan": "free"}, "preferredLocales": []any{"de", "en"}}
	return req
}

// redescribed is a request whose record is another.
func redescribed(req signup.Request) signup.Request {
	req.Record = map[string]any{"email": req.Email, "description": "signed up twice"}
	return req
}

func TestStripeAgainstAMockThatRemembers(t *testing.T) {
	there := startOtherStripe(t)
	c := there.connect(t, stripeKey)
	elsewhere := func(req signup.Request) signup.Request {
		req.Email = "moved+" + req.Email
		req.Record = map[string]any{"email": req.Email}
		return req
	}
	same := func(req signup.Request) signup.Request { return req }
	lose := func() { there.faults.Add(sim.Fault{Method: "POST", After: true}) }
	fail := func() { there.faults.Add(sim.Fault{Method: "POST", After: true, Status: 503}) }
	tests := []struct {
		name  string
		wrong func()
		again func(signup.Request) signup.Request
	}{
		{"the same key again", nil, same},
		{"an unsure call", nil, unsure},
		{"a lost answer, and the same key again", lose, same},
		{"a lost answer, and an unsure call", lose, unsure},
		{"a failure after the effect, and an unsure call", fail, unsure},
		{"the key with other parameters", nil, redescribed},
		{"an unsure call with other parameters", lose, func(req signup.Request) signup.Request { return unsure(redescribed(req)) }},
		{"the key with another address", nil, elsewhere},
		{"an unsure call with another address", lose, func(req signup.Request) signup.Request { return unsure(elsewhere(req)) }},
		{"an unsure call with another key", lose, func(req signup.Request) signup.Request { return unsure(nextKey(req)) }},
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := stripePerson(n + 1)
			if tt.wrong != nil {
				tt.wrong()
			}
			first, err := c.Associate(t.Context(), req)
			if (err != nil) != (tt.wrong != nil) || err != nil && signup.ClassOf(err) != signup.Transient {
				t.Fatalf("the first call: %+v, %v", first, err)
			}
			ids := there.of(t, req.User)
			if len(ids) != 1 || err == nil && (first.ID != ids[0] || !first.Created) {
				t.Fatalf("after the first call the user has %v; the answer was %+v", ids, first)
			}
			for range 2 {
				a, err := c.Associate(t.Context(), tt.again(req))
				if err != nil || a.ID != ids[0] || a.Created {
					t.Fatalf("the further call: %+v, %v; want %s", a, err, ids[0])
				}
			}
			if ids := there.of(t, req.User); len(ids) != 1 {
				t.Errorf("the user has %v", ids)
			}
		})
	}
	customer := there.customers(t)[slices.IndexFunc(there.customers(t), func(x map[string]any) bool { return x["email"] == stripePerson(1).Email })]
	if locales := fmt.Sprint(customer["preferred_locales"]); customer["description"] != "signed up" || locales != "[de en]" ||
		metadataOf(customer)["plan"] != "free" || metadataOf(customer)["entra_tenant_id"] != ada.Tenant {
		t.Errorf("the mock has kept %v", customer)
	}
}

func TestStripeAgainstAMockWithoutSearch(t *testing.T) {
	there := startOtherStripe(t)
	there.search = false
	c := there.connect(t, stripeKey)
	if e := call(t, c, unsure(stripePerson(1))); e.Class != signup.Transient {
		t.Errorf("got %s, %v", e.Class, e)
	}
	if ids := there.of(t, stripePerson(1).User); len(ids) != 0 {
		t.Errorf("a customer was made although nobody could look: %v", ids)
	}
	if err := c.Check(t.Context()); err == nil {
		t.Error("the check does not see that there is no search")
	}
	if e := call(t, there.connect(t, "rk_live_5eed5eed5eed"), stripePerson(1)); e.Class != signup.Systemic || e.Code != "unauthorized" {
		t.Errorf("a key that the mock refuses: got %s, %v", e.Class, e)
	}
}
