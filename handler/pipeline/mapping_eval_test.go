package pipeline_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

const janeID = "1a2b3c4d-0000-4000-8000-00000000abcd"

func jane() signup.User {
	return signup.User{ID: janeID, DisplayName: "unknown", GivenName: "Jane", Surname: "Doe", Email: "jane@contoso.example",
		UserPrincipalName: janeID + "@contoso.onmicrosoft.com", Created: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC),
		Identities: []signup.Identity{{SignInType: "federated", Issuer: "google.com"}},
		Attributes: map[string]any{"plan": "gold", "visits": float64(3), "optIn": true}}
}

func TestProfileIsNameAndLinkBack(t *testing.T) {
	m := compile(t, example())
	got, err := m.Profile(pipeline.Input{User: jane()})
	want := signup.Patch{DisplayName: "Jane Doe", UserPrincipalName: "jane.doe.1a2b3c4d@contoso.onmicrosoft.com"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("before billing: %v (-want +got):\n%s", err, diff)
	}
	got, err = m.Profile(pipeline.Input{User: jane(), Accounts: map[string]pipeline.AccountView{"billing": {ID: "cus_1"}}})
	want.Attributes = map[string]string{"stripeCustomerId": "cus_1"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("after billing: %v (-want +got):\n%s", err, diff)
	}
}

