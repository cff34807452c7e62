package entra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"signup-sync/handler/signup"
)

// UserFlow is a user flow of an external tenant.
type UserFlow struct {
	ID                string          `json:"id"`
	Name              string          `json:"name"`
	SignUpAllowed     bool            `json:"signUpAllowed"`
	UserType          string          `json:"userType,omitempty"` // of the users that it makes: member or guest; "" = the flow does not say
	Attributes        []FlowAttribute `json:"attributes"`
	IdentityProviders []string        `json:"identityProviders"` // their types: EmailPassword, EmailOTP, Google, …
}

// FlowAttribute is an attribute that a user flow collects.
type FlowAttribute struct {
	Name   string               `json:"name"`           // of a custom attribute the short name, as the configuration has it
	Type   signup.AttributeType `json:"type,omitempty"` // "" = none of those that expressions can use
	Custom bool                 `json:"custom,omitempty"`
}

// eventsFlow is an authenticationEventsFlow; of its kinds this one has the members below.
type eventsFlow struct {
	Kind  string `json:"@odata.type"`
	ID    string `json:"id"`
	Name  string `json:"displayName"`
	Start struct {
		SignUpAllowed bool `json:"isSignUpAllowed"`
	} `json:"onInteractiveAuthFlowStart"`
	Methods struct {
		Providers []struct {
			Type string `json:"identityProviderType"`
			Name string `json:"displayName"`
		} `json:"identityProviders"`
	} `json:"onAuthenticationMethodLoadStart"`
	Collection struct {
		Attributes []struct {
			ID   string `json:"id"`
			Kind string `json:"userFlowAttributeType"`
			Type string `json:"dataType"`
		} `json:"attributes"`
	} `json:"onAttributeCollection"`
	Create struct {
		UserType string `json:"userTypeToCreate"`
	} `json:"onUserCreateStart"`
}

// UserFlows reads the tenant's user flows for sign-up. It needs EventListener.Read.All, which the app should not have.
func (t *Tenant) UserFlows(ctx context.Context) ([]UserFlow, error) {
	c := t.client
	all, err := readAll[eventsFlow](ctx, c, flowCall, c.link("/identity/authenticationEventsFlows"))
	if e, ok := errors.AsType[*signup.Error](err); ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) {
		e.Detail = strings.TrimSuffix("only External ID tenants have user flows, and not in every cloud; "+e.Detail, "; ")
	}
	if err != nil {
		return nil, fmt.Errorf("read the user flows: %w", err)
	}
	flows := []UserFlow{}
	for _, g := range all {
		if g.Kind == "" || strings.HasSuffix(g.Kind, ".externalUsersSelfServiceSignUpEventsFlow") {
			flows = append(flows, g.flow())
		}
	}
	return flows, nil
}

func (g eventsFlow) flow() UserFlow {
	f := UserFlow{ID: g.ID, Name: g.Name, SignUpAllowed: g.Start.SignUpAllowed, UserType: g.Create.UserType,
		Attributes: []FlowAttribute{}, IdentityProviders: []string{}}
	for _, a := range g.Collection.Attributes {
		f.Attributes = append(f.Attributes, FlowAttribute{Name: shortName(a.ID), Type: typeOf(a.Type), Custom: strings.EqualFold(a.Kind, "custom")})
	}
	for _, p := range g.Methods.Providers {
		f.IdentityProviders = append(f.IdentityProviders, cmp.Or(p.Type, p.Name)) // one of OpenID Connect has only a name
	}
	return f
}

// AttributeTypes reads the tenant's custom attributes, all of them, by short name; "" is a type that expressions cannot
// use. Directory extensions of other apps are not among them. It needs Application.Read.All, which the app has only where
// it looks up the attributes' names.
func (t *Tenant) AttributeTypes(ctx context.Context) (map[string]signup.AttributeType, error) {
	object, _, err := t.findOwner(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up the app that owns the custom attributes: %w", err)
	}
	all, err := t.listExtensions(ctx, object, "name", "dataType", "isMultiValued")
	if err != nil {
		return nil, fmt.Errorf("list the tenant's custom attributes: %w", err)
	}
	types := make(map[string]signup.AttributeType, len(all))
	for _, p := range all {
		if types[shortName(p.Name)] = typeOf(p.DataType); p.MultiValued {
			types[shortName(p.Name)] = ""
		}
	}
	return types, nil
}

// shortName takes extension_<app>_ off a name.
func shortName(property string) string {
	if kind, err := signup.ParseAttribute(property); err == nil && kind == signup.DirectoryExtension {
		return property[len("extension_")+32+1:]
	}
	return property
}

// typeOf is what the values of Graph's data types are in JSON: those of extensionProperty and of userFlowAttribute.
func typeOf(dataType string) signup.AttributeType {
	switch strings.ToLower(dataType) {
	case "string", "datetime", "binary":
		return signup.StringType
	case "boolean":
		return signup.BoolType
	case "integer", "largeinteger", "int64":
		return signup.NumberType
	}
	return ""
}
