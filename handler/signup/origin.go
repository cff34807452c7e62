package signup

import (
	"cmp"
	"strings"
)

// Way is how exactly a user got into the tenant, within an origin: a finer word, for rules and for people.
type Way string

const (
	ByUserFlow    Way = "userFlow"      // signed up, with an e-mail address
	ByFederation  Way = "federated"     // signed up, with an account at an identity provider
	ByEmail       Way = "emailVerified" // joined a workforce tenant with a verified e-mail address
	ByInvitation  Way = "invitation"    // was invited
	ByEntitlement Way = "entitlement"   // asked for an access package, and was let in for it
	ByAdmin       Way = "admin"         // was made by a person or an app
	ByMigration   Way = "migration"     // was imported from another directory of customers
)

// Proof is what is known of a user beside the profile, which does not tell these.
type Proof struct {
	Migrated  bool // signups.migrated says so
	Requested bool // entitlement management has a request for an access package that brought the account into being
}

// Case is one of the ways into a tenant, with its evidence. Classify takes the first that fits, and docs/origins.md shows
// them all.
type Case struct {
	Origin   Origin
	Way      Way
	Who      string // of whom it speaks
	Tenants  string // where it can happen
	Evidence string // by what it is told
	fits     func(u User, p Proof, s signs) bool
}

// Cases are all ways, in the order in which they are tried. The generated user principal name decides nothing on its own
// where there is other evidence: our own patch replaces it, and so may others.
var Cases = []Case{
	{EmailVerified, ByEmail, "people who joined by themselves with an e-mail address of a verified domain", "workforce",
		"`creationType` is `EmailVerified`",
		func(u User, _ Proof, _ signs) bool { return u.CreationType == "EmailVerified" }},
	{SelfService, ByFederation, "guests who signed up through a user flow, with their account elsewhere", "workforce",
		"`creationType` is `SelfServiceSignUp`, and an identity is federated",
		func(u User, _ Proof, s signs) bool { return u.CreationType == "SelfServiceSignUp" && s.federated }},
	{SelfService, ByUserFlow, "guests who signed up through a user flow, with an e-mail address", "workforce",
		"`creationType` is `SelfServiceSignUp`, and no identity is federated",
		func(u User, _ Proof, _ signs) bool { return u.CreationType == "SelfServiceSignUp" }},
	{Invitation, ByEntitlement, "guests whom an approved request for an access package let in", "workforce",
		"an invitation as below; and, with `signups.entitlement`, entitlement management has a request of theirs from before the account was there",
		func(u User, p Proof, s signs) bool { return s.invited && p.Requested }},
	{Invitation, ByInvitation, "guests who were invited", "external (by administrators), workforce",
		"`creationType` is `Invitation`, or a guest's user principal name has `#EXT#`; `externalUserState` is `PendingAcceptance` until they accept",
		func(_ User, _ Proof, s signs) bool { return s.invited }},
	{Admin, ByMigration, "customers who were imported", "external",
		"not a guest; and `signups.migrated` is true of them",
		func(_ User, p Proof, s signs) bool { return !s.guest && p.Migrated }},
	{SelfService, ByUserFlow, "customers who signed up with an e-mail address; also those who were imported, where `signups.migrated` does not tell", "external",
		"not a guest; an identity is `emailAddress` or `userName`",
		func(_ User, _ Proof, s signs) bool { return !s.guest && s.local }},
	{SelfService, ByFederation, "customers who signed up with a social account, or one of another identity provider", "external",
		"not a guest; an identity is federated, and none is `emailAddress`",
		func(_ User, _ Proof, s signs) bool { return !s.guest && s.federated }},
	{Admin, ByAdmin, "people whom an administrator or an app made", "external, workforce",
		"not a guest; no `creationType`, the only identity is the user principal name, and that is not the user's id",
		func(u User, _ Proof, s signs) bool {
			return !s.guest && u.CreationType == "" && len(u.Identities) > 0 && s.other == 0 && !u.HasGeneratedUPN()
		}},
}

