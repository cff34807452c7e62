package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"signup-sync/handler/signup"
)

// MailchimpOptions say what a simulated Mailchimp account is like.
type MailchimpOptions struct {
	Clock    signup.Clock     // nil = the wall clock
	APIKey   string           // what callers have to present; "" = 0123456789abcdef0123456789abcdef-us1
	Audience string           // the id of its only audience; "" = 1a2b3c4d5e
	Fields   []MailchimpField // the audience's merge fields; nil = FNAME and LNAME
	// During is called while a call is going on, with nothing locked: it counts as a connection meanwhile.
	During func()
}

// MailchimpField is a merge field of the audience.
type MailchimpField struct {
	Tag      string
	Type     string // "" = text; a number takes numbers only
	Required bool   // a call that makes or changes a contact needs a value, unless it skips the validation
}

// Mailchimp is a simulated Mailchimp account with one audience, as far as the reference of the Marketing API 3.0
// publishes how it behaves, under /3.0. Where that is silent it does the worse thing:
//
//   - A PUT with a status changes the state of a contact that is there, so that who has left is subscribed again; one
//     that left by itself, or is kept off by compliance, is refused "subscribed" and asked anew by "pending".
//   - Tags in a PUT, and merge fields that the audience does not have, are dropped without a word.
//   - An address that ends in .invalid looks fake; one whose local part begins with "busy" has joined too many lists.
//   - A list of contacts leaves out the archived ones unless it is asked for them.
//   - At most 10 calls at the same time; any further one is a 429, every other time with an empty body.
type Mailchimp struct {
	Faults Faults

	o       MailchimpOptions
	handler http.Handler

	mu         sync.Mutex
	members    []*MailchimpMember // in the order of creation
	hashes     map[*MailchimpMember]addressHash
	forgotten  map[string]bool // hashes of addresses that were deleted for good
	suppressed map[string]bool // hashes of addresses without a contact that compliance keeps off
	made       int
	open       int // calls going on
	refused    int
	calls      map[string]int
}

// NewMailchimp returns an account whose audience is empty.
func NewMailchimp(o MailchimpOptions) *Mailchimp {
	if o.Clock == nil {
		o.Clock = signup.ScaledClock{}
	}
	setDefault(&o.APIKey, "0123456789abcdef0123456789abcdef-us1")
	setDefault(&o.Audience, "1a2b3c4d5e")
	if o.Fields == nil {
		o.Fields = []MailchimpField{{Tag: "FNAME"}, {Tag: "LNAME"}}
	}
	s := &Mailchimp{o: o, hashes: map[*MailchimpMember]addressHash{}, forgotten: map[string]bool{}, suppressed: map[string]bool{}, calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("GET /3.0/ping", s.route("ping", func(*mailchimpCall) mailchimpReply {
		return mailchimpReply{200, map[string]any{"health_status": "Everything's Chimpy!"}}
	}))
	mux.Handle("GET /3.0/lists/{list}", s.route("audience", s.audience))
	mux.Handle("GET /3.0/lists/{list}/merge-fields", s.route("fields", s.fields))
	mux.Handle("GET /3.0/lists/{list}/members", s.route("list", s.list))
	mux.Handle("POST /3.0/lists/{list}/members", s.route("post", s.post))
	mux.Handle("GET /3.0/lists/{list}/members/{member}", s.route("get", s.get))
	mux.Handle("PUT /3.0/lists/{list}/members/{member}", s.route("put", s.put))
	mux.Handle("POST /3.0/lists/{list}/members/{member}/tags", s.route("tags", s.tag))
	mux.Handle("/", s.route("unknown", func(*mailchimpCall) mailchimpReply { return notFoundAtMailchimp() }))
	s.handler = s.Faults.Wrap(mux)
	return s
}

// ServeHTTP is the account's root; the paths begin with /3.0.
func (s *Mailchimp) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Calls counts the calls that were let in, by "ping", "audience", "fields", "list", "post", "get", "put", "tags" and
// "unknown".
func (s *Mailchimp) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// mailchimpCall is a request with its query and body.
type mailchimpCall struct {
	*http.Request
	query url.Values
	body  []byte
}

type mailchimpReply struct {
	status int
	body   any // nil = none
}

// mailchimpRefusal is Mailchimp's problem document.
func mailchimpRefusal(status int, title, detail string) mailchimpReply {
	return mailchimpReply{status, map[string]any{
		"type": "https://mailchimp.com/developer/marketing/docs/errors/", "title": title, "status": status, "detail": detail,
		"instance": "995c5cb0-3280-4a6e-808b-3b096d0bb219",
	}}
}

func notFoundAtMailchimp() mailchimpReply {
	return mailchimpRefusal(404, "Resource Not Found", "The requested resource could not be found.")
}

// route does what all endpoints share: the connections, the key, the audience, the query, the fields that are wanted.
func (s *Mailchimp) route(name string, next func(*mailchimpCall) mailchimpReply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply := s.admit(name, r, next)
		media := "application/json; charset=utf-8"
		if reply.status >= 400 {
			media = "application/problem+json; charset=utf-8"
		}
		w.Header().Set("Content-Type", media)
		w.WriteHeader(reply.status)
		if reply.body != nil {
			_ = json.NewEncoder(w).Encode(reply.body) // whoever has gone away comes again
		}
	})
}

const mailchimpConnections = 10

