package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"signup-sync/handler/entra"
)

// features say in words what each field of entra.Needs stands for; a test compares them.
var features = map[string]string{
	"Audit":          "`audit` among `sync.detectors`",
	"SignUps":        "`signUps` among `sync.detectors`",
	"Profile":        "`profile.displayName`, `.userPrincipalName` or `.attributes`",
	"LookUp":         "custom attributes by their short names, without `profile.extensionsApp`",
	"Domain":         "`profile.userPrincipalNameDomain`",
	"Groups":         "a destination of kind `group`",
	"Entitlement":    "`signups.entitlement`; workforce tenants only",
	"AccessPackages": "a destination of kind `accessPackage`; workforce tenants only",
}

// permissionsPage is what each feature adds to the application permissions that the app needs.
func permissionsPage() []byte {
	var b strings.Builder
	b.WriteString("# Application permissions on Microsoft Graph\n\n" + generated)
	b.WriteString("What the app registration in the tenant needs, with an administrator's consent, and nothing else. `bin/handler doctor --permissions`\n" +
		"prints the set of one configuration; `bin/handler doctor` compares it with what the app has, and names what is missing and what is superfluous.\n\n" +
		"| what is configured | permission | its id | for |\n|---|---|---|---|\n")
	always := entra.Least(entra.Needs{})
	permissionRows(&b, "always", always, nil)
	for f := range reflect.TypeFor[entra.Needs]().Fields() {
		var n entra.Needs
		reflect.ValueOf(&n).Elem().FieldByName(f.Name).SetBool(true)
		permissionRows(&b, features[f.Name], entra.Least(n), always)
	}
	return []byte(b.String())
}

// permissionRows writes what is in the set and not in what is there always.
func permissionRows(b *strings.Builder, what string, set, always []entra.Permission) {
	names := func(set []entra.Permission) (all []string) {
		for _, p := range set {
			all = append(all, p.Name)
		}
		return all
	}
	more := slices.DeleteFunc(slices.Clone(set), func(p entra.Permission) bool { return slices.Contains(names(always), p.Name) })
	if len(more) == 0 {
		fmt.Fprintf(b, "| %s | none more | | |\n", what)
	}
	for _, p := range more {
		name := p.Name
		for _, weaker := range names(always) {
			if !slices.Contains(names(set), weaker) {
				name += ", in place of " + weaker
			}
		}
		fmt.Fprintf(b, "| %s | %s | `%s` | %s |\n", what, name, p.ID, strings.Join(p.For, "; "))
	}
}
