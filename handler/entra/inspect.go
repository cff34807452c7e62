package entra

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/auditlogs"

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
	Object string   `json:"object,omitempty"` // who it is for: the object id of the app, or of the person who has logged in
	Roles  []string `json:"roles,omitempty"`  // application permissions, sorted
	Scopes []string `json:"scopes,omitempty"` // the permissions of a person's login, sorted; an app's own token has none
}

// Grant gets a token for Graph and reads what it says, without verifying it: that is Graph's business. The token itself
// goes nowhere. Microsoft promises nobody but Graph the form of these tokens: one that cannot be read has the code
// "token-unreadable".
func (t *Tenant) Grant(ctx context.Context) (Grant, error) {
	token, err := t.client.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{t.client.scope}})
	if err != nil {
		return Grant{}, fmt.Errorf("get a token: %w", cmp.Or(ctx.Err(), noToken(err)))
	}
	var claims struct {
		Tenant string   `json:"tid"`
		AppID  string   `json:"appid"`
		Azp    string   `json:"azp"` // what newer tokens call it
		Object string   `json:"oid"`
		Roles  []string `json:"roles"`
		Scopes string   `json:"scp"`
	}
	_, rest, _ := strings.Cut(token.Token, ".")
	middle, _, _ := strings.Cut(rest, ".")
	body, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(middle, "="))
	if err == nil && json.Unmarshal(body, &claims) == nil && claims.Tenant != "" {
		slices.Sort(claims.Roles)
		return Grant{Tenant: strings.ToLower(claims.Tenant), Client: strings.ToLower(cmp.Or(claims.AppID, claims.Azp)), Object: strings.ToLower(claims.Object),
			Roles: claims.Roles, Scopes: slices.Sorted(strings.FieldsSeq(claims.Scopes))}, nil
	}
	return Grant{}, &signup.Error{Class: signup.Permanent, Code: "token-unreadable",
		Detail: "the token does not show its permissions; look at them in the app registration, under API permissions"}
}

// AuditState is what the audit log has.
type AuditState struct {
	Newest time.Time `json:"newest,omitzero"` // of the newest record; zero = there is none as young as Options.AuditRetention
	Kept   bool      `json:"kept"`            // there are records of the first seventh of Options.AuditRetention, or older ones; false also in a tenant that is younger, or where nothing happened
}

// AuditState reads at most four records of the audit log. That it shows the newest first is not documented, though in
// every sample: where it does not, Newest is too old, by an hour at most while there are records of the last hour.
func (t *Tenant) AuditState(ctx context.Context) (AuditState, error) {
	var s AuditState
	now, keep := t.client.clock.Now(), t.audit.retention
	for _, back := range []time.Duration{time.Hour, 24 * time.Hour, keep} {
		if !s.Newest.IsZero() {
			break
		}
		var err error
		if s.Newest, err = t.audit.first(ctx, "ge", now.Add(-back)); err != nil {
			return AuditState{}, err
		}
	}
	oldest, err := t.audit.first(ctx, "le", now.Add(-keep+keep/7))
	if err != nil {
		return AuditState{}, err
	}
	s.Kept = !oldest.IsZero()
	return s, nil
}

// first is the time of the first record that is shown of those from a time on ("ge"), or up to it ("le"); zero if there is
// none in the first pages, which may be empty.
func (a *audit) first(ctx context.Context, operator string, when time.Time) (time.Time, error) {
	top, pages := int32(1), 0
	filter := "activityDateTime " + operator + " " + when.UTC().Format(instant)
	var at time.Time
	err := a.tenant.client.read(ctx, collection{
		request: request{kind: auditCall, info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return a.tenant.client.audits().ToGetRequestInformation(ctx, &auditlogs.DirectoryAuditsRequestBuilderGetRequestConfiguration{
				QueryParameters: &auditlogs.DirectoryAuditsRequestBuilderGetQueryParameters{Filter: &filter, Top: &top},
			})
		}},
		next: func(ctx context.Context, link string) (*abstractions.RequestInformation, error) {
			return a.tenant.client.audits().WithUrl(link).ToGetRequestInformation(ctx, nil)
		},
		each: func(d *decoder) error {
			var r struct {
				At time.Time `json:"activityDateTime"`
			}
			if err := d.value(&r); err != nil {
				return err
			}
			if at.IsZero() {
				at = r.At.UTC()
			}
			return nil
		},
		page: func(start bool) bool {
			if start {
				at = time.Time{}
				return true
			}
			pages++
			return at.IsZero() && pages < 3
		},
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("read the audit log: %w", err)
	}
	return at, nil
}

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
func (t *Tenant) SignUpPolicy(ctx context.Context) (SignUpPolicy, error) {
	var g struct {
		Subscriptions *bool  `json:"allowedToSignUpEmailBasedSubscriptions"`
		Join          *bool  `json:"allowEmailVerifiedUsersToJoinOrganization"`
		Invites       string `json:"allowInvitesFrom"`
	}
	c := t.client
	err := c.do(ctx, request{
		kind: policyCall,
		info: c.direct(abstractions.GET, c.link("/policies/authorizationPolicy"), nil),
		decode: func(d *decoder) error {
			if err := d.whole(&g); err != nil {
				return err
			}
			if g.Subscriptions == nil || g.Join == nil {
				return badPage("the answer is no authorization policy")
			}
			return nil
		},
	})
	if err != nil {
		return SignUpPolicy{}, fmt.Errorf("read the authorization policy: %w", err)
	}
	return SignUpPolicy{EmailSubscriptions: *g.Subscriptions, EmailVerifiedJoin: *g.Join, InvitesFrom: g.Invites}, nil
}

// Skew asks Graph for the time and returns how far this machine's clock is ahead of it, negative if it is behind: as far
// as that is certain, since Graph tells the time to the second and an answer takes its time. An answer that refuses
// something tells the time as well.
func (t *Tenant) Skew(ctx context.Context) (time.Duration, error) {
	var asked, answered, date time.Time
	r := t.readOneUser()
	build := r.info
	r.info = func(ctx context.Context) (*abstractions.RequestInformation, error) {
		asked = t.client.clock.Now()
		return build(ctx)
	}
	r.served = func(at time.Time) { answered, date = t.client.clock.Now(), at }
	err := t.client.do(ctx, r)
	if date.IsZero() {
		return 0, fmt.Errorf("ask for the time: %w", cmp.Or(err, error(&signup.Error{
			Class: signup.Transient, Code: "bad-answer", Detail: "the answer does not say when it was given: does something stand between here and Graph?"})))
	}
	// Graph's time was at least date when it answered, and less than a second more.
	if ahead := asked.Sub(date.Add(time.Second)); ahead > 0 {
		return ahead, nil
	}
	return min(0, answered.Sub(date)), nil
}
