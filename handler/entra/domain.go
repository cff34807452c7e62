package entra

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

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

// verifiedDomains asks the tenant's own object; for its domains the permission to read users is enough.
func (t *Tenant) verifiedDomains(ctx context.Context) ([]string, error) {
	o, err := t.organization(ctx, profileCall, "verifiedDomains")
	if err == nil && len(o.Domains) == 0 { // every tenant has its initial one
		err = &signup.Error{Class: signup.Transient, Code: "bad-answer", Detail: "the answer has no verified domains"}
	}
	return o.Domains, err
}
