package sim_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/sim"
)

func TestOrganizationShowsItsTypeToFew(t *testing.T) {
	for kind, want := range map[sim.TenantType]string{"": "CIAM", sim.External: "CIAM", sim.Workforce: "AAD", sim.B2C: "AAD B2C"} {
		o := calm()
		o.Type = kind
		r := serve(t, o)
		for role, whole := range map[string]bool{"Organization.Read.All": true, "Directory.Read.All": true, "User.Read.All": false, "User.ReadWrite.All": false} {
			r.as(role)
			org := r.get("/v1.0/organization").rows()[0]
			for property, open := range map[string]bool{"id": true, "displayName": true, "verifiedDomains": true, "tenantType": whole, "countryLetterCode": whole, "technicalNotificationMails": whole} {
				if value, there := org[property]; !there || (value != nil) != open {
					t.Errorf("%s with %s: %s is %v, %v", kind, role, property, value, there)
				}
			}
			if got := org["tenantType"]; whole && got != want {
				t.Errorf("%q: got %v, want %s", kind, got, want)
			}
			if org := r.get("/v1.0/organization", "$select", "id,tenantType").rows()[0]; len(org) != 2 || (org["tenantType"] != nil) != whole {
				t.Errorf("selected with %s: got %v", role, org)
			}
		}
	}
}

func TestAuthorizationPolicy(t *testing.T) {
	var want map[string]any
	if err := json.Unmarshal(sample(t, "authorization-policy.json"), &want); err != nil {
		t.Fatal(err)
	}
	o := calm()
	for range 4 {
		r := serve(t, o)
		r.as("Policy.Read.All")
		want["@odata.context"] = r.server.URL + "/v1.0/$metadata#policies/authorizationPolicy/$entity"
		want["allowedToSignUpEmailBasedSubscriptions"], want["allowEmailVerifiedUsersToJoinOrganization"] = !o.NoEmailSubscriptions, !o.NoVerifiedJoin
		if diff := cmp.Diff(r.get("/v1.0/policies/authorizationPolicy").body, want); diff != "" {
			t.Errorf("policy (-got +want):\n%s", diff)
		}
		if o.NoVerifiedJoin = !o.NoVerifiedJoin; !o.NoVerifiedJoin {
			o.NoEmailSubscriptions = true
		}
	}
}

func TestUserFlows(t *testing.T) {
	o := calm()
	o.Attributes = []string{"Favoritecolor"}
	o.UserFlows = []sim.UserFlow{
		{Name: "Woodgrove Drive User Flow", Attributes: []sim.FlowAttribute{{Name: "displayName"}, {Name: "Favoritecolor"}, {Name: "optIn", Type: "boolean"}, {Name: "size", Type: "int64"}}},
		{Name: "closed", Closed: true, UserType: "guest"},
	}
	r := serve(t, o)
	r.as("EventListener.Read.All", "Application.Read.All")
	rows := r.get("/v1.0/identity/authenticationEventsFlows").rows()
	var page struct{ Value []map[string]any }
	if err := json.Unmarshal(sample(t, "authentication-events-flows.json"), &page); err != nil {
		t.Fatal(err)
	}
	published := page.Value[0]
	if len(rows) != 2 || rows[0]["displayName"] != "Woodgrove Drive User Flow" || rows[0]["id"] == rows[1]["id"] {
		t.Fatalf("got %v", rows)
	}
	sameKeys(t, "flow", rows[0], published)
	for _, member := range []string{"onInteractiveAuthFlowStart", "onUserCreateStart", "conditions"} {
		if diff := cmp.Diff(rows[0][member], published[member]); diff != "" {
			t.Errorf("%s (-got +published):\n%s", member, diff)
		}
	}
	part := func(flow map[string]any, member string) map[string]any { return flow[member].(map[string]any) }
	sameKeys(t, "collection", part(rows[0], "onAttributeCollection"), part(published, "onAttributeCollection"))
	sameKeys(t, "methods", part(rows[0], "onAuthenticationMethodLoadStart"), part(published, "onAuthenticationMethodLoadStart"))
	attributes := func(flow map[string]any) (out []string) {
		for _, a := range part(flow, "onAttributeCollection")["attributes"].([]any) {
			m := a.(map[string]any)
			sameKeys(t, "attribute", m, part(published, "onAttributeCollection")["attributes"].([]any)[0].(map[string]any))
			out = append(out, fmt.Sprint(m["id"], " ", m["userFlowAttributeType"], " ", m["dataType"]))
		}
		return out
	}
	want := []string{"email builtIn string", "displayName builtIn string", r.tenant.Extension("Favoritecolor") + " custom string",
		r.tenant.Extension("optIn") + " custom boolean", r.tenant.Extension("size") + " custom int64"}
	if diff := cmp.Diff(attributes(rows[0]), want); diff != "" {
		t.Errorf("attributes (-got +want):\n%s", diff)
	}
	closed := rows[1]
	if part(closed, "onInteractiveAuthFlowStart")["isSignUpAllowed"] != false || part(closed, "onUserCreateStart")["userTypeToCreate"] != "guest" {
		t.Errorf("closed: got %v", closed)
	}
	r.want(r.get("/v1.0/identity/authenticationEventsFlows", "$filter", "displayName eq 'closed'"), 400, "Request_UnsupportedQuery")

	object := r.get("/v1.0/applications", "$filter", "startswith(displayName,'b2c-extensions-app')").rows()[0]["id"]
	types := map[string]any{}
	for _, row := range r.get(fmt.Sprintf("/v1.0/applications/%v/extensionProperties", object), "$select", "name,dataType,isMultiValued").rows() {
		types[row["name"].(string)] = row["dataType"]
	}
	if diff := cmp.Diff(types, map[string]any{r.tenant.Extension("Favoritecolor"): "String", r.tenant.Extension("optIn"): "Boolean", r.tenant.Extension("size"): "Integer"}); diff != "" {
		t.Errorf("the flows' attributes (-got +want):\n%s", diff)
	}
	r = serve(t, calm())
	r.as("EventListener.Read.All")
	if a := r.get("/v1.0/identity/authenticationEventsFlows"); a.status != 200 || len(a.rows()) != 0 {
		t.Errorf("without flows: got %d %s", a.status, a.raw)
	}
}

