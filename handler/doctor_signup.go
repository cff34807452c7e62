package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"signup-sync/handler/entra"
	"signup-sync/handler/identity"
	"signup-sync/handler/signup"
)

// What is here is asked with the login of the person who runs the doctor: the app should not be allowed to read it.

// errInAzure is why nobody can be asked as a person.
type errInAzure struct{}

func (errInAzure) Error() string { return "the doctor runs in Azure, where there is no person" }

// asPerson is the tenant as the operator's own login sees it.
func (p *patient) asPerson(ctx context.Context) (*entra.Tenant, error) {
	return p.person.get(ctx, func(context.Context) (*entra.Tenant, error) {
		if p.getenv("IDENTITY_ENDPOINT") != "" {
			return nil, errInAzure{}
		}
		login, err := identity.Operator(p.app.env.Tenant)
		if err != nil {
			return nil, err
		}
		return entra.Open(entra.Options{GraphURL: p.app.env.Graph, Credential: login, HTTP: p.app.http, Clock: p.app.env.Clock})
	})
}

// asOperator says how the person's login comes to be asked.
func asOperator(p *patient) string {
	if p.getenv("IDENTITY_ENDPOINT") != "" {
		return "or run the doctor on your own machine, with\n" + p.login() + "\n" + backToSubscription
	}
	return "or\n" + p.login() + "\n" + backToSubscription
}

// login is the command that logs a person in to the tenant.
func (p *patient) login() string {
	return fmt.Sprintf("az login --tenant %s --allow-no-subscriptions", p.app.env.Tenant)
}

// organized is the tenant's own object, as the app sees it, or with the person's login where that sees more.
func (p *patient) organized(ctx context.Context) (entra.Organization, error) {
	return p.organization.get(ctx, func(ctx context.Context) (entra.Organization, error) {
		o, err := p.object.get(ctx, p.app.tenant.Organization)
		if err != nil || o.Kind != "" {
			return o, err
		}
		if tenant, err := p.asPerson(ctx); err == nil {
			if more, err := tenant.Organization(ctx); err == nil {
				return more, nil
			}
		}
		return o, nil
	})
}

// kind is the tenant's, as far as anybody here may see it; "" if nobody may.
func (p *patient) kind(ctx context.Context) entra.TenantKind {
	o, err := p.organized(ctx)
	if err != nil {
		return ""
	}
	return o.Kind
}

// unseen is a line that the person's login does not bring.
func (p *patient) unseen(ctx context.Context, name, fix, why string, err error) []finding {
	if _, e := p.grant(ctx); e == nil && passing(err) {
		if e := p.silence(ctx); e != nil {
			return []finding{silent(name, e)}
		}
	}
	return []finding{notAsked(name, fix+"; "+asOperator(p), why+" (%s)", reasonOf(err))}
}

// examineSignUpPolicy reads the tenant's authorization policy, which is about people with a work or school address, and
// not about user flows.
func examineSignUpPolicy(ctx context.Context, p *patient) []finding {
	const name, steps = "sign-up policy", "bin/handler policy, which logs you in with what it takes"
	tenant, err := p.asPerson(ctx)
	var policy entra.SignUpPolicy
	if err == nil {
		policy, err = tenant.SignUpPolicy(ctx)
	}
	if err != nil {
		return p.unseen(ctx, name, steps, "it takes a login of yours that may read it, which the app should not have", err)
	}
	origins := p.app.config.Signups.Origins
	var guests []finding
	if why := inviteContradiction(origins, policy); why != "" {
		guests = []finding{warn("invitations", "Entra admin center > External Identities > External collaboration settings > Guest invite settings\nor, in signup-sync.yaml: take invitation out of signups.origins", "%s", why)}
	}
	switch why := contradiction(origins, policy, p.kind(ctx)); {
	case why == "":
		return append([]finding{good(name, "%s can sign up with a work or school address; invitations come from %s", selfServiceWords[policy.SelfService()], policy.InvitesFrom)}, guests...)
	case policy.SelfService() == "anyone":
		return append([]finding{warn(name, "In signup-sync.yaml: add emailVerified to signups.origins, or close it:\nbin/handler policy set --email-verified=off --yes", "%s", why)}, guests...)
	default:
		return append([]finding{warn(name, "In signup-sync.yaml: take emailVerified out of signups.origins, or open it:\nbin/handler policy set --email-subscriptions=on --email-verified=on --yes", "%s", why)}, guests...)
	}
}

// examineUserFlows reads which user flows let people sign up, and what they ask them.
func examineUserFlows(ctx context.Context, p *patient) []finding {
	const name, steps = "user flows", "Entra admin center > External Identities > User flows"
	tenant, err := p.asPerson(ctx)
	var flows []entra.UserFlow
	if err == nil {
		flows, err = tenant.UserFlows(ctx)
	}
	if err != nil {
		return p.unseen(ctx, name, steps+"\nor bin/handler policy, which logs you in with what it takes", "it takes a login of yours that may read them, which the app should not have", err)
	}
	var open []string
	collected := map[string]bool{}
	for _, f := range flows {
		if f.SignUpAllowed {
			open = append(open, f.Name)
			for _, a := range f.Attributes {
				collected[strings.ToLower(a.Name)] = true
			}
		}
	}
	all := []finding{good(name, "people can sign up in %d of %d", len(open), len(flows))}
	if why := flowContradiction(p.app.config.Signups.Origins, flows, p.kind(ctx)); why != "" {
		fix := steps + " > New user flow"
		if len(flows) > 0 && len(open) == 0 {
			fix += "\nor open one that there is:\nbin/handler policy set --sign-up=on --flow='" + flows[0].ID + "' --yes"
		}
		if len(open) > 0 {
			fix = "In signup-sync.yaml: add selfService to signups.origins, or close the user flow:\nbin/handler policy set --sign-up=off --flow='NAME' --yes"
		}
		all[0] = warn(name, fix, "%s", why)
	}
	for _, attribute := range p.wanted() {
		if len(open) > 0 && !collected[strings.ToLower(attribute)] {
			all = append(all, warn("not collected "+attribute, fmt.Sprintf("%s > %s > User attributes > %s", steps, open[0], attribute),
				"no user flow asks for it, and expressions read it: it is empty unless something else fills it"))
		}
	}
	return all
}

// collectable are the members of user that a user flow can ask for (identityUserFlowAttribute, built-in ones).
var collectable = []string{"displayName", "givenName", "surname", "country", "city"}

// wanted is what expressions read of a user and a user flow can ask for, but for what this program writes itself.
func (p *patient) wanted() []string {
	profile := p.app.config.Profile
	fields, attributes := p.app.config.Mapping.Reads()
	fields = slices.DeleteFunc(fields, func(name string) bool {
		return !slices.Contains(collectable, name) || name == "displayName" && profile.DisplayName != ""
	})
	attributes = slices.DeleteFunc(attributes, func(name string) bool {
		kind, err := signup.ParseAttribute(name)
		return err != nil || kind != signup.CustomAttribute || profile.Attributes[name] != ""
	})
	return append(fields, attributes...)
}
