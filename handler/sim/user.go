package sim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// userSchema is what users can be filtered by without an advanced query (docs: user resource, properties).
var userSchema = schema{
	"id":                              {kind: "fold", ops: "eq in"},
	"createdDateTime":                 {kind: "time", ops: "eq ge le"},
	"creationType":                    {kind: "fold", ops: "eq"},
	"userPrincipalName":               {kind: "fold", ops: "eq startswith"},
	"displayName":                     {kind: "fold", ops: "eq startswith"},
	"mail":                            {kind: "fold", ops: "eq in startswith"},
	"otherMails/any/":                 {kind: "fold", ops: "eq in"},
	"userType":                        {kind: "fold", ops: "eq"},
	"externalUserState":               {kind: "fold", ops: "eq"},
	"accountEnabled":                  {kind: "flag", ops: "eq"},
	"identities/any/issuer":           {kind: "fold", ops: "eq"},
	"identities/any/issuerAssignedId": {kind: "fold", ops: "eq"},
	"identities/any/signInType":       {kind: "fold", ops: "eq"},
}

// defaultProperties come without $select (docs: user resource); everything else must be asked for.
var defaultProperties = []string{"businessPhones", "displayName", "givenName", "jobTitle", "mail", "mobilePhone",
	"officeLocation", "preferredLanguage", "surname", "userPrincipalName", "id"}

// selectable are the further properties that this simulation knows.
var selectable = []string{"otherMails", "identities", "creationType", "createdDateTime", "userType", "externalUserState",
	"externalUserStateChangeDateTime", "accountEnabled", "country", "city", "employeeId", "usageLocation", "companyName",
	"department", "postalCode", "state", "streetAddress", "proxyAddresses", "onPremisesExtensionAttributes",
	"onPremisesSyncEnabled"}

// maxIn is how many values "in" takes (docs: filter query parameter: 15 expressions in a filter clause).
const maxIn = 15

// maxUserPage and userPage are the largest and the default $top of users (docs: List users).
const (
	maxUserPage = 999
	userPage    = 100
)

// getUser reads by id or user principal name, from one replica.
func (t *Tenant) getUser(c *graphCall) reply {
	props, bad := t.projection(c)
	if bad != nil {
		return *bad
	}
	u := t.find(c.vars[0])
	if u == nil {
		return notFound(c.vars[0])
	}
	p := u.at(c.replica, c.now)
	if p == nil {
		return notFound(c.vars[0])
	}
	body := project(p, props)
	names := ""
	if c.query.Has("$select") {
		names = "(" + strings.Join(props, ",") + ")"
	}
	body["@odata.context"] = c.base() + "/$metadata#users" + names + "/$entity"
	return ok(body)
}

func (t *Tenant) find(key string) *resident {
	if id, err := signup.ParseUserID(key); err == nil {
		return t.users[id]
	}
	if !strings.Contains(key, "@") {
		return nil
	}
	for _, u := range t.order {
		if strings.EqualFold(u.upn, key) && !u.deleted() {
			return u
		}
	}
	return nil
}

// projection is the list of properties that a call asks for.
func (t *Tenant) projection(c *graphCall) ([]string, *reply) {
	names := c.selected()
	if names == nil {
		return defaultProperties, nil
	}
	for _, n := range names {
		if slices.Contains(defaultProperties, n) || slices.Contains(selectable, n) || t.attribute(n) != nil {
			continue
		}
		r := badRequest("Parsing OData Select and Expand failed: Could not find a property named '" + n + "' on type 'microsoft.graph.user'.")
		return nil, &r
	}
	return names, nil
}

// project leaves the asked-for properties; one without a value is null, an extension without a value is absent.
func project(props map[string]any, names []string) map[string]any {
	out := make(map[string]any, len(names)+1)
	for _, n := range names {
		v, has := props[n]
		if !has && strings.HasPrefix(n, "extension_") {
			continue
		}
		if !has && (n == "businessPhones" || n == "proxyAddresses" || n == "otherMails") {
			v = []any{}
		}
		if n == onPremises {
			v = allAttributes(v)
		}
		out[n] = v
	}
	return out
}

