package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	abstractions "github.com/microsoft/kiota-abstractions-go"

	"signup-sync/handler/signup"
)

// maxGroups keeps what one user costs in writes within reason.
const maxGroups = 20

// Groups makes users members of groups of the tenant. A membership has no id of its own, so the account is the user.
type Groups struct {
	tenant *Tenant
	groups []string
}

var (
	_ signup.Connector = (*Groups)(nil)
	_ signup.Batcher   = (*Groups)(nil)
)

// NewGroups makes the connector to the groups with those object ids. The errors are all that is wrong with them; the
// tenant is not asked, and may be nil as long as nobody is associated.
func NewGroups(t *Tenant, ids []string) (*Groups, []error) {
	g := &Groups{tenant: t}
	var errs []error
	if len(ids) > maxGroups {
		errs = append(errs, fmt.Errorf("settings.groups: wants at most %d, has %d", maxGroups, len(ids)))
	}
	for i, id := range ids {
		group, err := signup.ParseUserID(id)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("settings.groups: number %d is not an object id, which is a GUID", i+1))
		case slices.Contains(g.groups, string(group)):
			errs = append(errs, fmt.Errorf("settings.groups: number %d is there twice", i+1))
		}
		g.groups = append(g.groups, string(group))
	}
	return g, errs
}

// Associate makes the user a member of every group. Beside what the interface promises, the error's code is "not-found"
// (transient) while a new user is not known everywhere, "group-missing" and "group-unsuitable" (systemic).
func (g *Groups) Associate(ctx context.Context, req signup.Request) (signup.Account, error) {
	r := g.AssociateAll(ctx, []signup.Request{req})[0]
	return r.Account, r.Err
}

// AssociateAll adds the users to one group after the other. Who is in some of the groups when an error comes is added to
// the others by a later call.
func (g *Groups) AssociateAll(ctx context.Context, reqs []signup.Request) []signup.Result {
	results := make([]signup.Result, len(reqs))
	for _, group := range g.groups {
		var left []int
		for i := range results {
			if results[i].Err == nil {
				left = append(left, i)
			}
		}
		g.join(ctx, group, reqs, results, left)
	}
	for i, req := range reqs {
		if results[i].Err != nil {
			results[i] = signup.Result{Err: everybodys(results[i].Err)}
			continue
		}
		results[i].Account.ID = string(req.User)
	}
	return results
}

// everybodys takes the status off a 403: what is refused here is the app, whoever the user is, and the engine would end a
// user who meets one for a day.
func everybodys(err error) error {
	if e, ok := errors.AsType[*signup.Error](err); ok && e.Status == http.StatusForbidden {
		e.Status = 0
	}
	return err
}

// join adds those who are left to one group: several by one write, which Graph carries out for all or for nobody. When it
// does not, for one who is a member or is not known yet, each is added alone. So is each after a 403, since not every page
// grants that write to the same permission.
func (g *Groups) join(ctx context.Context, group string, reqs []signup.Request, results []signup.Result, left []int) {
	everyone := func(from int, err error) {
		for _, i := range left[from:] {
			results[i].Err = err
		}
	}
	if len(left) > 1 {
		var users []signup.UserID
		for _, i := range left {
			users = append(users, reqs[i].User)
		}
		err := g.addAll(ctx, group, users)
		if err == nil {
			for _, i := range left {
				results[i].Account.Created = true
			}
			return
		}
		if e, ok := errors.AsType[*signup.Error](err); !ok || e.Status != 400 && e.Status != 403 && e.Status != 404 {
			everyone(0, err)
			return
		}
	}
	known := false // the group is there: whoever is not found is a user
	for n, i := range left {
		created, err := g.add(ctx, group, reqs[i].User)
		if isAbsent(err) && !known {
			if bad := g.examine(ctx, group); bad != nil {
				err = bad
			} else {
				known = true
			}
		}
		if err != nil && !isAbsent(err) && signup.ClassOf(err) != signup.Permanent { // not about this user
			everyone(n, err)
			return
		}
		results[i].Account.Created = results[i].Account.Created || created
		results[i].Err = err
	}
}

// addAll adds at most 20 users by one PATCH.
func (g *Groups) addAll(ctx context.Context, group string, users []signup.UserID) error {
	c := g.tenant.client
	var members []string
	for _, id := range users {
		members = append(members, c.link("/directoryObjects/"+string(id)))
	}
	err := c.do(ctx, request{
		kind: memberCall,
		info: c.direct(abstractions.PATCH, c.link("/groups/"+group), map[string]any{"members@odata.bind": members}),
	})
	if err != nil {
		return fmt.Errorf("add %d members: %w", len(users), err)
	}
	return nil
}

