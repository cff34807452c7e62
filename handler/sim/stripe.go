package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// StripeOptions say what a simulated Stripe account is like.
type StripeOptions struct {
	Clock     signup.Clock  // nil = the wall clock
	APIKey    string        // what callers have to present; "" = sk_test_simulated
	SearchLag time.Duration // how late the search is; 0 = a minute, as usual; an hour is what Stripe admits to
	NoLimits  bool          // answer any number of calls; else 25/s an endpoint, 20/s for the search, 100/s in all
	// During is called while a creation is going on, with nothing locked: what comes in meanwhile with the same key
	// meets a key in use.
	During func()
}

// Stripe is a simulated Stripe account: customers, as far as docs.stripe.com publishes how they behave (API version
// 2026-03-25.dahlia), under /v1. Where that is silent it does the worse thing.
type Stripe struct {
	Faults Faults // what goes wrong on the way; see also FailCreates

	o       StripeOptions
	handler http.Handler

	mu        sync.Mutex
	customers []*stripeCustomer // in the order of creation
	keys      map[string]*stripeKey
	window    map[string][]time.Time // when an endpoint was called in the last second
	calls     map[string]int
	requests  int
	failures  []bool // for each creation to fail: whether it has its effect
}

// NewStripe returns an account without customers.
func NewStripe(o StripeOptions) *Stripe {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.APIKey, "sk_test_simulated")
	setDefault(&o.SearchLag, time.Minute)
	s := &Stripe{o: o, keys: map[string]*stripeKey{}, window: map[string][]time.Time{}, calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/customers", s.route("list", s.list))
	mux.Handle("POST /v1/customers", s.route("create", s.idempotent(s.create)))
	mux.Handle("GET /v1/customers/search", s.route("search", s.search))
	mux.Handle("GET /v1/customers/{id}", s.route("retrieve", s.retrieve))
	mux.Handle("POST /v1/customers/{id}", s.route("update", s.idempotent(s.update)))
	mux.Handle("DELETE /v1/customers/{id}", s.route("delete", s.delete))
	mux.Handle("/", s.route("unknown", func(r *stripeCall) stripeReply {
		return stripeRefusal(404, "invalid_request_error", "", "", fmt.Sprintf("Unrecognized request URL (%s: %s).", r.Method, r.URL.Path))
	}))
	s.handler = s.Faults.Wrap(mux)
	return s
}

// ServeHTTP is the account's root; the paths begin with /v1.
func (s *Stripe) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Calls counts the calls that were let in, by "list", "create", "search", "retrieve", "update", "delete" and "unknown".
func (s *Stripe) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// FailCreates lets the next n creations end in a 500 after they began, which Stripe stores under the key and replays.
// With effect the customer is there nevertheless.
func (s *Stripe) FailCreates(n int, effect bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.failures = append(s.failures, effect)
	}
}

// stripeCall is a request with its parameters.
type stripeCall struct {
	*http.Request
	params url.Values
	now    time.Time
}

type stripeReply struct {
	status int
	header http.Header
	body   []byte
}

func stripeOK(body any) stripeReply {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own structs
	}
	return stripeReply{status: http.StatusOK, body: b}
}

// stripeRefusal is Stripe's error object.
func stripeRefusal(status int, kind, code, param, message string) stripeReply {
	e := map[string]string{"type": kind, "message": message}
	if code != "" {
		e["code"], e["doc_url"] = code, "https://stripe.com/docs/error-codes/"+strings.ReplaceAll(code, "_", "-")
	}
	if param != "" {
		e["param"] = param
	}
	r := stripeOK(map[string]any{"error": e})
	r.status = status
	return r
}

// route does what all endpoints share: the request's id, the key, the limits, the parameters.
func (s *Stripe) route(name string, next func(*stripeCall) stripeReply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := s.o.Clock.Now().UTC()
		s.mu.Lock()
		s.requests++
		id := fmt.Sprintf("req_sim%010d", s.requests)
		s.mu.Unlock()
		reply := s.admit(name, r, now, next)
		h := w.Header()
		maps.Copy(h, reply.header)
		h.Set("Request-Id", id)
		h.Set("Content-Type", "application/json")
		if v := r.Header.Get("Stripe-Version"); v != "" {
			h.Set("Stripe-Version", v)
		}
		w.WriteHeader(reply.status)
		_, _ = w.Write(reply.body)
	})
}

