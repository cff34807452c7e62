package connector

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/stripe/stripe-go/v85"

	"signup-sync/handler/signup"
)

// errAnswer is the outcome of a 2xx answer that is not what Stripe answers: a proxy's page, a cut body.
var errAnswer = &signup.Error{Class: signup.Transient, Code: "not-understood", Detail: "the answer is not Stripe's"}

// lookUp finds the user's customer by everything that can show it; nil and no error means that there is none. Each
// look-up that fails is an error.
func (c *stripeConnector) lookUp(ctx context.Context, req signup.Request, params *stripe.CustomerCreateParams) (*stripeCustomer, error) {
	if customerID.MatchString(req.Known) {
		found, err := c.confirm(ctx, req.Known, req)
		if err != nil || found != nil {
			return found, err
		}
	}
	found, err := c.withEmail(ctx, req.Email, stripe.StringValue(params.Email))
	if err != nil {
		return nil, err
	}
	own := slices.DeleteFunc(found, func(x *stripeCustomer) bool { return !carries(x, req) })
	if len(own) > 0 {
		return c.oldest(req, own), nil
	}
	return c.search(ctx, req)
}

// confirm reads a customer by id; nil if there is none, or it was deleted, or it does not carry this user.
func (c *stripeConnector) confirm(ctx context.Context, id string, req signup.Request) (*stripeCustomer, error) {
	got, err := c.customers.retrieve(ctx, id)
	switch {
	case code(err) == codeMissing:
		return nil, nil
	case err != nil:
		return nil, err
	case got.ID != id:
		return nil, errAnswer
	case !carries(got, req):
		return nil, nil
	}
	return got, nil
}

// withEmail lists the customers that have one of these addresses. The filter is exact and case-sensitive, so each
// address is asked for as it is and in lower case.
func (c *stripeConnector) withEmail(ctx context.Context, addresses ...string) ([]*stripeCustomer, error) {
	var found []*stripeCustomer
	asked := map[string]bool{"": true}
	for _, a := range addresses {
		for _, email := range []string{a, strings.ToLower(a)} {
			if asked[email] {
				continue
			}
			asked[email] = true
			p := &stripe.CustomerListParams{Email: stripe.String(email)}
			p.Limit = stripe.Int64(100)
			for x, err := range c.customers.list(ctx, p) {
				if err != nil {
					return nil, err
				}
				found = append(found, x)
			}
		}
	}
	return found, nil
}

// search finds customers by metadata. The index is late, so that what it shows is read again.
func (c *stripeConnector) search(ctx context.Context, req signup.Request) (*stripeCustomer, error) {
	p := &stripe.CustomerSearchParams{}
	p.Query, p.Limit = searchFor(string(req.User)), stripe.Int64(100)
	var own []*stripeCustomer
	for x, err := range c.customers.search(ctx, p) {
		if err != nil {
			return nil, err
		}
		if !customerID.MatchString(x.ID) {
			return nil, errAnswer
		}
		live, err := c.confirm(ctx, x.ID, req)
		if err != nil {
			return nil, err
		}
		if live != nil {
			own = append(own, live)
		}
	}
	return c.oldest(req, own), nil
}

func searchFor(user string) string { return "metadata['" + metaUser + "']:'" + user + "'" }

