package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"signup-sync/handler/signup"
)

// GroupKind is what a group is, beside a security group.
type GroupKind string

const (
	DynamicGroup        GroupKind = "dynamic"        // its members come by a rule
	SyncedGroup         GroupKind = "synced"         // kept on the premises
	MailEnabledGroup    GroupKind = "mailEnabled"    // a mail-enabled security group, kept by Exchange
	UnifiedGroup        GroupKind = "unified"        // a Microsoft 365 group, which has an address and takes members
	RoleAssignableGroup GroupKind = "roleAssignable" // can hold directory roles
)

// Group is a group of the tenant; "" is an ordinary security group.
type Group struct {
	ID   string // a GUID in lower case
	Kind GroupKind
}

// group is one with its members.
type group struct {
	Group
	members []membership // in the order of their addition
}

// membership shows at each replica from its own time on.
type membership struct {
	user  signup.UserID
	shows []time.Time
}

// maxBind is how many members one PATCH can add (docs: Add members, example 2).
const maxBind = 20

// Members are the ids of a group's members in the order of their addition, whatever the replicas show.
func (t *Tenant) Members(group string) []signup.UserID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []signup.UserID
	if g := t.group(group); g != nil {
		for _, m := range g.members {
			out = append(out, m.user)
		}
	}
	return out
}

func (t *Tenant) group(id string) *group {
	i := slices.IndexFunc(t.groups, func(g *group) bool { return strings.EqualFold(g.ID, id) })
	if i < 0 {
		return nil
	}
	return t.groups[i]
}

func (g *group) index(id signup.UserID) int {
	return slices.IndexFunc(g.members, func(m membership) bool { return m.user == id })
}

// getGroup serves a group's own properties (docs: Get group).
func (t *Tenant) getGroup(c *graphCall) reply {
	g := t.group(c.vars[0])
	if g == nil {
		return notFound(c.vars[0])
	}
	types := []string{}
	switch g.Kind {
	case DynamicGroup:
		types = append(types, "DynamicMembership")
	case UnifiedGroup:
		types = append(types, "Unified")
	}
	props := map[string]any{"id": g.ID, "displayName": "Group " + g.ID[:8], "groupTypes": types,
		"mailEnabled": g.Kind == MailEnabledGroup || g.Kind == UnifiedGroup, "securityEnabled": g.Kind != UnifiedGroup,
		"onPremisesSyncEnabled": nil, "isAssignableToRole": nil}
	if g.Kind == SyncedGroup {
		props["onPremisesSyncEnabled"] = true
	}
	if g.Kind == RoleAssignableGroup {
		props["isAssignableToRole"] = true
	}
	names := c.selected()
	if names == nil {
		names = []string{"id", "displayName", "groupTypes", "mailEnabled", "securityEnabled", "onPremisesSyncEnabled", "isAssignableToRole"}
	}
	body := map[string]any{"@odata.context": c.base() + "/$metadata#groups/$entity"}
	for _, n := range names {
		v, known := props[n]
		if !known {
			return badRequest("Parsing OData Select and Expand failed: Could not find a property named '" + n + "' on type 'microsoft.graph.group'.")
		}
		body[n] = v
	}
	return ok(body)
}

// addMember adds one member by reference (docs: Add members, example 1).
func (t *Tenant) addMember(c *graphCall) reply {
	body, bad := c.object()
	if bad != nil {
		return *bad
	}
	return t.add(c, []any{body["@odata.id"]})
}

// patchGroup adds up to 20 members or none (docs: Add members, example 2); other changes are not simulated.
func (t *Tenant) patchGroup(c *graphCall) reply {
	body, bad := c.object()
	if bad != nil {
		return *bad
	}
	refs, _ := body["members@odata.bind"].([]any)
	delete(body, "members@odata.bind")
	delete(body, "@odata.type")
	if len(body) > 0 || len(refs) == 0 || len(refs) > maxBind {
		return invalid(fmt.Sprintf("A value without a type name was found, or %d references: at most %d can be added.", len(refs), maxBind))
	}
	return t.add(c, refs)
}

