package entra_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

func jwt(claims string) string {
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2lnbmF0dXJl"
}

func TestATokenSaysWhatItGrants(t *testing.T) {
	tests := []struct {
		name, token string
		want        entra.Grant
		code        string
	}{
		{"an app's", jwt(`{"tid":"AAAABBBB-0000-4ccc-8111-dddd2222eeee","appid":"` + clientID + `","roles":["User.Read.All","AuditLog.Read.All"]}`),
			entra.Grant{Tenant: tenantID, Client: clientID, Roles: []string{"AuditLog.Read.All", "User.Read.All"}}, ""},
		{"an app's to which nothing is granted", jwt(`{"tid":"` + tenantID + `","appid":"` + clientID + `"}`), entra.Grant{Tenant: tenantID, Client: clientID}, ""},
		{"a person's", jwt(`{"tid":"` + tenantID + `","azp":"` + clientID + `","scp":"email Directory.AccessAsUser.All"}`),
			entra.Grant{Tenant: tenantID, Client: clientID, Scopes: []string{"Directory.AccessAsUser.All", "email"}}, ""},
		{"one that is opaque", "secret-token", entra.Grant{}, "token-unreadable"},
		{"one that is encrypted", "a.b.c.d.e", entra.Grant{}, "token-unreadable"},
		{"one without a tenant", jwt(`{"roles":["User.Read.All"]}`), entra.Grant{}, "token-unreadable"},
		{"one that is not JSON", jwt(`{"tid":`), entra.Grant{}, "token-unreadable"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, answer(500, ""))
			g.credential.token = test.token
			got, err := g.open().Grant(t.Context())
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("got, want:\n%s", diff)
			}
			if e, ok := errors.AsType[*signup.Error](err); ok != (test.code != "") || ok && e.Code != test.code {
				t.Errorf("got error %v, want code %q", err, test.code)
			}
			if text := g.log.String() + errText(err); strings.Contains(text, test.token) {
				t.Errorf("the token is in %q", text)
			}
			if n := len(g.asked()); n != 0 {
				t.Errorf("Graph was asked %d times", n)
			}
		})
	}
	g := newGraph(t, answer(500, ""))
	g.credential.err = &signup.Error{Class: signup.Systemic, Code: "aadsts700027", Detail: "register the certificate"}
	if _, err := g.open().Grant(t.Context()); err == nil || !strings.Contains(err.Error(), "aadsts700027: register the certificate") {
		t.Errorf("got %v, want what the credential says", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestOrganizationTellsTheTenantsKind(t *testing.T) {
	tests := []struct {
		name, record string
		want         entra.Organization
	}{
		{"for customers", `{"id":"AAAABBBB-0000-4ccc-8111-dddd2222eeee","tenantType":"CIAM","verifiedDomains":[{"name":"contoso.onmicrosoft.com"},{"name":"contoso.com"}]}`,
			entra.Organization{ID: tenantID, Kind: entra.ExternalTenant, Type: "CIAM", Domains: []string{"contoso.onmicrosoft.com", "contoso.com"}}},
		{"for employees", `{"id":"` + tenantID + `","tenantType":"AAD","verifiedDomains":[]}`, entra.Organization{ID: tenantID, Kind: entra.WorkforceTenant, Type: "AAD"}},
		{"the predecessor", `{"id":"` + tenantID + `","tenantType":"AAD B2C"}`, entra.Organization{ID: tenantID, Kind: entra.B2CTenant, Type: "AAD B2C"}},
		{"not shown", `{"id":"` + tenantID + `","tenantType":null,"verifiedDomains":[{"name":"contoso.com"}]}`, entra.Organization{ID: tenantID, Domains: []string{"contoso.com"}}},
		{"one that is yet to come", `{"id":"` + tenantID + `","tenantType":"Moon"}`, entra.Organization{ID: tenantID, Type: "Moon"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, page("", test.record))
			got, err := g.open().Organization(t.Context())
			if diff := cmp.Diff(got, test.want); diff != "" || err != nil {
				t.Errorf("error %v; got, want:\n%s", err, diff)
			}
			if r := g.asked()[0]; r.Path != "/v1.0/organization" || r.Query.Get("$select") != "id,tenantType,verifiedDomains" {
				t.Errorf("got %s?%s", r.Path, r.RawQuery)
			}
		})
	}
	for name, answer := range map[string]http.HandlerFunc{"no tenant": page(""), "two tenants": page("", `{"id":"a"}`, `{"id":"b"}`)} {
		if _, err := newGraph(t, answer).open().Organization(t.Context()); codeOf(err) != "transient bad-answer" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAuditStateFindsTheNewestRecordAndHowLongTheLogIsKept(t *testing.T) {
	minute, days := start.Add(-time.Minute), start.AddDate(0, 0, -3)
	none, one := page(""), func(at time.Time) http.HandlerFunc { return page("", addUser("x", at, jane)) }
	back := func(d time.Duration) string {
		return "activityDateTime ge " + start.Add(-d).Format("2006-01-02T15:04:05Z")
	}
	kept := "activityDateTime le " + start.AddDate(0, 0, -6).Format("2006-01-02T15:04:05Z")
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		want    entra.AuditState
		filters []string
	}{
		{"busy and old", []http.HandlerFunc{one(minute), one(start.AddDate(0, 0, -6))}, entra.AuditState{Newest: minute, Kept: true}, []string{back(time.Hour), kept}},
		{"quiet and young", []http.HandlerFunc{none, none, one(days), none}, entra.AuditState{Newest: days}, []string{back(time.Hour), back(24 * time.Hour), back(7 * 24 * time.Hour), kept}},
		{"empty", []http.HandlerFunc{none}, entra.AuditState{}, []string{back(time.Hour), back(24 * time.Hour), back(7 * 24 * time.Hour), kept}},
		{"more than was asked for", []http.HandlerFunc{page("/v1.0/auditLogs/directoryAudits?$skiptoken=2", addUser("x", minute, jane), addUser("y", minute.Add(-time.Minute), joan)), none},
			entra.AuditState{Newest: minute}, []string{back(time.Hour), kept}},
		{"the first page is empty", []http.HandlerFunc{page("/v1.0/auditLogs/directoryAudits?$skiptoken=2"), one(minute), none}, entra.AuditState{Newest: minute}, []string{back(time.Hour), "", kept}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answers...)
			got, err := g.open().AuditState(t.Context())
			if diff := cmp.Diff(got, test.want); diff != "" || err != nil {
				t.Errorf("error %v; got, want:\n%s", err, diff)
			}
			var filters []string
			for _, r := range g.asked() {
				filters = append(filters, r.Query.Get("$filter"))
				if top := r.Query.Get("$top"); top != "1" && r.Query.Get("$skiptoken") == "" {
					t.Errorf("got $top=%s", top)
				}
			}
			if diff := cmp.Diff(filters, test.filters); diff != "" {
				t.Errorf("filters: got, want:\n%s", diff)
			}
		})
	}

	t.Run("a log that is kept longer is asked further back", func(t *testing.T) {
		g := newGraph(t, one(minute), none)
		if _, err := g.open(func(o *entra.Options) { o.AuditRetention = 70 * 24 * time.Hour }).AuditState(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := g.asked()[1].Query.Get("$filter"), "activityDateTime le "+start.AddDate(0, 0, -60).Format("2006-01-02T15:04:05Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("pages that stay empty come to an end", func(t *testing.T) {
		n := 0
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
			n++
			page("/v1.0/auditLogs/directoryAudits?$skiptoken="+strings.Repeat("x", n))(w, r)
		})
		if got, err := g.open().AuditState(t.Context()); err != nil || got != (entra.AuditState{}) || len(g.asked()) != 12 {
			t.Errorf("got %+v, %v after %d requests, want 12", got, err, len(g.asked()))
		}
	})
	t.Run("a refusal names the permission", func(t *testing.T) {
		g := newGraph(t, refusal(403, "Authorization_RequestDenied", "Insufficient privileges"))
		if _, err := g.open().AuditState(t.Context()); codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), "AuditLog.Read.All") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the calls keep the pace of the log", func(t *testing.T) {
		g := newGraph(t, none)
		tenant := g.open()
		for range 2 {
			if _, err := tenant.AuditState(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := g.clock.Now().Sub(start); got < 10*time.Second {
			t.Errorf("8 calls took %v, want 10 s at least", got)
		}
	})
}

