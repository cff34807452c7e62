package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"

	"signup-sync/handler/signup"
)

type stripeSettings struct {
	network
	APIKey string `json:"apiKey" doc:"A restricted key (rk_…) that may read and write customers, or a secret key (sk_…)." required:"true" secret:"true"`
	Adopt  string `json:"adopt" doc:"Which customers that are already there count as the user's: those whose metadata says so (metadata), or also the only unlinked one with the user's verified e-mail address (email)." default:"metadata" enum:"metadata,email"`
}

func stripeKind() Kind {
	fields := []Field{
		{"description", "text shown beside the customer"},
		{"email", "e-mail address; may be absent"},
		{"metadata.*", "own metadata, each at most 500 characters"},
		{"name", "full name"},
		{"phone", "telephone number"},
		{"preferredLocales", "a language tag, or a list of them, the preferred one first"},
	}
	return Kind{
		Name:     "stripe",
		Doc:      "A Stripe customer, linked by the metadata entra_object_id and entra_tenant_id.",
		Settings: stripeSettings{}, Record: fields, Rate: 15, Burst: 5, Concurrency: 8,
		Connect: Connector(openStripe),
		Limit:   "100 calls a second in live mode and 25 in a sandbox, 25 an endpoint, 20 for searches (docs.stripe.com/rate-limits)",
		Fields: func(record map[string]any) (errs []error) {
			metadata, _ := record["metadata"].(map[string]any)
			for _, reserved := range []string{metaUser, metaTenant} {
				if _, ok := metadata[reserved]; ok {
					errs = append(errs, fmt.Errorf("record.metadata.%s: is set by the connector itself", reserved))
				}
			}
			return errs
		},
	}
}

const (
	metaUser   = "entra_object_id"
	metaTenant = "entra_tenant_id"
	// settleAfter is how long Stripe's search may lag ("up to an hour behind during outages").
	settleAfter = time.Hour
	// lookAgain is the pause between two looks while a spent key settles: as a rule the search lags by a minute.
	lookAgain = 10 * time.Minute
)

// stripeConnector makes customers. Exactly one a user, by three things that Stripe has: an idempotency key (kept for at
// least 24 hours, so it covers every effect of the last day under the same key), the list by e-mail address (immediately
// consistent, so it finds the customer at once while its address is what the user's is), and the search by metadata (up
// to an hour late, so it finds every older customer, whatever became of its address). An unsure call makes both
// look-ups and then creates with the key: whatever the search cannot show yet, the key still knows.
//
// What remains: a second customer is made only if one was made under a key of another generation within the last hour,
// nobody remembers that (the ledger was lost), and its address is not the user's.
type stripeConnector struct {
	customers stripeCustomers
	email     bool // adopt by verified e-mail address
	clock     signup.Clock
	log       *slog.Logger
}

var _ signup.Connector = (*stripeConnector)(nil)

func openStripe(s stripeSettings, env Env) (signup.Connector, []error) {
	var errs []error
	if err := checkRoot(s.URL); err != nil {
		errs = append(errs, err)
	}
	switch {
	case strings.HasPrefix(s.APIKey, "pk_"):
		errs = append(errs, errors.New("settings.apiKey: is a publishable key; use a restricted (rk_…) or secret (sk_…) one"))
	case strings.ContainsFunc(s.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }):
		errs = append(errs, errors.New("settings.apiKey: has a blank or a character that no key has"))
	}
	if s.Adopt != "" && s.Adopt != "metadata" && s.Adopt != "email" {
		errs = append(errs, errors.New("settings.adopt: wants metadata or email"))
	}
	if len(errs) > 0 {
		return nil, errs
	}
	if s.URL == "" {
		s.URL = stripe.APIURL
	}
	api := &rest{client: redirectless(env.HTTP.Transport), clock: env.Clock, timeout: s.Timeout, judge: judgeStripe}
	backend := stripe.GetBackendWithConfig(stripe.APIBackend, &stripe.BackendConfig{
		URL: stripe.String(s.URL), HTTPClient: redirectless(underSDK{api}), MaxNetworkRetries: stripe.Int64(0),
		EnableTelemetry: stripe.Bool(false), LeveledLogger: silent{},
	})
	return &stripeConnector{
		customers: stripeCustomers{backend, s.APIKey}, email: s.Adopt == "email", clock: env.Clock, log: env.Log,
	}, nil
}

// Associate returns the user's customer, which it creates unless a look-up finds it.
func (c *stripeConnector) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	params, err := customerParams(req)
	if err != nil {
		return signup.Account{}, err
	}
	if req.Unsure || req.Known != "" {
		found, err := c.lookUp(ctx, req, params)
		if err != nil || found != nil {
			return accountOf(found), err
		}
	}
	if c.email && req.EmailVerified && req.Email != "" {
		found, err := c.adoptByEmail(ctx, req)
		if err != nil || found != nil {
			return accountOf(found), err
		}
	}
	return c.create(ctx, req, params)
}

// Check reads one customer and searches for none: both look-ups must be allowed to the key.
func (c *stripeConnector) Check(ctx context.Context) error {
	list := &stripe.CustomerListParams{}
	list.Limit, list.Single = stripe.Int64(1), true
	for _, err := range c.customers.list(ctx, list) {
		if err != nil {
			return fmt.Errorf("list customers: %w", err)
		}
	}
	search := &stripe.CustomerSearchParams{}
	search.Query, search.Limit, search.Single = searchFor("check"), stripe.Int64(1), true
	for _, err := range c.customers.search(ctx, search) {
		if err != nil {
			return fmt.Errorf("search customers: %w", err)
		}
	}
	return nil
}

