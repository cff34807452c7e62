package sim

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// permissions are the application permissions that allow each call, from the pages of Microsoft's reference, the least
// first. That who may read users sees the tenant's own object is an assumption.
var permissions = map[string][]string{
	"GET /auditLogs/directoryAudits":                 {"AuditLog.Read.All", "Directory.Read.All"},
	"GET /auditLogs/directoryAudits/{id}":            {"AuditLog.Read.All", "Directory.Read.All"},
	"GET /auditLogs/signUps":                         {"AuditLog.Read.All"},
	"GET /users":                                     {"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"GET /users/delta":                               {"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"GET /users/{id}":                                {"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"PATCH /users/{id}":                              {"User.ReadWrite.All", "Directory.ReadWrite.All"},
	"GET /applications":                              {"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All"},
	"GET /applications/{id}/extensionProperties":     {"Application.Read.All", "Application.ReadWrite.All", "Directory.Read.All"},
	"GET /organization":                              {"User.Read.All", "User.ReadWrite.All", "Organization.Read.All", "Directory.Read.All"},
	"GET /domains":                                   {"Domain.Read.All", "Directory.Read.All"},
	"GET /policies/authorizationPolicy":              {"Policy.Read.All", "Policy.ReadWrite.Authorization"},
	"PATCH /policies/authorizationPolicy":            {"Policy.ReadWrite.Authorization"},
	"PATCH /identity/authenticationEventsFlows/{id}": {"EventListener.ReadWrite.All"},
	"POST /invitations":                              {"User.Invite.All", "User.ReadWrite.All", "Directory.ReadWrite.All"},
	"GET /identity/authenticationEventsFlows":        {"EventListener.Read.All", "EventListener.ReadWrite.All"},
	"GET /groups/{id}":                               {"GroupMember.Read.All", "GroupMember.ReadWrite.All", "Group.Read.All", "Group.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"PATCH /groups/{id}":                             {"GroupMember.ReadWrite.All", "Group.ReadWrite.All", "Directory.ReadWrite.All"},
	"POST /groups/{id}/members/$ref":                 {"GroupMember.ReadWrite.All", "Group.ReadWrite.All", "Directory.ReadWrite.All"},
	"POST /users/{id}/checkMemberGroups":             {"GroupMember.Read.All", "GroupMember.ReadWrite.All", "Group.Read.All", "Group.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"},
	"GET /identityGovernance/entitlementManagement/accessPackages/{id}":     {"EntitlementManagement.Read.All", "EntitlementManagement.ReadWrite.All"},
	"GET /identityGovernance/entitlementManagement/assignmentPolicies/{id}": {"EntitlementManagement.Read.All", "EntitlementManagement.ReadWrite.All"},
	"GET /identityGovernance/entitlementManagement/assignments":             {"EntitlementManagement.Read.All", "EntitlementManagement.ReadWrite.All"},
	"GET /identityGovernance/entitlementManagement/assignmentRequests":      {"EntitlementManagement.Read.All", "EntitlementManagement.ReadWrite.All"},
	"POST /identityGovernance/entitlementManagement/assignmentRequests":     {"EntitlementManagement.ReadWrite.All"},
}

// Every route refuses an app that has every permission but those which allow the call, and each of those is enough.
func TestEveryRouteWantsItsPermission(t *testing.T) {
	tenant := NewTenant(TenantOptions{EntitlementManagement: true, InstantReplicas: true, Throttle: ThrottleOff})
	all := map[string]bool{}
	for _, roles := range permissions {
		for _, r := range roles {
			all[r] = true
		}
	}
	every := slices.Sorted(maps.Keys(all))
	call := func(r route, roles ...string) (int, string) {
		path := "/beta" + strings.ReplaceAll(r.template, "{id}", "75b523ca-d064-4ddf-80af-87738f504026")
		req := httptest.NewRequest(r.method, path, strings.NewReader("{}"))
		req.Header.Set("Authorization", "Bearer "+Token(Claims{Audience: graphAudience[0], Tenant: tenant.ID(), Roles: roles, Expires: time.Now().Add(time.Hour).Unix()}))
		w := httptest.NewRecorder()
		tenant.ServeHTTP(w, req)
		var body graphError
		_ = json.Unmarshal(w.Body.Bytes(), &body)
		return w.Code, body.Error.Code
	}
	codes := map[string]string{}
	for _, r := range routes {
		name := r.method + " " + r.template
		want := permissions[name]
		if want == nil {
			t.Errorf("%s is new: write into permissions what allows it", name)
			continue
		}
		var enough []string
		for _, role := range every {
			if status, _ := call(r, role); status != http.StatusForbidden {
				enough = append(enough, role)
			}
		}
		if diff := cmp.Diff(enough, slices.Sorted(slices.Values(want))); diff != "" {
			t.Errorf("%s allows (-got +want):\n%s", name, diff)
		}
		status, code := call(r, slices.DeleteFunc(slices.Clone(every), func(role string) bool { return slices.Contains(want, role) })...)
		if status != http.StatusForbidden {
			t.Errorf("%s with the other permissions: got %d", name, status)
		}
		codes[code] = name
	}
	want := []string{"AADB2C", "Authorization_RequestDenied", "UnAuthorized"} // of user flows, the directory, and entitlement management
	if diff := cmp.Diff(slices.Sorted(maps.Keys(codes)), want); diff != "" {
		t.Errorf("codes (-got +want):\n%s", diff)
	}
}
