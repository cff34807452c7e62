package signup_test

import (
	"strings"
	"testing"

	"signup-sync/handler/signup"
)

func TestParseAttribute(t *testing.T) {
	const app = "6ea3bc85aec24b1c92ff4a117afb6621"
	for name, want := range map[string]signup.AttributeKind{
		"stripeCustomerId": signup.CustomAttribute, "a": signup.CustomAttribute, "a_1": signup.CustomAttribute, "extensions": signup.CustomAttribute,
		"extensionAttribute1": signup.ExtensionAttribute, "extensionAttribute9": signup.ExtensionAttribute, "extensionAttribute10": signup.ExtensionAttribute,
		"extensionAttribute15": signup.ExtensionAttribute, "extensionAttribute1x": signup.CustomAttribute,
		"extension_" + app + "_plan": signup.DirectoryExtension, "extension_" + strings.ToUpper(app) + "_a_b": signup.DirectoryExtension,
		"extension_" + app + "_extensionAttribute16": signup.DirectoryExtension, "extension_" + app + "_employeeId": signup.DirectoryExtension,
	} {
		if got, err := signup.ParseAttribute(name); got != want || err != nil {
			t.Errorf("%s: got kind %d, %v; want %d", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"extensionAttribute0": "extensionAttribute1 to extensionAttribute15", "extensionAttribute16": "extensionAttribute1 to extensionAttribute15",
		"extensionAttribute01": "extensionAttribute1 to", "extensionAttribute": "extensionAttribute1 to", "ExtensionAttribute1": "extensionAttribute1 to",
		"extensionAttributes": "extensionAttribute1 to", "employeeId": "extension_<app id>_employeeId", "DisplayName": "property of every user",
		"onPremisesExtensionAttributes": "extensionAttribute1 to extensionAttribute15",
		"extension_1f_plan":             "short name is enough: plan", "extension_" + app + "0_plan": "short name is enough: plan",
		"": "not a custom attribute's name", "a b": "not a custom attribute's name", "1a": "not a custom attribute's name",
		"a-b": "not a custom attribute's name", strings.Repeat("a", 101): "not a custom attribute's name",
	} {
		if got, err := signup.ParseAttribute(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got kind %d, %v; want an error that says %q", name, got, err, want)
		}
	}
	if short, long := signup.CustomAttribute.MaxLength(), signup.ExtensionAttribute.MaxLength(); short != 250 || long != 1024 || signup.DirectoryExtension.MaxLength() != 250 {
		t.Errorf("got %d and %d", short, long)
	}
}