// add adds all of the references, or refuses them all.
func (t *Tenant) add(c *graphCall, refs []any) reply {
	g := t.group(c.vars[0])
	if g == nil {
		return notFound(c.vars[0])
	}
	if bad := g.refuses(c); bad != nil {
		return *bad
	}
	var users []*resident
	for _, ref := range refs {
		id, good := referenced(ref)
		if !good {
			return invalid("Invalid object identifier in the reference.")
		}
		u := t.find(id)
		if u == nil || u.deleted() || u.at(c.replica, c.now) == nil {
			return notFound(id)
		}
		if g.index(u.id) >= 0 || slices.Contains(users, u) {
			return invalid("One or more added object references already exist for the following modified properties: 'members'.")
		}
		users = append(users, u)
	}
	for _, u := range users {
		m := membership{user: u.id}
		for range t.o.Replicas {
			m.shows = append(m.shows, c.now.Add(t.instantOr(upTo(t.draw(), 0, 10*time.Second))))
		}
		g.members = append(g.members, m)
		t.auditMember(c, u, g)
	}
	return reply{status: http.StatusNoContent}
}

// refuses is the answer of a group that takes no members from this caller.
func (g *group) refuses(c *graphCall) *reply {
	var r reply
	switch {
	case g.Kind == DynamicGroup, g.Kind == RoleAssignableGroup && !slices.Contains(c.roles, "RoleManagement.ReadWrite.Directory"):
		r = forbidden()
	case g.Kind == SyncedGroup:
		r = invalid("Unable to update the specified properties for on-premises mastered Directory Sync objects or objects currently undergoing migration.")
	case g.Kind == MailEnabledGroup:
		r = invalid("Cannot Update a mail-enabled security groups and or distribution list.")
	default:
		return nil
	}
	return &r
}

// referenced is the object id of a reference by URL.
func referenced(ref any) (string, bool) {
	s, _ := ref.(string)
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "", false
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) != 3 || parts[1] != "directoryObjects" && parts[1] != "users" {
		return "", false
	}
	_, err = signup.ParseUserID(parts[2])
	return parts[2], err == nil
}

// checkMemberGroups says which of the groups a user is in, as one replica has it (docs: Check member groups).
func (t *Tenant) checkMemberGroups(c *graphCall) reply {
	body, bad := c.object()
	if bad != nil {
		return *bad
	}
	u := t.find(c.vars[0])
	if u == nil || u.at(c.replica, c.now) == nil {
		return notFound(c.vars[0])
	}
	ids, _ := body["groupIds"].([]any)
	if len(ids) == 0 || len(ids) > maxBind {
		return invalid("Invalid value specified for property 'groupIds'.")
	}
	in := []string{}
	for _, id := range ids {
		s, _ := id.(string)
		if g := t.group(s); g != nil {
			if i := g.index(u.id); i >= 0 && !g.members[i].shows[c.replica].After(c.now) {
				in = append(in, g.ID)
			}
		}
	}
	return ok(map[string]any{"@odata.context": c.base() + "/$metadata#Collection(Edm.String)", "value": in})
}

// auditMember is the row of an added member (docs: audit activity reference, core directory, group management).
func (t *Tenant) auditMember(c *graphCall, u *resident, g *group) {
	chance := t.draw()
	upn, _ := u.last()["userPrincipalName"].(string)
	row := newRow("Add member to group", "Assign", u.id, upn, c.now, chance)
	row.Category = "GroupManagement"
	row.InitiatedBy.App = map[string]any{"appId": c.app, "displayName": "signup-sync", "servicePrincipalId": "5f7f1f6a-0000-4000-8000-000000000003", "servicePrincipalName": nil}
	row.TargetResources = append(row.TargetResources, auditTarget{ID: g.ID, Type: "Group", GroupType: new("azureAD"), ModifiedProperties: []auditChange{}})
	t.publish(row, Person{}, chance)
}