func TestProfileResultsAreTidy(t *testing.T) {
	const domain = "@contoso.onmicrosoft.com"
	tests := []struct{ name, given, surname, display, upn string }{
		{"both names", "Jane", "Doe", "Jane Doe", "jane.doe.1a2b3c4d" + domain},
		{"no surname", "Jane", "", "Jane", "jane.1a2b3c4d" + domain},
		{"no names", "", "", "", "1a2b3c4d" + domain},
		{"white space", "  Mary\tAnn ", " van  der Berg\n", "Mary Ann van der Berg", "mary-ann.van-der-berg.1a2b3c4d" + domain},
		{"another script", "美咲", "田中", "美咲 田中", "1a2b3c4d" + domain},
		{"accents", "Zoë", "Groß-Łukasz", "Zoë Groß-Łukasz", "zoe.gross-lukasz.1a2b3c4d" + domain},
		{"control characters", "Ja\x00ne", "D\u0085oe", "Jane D oe", "jane.d-oe.1a2b3c4d" + domain},
		{"very long", strings.Repeat("é", 300), "Doe", strings.Repeat("é", 256), strings.Repeat("e", 55) + ".1a2b3c4d" + domain},
	}
	m := compile(t, example())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := jane()
			u.GivenName, u.Surname = tt.given, tt.surname
			got, err := m.Profile(pipeline.Input{User: u})
			want := signup.Patch{DisplayName: tt.display, UserPrincipalName: tt.upn}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestProfileLeavesOutWhatEntraWouldRefuse(t *testing.T) {
	tests := []struct {
		name  string
		spec  pipeline.Spec
		want  signup.Patch
		error string
	}{
		{"a mail address as user principal name", pipeline.Spec{DisplayName: "user.givenName", UserPrincipalName: "user.email"}, signup.Patch{DisplayName: "Jane"},
			"mapping: profile.userPrincipalName: the result has an @; write only what stands before it"},
		{"a long user principal name", pipeline.Spec{UserPrincipalName: `repeat("x", 65)`}, signup.Patch{},
			"mapping: profile.userPrincipalName: the result has more than 64 characters"},
		{"a long attribute", pipeline.Spec{Attributes: map[string]string{"a": `repeat("x", 251)`, "b": `repeat("é", 250)`}}, signup.Patch{Attributes: map[string]string{"b": strings.Repeat("é", 250)}},
			"mapping: profile.attributes.a is longer than 250 characters"},
		{"a long extension attribute", pipeline.Spec{Attributes: map[string]string{"extensionAttribute1": `repeat("x", 1025)`, "extensionAttribute2": `repeat("y", 1024)`}},
			signup.Patch{Attributes: map[string]string{"extensionAttribute2": strings.Repeat("y", 1024)}}, "mapping: profile.attributes.extensionAttribute1 is longer than 1024 characters"},
		{"a long directory extension", pipeline.Spec{Attributes: map[string]string{directoryExtension: `repeat("x", 251)`}}, signup.Patch{},
			"mapping: profile.attributes." + directoryExtension + " is longer than 250 characters"},
		{"an attribute that is no string", pipeline.Spec{DisplayName: "user.attributes.visits"}, signup.Patch{},
			"mapping: profile.displayName is not a string for this user"},
		{"a failing expression", pipeline.Spec{DisplayName: `string(int(user.attributes.plan))`, Attributes: map[string]string{"b": `"y"`}},
			signup.Patch{Attributes: map[string]string{"b": "y"}}, "mapping: profile.displayName cannot be evaluated for this user, at character 8"},
		{"empty results", pipeline.Spec{DisplayName: `" "`, UserPrincipalName: `"."`, Attributes: map[string]string{"a": "user.city"}}, signup.Patch{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := compile(t, tt.spec).Profile(pipeline.Input{User: jane()})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
			if text := message(err); text != tt.error {
				t.Errorf("got error %q, want %q", text, tt.error)
			}
			if err != nil && signup.ClassOf(err) != signup.Permanent {
				t.Errorf("class %v, want permanent", signup.ClassOf(err))
			}
		})
	}
}

const directoryExtension = "extension_0123456789abcdef0123456789abcdef_plan"

func TestPrincipalNames(t *testing.T) {
	const domain = "contoso.onmicrosoft.com"
	long := strings.Repeat("d", 45) + ".com" // 49 characters
	tests := []struct{ name, result, configured, present, want, error string }{
		{"as it is", "Jane.O'Doe-1_x!#^~", "", domain, "Jane.O'Doe-1_x!#^~@" + domain, ""},
		{"accents", "Zoë.Groß", "", domain, "zoe.gross@" + domain, ""},
		{"blanks", "Mary Ann.Doe", "", domain, "mary-ann.doe@" + domain, ""},
		{"another script", "美咲", "", domain, "", ""},
		{"another script and an id", "美咲.1a2b", "", domain, "1a2b@" + domain, ""},
		{"a dot at the end", "jane.", "", domain, "jane@" + domain, ""},
		{"64 characters", strings.Repeat("x", 64), "", domain, strings.Repeat("x", 64) + "@" + domain, ""},
		{"65 characters", strings.Repeat("x", 65), "", domain, "", "the result has more than 64 characters"},
		{"the configured domain", "jane", "contoso.com", domain, "jane@contoso.com", ""},
		{"a domain of 48 characters", "jane", "", long[1:], "jane@" + long[1:], ""},
		{"a domain of 49 characters", "jane", "", long, "", "the domain has more than 48 characters; name another in profile.userPrincipalNameDomain"},
		{"no domain", "jane", "", "", "", "the user's present name has no domain"},
		{"no domain, one configured", "jane", "contoso.com", "", "jane@contoso.com", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := jane()
			u.Surname, u.UserPrincipalName = tt.result, janeID+"@"+tt.present
			got, err := compile(t, pipeline.Spec{UserPrincipalName: "user.surname", Domain: tt.configured}).Profile(pipeline.Input{User: u})
			if got.UserPrincipalName != tt.want {
				t.Errorf("got %q, want %q", got.UserPrincipalName, tt.want)
			}
			if text := strings.TrimPrefix(message(err), "mapping: profile.userPrincipalName: "); text != tt.error {
				t.Errorf("got error %q, want %q", text, tt.error)
			}
		})
	}
}

