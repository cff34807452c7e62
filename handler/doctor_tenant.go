package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/entra"
	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

var tenantExaminations = []examination{
	needsToken("graph", examineGraph),
	needsGraph("kind", examineKind),
	needsToken("clock", examineClock),
	needsGraph("users", examineUsers),
	needsGraph("audit log", examineAudit),
	needsGraph("custom attributes", examineAttributes),
	needsGraph("domain", examineDomain),
	{"sign-up policy", examineSignUpPolicy},
	{"user flows", examineUserFlows},
}

// examineGraph says whether Microsoft Graph answers at all.
func examineGraph(ctx context.Context, p *patient) []finding {
	if err := p.silence(ctx); err != nil {
		return []finding{broken("graph", reach(p.app.env.Graph+"/v1.0/$metadata"), err)}
	}
	return []finding{good("graph", "Microsoft Graph answers")}
}

// reach is what to do about an address that does not answer.
func reach(url string) string {
	return "curl -sS -o /dev/null -w '%{http_code}\\n' '" + url + "'\n" +
		"If that prints 200, run the doctor again. Else look at the network and the proxy between here and there, and at https://status.cloud.microsoft"
}

// unanswered is a question that the tenant has not answered. permission begins the name of the one by which it would.
func (p *patient) unanswered(ctx context.Context, name, permission string, err error) []finding {
	if passing(err) {
		return []finding{broken(name, again, err)}
	}
	least := entra.Least(needsOf(p.app.config))
	i := slices.IndexFunc(least, func(one entra.Permission) bool { return strings.HasPrefix(one.Name, permission) })
	if i < 0 || errorCode(err) != "forbidden" {
		return []finding{broken(name, "bin/handler doctor --permissions", err)}
	}
	grant, tokenErr := p.grant(ctx)
	if tokenErr != nil {
		return []finding{broken(name, p.grantPermission(least[i].Name, least[i].ID), err)}
	}
	missing, _ := entra.Compare(least, grant.Roles)
	itself := slices.ContainsFunc(missing, func(one entra.Permission) bool { return one.Name == least[i].Name })
	switch {
	case itself:
		return []finding{notAsked(name, "Mend permissions, missing "+least[i].Name+", first.", "the app is not allowed to (%s)", reasonOf(err))}
	case len(missing) > 0:
		return []finding{notAsked(name, "Mend permissions first.", "the app is not allowed to (%s), and lacks %s", reasonOf(err), missing[0].Name)}
	}
	return []finding{broken(name, "The app has "+least[i].Name+". If it was granted within the last hour, run the doctor again later; else see whether the tenant has the licence, under Entra admin center > Billing > Licenses.", err)}
}

// examineKind says what kind of tenant it is, and what is configured that such a tenant cannot do.
func examineKind(ctx context.Context, p *patient) []finding {
	o, err := p.organized(ctx)
	if err != nil {
		return p.unanswered(ctx, "kind", "User.", err)
	}
	if o.ID != "" && !strings.EqualFold(o.ID, p.app.env.Tenant) {
		return []finding{fail("kind", setSetting("ENTRA_TENANT_ID", o.ID), "Graph answers for another tenant, %s", o.ID)}
	}
	return append([]finding{p.kindOf(o)}, p.examineOrigins(ctx, o.Kind)...)
}

func (p *patient) kindOf(o entra.Organization) finding {
	packages := p.packages()
	switch {
	case o.Kind == "":
		return notAsked("kind", "Entra admin center > Overview > Tenant type; "+asOperator(p), "Graph shows it to nobody without Organization.Read.All, which the app does not need%s", onlyWorkforce(p.forWorkforce()))
	case len(packages) > 0 && o.Kind != entra.WorkforceTenant:
		return fail("kind", "Take these destinations out of signup-sync.yaml, or use the connector group.", "it is %s tenant, which has no entitlement management, for %s", kindWords[o.Kind], strings.Join(packages, ", "))
	case o.Kind == entra.B2CTenant:
		return warn("kind", "Migrate to Microsoft Entra External ID; until then look at the census.", "it is %s tenant: nobody has tried this program with one", kindWords[o.Kind])
	}
	return good("kind", "it is %s tenant", kindWords[o.Kind])
}

