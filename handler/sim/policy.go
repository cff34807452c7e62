package sim

import (
	"slices"
	"strings"
)

// UserFlow is a user flow of an external tenant, by which customers sign up.
type UserFlow struct {
	Name       string          //
	Closed     bool            // nobody can sign up by it
	UserType   string          // of the users that it makes: "" = member, or guest
	Attributes []FlowAttribute // beside the e-mail address, which every flow collects
}

// FlowAttribute is an attribute that a user flow collects: a built-in one such as displayName, or a custom one by its short
// name, which is made with the flow if the tenant does not have it.
type FlowAttribute struct {
	Name string
	Type string // "" = string, or boolean, or int64 (docs: identityUserFlowAttribute, dataType)
}

// builtInAttributes are those that a flow can collect without defining them (docs: identityUserFlowAttribute).
var builtInAttributes = []string{"email", "displayName", "givenName", "surname", "city", "country", "jobTitle", "postalCode", "state", "streetAddress"}

// defineFlows makes the custom attributes that the flows collect.
func (t *Tenant) defineFlows() {
	for _, f := range t.o.UserFlows {
		for _, a := range f.Attributes {
			if slices.Contains(builtInAttributes, a.Name) {
				continue
			}
			var value any = ""
			switch a.Type {
			case "boolean":
				value = false
			case "int64":
				value = int64(0)
			}
			t.collect(a.Name, value)
		}
	}
}

// authorizationPolicy has the members of the published sample (docs: Get authorizationPolicy).
func (t *Tenant) authorizationPolicy(c *graphCall) reply {
	return ok(map[string]any{
		"@odata.context": c.base() + "/$metadata#policies/authorizationPolicy/$entity", "id": "authorizationPolicy", "displayName": "Authorization Policy",
		"description": "Used to manage authorization related settings across the company.", "allowInvitesFrom": "everyone",
		"allowedToSignUpEmailBasedSubscriptions":    !t.o.NoEmailSubscriptions,
		"allowEmailVerifiedUsersToJoinOrganization": !t.o.NoVerifiedJoin,
		"allowedToUseSSPR":                          true, "blockMsolPowerShell": nil,
		"defaultUserRolePermissions": map[string]any{"allowedToCreateApps": true, "allowedToCreateSecurityGroups": true, "allowedToReadOtherUsers": true,
			"permissionGrantPoliciesAssigned": []string{"just-user-read"}},
	})
}

// listFlows has the members of the published sample (docs: List authenticationEventsFlows). Of the documented query options
// only $select is simulated, and the others are refused.
func (t *Tenant) listFlows(c *graphCall) reply {
	for _, option := range []string{"$filter", "$expand", "$orderby", "$top"} {
		if c.query.Has(option) {
			return unsupported("The query option '" + option + "' is not simulated here.")
		}
	}
	const namespace = "#microsoft.graph."
	const suffix = "ExternalUsersSelfServiceSignUp"
	rows := []map[string]any{}
	for i, f := range t.o.UserFlows {
		setDefault(&f.UserType, "member")
		attributes, inputs := t.flowAttributes(f)
		rows = append(rows, map[string]any{
			"@odata.type": namespace + "externalUsersSelfServiceSignUpEventsFlow", "id": t.flowIDs[i], "displayName": f.Name, "description": nil, "priority": 50,
			"onAttributeCollectionStart": nil, "onAttributeCollectionSubmit": nil,
			"conditions":                 map[string]any{"applications": map[string]any{"includeAllApplications": false, "includeApplications": []any{}}},
			"onInteractiveAuthFlowStart": map[string]any{"@odata.type": namespace + "onInteractiveAuthFlowStart" + suffix, "isSignUpAllowed": !f.Closed},
			"onAuthenticationMethodLoadStart": map[string]any{"@odata.type": namespace + "onAuthenticationMethodLoadStart" + suffix, "identityProviders": []any{
				map[string]any{"@odata.type": namespace + "builtInIdentityProvider", "id": "EmailPassword-OAUTH", "displayName": "Email with password",
					"identityProviderType": "EmailPassword", "state": nil}}},
			"onAttributeCollection": map[string]any{"@odata.type": namespace + "onAttributeCollection" + suffix, "attributes": attributes,
				"attributeCollectionPage": map[string]any{"customStringsFileId": nil, "views": []any{map[string]any{"title": nil, "description": nil, "inputs": inputs}}}},
			"onUserCreateStart": map[string]any{"@odata.type": namespace + "onUserCreateStart" + suffix, "userTypeToCreate": f.UserType},
		})
	}
	return ok(t.wholeList(c, "identity/authenticationEventsFlows", rows))
}

// flowAttributes are a flow's attributes, and the fields of its page that ask for them.
func (t *Tenant) flowAttributes(f UserFlow) (attributes, inputs []map[string]any) {
	for _, a := range append([]FlowAttribute{{Name: "email"}}, f.Attributes...) {
		setDefault(&a.Type, "string")
		kind, id := "builtIn", a.Name
		if !slices.Contains(builtInAttributes, a.Name) {
			kind, id = "custom", extensionPrefix+a.Name
		}
		attributes = append(attributes, map[string]any{"id": id, "displayName": a.Name, "description": a.Name, "userFlowAttributeType": kind, "dataType": a.Type})
		input := "text"
		if strings.EqualFold(a.Type, "boolean") {
			input = "boolean"
		}
		inputs = append(inputs, map[string]any{"attribute": id, "label": a.Name, "inputType": input, "defaultValue": nil, "hidden": false, "editable": true,
			"writeToDirectory": true, "required": false, "validationRegEx": ".*", "options": []any{}})
	}
	return attributes, inputs
}
