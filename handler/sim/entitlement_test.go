package sim_test

import (
	"testing"
	"time"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const (
	pack     = "a914b616-e04e-476b-aa37-91038f0b165b"
	policy   = "2264bf65-76ba-417b-a27d-54d291f0cbc8"
	packages = "/v1.0/identityGovernance/entitlementManagement"
)

func withPackages() sim.TenantOptions {
	o := calm()
	o.EntitlementManagement, o.DeliveryTime = true, 3*time.Minute
	o.AccessPackages = []sim.AccessPackage{{ID: pack, Policies: []string{policy}}, {ID: staff, Policies: []string{synced}}}
	return o
}

func (r *rig) assign(id signup.UserID, pack, policy string) answer {
	r.Helper()
	return r.send("POST", packages+"/assignmentRequests",
		`{"requestType":"adminAdd","assignment":{"targetId":"`+string(id)+`","assignmentPolicyId":"`+policy+`","accessPackageId":"`+pack+`"}}`)
}

// states are those of the user's first assignment and request, as a list shows them.
func (r *rig) states(id signup.UserID) string {
	r.Helper()
	first := func(path, expand, about string) string {
		rows := r.get(packages+path, "$expand", expand, "$filter", "accessPackage/id eq '"+pack+"' and "+about+"/objectId eq '"+string(id)+"'").rows()
		if len(rows) == 0 {
			return "none"
		}
		return rows[0]["state"].(string)
	}
	return first("/assignmentRequests", "assignment($expand=target)", "assignment/target") + " " + first("/assignments", "target,accessPackage", "target")
}

func TestAssignmentsAreDeliveredLater(t *testing.T) {
	r := serve(t, withPackages())
	r.as("EntitlementManagement.ReadWrite.All")
	ids := r.people(3)
	r.tenant.FailDeliveries(1)
	r.want(r.assign(ids[1], pack, policy), 201, "")
	if a := r.assign(ids[0], pack, policy); a.status != 201 || a.body["state"] != "submitted" {
		t.Errorf("got %d %s", a.status, a.raw)
	}
	step := func(after time.Duration, want, failing string) {
		t.Helper()
		r.clock.Advance(after)
		if got := r.states(ids[0]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := r.states(ids[1]); got != failing {
			t.Errorf("got %q of the one that fails, want %q", got, failing)
		}
	}
	step(0, "submitted none", "submitted none")
	r.want(r.assign(ids[0], pack, policy), 400, "InvalidRequest")
	step(time.Minute, "delivering delivering", "delivering delivering")
	r.want(r.assign(ids[0], pack, policy), 400, "InvalidRequest")
	step(2*time.Minute, "delivered delivered", "deliveryFailed deliveryFailed")
	r.want(r.assign(ids[0], pack, policy), 400, "InvalidRequest")
	r.want(r.assign(ids[1], pack, policy), 201, "") // after a failure there may be another
	r.tenant.EndAssignments(ids[0], "expired")
	step(0, "delivered expired", "deliveryFailed deliveryFailed")
	r.want(r.assign(ids[0], pack, policy), 201, "")
	r.tenant.EndAssignments(ids[0], "denied")
	if all := r.tenant.Assignments(); len(all) != 4 || all[3].RequestState != "denied" || all[3].ID != "" || all[1].State != "expired" || all[1].ID == "" {
		t.Errorf("got %+v", all)
	}
	r.want(r.assign(ids[2], pack, synced), 400, "InvalidRequest") // a policy of another package
	r.want(r.assign("75b523ca-d064-4ddf-80af-87738f504026", pack, policy), 400, "InvalidRequest")
}

func TestEntitlementManagementIsForWorkforceTenants(t *testing.T) {
	kind := func(r *rig) any {
		r.as("Organization.Read.All")
		return r.get("/v1.0/organization", "$select", "id,tenantType").rows()[0]["tenantType"]
	}
	r := serve(t, calm())
	if got := kind(r); got != "CIAM" {
		t.Errorf("got type %v", got)
	}
	r.as("EntitlementManagement.ReadWrite.All")
	r.want(r.get(packages+"/accessPackages/"+pack), 403, "UnAuthorized")
	r = serve(t, withPackages())
	if got := kind(r); got != "AAD" {
		t.Errorf("got type %v", got)
	}
	r.as("EntitlementManagement.Read.All")
	r.want(r.get(packages+"/accessPackages/"+pack), 200, "")
	r.want(r.get(packages+"/accessPackages/"+dynamic), 404, "Request_ResourceNotFound")
	r.want(r.get(packages+"/assignmentPolicies/"+dynamic), 404, "Request_ResourceNotFound")
	if b := r.get(packages+"/assignmentPolicies/"+policy, "$expand", "accessPackage").body; b["accessPackage"].(map[string]any)["id"] != pack {
		t.Errorf("got policy %v", b)
	}
	r.want(r.assign("75b523ca-d064-4ddf-80af-87738f504026", pack, policy), 403, "UnAuthorized")
	r.want(r.get(packages+"/assignments", "$filter", "target/displayName eq 'x'"), 400, "InvalidFilter")
}

func TestAssignmentRequestsShowLate(t *testing.T) {
	o := withPackages()
	o.InstantReplicas = false
	r := serve(t, o)
	r.as("EntitlementManagement.ReadWrite.All")
	none := time.Duration(0)
	id := r.tenant.SignUp(sim.Person{Email: "a@example.com", ReplicaLag: &none})
	r.want(r.assign(id, pack, policy), 201, "")
	if got := r.states(id); got != "none none" {
		t.Errorf("got %q at once", got)
	}
	r.clock.Advance(10 * time.Second)
	if got := r.states(id); got != "submitted none" {
		t.Errorf("got %q after 10 s", got)
	}
}
