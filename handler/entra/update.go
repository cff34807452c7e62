package entra

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoft/kiota-abstractions-go/serialization"
	"github.com/microsoftgraph/msgraph-sdk-go/models"

	"signup-sync/handler/signup"
)

// Update implements signup.Directory with one PATCH. Beside what the interface promises, the error's code is
// "upn-invalid" (permanent) for a name that the directory does not take, "domain-unverified" (systemic) for the configured
// domain if the tenant does not have it, "attribute-too-long", "attribute-invalid" and "attribute-read-only" (permanent),
// "attribute-missing" and "attribute-twice" (systemic), "not-found" (transient) while the user cannot be found.
func (t *Tenant) Update(ctx context.Context, id signup.UserID, p signup.Patch) error {
	if p.Empty() {
		return nil
	}
	names, err := t.written(ctx, p)
	if err != nil {
		return err
	}
	if _, domain, _ := strings.Cut(p.UserPrincipalName, "@"); strings.EqualFold(domain, t.domain.name) {
		if err := t.verifyDomain(ctx); err != nil {
			return err
		}
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

// written returns Graph's names of the attributes that a patch writes or clears, by ours. It refuses what cannot be
// written.
func (t *Tenant) written(ctx context.Context, p signup.Patch) (map[string]string, error) {
	attributes := slices.Concat(slices.Sorted(maps.Keys(p.Attributes)), p.Clear)
	for _, a := range attributes {
		kind, _ := signup.ParseAttribute(a) // which propertyNames refuses
		if n := utf8.RuneCountInString(p.Attributes[a]); n > kind.MaxLength() {
			return nil, &signup.Error{
				Class: signup.Permanent, Code: "attribute-too-long",
				Detail: fmt.Sprintf("attribute %s has %d characters, at most %d fit", a, n, kind.MaxLength()),
			}
		}
	}
	names, err := t.propertyNames(ctx, attributes)
	if err != nil {
		return nil, err
	}
	same := map[string]string{}
	for _, a := range attributes {
		property := strings.ToLower(names[a])
		if other := same[property]; other != "" {
			return nil, &signup.Error{
				Class: signup.Systemic, Code: "attribute-twice",
				Detail: clip(a+" and "+other) + " are the same attribute; remove one from profile.attributes",
			}
		}
		same[property] = a
	}
	return names, nil
}

// patch makes the request, with nothing in it but what is to change.
func (t *Tenant) patch(ctx context.Context, id signup.UserID, p signup.Patch, names map[string]string) (*abstractions.RequestInformation, error) {
	u := user{fields: map[string]any{"@odata.type": "#microsoft.graph.user"}}
	if p.DisplayName != "" {
		u.fields["displayName"] = p.DisplayName
	}
	if p.UserPrincipalName != "" {
		u.fields["userPrincipalName"] = p.UserPrincipalName
	}
	// Of onPremises only what is named is changed.
	inner := map[string]any{}
	set := func(name string, value any) {
		if property := names[name]; isExtension(property) {
			u.fields[property] = value
		} else {
			inner[property] = value
		}
	}
	for name, value := range p.Attributes {
		set(name, value)
	}
	for _, name := range p.Clear {
		set(name, nil)
	}
	if len(inner) > 0 {
		u.fields[onPremises] = inner
	}
	info, err := t.client.users().ByUserId(string(id)).ToPatchRequestInformation(ctx, u, nil)
	if err != nil {
		return nil, fmt.Errorf("write the patch: %w", err)
	}
	return info, nil
}

// user stands for the SDK's model of a user in what the builder writes. With the model itself the linker would keep all
// models there are, 24 MB: it cannot know which of their methods reflection calls, and each makes others.
type user struct {
	models.Userable // nil: all that is called is Serialize
	fields          map[string]any
}

// Serialize writes the fields, sorted: the same patch is the same bytes.
func (u user) Serialize(w serialization.SerializationWriter) error {
	for _, name := range slices.Sorted(maps.Keys(u.fields)) {
		var err error
		if value := u.fields[name]; value == nil {
			err = w.WriteNullValue(name)
		} else {
			err = w.WriteAnyValue(name, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
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

// refineAttributes recognises what is wrong with an attribute: one that the tenant does not have, a value that it does
// not take, and extension attributes that belong to another directory. The wording is not contractual: what is not
// recognised stays "rejected", which is as permanent.
func refineAttributes(e *signup.Error, g graphError, names map[string]string) {
	if e.Status != 400 {
		return
	}
	message := strings.ToLower(g.Message)
	var named, inner []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if mentions(message, strings.ToLower(names[name])) {
			named = append(named, name)
		}
		if !isExtension(names[name]) {
			inner = append(inner, name)
		}
	}
	elsewhere := strings.Contains(message, "on-premises mastered") || strings.Contains(message, "originated within an external service")
	switch {
	case elsewhere && len(inner) > 0:
		e.Class, e.Code = signup.Permanent, "attribute-read-only"
		e.Detail = clip(strings.Join(inner, ", ")) + " can be written only for users who always were cloud-only, and this one was synchronised"
	case len(named) > 0 && strings.Contains(message, "invalid value"):
		e.Class, e.Code = signup.Permanent, "attribute-invalid"
		e.Detail = clip("the directory does not take the value of " + strings.Join(named, ", "))
	case len(named) > 0 && isExtension(names[named[0]]):
		*e = *missingAttributes(named, e.Status)
	}
}

// mentions reports that a message has the name, and not only the beginning of a longer one.
func mentions(message, name string) bool {
	for rest := message; ; {
		_, after, found := strings.Cut(rest, name)
		if !found {
			return false
		}
		if after == "" || word(after[:1]) == "" || strings.ContainsAny(after[:1], ".-") {
			return true
		}
		rest = after
	}
}
