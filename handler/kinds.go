package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"signup-sync/handler/connector"
	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

// kinds are all kinds of destination, sorted by name: those of package connector, and those that live in the tenant
// itself. Without a tenant their settings can be checked and nothing else.
func kinds(tenant *entra.Tenant) []connector.Kind {
	all := append(connector.Kinds(), groupKind(tenant), accessPackageKind(tenant))
	slices.SortFunc(all, func(a, b connector.Kind) int { return strings.Compare(a.Name, b.Name) })
	return all
}

type groupSettings struct {
	Groups []string `json:"groups" doc:"The object ids of the groups, at most 20." required:"true"`
}

type accessPackageSettings struct {
	AccessPackage string `json:"accessPackage" doc:"The access package's id." required:"true"`
	Policy        string `json:"policy" doc:"The id of a policy of it that allows an administrator to assign directly." required:"true"`
}

func groupKind(tenant *entra.Tenant) connector.Kind {
	return connector.Kind{
		Name: "group",
		Doc: "Membership of groups of the tenant, for those whom the destination's `when` selects; the account is the user's own object id. " +
			"The app needs the permission GroupMember.ReadWrite.All. An app role is given by a group that holds it: assign the role to a group once, " +
			"by hand, and name that group here. The program does not assign roles itself, because AppRoleAssignment.ReadWrite.All would let whoever " +
			"holds the app's credential give the app every other permission. For the same reason a group that can hold directory roles is refused by `handler doctor`, " +
			"as are those whose members nobody can add: dynamic, synchronised and mail-enabled ones.",
		Settings: groupSettings{}, Rate: 15, Burst: 15, Concurrency: 2,
		Limit: "3,000 writes in 150 s for an app in a tenant, which memberships share with the patches of profiles (learn.microsoft.com/graph/throttling-limits)",
		Connect: connector.Connector(func(s groupSettings, _ connector.Env) (signup.Connector, []error) {
			return entra.NewGroups(tenant, s.Groups)
		}),
		Fields: noRecord,
	}
}

func accessPackageKind(tenant *entra.Tenant) connector.Kind {
	return connector.Kind{
		Name: "accessPackage",
		Doc: "An assignment to an access package of entitlement management, for those whom the destination's `when` selects; the account is the assignment's id. " +
			"An assignment is requested and then followed until it is delivered, which takes minutes. Only workforce tenants have entitlement management: in an External ID tenant use `group`. " +
			"The app needs the permission EntitlementManagement.ReadWrite.All.",
		Settings: accessPackageSettings{}, Rate: 4, Burst: 4, Concurrency: 4,
		Limit: "3,000 writes in 150 s for an app in a tenant (learn.microsoft.com/graph/throttling-limits); for entitlement management it publishes no limit",
		Connect: connector.Connector(func(s accessPackageSettings, _ connector.Env) (signup.Connector, []error) {
			return entra.NewAccessPackage(tenant, s.AccessPackage, s.Policy)
		}),
		Fields: noRecord,
	}
}

// noRecord is for kinds to which nothing is sent but who the user is.
func noRecord(fields map[string]any) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		errs = append(errs, fmt.Errorf("record.%s: not known; this connector takes no record", name))
	}
	return errs
}

// takesNoRecord asks a kind for its opinion of a field that only a kind that takes any would have.
func takesNoRecord(k connector.Kind) bool {
	return len(k.Record) == 0 && len(k.CheckRecord(map[string]any{"any": nil})) > 0
}
