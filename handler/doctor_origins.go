package main

import (
	"context"
	"slices"
	"strings"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

// examineOrigins says what signups asks for that does not exist in a tenant of that kind, or not without something else;
// nothing where all is well. Of a kind that nobody knows it says only what entitlement management answers.
func (p *patient) examineOrigins(ctx context.Context, kind entra.TenantKind) []finding {
	const file = "In signup-sync.yaml: "
	s := p.app.config.Signups
	var all []finding
	if !slices.Contains(s.Origins, signup.Invitation) && (s.Guests == "invited" || s.Entitlement) {
		all = append(all, warn("guests", file+"add invitation to signups.origins, or take out signups.guests and signups.entitlement.",
			"signups says how guests are treated, and signups.origins leaves all of them out"))
	}
	var never []string
	for _, origin := range s.Origins {
		if kind != "" && !occurs(origin, kind) {
			never = append(never, string(origin))
		}
	}
	switch standard := slices.Equal(s.Origins, defaultOrigins); {
	case len(never) > 0 && len(never) == len(s.Origins):
		all = append(all, fail("origins", file+"signups: { origins: [selfService] }", "nobody gets into %s tenant by %s, and signups.origins has nothing else", kindWords[kind], strings.Join(never, " or ")))
	case len(never) > 0 && !standard:
		all = append(all, warn("origins", file+"take it out of signups.origins.", "nobody gets into %s tenant by %s", kindWords[kind], strings.Join(never, " or ")))
	}
	switch {
	case !s.Entitlement:
	case kind != entra.WorkforceTenant && kind != "":
		all = append(all, fail("entitlement", file+"take out signups.entitlement.", "it is %s tenant, which has no entitlement management to ask about guests", kindWords[kind]))
	default: // of a user whom there cannot be
		if _, err := p.app.tenant.Requested(ctx, signup.User{ID: "00000000-0000-0000-0000-000000000000"}); err != nil {
			all = append(all, p.unanswered(ctx, "entitlement", "EntitlementManagement.", err)...)
		}
	}
	return all
}

// defaultOrigins are those of a configuration that names none; in each kind of tenant one of them can be.
var defaultOrigins = []signup.Origin{signup.SelfService, signup.EmailVerified}

// occurs reports that people can get into a tenant of that kind so. Of Azure AD B2C it is the same as of its successor.
func occurs(origin signup.Origin, kind entra.TenantKind) bool {
	if kind == entra.B2CTenant {
		kind = entra.ExternalTenant
	}
	return slices.ContainsFunc(signup.Cases, func(c signup.Case) bool { return c.Origin == origin && strings.Contains(c.Tenants, string(kind)) })
}
