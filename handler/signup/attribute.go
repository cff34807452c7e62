package signup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// AttributeKind says where an attribute of a user's record lives. The configuration names attributes, and an attribute's
// name tells its kind.
type AttributeKind int

const (
	// CustomAttribute is one of the tenant's own, by its short name: a directory extension of the b2c-extensions-app.
	CustomAttribute AttributeKind = iota
	// DirectoryExtension is one of any app, by its full name: extension_<app id without dashes>_<name>.
	DirectoryExtension
	// ExtensionAttribute is extensionAttribute1 to extensionAttribute15, which every user has (Graph's
	// onPremisesExtensionAttributes). They can be written for users who are, and always were, cloud-only.
	ExtensionAttribute
)

// MaxLength is how many characters fit (service limits of external tenants; onPremisesExtensionAttributes resource).
func (k AttributeKind) MaxLength() int {
	if k == ExtensionAttribute {
		return 1024
	}
	return 250
}

// AttributeType is what an attribute's values are for expressions.
type AttributeType string

// The types of attributes. Dates and binary values come as strings.
const (
	StringType AttributeType = "string"
	BoolType   AttributeType = "bool"
	NumberType AttributeType = "number"
)

var (
	shortAttribute     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,99}$`)
	fullAttribute      = regexp.MustCompile(`^extension_[0-9a-fA-F]{32}_[A-Za-z0-9_]{1,100}$`)
	extensionAttribute = regexp.MustCompile(`^extensionAttribute([1-9]|1[0-5])$`)
	nearlyExtension    = regexp.MustCompile(`(?i)^extensionAttributes?[0-9]*$`)
)

// builtIn are properties of every user that people may take for a place for an id.
var builtIn = []string{"id", "displayName", "givenName", "surname", "userPrincipalName", "mail", "otherMails", "identities",
	"city", "country", "preferredLanguage", "jobTitle", "department", "companyName", "mobilePhone", "employeeId", "employeeType",
	"onPremisesExtensionAttributes", "customSecurityAttributes"}

// ParseAttribute tells an attribute's kind by its name. The error says what to write instead.
func ParseAttribute(name string) (AttributeKind, error) {
	isBuiltIn := slices.ContainsFunc(builtIn, func(b string) bool { return strings.EqualFold(b, name) })
	switch {
	case extensionAttribute.MatchString(name):
		return ExtensionAttribute, nil
	case nearlyExtension.MatchString(name):
		return 0, fmt.Errorf("there is no %q: there are extensionAttribute1 to extensionAttribute15", name)
	case isBuiltIn:
		return 0, fmt.Errorf("%q is a property of every user and no attribute: take extensionAttribute1 to extensionAttribute15 or a custom attribute; one that is called so is written in full, extension_<app id>_%s", name, name)
	case fullAttribute.MatchString(name):
		return DirectoryExtension, nil
	}
	if rest, ok := strings.CutPrefix(name, "extension_"); ok {
		if _, short, ok := strings.Cut(rest, "_"); ok && shortAttribute.MatchString(short) {
			return 0, fmt.Errorf("the app's id in %q does not have 32 hexadecimal digits; of a custom attribute the short name is enough: %s", name, short)
		}
	}
	if !shortAttribute.MatchString(name) {
		return 0, fmt.Errorf("%q is not a custom attribute's name: write a letter and then letters, digits or underscores", name)
	}
	return CustomAttribute, nil
}
