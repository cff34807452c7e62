package sim

import (
	"slices"
	"strings"
	"time"
)

// FederatedCredential says whose tokens an app takes for its own proof (docs: Workload identity federation). Of a managed
// identity the issuer is https://login.microsoftonline.com/TENANT/v2.0, the subject the identity's object id.
type FederatedCredential struct {
	Issuer   string
	Subject  string
	Audience string // "" = api://AzureADTokenExchange
}

// The resource for which an identity's token is an assertion, and its id, which is what such a token has as its audience.
const (
	resourceExchange = "api://AzureADTokenExchange"
	exchangeID       = "fb60f99c-7a34-4190-8149-302f77469936"
)

// entraIssuer begins the issuers that are tenants of Entra.
const entraIssuer = "https://login.microsoftonline.com/"

// checkFederated verifies another issuer's token. Only a simulated managed identity's can be verified; what is said of one
// whose signature is wrong is not published.
//
// A tenant of Entra is no issuer for an app that is registered in another one, and so an app that is registered in the
// external tenant cannot trust the identity of a subscription, which is elsewhere (docs: Configure an application to trust
// a managed identity).
func (e *Entra) checkFederated(app App, assertion string, claims assertionClaims) *aadsts {
	home := app.Home
	setDefault(&home, e.o.Tenant)
	tenant, ofEntra := strings.CutPrefix(claims.Issuer, entraIssuer)
	presented := claims.Audience
	if presented == exchangeID {
		presented = resourceExchange
	}
	const check = "'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
	none := func(code int, what, value string) *aadsts {
		return refuseClient(code, "No matching federated identity record found for presented assertion "+what+" '"+value+check)
	}
	left := app.Federated
	keep := func(f func(FederatedCredential) bool) bool {
		left = slices.DeleteFunc(slices.Clone(left), func(c FederatedCredential) bool { return !f(c) })
		return len(left) > 0
	}
	switch {
	case len(left) == 0:
		return refuseClient(70025, "The client '"+app.ID+"'(signup-sync) has no configured federated identity credentials.")
	case ofEntra && tenant != home+"/v2.0":
		return refuseClient(700236, "Entra ID tokens issued by issuer <"+claims.Issuer+"> may not be used for federated identity credential flows for applications or managed identities registered in this tenant.")
	case !keep(func(c FederatedCredential) bool { return c.Issuer == claims.Issuer }):
		return none(700211, "issuer", claims.Issuer)
	case !keep(func(c FederatedCredential) bool { return c.audience() == presented }):
		return none(700212, "audience", presented)
	case !slices.ContainsFunc(left, func(c FederatedCredential) bool { return strings.EqualFold(c.Subject, claims.Subject) }):
		return none(700213, "subject", claims.Subject)
	case !keep(func(c FederatedCredential) bool { return c.Subject == claims.Subject }):
		return refuseClient(7002138, "No matching federated identity record found for presented assertion subject '"+claims.Subject+
			"'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion.")
	}
	if _, err := readToken("Bearer "+assertion, time.Time{}); err != nil {
		return refuseClient(50013, "Assertion failed signature validation. [Reason - The key was not found.]")
	}
	return checkTimes(claims, e.o.Clock.Now()) // by which the token was made
}

func (c FederatedCredential) audience() string {
	setDefault(&c.Audience, resourceExchange)
	return c.Audience
}