var kindWords = map[entra.TenantKind]string{entra.ExternalTenant: "an external", entra.WorkforceTenant: "a workforce", entra.B2CTenant: "an Azure AD B2C"}

// packages are the destinations of the kind that only a workforce tenant can serve.
func (p *patient) packages() (names []string) {
	for _, d := range p.app.config.Destinations {
		if d.Connector == "accessPackage" {
			names = append(names, d.Name)
		}
	}
	return names
}

// forWorkforce is all that only a workforce tenant can serve.
func (p *patient) forWorkforce() []string {
	names := p.packages()
	if p.app.config.Signups.Entitlement {
		names = append(names, "signups.entitlement")
	}
	return names
}

func onlyWorkforce(packages []string) string {
	if len(packages) == 0 {
		return ""
	}
	return "; only a workforce tenant can serve " + strings.Join(packages, ", ")
}

// The program refuses to work with a clock that is wrong by more than five minutes; tokens have trouble before that.
const (
	skewWarn = time.Minute
	skewFail = 5 * time.Minute
)

// setClock sets this machine's clock.
const setClock = "timedatectl set-ntp true\nOn Windows: w32tm /resync"

func examineClock(ctx context.Context, p *patient) []finding {
	skew, err := p.app.tenant.Skew(ctx)
	switch size := skew.Abs().Round(time.Second); {
	case err != nil && passing(err):
		return []finding{silent("clock", err)}
	case err != nil:
		return []finding{broken("clock", "bin/handler doctor --permissions", err)}
	case size > skewFail:
		return []finding{fail("clock", setClock, "this machine's clock differs from Graph's by %v, and no run begins with more than %v", size, skewFail)}
	case size > skewWarn:
		return []finding{warn("clock", setClock, "this machine's clock differs from Graph's by %v", size)}
	}
	return []finding{good("clock", "this machine's clock is Graph's, within %v", skewWarn)}
}

// examineUsers reads those who were created just now, as the detectors do.
func examineUsers(ctx context.Context, p *patient) []finding {
	now := p.app.env.Clock.Now()
	for _, err := range p.app.engine.Backstop.Events(ctx, signup.Window{From: now.Add(-time.Minute), To: now}) {
		if err != nil {
			return p.unanswered(ctx, "users", "User.", err)
		}
	}
	return []finding{good("users", "the directory can be read by the time of creation")}
}

// kept is how long every tenant keeps its audit log (reference-reports-data-retention).
const kept = 7 * 24 * time.Hour

// examineAudit looks at the audit log and how far it reaches back.
func examineAudit(ctx context.Context, p *patient) []finding {
	retention := p.app.config.Sync.AuditRetention
	if !slices.Contains(p.app.config.Sync.Detectors, "audit") {
		return []finding{good("audit log", "no detector reads it")}
	}
	a, err := p.app.tenant.AuditState(ctx)
	if err != nil {
		return p.unanswered(ctx, "audit log", "AuditLog.", err)
	}
	all := []finding{good("audit log", "it can be read, and its newest record is %v old", age(p.app.env.Clock.Now(), a.Newest))}
	if a.Newest.IsZero() {
		all[0] = warn("audit log", "Sign up once, and run the doctor again after five minutes.", "it can be read, and has no record of the last %v", retention)
	}
	if !a.Kept && retention > kept {
		return append(all, warn("audit retention", "In signup-sync.yaml: sync: { auditRetention: 168h }\nEntra admin center > Billing > Licenses shows whether there is Microsoft Entra ID P1, with which the log is kept for 720h.",
			"there is no record as old as sync.auditRetention (%v): the log is not kept for so long, or the tenant is younger", retention))
	}
	if !a.Kept {
		return append(all, good("audit retention", "every tenant keeps the log for %v, by Microsoft's word; there is no record yet by which that could be seen", kept))
	}
	return append(all, good("audit retention", "the log is kept for %v, as sync.auditRetention says", retention))
}