// add adds one user; created is false for one who was a member already. Graph answers 400 for that and for a group that
// takes no members, with one code, so that only the message, whose wording is not contractual, tells them apart at once. A
// message that does not is settled by asking for the membership, and then for the group.
func (g *Groups) add(ctx context.Context, group string, user signup.UserID) (created bool, err error) {
	c := g.tenant.client
	member := false
	err = c.do(ctx, request{
		kind: memberCall,
		info: c.direct(abstractions.POST, c.link("/groups/"+group+"/members/$ref"),
			map[string]string{"@odata.id": c.link("/directoryObjects/" + string(user))}),
		refine: func(e *signup.Error, ge graphError) {
			refineAbsent(e, ge)
			member = e.Status == 400 && strings.Contains(strings.ToLower(ge.Message), "already exist")
		},
	})
	e, ok := errors.AsType[*signup.Error](err)
	switch {
	case err == nil:
		return true, nil
	case member:
		return false, nil
	case ok && e.Status == 400:
		if member, err := g.member(ctx, group, user); err != nil || member {
			return false, err
		}
		if bad := g.examine(ctx, group); bad != nil {
			return false, bad
		}
	case ok && e.Status == 403:
		if bad := g.examine(ctx, group); isUnsuitable(bad) {
			return false, bad
		}
	}
	return false, fmt.Errorf("add a member: %w", err)
}

// member asks whether the user is a member of the group, or of one in it.
func (g *Groups) member(ctx context.Context, group string, user signup.UserID) (is bool, err error) {
	c := g.tenant.client
	err = c.do(ctx, request{
		kind: memberCall,
		info: c.direct(abstractions.POST, c.link("/users/"+string(user)+"/checkMemberGroups"), map[string]any{"groupIds": []string{group}}),
		decode: func(d *decoder) error {
			is = false
			_, err := decodePage(d, func(d *decoder) error {
				var id string
				err := d.value(&id)
				is = is || strings.EqualFold(id, group)
				return err
			})
			return err
		},
		refine: refineAbsent,
	})
	if err != nil {
		return false, fmt.Errorf("ask for a membership: %w", err)
	}
	return is, nil
}

// Check reads every group, and says of each what keeps it from taking members.
func (g *Groups) Check(ctx context.Context) error {
	var errs []error
	for _, group := range g.groups {
		err := g.examine(ctx, group)
		if err != nil {
			errs = append(errs, err)
		}
		if err != nil && !isUnsuitable(err) {
			break // it is not about this group
		}
	}
	return errors.Join(errs...)
}

// examine reads a group; nil if members can be added to it, as far as can be seen.
func (g *Groups) examine(ctx context.Context, group string) error {
	c := g.tenant.client
	var x struct {
		ID             string   `json:"id"`
		Types          []string `json:"groupTypes"`
		Synced         bool     `json:"onPremisesSyncEnabled"`
		MailEnabled    bool     `json:"mailEnabled"`
		RoleAssignable bool     `json:"isAssignableToRole"`
	}
	err := c.do(ctx, request{
		kind: memberCall,
		info: c.direct(abstractions.GET, c.link("/groups/"+group,
			"$select", "id,groupTypes,onPremisesSyncEnabled,mailEnabled,securityEnabled,isAssignableToRole"), nil),
		decode: func(d *decoder) error {
			if err := d.whole(&x); err != nil {
				return err
			}
			if !strings.EqualFold(x.ID, group) {
				return badPage("the answer is about another group")
			}
			return nil
		},
		refine: refineAbsent,
	})
	if isAbsent(err) {
		return &signup.Error{Class: signup.Systemic, Code: "group-missing", Detail: "settings.groups: the tenant has no group " + group}
	}
	if err != nil {
		return fmt.Errorf("read group %s: %w", group, err)
	}
	why := ""
	switch {
	case slices.Contains(x.Types, "DynamicMembership"):
		why = "has its members by a rule"
	case x.Synced:
		why = "is kept by the directory on the premises"
	case x.MailEnabled && !slices.Contains(x.Types, "Unified"):
		why = "is mail-enabled, which Exchange keeps"
	case x.RoleAssignable:
		why = "can hold directory roles, and those who are let in become administrators"
	default:
		return nil
	}
	return &signup.Error{Class: signup.Systemic, Code: "group-unsuitable", Detail: "settings.groups: the group " + group + " " + why}
}

// isUnsuitable reports that it is the group that is wrong.
func isUnsuitable(err error) bool {
	e, ok := errors.AsType[*signup.Error](err)
	return ok && (e.Code == "group-missing" || e.Code == "group-unsuitable")
}