func TestSignUpPolicy(t *testing.T) {
	sample := published(t, "authorization-policy.json")
	without := func(name string) string {
		return strings.Replace(sample, `"`+name+`":true`, `"`+name+`":false`, 1)
	}
	tests := []struct {
		name, body, who string
		want            entra.SignUpPolicy
	}{
		{"the published sample", sample, "anyone", entra.SignUpPolicy{EmailSubscriptions: true, EmailVerifiedJoin: true, InvitesFrom: "everyone"}},
		{"who is there may sign up for more", without("allowEmailVerifiedUsersToJoinOrganization"), "existing", entra.SignUpPolicy{EmailSubscriptions: true, InvitesFrom: "everyone"}},
		{"the first switch wins", without("allowedToSignUpEmailBasedSubscriptions"), "nobody", entra.SignUpPolicy{EmailVerifiedJoin: true, InvitesFrom: "everyone"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, answer(200, test.body))
			got, err := g.open().SignUpPolicy(t.Context())
			if err != nil || got != test.want || got.SelfService() != test.who {
				t.Errorf("got %+v, which is %s, and %v", got, got.SelfService(), err)
			}
			if r := g.asked()[0]; r.Method != "GET" || r.Path != "/v1.0/policies/authorizationPolicy" {
				t.Errorf("got %s %s", r.Method, r.Path)
			}
		})
	}
	if _, err := newGraph(t, answer(200, `{"value":[]}`)).open().SignUpPolicy(t.Context()); codeOf(err) != "transient bad-answer" {
		t.Errorf("got %v for another answer", err)
	}
}

