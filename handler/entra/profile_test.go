package entra_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/entra"
	"signup-sync/handler/signup"
)

const janesProfile = `{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#users/$entity",
 "id":"75b523ca-d064-4ddf-80af-87738f504026","displayName":"unknown","givenName":"Jane","surname":"Doe",
 "userPrincipalName":"75b523ca-d064-4ddf-80af-87738f504026@contoso.onmicrosoft.com","mail":null,"otherMails":[],
 "creationType":"LocalAccount","userType":"Member","externalUserState":null,"createdDateTime":"2026-01-02T03:04:05Z",
 "accountEnabled":true,"preferredLanguage":"en-AU","country":"AU","city":null,
 "identities":[{"signInType":"emailAddress","issuer":"contoso.onmicrosoft.com","issuerAssignedId":"jane@fabrikam.com"},
  {"signInType":"userPrincipalName","issuer":"contoso.onmicrosoft.com","issuerAssignedId":"75b523ca-d064-4ddf-80af-87738f504026@contoso.onmicrosoft.com"}],
 "extension_6ea3bc85aec24b1c92ff4a117afb6621_Favoritecolor":"green",
 "extension_6ea3bc85aec24b1c92ff4a117afb6621_newsletter":true,
 "extension_6ea3bc85aec24b1c92ff4a117afb6621_visits":3,
 "extension_6ea3bc85aec24b1c92ff4a117afb6621_tags":["a"],
 "extension_6ea3bc85aec24b1c92ff4a117afb6621_empty":null}`

var withAttributes = func(o *entra.Options) {
	o.ExtensionsApp = app
	o.Attributes = []string{"Favoritecolor", "newsletter", "visits", "tags", "empty"}
}

func TestUsersReadsAProfile(t *testing.T) {
	g := newGraph(t, answer(200, janesProfile))
	got, err := g.open(withAttributes).Users(t.Context(), []signup.UserID{jane, jane})
	if err != nil {
		t.Fatal(err)
	}
	want := map[signup.UserID]signup.User{jane: {
		ID: jane, DisplayName: "unknown", GivenName: "Jane", Surname: "Doe",
		UserPrincipalName: string(jane) + "@contoso.onmicrosoft.com", Email: "jane@fabrikam.com", EmailVerified: true,
		CreationType: "LocalAccount", UserType: "Member", PreferredLanguage: "en-AU", Country: "AU", Enabled: true,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Identities: []signup.Identity{
			{SignInType: "emailAddress", Issuer: "contoso.onmicrosoft.com", IssuerAssignedID: "jane@fabrikam.com"},
			{SignInType: "userPrincipalName", Issuer: "contoso.onmicrosoft.com", IssuerAssignedID: string(jane) + "@contoso.onmicrosoft.com"},
		},
		Attributes: map[string]any{"Favoritecolor": "green", "newsletter": true, "visits": 3.0},
	}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
	const prefix = ",extension_6ea3bc85aec24b1c92ff4a117afb6621_"
	r := g.asked()[0]
	fields := "id,displayName,givenName,surname,userPrincipalName,mail,otherMails,identities,creationType,userType," +
		"externalUserState,createdDateTime,accountEnabled,preferredLanguage,country,city" +
		prefix + "Favoritecolor" + prefix + "newsletter" + prefix + "visits" + prefix + "tags" + prefix + "empty"
	if r.Path != "/v1.0/users/"+string(jane) || r.Query.Get("$select") != fields {
		t.Errorf("asked for %s %s", r.Path, r.Query.Get("$select"))
	}
}

func TestUsersReadsAttributesOfEveryKind(t *testing.T) {
	const full = "extension_6ea3bc85aec24b1c92ff4a117afb6621_Favoritecolor"
	tests := []struct {
		name, inner string
		want        map[string]any
		code        string
	}{
		{"some have a value", `{"extensionAttribute1":"a","extensionAttribute2":null,"extensionAttribute3":"c","extensionAttribute10":"j"}`,
			map[string]any{"extensionAttribute1": "a", "extensionAttribute10": "j"}, ""},
		{"nothing of it", `null`, map[string]any{}, ""},
		{"empty", `{}`, map[string]any{}, ""},
		{"not an object", `["a"]`, nil, "bad-answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, answer(200, `{"id":"`+string(jane)+`","`+full+`":"green","`+foreign+`":"gold","onPremisesExtensionAttributes":`+test.inner+`}`))
			users, err := g.open(func(o *entra.Options) {
				o.ExtensionsApp = app
				o.Attributes = []string{"Favoritecolor", full, "extensionAttribute1", "extensionAttribute2", "extensionAttribute10", foreign}
			}).Users(t.Context(), []signup.UserID{jane})
			if test.code != "" {
				if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code != test.code || strings.Contains(err.Error(), "\"a\"") {
					t.Errorf("got %v, want %s", err, test.code)
				}
				return
			}
			test.want["Favoritecolor"], test.want[full], test.want[foreign] = "green", "green", "gold"
			if diff := cmp.Diff(users[jane].Attributes, test.want); diff != "" || err != nil {
				t.Errorf("%v: got, want:\n%s", err, diff)
			}
			if got, want := g.asked()[0].Query.Get("$select"), "city,"+full+",onPremisesExtensionAttributes,"+foreign; !strings.HasSuffix(got, want) {
				t.Errorf("asked for %s, want …%s", got, want)
			}
		})
	}
}

