package sim

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// How is the way in which a user comes into the tenant.
type How string

const (
	Email         How = "email"         // signs up with an e-mail address
	Social        How = "social"        // signs up with a social identity provider
	Native        How = "native"        // signs up with an e-mail address in an app, by native authentication
	Migration     How = "migration"     // a customer imported by an app through Graph, with an e-mail identity
	Admin         How = "admin"         // made by an administrator, in the workforce manner
	Guest         How = "guest"         // invited by an administrator
	Requested     How = "requested"     // asked for an access package, and was made a guest by entitlement management
	EmailVerified How = "emailVerified" // a workforce tenant's self-service by verified e-mail address
	Failed        How = "failed"        // tries to sign up with an e-mail address, and it fails
)

// Person is somebody who comes into the tenant.
type Person struct {
	ID          signup.UserID  // the object id, of somebody who is not there yet; "" = one by chance
	How         How            // "" = Email
	Email       string         // the address given, if any
	GivenName   string         // as collected by the sign-up page, if it asks
	Surname     string         // likewise
	DisplayName string         // likewise; without one a user is called "unknown"
	IdP         string         // the social identity provider, as the sign-up log names it; "" = Google
	Attributes  map[string]any // custom attributes by short name: string, bool or a number
	Synced      bool           // comes from an on-premises directory, which keeps some properties for itself
	AuditLag    *time.Duration // until the log rows show; nil = by chance
	ReplicaLag  *time.Duration // until the user can be read; nil = by chance, for each replica
	IndexLag    *time.Duration // until the user is in lists; nil = as ReplicaLag, or by chance
}

// DirectoryUser is the truth about a user, whatever the replicas show.
type DirectoryUser struct {
	ID         signup.UserID
	How        How
	Created    time.Time
	Deleted    bool
	Properties map[string]any // as Graph names them
}

// admin is who invites and creates users.
const (
	adminID   = "728309ae-1a37-4937-9afe-e35d964db09b"
	adminName = "admin@"
)

// SignUp brings a person into the tenant at the clock's now and returns the object id; "" if the sign-up fails.
func (t *Tenant) SignUp(p Person) signup.UserID {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.arrive(p)
}

func (t *Tenant) arrive(p Person) signup.UserID {
	setDefault(&p.How, Email)
	setDefault(&p.IdP, "Google")
	now, chance := t.now(), t.draw()
	id := signup.UserID(guid(chance))
	if p.ID != "" {
		id = p.ID
	}
	if p.How == Failed {
		t.logSignUp(p, "", now, chance)
		t.publish(t.failedRow(id, now, chance), p, chance)
		return ""
	}
	for _, short := range slices.Sorted(maps.Keys(p.Attributes)) {
		t.collect(short, p.Attributes[short])
	}
	if p.How == Requested {
		t.letIn(id, now, chance)
	}
	u := &resident{id: id, how: p.How, created: now}
	props := t.newProperties(p, id, now, chance)
	u.write(props, now, 2*t.o.Replicas, t.creationLag(chance, p))
	t.users[id] = u
	t.order = append(t.order, u)
	i, _ := slices.BinarySearchFunc(t.byID, id, func(u *resident, id signup.UserID) int {
		return strings.Compare(string(u.id), string(id))
	})
	t.byID = slices.Insert(t.byID, i, u)
	for _, row := range t.arrivalRows(p, id, props, now, chance) {
		t.publish(row, p, chance)
	}
	t.logSignUp(p, id, now, chance)
	return id
}