// listUsers serves a page of users from the index of one replica.
func (t *Tenant) listUsers(c *graphCall) reply {
	props, bad := t.projection(c)
	if bad != nil {
		return *bad
	}
	for _, name := range []string{"$orderby", "$search", "$skip"} {
		if c.query.Has(name) {
			return unsupported("Query option '" + name + "' is not supported for this query.")
		}
	}
	clauses, bad := userFilter(c.query.Get("$filter"))
	if bad != nil {
		return *bad
	}
	size, good := c.top()
	if !good || size > maxUserPage {
		return badRequest(fmt.Sprintf("Invalid page size specified: '%s'. Must be between 1 and 999 inclusive.", c.query.Get("$top")))
	}
	if size == 0 {
		size = userPage
	}
	pg, good := t.pages.resume(c, t.o.PagingLife)
	if !good {
		return refuse(http.StatusBadRequest, "Directory_ExpiredPageToken", "The specified page token value has expired and can no longer be included in your request.")
	}
	place := t.o.Replicas + pg.replica
	var rows []map[string]any
	for _, u := range t.candidates(clauses) {
		if p := u.at(place, c.now); p != nil && userSchema.match(clauses, p) {
			rows = append(rows, p)
		}
	}
	part, next, more := cut(rows, pg, size, func(p map[string]any) string { return p["id"].(string) })
	body := listPage{Context: c.base() + "/$metadata#users", Value: make([]map[string]any, len(part))}
	if c.query.Has("$select") {
		body.Context += "(" + strings.Join(props, ",") + ")"
	}
	for i, p := range part {
		body.Value[i] = project(p, props)
	}
	if more {
		next.made = c.now
		body.NextLink = c.nextLink(t.pages.give(next, t.o.PagingLife, t.ids))
	}
	return ok(body)
}

// listPage is a list answer.
type listPage struct {
	Context  string           `json:"@odata.context"`
	NextLink string           `json:"@odata.nextLink,omitempty"`
	Value    []map[string]any `json:"value"`
}

// userFilter reads a filter of users; the messages are those of the service as seen in the field.
func userFilter(s string) ([]clause, *reply) {
	if s == "" {
		return nil, nil
	}
	clauses, err := parseFilter(s)
	if err != nil {
		r := badRequest("Invalid filter clause: " + s)
		return nil, &r
	}
	for _, c := range clauses {
		if c.op == "in" && len(c.values) > maxIn {
			r := unsupported(fmt.Sprintf("Too many child clauses specified in search filter expression containing 'OR' operators: %d. Max allowed: %d.", len(c.values), maxIn))
			return nil, &r
		}
		hasIssuer := slices.ContainsFunc(c.inner, func(in clause) bool { return in.path == "issuer" })
		if c.path == "identities" && !hasIssuer {
			r := unsupported("Unsupported or invalid query filter clause specified for property 'identities' of resource 'User'.")
			return nil, &r
		}
	}
	if userSchema.check(clauses, true) != nil {
		r := unsupported("Unsupported or invalid query filter clause specified for property '" + clauses[0].path + "' of resource 'User'.")
		return nil, &r
	}
	return clauses, nil
}

// candidates are the users that a filter by id can mean, in the order of lists; all of them without one.
func (t *Tenant) candidates(clauses []clause) []*resident {
	for _, c := range clauses {
		if c.path != "id" {
			continue
		}
		var out []*resident
		for _, v := range c.values {
			if u := t.users[signup.UserID(strings.ToLower(v.text))]; u != nil && !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
		slices.SortFunc(out, func(a, b *resident) int { return strings.Compare(string(a.id), string(b.id)) })
		return out
	}
	return t.byID
}

// delta is not supported in external tenants (docs: delta query overview), and not simulated for others.
func (t *Tenant) delta(*graphCall) reply {
	return unsupported("Change enumeration is not supported for requested tenant.")
}

// userTime is how createdDateTime is written.
func userTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
