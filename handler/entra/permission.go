package entra

import (
	"slices"
	"strings"
)

// Permission is an application permission of Microsoft Graph that a configuration needs.
type Permission struct {
	Name string   `json:"name"`         // AuditLog.Read.All
	ID   string   `json:"id"`           // of the app role on Microsoft Graph's service principal, a GUID
	For  []string `json:"for"`          // what needs it, in words
	Or   []string `json:"or,omitempty"` // permissions that include it, and more
}

// Needs are the features that a configuration uses, as far as they decide which permissions the app needs. To read users
// is always needed.
type Needs struct {
	Audit          bool // the detector audit
	SignUps        bool // the detector signUps
	Profile        bool // something is written to users: profile.displayName, .userPrincipalName or .attributes
	LookUp         bool // custom attributes are read or written by their short names, and profile.extensionsApp is not set
	Domain         bool // profile.userPrincipalNameDomain is set
	Groups         bool // a destination of kind group
	AccessPackages bool // a destination of kind accessPackage
	Entitlement    bool // signups.entitlement is true
}

// Excess is an application permission that the app has and does not need.
type Excess struct {
	Role    string   `json:"role"`              // Directory.Read.All
	Instead []string `json:"instead,omitempty"` // the needed permissions that it includes, which would do
	Danger  string   `json:"danger,omitempty"`  // what whoever holds the app's credential can make of it; "" = nothing beyond its name
}