func TestTheContactAddress(t *testing.T) {
	tests := []struct {
		name, profile, want string
		verified            bool
	}{
		{"an emailAddress identity before mail", `"mail":"m@x.com","identities":[{"signInType":"EMAILADDRESS","issuerAssignedId":"i@x.com"}]`, "i@x.com", true},
		{"a federated identity's id is no address", `"identities":[{"signInType":"federated","issuer":"google.com","issuerAssignedId":"1157"}],"mail":"m@gmail.com"`, "m@gmail.com", false},
		{"an identity without an id", `"identities":[{"signInType":"emailAddress","issuerAssignedId":""}],"mail":"m@x.com"`, "m@x.com", false},
		{"mail before other mails", `"mail":"m@x.com","otherMails":["o@x.com"]`, "m@x.com", false},
		{"other mails", `"mail":null,"otherMails":["o@x.com","p@x.com"],"userPrincipalName":"u@x.com"`, "o@x.com", false},
		{"a name, ours or a person's, is no address", `"userPrincipalName":"jane.doe@contoso.com"`, "", false},
		{"a generated name", `"userPrincipalName":"75B523CA-d064-4ddf-80af-87738f504026@contoso.onmicrosoft.com"`, "", false},
		{"a guest's name", `"userPrincipalName":"jane_fabrikam.com#ext#@contoso.onmicrosoft.com"`, "", false},
		{"nothing", `"mail":"","otherMails":[""]`, "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, answer(200, `{"id":"`+string(jane)+`",`+test.profile+`}`))
			users, err := g.open().Users(t.Context(), []signup.UserID{jane})
			if u := users[jane]; err != nil || u.Email != test.want || u.EmailVerified != test.verified {
				t.Errorf("got %q, verified %v, %v; want %q, %v", u.Email, u.EmailVerified, err, test.want, test.verified)
			}
		})
	}
}

var gone = refusal(404, "Request_ResourceNotFound", "Resource '75b523ca-d064-4ddf-80af-87738f504026' does not exist or one of its queried reference-property objects are not present.")

func TestWhoIsAbsent(t *testing.T) {
	both := []signup.UserID{jane, joan}
	record := func(id signup.UserID) string { return `{"id":"` + string(id) + `"}` }
	tests := []struct {
		name    string
		answers []http.HandlerFunc // ids are read in order: joan's sorts before jane's
		want    []signup.UserID
		code    string
		calls   int64
	}{
		{"both are in the list", []http.HandlerFunc{page("", record(jane), record(joan))}, both, "", 1},
		{"absent from the list, found by id", []http.HandlerFunc{page("", record(joan)), answer(200, record(jane))}, both, "", 2},
		{"absent from the list, and confirmed", []http.HandlerFunc{page("", record(joan)), gone}, []signup.UserID{joan}, "", 2},
		{"absent from the list, and the read fails", []http.HandlerFunc{page("", record(joan)), answer(503, html)}, nil, "unavailable", 4},
		{"a 404 that is not Graph's", []http.HandlerFunc{page("", record(joan)), answer(404, html)}, nil, "rejected", 2},
		{"a 200 without a user", []http.HandlerFunc{page("", record(joan)), answer(200, `{}`)}, nil, "bad-answer", 2},
		{"a 200 about somebody else", []http.HandlerFunc{page("", record(joan)), answer(200, record(joan))}, nil, "bad-answer", 2},
		{"an empty 200", []http.HandlerFunc{page("", record(joan)), answer(200, ``)}, nil, "bad-answer", 2},
		{"the list is refused: read one by one", []http.HandlerFunc{refusal(400, "Request_UnsupportedQuery", "in"), answer(200, record(joan)), gone}, []signup.UserID{joan}, "", 3},
		{"the list is forbidden", []http.HandlerFunc{refusal(403, "Authorization_RequestDenied", "")}, nil, "forbidden", 1},
		{"the list is cut off", []http.HandlerFunc{cut(`{"value":[` + record(jane))}, nil, "bad-answer", 3},
		{"the list has somebody else", []http.HandlerFunc{page("", record(jane), record(joan), record("728309ae-1a37-4937-9afe-e35d964db09b"))}, both, "", 1},
		{"a profile that cannot be decoded", []http.HandlerFunc{page("", record(jane), `{"id":"`+string(joan)+`","displayName":{"jane@fabrikam.com":1}}`)}, nil, "bad-answer", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answers...)
			tenant := g.open()
			users, err := tenant.Users(t.Context(), both)
			var got []signup.UserID
			for _, id := range both {
				if _, ok := users[id]; ok {
					got = append(got, id)
				}
			}
			if diff := cmp.Diff(got, test.want); diff != "" || len(users) != len(test.want) || (users == nil) != (test.code != "") {
				t.Errorf("got %v of %d, want %v", got, len(users), test.want)
			}
			e, ok := errors.AsType[*signup.Error](err)
			if ok != (test.code != "") || ok && (e.Code != test.code || e.Class == signup.Permanent) {
				t.Errorf("got %v, want code %q", err, test.code)
			}
			if strings.Contains(errorText(err), "fabrikam") {
				t.Errorf("a person is named: %v", err)
			}
			if tenant.Calls() != test.calls {
				t.Errorf("got %d calls, want %d", tenant.Calls(), test.calls)
			}
		})
	}
}

