package sim

import (
	"bytes"
	"encoding/json"
	"net/http"
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
		"description": "Used to manage authorization related settings across the company.", "allowInvitesFrom": t.o.InvitesFrom,
		"allowedToSignUpEmailBasedSubscriptions":    !t.o.NoEmailSubscriptions,
		"allowEmailVerifiedUsersToJoinOrganization": !t.o.NoVerifiedJoin,
		"allowedToUseSSPR":                          true, "blockMsolPowerShell": nil,
		"defaultUserRolePermissions": map[string]any{"allowedToCreateApps": true, "allowedToCreateSecurityGroups": true, "allowedToReadOtherUsers": true,
			"permissionGrantPoliciesAssigned": []string{"just-user-read"}},
	})
}

// patchAuthorization changes the members that are asked for, and answers by nothing (docs: Update authorizationPolicy). A
// person needs a directory role as well. Members that this simulation has no use for are refused.
func (t *Tenant) patchAuthorization(c *graphCall) reply {
	if !c.has(PrivilegedRoleAdministrator) {
		return forbidden()
	}
	var change map[string]any
	if err := json.Unmarshal(c.body, &change); err != nil || len(change) == 0 {
		return badRequest("Unable to read JSON request payload.")
	}
	switches := map[string]*bool{"allowedToSignUpEmailBasedSubscriptions": &t.o.NoEmailSubscriptions, "allowEmailVerifiedUsersToJoinOrganization": &t.o.NoVerifiedJoin}
	for name, value := range change {
		if _, is := value.(bool); !is || switches[name] == nil {
			return badRequest("The property '" + name + "' cannot be changed so.")
		}
	}
	for name, value := range change {
		*switches[name] = !value.(bool)
	}
	return reply{status: http.StatusNoContent}
}

// has reports that an app calls for itself, or a person who has the directory role, or may do everything.
func (c *graphCall) has(role string) bool {
	return c.person == "" || slices.Contains(c.directory, role) || slices.Contains(c.directory, GlobalAdministrator)
}

// patchFlow opens a user flow for sign-up, or closes it (docs: Update authenticationEventsFlow). The type of each object is
// demanded, and other changes are refused.
func (t *Tenant) patchFlow(c *graphCall) reply {
	const kind = "#microsoft.graph."
	if !c.has(UserFlowAdministrator) {
		return refuse(http.StatusForbidden, "AADB2C", "The user does not have the role that is required for this operation.")
	}
	i := slices.Index(t.flowIDs, c.vars[0])
	if i < 0 {
		return notFound(c.vars[0])
	}
	var change struct {
		Kind  string `json:"@odata.type"`
		Start *struct {
			Kind    string `json:"@odata.type"`
			Allowed *bool  `json:"isSignUpAllowed"`
		} `json:"onInteractiveAuthFlowStart"`
	}
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&change); err != nil || !strings.EqualFold(change.Kind, kind+"externalUsersSelfServiceSignUpEventsFlow") || change.Start == nil ||
		!strings.EqualFold(change.Start.Kind, kind+"onInteractiveAuthFlowStartExternalUsersSelfServiceSignUp") || change.Start.Allowed == nil {
		return badRequest("The request is not a valid change of a user flow.")
	}
	t.o.UserFlows[i].Closed = !*change.Start.Allowed
	return reply{status: http.StatusNoContent}
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