// adoptByEmail links the only customer that has the user's verified address and is nobody's; nil if there is none, or
// more than one. Stripe has no conditional write, so the idempotency key, which is the customer's and not the user's,
// is the lock: of two users the second one's body is another and is refused, and when Stripe has forgotten the key the
// link of the first has long been there to see.
func (c *stripeConnector) adoptByEmail(ctx context.Context, req signup.Request) (*stripeCustomer, error) {
	found, err := c.withEmail(ctx, req.Email)
	if err != nil {
		return nil, err
	}
	var own, free []*stripeCustomer
	for _, x := range found {
		switch {
		case carries(x, req):
			own = append(own, x)
		case x.Metadata[metaUser] == "" && strings.EqualFold(x.Email, req.Email):
			free = append(free, x)
		}
	}
	if len(own) > 0 {
		return c.oldest(req, own), nil
	}
	if len(free) != 1 {
		return nil, nil
	}
	id := free[0].ID
	p := &stripe.CustomerUpdateParams{Metadata: map[string]string{metaUser: string(req.User), metaTenant: req.Tenant}}
	p.SetIdempotencyKey("ea1_adopt_" + id)
	linked, err := c.customers.update(ctx, id, p)
	if err == nil && isReplay(linked.LastResponse) {
		linked, err = c.confirm(ctx, id, req)
	}
	switch {
	case code(err) == codeOtherBody, err == nil && (linked == nil || !carries(linked, req)):
		return nil, &signup.Error{Class: signup.Transient, Code: "adoption-raced", Status: http.StatusConflict, Detail: "another user is being linked to this customer"}
	case err != nil:
		return nil, err
	}
	return linked, nil
}

// carries reports that a customer is this user's.
func carries(x *stripeCustomer, req signup.Request) bool {
	return !x.Deleted && strings.EqualFold(x.Metadata[metaUser], string(req.User)) && strings.EqualFold(x.Metadata[metaTenant], req.Tenant)
}

// oldest picks the customer to stay with, nil of none; more than one is said in the log, by id.
func (c *stripeConnector) oldest(req signup.Request, own []*stripeCustomer) *stripeCustomer {
	slices.SortFunc(own, func(a, b *stripeCustomer) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
	})
	own = slices.CompactFunc(own, func(a, b *stripeCustomer) bool { return a.ID == b.ID })
	if len(own) == 0 {
		return nil
	}
	if len(own) > 1 {
		ids := make([]string, 0, len(own))
		for _, x := range own {
			ids = append(ids, x.ID)
		}
		c.log.Warn("more than one customer carries this user; the oldest is taken", "user", req.User, "destination", req.Destination,
			"count", len(own), "customers", ids)
	}
	return own[0]
}

// isReplay reports that Stripe answered from what it has stored under the idempotency key.
func isReplay(r *stripe.APIResponse) bool {
	return r != nil && r.Header.Get("Idempotent-Replayed") == "true"
}

// outcome brings what the SDK returns to our errors. What the SDK says itself is not kept: it has the address in it.
func outcome(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return cancelled("call stripe", ctx.Err())
	}
	if e, ok := errors.AsType[*signup.Error](err); ok {
		return e
	}
	return errAnswer
}

// underSDK sends the SDK's requests through the one call. The status is judged here, since the SDK loses it when the
// body is not Stripe's, takes a redirect for an answer, and an empty object for an empty list.
type underSDK struct{ rest *rest }

func (t underSDK) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := t.rest.forward(r)
	if err != nil {
		return nil, err
	}
	if !isStripes(r, a.body) {
		return nil, errAnswer
	}
	return a.response(r), nil
}

// isStripes reports that a body is what this call answers when it goes well: a whole page or a customer. A page that says
// that there is more and has nothing, or does not say where it goes on, would be asked for again and again.
func isStripes(r *http.Request, body []byte) bool {
	var got struct {
		Object string             `json:"object"`
		Data   *[]json.RawMessage `json:"data"`
		More   *bool              `json:"has_more"`
		Next   *string            `json:"next_page"`
	}
	if json.Unmarshal(body, &got) != nil {
		return false
	}
	page := got.Data != nil && got.More != nil && (len(*got.Data) > 0 || !*got.More)
	switch {
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/v1/customers"):
		return got.Object == "list" && page
	case strings.HasSuffix(r.URL.Path, "/v1/customers/search"):
		return got.Object == "search_result" && page && (got.Next != nil || !*got.More)
	}
	return got.Object == "customer"
}

// silent is the SDK's logger: nothing of what it would say may be logged.
type silent struct{}

var _ stripe.LeveledLoggerInterface = silent{}

func (silent) Debugf(string, ...any) {}
func (silent) Infof(string, ...any)  {}
func (silent) Warnf(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