// someFlows have what the published sample lacks: other types, another kind of provider, what is null, another kind of flow.
const someFlows = `{"value":[{"@odata.type":"#microsoft.graph.externalUsersSelfServiceSignUpEventsFlow","id":"a","displayName":"All types","onInteractiveAuthFlowStart":{"isSignUpAllowed":true},
 "onAuthenticationMethodLoadStart":{"identityProviders":[{"@odata.type":"#microsoft.graph.oidcIdentityProvider","id":"oidc","displayName":"LinkedIn-OIDC"}]},
 "onAttributeCollection":{"attributes":[{"id":"extension_6ea3bc85aec24b1c92ff4a117afb6621_optIn","userFlowAttributeType":"custom","dataType":"boolean"},
  {"id":"extension_6ea3bc85aec24b1c92ff4a117afb6621_size","userFlowAttributeType":"custom","dataType":"int64"},{"id":"extension_6ea3bc85aec24b1c92ff4a117afb6621_list","userFlowAttributeType":"custom","dataType":"stringCollection"}]},
 "onUserCreateStart":{"userTypeToCreate":"guest"}},
 {"id":"b","displayName":"Closed","onInteractiveAuthFlowStart":{"isSignUpAllowed":false},"onAuthenticationMethodLoadStart":null,"onAttributeCollection":null,"onUserCreateStart":null},
 {"@odata.type":"#microsoft.graph.anotherEventsFlow","id":"another"}]}`

func TestUserFlows(t *testing.T) {
	tests := []struct {
		name, body string
		want       []entra.UserFlow
	}{
		{"the published sample", published(t, "authentication-events-flows.json"), []entra.UserFlow{
			{ID: "0313cc37-d421-421d-857b-87804d61e33e", Name: "Woodgrove Drive User Flow", SignUpAllowed: true, UserType: "member",
				Attributes: []entra.FlowAttribute{{Name: "email", Type: signup.StringType}, {Name: "displayName", Type: signup.StringType},
					{Name: "Favoritecolor", Type: signup.StringType, Custom: true}},
				IdentityProviders: []string{"EmailPassword", "Google"}}}},
		{"what it lacks", someFlows, []entra.UserFlow{
			{ID: "a", Name: "All types", SignUpAllowed: true, UserType: "guest", IdentityProviders: []string{"LinkedIn-OIDC"},
				Attributes: []entra.FlowAttribute{{Name: "optIn", Type: signup.BoolType, Custom: true}, {Name: "size", Type: signup.NumberType, Custom: true}, {Name: "list", Custom: true}}},
			{ID: "b", Name: "Closed", Attributes: []entra.FlowAttribute{}, IdentityProviders: []string{}}}},
		{"none", `{"value":[]}`, []entra.UserFlow{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, answer(200, test.body))
			got, err := g.open().UserFlows(t.Context())
			if diff := cmp.Diff(got, test.want); diff != "" || err != nil {
				t.Errorf("error %v; got, want:\n%s", err, diff)
			}
			if r := g.asked()[0]; r.Path != "/v1.0/identity/authenticationEventsFlows" {
				t.Errorf("got %s", r.Path)
			}
		})
	}
}

func TestWhatAPersonShouldReadIsNotAskedForTheApp(t *testing.T) {
	reads := []struct {
		name, permission string
		read             func(*entra.Tenant) error
	}{
		{"policy", "Policy.Read.All", func(tenant *entra.Tenant) error { _, err := tenant.SignUpPolicy(t.Context()); return err }},
		{"flows", "EventListener.Read.All", func(tenant *entra.Tenant) error { _, err := tenant.UserFlows(t.Context()); return err }},
	}
	for _, r := range reads {
		err := r.read(newGraph(t, refusal(403, "AccessDenied", "required scopes are missing in the token")).open())
		if codeOf(err) != "systemic forbidden" || !strings.Contains(err.Error(), r.permission) || !strings.Contains(err.Error(), "handler policy") || strings.Contains(err.Error(), "grant the app") {
			t.Errorf("%s: got %v", r.name, err)
		}
		if e, ok := errors.AsType[*signup.Error](err); ok && len(e.Detail) > 280 {
			t.Errorf("%s: %d characters of detail", r.name, len(e.Detail))
		}
	}
	if err := reads[1].read(newGraph(t, refusal(404, "ResourceNotFound", "")).open()); err == nil || !strings.Contains(err.Error(), "only External ID tenants have user flows") {
		t.Errorf("got %v where there are no user flows", err)
	}
}

