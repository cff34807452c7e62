package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

// breakage is one thing that goes wrong, and all the lines that this changes.
type breakage struct {
	name string
	do   func(c *clinic)
	want map[string]string // by area and name: the state, and a part of the fix
	gone []string          // lines of the healthy installation in whose place those are
}

const mendGraph = "Mend tenant, graph, first."

// line is what a breakage wants of one line.
func line(state condition, fix string) string { return string(state) + " " + fix }

var breakages = []breakage{
	// Settings.
	{"a misspelled setting", func(c *clinic) { c.settings["ENTRA_AUTHORTY"] = "https://login.microsoftonline.us" },
		map[string]string{"settings: unknown ENTRA_AUTHORTY": line(conditionWarn, `appsettings delete --name APP --resource-group GROUP --setting-names "ENTRA_AUTHORTY"`)}, []string{"settings: unknown"}},
	{"a misspelled setting in place of the right one", func(c *clinic) {
		c.settings["ENTRA_CREDENTAL"] = c.settings["ENTRA_CREDENTIAL"]
		delete(c.settings, "ENTRA_CREDENTIAL")
	}, map[string]string{"settings: unknown ENTRA_CREDENTAL": line(conditionWarn, `--settings "ENTRA_CREDENTIAL=VALUE"`)}, []string{"settings: unknown"}},
	{"a secret in plain", func(c *clinic) { c.settings["STRIPE_API_KEY"] = simSecret },
		map[string]string{"settings: plain STRIPE_API_KEY": line(conditionWarn, "az keyvault secret set")}, []string{"settings: secrets"}},
	{"a client secret", func(c *clinic) {
		c.Vault.SetSecret("client", "", simSecret)
		c.settings["ENTRA_CREDENTIAL"], c.settings["ENTRA_CLIENT_SECRET"] = "secret", "@Microsoft.KeyVault(SecretUri="+c.server.URL+"/secrets/client)"
	}, map[string]string{"settings: ENTRA_CREDENTIAL": line(conditionWarn, `"ENTRA_CREDENTIAL=certificate"`)}, nil},
	{"no schedule", func(c *clinic) { delete(c.settings, "SYNC_SCHEDULE") },
		map[string]string{"settings: SYNC_SCHEDULE": line(conditionFail, `"SYNC_SCHEDULE=0 * * * * *"`)}, nil},
	{"a schedule of five fields", func(c *clinic) { c.settings["SYNC_SCHEDULE"] = "* * * * *" },
		map[string]string{"settings: SYNC_SCHEDULE": line(conditionWarn, `"SYNC_SCHEDULE=0 * * * * *"`)}, nil},
	{"a schedule that is rarer than the overlap", func(c *clinic) { c.settings["SYNC_SCHEDULE"] = "0 0 */3 * * *" },
		map[string]string{"settings: SYNC_SCHEDULE": line(conditionWarn, `"SYNC_SCHEDULE=0 * * * * *"`)}, nil},
	{"an overlap that is shorter than any schedule's pause", func(c *clinic) { c.reconfigure("auditRetention: 168h", "overlap: 30s, auditRetention: 168h") },
		map[string]string{"settings: SYNC_SCHEDULE": line(conditionWarn, "overlap: 60m")}, nil},
	{"a rare census", func(c *clinic) { c.settings["CENSUS_SCHEDULE"] = "0 0 3 * * SUN" },
		map[string]string{"settings: CENSUS_SCHEDULE": line(conditionWarn, `"CENSUS_SCHEDULE=0 */15 * * * *"`)}, nil},
	{"a short functionTimeout", func(c *clinic) { c.settings["AzureFunctionsJobHost__functionTimeout"] = "00:01:00" },
		map[string]string{"settings: functionTimeout": line(conditionWarn, "host.json")}, nil},
	{"another program in host.json", func(c *clinic) { c.replaceInApp("host.json", "bin/handler", "handler.exe") },
		map[string]string{"settings: host.json": line(conditionFail, `"defaultExecutablePath": "bin/handler"`)}, nil},
	{"another schedule in function.json", func(c *clinic) { c.replaceInApp("TakeCensus/function.json", "%CENSUS_SCHEDULE%", "0 0 3 * * *") },
		map[string]string{"settings: TakeCensus": line(conditionFail, "TakeCensus/function.json")}, []string{"settings: host.json"}},
	{"a status page for everybody", func(c *clinic) {
		c.replaceInApp("Status/function.json", `"authLevel": "function"`, `"authLevel": "anonymous"`)
	},
		map[string]string{"settings: Status": line(conditionFail, "Status/function.json")}, []string{"settings: host.json"}},
	{"a function that is switched off", func(c *clinic) { c.settings["AzureWebJobs.SyncNewUsers.Disabled"] = "true" },
		map[string]string{"settings: SyncNewUsers": line(conditionWarn, `"AzureWebJobs.SyncNewUsers.Disabled=0"`)}, []string{"settings: host.json"}},

	// Identity.
	{"a certificate that ends soon", func(c *clinic) { c.certify(certificateUntil(c.t, time.Now().AddDate(0, 0, 20))) },
		map[string]string{"identity: certificate": line(conditionWarn, "az keyvault certificate create --vault-name")}, nil},
	{"a certificate that the app registration does not know yet", func(c *clinic) { c.keep(certificateUntil(c.t, time.Now().AddDate(1, 0, 1))) },
		map[string]string{"identity: newest certificate": line(conditionWarn, "az ad app credential reset --id "+simClient+" --cert @certificate.pem --append")}, nil},
	{"a certificate that has expired", func(c *clinic) {
		c.Vault.Delete(simCertificate)
		c.certify(certificateUntil(c.t, time.Now().Add(-time.Hour)))
	}, withoutToken(map[string]string{"identity: token": line(conditionFail, ""), "identity: certificate": line(conditionFail, "az keyvault certificate create")}), nil},
	{"a client id of nobody", func(c *clinic) { c.settings["ENTRA_CLIENT_ID"] = stranger },
		withoutToken(map[string]string{"identity: token": line(conditionFail, `"ENTRA_CLIENT_ID=CLIENT"`), "identity: certificate": line(conditionWarn, "Mend identity, token, first.")}), nil},
	{"a certificate that no app registration knows", func(c *clinic) { c.Entra.SetApp(sim.App{ID: simClient, Roles: c.roles}) },
		withoutToken(map[string]string{"identity: token": line(conditionFail, "--cert @certificate.pem --append"), "identity: certificate": line(conditionWarn, "Mend identity, token, first.")}), nil},
	{"no certificate", func(c *clinic) { c.Vault.Delete(simCertificate) },
		withoutToken(map[string]string{"identity: token": line(conditionFail, "Mend identity, certificate, first."), "identity: certificate": line(conditionFail, "az keyvault certificate get-default-policy")}), nil},
	{"a token endpoint that does not answer", func(c *clinic) { c.Entra.Faults.Add(sim.Fault{Times: -1, Status: 503}) },
		withoutToken(map[string]string{"identity: token": line(conditionFail, "/v2.0/.well-known/openid-configuration"), "identity: certificate": line(conditionWarn, "Mend identity, token, first.")}), nil},
	{"a person who is not logged in", func(c *clinic) {
		c.settings["STRIPE_API_KEY"], c.settings["WELCOME_SECRET"] = simSecret, simWelcome
		c.logOut()
	}, withoutToken(map[string]string{"settings: plain STRIPE_API_KEY": line(conditionWarn, ""), "settings: plain WELCOME_SECRET": line(conditionWarn, ""), "identity: own": line(conditionFail, "az login"),
		"identity: token": line(conditionWarn, "Mend identity, own, first."), "identity: certificate": line(conditionWarn, "Mend identity, own, first."),
		"tenant: sign-up policy": line(conditionWarn, "az login --tenant"), "tenant: user flows": line(conditionWarn, "az login --tenant")}), []string{"settings: secrets"}},

	// Permissions.
	{"a missing permission", func(c *clinic) { c.grant("AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All") },
		map[string]string{"permissions: missing GroupMember.ReadWrite.All": line(conditionFail, `\"appRoleId\":\"dbaae8cf-10b5-4b86-a4a1-f871c94c6695\"`), "destinations: members": line(conditionWarn, "Mend permissions, missing GroupMember.ReadWrite.All, first.")},
		[]string{"permissions: permissions"}},
	{"the audit log's permission is missing", func(c *clinic) { c.grant("User.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All") },
		map[string]string{"permissions: missing AuditLog.Read.All": line(conditionFail, "API permissions > Add a permission"), "tenant: audit log": line(conditionWarn, "Mend permissions, missing AuditLog.Read.All, first.")},
		[]string{"permissions: permissions", "tenant: audit retention"}},
	{"an access package for which another permission is missing", func(c *clinic) {
		c.config += "  - name: starter\n    connector: accessPackage\n    settings: { accessPackage: " + simPackage + ", policy: " + simPolicy + " }\n"
		c.tenant(sim.TenantOptions{Type: sim.Workforce, EntitlementManagement: true, AccessPackages: []sim.AccessPackage{{ID: simPackage, Policies: []string{simPolicy}}}})
		c.grant("AuditLog.Read.All", "EntitlementManagement.ReadWrite.All", "Application.Read.All", "GroupMember.ReadWrite.All")
	}, map[string]string{"permissions: missing User.ReadWrite.All": line(conditionFail, "API permissions"), "tenant: kind": line(conditionWarn, "Mend permissions, missing User.ReadWrite.All, first."),
		"tenant: users": line(conditionWarn, "Mend permissions, missing User.ReadWrite.All, first."), "destinations: starter": line(conditionWarn, "Mend permissions first.")}, []string{"permissions: permissions"}},
	{"a superfluous permission", func(c *clinic) { c.grant(append(clinicRoles, "Mail.Read")...) },
		map[string]string{"permissions: superfluous Mail.Read": line(conditionWarn, "Revoke permission")}, nil},
	{"a permission that is more than needed", func(c *clinic) {
		c.grant("AuditLog.Read.All", "User.ReadWrite.All", "Application.Read.All", "Group.ReadWrite.All")
	},
		map[string]string{"permissions: superfluous Group.ReadWrite.All": line(conditionWarn, "First grant GroupMember.ReadWrite.All")}, nil},

	// The tenant.
	{"a clock that is two minutes off", func(c *clinic) { c.tenant(sim.TenantOptions{DateSkew: 2 * time.Minute}) },
		map[string]string{"tenant: clock": line(conditionWarn, "timedatectl set-ntp true")}, nil},
	{"a clock that is ten minutes off", func(c *clinic) { c.tenant(sim.TenantOptions{DateSkew: -10 * time.Minute}) },
		map[string]string{"tenant: clock": line(conditionFail, "timedatectl set-ntp true")}, nil},
	{"a retention that the tenant does not have", func(c *clinic) { c.reconfigure("168h", "720h") },
		map[string]string{"tenant: audit retention": line(conditionWarn, "auditRetention: 168h")}, nil},
	{"an access package in an external tenant", func(c *clinic) {
		c.config += "  - name: starter\n    connector: accessPackage\n    settings: { accessPackage: " + simPackage + ", policy: " + simPolicy + " }\n"
	}, map[string]string{"tenant: kind": line(conditionFail, "use the connector group"), "destinations: starter": line(conditionWarn, "Mend permissions, missing EntitlementManagement.ReadWrite.All, first."),
		"permissions: missing EntitlementManagement.ReadWrite.All": line(conditionFail, "9acd699f-1e81-4958-b001-93b1d2506e19")}, []string{"permissions: permissions"}},
	{"origins that no external tenant has", func(c *clinic) { c.reconfigure("profile:\n", "signups: { origins: [emailVerified] }\nprofile:\n") },
		map[string]string{"tenant: origins": line(conditionFail, "signups: { origins: [selfService] }"), "tenant: user flows": line(conditionWarn, "add selfService to signups.origins")}, nil},
	{"one origin that no external tenant has", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, emailVerified, admin] }\nprofile:\n")
	},
		map[string]string{"tenant: origins": line(conditionWarn, "take it out of signups.origins")}, nil},
	{"guests who are treated and left out", func(c *clinic) { c.reconfigure("profile:\n", "signups: { guests: invited }\nprofile:\n") },
		map[string]string{"tenant: guests": line(conditionWarn, "add invitation to signups.origins")}, nil},
	{"guests by access packages in an external tenant", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, invitation], entitlement: true }\nprofile:\n")
		c.grant(append(clinicRoles, "EntitlementManagement.Read.All")...)
	}, map[string]string{"tenant: entitlement": line(conditionFail, "take out signups.entitlement")}, nil},
	{"guests by access packages whom the app may not look up", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, emailVerified, invitation], entitlement: true }\nprofile:\n")
		c.tenant(sim.TenantOptions{Type: sim.Workforce, EntitlementManagement: true})
	}, map[string]string{"tenant: entitlement": line(conditionWarn, "Mend permissions, missing EntitlementManagement.Read.All, first."),
		"permissions: missing EntitlementManagement.Read.All": line(conditionFail, "c74fd47d-ed3c-45c3-9a9e-b8676de685d2")}, []string{"permissions: permissions"}},
	{"guests by access packages without a licence", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, emailVerified, invitation], entitlement: true }\nprofile:\n")
		c.grant(append(clinicRoles, "EntitlementManagement.Read.All")...)
		c.tenant(sim.TenantOptions{Type: sim.Workforce})
	}, map[string]string{"tenant: entitlement": line(conditionFail, "Billing > Licenses")}, nil},
	{"guests by access packages without a licence, in a tenant whose kind is not shown", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, emailVerified, invitation], entitlement: true }\nprofile:\n")
		c.grant(append(clinicRoles, "EntitlementManagement.Read.All")...)
		c.tenant(sim.TenantOptions{Type: sim.Workforce})
		c.logIn("Policy.Read.All", "EventListener.Read.All")
	}, map[string]string{"tenant: kind": line(conditionWarn, "az login --tenant "+simTenant), "tenant: entitlement": line(conditionFail, "Billing > Licenses")}, nil},
	{"a custom attribute that is not there", func(c *clinic) { c.tenant(sim.TenantOptions{Attributes: []string{"loyaltyNumber"}}) },
		map[string]string{"tenant: missing stripeCustomerId": line(conditionFail, "Custom user attributes > Add > Name: stripeCustomerId")}, []string{"tenant: custom attributes"}},
	{"a custom attribute of another type", func(c *clinic) {
		c.reconfigure("marketingOptIn == true", `marketingOptIn == "yes", again: user.attributes.marketingOptIn == "no"`)
	},
		map[string]string{"tenant: type marketingOptIn": line(conditionFail, "Custom user attributes > marketingOptIn")}, []string{"tenant: custom attributes"}},
	{"custom attributes that the app need not look up", func(c *clinic) {
		c.reconfigure("profile:\n", "profile:\n  extensionsApp: 6ea3bc85-aec2-4b1c-92ff-4a117afb6621\n")
		c.grant("AuditLog.Read.All", "User.ReadWrite.All", "GroupMember.ReadWrite.All")
	}, map[string]string{"tenant: custom attributes": line(conditionWarn, "there should be marketingOptIn, stripeCustomerId")}, nil},
	{"a domain that is not verified", func(c *clinic) {
		c.reconfigure("profile:\n", "profile:\n  userPrincipalName: short(user.id)\n  userPrincipalNameDomain: fabrikam.example\n")
	}, map[string]string{"tenant: domain": line(conditionFail, "Domain names > Add custom domain")}, nil},

	{"a Graph that does not answer", func(c *clinic) { c.Tenant.Faults.Add(sim.Fault{Times: -1}) }, map[string]string{
		"tenant: graph": line(conditionFail, "curl -sS"), "tenant: kind": line(conditionWarn, mendGraph), "tenant: clock": line(conditionWarn, mendGraph), "tenant: users": line(conditionWarn, mendGraph),
		"tenant: audit log": line(conditionWarn, mendGraph), "tenant: custom attributes": line(conditionWarn, mendGraph), "tenant: domain": line(conditionWarn, mendGraph),
		"tenant: sign-up policy": line(conditionWarn, mendGraph), "tenant: user flows": line(conditionWarn, mendGraph), "destinations: members": line(conditionWarn, mendGraph)}, nil},

	{"an Azure AD B2C tenant", func(c *clinic) { c.tenant(sim.TenantOptions{Type: sim.B2C}) },
		map[string]string{"tenant: kind": line(conditionWarn, "Migrate to Microsoft Entra External ID")}, nil},
	{"a kind that is not shown", func(c *clinic) { c.logIn("Policy.Read.All", "EventListener.Read.All") },
		map[string]string{"tenant: kind": line(conditionWarn, "az login --tenant "+simTenant)}, nil},
	{"people with a work or school address, who are left out", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService] }\nprofile:\n")
		c.tenant(sim.TenantOptions{Type: sim.Workforce})
	},
		map[string]string{"tenant: sign-up policy": line(conditionWarn, "bin/handler policy set --email-verified=off --yes")}, nil},
	{"people with a work or school address, who are left out where there are none", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, invitation] }\nprofile:\n")
	}, map[string]string{}, nil},
	{"guests whom nobody can invite", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [selfService, invitation] }\nprofile:\n")
		c.tenant(sim.TenantOptions{InvitesFrom: "none"})
	}, map[string]string{"tenant: invitations": line(conditionWarn, "take invitation out of signups.origins")}, nil},
	{"nobody can sign up with a work or school address", func(c *clinic) {
		c.reconfigure("profile:\n", "signups: { origins: [emailVerified] }\nprofile:\n")
		c.tenant(sim.TenantOptions{Type: sim.Workforce, NoEmailSubscriptions: true})
	}, map[string]string{"tenant: sign-up policy": line(conditionWarn, "bin/handler policy set --email-subscriptions=on --email-verified=on --yes"),
		"tenant: user flows": line(conditionWarn, "add selfService to signups.origins")}, nil},
	{"a workforce tenant where nobody can sign up with a work or school address", func(c *clinic) {
		c.tenant(sim.TenantOptions{Type: sim.Workforce, NoVerifiedJoin: true})
	}, map[string]string{"tenant: sign-up policy": line(conditionWarn, "take emailVerified out of signups.origins")}, nil},
	{"an operator who may not read policies", func(c *clinic) { c.logIn("Organization.Read.All") },
		map[string]string{"tenant: sign-up policy": line(conditionWarn, "bin/handler policy"), "tenant: user flows": line(conditionWarn, "External Identities > User flows")}, nil},
	{"user flows that let nobody sign up", func(c *clinic) {
		flow := simFlow
		flow.Closed = true
		c.tenant(sim.TenantOptions{UserFlows: []sim.UserFlow{flow}})
	}, map[string]string{"tenant: user flows": line(conditionWarn, "bin/handler policy set --sign-up=on --flow=")}, nil},
	{"a user flow that does not ask for the name", func(c *clinic) {
		flow := simFlow
		flow.Attributes = flow.Attributes[1:]
		c.tenant(sim.TenantOptions{UserFlows: []sim.UserFlow{flow}})
	}, map[string]string{"tenant: not collected givenName": line(conditionWarn, "User flows > Sign up > User attributes > givenName")}, nil},

	// Destinations.
	{"a wrong key", func(c *clinic) { c.Vault.SetSecret("STRIPE-API-KEY", "", "sk_test_Another") },
		map[string]string{"destinations: billing": line(conditionFail, "signup-sync.yaml names at destinations > billing > settings to a new key")}, nil},
	{"a table that is not there", func(c *clinic) { c.reconfigure("table: customers", "table: clients") },
		map[string]string{"destinations: customers": line(conditionFail, "docs/destinations.md")}, nil},
	{"a destination that is observed", func(c *clinic) { c.reconfigure("connector: webhook\n", "connector: webhook\n    mode: observe\n") },
		map[string]string{"state: observed welcome": line(conditionWarn, "mode: live")}, []string{"state: observed"}},

	// What the ledger knows.
	{"an old watermark", func(c *clinic) { c.watermark("audit", time.Now().Add(-20*time.Minute)) },
		map[string]string{"detectors: audit": line(conditionWarn, "SyncNewUsers > Invocations")}, nil},
	{"an old watermark of a rare timer", func(c *clinic) {
		c.settings["SYNC_SCHEDULE"] = "0 */30 * * * *"
		c.watermark("audit", time.Now().Add(-20*time.Minute))
	}, map[string]string{}, nil},
	{"a detector that was added", func(c *clinic) { c.note("watermark|audit", func(b map[string]any) { clear(b) }) },
		map[string]string{"detectors: audit": line(conditionWarn, "detector not read to the end")}, nil},
	{"a very old watermark", func(c *clinic) { c.watermark("directory", time.Now().Add(-2*time.Hour)) },
		map[string]string{"detectors: directory": line(conditionFail, "SyncNewUsers > Invocations")}, nil},
	{"a gap", func(c *clinic) {
		c.note("watermark|audit", func(b map[string]any) {
			b["gaps"] = []any{map[string]any{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}}
		})
	}, map[string]string{"detectors: gaps of audit": line(conditionWarn, "the runs close them")}, nil},
	{"a detector that is late", func(c *clinic) {
		c.note("watermark|audit", func(b map[string]any) {
			b["recent"] = []any{map[string]any{"counts": []int{98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}, "most": time.Hour}, map[string]any{}}
		})
	}, map[string]string{"detectors: lateness of audit": line(conditionWarn, "overlap: 2h }")}, nil},
	{"an open breaker", func(c *clinic) {
		c.note("state", func(b map[string]any) {
			b["breakers"] = []any{map[string]any{"name": "billing", "failures": 1, "opened": 2, "until": time.Now().Add(time.Minute).UTC(), "since": time.Now().Add(-time.Hour).UTC(), "code": "unauthorized"}}
		})
	}, map[string]string{"state: breaker of billing": line(conditionWarn, "What the codes mean, unauthorized")}, []string{"state: breakers"}},
	{"a destination that has vanished", func(c *clinic) {
		c.note("state", func(b map[string]any) {
			b["destinations"] = append(b["destinations"].([]any), map[string]any{"name": "newsletter", "since": "2026-01-01T00:00:00Z"})
			b["breakers"] = []any{map[string]any{"name": "newsletter", "opened": 1, "until": time.Now().Add(time.Minute).UTC(), "code": "unauthorized"}} // which concerns nobody
		})
	}, map[string]string{"state: removed newsletter": line(conditionWarn, "give it its old name back")}, []string{"state: removed"}},
	{"a backlog", func(c *clinic) { c.backlog(time.Now().Add(-time.Hour)) },
		map[string]string{"state: backlog": line(conditionWarn, "while it gets shorter")}, nil},
	{"a run that has died", func(c *clinic) {
		c.note("run", func(b map[string]any) {
			b["owner"], b["expires"] = "20260101T000000-0badcafe", time.Now().Add(-time.Minute).UTC()
		})
	}, map[string]string{"state: runs": line(conditionWarn, "out-of-memory kill")}, nil},
	{"no run that has ended", func(c *clinic) { c.note("run", func(b map[string]any) { clear(b) }) },
		map[string]string{"state: runs": line(conditionWarn, "SyncNewUsers > Invocations")}, nil},
	{"a run at work", func(c *clinic) {
		c.note("run", func(b map[string]any) {
			delete(b, "last")
			b["owner"], b["expires"] = "20260101T000000-0badcafe", time.Now().Add(time.Minute).UTC()
		})
	}, map[string]string{}, nil},
	{"no census", func(c *clinic) { c.note("certificate", func(b map[string]any) { clear(b) }) },
		map[string]string{"state: census": line(conditionWarn, "bin/handler census --yes")}, nil},
	{"an old census", func(c *clinic) {
		c.note("certificate", func(b map[string]any) { b["ended"] = time.Now().AddDate(0, 0, -3).UTC() })
	}, map[string]string{"state: census": line(conditionFail, "bin/handler census --yes")}, nil},
	{"a census with exceptions", func(c *clinic) {
		c.note("certificate", func(b map[string]any) {
			b["missing"], b["passedOver"], b["failed"] = 2, 1, []any{map[string]any{"destination": "billing", "reason": "rejected", "users": 3}}
		})
	}, map[string]string{"state: missing users": line(conditionWarn, "bin/handler census --last"), "state: failed users": line(conditionWarn, "bin/handler replay --reason CODE"),
		"state: passed over": line(conditionWarn, "cannot be decoded")}, nil},
}

