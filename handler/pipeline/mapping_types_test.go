package pipeline_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"signup-sync/handler/pipeline"
	"signup-sync/handler/signup"
)

func TestAttributesAreTakenForWhatTheyMeet(t *testing.T) {
	const text, yes, number = signup.StringType, signup.BoolType, signup.NumberType
	tests := []struct {
		name, rule string
		want       []signup.AttributeType
	}{
		{"compared with a text", `user.attributes.x == "true"`, []signup.AttributeType{text}},
		{"compared from the other side", `"true" != user.attributes.x`, []signup.AttributeType{text}},
		{"compared with true", `user.attributes.x == true`, []signup.AttributeType{yes}},
		{"a rule of its own", `user.attributes.x`, []signup.AttributeType{yes}},
		{"a rule of its own, asked carefully", `user.attributes?.x`, []signup.AttributeType{yes}},
		{"negated", `not user.attributes.x`, []signup.AttributeType{yes}},
		{"part of a rule", `user.emailVerified and user.attributes.x`, []signup.AttributeType{yes}},
		{"a condition", `user.attributes.x ? true : false`, []signup.AttributeType{yes}},
		{"compared with a number", `user.attributes.x > 3`, []signup.AttributeType{number}},
		{"compared with another member", `user.attributes.x == user.city`, []signup.AttributeType{text}},
		{"looked into", `user.attributes.x startsWith "a"`, []signup.AttributeType{text}},
		{"given to a function", `lower(user.attributes.x) == "a"`, []signup.AttributeType{text}},
		{"with a value for none", `(user.attributes.x ?? false) == true`, []signup.AttributeType{yes}},
		{"one of several", `user.attributes.x in ["a", "b"]`, []signup.AttributeType{text}},
		{"both ways", `user.attributes.x == true or user.attributes.x == "true"`, []signup.AttributeType{yes, text}},
		{"twice the same way", `user.attributes.x == "a" or user.attributes.x == "b"`, []signup.AttributeType{text}},
		{"compared with nil", `user.attributes.x != nil`, nil},
		{"one of other attributes", `user.attributes.x in [user.attributes.y]`, nil},
		{"compared with another attribute", `user.attributes.x == user.attributes.y`, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := compile(t, pipeline.Spec{Destinations: []pipeline.DestinationSpec{{Name: "billing", When: test.rule}}})
			var got []signup.AttributeType
			for _, u := range m.AttributeUses() {
				if u.Name != "x" || u.Path != "$.destinations[0].when" {
					t.Errorf("got %+v", u)
				}
				got = append(got, u.Type)
			}
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("got, want:\n%s", diff)
			}
		})
	}
}

func TestAttributeUsesAreOfTheWholeConfiguration(t *testing.T) {
	m := compile(t, pipeline.Spec{
		DisplayName: `user.attributes.nick`,
		Attributes:  map[string]string{"stripeCustomerId": "accounts.billing?.id"},
		Destinations: []pipeline.DestinationSpec{
			{Name: "billing", When: `user.attributes.optIn == "yes"`, Record: map[string]any{"name": "upper(user.attributes.nick)", "as it is": "user.attributes.size"}},
			{Name: "crm", Record: map[string]any{"lines": []any{"user.attributes.optIn ? 1 : 2"}}},
		},
	})
	want := []pipeline.AttributeUse{
		{Name: "nick", Type: signup.StringType, Path: "$.profile.displayName"},
		{Name: "stripeCustomerId", Type: signup.StringType, Path: "$.profile.attributes.stripeCustomerId"},
		{Name: "optIn", Type: signup.StringType, Path: "$.destinations[0].when"},
		{Name: "nick", Type: signup.StringType, Path: "$.destinations[0].record.name"},
		{Name: "optIn", Type: signup.BoolType, Path: "$.destinations[1].record.lines[0]"},
	}
	if diff := cmp.Diff(m.AttributeUses(), want); diff != "" {
		t.Errorf("got, want:\n%s", diff)
	}
}
