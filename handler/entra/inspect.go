package entra

import (
	"context"
	"time"

	"signup-sync/handler/signup"
)

// What is here looks at the tenant for a person who wants to know whether it fits the configuration. It changes nothing,
// asks little, and is no part of a run. All of it works with any credential that Options name: what the app should not be
// allowed to read, a second Tenant with the credential of a person or of another app reads.
//
// Every error is an *signup.Error that says what to do, or ctx's.

// Grant is what a token says of itself.
type Grant struct {
	Tenant string   `json:"tenant"`           // the tenant that it is for, a GUID in lower case
	Client string   `json:"client"`           // the app that has asked for it
	Roles  []string `json:"roles,omitempty"`  // application permissions, sorted
	Scopes []string `json:"scopes,omitempty"` // the permissions of a person's login, sorted; an app's own token has none
}

// Grant gets a token for Graph and reads what it says, without verifying it: that is Graph's business. The token itself
// goes nowhere. Microsoft promises nobody but Graph the form of these tokens: one that cannot be read has the code
// "token-unreadable".
func (t *Tenant) Grant(ctx context.Context) (Grant, error) { return Grant{}, nil }

// TenantKind is what a tenant is for.
type TenantKind string

const (
	ExternalTenant  TenantKind = "external"  // Microsoft Entra External ID, for customers
	WorkforceTenant TenantKind = "workforce" // for employees and their guests
	B2CTenant       TenantKind = "b2c"       // Azure AD B2C, the predecessor of External ID
)

// Organization is the tenant's own object.
type Organization struct {
	ID      string     `json:"id"`             // the tenant's id
	Kind    TenantKind `json:"kind,omitempty"` // "" = not known: Graph shows it to nobody without Organization.Read.All
	Type    string     `json:"type,omitempty"` // what Graph calls the kind: CIAM, AAD, AAD B2C
	Domains []string   `json:"domains"`        // verified
}

// Organization reads the tenant's own object.
func (t *Tenant) Organization(ctx context.Context) (Organization, error) { return Organization{}, nil }

// AuditState is what the audit log has.
type AuditState struct {
	Newest time.Time `json:"newest,omitzero"` // of the newest record; zero = the log has none of the time for which it should be kept
	Kept   bool      `json:"kept"`            // there are records of the first day of Options.AuditRetention, or older ones; false also in a tenant that is younger
}

// AuditState reads from the audit log, at most four records.
func (t *Tenant) AuditState(ctx context.Context) (AuditState, error) { return AuditState{}, nil }

// SignUpPolicy is what the tenant's authorization policy says of people who sign themselves up with a work or school
// address. It is not about user flows, whose own switch is UserFlow.SignUpAllowed.
type SignUpPolicy struct {
	EmailSubscriptions bool   `json:"emailSubscriptions"` // allowedToSignUpEmailBasedSubscriptions
	EmailVerifiedJoin  bool   `json:"emailVerifiedJoin"`  // allowEmailVerifiedUsersToJoinOrganization
	InvitesFrom        string `json:"invitesFrom"`        // allowInvitesFrom: none, adminsAndGuestInviters, adminsGuestInvitersAndAllMembers, everyone
}

// SelfService says who can sign up that way: "anyone" with a mailbox in a verified domain, "existing" users for further
// services only, or "nobody".
func (p SignUpPolicy) SelfService() string {
	switch {
	case !p.EmailSubscriptions:
		return "nobody"
	case p.EmailVerifiedJoin:
		return "anyone"
	}
	return "existing"
}

// SignUpPolicy reads the tenant's authorization policy. It needs Policy.Read.All, which the app should not have.
func (t *Tenant) SignUpPolicy(ctx context.Context) (SignUpPolicy, error) { return SignUpPolicy{}, nil }

// UserFlow is a user flow of an external tenant.
type UserFlow struct {
	ID                string          `json:"id"`
	Name              string          `json:"name"`
	SignUpAllowed     bool            `json:"signUpAllowed"`
	UserType          string          `json:"userType,omitempty"` // of the users that it makes: member or guest; "" = the flow does not say
	Attributes        []FlowAttribute `json:"attributes"`
	IdentityProviders []string        `json:"identityProviders"` // their types: EmailPassword, EmailOTP, Google, …
}

// FlowAttribute is an attribute that a user flow collects.
type FlowAttribute struct {
	Name   string               `json:"name"`           // of a custom attribute the short name, as the configuration has it
	Type   signup.AttributeType `json:"type,omitempty"` // "" = none of those that expressions can use
	Custom bool                 `json:"custom,omitempty"`
}

// UserFlows reads the tenant's user flows for sign-up. It needs EventListener.Read.All, which the app should not have.
func (t *Tenant) UserFlows(ctx context.Context) ([]UserFlow, error) { return nil, nil }

// AttributeTypes reads the tenant's custom attributes, all of them, by short name; "" is a type that expressions cannot
// use. Directory extensions of other apps are not among them. It needs Application.Read.All, which the app has only where
// it looks up the attributes' names.
func (t *Tenant) AttributeTypes(ctx context.Context) (map[string]signup.AttributeType, error) {
	return nil, nil
}

// Skew asks Graph for the time and returns how far this machine's clock is ahead of it, negative if it is behind: as far
// as that is certain, since Graph tells the time to the second and an answer takes its time. An answer that refuses
// something tells the time as well.
func (t *Tenant) Skew(ctx context.Context) (time.Duration, error) { return 0, nil }