func TestPoliciesAreChanged(t *testing.T) {
	o := calm()
	o.UserFlows = []sim.UserFlow{{Name: "Sign up"}}
	r := serve(t, o)
	const path, body = "/v1.0/policies/authorizationPolicy", `{"allowEmailVerifiedUsersToJoinOrganization":false}`
	r.asPerson("Policy.ReadWrite.Authorization", sim.GuestInviter)
	r.want(r.send("PATCH", path, body), 403, "Authorization_RequestDenied")
	r.asPerson("Policy.Read.All", sim.GlobalAdministrator)
	r.want(r.send("PATCH", path, body), 403, "Authorization_RequestDenied")
	r.asPerson("Policy.ReadWrite.Authorization EventListener.ReadWrite.All", sim.PrivilegedRoleAdministrator, sim.UserFlowAdministrator)
	if a := r.send("PATCH", path, body); a.status != 204 || len(a.raw) > 0 {
		t.Errorf("got %d %s", a.status, a.raw)
	}
	if b := r.get(path).body; b["allowEmailVerifiedUsersToJoinOrganization"] != false || b["allowedToSignUpEmailBasedSubscriptions"] != true {
		t.Errorf("got %v", b)
	}
	for _, bad := range []string{``, `{}`, `{"allowEmailVerifiedUsersToJoinOrganization":"false"}`, `{"x":true}`} {
		r.want(r.send("PATCH", path, bad), 400, "BadRequest")
	}
	flow := "/v1.0/identity/authenticationEventsFlows/" + r.get("/v1.0/identity/authenticationEventsFlows").rows()[0]["id"].(string)
	const start = `"onInteractiveAuthFlowStart":{"@odata.type":"#microsoft.graph.onInteractiveAuthFlowStartExternalUsersSelfServiceSignUp","isSignUpAllowed":false}`
	for _, bad := range []string{`{}`, `{` + start + `}`, `{"@odata.type":"#microsoft.graph.externalUsersSelfServiceSignUpEventsFlow","onInteractiveAuthFlowStart":{"isSignUpAllowed":false}}`} {
		r.want(r.send("PATCH", flow, bad), 400, "BadRequest")
	}
	const change = `{"@odata.type":"#microsoft.graph.externalUsersSelfServiceSignUpEventsFlow",` + start + `}`
	if a := r.send("PATCH", flow, change); a.status != 204 {
		t.Errorf("got %d %s", a.status, a.raw)
	}
	now := r.get("/v1.0/identity/authenticationEventsFlows").rows()[0]["onInteractiveAuthFlowStart"].(map[string]any)
	if now["isSignUpAllowed"] != false || o.UserFlows[0].Closed {
		t.Errorf("got %v, and the test's own %v", now, o.UserFlows)
	}
	r.asPerson("EventListener.ReadWrite.All", sim.GuestInviter)
	r.want(r.send("PATCH", flow, change), 403, "AADB2C")
}
