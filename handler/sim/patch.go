package sim

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// maxExtension is the longest string value of an extension property (docs: service limits of external tenants), and
// maxExtensionAttribute that of extensionAttribute1 to 15 (docs: user resource), which are in one property.
const (
	maxExtension          = 250
	maxExtensionAttribute = 1024
	onPremises            = "onPremisesExtensionAttributes"
)

// writableText are the string properties that a patch can set, and their largest lengths (docs: user resource).
var writableText = map[string]int{"displayName": 256, "givenName": 64, "surname": 64, "mail": 113, "jobTitle": 128,
	"country": 128, "city": 128, "employeeId": 16, "preferredLanguage": 64, "mobilePhone": 64, "usageLocation": 2,
	"companyName": 64, "department": 64, "postalCode": 40, "state": 128, "streetAddress": 1024, "officeLocation": 128}

// readOnly are properties that nobody can patch.
var readOnly = []string{"id", "createdDateTime", "creationType", "externalUserStateChangeDateTime", "proxyAddresses", "onPremisesSyncEnabled"}

// mastered are those that a directory on premises keeps for itself, of the users that come from it.
var mastered = []string{onPremises, "displayName", "givenName", "surname", "userPrincipalName", "mail"}

// patchUser changes a user (docs: Update user); nothing is applied unless everything is valid.
func (t *Tenant) patchUser(c *graphCall) reply {
	patch, bad := c.object()
	if bad != nil {
		return *bad
	}
	u := t.find(c.vars[0])
	if u == nil || u.deleted() || u.at(c.replica, c.now) == nil {
		return notFound(c.vars[0])
	}
	names := slices.Sorted(maps.Keys(patch))
	names = slices.DeleteFunc(names, func(n string) bool { return strings.Contains(n, "@odata.") })
	if len(names) == 0 {
		t.empty++
		return reply{status: http.StatusNoContent}
	}
	for _, n := range names {
		if bad := t.checkProperty(u, n, patch[n]); bad != nil {
			return *bad
		}
	}
	before, after := u.truth(), maps.Clone(u.truth())
	for _, n := range names {
		if patch[n] == nil {
			delete(after, n)
			continue
		}
		after[n] = patch[n]
		switch n {
		case "userPrincipalName":
			after["identities"] = renamed(before["identities"], patch[n])
		case onPremises:
			after[n] = mergedAttributes(before[n], patch[n])
		}
	}
	t.writeUser(u, after, c.now)
	t.auditPatch(c, u, names, before, after)
	return reply{status: http.StatusNoContent}
}

// object reads the request's body, which must be a JSON object.
func (c *graphCall) object() (map[string]any, *reply) {
	if mt, _, err := mime.ParseMediaType(c.request.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		r := refuse(http.StatusUnsupportedMediaType, "Request_BadRequest", "Entity only allows writes with a JSON Content-Type header.")
		return nil, &r
	}
	var body map[string]any
	if json.Unmarshal(c.body, &body) != nil || body == nil {
		r := badRequest("Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.")
		return nil, &r
	}
	return body, nil
}

// checkProperty refuses a property that a user does not have or a value that it cannot have.
func (t *Tenant) checkProperty(u *resident, name string, value any) *reply {
	var r reply
	switch {
	case u.truth()["onPremisesSyncEnabled"] == true && slices.Contains(mastered, name):
		r = invalid("Unable to update the specified properties for on-premises mastered Directory Sync objects or objects currently undergoing migration.")
	case name == onPremises:
		return checkExtensionAttributes(value)
	case name == "userPrincipalName":
		return t.checkUPN(u, value)
	case strings.HasPrefix(name, "extension_"):
		return t.checkExtension(name, value)
	case slices.Contains(readOnly, name):
		r = invalid("Property '" + name + "' is read-only and cannot be set.")
	case name == "accountEnabled":
		if _, ok := value.(bool); ok {
			return nil
		}
		r = invalidValue(name)
	case name == "otherMails" || name == "identities" || name == "businessPhones":
		if _, ok := value.([]any); ok {
			return nil
		}
		r = invalidValue(name)
	case writableText[name] > 0:
		s, isText := value.(string)
		if value == nil && name != "displayName" || isText && s != "" && len([]rune(s)) <= writableText[name] {
			return nil
		}
		r = invalidValue(name)
	default:
		r = invalid("Invalid property '" + name + "'.")
	}
	return &r
}