func (s *Stripe) admit(name string, r *http.Request, now time.Time, next func(*stripeCall) stripeReply) stripeReply {
	key, _, basic := r.BasicAuth()
	if !basic {
		key = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if key == "" {
		return stripeRefusal(401, "invalid_request_error", "", "", "You did not provide an API key.")
	}
	if key != s.o.APIKey {
		return stripeRefusal(401, "invalid_request_error", "", "", "Invalid API Key provided: "+key[:min(len(key), 8)]+"****")
	}
	if reason := s.limited(name, now); reason != "" {
		reply := stripeRefusal(429, "invalid_request_error", "rate_limit", "", "Request rate limit exceeded.")
		reply.header = http.Header{"Stripe-Rate-Limited-Reason": {reason}}
		return reply
	}
	body, ok := readBody(r)
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil && r.Method == http.MethodPost {
		params, err = url.ParseQuery(string(body))
		if mime, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); mime != "application/x-www-form-urlencoded" {
			ok = false
		}
	}
	if !ok || err != nil {
		return stripeRefusal(400, "invalid_request_error", "", "", "Invalid request: the body is not form-encoded.")
	}
	return next(&stripeCall{Request: r, params: params, now: now})
}

// limited counts a call in, unless it is one too many in the last second.
func (s *Stripe) limited(name string, now time.Time) (reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := []struct {
		of, reason string
		most       int
	}{{"", "global-rate", 100}, {name, "endpoint-rate", 25}}
	if name == "search" {
		limits[1].most = 20
	}
	for _, l := range limits {
		calls := s.window[l.of]
		for len(calls) > 0 && now.Sub(calls[0]) >= time.Second {
			calls = calls[1:]
		}
		s.window[l.of] = calls
		if len(calls) >= l.most && !s.o.NoLimits {
			return l.reason
		}
	}
	for _, l := range limits {
		s.window[l.of] = append(s.window[l.of], now)
	}
	s.calls[name]++
	return ""
}

// stripeKey is what is kept for an idempotency key.
type stripeKey struct {
	endpoint string
	params   string
	at       time.Time
	done     bool
	reply    stripeReply
	request  string
}

// stripeKeyMemory is how long Stripe keeps keys: "at least 24 hours", here no longer.
const stripeKeyMemory = 24 * time.Hour

// idempotent answers a key that was seen before from what is stored. The parameters are compared first, also while the
// first call is still going on, since nobody says that they are not.
func (s *Stripe) idempotent(next func(*stripeCall) stripeReply) func(*stripeCall) stripeReply {
	return func(r *stripeCall) stripeReply {
		key := r.Header.Get("Idempotency-Key")
		if key == "" {
			return next(r)
		}
		if len(key) > 255 {
			return stripeRefusal(400, "idempotency_error", "", "", "Idempotency keys can be at most 255 characters.")
		}
		s.mu.Lock()
		stored, ok := s.keys[key]
		if ok && stored.done && r.now.Sub(stored.at) >= stripeKeyMemory {
			ok = false
		}
		if !ok {
			stored = &stripeKey{endpoint: r.URL.Path, params: r.params.Encode(), at: r.now}
			s.keys[key] = stored
			s.mu.Unlock()
			return s.first(key, stored, next, r)
		}
		defer s.mu.Unlock()
		switch {
		case stored.endpoint != r.URL.Path || stored.params != r.params.Encode():
			return stripeRefusal(400, "idempotency_error", "", "",
				"Keys for idempotent requests can only be used with the same parameters they were first used with.")
		case !stored.done:
			return stripeRefusal(409, "idempotency_error", "idempotency_key_in_use", "",
				"There is currently another in-progress request using this Stripe API key and idempotency key.")
		}
		reply := stored.reply
		reply.header = http.Header{"Idempotent-Replayed": {"true"}, "Original-Request": {stored.request}, "Idempotency-Key": {key}}
		return reply
	}
}

// first executes a call with a new key. What failed its validation never began, and is not stored.
func (s *Stripe) first(key string, stored *stripeKey, next func(*stripeCall) stripeReply, r *stripeCall) stripeReply {
	if s.o.During != nil {
		s.o.During()
	}
	reply := next(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if reply.status >= 400 && reply.status < 500 {
		delete(s.keys, key)
		return reply
	}
	stored.done, stored.reply = true, reply
	stored.request = "req_sim" + strconv.Itoa(s.requests)
	return reply
}

// stripeID makes an id of the right shape from a number.
func stripeID(prefix string, n int) string {
	sum := sha256.Sum256([]byte(prefix + strconv.Itoa(n)))
	return prefix + hex.EncodeToString(sum[:])[:14]
}
