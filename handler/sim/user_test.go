package sim_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/signup"
	"signup-sync/handler/sim"
)

const users = "/v1.0/users"

func TestUserByOrigin(t *testing.T) {
	type look struct{ UPN, Name, Mail, Creation, Type, State, Identities string }
	own := func(id signup.UserID) string { return string(id) + "@contoso.onmicrosoft.com" }
	tests := []struct {
		how    sim.How
		want   func(id signup.UserID) look
		origin signup.Origin
	}{
		{sim.Email, func(id signup.UserID) look {
			return look{own(id), "unknown", "", "LocalAccount", "Member", "", "emailAddress:jane@example.com userPrincipalName:" + own(id)}
		}, signup.SelfService},
		{sim.Native, func(id signup.UserID) look {
			return look{own(id), "unknown", "", "LocalAccount", "Member", "", "emailAddress:jane@example.com userPrincipalName:" + own(id)}
		}, signup.SelfService},
		{sim.Migration, func(id signup.UserID) look { // just like one who signed up alone
			return look{own(id), "unknown", "", "LocalAccount", "Member", "", "emailAddress:jane@example.com userPrincipalName:" + own(id)}
		}, signup.SelfService},
		{sim.Social, func(id signup.UserID) look {
			return look{own(id), "unknown", "jane@example.com", "", "Member", "", "federated:* userPrincipalName:" + own(id)}
		}, signup.SelfService},
		{sim.Admin, func(signup.UserID) look {
			return look{"jane@contoso.example", "Jane Doe", "jane@example.com", "", "Member", "", "userPrincipalName:jane@contoso.example"}
		}, signup.Admin},
		{sim.Guest, func(signup.UserID) look {
			upn := "jane_example.com#EXT#@contoso.onmicrosoft.com"
			return look{upn, "unknown", "jane@example.com", "Invitation", "Guest", "PendingAcceptance", "federated:* userPrincipalName:" + upn}
		}, signup.Invitation},
		{sim.EmailVerified, func(signup.UserID) look {
			return look{"jane@example.com", "unknown", "jane@example.com", "EmailVerified", "Member", "", "userPrincipalName:jane@example.com"}
		}, signup.EmailVerified},
	}
	for _, tt := range tests {
		t.Run(string(tt.how), func(t *testing.T) {
			o := calm()
			o.Domains = []string{"contoso.example"}
			r := serve(t, o)
			id := r.tenant.SignUp(sim.Person{How: tt.how, Email: "jane@example.com", GivenName: "Jane", Surname: "Doe"})
			b := r.get(users+"/"+string(id), "$select", profile).body
			s := func(name string) string { v, _ := b[name].(string); return v }
			u := signup.User{ID: id, UserPrincipalName: s("userPrincipalName"), CreationType: s("creationType"), UserType: s("userType"), ExternalUserState: s("externalUserState")}
			got := look{s("userPrincipalName"), s("displayName"), s("mail"), s("creationType"), s("userType"), s("externalUserState"), ""}
			for _, x := range b["identities"].([]any) {
				m := x.(map[string]any)
				kind, assigned := m["signInType"].(string), m["issuerAssignedId"].(string)
				u.Identities = append(u.Identities, signup.Identity{SignInType: kind, IssuerAssignedID: assigned})
				if kind == "federated" {
					assigned = "*"
				}
				got.Identities = strings.TrimSpace(got.Identities + " " + kind + ":" + assigned)
			}
			if diff := cmp.Diff(got, tt.want(id)); diff != "" {
				t.Errorf("user (-got +want):\n%s", diff)
			}
			if o, _, evidence := signup.Classify(u, signup.Proof{}); o != tt.origin {
				t.Errorf("classified as %s (%s), want %s", o, evidence, tt.origin)
			}
		})
	}
}