// withoutToken adds the lines of what nobody can ask without the app's token.
func withoutToken(want map[string]string) map[string]string {
	for _, name := range []string{"permissions: permissions", "tenant: graph", "tenant: kind", "tenant: clock", "tenant: users", "tenant: audit log", "tenant: custom attributes", "tenant: domain"} {
		want[name] = line(conditionWarn, "Mend identity, token, first.")
	}
	want["destinations: members"] = line(conditionWarn, "Mend identity, token, first.")
	return want
}

func TestEachBreakageChangesItsOwnLines(t *testing.T) {
	healthy := openClinic(t)
	healthy.live()
	_, before, _ := healthy.doctor()
	if len(before) < 30 {
		t.Fatalf("the healthy installation has %d lines", len(before))
	}
	isExplained := explained(t)
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			c := openClinic(t)
			c.live()
			b.do(c)
			_, found, _ := c.doctor()
			got := map[string]string{}
			for key, f := range found {
				if !isExplained(f.Area, f.Name) {
					t.Errorf("docs/operations.md does not explain the line %s", key)
				}
				if f.State == conditionOK {
					continue
				}
				state, fix, _ := strings.Cut(b.want[key], " ")
				got[key] = line(f.State, fix)
				if string(f.State) != state || !strings.Contains(f.Fix, fix) {
					got[key] = line(f.State, f.Fix)
					t.Logf("%s: %s", key, f.Why)
				}
			}
			if diff := cmp.Diff(b.want, got); diff != "" {
				t.Errorf("lines that are not ok (-want +got):\n%s", diff)
			}
			for _, key := range slices.Sorted(maps.Keys(before)) {
				if _, there := found[key]; there == slices.Contains(b.gone, key) && !strings.HasPrefix(key, "tenant: audit retention") {
					t.Errorf("%s: is there: %v", key, there)
				}
			}
		})
	}
}

