package sim

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"signup-sync/handler/signup"
)

// SalesforceOptions say what a simulated org is like.
type SalesforceOptions struct {
	Clock        signup.Clock   // nil = the wall clock
	ClientID     string         // the app's consumer key; "" = 3MVG9simulated
	ClientSecret string         // for the client credentials flow; "" = the app does not allow it
	PublicKey    *rsa.PublicKey // of the app's certificate, for the JWT flow; nil = the app does not allow it
	Username     string         // the integration user; "" = sync@example.com
	Audience     string         // "" = https://login.salesforce.com
	Objects      []SalesforceObject
	SessionCalls int    // how many calls a session lasts; 0 = until EndSessions
	DailyCalls   int    // what the org may make in a day; 0 = 100,000
	Duplicates   string // the duplicate rule: "" = none, "alert" or "block"
	MatchBy      string // the field in which the rule compares records; "" = Email
	// During is called while a record is being created, with nothing locked: what comes in meanwhile with the same
	// external id is another creation, and the unique index decides between them.
	During func()
	// Takes is how long a call lasts, which counts as one that is open meanwhile; nil = no time.
	Takes func() time.Duration
}

// salesforceLong is when a call counts as a long one, and salesforceOpen how many of those an org may have at once (docs:
// API request limits and allocations, concurrent API request limits, production orgs).
const (
	salesforceLong = 20 * time.Second
	salesforceOpen = 25
)

// Salesforce is a simulated org: the token endpoint, records of some objects and their description, as far as
// developer.salesforce.com publishes how they behave (REST API, version 62.0), under /services. Where that is silent it
// does the worse thing.
type Salesforce struct {
	Faults Faults

	o       SalesforceOptions
	handler http.Handler

	mu       sync.Mutex
	records  []*SalesforceRecord // in the order of creation
	sessions map[string]int      // calls made in each
	tokens   int
	used     int         // of the day's calls
	open     []time.Time // since when calls are going on, oldest first
	calls    map[string]int
	refuse   []salesforceFault // for each record to be refused
}

// NewSalesforce returns an org without records.
func NewSalesforce(o SalesforceOptions) *Salesforce {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.ClientID, "3MVG9simulated")
	setDefault(&o.Username, "sync@example.com")
	setDefault(&o.Audience, "https://login.salesforce.com")
	setDefault(&o.DailyCalls, 100_000)
	setDefault(&o.MatchBy, "Email")
	if o.Objects == nil {
		o.Objects = SalesforceObjects()
	}
	s := &Salesforce{o: o, sessions: map[string]int{}, calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /services/oauth2/token", s.token)
	const data = "/services/data/{version}"
	mux.Handle("PATCH "+data+"/composite/sobjects/{object}/{field}", s.route("collection", s.upsertAll))
	mux.Handle("POST "+data+"/sobjects/{object}", s.route("create", s.createOne))
	mux.Handle("PATCH "+data+"/sobjects/{object}/{field}/{value}", s.route("upsert", s.upsertOne))
	mux.Handle("PATCH "+data+"/sobjects/{object}/{id}", s.route("update", s.updateOne))
	mux.Handle("GET "+data+"/sobjects/{object}/{field}/{value}", s.route("find", s.retrieveOne))
	mux.Handle("GET "+data+"/sobjects/{object}/{id}", s.route("retrieve", s.retrieve))
	mux.Handle("GET "+data+"/sobjects/{object}/describe", s.route("describe", s.describe))
	mux.Handle("/", s.route("unknown", func(*salesforceCall) salesforceReply { return noResource() }))
	s.handler = s.Faults.Wrap(mux)
	return s
}

// ServeHTTP is the root of the org's My Domain; the paths begin with /services.
func (s *Salesforce) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Calls counts the calls that were let in, by "collection", "create", "upsert", "update", "find", "retrieve", "describe"
// and "unknown", and "token" for those that got one.
func (s *Salesforce) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// EndSessions makes all tokens invalid, as an administrator or a timeout does.
func (s *Salesforce) EndSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// UseUp makes others' calls: so many of the day's are used then.
func (s *Salesforce) UseUp(used int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = used
}

// RefuseRecords lets the next n records that are written fail with this code, each by itself.
func (s *Salesforce) RefuseRecords(n int, code, message string, fields ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.refuse = append(s.refuse, salesforceFault{code, message, fields})
	}
}

