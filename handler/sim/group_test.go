package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	staff   = "02bd9fd6-8f93-4758-87c3-1fb73740a315"
	dynamic = "02bd9fd6-8f93-4758-87c3-1fb73740a316"
	synced  = "02bd9fd6-8f93-4758-87c3-1fb73740a317"
	mailed  = "02bd9fd6-8f93-4758-87c3-1fb73740a318"
	unified = "02bd9fd6-8f93-4758-87c3-1fb73740a319"
	roles   = "02bd9fd6-8f93-4758-87c3-1fb73740a320"
)

func withGroups() sim.TenantOptions {
	o := calm()
	o.Groups = []sim.Group{{ID: staff}, {dynamic, sim.DynamicGroup}, {synced, sim.SyncedGroup}, {mailed, sim.MailEnabledGroup},
		{unified, sim.UnifiedGroup}, {roles, sim.RoleAssignableGroup}}
	return o
}

func ref(id signup.UserID) string {
	return `"https://graph.microsoft.com/v1.0/directoryObjects/` + string(id) + `"`
}

func (r *rig) add(group string, id signup.UserID) answer {
	r.Helper()
	return r.send("POST", "/v1.0/groups/"+group+"/members/$ref", `{"@odata.id":`+ref(id)+`}`)
}

func (r *rig) bind(group string, ids ...signup.UserID) answer {
	r.Helper()
	var refs []string
	for _, id := range ids {
		refs = append(refs, ref(id))
	}
	return r.send("PATCH", "/v1.0/groups/"+group, `{"members@odata.bind":[`+strings.Join(refs, ",")+`]}`)
}

func (r *rig) people(n int) []signup.UserID {
	ids := make([]signup.UserID, n)
	for i := range ids {
		ids[i] = r.tenant.SignUp(sim.Person{Email: "someone@example.com"})
	}
	return ids
}

func TestAddMember(t *testing.T) {
	r := serve(t, withGroups())
	ids := r.people(1)
	r.want(r.add(staff, ids[0]), 204, "")
	r.want(r.add(staff, ids[0]), 400, "Request_BadRequest")
	if m := r.add(staff, ids[0]).message(); m != "One or more added object references already exist for the following modified properties: 'members'." {
		t.Errorf("got %q", m)
	}
	const nobody = "75b523ca-d064-4ddf-80af-87738f504026"
	r.want(r.add(staff, nobody), 404, "Request_ResourceNotFound")
	a := r.add("99999999-8f93-4758-87c3-1fb73740a315", ids[0])
	r.want(a, 404, "Request_ResourceNotFound")
	if !strings.Contains(a.message(), "99999999") {
		t.Errorf("got %q, want the group's id", a.message())
	}
	r.want(r.send("POST", "/v1.0/groups/"+staff+"/members/$ref", `{"@odata.id":"`+string(ids[0])+`"}`), 400, "Request_BadRequest")
	if diff := cmp.Diff(r.tenant.Members(staff), ids); diff != "" {
		t.Errorf("members (-got +want):\n%s", diff)
	}
	rows := r.get("/v1.0/auditLogs/directoryAudits", "$filter", "activityDisplayName eq 'Add member to group'").rows()
	if len(rows) != 1 || target(rows[0]) != string(ids[0]) || rows[0]["category"] != "GroupManagement" {
		t.Errorf("got audit rows %v", rows)
	}
}

func TestBindMembersIsAllOrNothing(t *testing.T) {
	r := serve(t, withGroups())
	ids := r.people(23)
	r.want(r.bind(staff, ids[:20]...), 204, "")
	r.want(r.bind(staff, ids[19:22]...), 400, "Request_BadRequest") // one is a member
	r.want(r.bind(staff, ids[20], "75b523ca-d064-4ddf-80af-87738f504026"), 404, "Request_ResourceNotFound")
	r.want(r.bind(staff, ids[20], ids[20]), 400, "Request_BadRequest")
	r.want(r.bind(staff), 400, "Request_BadRequest")
	r.want(r.bind(unified, ids[:21]...), 400, "Request_BadRequest") // too many
	r.want(r.send("PATCH", "/v1.0/groups/"+staff, `{"displayName":"x","members@odata.bind":[`+ref(ids[21])+`]}`), 400, "Request_BadRequest")
	if got := len(r.tenant.Members(staff)) + len(r.tenant.Members(unified)); got != 20 {
		t.Errorf("got %d members, want 20", got)
	}
}

func TestGroupsThatTakeNoMembers(t *testing.T) {
	r := serve(t, withGroups())
	ids := r.people(2)
	for group, want := range map[string]struct {
		status int
		code   string
		field  string
	}{
		dynamic: {403, "Authorization_RequestDenied", "groupTypes"}, synced: {400, "Request_BadRequest", "onPremisesSyncEnabled"},
		mailed: {400, "Request_BadRequest", "mailEnabled"}, roles: {403, "Authorization_RequestDenied", "isAssignableToRole"},
	} {
		r.want(r.add(group, ids[0]), want.status, want.code)
		r.want(r.bind(group, ids...), want.status, want.code)
		b := r.get("/v1.0/groups/"+group, "$select", "id,"+want.field).body
		list, _ := b[want.field].([]any)
		if b["id"] != group || b[want.field] != true && (len(list) != 1 || list[0] != "DynamicMembership") {
			t.Errorf("got group %v", b)
		}
	}
	r.want(r.add(unified, ids[0]), 204, "")
	r.as("GroupMember.ReadWrite.All", "RoleManagement.ReadWrite.Directory")
	r.want(r.add(roles, ids[0]), 204, "")
	r.as("User.ReadWrite.All")
	r.want(r.add(staff, ids[0]), 403, "Authorization_RequestDenied")
	r.want(r.get("/v1.0/groups/"+staff), 403, "Authorization_RequestDenied")
}

func TestMembershipsShowLate(t *testing.T) {
	o := withGroups()
	o.InstantReplicas = false
	r := serve(t, o)
	none := time.Duration(0)
	id := r.tenant.SignUp(sim.Person{Email: "a@example.com", ReplicaLag: &none})
	check := func() (n int) {
		for range 3 {
			list, _ := r.send("POST", "/v1.0/users/"+string(id)+"/checkMemberGroups", `{"groupIds":["`+staff+`"]}`).body["value"].([]any)
			n += len(list)
		}
		return n
	}
	r.want(r.add(staff, id), 204, "")
	if n := check(); n != 0 {
		t.Errorf("%d replicas show it at once", n)
	}
	r.want(r.add(staff, id), 400, "Request_BadRequest")
	r.clock.Advance(10 * time.Second)
	if n := check(); n != 3 {
		t.Errorf("%d replicas show it after 10 s, want 3", n)
	}
	lag := time.Hour
	late := r.tenant.SignUp(sim.Person{Email: "b@example.com", ReplicaLag: &lag})
	r.want(r.add(staff, late), 404, "Request_ResourceNotFound")
}