// grants say by which application permissions each kind of call is allowed, after Microsoft's permissions reference: the
// least, and those that include it. It is the one place where that is written down; docs/security.md repeats it in words.
// Of the tenant's own object an app that may read users sees the id and the domains, the rest is null.
var grants = [kinds]struct {
	least string
	or    []string
}{
	auditCall:        {"AuditLog.Read.All", []string{"Directory.Read.All"}},
	signUpCall:       {"AuditLog.Read.All", nil},
	directoryCall:    {"User.Read.All", []string{"User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}},
	profileCall:      {"User.Read.All", []string{"User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}},
	updateCall:       {"User.ReadWrite.All", []string{"Directory.ReadWrite.All"}},
	applicationCall:  {"Application.Read.All", []string{"Application.ReadWrite.All", "Directory.Read.All"}},
	memberCall:       {"GroupMember.ReadWrite.All", []string{"Group.ReadWrite.All", "Directory.ReadWrite.All"}},
	packageCall:      {"EntitlementManagement.ReadWrite.All", nil},
	requestCall:      {"EntitlementManagement.Read.All", []string{"EntitlementManagement.ReadWrite.All"}},
	organizationCall: {"User.Read.All", []string{"User.ReadWrite.All", "Organization.Read.All", "Directory.Read.All"}},
	policyCall:       {"Policy.Read.All", []string{"Policy.ReadWrite.Authorization"}},
	flowCall:         {"EventListener.Read.All", []string{"EventListener.ReadWrite.All"}},
	policyChangeCall: {"Policy.ReadWrite.Authorization", nil},
	flowChangeCall:   {"EventListener.ReadWrite.All", nil},
	inviteCall:       {"User.Invite.All", []string{"User.ReadWrite.All", "Directory.ReadWrite.All"}},
}

// appRoles are the ids of those permissions, which are the same in every tenant.
var appRoles = map[string]string{
	"AuditLog.Read.All":                   "b0afded3-3588-46d8-8b3d-9842eff778da",
	"User.Read.All":                       "df021288-bdef-4463-88db-98f22de89214",
	"User.ReadWrite.All":                  "741f803b-c850-494e-b5df-cde7c675a1ca",
	"Application.Read.All":                "9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30",
	"GroupMember.ReadWrite.All":           "dbaae8cf-10b5-4b86-a4a1-f871c94c6695",
	"EntitlementManagement.Read.All":      "c74fd47d-ed3c-45c3-9a9e-b8676de685d2",
	"EntitlementManagement.ReadWrite.All": "9acd699f-1e81-4958-b001-93b1d2506e19",
	"Policy.Read.All":                     "246dd0d5-5bd0-4def-940b-0421030a5b68",
	"EventListener.Read.All":              "b7f6385c-6ce6-4639-a480-e23c42ed9784",
}

// dangers are permissions by which an app can get every other.
var dangers = map[string]string{
	"AppRoleAssignment.ReadWrite.All":    "the app can give itself every other permission",
	"RoleManagement.ReadWrite.Directory": "the app can make itself Global Administrator",
	"Application.ReadWrite.All":          "the app can act as every other app of the tenant",
}

// permission is the least application permission for it.
func (k kind) permission() string { return grants[k].least }

// allows reports that a permission allows the call.
func (k kind) allows(permission string) bool {
	return permission == grants[k].least || slices.Contains(grants[k].or, permission)
}

// use is a kind of call that a configuration leads to, and what for.
type use struct {
	kind kind
	what string
}

func (n Needs) uses() []use {
	var all []use
	add := func(is bool, k kind, what string) {
		if is {
			all = append(all, use{k, what})
		}
	}
	add(n.Audit, auditCall, "read the audit log, for the detector audit")
	add(n.SignUps, signUpCall, "read the sign-up log, for the detector signUps")
	add(true, directoryCall, "find users by the time of their creation, for the detector directory, the gaps of the logs, and the census")
	add(true, profileCall, "read users' profiles")
	add(n.Domain, profileCall, "read the tenant's verified domains, for profile.userPrincipalNameDomain")
	add(n.Profile, updateCall, "write what profile says to the users")
	add(n.LookUp, applicationCall, "look up the custom attributes, unless profile.extensionsApp is set")
	add(n.Groups, memberCall, "read groups and add members, for destinations of kind group")
	add(n.Entitlement, requestCall, "read the requests that brought guests, for signups.entitlement")
	add(n.AccessPackages, packageCall, "request and follow assignments, for destinations of kind accessPackage")
	return all
}

// Least returns the least set of application permissions for what a configuration uses, in the order of the features. One
// that includes another which is needed as well stands for both.
func Least(n Needs) []Permission {
	uses := n.uses()
	var all []Permission
	for _, u := range uses {
		name := u.kind.permission()
		for _, other := range uses { // only a permission that is needed anyway stands for a weaker one
			if stronger := other.kind.permission(); stronger != name && u.kind.allows(stronger) {
				name = stronger
			}
		}
		i := slices.IndexFunc(all, func(p Permission) bool { return p.Name == name })
		if i < 0 {
			i = len(all)
			all = append(all, Permission{Name: name, ID: appRoles[name], Or: slices.Clone(grants[u.kind].or)})
		}
		all[i].For = append(all[i].For, u.what)
		all[i].Or = slices.DeleteFunc(all[i].Or, func(p string) bool { return p == name || !u.kind.allows(p) })
	}
	return all
}

// Compare holds the app's roles, as its token has them, against the least set. What includes a needed permission allows
// what that one does, so that nothing is missing, and is an excess all the same. Both results are in a set order.
func Compare(least []Permission, roles []string) (missing []Permission, superfluous []Excess) {
	has := func(name string) bool { return slices.Contains(roles, name) }
	for _, p := range least {
		if !has(p.Name) && !slices.ContainsFunc(p.Or, has) {
			missing = append(missing, p)
		}
	}
	for _, role := range slices.Compact(slices.Sorted(slices.Values(roles))) {
		if slices.ContainsFunc(least, func(p Permission) bool { return p.Name == role }) {
			continue
		}
		e := Excess{Role: role, Danger: dangers[role]}
		for _, p := range least {
			if slices.Contains(p.Or, role) {
				e.Instead = append(e.Instead, p.Name)
			}
		}
		superfluous = append(superfluous, e)
	}
	return missing, superfluous
}

func (e Excess) String() string {
	s := e.Role
	if e.Danger != "" {
		s += ", by which " + e.Danger
	}
	if len(e.Instead) > 0 {
		s += ": " + strings.Join(e.Instead, ", ") + " would do"
	}
	return s
}

// roles are the directory roles of which a person needs one beside the permission: the least, after Microsoft's reference.
var roles = map[kind]string{
	policyChangeCall: "Privileged Role Administrator",
	flowChangeCall:   "External ID User Flow Administrator",
	inviteCall:       "Guest Inviter",
}

// remedy says what helps against a 403. The permissions for policies, user flows and invitations are for a person, not for
// the app, which would hold them all the time. The Azure CLI's own login of a person does not carry them
// (azure-cli#23906, azure-powershell#24334).
func (k kind) remedy() string {
	switch k {
	case policyCall, flowCall:
		return k.permission() + " is missing, or a directory role that may read it; the login of a person by the Azure CLI never has it: 'handler policy' logs you in with it"
	case policyChangeCall, flowChangeCall, inviteCall:
		return "the login lacks " + k.permission() + ", or the directory role " + roles[k]
	}
	grant := "grant the app the application permission " + k.permission() + " with admin consent"
	if k == packageCall || k == requestCall { // which may not see what the tenant is for
		grant += "; only workforce tenants have entitlement management"
	}
	return grant
}
