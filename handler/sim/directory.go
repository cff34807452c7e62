package sim

import (
	"slices"
	"strings"
)

// Applications. The b2c-extensions-app holds the custom attributes; its id is that of the published samples.
const (
	extensionsAppID  = "6ea3bc85-aec2-4b1c-92ff-4a117afb6621"
	extensionsObject = "1d5d4f5c-6f0c-4d4b-8f1e-2f6f0d9f2a11"
	ownObject        = "5b1f6a0e-2f57-4b61-8a43-6c3d6f2a9b02" // the calling app's own registration
	extensionPrefix  = "extension_6ea3bc85aec24b1c92ff4a117afb6621_"
)

// attribute is a directory extension; a custom attribute has the type of the first value collected, and is a String
// until then.
type attribute struct {
	name     string // extension_<app id without dashes>_<short name>
	id       string
	dataType string
}

func (a *attribute) kind() string {
	if a.dataType == "" {
		return "String"
	}
	return a.dataType
}

// attribute finds one by its full name.
func (t *Tenant) attribute(name string) *attribute {
	i := slices.IndexFunc(t.attrs, func(a attribute) bool { return a.name == name })
	if i < 0 {
		return nil
	}
	return &t.attrs[i]
}

// collect takes a value of a custom attribute from a sign-up page; a user flow defines the attributes it collects.
func (t *Tenant) collect(short string, value any) {
	a := t.attribute(extensionPrefix + short)
	if a == nil {
		t.attrs = append(t.attrs, attribute{name: extensionPrefix + short, id: guid(t.ids)})
		a = &t.attrs[len(t.attrs)-1]
	}
	if a.dataType != "" {
		return
	}
	switch value.(type) {
	case bool:
		a.dataType = "Boolean"
	case int, int64, float64:
		a.dataType = "Integer"
	default:
		a.dataType = "String"
	}
}

// domains are the verified ones, the initial one first.
func (t *Tenant) domains() []string { return append([]string{t.o.Domain}, t.o.Domains...) }

func (t *Tenant) defaultDomain() string { return t.domains()[min(1, len(t.o.Domains))] }

var appSchema = schema{
	"displayName": {kind: "fold", ops: "eq startswith"},
	"appId":       {kind: "fold", ops: "eq"},
	"id":          {kind: "fold", ops: "eq"},
}

// listApplications knows the b2c-extensions-app and the app that calls (docs: List applications).
func (t *Tenant) listApplications(c *graphCall) reply {
	var clauses []clause
	if f := c.query.Get("$filter"); f != "" {
		var err error
		if clauses, err = parseFilter(f); err != nil || appSchema.check(clauses, true) != nil {
			return unsupported("Unsupported or invalid query filter clause specified for resource 'Application'.")
		}
	}
	apps := []map[string]any{
		{"id": extensionsObject, "appId": extensionsAppID, "displayName": "b2c-extensions-app. Do not modify. Used by AADB2C for storing user data.", "signInAudience": "AzureADMyOrg"},
		{"id": ownObject, "appId": c.app, "displayName": "signup-sync", "signInAudience": "AzureADMyOrg"},
	}
	apps = slices.DeleteFunc(apps, func(a map[string]any) bool { return !appSchema.match(clauses, a) })
	return ok(t.wholeList(c, "applications", apps))
}

// listExtensions serves the extension properties of an application (docs: List extensionProperties).
func (t *Tenant) listExtensions(c *graphCall) reply {
	prefix := extensionPrefix
	switch c.vars[0] {
	case extensionsObject:
	case ownObject:
		prefix = "extension_" + strings.ReplaceAll(c.app, "-", "") + "_"
	default:
		return notFound(c.vars[0])
	}
	rows := []map[string]any{}
	for _, a := range t.attrs {
		if strings.HasPrefix(a.name, prefix) {
			rows = append(rows, map[string]any{"id": a.id, "deletedDateTime": nil, "appDisplayName": "", "dataType": a.kind(),
				"isMultiValued": false, "isSyncedFromOnPremises": false, "name": a.name, "targetObjects": []string{"User"}})
		}
	}
	return ok(t.wholeList(c, "applications('"+c.vars[0]+"')/extensionProperties", rows))
}

// tenantTypes are what Graph calls them (docs: organization, tenantType; of an external tenant as its answers show it).
var tenantTypes = map[TenantType]string{External: "CIAM", Workforce: "AAD", B2C: "AAD B2C"}

// organization serves the tenant's own object (docs: List organization). With no more than a permission to read users its
// properties but for id, displayName and verifiedDomains are null; the page says so of User.Read.
func (t *Tenant) organization(c *graphCall) reply {
	var domains []map[string]any
	for _, d := range t.domains() {
		domains = append(domains, map[string]any{"capabilities": "Email, OfficeCommunicationsOnline", "isDefault": d == t.defaultDomain(),
			"isInitial": d == t.o.Domain, "name": d, "type": "Managed"})
	}
	org := map[string]any{"id": t.o.ID, "displayName": "Contoso", "verifiedDomains": domains, "tenantType": nil, "countryLetterCode": nil, "technicalNotificationMails": nil}
	if slices.ContainsFunc(c.roles, func(r string) bool { return slices.Contains(orgWholes, r) }) {
		org["tenantType"], org["countryLetterCode"], org["technicalNotificationMails"] = tenantTypes[t.o.Type], "DE", []string{}
	}
	return ok(t.wholeList(c, "organization", []map[string]any{org}))
}

// listDomains serves the domains (docs: List domains); one of them is not verified.
func (t *Tenant) listDomains(c *graphCall) reply {
	rows := []map[string]any{{"id": "unverified.example.com", "isDefault": false, "isInitial": false, "isVerified": false, "authenticationType": "Managed"}}
	for _, d := range t.domains() {
		rows = append(rows, map[string]any{"id": d, "isDefault": d == t.defaultDomain(), "isInitial": d == t.o.Domain,
			"isVerified": true, "authenticationType": "Managed"})
	}
	return ok(t.wholeList(c, "domains", rows))
}

// wholeList is a list that fits into one page, trimmed to $select.
func (t *Tenant) wholeList(c *graphCall, context string, rows []map[string]any) listPage {
	body := listPage{Context: c.base() + "/$metadata#" + context, Value: rows}
	names := c.selected()
	if names == nil {
		return body
	}
	body.Context += "(" + strings.Join(names, ",") + ")"
	for i, r := range rows {
		kept := map[string]any{}
		for _, n := range names {
			if v, has := r[n]; has {
				kept[n] = v
			}
		}
		rows[i] = kept
	}
	return body
}