// salesforceCall is an authenticated request to an object.
type salesforceCall struct {
	*http.Request
	object *SalesforceObject
	field  *SalesforceField // that the path names as external id
	body   []byte
	now    time.Time
}

type salesforceReply struct {
	status int
	body   any // nil = none
}

// salesforceFault is an error of a record, or of a request.
type salesforceFault struct {
	code    string
	message string
	fields  []string
}

func (f salesforceFault) object(codeKey string) map[string]any {
	fields := f.fields
	if fields == nil {
		fields = []string{}
	}
	return map[string]any{codeKey: f.code, "message": f.message, "fields": fields}
}

// salesforceRefusal is the error of a whole request.
func salesforceRefusal(status int, code, message string) salesforceReply {
	return salesforceReply{status, []any{map[string]any{"errorCode": code, "message": message}}}
}

func noResource() salesforceReply {
	return salesforceRefusal(404, "NOT_FOUND", "The requested resource does not exist")
}

// route does what all endpoints share: the session, the org's limit, the version, the object.
func (s *Salesforce) route(name string, next func(*salesforceCall) salesforceReply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply := s.admit(name, r, next)
		s.mu.Lock()
		usage := fmt.Sprintf("api-usage=%d/%d", s.used, s.o.DailyCalls)
		s.mu.Unlock()
		h := w.Header()
		if reply.status != http.StatusUnauthorized {
			h.Set("Sforce-Limit-Info", usage)
		}
		if reply.body == nil {
			w.WriteHeader(reply.status)
			return
		}
		h.Set("Content-Type", "application/json;charset=UTF-8")
		w.WriteHeader(reply.status)
		_ = json.NewEncoder(w).Encode(reply.body) // whoever has gone away comes again
	})
}

func (s *Salesforce) admit(name string, r *http.Request, next func(*salesforceCall) salesforceReply) salesforceReply {
	now := s.o.Clock.Now()
	if refused, ok := s.enter(name, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), now); !ok {
		return refused
	}
	defer s.leave(now)
	if s.o.Takes != nil {
		_ = s.o.Clock.Sleep(context.WithoutCancel(r.Context()), s.o.Takes()) // whoever goes away has asked for it nevertheless
	}
	body, ok := readBody(r)
	if !ok || len(body) > 0 && !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return salesforceRefusal(415, "UNSUPPORTED_MEDIA_TYPE", "Content type is not supported")
	}
	if v := r.PathValue("version"); name != "unknown" && (!strings.HasPrefix(v, "v") || !strings.HasSuffix(v, ".0")) {
		return noResource()
	}
	c := &salesforceCall{Request: r, body: body, now: s.o.Clock.Now().UTC()}
	if name == "unknown" {
		return next(c)
	}
	for i := range s.o.Objects {
		if strings.EqualFold(s.o.Objects[i].Name, r.PathValue("object")) {
			c.object = &s.o.Objects[i]
		}
	}
	if c.object == nil {
		return noResource()
	}
	if field := r.PathValue("field"); field != "" {
		c.field = c.object.field(field)
		if c.field == nil || !c.field.ExternalID {
			return salesforceRefusal(404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: "+field)
		}
	}
	return next(c)
}

// enter counts a call in: it needs a session, and the org must have calls left and not too many long ones going on.
func (s *Salesforce) enter(name, token string, now time.Time) (salesforceReply, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made, live := s.sessions[token]
	if !live || s.o.SessionCalls > 0 && made >= s.o.SessionCalls {
		delete(s.sessions, token)
		return salesforceRefusal(401, "INVALID_SESSION_ID", "Session expired or invalid"), false
	}
	if s.used >= s.o.DailyCalls {
		return salesforceRefusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), false
	}
	if n := len(s.open); n >= salesforceOpen && now.Sub(s.open[salesforceOpen-1]) >= salesforceLong {
		return salesforceRefusal(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."), false
	}
	s.sessions[token]++
	s.used++
	s.open = append(s.open, now)
	s.calls[name]++
	return salesforceReply{}, true
}

// leave counts a call out that began then.
func (s *Salesforce) leave(begun time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.open, begun)
	s.open = slices.Delete(s.open, i, i+1)
}