func TestUserSelect(t *testing.T) {
	o := calm()
	o.Attributes = []string{"stripeCustomerId", "marketingOptIn"}
	r := serve(t, o)
	id := r.tenant.SignUp(sim.Person{Email: "jane@example.com", Attributes: map[string]any{"marketingOptIn": false}})
	got := r.get(users + "/" + string(id)).body
	for _, name := range []string{"identities", "creationType", "createdDateTime", "userType", "externalUserState", "otherMails", "accountEnabled", r.tenant.Extension("marketingOptIn")} {
		if _, has := got[name]; has {
			t.Errorf("%s came without $select", name)
		}
	}
	opt, stripe := r.tenant.Extension("marketingOptIn"), r.tenant.Extension("stripeCustomerId")
	got = r.get(users+"/"+string(id), "$select", "createdDateTime,externalUserState,"+opt+","+stripe).body
	want := map[string]any{"createdDateTime": "2026-01-02T03:04:05Z", "externalUserState": nil, opt: false,
		"@odata.context": r.server.URL + "/v1.0/$metadata#users(createdDateTime,externalUserState," + opt + "," + stripe + ")/$entity"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("selected (-got +want):\n%s", diff)
	}
	r.want(r.get(users+"/"+string(id), "$select", "id,shoeSize"), 400, "BadRequest")
	r.want(r.get(users+"/"+string(id), "$select", r.tenant.Extension("other")), 400, "BadRequest")
	r.want(r.get(users, "$select", "shoeSize"), 400, "BadRequest")
	if a := r.get(users + "/" + url.PathEscape(string(id)+"@contoso.onmicrosoft.com")); a.body["id"] != string(id) {
		t.Errorf("by user principal name: got %d %s", a.status, a.raw)
	}
	r.want(r.get(users+"/00000000-0000-4000-8000-000000000000"), 404, "Request_ResourceNotFound")
}

func TestUserList(t *testing.T) {
	r := serve(t, calm())
	var ids []string
	for i := range 20 {
		id := r.tenant.SignUp(sim.Person{Email: fmt.Sprintf("u%d@example.com", i)})
		ids = append(ids, "'"+string(id)+"'")
		r.clock.Advance(time.Second)
	}
	in := func(n int) string { return "id in (" + strings.Join(ids[:n], ",") + ")" }
	plain := func(i int) string { return strings.Trim(ids[i], "'") }
	tests := []struct {
		name, filter string
		rows         int
		code         string
	}{
		{"created", "createdDateTime ge 2026-01-02T03:04:10Z and createdDateTime le 2026-01-02T03:04:12Z", 3, ""},
		{"id", "id eq " + ids[3], 1, ""},
		{"id in capitals", "id eq '" + strings.ToUpper(plain(3)) + "'", 1, ""},
		{"15 ids", in(15), 15, ""},
		{"16 ids", in(16), 0, "Request_UnsupportedQuery"},
		{"ids and a clause", in(3) + " and createdDateTime ge 2026-01-02T03:04:06Z", 2, ""},
		{"an id twice", "id in (" + ids[0] + "," + ids[0] + ")", 1, ""},
		{"e-mail", "identities/any(c:c/issuerAssignedId eq 'u4@example.com' and c/issuer eq 'contoso.onmicrosoft.com')", 1, ""},
		{"e-mail without issuer", "identities/any(c:c/issuerAssignedId eq 'u4@example.com')", 0, "Request_UnsupportedQuery"},
		{"gt", "createdDateTime gt 2026-01-02T03:04:10Z", 0, "Request_UnsupportedQuery"},
		{"ne", "creationType ne 'Invitation'", 0, "Request_UnsupportedQuery"},
		{"not a filter", "id in (" + ids[0], 0, "BadRequest"},
		{"quoted date", "createdDateTime ge '2026-01-02T03:04:10Z'", 0, "Request_UnsupportedQuery"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := r.get(users, "$filter", tt.filter, "$select", "id")
			if len(a.rows()) != tt.rows || a.code() != tt.code {
				t.Errorf("got %d rows and code %q: %s", len(a.rows()), a.code(), a.raw)
			}
		})
	}
	rows, pages := r.pages(10, users, "$select", "id", "$top", "7")
	got := column(rows, "id")
	if len(got) != 20 || pages != 3 || !slices.IsSorted(got) {
		t.Errorf("got %d users on %d pages, want 20 on 3 in the order of their ids", len(got), pages)
	}
	r.want(r.get(users, "$top", "1000"), 400, "BadRequest")
	r.want(r.get(users, "$orderby", "createdDateTime"), 400, "Request_UnsupportedQuery")
	next, _ := r.get(users, "$top", "7").body["@odata.nextLink"].(string)
	r.clock.Advance(11 * time.Minute)
	r.want(r.get(next), 400, "Directory_ExpiredPageToken")
	r.want(r.get("/v1.0/users/delta"), 400, "Request_UnsupportedQuery")
}