// age is how long ago something was, in words short enough for a table.
func age(now, then time.Time) string {
	d := now.Sub(then)
	if d > time.Hour {
		return inWords(d.Round(time.Minute))
	}
	return inWords(max(d, 0).Round(time.Second))
}

// examineAttributes compares the custom attributes of the tenant with what the expressions make of them.
func examineAttributes(ctx context.Context, p *patient) []finding {
	var names []string
	for _, name := range p.app.config.Mapping.Attributes() {
		if kind, err := signup.ParseAttribute(name); err == nil && kind == signup.CustomAttribute {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return []finding{good("custom attributes", "none is configured")}
	}
	types, err := p.app.tenant.AttributeTypes(ctx)
	if err != nil && p.app.config.Profile.ExtensionsApp != "" {
		return []finding{notAsked("custom attributes", "Entra admin center > External Identities > Custom user attributes: there should be "+strings.Join(names, ", "),
			"with profile.extensionsApp the app does not need the permission for it (%s)", reasonOf(err))}
	}
	if err != nil {
		return p.unanswered(ctx, "custom attributes", "Application.", err)
	}
	all := unfit(p.app.config.Mapping.AttributeUses(), types)
	for _, name := range names {
		if _, there := typeOf(types, name); !there {
			all = append(all, fail("missing "+name, fmt.Sprintf("Entra admin center > External Identities > Custom user attributes > Add > Name: %s", name), "the tenant has no custom attribute of that name, and everyone's profile waits for it"))
		}
	}
	if len(all) == 0 {
		all = append(all, good("custom attributes", "the tenant has all %d, of types that fit: %s", len(names), strings.Join(names, ", ")))
	}
	return all
}

// unfit finds the attributes whose type is not the one that an expression takes them for: one line each.
func unfit(uses []pipeline.AttributeUse, types map[string]signup.AttributeType) []finding {
	var all []finding
	for _, u := range uses {
		has, there := typeOf(types, u.Name)
		said := slices.ContainsFunc(all, func(f finding) bool { return f.Name == "type "+u.Name })
		if there && has != u.Type && !said {
			all = append(all, fail("type "+u.Name, fmt.Sprintf("Change the expression at %s in signup-sync.yaml: an attribute keeps the type that it was made with.\nEntra admin center > External Identities > Custom user attributes > %s", strings.TrimPrefix(u.Path, "$."), u.Name),
				"the tenant's attribute is of type %s, and %s takes it for a %s: it would never match", wordOf(has), strings.TrimPrefix(u.Path, "$."), wordOf(u.Type)))
		}
	}
	return all
}

func wordOf(t signup.AttributeType) string {
	if t == "" {
		return "one that expressions cannot use"
	}
	return string(t)
}

// typeOf finds an attribute by its name, in any letter case.
func typeOf(types map[string]signup.AttributeType, name string) (signup.AttributeType, bool) {
	for n, t := range types {
		if strings.EqualFold(n, name) {
			return t, true
		}
	}
	return "", false
}

// examineDomain looks for the domain of user principal names among those that the tenant has verified.
func examineDomain(ctx context.Context, p *patient) []finding {
	domain := p.app.config.Profile.UserPrincipalNameDomain
	if domain == "" {
		return []finding{good("domain", "users keep the one that they have")}
	}
	o, err := p.organized(ctx)
	switch {
	case err != nil:
		return p.unanswered(ctx, "domain", "User.", err)
	case !slices.ContainsFunc(o.Domains, func(d string) bool { return strings.EqualFold(d, domain) }):
		return []finding{fail("domain", "Entra admin center > Domain names > Add custom domain > Verify\nor change profile.userPrincipalNameDomain", "the tenant has not verified %s, and everyone's profile waits for it", domain)}
	}
	return []finding{good("domain", "the tenant has verified %s", domain)}
}