func TestUsersAsksForAllAtOnce(t *testing.T) {
	g := newGraph(t, page("", `{"id":"`+string(jane)+`"}`, `{"id":"`+string(joan)+`"}`))
	tenant := g.open()
	if _, err := tenant.Users(t.Context(), []signup.UserID{jane, joan}); err != nil {
		t.Fatal(err)
	}
	if got, want := g.asked()[0].Query.Get("$filter"), "id in ('"+string(joan)+"','"+string(jane)+"')"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if users, err := tenant.Users(t.Context(), nil); users == nil || err != nil {
		t.Errorf("nobody: got %v, %v", users, err)
	}
	many := make([]signup.UserID, 16)
	for i := range many {
		many[i] = jane[:35] + signup.UserID("0123456789abcdef"[i])
	}
	if users, err := tenant.Users(t.Context(), many); users != nil || err == nil || tenant.Calls() != 1 {
		t.Errorf("16 users: got %v, %v, and a call", users, err)
	}
}

func TestExtensionsAreLookedUpOnce(t *testing.T) {
	owner := `{"id":"11111111-0000-4000-8000-000000000001","appId":"` + app + `","displayName":"b2c-extensions-app. Do not modify. Used by AADB2C for storing user data."}`
	impostor := `{"id":"22222222-0000-4000-8000-000000000002","appId":"22222222-0000-4000-8000-000000000003","displayName":"b2c-extensions-app-backup"}`
	property := func(n string) string { return `{"name":"extension_6ea3bc85aec24b1c92ff4a117afb6621_` + n + `"}` }
	want := func(o *entra.Options) { o.Attributes = []string{"favoritecolor", "newsletter"} }
	t.Run("found, over two pages, beside an impostor", func(t *testing.T) {
		g := newGraph(t, page("", impostor, owner), page("/v1.0/x?$skiptoken=1", property("Favoritecolor")),
			page("", property("newsletter")), answer(200, janesProfile))
		tenant := g.open(want)
		for range 2 {
			users, err := tenant.Users(t.Context(), []signup.UserID{jane})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := users[jane].Attributes, map[string]any{"favoritecolor": "green", "newsletter": true}; !cmp.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		if got := tenant.Counts(); got.Applications != 3 || got.Profiles != 2 {
			t.Errorf("got %+v, want 3 calls for applications", got)
		}
		if got, want := g.asked()[0].Query.Get("$filter"), "startswith(displayName,'b2c-extensions-app')"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("created after it was missed", func(t *testing.T) {
		g := newGraph(t, page("", owner), page("", property("Favoritecolor")),
			page("", owner), page("", property("Favoritecolor"), property("newsletter")), answer(200, janesProfile))
		tenant := g.open(want)
		for _, missing := range []bool{true, false} {
			if _, err := tenant.Users(t.Context(), []signup.UserID{jane}); (err != nil) != missing {
				t.Errorf("got %v, want missing %v", err, missing)
			}
		}
	})
	tests := []struct {
		name    string
		answers []http.HandlerFunc
		class   signup.Class
		text    []string
	}{
		{"no app", []http.HandlerFunc{page("")}, signup.Systemic, []string{"favoritecolor, newsletter", "0 apps named b2c-extensions-app", "create a custom attribute"}},
		{"a missing attribute", []http.HandlerFunc{page("", owner), page("", property("Favoritecolor"))}, signup.Systemic, []string{"no custom attribute newsletter", "create it"}},
		{"forbidden", []http.HandlerFunc{refusal(403, "Authorization_RequestDenied", "")}, signup.Systemic, []string{"Application.Read.All"}},
		{"unavailable", []http.HandlerFunc{answer(503, html)}, signup.Transient, []string{"unavailable"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGraph(t, test.answers...)
			tenant := g.open(want)
			users, err := tenant.Users(t.Context(), []signup.UserID{jane})
			if users != nil || signup.ClassOf(err) != test.class {
				t.Errorf("got %v, %v, want class %v", users, err, test.class)
			}
			for _, text := range test.text {
				if !strings.Contains(errorText(err), text) {
					t.Errorf("%q is not in %v", text, err)
				}
			}
		})
	}
}
