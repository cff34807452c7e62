package entra

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/organization"

	"signup-sync/handler/signup"
)

// upnDomain is the domain that user principal names are to have. Graph refuses one that is not verified for every user,
// as if their names were wrong; so the tenant is asked, once, before the first is written.
type upnDomain struct {
	name     string        // "" = none is configured
	turn     chan struct{} // one asks at a time
	verified atomic.Bool
}

// verifyDomain makes sure that the tenant has verified the configured domain, if there is one. An error is not
// remembered: a domain may be verified at any time.
func (t *Tenant) verifyDomain(ctx context.Context) error {
	d := &t.domain
	if d.name == "" || d.verified.Load() {
		return nil
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if d.verified.Load() { // the one before has asked
		return nil
	}
	domains, err := t.verifiedDomains(ctx)
	if err != nil {
		return fmt.Errorf("read the tenant's verified domains: %w", err)
	}
	if !slices.ContainsFunc(domains, func(name string) bool { return strings.EqualFold(name, d.name) }) {
		return &signup.Error{
			Class: signup.Systemic, Code: "domain-unverified",
			Detail: clip("the tenant has no verified domain "+d.name) + "; verify it under Custom domain names, or change profile.userPrincipalNameDomain",
		}
	}
	d.verified.Store(true)
	return nil
}

// verifiedDomains asks the tenant's own object, of which there is one (List organization).
func (t *Tenant) verifiedDomains(ctx context.Context) ([]string, error) {
	var names []string
	builder := organization.NewOrganizationRequestBuilderInternal(t.client.path(), t.client.adapter)
	err := t.client.do(ctx, request{
		kind: profileCall, // needs the same permission
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return builder.ToGetRequestInformation(ctx, &organization.OrganizationRequestBuilderGetRequestConfiguration{
				QueryParameters: &organization.OrganizationRequestBuilderGetQueryParameters{Select: []string{"verifiedDomains"}},
			})
		},
		decode: func(d *decoder) error {
			names = nil
			_, err := decodePage(d, func(d *decoder) error {
				var tenant struct {
					VerifiedDomains []struct {
						Name string `json:"name"`
					} `json:"verifiedDomains"`
				}
				if err := d.value(&tenant); err != nil {
					return err
				}
				for _, v := range tenant.VerifiedDomains {
					names = append(names, v.Name)
				}
				return nil
			})
			if err == nil && len(names) == 0 { // every tenant has its initial one
				return badPage("the answer has no verified domains")
			}
			return err
		},
	})
	return names, err
}
