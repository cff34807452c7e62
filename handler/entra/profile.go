package entra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/users"

	"signup-sync/handler/signup"
)

// maxUsers is Graph's limit for the values of "in" in a filter (filter-query-parameter).
const maxUsers = 15

// properties are those of signup.User; most come only when selected.
var properties = []string{
	"id", "displayName", "givenName", "surname", "userPrincipalName", "mail", "otherMails", "identities",
	"creationType", "userType", "externalUserState", "createdDateTime", "accountEnabled", "preferredLanguage",
	"country", "city",
}

// Users implements signup.Directory with one list call for all ids. The list is served from an index that lags, so
// whoever is absent from it is read by id; and all are if the service refuses the list.
func (t *Tenant) Users(ctx context.Context, ids []signup.UserID) (map[signup.UserID]signup.User, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(ids) == 0 {
		return map[signup.UserID]signup.User{}, nil
	}
	if len(ids) > maxUsers {
		return nil, fmt.Errorf("read %d users: at most %d at once", len(ids), maxUsers)
	}
	names, err := t.propertyNames(ctx, t.attributes)
	if err != nil {
		return nil, err
	}
	fields := slices.Clone(properties)
	for _, a := range t.attributes {
		field := names[a]
		if !isExtension(field) {
			field = onPremises
		}
		if !slices.Contains(fields, field) {
			fields = append(fields, field)
		}
	}
	found := map[signup.UserID]signup.User{}
	if len(ids) > 1 {
		if err := t.list(ctx, ids, fields, names, found); err != nil && !refused(err) {
			return nil, fmt.Errorf("read %d users: %w", len(ids), err)
		}
	}
	for _, id := range ids {
		if _, ok := found[id]; ok {
			continue
		}
		switch u, err := t.one(ctx, id, fields, names); {
		case err == nil:
			found[id] = u
		case isAbsent(err):
		default:
			return nil, fmt.Errorf("read user %s: %w", id, err)
		}
	}
	return found, nil
}

func (t *Tenant) list(ctx context.Context, ids []signup.UserID, fields []string, names map[string]string, found map[signup.UserID]signup.User) error {
	quoted := make([]string, len(ids))
	for i, id := range ids {
		quoted[i] = "'" + string(id) + "'"
	}
	filter := "id in (" + strings.Join(quoted, ",") + ")"
	return t.client.do(ctx, request{
		kind: profileCall,
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return t.client.users().ToGetRequestInformation(ctx, &users.UsersRequestBuilderGetRequestConfiguration{
				QueryParameters: &users.UsersRequestBuilderGetQueryParameters{Filter: &filter, Select: fields},
			})
		},
		decode: func(d *decoder) error {
			clear(found)
			_, err := decodePage(d, func(d *decoder) error {
				var p profile
				if err := d.value(&p.raw); err != nil {
					return err
				}
				u, err := p.user(names)
				if err == nil && slices.Contains(ids, u.ID) {
					found[u.ID] = u
				}
				return err
			})
			return err
		},
	})
}

func (t *Tenant) one(ctx context.Context, id signup.UserID, fields []string, names map[string]string) (signup.User, error) {
	var u signup.User
	err := t.client.do(ctx, request{
		kind: profileCall,
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return t.client.users().ByUserId(string(id)).ToGetRequestInformation(ctx, &users.UserItemRequestBuilderGetRequestConfiguration{
				QueryParameters: &users.UserItemRequestBuilderGetQueryParameters{Select: fields},
			})
		},
		decode: func(d *decoder) error {
			var p profile
			if err := d.whole(&p.raw); err != nil {
				return err
			}
			var err error
			if u, err = p.user(names); err == nil && u.ID != id {
				return badPage("the answer is about another user")
			}
			return err
		},
		refine: func(e *signup.Error, g graphError) {
			refineAbsent(e, g)
			refineAttributes(e, g, names)
		},
	})
	return u, err
}

