package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
)

// example is the mapping of the design's example.
func example() pipeline.Spec {
	return pipeline.Spec{
		DisplayName:       `user.givenName + " " + user.surname`,
		UserPrincipalName: `slug(user.givenName + "." + user.surname) + "." + short(user.id)`,
		Attributes:        map[string]string{"stripeCustomerId": "accounts.billing?.id"},
		Destinations: []pipeline.DestinationSpec{
			{Name: "billing", Record: map[string]any{"email": "user.email", "name": "user.displayName"}},
			{Name: "newsletter", When: "user.attributes.marketingOptIn == true",
				Record: map[string]any{"mergeFields": map[string]any{"FNAME": "user.givenName"}}},
			{Name: "crm", Record: map[string]any{"email": "user.email", "stripe_id": "accounts.billing.id"}},
		},
	}
}

func compile(t *testing.T, s pipeline.Spec) *pipeline.Mapping {
	t.Helper()
	m, problems := pipeline.Compile(s)
	if len(problems) > 0 {
		t.Fatalf("Compile: %v", problems)
	}
	return m
}

func TestMappingSaysWhatItReadsAndWaitsFor(t *testing.T) {
	m := compile(t, example())
	check := func(what string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("Names", m.Names(), []string{"billing", "newsletter", "crm"})
	check("Needs(crm)", m.Needs("crm"), []string{"billing"})
	check("Needs(billing)", len(m.Needs("billing")), 0)
	check("Needs(nobody)", len(m.Needs("nobody")), 0)
	check("ProfileNeeds", m.ProfileNeeds(), []string{"billing"})
	check("Attributes", m.Attributes(), []string{"marketingOptIn", "stripeCustomerId"})
	fields, attributes := m.Reads()
	check("Reads", [][]string{fields, attributes}, [][]string{{"displayName", "email", "givenName", "id", "surname"}, {"marketingOptIn"}})
	attribute, ok := m.LinkBack("billing")
	check("LinkBack(billing)", []any{attribute, ok}, []any{"stripeCustomerId", true})
	attribute, ok = m.LinkBack("crm")
	check("LinkBack(crm)", []any{attribute, ok}, []any{"", false})
}

func TestLinkBackIsTheAccountIDAndNothingElse(t *testing.T) {
	for text, want := range map[string]bool{
		"accounts.billing.id": true, "accounts.billing?.id": true, `accounts["billing"].id`: true, `accounts['billing']?.id`: true,
		" accounts.billing?.id ": true, "accounts?.billing?.id": true,
		"accounts.billing.id + \"x\"": false, "lower(accounts.billing.id)": false, `accounts.billing?.id ?? ""`: false, "user.id": false,
	} {
		m := compile(t, pipeline.Spec{Attributes: map[string]string{"a": text}, Destinations: []pipeline.DestinationSpec{{Name: "billing"}}})
		if _, got := m.LinkBack("billing"); got != want {
			t.Errorf("LinkBack with %q = %v, want %v", text, got, want)
		}
	}
}

// Every kind of attribute is read, written and linked back by its name in the configuration.
func TestAttributesOfEveryKind(t *testing.T) {
	m := compile(t, pipeline.Spec{
		Attributes: map[string]string{directoryExtension: "accounts.billing?.id", "extensionAttribute7": "user.attributes.extensionAttribute15"},
		Destinations: []pipeline.DestinationSpec{{Name: "billing", When: `user.attributes.extensionAttribute1 == "yes"`,
			Record: map[string]any{"plan": "user.attributes." + directoryExtension}}},
	})
	want := []string{"extensionAttribute1", "extensionAttribute15", "extensionAttribute7", directoryExtension}
	if diff := cmp.Diff(want, m.Attributes()); diff != "" {
		t.Errorf("Attributes (-want +got):\n%s", diff)
	}
	if attribute, ok := m.LinkBack("billing"); attribute != directoryExtension || !ok {
		t.Errorf("LinkBack: got %q, %v", attribute, ok)
	}
	u := jane()
	u.Attributes = map[string]any{"extensionAttribute1": "yes", "extensionAttribute15": "north", directoryExtension: "gold"}
	record, wanted, err := m.Want("billing", pipeline.Input{User: u})
	if diff := cmp.Diff(map[string]any{"plan": "gold"}, record); diff != "" || !wanted || err != nil {
		t.Errorf("Want: %v, %v (-want +got):\n%s", wanted, err, diff)
	}
	got, err := m.Profile(pipeline.Input{User: u, Accounts: map[string]pipeline.AccountView{"billing": {ID: "cus_1"}}})
	if diff := cmp.Diff(map[string]string{"extensionAttribute7": "north", directoryExtension: "cus_1"}, got.Attributes); diff != "" || err != nil {
		t.Errorf("Profile: %v (-want +got):\n%s", err, diff)
	}
}

func TestTheDomainOfUserPrincipalNames(t *testing.T) {
	const name = "short(user.id)"
	for _, tt := range []struct{ domain, principal, want string }{
		{"contoso.com", name, ""},
		{"login.contoso-2.co.uk", name, ""},
		{"contoso.com", "", "there is no profile.userPrincipalName to put before the domain: write it, or remove the line"},
		{"@contoso.com", name, `"@contoso.com" is not a domain`}, {"contoso..com", name, "is not a domain"}, {"-a.com", name, "is not a domain"},
		{"contoso.com.", name, "is not a domain"}, {"10.0.0.1", name, "is not a domain"}, {"zoë.com", name, "is not a domain"},
		{strings.Repeat("d", 45) + ".com", name, "more than the 48 characters"},
	} {
		_, problems := pipeline.Compile(pipeline.Spec{UserPrincipalName: tt.principal, Domain: tt.domain})
		got := ""
		if len(problems) > 0 {
			got = problems[0].Path + " " + problems[0].Message
		}
		if len(problems) > 1 || (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) || got != "" && !strings.HasPrefix(got, "$.profile.userPrincipalNameDomain ") {
			t.Errorf("%s: got %q, want %q", tt.domain, got, tt.want)
		}
	}
}

// TestCompileRefuses has the exact text and place of each problem of one expression in a record.
func TestCompileRefuses(t *testing.T) {
	const literal = `; text stands in quotes of its own`
	tests := []struct{ text, want string }{
		{`user.mail`, `5: user has no member "mail": did you mean "email"?`},
		{`user["mail"]`, `5: user has no member "mail": did you mean "email"?`},
		{`signup.x`, `7: signup has no member "x": there are kind, origin, way, identityProvider, at, detected, detector`},
		{`user`, `0: user needs a member's name written out, as in user.id`},
		{`user[user.email]`, `0: user needs a member's name written out, as in user.id`},
		{`user.email == 3`, `11: invalid operation: == (mismatched types string and int)`},
		{"user.email ==\n  3", `11: invalid operation: == (mismatched types string and int)`},
		{`foo`, `0: unknown name "foo": there are user, signup, accounts and functions` + literal},
		{`"ü" + foo`, `6: unknown name "foo": there are user, signup, accounts and functions` + literal},
		{`user.email +`, `11: unexpected token EOF`},
		{` `, `-1: the expression is empty: write one, such as user.email, or "" in quotes of its own`},
		{strings.Repeat("1+", 2000) + "1", `-1: the expression has 4001 characters, more than 4000`},
		{`now()`, `0: now is not available: the same sign-up must always give the same result`},
		{`keys({"a": 1})`, `0: keys is not available: the same sign-up must always give the same result`},
		{`$env`, `0: $env is not available: write user, signup or accounts`},
		{`slug(3)`, `5: cannot use int as argument (type string) to call slug`},
		{`user.created - user.created`, `0: the expression yields a duration, but a string, bool or number is wanted here`},
		{`user.attributes`, `5: user.attributes needs a custom attribute's name written out, as in user.attributes.company`},
		{`user.attributes[user.email]`, `21: the custom attribute must be known before the run: write its name, as in user.attributes.company`},
		{`user.attributes["a b"]`, `16: "a b" is not a custom attribute's name: write a letter and then letters, digits or underscores`},
		{`user.attributes.extension_0a_plan`, `16: the app's id in "extension_0a_plan" does not have 32 hexadecimal digits; of a custom attribute the short name is enough: plan`},
		{`user.attributes.extensionAttribute16`, `16: there is no "extensionAttribute16": there are extensionAttribute1 to extensionAttribute15`},
		{`user.attributes.employeeId`, `16: "employeeId" is a property of every user and no attribute: take extensionAttribute1 to extensionAttribute15 or a custom attribute; ` +
			`one that is called so is written in full, extension_<app id>_employeeId`},
		{`user.attributes.a.b`, `18: a custom attribute is a string, bool or number and has no members`},
		{`accounts`, `0: accounts needs a destination's name written out, as in accounts.billing?.id or accounts["my-crm"]?.id`},
		{`accounts[user.email].id`, `0: accounts needs a destination's name written out, as in accounts.billing?.id or accounts["my-crm"]?.id`},
		{`get(accounts, "billing")`, `4: accounts needs a destination's name written out, as in accounts.billing?.id or accounts["my-crm"]?.id`},
		{`accounts.biling.id`, `9: there is no destination "biling": did you mean "billing"?`},
		{`accounts.salesforce.id`, `9: there is no destination "salesforce": there are billing, my-crm, self`},
		{`accounts.my-crm`, `9: there is no destination "my": write accounts["my-crm"]`},
		{`accounts["my-crm"].id`, `19: destination "my-crm" has a rule, so the user may have no account there: write accounts["my-crm"]?.id`},
		{`accounts.self?.id`, `9: destination "self" waits for itself: take out accounts.self`},
		{`accounts.billing`, `9: an account is not a value: write accounts.billing?.id, or compare it with nil`},
		{`let a = accounts.billing; a.id`, `17: an account is not a value: write accounts.billing?.id, or compare it with nil`},
		{`accounts.billing.name`, `17: an account has only an id: write accounts.billing?.id`},
		{`1..1e8`, `1: invalid operation: .. (mismatched types int and float64)`},
		{`1..100000000`, `-1: the expression makes more than 20000 elements: make its ranges and lists smaller`},
		{`repeat("x", 100000000)`, `-1: the expression makes more than 20000 elements: make its ranges and lists smaller`},
		{`all(1..9, any(1..9, true))`, `0: any inside the predicate of all: loops in loops are not available`},
	}
	for _, tt := range tests {
		spec := pipeline.Spec{Destinations: []pipeline.DestinationSpec{
			{Name: "billing"}, {Name: "my-crm", When: "user.emailVerified"}, {Name: "self", Record: map[string]any{"x": tt.text}}}}
		start := time.Now()
		m, problems := pipeline.Compile(spec)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%.40q took %v", tt.text, took)
		}
		if m != nil || len(problems) != 1 {
			t.Errorf("%.40q: mapping %v, problems %v, want one problem", tt.text, m != nil, problems)
			continue
		}
		if got := fmt.Sprintf("%d: %s", problems[0].Column, problems[0].Message); strings.TrimSpace(got) != tt.want {
			t.Errorf("%.40q\n got %s\nwant %s", tt.text, got, tt.want)
		}
		if got, want := problems[0].Path, "$.destinations[2].record.x"; got != want {
			t.Errorf("%.40q is at %s, want %s", tt.text, got, want)
		}
	}
}

