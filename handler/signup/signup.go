// Package signup has the nouns of the job and the interfaces between its parts: sign-up, user, association, ledger
// row, detector, directory, connector, ledger, and the classes of errors by which they tell each other what happened.
//
// It imports the standard library only; every other package may import it.
package signup

import (
	"fmt"
	"strings"
	"time"
)

// UserID is the object id of a user in the tenant: a GUID in lower case, 36 characters.
type UserID string

// ParseUserID takes a GUID in any letter case and refuses everything else.
func ParseUserID(s string) (UserID, error) {
	s = strings.ToLower(s)
	if len(s) != 36 {
		return "", fmt.Errorf("object id has %d characters, want a GUID of 36", len(s))
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return "", fmt.Errorf("object id has %q at %d, want '-'", c, i)
			}
		case !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f'):
			return "", fmt.Errorf("object id has %q at %d, want a hexadecimal digit", c, i)
		}
	}
	return UserID(s), nil
}

// Kind says what a detector saw.
type Kind string

const (
	Created  Kind = "created"  // a user came into being
	Redeemed Kind = "redeemed" // an invited guest accepted the invitation
)

// Event is one sign-up as a detector saw it. The same event may be seen by several detectors, late, and more than once.
type Event struct {
	User UserID
	Kind Kind
	At   time.Time // when it happened, by the tenant's clock, UTC

	// Created is when the user came into being, where that is not At and the detector knows it; else zero.
	Created time.Time
}

// Window is a half-open range of event time, [From, To), UTC.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Empty reports that no instant is inside.
func (w Window) Empty() bool { return !w.From.Before(w.To) }

// Origin is how a user got into the tenant; it is known only after the profile was read.
type Origin string

const (
	SelfService   Origin = "selfService"   // a user flow, with e-mail or a social or federated identity provider
	EmailVerified Origin = "emailVerified" // a workforce tenant's self-service by verified e-mail address
	Invitation    Origin = "invitation"    // a B2B guest, entitlement management included
	Admin         Origin = "admin"         // made by a person or an app
	Unknown       Origin = "unknown"       // the evidence fits none of the above: a person must look
)

// Identity is one way in which a user signs in (Graph's objectIdentity).
type Identity struct {
	SignInType       string `json:"signInType"`       // emailAddress, federated, userPrincipalName, userName, …
	Issuer           string `json:"issuer"`           // the tenant's initial domain, google.com, …
	IssuerAssignedID string `json:"issuerAssignedId"` // for emailAddress: the address
}

// User is a profile as read from the directory. An absent string is "".
type User struct {
	ID                UserID
	DisplayName       string
	GivenName         string
	Surname           string
	UserPrincipalName string
	Email             string // the contact address, never a user principal name
	EmailVerified     bool   // the address is an emailAddress identity, so the tenant has verified it
	CreationType      string // LocalAccount, Invitation, EmailVerified, SelfServiceSignUp or ""
	UserType          string // Member, Guest or ""
	ExternalUserState string // PendingAcceptance, Accepted or ""
	PreferredLanguage string
	Country           string
	City              string
	Enabled           bool
	Created           time.Time
	Identities        []Identity
	Attributes        map[string]any // by the name in the configuration; string, bool, float64
}

// HasGeneratedUPN reports that the local part of the user principal name is the user's own id, as External ID makes it
// for people who sign up themselves.
func (u User) HasGeneratedUPN() bool {
	local, _, _ := strings.Cut(u.UserPrincipalName, "@")
	return u.ID != "" && strings.EqualFold(local, string(u.ID))
}

// Patch is what to change on a user's record; an empty field changes nothing.
type Patch struct {
	DisplayName       string
	UserPrincipalName string            // with its domain
	Attributes        map[string]string // by the name in the configuration; see AttributeKind for the lengths
	Clear             []string          // attributes that are to have no value; none of them is in Attributes
}

// Empty reports that the patch changes nothing.
func (p Patch) Empty() bool {
	return p.DisplayName == "" && p.UserPrincipalName == "" && len(p.Attributes) == 0 && len(p.Clear) == 0
}
