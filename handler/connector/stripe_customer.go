package connector

import (
	"context"
	"iter"
	"net/http"

	"github.com/stripe/stripe-go/v85"
	"github.com/stripe/stripe-go/v85/form"
)

// stripeCustomer is what is looked at of a customer. From the SDK's own type all of Stripe can be reached: it would all be in
// the binary, and encoding/json, which never forgets a type, would keep 2.5 MB about it from the first answer on.
type stripeCustomer struct {
	stripe.APIResource `json:"-"`

	ID       string            `json:"id"`
	Created  int64             `json:"created"`
	Deleted  bool              `json:"deleted"`
	Email    string            `json:"email"`
	Metadata map[string]string `json:"metadata"`
}

// stripePage is one of a list or of a search.
type stripePage struct {
	stripe.APIResource `json:"-"`

	Data []*stripeCustomer `json:"data"`
	More bool              `json:"has_more"`
	Next *string           `json:"next_page"` // of a search
}

// stripeCustomers makes the SDK's calls of customers.
type stripeCustomers struct {
	backend stripe.Backend
	key     string
}

const customersPath = "/v1/customers"

func (s stripeCustomers) create(ctx context.Context, p *stripe.CustomerCreateParams) (*stripeCustomer, error) {
	p.Context = ctx
	made := &stripeCustomer{}
	return made, outcome(ctx, s.backend.Call(http.MethodPost, customersPath, s.key, p, made))
}

func (s stripeCustomers) retrieve(ctx context.Context, id string) (*stripeCustomer, error) {
	p := &stripe.CustomerRetrieveParams{}
	p.Context = ctx
	got := &stripeCustomer{}
	return got, outcome(ctx, s.backend.Call(http.MethodGet, stripe.FormatURLPath(customersPath+"/%s", id), s.key, p, got))
}

func (s stripeCustomers) update(ctx context.Context, id string, p *stripe.CustomerUpdateParams) (*stripeCustomer, error) {
	p.Context = ctx
	got := &stripeCustomer{}
	return got, outcome(ctx, s.backend.Call(http.MethodPost, stripe.FormatURLPath(customersPath+"/%s", id), s.key, p, got))
}

// list yields all customers that p asks for. An error is the last thing yielded.
func (s stripeCustomers) list(ctx context.Context, p *stripe.CustomerListParams) iter.Seq2[*stripeCustomer, error] {
	p.Context = ctx
	return s.pages(ctx, customersPath, p, func(page stripePage) bool {
		p.StartingAfter = stripe.String(page.Data[len(page.Data)-1].ID)
		return page.More && !p.Single
	})
}

// search yields all customers that p finds. An error is the last thing yielded.
func (s stripeCustomers) search(ctx context.Context, p *stripe.CustomerSearchParams) iter.Seq2[*stripeCustomer, error] {
	p.Context = ctx
	return s.pages(ctx, customersPath+"/search", p, func(page stripePage) bool {
		p.Page = page.Next
		return page.More && !p.Single
	})
}

// pages reads pages, none of them empty that says there are more (isStripes), while next says that there is one and has
// made p ask for it.
func (s stripeCustomers) pages(ctx context.Context, path string, p stripe.ParamsContainer, next func(stripePage) bool) iter.Seq2[*stripeCustomer, error] {
	return func(yield func(*stripeCustomer, error) bool) {
		for {
			var page stripePage
			query := &form.Values{}
			form.AppendTo(query, p)
			if err := outcome(ctx, s.backend.CallRaw(http.MethodGet, path, s.key, []byte(query.Encode()), p.GetParams(), &page)); err != nil {
				yield(nil, err)
				return
			}
			for _, x := range page.Data {
				if x == nil {
					yield(nil, errAnswer)
					return
				}
				if !yield(x, nil) {
					return
				}
			}
			if len(page.Data) == 0 || !next(page) {
				return
			}
		}
	}
}