func TestProfileWaitsForAccounts(t *testing.T) {
	m := compile(t, pipeline.Spec{
		Attributes:   map[string]string{"soft": `accounts.a?.id ?? "none"`, "hard": `accounts.a.id`},
		Destinations: []pipeline.DestinationSpec{{Name: "a"}},
	})
	tests := []struct {
		name string
		in   pipeline.Input
		want map[string]string
	}{
		{"not settled", pipeline.Input{}, nil},
		{"skipped", pipeline.Input{Skipped: map[string]bool{"a": true}}, map[string]string{"soft": "none"}},
		{"associated", pipeline.Input{Accounts: map[string]pipeline.AccountView{"a": {ID: "7"}}}, map[string]string{"soft": "7", "hard": "7"}},
	}
	for _, tt := range tests {
		got, err := m.Profile(tt.in)
		if diff := cmp.Diff(tt.want, got.Attributes); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

func TestChangeOverwritesNothingThatAPersonChose(t *testing.T) {
	desired := signup.Patch{DisplayName: "Jane Doe", UserPrincipalName: "jane@x.example", Attributes: map[string]string{"plan": "gold", "new": "1"}}
	u := jane()
	if diff := cmp.Diff(signup.Patch{DisplayName: "Jane Doe", UserPrincipalName: "jane@x.example", Attributes: map[string]string{"new": "1"}}, pipeline.Change(u, desired)); diff != "" {
		t.Errorf("a new user (-want +got):\n%s", diff)
	}
	u.DisplayName, u.UserPrincipalName, u.Attributes["new"] = "Jay", "jay@x.example", "1"
	if got := pipeline.Change(u, desired); !got.Empty() {
		t.Errorf("a user with a name of their own: %+v, want nothing", got)
	}
	u = jane()
	if got := pipeline.Change(u, signup.Patch{UserPrincipalName: strings.ToUpper(u.UserPrincipalName)}); !got.Empty() {
		t.Errorf("the generated name itself: %+v, want nothing", got)
	}
}

// TestWant evaluates one expression as the rule and as the record of a destination.
func TestWant(t *testing.T) {
	at := time.Date(2026, 5, 6, 7, 0, 0, 0, time.FixedZone("", 3600))
	in := pipeline.Input{User: jane(), Signup: pipeline.Signup{Kind: signup.Created, Origin: signup.SelfService, Way: signup.ByFederation, At: at, Detector: "audit"},
		Accounts: map[string]pipeline.AccountView{"there": {ID: "42"}}}
	tests := []struct {
		text string
		want any // nil: left out
	}{
		{`user.email`, "jane@contoso.example"}, {`user.city`, nil}, {`nil`, nil}, {`user.city + " "`, nil}, {`" x "`, "x"},
		{`user.emailVerified`, false}, {`user.created`, "2026-05-06T07:08:09Z"}, {`signup.at`, "2026-05-06T06:00:00Z"}, {`signup.detected`, nil},
		{`signup.kind + signup.origin + signup.detector`, "createdselfServiceaudit"}, {`signup.way + "/" + signup.identityProvider`, "federated/google.com"},
		{`user.created.Year()`, 2026}, {`user.created.Month()`, 5}, {`1.5`, 1.5}, {`[1, "a", user.emailVerified]`, []any{1, "a", false}},
		{`{"a": user.givenName}`, map[string]any{"a": "Jane"}}, {`split("a,b", ",")`, []any{"a", "b"}},
		{`accounts.there.id`, "42"}, {`accounts.gone?.id`, nil}, {`accounts.gone?.id ?? "none"`, "none"}, {`accounts.gone == nil`, true}, {`nil != accounts.there`, true},
		// A custom attribute that is absent is the empty value of what it meets, nil where it meets nothing.
		{`user.attributes.plan`, "gold"}, {`user.attributes["visits"]`, 3.0}, {`user.attributes.none`, nil}, {`user.attributes.none == nil`, true},
		{`user.attributes.none == ""`, true}, {`user.attributes.none == false`, true}, {`user.attributes.none == true`, false}, {`user.attributes.none != 0`, false},
		{`user.attributes.none > 3`, false}, {`not user.attributes.none`, true}, {`user.attributes.none && user.attributes.optIn`, false},
		{`user.attributes.none ? "a" : "b"`, "b"}, {`lower(user.attributes.none) + "x"`, "x"}, {`user.attributes.none + "x"`, "x"},
		{`user.attributes.plan + " " + user.attributes.none`, "gold"}, {`user.attributes.none + user.attributes.plan`, "gold"},
		{`user.attributes.none contains "x"`, false}, {`user.attributes.none in ["x"]`, false}, {`user.attributes.none ?? "y"`, "y"},
		{`user.attributes?.none == ""`, true}, {`user.attributes.visits * 2`, 6.0}, {`user.attributes.none * 2`, 0},
		{`clip("Zoë Ó Brien", 3)`, "Zoë"}, {`clip("Zoë Ó Brien", 4)`, "Zoë"}, {`clip("ab", 2)`, "ab"}, {`clip("ab", -1) + "c"`, "c"},
		{`clip(user.attributes.nothing, 3) + "c"`, "c"}, {`slug(user.surname)`, "doe"}, {`short(user.id)`, "1a2b3c4d"},
	}
	for _, tt := range tests {
		m := compile(t, pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "there"}, {Name: "gone", When: "user.emailVerified"},
			{Name: "d", Record: map[string]any{"x": tt.text, "n": 1, "l": []any{map[string]any{"y": tt.text}}}}}})
		want := map[string]any{"n": 1}
		if tt.want != nil {
			want["x"], want["l"] = tt.want, []any{map[string]any{"y": tt.want}}
		}
		got, ok, err := m.Want("d", in)
		if diff := cmp.Diff(want, got); diff != "" || !ok || err != nil {
			t.Errorf("%s: %v %v (-want +got):\n%s", tt.text, ok, err, diff)
		}
		rule, isBool := tt.want.(bool)
		if !isBool {
			continue
		}
		m = compile(t, pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "there"}, {Name: "gone", When: "user.emailVerified"}, {Name: "d", When: tt.text}}})
		if _, ok, err := m.Want("d", in); ok != rule || err != nil {
			t.Errorf("as a rule %s = %v, %v, want %v", tt.text, ok, err, rule)
		}
	}
}