func (c *stripeConnector) create(ctx context.Context, req signup.Request, params *stripe.CustomerCreateParams) (signup.Account, error) {
	made, err := c.customers.create(ctx, params)
	switch {
	case code(err) == codeReplayed, code(err) == codeOtherBody:
		return c.settle(ctx, req, params)
	case err != nil:
		return signup.Account{}, err
	case !customerID.MatchString(made.ID):
		return signup.Account{}, errAnswer
	case !isReplay(made.LastResponse):
		return signup.Account{ID: made.ID, Created: true}, nil
	}
	// The answer is as old as the key; somebody may have deleted the customer since.
	live, err := c.confirm(ctx, made.ID, req)
	if err != nil || live != nil {
		return accountOf(live), err
	}
	return c.settle(ctx, req, params)
}

// settle decides what a spent key has left behind: its stored answer is a failure (which may have had its effect), or
// belongs to another body (the profile has changed since), or to a customer that is gone. The look-ups tell, but only
// once the search must show everything that was made under the key; until then it asks to be called again. Since when
// it waits is the caller's to remember (Request.Spent): a process may not live for an hour.
func (c *stripeConnector) settle(ctx context.Context, req signup.Request, params *stripe.CustomerCreateParams) (signup.Account, error) {
	now := c.clock.Now()
	since := req.Spent
	if since.IsZero() {
		since = now
	}
	found, err := c.lookUp(ctx, req, params)
	if err != nil || found != nil {
		return accountOf(found), err
	}
	if wait := settleAfter - now.Sub(since); wait > 0 {
		return signup.Account{}, &signup.Error{
			Class: signup.Transient, Code: "key-settling", RetryAfter: min(wait, lookAgain),
			Detail: "the idempotency key is spent; waiting until the search must show what it left behind",
		}
	}
	return signup.Account{}, &signup.Error{Class: signup.Transient, Code: "key-spent"}
}

// customerParams turns the record into a request, with the idempotency key and the link in it.
func customerParams(req signup.Request) (*stripe.CustomerCreateParams, error) {
	p := &stripe.CustomerCreateParams{Metadata: map[string]string{}}
	p.SetIdempotencyKey("ea1_" + req.Key)
	texts := map[string]**string{"email": &p.Email, "name": &p.Name, "phone": &p.Phone, "description": &p.Description}
	for _, name := range sortedKeys(req.Record) {
		v := req.Record[name]
		switch field, isText := texts[name]; {
		case v == nil || v == "":
		case isText:
			s, ok := v.(string)
			if !ok {
				return nil, invalidRecord("record." + name + " is not text")
			}
			*field = &s
		case name == "preferredLocales":
			locales, ok := stringsOf(v)
			if !ok {
				return nil, invalidRecord("record.preferredLocales is not a list of texts")
			}
			p.PreferredLocales = stripe.StringSlice(locales)
		case name == "metadata":
			m, ok := v.(map[string]any)
			if !ok {
				return nil, invalidRecord("record.metadata has no fields")
			}
			for _, key := range sortedKeys(m) {
				s, ok := textOf(m[key])
				if !ok {
					return nil, invalidRecord("record.metadata." + key + " is neither text nor a number")
				}
				p.Metadata[key] = s
			}
		default:
			return nil, invalidRecord("record." + name + " is not known")
		}
	}
	p.Metadata[metaUser], p.Metadata[metaTenant] = string(req.User), req.Tenant
	return p, nil
}

func stringsOf(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		var all []string
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, false
			}
			all = append(all, s)
		}
		return all, true
	}
	return nil, false
}

func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool, int:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

func accountOf(found *stripeCustomer) signup.Account {
	if found == nil {
		return signup.Account{}
	}
	return signup.Account{ID: found.ID}
}

const (
	codeReplayed  = "replayed-failure"     // a stored 5xx: whether it had its effect is not known
	codeOtherBody = "idempotency-conflict" // the key was used with another body
	codeMissing   = "missing"              // there is no customer with this id
)

var (
	customerID  = regexp.MustCompile(`^cus_[A-Za-z0-9_]{1,240}$`)
	stripeWord  = regexp.MustCompile(`^[a-z][a-z0-9_]{1,63}$`)
	rateReasons = []string{"global-rate", "endpoint-rate", "global-concurrency", "endpoint-concurrency", "resource-specific"}
)

// judgeStripe reads Stripe's own codes; its messages are left alone, since they may repeat the address.
func judgeStripe(a answer, e *signup.Error) {
	var body struct {
		Error struct{ Type, Code string }
	}
	_ = json.Unmarshal(a.body, &body) // any other body than Stripe's says nothing, and the status is enough
	kind, word := body.Error.Type, body.Error.Code
	for _, w := range []string{kind, word} {
		if stripeWord.MatchString(w) {
			e.Detail = "stripe: " + w
		}
	}
	switch {
	case word == "lock_timeout":
		e.Class, e.Code = signup.Transient, "conflict"
	case word == "resource_missing" && a.status == http.StatusNotFound:
		e.Class, e.Code = signup.Transient, codeMissing
	case kind == "idempotency_error" && a.status == http.StatusBadRequest:
		e.Class, e.Code = signup.Transient, codeOtherBody
	case a.status >= 500 && a.header.Get("Idempotent-Replayed") == "true":
		e.Code = codeReplayed
	case a.status == http.StatusTooManyRequests:
		if reason := a.header.Get("Stripe-Rate-Limited-Reason"); slices.Contains(rateReasons, reason) {
			e.Detail = "stripe: " + reason
		}
	case a.status == http.StatusNotFound:
		// There is no such path: the URL is not Stripe's.
		e.Class, e.Code = signup.Systemic, "not-found"
	case e.Class == signup.Permanent && a.header.Get("Stripe-Should-Retry") == "true":
		e.Class = signup.Transient
	}
}