// Between a sign-up and its replication the replicas disagree, and a list disagrees with a read by id.
func TestReplication(t *testing.T) {
	o := calm()
	o.InstantReplicas = false
	r := serve(t, o)
	shown := func(id signup.UserID) (byID, listed int) {
		for range 3 {
			if r.get(users+"/"+string(id)).status == 200 {
				byID++
			}
		}
		for range 3 {
			listed += len(r.get(users, "$filter", "id eq '"+string(id)+"'").rows())
		}
		return byID, listed
	}
	var partly, readNotListed, listedNotRead bool
	for i := range 30 {
		id := r.tenant.SignUp(sim.Person{Email: fmt.Sprintf("u%d@example.com", i)})
		if n := len(r.get(audits, "$filter", "targetResources/any(t:t/id eq '"+string(id)+"')").rows()); n != 1 {
			t.Fatal("the audit row does not wait for the replicas")
		}
		r.clock.Advance(10 * time.Second)
		byID, listed := shown(id)
		partly = partly || byID == 1 || byID == 2
		readNotListed = readNotListed || byID > 0 && listed == 0
		listedNotRead = listedNotRead || listed > 0 && byID == 0
		r.clock.Advance(110 * time.Second)
		if byID, listed = shown(id); byID != 3 || listed != 3 {
			t.Errorf("after two minutes %d and %d of 3 replicas show the user", byID, listed)
		}
	}
	if !partly || !readNotListed || !listedNotRead {
		t.Errorf("seen: on some replicas %v, readable but not listed %v, listed but not readable %v", partly, readNotListed, listedNotRead)
	}
	id := r.tenant.SignUp(sim.Person{Email: "x@example.com", ReplicaLag: new(90 * time.Second), IndexLag: new(time.Duration)})
	r.clock.Advance(89 * time.Second)
	r.want(r.patch(id, `{"displayName":"X"}`), 404, "Request_ResourceNotFound")
	if byID, listed := shown(id); byID != 0 || listed != 3 {
		t.Errorf("scripted: %d and %d of 3", byID, listed)
	}
	r.clock.Advance(time.Second)
	if byID, _ := shown(id); byID != 3 {
		t.Errorf("scripted: %d of 3 after 90 s", byID)
	}
	guest := r.tenant.SignUp(sim.Person{How: sim.Guest, Email: "x@example.com", ReplicaLag: new(time.Minute)})
	r.tenant.Redeem(guest)
	r.clock.Advance(30 * time.Second)
	if byID, listed := shown(guest); byID != 0 || listed != 0 {
		t.Errorf("a change is not seen before the user is: %d and %d of 3", byID, listed)
	}
}

func TestPatchShowsLate(t *testing.T) {
	o := calm()
	o.InstantReplicas = false
	r := serve(t, o)
	id := r.tenant.SignUp(sim.Person{Email: "x@example.com", ReplicaLag: new(time.Duration)})
	if a := r.patch(id, `{"displayName":"X"}`); a.status != 204 {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	old := 0
	for range 3 {
		if r.get(users + "/" + string(id)).body["displayName"] == "unknown" {
			old++
		}
	}
	if u, _ := r.tenant.User(id); old == 0 || u.Properties["displayName"] != "X" {
		t.Errorf("%d replicas show the old name, want some; the truth is %v", old, u.Properties["displayName"])
	}
	r.clock.Advance(10 * time.Second)
	for range 3 {
		if got := r.get(users + "/" + string(id)).body["displayName"]; got != "X" {
			t.Errorf("after 10 s: %v", got)
		}
	}
}

func TestDeleteAndRestore(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{Email: "x@example.com"})
	r.tenant.Delete(id)
	r.want(r.get(users+"/"+string(id)), 404, "Request_ResourceNotFound")
	r.want(r.patch(id, `{"displayName":"X"}`), 404, "Request_ResourceNotFound")
	if n := len(r.get(users).rows()); n != 0 {
		t.Errorf("%d users listed", n)
	}
	if u, _ := r.tenant.User(id); !u.Deleted || u.Properties["id"] != string(id) {
		t.Errorf("the truth is %+v", u)
	}
	r.tenant.Restore(id)
	if a := r.get(users + "/" + string(id)); a.status != 200 {
		t.Errorf("got %d", a.status)
	}
}

func TestRedeem(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{How: sim.Guest, Email: "jane@example.com"})
	r.tenant.Redeem(id)
	if got := r.get(users+"/"+string(id), "$select", "externalUserState").body["externalUserState"]; got != "Accepted" {
		t.Errorf("got %v", got)
	}
}