func TestCompileReportsEverythingAtOnceInOrder(t *testing.T) {
	_, problems := pipeline.Compile(pipeline.Spec{
		DisplayName:       "user.emailVerified",
		UserPrincipalName: "slug(user.nickname)",
		Domain:            "contoso",
		Attributes:        map[string]string{"extension_1f_plan": `"x"`, "b": "1 + 1", "plan": `"x"`, "Plan": `"x"`, "extensionAttribute0": `"x"`},
		Destinations: []pipeline.DestinationSpec{
			{Name: "profile", When: `"yes"`},
			{Name: "CRM"},
			{Name: "a", Record: map[string]any{"x": "accounts.c?.id", "list": []any{"user.id", nil, "foo"}, "o'k": map[string]any{"y": struct{}{}}}},
			{Name: "b", Record: map[string]any{"x": "accounts.a?.id"}},
			{Name: "c", When: "accounts.b?.id != nil"},
			{Name: "a"},
			{},
		},
	})
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s@%d %s", p.Path, p.Column, p.Message))
	}
	want := []string{
		`$.profile.displayName@0 the expression yields a bool, but a string is wanted here`,
		`$.profile.userPrincipalName@10 user has no member "nickname": there are id, displayName, givenName, surname, userPrincipalName, email, emailVerified, country, city, preferredLanguage, created, attributes`,
		`$.profile.userPrincipalNameDomain@-1 "contoso" is not a domain: write one of the tenant's verified domains, such as contoso.com`,
		`$.profile.attributes.b@0 the expression yields a number, but a string is wanted here`,
		`$.profile.attributes.extensionAttribute0@-1 there is no "extensionAttribute0": there are extensionAttribute1 to extensionAttribute15`,
		`$.profile.attributes.extension_1f_plan@-1 the app's id in "extension_1f_plan" does not have 32 hexadecimal digits; of a custom attribute the short name is enough: plan`,
		`$.profile.attributes.plan@-1 is the same attribute as Plan: remove one`,
		`$.destinations[0].name@-1 "profile" is reserved for the user's own record: choose another name`,
		`$.destinations[0].when@0 the expression yields a string, but true or false is wanted here`,
		`$.destinations[1].name@-1 "CRM" is not a destination's name: write a lower-case letter and then up to 30 lower-case letters, digits or hyphens`,
		`$.destinations[2].record.list[1]@-1 there is no value: write an expression, or remove the line`,
		`$.destinations[2].record.list[2]@0 unknown name "foo": there are user, signup, accounts and functions; text stands in quotes of its own`,
		`$.destinations[2].record.'o\'k'.y@-1 struct {} is not a value for a record: write an expression, true, false or a number`,
		`$.destinations[5].name@-1 there is another destination "a": names must differ`,
		`$.destinations[6].name@-1 a destination needs a name: it is kept in the ledger and must never change`,
		`$.destinations[2].name@-1 destinations wait for each other: a needs c needs b needs a; take out one of the accounts.… that make this circle`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