func TestWantErrorsNameThePlaceAndNoValue(t *testing.T) {
	tests := []struct {
		name string
		spec pipeline.DestinationSpec
		want string
	}{
		{"a value that does not convert", pipeline.DestinationSpec{Record: map[string]any{"age": "int(user.attributes.plan)"}},
			"mapping: destinations[1].record.age cannot be evaluated for this user, at character 1"},
		{"a rule that is no bool", pipeline.DestinationSpec{When: "user.attributes.plan"}, "mapping: destinations[1].when is not true or false for this user"},
		{"a number that cannot be sent", pipeline.DestinationSpec{Record: map[string]any{"x": "user.attributes.visits / 0"}},
			"mapping: destinations[1].record.x has no value that can be sent for this user"},
		{"a bomb of the user's making", pipeline.DestinationSpec{Record: map[string]any{"x": "len(1..int(user.attributes.visits * 10000000))"}},
			"mapping: destinations[1].record.x: memory budget exceeded"},
		{"an account that is not there", pipeline.DestinationSpec{Record: map[string]any{"x": "accounts.a.id"}}, "needs: a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.Name = "d"
			m := compile(t, pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "a"}, tt.spec}})
			_, want, err := m.Want("d", pipeline.Input{User: jane()})
			if got := message(err); got != tt.want || want {
				t.Errorf("got %v, %q\nwant false, %q", want, got, tt.want)
			}
			if e, ok := errors.AsType[*signup.Error](err); !ok || e.Code == "needs" != (e.Class == signup.Skip) {
				t.Errorf("%#v: want skip for needs, permanent otherwise", err)
			}
		})
	}
}

func TestDestinationsSeeTheDisplayNameThatIsAboutToBeWritten(t *testing.T) {
	m := compile(t, example())
	for current, want := range map[string]string{"unknown": "Jane Doe", "": "Jane Doe", "J. D.": "J. D."} {
		u := jane()
		u.DisplayName = current
		got, _, err := m.Want("billing", pipeline.Input{User: u})
		if diff := cmp.Diff(map[string]any{"email": "jane@contoso.example", "name": want}, got); diff != "" || err != nil {
			t.Errorf("display name %q: %v (-want +got):\n%s", current, err, diff)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
