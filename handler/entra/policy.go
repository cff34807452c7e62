package entra

import (
	"context"
	"fmt"
	"net/url"

	abstractions "github.com/microsoft/kiota-abstractions-go"
)

// SignUpChange is what is to become of the authorization policy's two switches; nil leaves one as it is.
type SignUpChange struct {
	EmailSubscriptions *bool `json:"allowedToSignUpEmailBasedSubscriptions,omitempty"`
	EmailVerifiedJoin  *bool `json:"allowEmailVerifiedUsersToJoinOrganization,omitempty"`
}

// ChangeSignUpPolicy changes the tenant's authorization policy. The same change once more does no harm. It needs a person's
// login with Policy.ReadWrite.Authorization and the role Privileged Role Administrator (Update authorizationPolicy).
func (t *Tenant) ChangeSignUpPolicy(ctx context.Context, change SignUpChange) error {
	c := t.client
	err := c.do(ctx, request{kind: policyChangeCall, info: c.direct(abstractions.PATCH, c.link("/policies/authorizationPolicy"), change)})
	if err != nil {
		return fmt.Errorf("change the authorization policy: %w", err)
	}
	return nil
}

// AllowSignUp opens a user flow for sign-up, or closes it, by its id. The same change once more does no harm. It needs a
// person's login with EventListener.ReadWrite.All and the role External ID User Flow Administrator (Update
// authenticationEventsFlow, which wants the type of each object).
func (t *Tenant) AllowSignUp(ctx context.Context, flow string, allowed bool) error {
	const kind = "#microsoft.graph."
	c := t.client
	err := c.do(ctx, request{kind: flowChangeCall, info: c.direct(abstractions.PATCH, c.link("/identity/authenticationEventsFlows/"+url.PathEscape(flow)), map[string]any{
		"@odata.type":                kind + "externalUsersSelfServiceSignUpEventsFlow",
		"onInteractiveAuthFlowStart": map[string]any{"@odata.type": kind + "onInteractiveAuthFlowStartExternalUsersSelfServiceSignUp", "isSignUpAllowed": allowed},
	})})
	if err != nil {
		return fmt.Errorf("change the user flow: %w", err)
	}
	return nil
}