// Classify tells how a user got into the tenant, with the evidence for it in words that name no person. The audit
// record's actor is no evidence: nobody documents who it is for a sign-up in an external tenant. Where nothing fits, the
// origin is Unknown and there is no way.
//
// A customer made through Graph with an e-mail identity looks like one who signed up alone: without a Proof it is one.
func Classify(u User, p Proof) (Origin, Way, string) {
	s := signsOf(u)
	evidence := s.evidence(u)
	for _, c := range Cases {
		if !c.fits(u, p, s) {
			continue
		}
		switch c.Way {
		case ByEntitlement:
			evidence += " request=approved"
		case ByMigration:
			evidence += " rule=signups.migrated"
		}
		return c.Origin, c.Way, evidence
	}
	return Unknown, "", evidence
}

// signs are what a profile says of its user's origin.
type signs struct {
	local     bool // signs in with an e-mail address or a name of this tenant
	federated bool
	other     int // identities of a kind that is not known
	guest     bool
	external  bool // by the user principal name
	invited   bool
}

func signsOf(u User) (s signs) {
	for _, id := range u.Identities {
		switch strings.ToLower(id.SignInType) {
		case "emailaddress", "username":
			s.local = true
		case "federated":
			s.federated = true
		case "userprincipalname":
		default:
			s.other++
		}
	}
	s.guest = strings.EqualFold(u.UserType, "Guest")
	s.external = strings.Contains(u.UserPrincipalName, "#EXT#")
	s.invited = u.CreationType == "Invitation" || s.guest && s.external
	return s
}

func (s signs) evidence(u User) string {
	text := "creationType=" + cmp.Or(u.CreationType, "none") + " userType=" + cmp.Or(u.UserType, "none")
	if u.ExternalUserState != "" {
		text += " externalUserState=" + u.ExternalUserState
	}
	switch {
	case s.local && u.IdentityProvider() == "userName":
		text += " identity=userName"
	case s.local:
		text += " identity=emailAddress"
	case s.federated:
		text += " identity=federated provider=" + safe(u.IdentityProvider())
	case s.other > 0: // of a kind that is not known: its name may be anything
		text += " identity=other"
	case len(u.Identities) > 0:
		text += " identity=userPrincipalName"
	}
	if u.HasGeneratedUPN() {
		text += " upn=id"
	} else if s.external {
		text += " upn=#EXT#"
	}
	return text
}

// safe is an issuer that can be nobody's address.
func safe(issuer string) string {
	const most = 100
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".:/_-", c))
	}
	if issuer == "" || len(issuer) > most || strings.ContainsFunc(issuer, odd) {
		return "other"
	}
	return issuer
}

// NotRedeemed reports that the user was invited and has not accepted yet.
func (u User) NotRedeemed() bool { return strings.EqualFold(u.ExternalUserState, "PendingAcceptance") }

// IdentityProvider is where the user proves who they are: "email" and "userName" for what the tenant itself asks for,
// else the issuer as Graph writes it, such as google.com or ExternalAzureAD; "" for an account of the tenant that is
// known by its user principal name alone, and for a guest who has not been here yet.
func (u User) IdentityProvider() string {
	issuer, name := "", ""
	for _, id := range u.Identities {
		switch strings.ToLower(id.SignInType) {
		case "emailaddress":
			return "email"
		case "username":
			name = "userName"
		case "federated":
			if issuer == "" {
				issuer = id.Issuer
			}
		}
	}
	if strings.EqualFold(issuer, "mail") { // a guest with a one-time passcode (user properties in B2B collaboration)
		issuer = "email"
	}
	return cmp.Or(name, issuer)
}

// OriginText is the row's origin, with the way where that says more.
func (r Row) OriginText() string {
	if r.Way == "" || string(r.Way) == string(r.Origin) {
		return string(r.Origin)
	}
	return string(r.Origin) + " (" + string(r.Way) + ")"
}