func (s *Mailchimp) admit(name string, r *http.Request, next func(*mailchimpCall) mailchimpReply) mailchimpReply {
	s.mu.Lock()
	if s.open >= mailchimpConnections {
		defer s.mu.Unlock()
		if s.refused++; s.refused%2 == 1 {
			return mailchimpReply{status: 429}
		}
		return mailchimpRefusal(429, "Too Many Requests", "You have exceeded the limit of 10 simultaneous connections.")
	}
	s.open++
	s.calls[name]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	if s.o.During != nil {
		s.o.During()
	}
	_, key, basic := r.BasicAuth()
	if !basic {
		key = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	switch {
	case key == "":
		return mailchimpRefusal(401, "API Key Missing", "Your request did not include an API key.")
	case key != s.o.APIKey:
		return mailchimpRefusal(401, "API Key Invalid", "Your API key may be invalid, or you've attempted to access the wrong datacenter.")
	case r.PathValue("list") != "" && r.PathValue("list") != s.o.Audience:
		return notFoundAtMailchimp()
	}
	body, ok := readBody(r)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if !ok || err != nil {
		return mailchimpRefusal(400, "Bad Request", "The request could not be read.")
	}
	reply := next(&mailchimpCall{Request: r, query: query, body: body})
	if fields := query.Get("fields"); fields != "" && reply.status == 200 {
		reply.body = wantedFields(reply.body, strings.Split(fields, ","))
	}
	return reply
}

// wantedFields keeps the fields of an answer that are named, those of nested objects with dots.
func wantedFields(body any, fields []string) any {
	switch body := body.(type) {
	case map[string]any:
		kept := map[string]any{}
		for k, v := range body {
			var below []string
			for _, f := range fields {
				if f == k {
					kept[k] = v
				} else if sub, ok := strings.CutPrefix(f, k+"."); ok {
					below = append(below, sub)
				}
			}
			if len(below) > 0 {
				kept[k] = wantedFields(v, below)
			}
		}
		return kept
	case []any:
		var kept = []any{}
		for _, x := range body {
			kept = append(kept, wantedFields(x, fields))
		}
		return kept
	}
	return body
}

func (s *Mailchimp) audience(*mailchimpCall) mailchimpReply {
	return mailchimpReply{200, map[string]any{
		"id": s.o.Audience, "web_id": 382062, "name": "Newsletter", "double_optin": true, "marketing_permissions": false, "visibility": "prv",
		"stats": map[string]any{"member_count": len(s.Members()), "merge_field_count": len(s.o.Fields)},
	}}
}

func (s *Mailchimp) fields(r *mailchimpCall) mailchimpReply {
	all := []any{}
	for i, f := range s.o.Fields {
		all = append(all, map[string]any{
			"merge_id": i + 1, "tag": f.Tag, "name": f.Tag, "type": cmp.Or(f.Type, "text"), "required": f.Required, "default_value": "", "public": false,
			"display_order": i + 2, "options": map[string]any{"size": 25}, "help_text": "", "list_id": s.o.Audience,
		})
	}
	total := len(all)
	all, bad := mailchimpPage(r.query, all)
	if bad != nil {
		return *bad
	}
	return mailchimpReply{200, map[string]any{"merge_fields": all, "list_id": s.o.Audience, "total_items": total}}
}

// list shows the contacts by the filters that it knows; any other is refused, so that nobody believes that it filters.
func (s *Mailchimp) list(r *mailchimpCall) mailchimpReply {
	for name := range r.query {
		if !slices.Contains([]string{"fields", "count", "offset", "status", "since_last_changed", "sort_field", "sort_dir"}, name) {
			return mailchimpRefusal(400, "Invalid Resource", "The simulation knows no parameter "+name+".")
		}
	}
	since, bad := mailchimpSince(r.query.Get("since_last_changed"))
	if bad != nil {
		return *bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*MailchimpMember
	for _, m := range s.members {
		status := r.query.Get("status")
		if (status == m.Status || status == "" && m.Status != "archived") && m.LastChanged.After(since) {
			found = append(found, m)
		}
	}
	switch field := r.query.Get("sort_field"); field {
	case "":
	case "timestamp_signup", "last_changed":
		slices.SortStableFunc(found, func(a, b *MailchimpMember) int {
			if field == "last_changed" {
				return a.LastChanged.Compare(b.LastChanged)
			}
			return a.SignedUpAt.Compare(b.SignedUpAt)
		})
	default:
		return mailchimpRefusal(400, "Invalid Resource", "sort_field")
	}
	if r.query.Get("sort_dir") == "DESC" {
		slices.Reverse(found)
	}
	all := []any{}
	for _, m := range found {
		all = append(all, s.object(m))
	}
	all, bad = mailchimpPage(r.query, all)
	if bad != nil {
		return *bad
	}
	return mailchimpReply{200, map[string]any{"members": all, "list_id": s.o.Audience, "total_items": len(found)}}
}

func mailchimpPage(query url.Values, all []any) ([]any, *mailchimpReply) {
	limits := map[string]int{"count": 10, "offset": 0}
	for name := range limits {
		if !query.Has(name) {
			continue
		}
		n, err := strconv.Atoi(query.Get(name))
		if err != nil || n < 0 || name == "count" && n > 1000 {
			bad := mailchimpRefusal(400, "Invalid Resource", fmt.Sprintf("%s is not in its range.", name))
			return nil, &bad
		}
		limits[name] = n
	}
	all = all[min(limits["offset"], len(all)):]
	return all[:min(limits["count"], len(all))], nil
}