func TestPatchRules(t *testing.T) {
	o := calm()
	const foreign = "extension_0123456789abcdef0123456789abcdef_plan"
	o.Attributes = []string{"stripeCustomerId", "marketingOptIn", foreign}
	o.Domains = []string{"contoso.example"}
	r := serve(t, o)
	id := r.tenant.SignUp(sim.Person{Email: "jane@example.com", Attributes: map[string]any{"marketingOptIn": true}})
	other := r.tenant.SignUp(sim.Person{Email: "joan@example.com"})
	gone := r.tenant.SignUp(sim.Person{How: sim.Admin, Email: "jim@example.com"})
	r.tenant.Delete(gone)
	stripe, opt := r.tenant.Extension("stripeCustomerId"), r.tenant.Extension("marketingOptIn")
	upn := func(s string) string { return `{"userPrincipalName":"` + s + `"}` }
	fifteen := func(s string) string { return `{"displayName":"Jane Doe","onPremisesExtensionAttributes":` + s + `}` }
	tests := []struct {
		name, body string
		status     int
		message    string // a part of it
	}{
		{"name", `{"@odata.type":"#microsoft.graph.user","displayName":"Jane Doe"}`, 204, ""},
		{"extension", `{"` + stripe + `":"cus_1"}`, 204, ""},
		{"extension of 250 characters", `{"` + stripe + `":"` + strings.Repeat("é", 250) + `"}`, 204, ""},
		{"extension of 251 characters", `{"` + stripe + `":"` + strings.Repeat("x", 251) + `"}`, 400, "Invalid value"},
		{"extension of another type", `{"` + stripe + `":7}`, 400, "Invalid value"},
		{"boolean extension", `{"` + opt + `":false}`, 204, ""},
		{"boolean extension as text", `{"` + opt + `":"false"}`, 400, "Invalid value"},
		{"missing extension", `{"displayName":"Not applied","` + r.tenant.Extension("x") + `":"1"}`, 400, "The following extension properties are not available"},
		{"extension of another app", `{"` + foreign + `":"gold"}`, 204, ""},
		{"missing extension of another app", `{"` + foreign + `2":"gold"}`, 400, "The following extension properties are not available"},
		{"extension attributes", fifteen(`{"extensionAttribute1":"a","extensionAttribute15":"` + strings.Repeat("é", 1024) + `"}`), 204, ""},
		{"extension attribute of 1,025 characters", fifteen(`{"extensionAttribute1":"` + strings.Repeat("x", 1025) + `"}`), 400, "extensionAttribute1"},
		{"extension attribute 16", fifteen(`{"extensionAttribute16":"a"}`), 400, "extensionAttribute16"},
		{"extension attribute of another type", fifteen(`{"extensionAttribute1":1}`), 400, "extensionAttribute1"},
		{"extension attributes, all at once", fifteen(`null`), 400, "onPremisesExtensionAttributes"},
		{"extension attribute outside", `{"extensionAttribute1":"a"}`, 400, "extensionAttribute1"},
		{"extension cleared", `{"` + opt + `":null}`, 204, ""},
		{"unknown property", `{"displayName":"Not applied","shoeSize":"44"}`, 400, "shoeSize"},
		{"read-only property", `{"id":"x"}`, 400, "read-only"},
		{"empty name", `{"displayName":""}`, 400, "displayName"},
		{"name cleared", `{"displayName":null}`, 400, "displayName"},
		{"name of 257 characters", `{"displayName":"` + strings.Repeat("x", 257) + `"}`, 400, "displayName"},
		{"enabled", `{"accountEnabled":"yes"}`, 400, "accountEnabled"},
		{"principal name", upn("jane.doe-1_x'#!^~@contoso.onmicrosoft.com"), 204, ""},
		{"principal name in the custom domain", upn("jane@contoso.example"), 204, ""},
		{"its own again", upn("jane@contoso.example"), 204, ""},
		{"accent", upn("zoë@contoso.onmicrosoft.com"), 400, "Invalid value"},
		{"blank", upn("jane doe@contoso.onmicrosoft.com"), 400, "Invalid value"},
		{"dot before @", upn("jane.@contoso.onmicrosoft.com"), 400, "Invalid value"},
		{"plus", upn("jane+1@contoso.onmicrosoft.com"), 400, "Invalid value"},
		{"no local part", upn("@contoso.onmicrosoft.com"), 400, "Invalid value"},
		{"no domain", upn("jane"), 400, "Invalid value"},
		{"local part of 65", upn(strings.Repeat("x", 65) + "@contoso.onmicrosoft.com"), 400, "Invalid value"},
		{"other domain", upn("jane@example.com"), 400, "verified domain names"},
		{"taken", upn(strings.ToUpper(string(other)) + "@contoso.onmicrosoft.com"), 400, "Another object with the same value"},
		{"taken by a deleted user", upn("jim@contoso.example"), 400, "Another object with the same value"},
		{"not JSON", `{"displayName":`, 400, "JSON"},
		{"nothing", ``, 400, "JSON"},
		{"an array", `[]`, 400, "JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := r.patch(id, tt.body)
			if a.status != tt.status || !strings.Contains(a.message(), tt.message) {
				t.Errorf("got %d %s, want %d …%s…", a.status, a.raw, tt.status, tt.message)
			}
			if u, _ := r.tenant.User(id); u.Properties["displayName"] == "Not applied" {
				t.Error("half of a refused patch was applied")
			}
		})
	}
	a := r.patch(id, upn(string(other)+"@contoso.onmicrosoft.com"))
	details, _ := a.body["error"].(map[string]any)["details"].([]any)
	if len(details) != 1 || details[0].(map[string]any)["code"] != "ObjectConflict" || details[0].(map[string]any)["target"] != "userPrincipalName" {
		t.Errorf("got %s", a.raw)
	}
	u, _ := r.tenant.User(id)
	if got := u.Properties["identities"].([]any)[1].(map[string]any)["issuerAssignedId"]; got != "jane@contoso.example" {
		t.Errorf("the identity is still %v", got)
	}
	if r.tenant.SuspiciousEmptyPatches() != 0 {
		t.Error("counted as empty")
	}
	for i, body := range []string{`{}`, `{"@odata.type":"#microsoft.graph.user"}`} {
		if a := r.patch(id, body); a.status != 204 || r.tenant.SuspiciousEmptyPatches() != i+1 {
			t.Errorf("%s: got %d, %d counted", body, a.status, r.tenant.SuspiciousEmptyPatches())
		}
	}
}

