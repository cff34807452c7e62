package sim

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// StripeCustomer is a customer of the simulated account.
type StripeCustomer struct {
	ID               string
	Email            string // "" = none
	Name             string
	Phone            string
	Description      string
	PreferredLocales []string
	Metadata         map[string]string
	Created          time.Time
	Deleted          bool
}

// stripeCustomer is a customer with its past, which is what the search index shows.
type stripeCustomer struct {
	StripeCustomer
	versions []stripeVersion
}

type stripeVersion struct {
	at time.Time
	StripeCustomer
}

// Customers returns the truth, the deleted ones included, in the order of creation.
func (s *Stripe) Customers() []StripeCustomer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []StripeCustomer
	for _, c := range s.customers {
		all = append(all, c.clone())
	}
	return all
}

// Add makes a customer as somebody else would; ID and Created are set if they are not. It returns the id.
func (s *Stripe) Add(c StripeCustomer) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(c, s.o.Clock.Now().UTC()).ID
}

// Edit changes a customer as somebody else would.
func (s *Stripe) Edit(id string, change func(*StripeCustomer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(id); c != nil {
		change(&c.StripeCustomer)
		c.keep(s.o.Clock.Now().UTC())
	}
}

func (s *Stripe) add(c StripeCustomer, now time.Time) *stripeCustomer {
	setDefault(&c.ID, stripeID("cus_", len(s.customers)))
	setDefault(&c.Created, now)
	made := &stripeCustomer{StripeCustomer: c.clone()}
	made.keep(now)
	s.customers = append(s.customers, made)
	return made
}

func (s *Stripe) find(id string) *stripeCustomer {
	for _, c := range s.customers {
		if c.ID == id {
			return c
		}
	}
	return nil
}

func (c *stripeCustomer) keep(now time.Time) {
	c.versions = append(c.versions, stripeVersion{now, c.clone()})
}

// indexed is the version that a search at that lag shows.
func (c *stripeCustomer) indexed(by time.Time) (StripeCustomer, bool) {
	for _, v := range slices.Backward(c.versions) {
		if !v.at.After(by) {
			return v.StripeCustomer, true
		}
	}
	return StripeCustomer{}, false
}

func (c StripeCustomer) clone() StripeCustomer {
	c.Metadata = maps.Clone(c.Metadata)
	c.PreferredLocales = slices.Clone(c.PreferredLocales)
	return c
}

// object is the customer as Stripe's API shows it.
func (c StripeCustomer) object() map[string]any {
	if c.Deleted {
		return map[string]any{"id": c.ID, "object": "customer", "deleted": true}
	}
	metadata, locales := c.Metadata, c.PreferredLocales
	if metadata == nil {
		metadata = map[string]string{}
	}
	if locales == nil {
		locales = []string{}
	}
	return map[string]any{
		"id": c.ID, "object": "customer", "created": c.Created.Unix(), "livemode": false,
		"email": orNull(c.Email), "name": orNull(c.Name), "phone": orNull(c.Phone), "description": orNull(c.Description),
		"preferred_locales": locales, "metadata": metadata,
		"address": nil, "balance": 0, "currency": nil, "default_source": nil, "delinquent": false, "shipping": nil, "tax_exempt": "none",
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (s *Stripe) create(r *stripeCall) stripeReply {
	var c StripeCustomer
	if bad := c.set(r.params); bad != nil {
		return *bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fail, effect := len(s.failures) > 0, true
	if fail {
		effect, s.failures = s.failures[0], s.failures[1:]
	}
	reply := stripeReply{}
	if effect {
		reply = stripeOK(s.add(c, r.now).object())
	}
	if fail {
		return stripeRefusal(500, "api_error", "", "", "An unknown error occurred for "+c.Email+".")
	}
	return reply
}

func (s *Stripe) update(r *stripeCall) stripeReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(r.PathValue("id"))
	if c == nil || c.Deleted {
		return noCustomer(r.PathValue("id"))
	}
	changed := c.clone()
	if bad := changed.set(r.params); bad != nil {
		return *bad
	}
	c.StripeCustomer = changed
	c.keep(r.now)
	return stripeOK(c.object())
}

func (s *Stripe) retrieve(r *stripeCall) stripeReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(r.PathValue("id"))
	if c == nil {
		return noCustomer(r.PathValue("id"))
	}
	return stripeOK(c.object())
}

func (s *Stripe) delete(r *stripeCall) stripeReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(r.PathValue("id"))
	if c == nil || c.Deleted {
		return noCustomer(r.PathValue("id"))
	}
	c.Deleted = true
	c.keep(r.now)
	return stripeOK(c.object())
}

func noCustomer(id string) stripeReply {
	return stripeRefusal(404, "invalid_request_error", "resource_missing", "id", "No such customer: '"+id+"'")
}

// list shows the newest first; the e-mail filter is exact and case-sensitive.
func (s *Stripe) list(r *stripeCall) stripeReply {
	limit, bad := stripePage(r.params, "email", "starting_after")
	if bad != nil {
		return *bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.customers)
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b *stripeCustomer) int { return b.Created.Compare(a.Created) })
	if after := r.params.Get("starting_after"); after != "" {
		i := slices.IndexFunc(all, func(c *stripeCustomer) bool { return c.ID == after })
		if i < 0 {
			return noCustomer(after)
		}
		all = all[i+1:]
	}
	page := []any{}
	more := false
	for _, c := range all {
		if c.Deleted || r.params.Has("email") && c.Email != r.params.Get("email") {
			continue
		}
		if more = len(page) == limit; more {
			break
		}
		page = append(page, c.object())
	}
	return stripeOK(map[string]any{"object": "list", "url": "/v1/customers", "has_more": more, "data": page})
}

