package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

// needsOf is what a configuration uses of the tenant, as far as it takes permissions.
func needsOf(c *Config) entra.Needs {
	n := entra.Needs{
		Audit:   slices.Contains(c.Sync.Detectors, "audit"),
		SignUps: slices.Contains(c.Sync.Detectors, "signUps"),
		Profile: c.Mapping.WritesProfile(),
		Domain:  c.Profile.UserPrincipalNameDomain != "",
	}
	n.Entitlement = c.Signups.Entitlement
	for _, name := range c.Mapping.Attributes() {
		if kind, err := signup.ParseAttribute(name); err == nil && kind == signup.CustomAttribute && c.Profile.ExtensionsApp == "" {
			n.LookUp = true
		}
	}
	for _, d := range c.Destinations {
		n.Groups = n.Groups || d.Connector == "group"
		n.AccessPackages = n.AccessPackages || d.Connector == "accessPackage"
	}
	return n
}

// printPermissions prints the least set of a configuration file. Settings are not needed for it: each stands for itself.
func (c doctorCommand) printPermissions(s system) error {
	path := s.getenv("SIGNUP_SYNC_CONFIG")
	if path == "" {
		path = defaultConfig
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return refusal{fmt.Errorf("read the configuration: %w", err)}
	}
	checks := newConnectorChecks()
	config, err := parseConfig(path, data, func(string) string { return standIn }, connectorChecks{Kinds: checks.Kinds, Record: checks.Record})
	if err != nil {
		return refusal{err}
	}
	least := entra.Least(needsOf(config))
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(map[string]any{"permissions": least})
	}
	fmt.Fprintf(s.stdout, "The least application permissions on Microsoft Graph for %s:\n\n", path)
	t := tabwriter.NewWriter(s.stdout, 2, 8, 3, ' ', 0)
	fmt.Fprint(t, "PERMISSION\tID\tFOR\n")
	for _, p := range least {
		fmt.Fprintf(t, "%s\t%s\t%s\n", p.Name, p.ID, p.For[0])
		for _, what := range p.For[1:] {
			fmt.Fprintf(t, "\t\t%s\n", what)
		}
	}
	return t.Flush()
}

// graphApp is Microsoft Graph's own application id, the same in every tenant.
const graphApp = "00000003-0000-0000-c000-000000000000"

// grantPermission is how an app comes to a permission: in the portal, or by the one call that grants and consents.
func (p *patient) grantPermission(name, id string) string {
	client := p.app.env.Client
	return fmt.Sprintf("Entra admin center > App registrations > All applications > %s > API permissions > Add a permission > Microsoft Graph > Application permissions > %s, then Grant admin consent\n", client, name) +
		p.inTenant(fmt.Sprintf(`az rest --method POST --url "%s/v1.0/servicePrincipals(appId='%s')/appRoleAssignments" --body "{\"principalId\":\"$(az ad sp show --id %s --query id -o tsv)\",\"resourceId\":\"$(az ad sp show --id %s --query id -o tsv)\",\"appRoleId\":\"%s\"}"`,
			p.app.env.Graph, client, client, graphApp, id))
}

// inTenant puts the login in front of a command that is for the tenant, not for the subscription's, and goes back to that:
// else Storage and Key Vault would be asked as somebody of the wrong tenant.
func (p *patient) inTenant(command string) string {
	return p.login() + "\n" + command + "\n" + backToSubscription
}

// backToSubscription makes the subscription's login the Azure CLI's current one again.
const backToSubscription = "az account set --subscription SUBSCRIPTION"

var permissionExaminations = []examination{needsToken("permissions", examinePermissions)}

// examinePermissions compares the roles in the app's token with what the configuration needs.
func examinePermissions(ctx context.Context, p *patient) []finding {
	grant, err := p.grant(ctx)
	if err != nil {
		return []finding{notAsked("permissions", p.compareByHand(), "the token does not say what the app may do")}
	}
	missing, superfluous := entra.Compare(entra.Least(needsOf(p.app.config)), grant.Roles)
	var all []finding
	for _, m := range missing {
		all = append(all, fail("missing "+m.Name, p.grantPermission(m.Name, m.ID), "the app is not allowed to %s", strings.Join(m.For, ", nor to ")))
	}
	for _, s := range superfluous {
		why := "nothing that is configured needs it"
		if len(s.Instead) > 0 {
			why = strings.Join(s.Instead, " and ") + " would do"
		}
		if s.Danger != "" {
			why += ", and by it " + s.Danger
		}
		all = append(all, warn("superfluous "+s.Role, p.revokePermission(s, grant.Roles), "%s", why))
	}
	if len(missing) == 0 {
		all = append([]finding{good("permissions", "the app has all that %s needs", p.app.env.Config)}, all...)
	}
	return all
}

// revokePermission says how the app loses a permission; one that the lesser ones replace goes after they are granted.
func (p *patient) revokePermission(e entra.Excess, has []string) string {
	fix := fmt.Sprintf("Entra admin center > Enterprise applications > All applications > %s > Permissions > Admin consent > %s > ... > Revoke permission", p.app.env.Client, e.Role)
	if lacks := slices.DeleteFunc(slices.Clone(e.Instead), func(name string) bool { return slices.Contains(has, name) }); len(lacks) > 0 {
		fix = "First grant " + strings.Join(lacks, " and ") + " and run the doctor again; then:\n" + fix
	}
	return fix
}

// compareByHand is what to do where the token cannot be read.
func (p *patient) compareByHand() string {
	return fmt.Sprintf("bin/handler doctor --permissions\nEntra admin center > App registrations > All applications > %s > API permissions", p.app.env.Client)
}