func TestAttributeTypes(t *testing.T) {
	const owner = `{"id":"0d7f6a5e-0000-4000-8000-00000000000b","appId":"` + app + `","displayName":"b2c-extensions-app. Do not modify. Used by AADB2C for storing user data."}`
	property := func(name, rest string) string {
		return `{"name":"extension_6ea3bc85aec24b1c92ff4a117afb6621_` + name + `",` + rest + `}`
	}
	properties := page("/v1.0/applications/0d7f6a5e-0000-4000-8000-00000000000b/extensionProperties?$skiptoken=2",
		property("marketingOptIn", `"dataType":"Boolean","isMultiValued":false`), property("city", `"dataType":"String"`), property("born", `"dataType":"DateTime"`))
	more := page("", property("size", `"dataType":"Integer"`), property("sum", `"dataType":"LargeInteger"`), property("key", `"dataType":"Binary"`),
		property("tags", `"dataType":"String","isMultiValued":true`), property("new", `"dataType":"Decimal"`))
	want := map[string]signup.AttributeType{"marketingOptIn": signup.BoolType, "city": signup.StringType, "born": signup.StringType,
		"size": signup.NumberType, "sum": signup.NumberType, "key": signup.StringType, "tags": "", "new": ""}

	g := newGraph(t, page("", owner), properties, more)
	got, err := g.open().AttributeTypes(t.Context())
	if diff := cmp.Diff(got, want); diff != "" || err != nil {
		t.Errorf("error %v; got, want:\n%s", err, diff)
	}
	if r := g.asked(); len(r) != 3 || r[0].Query.Get("$filter") != "startswith(displayName,'b2c-extensions-app')" || r[1].Query.Get("$select") != "name,dataType,isMultiValued" {
		t.Errorf("asked %+v", r)
	}

	configured := func(o *entra.Options) { o.ExtensionsApp = app }
	g = newGraph(t, page("", owner), properties, more)
	if got, err := g.open(configured).AttributeTypes(t.Context()); err != nil || !cmp.Equal(got, want) {
		t.Errorf("with the app in the configuration: got %v, %v", got, err)
	}
	if got := g.asked()[0].Query.Get("$filter"); got != "appId eq '"+app+"'" {
		t.Errorf("with the app in the configuration: filter %s", got)
	}
	_, err = newGraph(t, page("")).open(configured).AttributeTypes(t.Context())
	if codeOf(err) != "systemic attribute-missing" || !strings.Contains(err.Error(), "profile.extensionsApp") {
		t.Errorf("with another app in the configuration: got %v", err)
	}
}

func TestSkewIsAsMuchAsIsCertain(t *testing.T) {
	date := func(at time.Time) []string { return []string{"Date", at.Format(http.TimeFormat)} }
	tests := []struct {
		name   string
		date   time.Duration // that Graph shows, after our clock when asked
		takes  time.Duration // the answer, by our clock
		status int
		want   time.Duration
	}{
		{"the same second", 0, 0, 200, 0},
		{"the end of Graph's second", -time.Second, 0, 200, 0},
		{"we are ahead", -10 * time.Minute, 0, 200, 10*time.Minute - time.Second},
		{"we are behind", 10 * time.Minute, 0, 200, -10 * time.Minute},
		{"an answer that takes its time says less", 10 * time.Second, 20 * time.Second, 200, 0},
		{"slow, and behind", 30 * time.Second, 20 * time.Second, 200, -10 * time.Second},
		{"a refusal tells the time as well", 10 * time.Minute, 0, 403, -10 * time.Minute},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var g *graph
			g = newGraph(t, func(w http.ResponseWriter, r *http.Request) {
				_ = g.clock.Sleep(r.Context(), test.takes)
				answer(test.status, `{"value":[]}`, date(start.Add(test.date))...)(w, r)
			})
			if got, err := g.open().Skew(t.Context()); err != nil || got != test.want {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
	t.Run("an answer without a date says nothing", func(t *testing.T) {
		g := newGraph(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			answer(200, `{"value":[]}`)(w, r)
		})
		if _, err := g.open().Skew(t.Context()); codeOf(err) != "transient bad-answer" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("neither does no answer", func(t *testing.T) {
		g := newGraph(t, cut(""))
		g.Close()
		if _, err := g.open().Skew(t.Context()); codeOf(err) != "transient unreachable" {
			t.Errorf("got %v", err)
		}
	})
}