// newProperties is the user object as it comes into being (docs: user resource; objectIdentity resource; user
// properties in B2B collaboration).
func (t *Tenant) newProperties(p Person, id signup.UserID, now time.Time, chance *rand.Rand) map[string]any {
	props := map[string]any{"id": string(id), "createdDateTime": userTime(now), "accountEnabled": true, "userType": "Member"}
	upn := string(id) + "@" + t.o.Domain
	set := func(name, value string) {
		if value != "" {
			props[name] = value
		}
	}
	identity := func(kind, issuer, assigned string) any {
		return map[string]any{"signInType": kind, "issuer": issuer, "issuerAssignedId": assigned}
	}
	var identities []any
	set("displayName", p.DisplayName)
	switch p.How {
	case Email, Native, Migration:
		props["creationType"] = "LocalAccount"
		if p.Email != "" {
			identities = append(identities, identity("emailAddress", t.o.Domain, p.Email))
		}
	case Social:
		set("mail", p.Email)
		identities = append(identities, identity("federated", issuerOf(p.IdP), digits(chance, 21)))
	case Admin:
		upn = t.freeName(p, id) + "@" + t.defaultDomain()
		set("mail", p.Email)
	case Guest, Requested:
		props["creationType"], props["userType"], props["externalUserState"] = "Invitation", "Guest", "PendingAcceptance"
		props["externalUserStateChangeDateTime"] = userTime(now)
		upn = strings.ReplaceAll(p.Email, "@", "_") + "#EXT#@" + t.o.Domain
		set("mail", p.Email)
		props["otherMails"] = []any{p.Email}
		identities = append(identities, identity("federated", "mail", p.Email))
	case EmailVerified:
		props["creationType"] = "EmailVerified"
		upn = p.Email
		set("mail", p.Email)
	}
	if props["displayName"] == nil {
		props["displayName"] = "unknown"
		if p.How == Admin {
			props["displayName"] = strings.TrimSpace(p.GivenName + " " + p.Surname)
		}
	}
	set("givenName", p.GivenName)
	set("surname", p.Surname)
	props["userPrincipalName"] = upn
	props["identities"] = append(identities, identity("userPrincipalName", t.o.Domain, upn))
	for short, v := range p.Attributes {
		props[extensionPrefix+short] = v
	}
	if p.Synced {
		props["onPremisesSyncEnabled"] = true
	}
	return props
}

// freeName is a readable local part that nobody has.
func (t *Tenant) freeName(p Person, id signup.UserID) string {
	local, _, _ := strings.Cut(p.Email, "@")
	setDefault(&local, "user")
	if t.find(local+"@"+t.defaultDomain()) == nil {
		return local
	}
	return local + "." + string(id)[:8]
}

// issuerOf is the issuer of a provider's identities (docs: objectIdentity resource).
func issuerOf(idp string) string {
	if strings.Contains(idp, ".") {
		return idp
	}
	return strings.ToLower(idp) + ".com"
}

func digits(chance *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0' + byte(chance.IntN(10))
	}
	b[0] = '1'
	return string(b)
}

// Redeem lets an invited guest accept the invitation.
func (t *Tenant) Redeem(id signup.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u, now, chance := t.mustFind(id), t.now(), t.draw()
	props := maps.Clone(u.last())
	props["externalUserState"] = "Accepted"
	props["externalUserStateChangeDateTime"] = userTime(now)
	t.writeUser(u, props, now)
	for _, row := range t.redeemRows(u, now, chance) {
		t.publish(row, Person{}, chance)
	}
}

// Delete puts a user into the recycle bin.
func (t *Tenant) Delete(id signup.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u, now, chance := t.mustFind(id), t.now(), t.draw()
	t.writeUser(u, nil, now)
	t.publish(t.adminRow("Delete user", "Delete", u, now, chance), Person{}, chance)
}

// Restore takes a user out of the recycle bin, as it was.
func (t *Tenant) Restore(id signup.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u, now, chance := t.mustFind(id), t.now(), t.draw()
	t.writeUser(u, u.last(), now)
	t.publish(t.adminRow("Restore user", "Update", u, now, chance), Person{}, chance)
}

func (t *Tenant) mustFind(id signup.UserID) *resident {
	u := t.users[id]
	if u == nil {
		panic("sim: no user " + string(id))
	}
	return u
}

// User is the truth about one user.
func (t *Tenant) User(id signup.UserID) (DirectoryUser, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.users[id]
	if u == nil {
		return DirectoryUser{}, false
	}
	return u.copy(), true
}

// Users is the truth about all users, deleted ones too, in the order of their creation.
func (t *Tenant) Users() []DirectoryUser {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]DirectoryUser, len(t.order))
	for i, u := range t.order {
		out[i] = u.copy()
	}
	return out
}

func (u *resident) copy() DirectoryUser {
	return DirectoryUser{ID: u.id, How: u.how, Created: u.created, Deleted: u.deleted(), Properties: maps.Clone(u.last())}
}