func (t *Tenant) checkExtension(name string, value any) *reply {
	a := t.attribute(name)
	if a == nil {
		r := invalid("The following extension properties are not available: " + name + ".")
		return &r
	}
	good := value == nil
	switch v := value.(type) {
	case string:
		good = a.kind() == "String" && len([]rune(v)) <= maxExtension && v != ""
	case bool:
		good = a.kind() == "Boolean"
	case float64:
		good = a.kind() == "Integer" && v == float64(int32(v))
	}
	if good {
		return nil
	}
	r := invalidValue(name)
	return &r
}

// extensionAttributes are the properties of onPremisesExtensionAttributes.
var extensionAttributes = []string{"extensionAttribute1", "extensionAttribute2", "extensionAttribute3", "extensionAttribute4", "extensionAttribute5",
	"extensionAttribute6", "extensionAttribute7", "extensionAttribute8", "extensionAttribute9", "extensionAttribute10",
	"extensionAttribute11", "extensionAttribute12", "extensionAttribute13", "extensionAttribute14", "extensionAttribute15"}

func checkExtensionAttributes(value any) *reply {
	set, ok := value.(map[string]any)
	if !ok {
		r := invalidValue(onPremises)
		return &r
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		text, isText := set[name].(string)
		switch {
		case !slices.Contains(extensionAttributes, name):
			r := invalid("Invalid property '" + name + "'.")
			return &r
		case set[name] == nil || isText && text != "" && len([]rune(text)) <= maxExtensionAttribute:
		default:
			r := invalidValue(name)
			return &r
		}
	}
	return nil
}

// mergedAttributes changes what a patch names, and nothing else (OData 4.0, 11.4.3; docs: extensibility overview, where one is
// set and another removed by null).
func mergedAttributes(before, patch any) map[string]any {
	old, _ := before.(map[string]any)
	set := maps.Clone(old)
	if set == nil {
		set = map[string]any{}
	}
	for name, v := range patch.(map[string]any) {
		if set[name] = v; v == nil {
			delete(set, name)
		}
	}
	return set
}

// allAttributes is how the property is served: all fifteen, with null for those without a value.
func allAttributes(v any) map[string]any {
	have, _ := v.(map[string]any)
	set := make(map[string]any, len(extensionAttributes))
	for _, name := range extensionAttributes {
		set[name] = have[name]
	}
	return set
}

// checkUPN applies the rules of user principal names (docs: password policies, userPrincipalName policies).
func (t *Tenant) checkUPN(u *resident, value any) *reply {
	upn, _ := value.(string)
	local, domain, found := strings.Cut(upn, "@")
	bad := strings.ContainsFunc(local, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("'.-_!#^~", c))
	})
	if !found || bad || local == "" || len(local) > 64 || len(domain) > 48 || len(upn) > 113 || strings.HasSuffix(local, ".") {
		r := invalidValue("userPrincipalName")
		return &r
	}
	if !slices.ContainsFunc(t.domains(), func(d string) bool { return strings.EqualFold(d, domain) }) {
		r := invalid("The domain portion of the userPrincipalName property is invalid. You must use one of the verified domain names in your organization.")
		return &r
	}
	for _, other := range t.order {
		if other != u && strings.EqualFold(other.upn, upn) {
			const text = "Another object with the same value for property userPrincipalName already exists."
			r := refuse(http.StatusBadRequest, "Request_BadRequest", text, errorDetail{"ObjectConflict", text, "userPrincipalName"})
			return &r
		}
	}
	return nil
}

func invalid(message string) reply {
	return refuse(http.StatusBadRequest, "Request_BadRequest", message)
}

func invalidValue(name string) reply {
	return invalid(fmt.Sprintf("Invalid value specified for property '%s' of resource 'User'.", name))
}

// renamed is the identities with the userPrincipalName one changed.
func renamed(identities, upn any) []any {
	var out []any
	list, _ := identities.([]any)
	for _, x := range list {
		id, _ := x.(map[string]any)
		if id["signInType"] == "userPrincipalName" {
			id = maps.Clone(id)
			id["issuerAssignedId"] = upn
		}
		out = append(out, id)
	}
	return out
}