// What a patch does not name of the extension attributes stays, and null takes one away.
func TestExtensionAttributes(t *testing.T) {
	r := serve(t, calm())
	id := r.tenant.SignUp(sim.Person{Email: "jane@example.com"})
	want := map[string]any{}
	for i := range 15 {
		want[fmt.Sprintf("extensionAttribute%d", i+1)] = nil
	}
	for _, step := range []struct {
		patch string
		set   map[string]any
	}{
		{"", nil},
		{`{"extensionAttribute1":"a","extensionAttribute2":"b"}`, map[string]any{"extensionAttribute1": "a", "extensionAttribute2": "b"}},
		{`{"extensionAttribute2":"c","extensionAttribute15":"d"}`, map[string]any{"extensionAttribute2": "c", "extensionAttribute15": "d"}},
		{`{"extensionAttribute1":null,"extensionAttribute3":null}`, map[string]any{"extensionAttribute1": nil}},
	} {
		if step.patch != "" {
			if a := r.patch(id, `{"onPremisesExtensionAttributes":`+step.patch+`}`); a.status != 204 {
				t.Fatalf("%s: got %d %s", step.patch, a.status, a.raw)
			}
		}
		for name, v := range step.set {
			want[name] = v
		}
		got := r.get(users+"/"+string(id), "$select", "onPremisesExtensionAttributes").body["onPremisesExtensionAttributes"]
		if diff := cmp.Diff(got, any(want)); diff != "" {
			t.Errorf("after %s (-got +want):\n%s", step.patch, diff)
		}
	}
	r.want(r.get(users+"/"+string(id), "$select", "extensionAttribute1"), 400, "BadRequest")
	if _, has := r.get(users + "/" + string(id)).body["onPremisesExtensionAttributes"]; has {
		t.Error("came without $select")
	}
	synced := r.tenant.SignUp(sim.Person{Email: "joan@example.com", Synced: true})
	for _, body := range []string{`{"onPremisesExtensionAttributes":{"extensionAttribute1":"a"}}`, `{"displayName":"Joan"}`} {
		if a := r.patch(synced, body); a.status != 400 || !strings.Contains(a.message(), "on-premises mastered") {
			t.Errorf("synchronised, %s: got %d %s", body, a.status, a.raw)
		}
	}
	if a := r.patch(synced, `{"country":"AU"}`); a.status != 204 {
		t.Errorf("synchronised: got %d %s", a.status, a.raw)
	}
}