var searchClause = regexp.MustCompile(`^(?:metadata\[["']([^"']+)["']\]|(email|name|phone))\s*:\s*["']([^"']*)["']$`)

// search shows what was there SearchLag ago, what has been deleted since included. Clauses with ":" are compared whole
// and in any letter case, and joined by AND.
func (s *Stripe) search(r *stripeCall) stripeReply {
	limit, bad := stripePage(r.params, "query", "page")
	if bad != nil {
		return *bad
	}
	skip, _ := strconv.Atoi(strings.TrimPrefix(r.params.Get("page"), "page"))
	var clauses [][]string
	for part := range strings.SplitSeq(r.params.Get("query"), " AND ") {
		m := searchClause.FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			return stripeRefusal(400, "invalid_request_error", "", "query", "We were unable to parse your search query.")
		}
		clauses = append(clauses, m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []any{}
	for _, c := range slices.Backward(s.customers) {
		if v, ok := c.indexed(r.now.Add(-s.o.SearchLag)); ok && !v.Deleted && v.matches(clauses) {
			found = append(found, v.object())
		}
	}
	found = found[min(skip, len(found)):]
	body := map[string]any{"object": "search_result", "url": "/v1/customers/search", "has_more": len(found) > limit, "next_page": nil}
	if len(found) > limit {
		found = found[:limit]
		body["next_page"] = fmt.Sprintf("page%d", skip+limit)
	}
	body["data"] = found
	return stripeOK(body)
}

func (c StripeCustomer) matches(clauses [][]string) bool {
	for _, m := range clauses {
		have := map[string]string{"email": c.Email, "name": c.Name, "phone": c.Phone}[m[2]]
		if m[1] != "" {
			have = c.Metadata[m[1]]
		}
		if have == "" || !strings.EqualFold(have, m[3]) {
			return false
		}
	}
	return true
}

func stripePage(params url.Values, known ...string) (limit int, bad *stripeReply) {
	limit = 10
	for name := range params {
		if name != "limit" && !slices.Contains(known, name) {
			return 0, unknownParameter(name)
		}
	}
	if text := params.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			reply := stripeRefusal(400, "invalid_request_error", "parameter_invalid_integer", "limit", "This value must be between 1 and 100.")
			return 0, &reply
		}
		limit = n
	}
	return limit, nil
}

func unknownParameter(name string) *stripeReply {
	reply := stripeRefusal(400, "invalid_request_error", "parameter_unknown", name, "Received unknown parameter: "+name)
	return &reply
}

var bracketed = regexp.MustCompile(`^(metadata|preferred_locales)\[([^\[\]]*)\]$`)

// set takes a creation's or update's parameters. An empty value unsets.
func (c *StripeCustomer) set(params url.Values) *stripeReply {
	texts := map[string]*string{"email": &c.Email, "name": &c.Name, "phone": &c.Phone, "description": &c.Description}
	limits := map[string]int{"email": 512, "name": 256, "phone": 20, "description": 350}
	invalid := func(code, param, message string) *stripeReply {
		reply := stripeRefusal(400, "invalid_request_error", code, param, message)
		return &reply
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		value := params.Get(name)
		if p, ok := texts[name]; ok {
			if len(value) > limits[name] {
				return invalid("", name, "Invalid string: "+value+"; must be at most "+strconv.Itoa(limits[name])+" characters")
			}
			*p = value
			continue
		}
		m := bracketed.FindStringSubmatch(name)
		switch {
		case m == nil:
			return unknownParameter(name)
		case m[1] == "preferred_locales":
			c.PreferredLocales = append(c.PreferredLocales, value)
		case len(m[2]) > 40 || len(value) > 500:
			return invalid("", name, "Metadata keys can be up to 40 characters and values up to 500.")
		case value == "":
			delete(c.Metadata, m[2])
		default:
			if c.Metadata == nil {
				c.Metadata = map[string]string{}
			}
			c.Metadata[m[2]] = value
		}
	}
	if local, domain, ok := strings.Cut(c.Email, "@"); c.Email != "" && (!ok || local == "" || domain == "" || strings.ContainsAny(c.Email, " \t\n")) {
		return invalid("email_invalid", "email", "Invalid email address: "+c.Email)
	}
	if len(c.Metadata) > 50 {
		return invalid("", "metadata", "You cannot have more than 50 metadata keys.")
	}
	return nil
}