// grant gives the app these permissions and no others.
func (c *clinic) grant(roles ...string) {
	c.roles = roles
	c.certify(certificateUntil(c.t, time.Now().AddDate(1, 0, 0)))
}

// reconfigure changes a piece of the configuration.
func (c *clinic) reconfigure(old, new string) {
	c.t.Helper()
	changed := strings.Replace(c.config, old, new, 1)
	if changed == c.config {
		c.t.Fatalf("%q is not in the configuration", old)
	}
	c.config = changed
}

// replaceInApp changes a file of the app.
func (c *clinic) replaceInApp(name, old, new string) {
	c.t.Helper()
	path := filepath.Join(filepath.Dir(c.settings["SIGNUP_SYNC_CONFIG"]), name)
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), old) {
		c.t.Fatalf("%s has no %q: %v", name, old, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), old, new, 1)), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clinic) watermark(detector string, at time.Time) {
	c.note("watermark|"+detector, func(b map[string]any) { b["watermark"] = at.UTC() })
}

// backlog puts a user into the ledger who has been due since then.
func (c *clinic) backlog(since time.Time) {
	a := c.app()
	defer a.ledger.Close()
	row := signup.NewRow(signup.Event{User: stranger, Kind: signup.Created, At: since.UTC()}, "audit", []string{"billing"}, since.UTC())
	if rows, err := a.ledger.Insert(c.t.Context(), []signup.Row{row}); err != nil || len(rows) != 1 {
		c.t.Fatal(err)
	}
}