// refineAbsent marks a 404 that comes from Graph itself, with its error code, as "not-found". One without may come from
// anything on the way there, and says nothing about the user.
func refineAbsent(e *signup.Error, g graphError) {
	if e.Status != 404 {
		return
	}
	e.Class = signup.Transient
	if g.Code != "" {
		e.Code = "not-found"
	}
}

func isAbsent(err error) bool {
	e, ok := errors.AsType[*signup.Error](err)
	return ok && e.Code == "not-found"
}

// profile is a user as Graph sends it.
type profile struct{ raw json.RawMessage }

// user decodes the profile; names are Graph's names of the attributes by ours.
func (p profile) user(names map[string]string) (signup.User, error) {
	var g struct {
		ID                string            `json:"id"`
		DisplayName       string            `json:"displayName"`
		GivenName         string            `json:"givenName"`
		Surname           string            `json:"surname"`
		UserPrincipalName string            `json:"userPrincipalName"`
		Mail              string            `json:"mail"`
		OtherMails        []string          `json:"otherMails"`
		Identities        []signup.Identity `json:"identities"`
		CreationType      string            `json:"creationType"`
		UserType          string            `json:"userType"`
		ExternalUserState string            `json:"externalUserState"`
		Created           time.Time         `json:"createdDateTime"`
		Enabled           bool              `json:"accountEnabled"`
		PreferredLanguage string            `json:"preferredLanguage"`
		Country           string            `json:"country"`
		City              string            `json:"city"`
	}
	if err := json.Unmarshal(p.raw, &g); err != nil {
		return signup.User{}, profileError(err)
	}
	id, err := signup.ParseUserID(g.ID)
	if err != nil {
		return signup.User{}, badPage("the answer has a user without an object id")
	}
	u := signup.User{
		ID: id, DisplayName: g.DisplayName, GivenName: g.GivenName, Surname: g.Surname,
		UserPrincipalName: g.UserPrincipalName, CreationType: g.CreationType, UserType: g.UserType,
		ExternalUserState: g.ExternalUserState, PreferredLanguage: g.PreferredLanguage, Country: g.Country, City: g.City,
		Enabled: g.Enabled, Created: g.Created.UTC(), Identities: g.Identities,
	}
	u.Email, u.EmailVerified = email(g.Identities, g.Mail, g.OtherMails)
	if len(names) > 0 {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(p.raw, &all); err != nil {
			return signup.User{}, profileError(err)
		}
		if text, ok := all[onPremises]; ok {
			var inner map[string]json.RawMessage
			if err := json.Unmarshal(text, &inner); err != nil {
				return signup.User{}, badPage("the answer has another type than expected in the user's " + onPremises)
			}
			maps.Copy(all, inner)
		}
		u.Attributes = attributes(all, names)
	}
	return u, nil
}

// profileError keeps what a decoding error says about the shape, never about the value, which may be a name.
func profileError(err error) error {
	if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return badPage("the answer has another type than expected in the user's " + word(typed.Field))
	}
	return badPage("the answer has a user that cannot be decoded")
}

// email is the contact address: the identity that the tenant verified, else mail, else the first other mail, else the
// user principal name if it is one that a person chose.
func email(identities []signup.Identity, mail string, other []string) (address string, verified bool) {
	for _, id := range identities {
		if strings.EqualFold(id.SignInType, "emailAddress") && id.IssuerAssignedID != "" {
			return id.IssuerAssignedID, true
		}
	}
	if mail != "" {
		return mail, false
	}
	if len(other) > 0 && other[0] != "" {
		return other[0], false
	}
	return "", false
}

// attributes takes the attributes that have a value of a simple type.
func attributes(all map[string]json.RawMessage, names map[string]string) map[string]any {
	ours := make(map[string][]string, len(names)) // one may be named twice, in short and in full
	for name, property := range names {
		property = strings.ToLower(property)
		ours[property] = append(ours[property], name)
	}
	values := map[string]any{}
	for property, raw := range all {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			continue
		}
		switch v.(type) {
		case string, bool, float64:
			for _, name := range ours[strings.ToLower(property)] {
				values[name] = v
			}
		}
	}
	return values
}
