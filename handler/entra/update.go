package entra

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"

	"signup-sync/handler/signup"
)

// maxAttribute is External ID's limit for a custom attribute's text, in characters (service limits).
const maxAttribute = 250

// Update implements signup.Directory with one PATCH. Beside what the interface promises, the error's code is
// "upn-invalid" (permanent) for a name that the directory does not take, its domain not being one of the tenant's for
// instance, "attribute-too-long" (permanent), "attribute-missing" (systemic), "not-found" (transient) while the user
// cannot be found.
func (t *Tenant) Update(ctx context.Context, id signup.UserID, p signup.Patch) error {
	if p.Empty() {
		return nil
	}
	shorts := slices.Sorted(maps.Keys(p.Attributes))
	for _, short := range shorts {
		if n := utf8.RuneCountInString(p.Attributes[short]); n > maxAttribute {
			return &signup.Error{
				Class: signup.Permanent, Code: "attribute-too-long",
				Detail: fmt.Sprintf("attribute %s has %d characters, at most %d fit", short, n, maxAttribute),
			}
		}
	}
	names, err := t.extensionNames(ctx, shorts)
	if err != nil {
		return err
	}
	err = t.client.do(ctx, request{
		kind: updateCall,
		info: func(ctx context.Context) (*abstractions.RequestInformation, error) {
			return t.patch(ctx, id, p, names)
		},
		refine: func(e *signup.Error, g graphError) {
			if e.Status == 404 {
				e.Class, e.Code = signup.Transient, "not-found"
			}
			refineAttributes(e, g, names)
			if p.UserPrincipalName != "" {
				refineUPN(e, g)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("update user %s: %w", id, err)
	}
	return nil
}

// patch makes the request from a fresh model: one that was read before would be sent without its changes.
func (t *Tenant) patch(ctx context.Context, id signup.UserID, p signup.Patch, names map[string]string) (*abstractions.RequestInformation, error) {
	u := models.NewUser()
	if p.DisplayName != "" {
		u.SetDisplayName(&p.DisplayName)
	}
	if p.UserPrincipalName != "" {
		u.SetUserPrincipalName(&p.UserPrincipalName)
	}
	extra := map[string]any{}
	for short, value := range p.Attributes {
		extra[names[short]] = value
	}
	u.SetAdditionalData(extra)
	info, err := t.client.users().ByUserId(string(id)).ToPatchRequestInformation(ctx, u, nil)
	if err != nil {
		return nil, fmt.Errorf("write the patch: %w", err)
	}
	// The model writes additional data in the order of a map; sorted, the same patch is the same bytes.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(info.Content, &fields); err != nil {
		return nil, fmt.Errorf("write the patch: %w", err)
	}
	info.Content, err = json.Marshal(fields)
	return info, err
}

// refineUPN tells a name that is taken from one that is refused. Graph's code for both is Request_BadRequest; the
// details name the property, and where there are none only the message does, whose wording is not contractual: what
// is not recognised stays "rejected", which is as permanent.
func refineUPN(e *signup.Error, g graphError) {
	if e.Status != 400 && e.Status != 409 {
		return
	}
	const upn = "userprincipalname"
	message := strings.ToLower(g.Message)
	about := strings.Contains(message, upn)
	conflict := about && strings.Contains(message, "already exists")
	for _, d := range g.Details {
		if strings.EqualFold(d.Target, upn) {
			about = true
			conflict = conflict || d.Code == "ObjectConflict"
		}
	}
	switch {
	case conflict:
		e.Class, e.Code = signup.Permanent, "upn-taken"
	case about && e.Status == 400:
		e.Class, e.Code = signup.Permanent, "upn-invalid"
	}
}

// refineAttributes recognises a custom attribute that the tenant does not have: the message names it in full, and so
// does no other refusal.
func refineAttributes(e *signup.Error, g graphError, names map[string]string) {
	if e.Status != 400 {
		return
	}
	message := strings.ToLower(g.Message)
	var missing []string
	for short, full := range names {
		if strings.Contains(message, strings.ToLower(full)) {
			missing = append(missing, short)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		*e = *missingAttributes(missing, e.Status)
	}
}
