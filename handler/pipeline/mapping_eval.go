package pipeline

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"signup-sync/handler/signup"
)

const (
	maxDisplayName = 256 // characters, Graph's limit
	// notCollected is the display name that External ID gives to users whose sign-up did not ask for one.
	notCollected = "unknown"
)

// Signup is what expressions see as signup.
type Signup struct {
	Kind     signup.Kind
	Origin   signup.Origin
	Way      signup.Way
	At       time.Time
	Detected time.Time
	Detector string
}

// Input is one user as the expressions see them.
type Input struct {
	User     signup.User
	Signup   Signup
	Accounts map[string]AccountView // of the destinations where the user is associated
	Skipped  map[string]bool        // destinations that are settled without an account; only Profile asks
}

// Profile evaluates what the user's own record should be. The result is what the configuration wants, whatever stands
// there now: Change says what of it is to be written. An expression that mentions accounts is left out until each of
// them is there or skipped, and for good if one that it uses without "?." was skipped.
//
// White space in a display name is single and inside; dots in a user principal name likewise, and what the latter cannot
// have is spelled as slug does it. What comes out empty
// changes nothing. A result that Entra ID would refuse is left out and named by the error, a permanent *signup.Error
// with code "mapping"; the patch holds the rest.
func (m *Mapping) Profile(in Input) (signup.Patch, error) {
	var desired signup.Patch
	var errs []string
	s := newScope(in)
	text := func(e *expression) string {
		if e == nil || !e.ready(in) {
			return ""
		}
		v, err := e.run(s)
		if err != nil {
			errs = append(errs, err.Error())
			return ""
		}
		if v == nil {
			return ""
		}
		t, ok := v.(string)
		if !ok {
			errs = append(errs, e.where()+" is not a string for this user")
		}
		return t
	}
	desired.DisplayName = tidy(text(m.displayName))
	if local := tidyDots(text(m.principal)); local != "" {
		_, domain, _ := strings.Cut(in.User.UserPrincipalName, "@")
		upn, err := principalName(local, cmp.Or(m.domain, domain))
		if err != nil {
			errs = append(errs, fmt.Sprintf("%s: %v", m.principal.where(), err))
		}
		desired.UserPrincipalName = upn
	}
	for _, a := range m.attributes {
		v := strings.TrimSpace(text(a.expression))
		switch {
		case v == "":
			continue
		case len([]rune(v)) > a.kind.MaxLength():
			errs = append(errs, fmt.Sprintf("%s is longer than %d characters", a.where(), a.kind.MaxLength()))
			continue
		case desired.Attributes == nil:
			desired.Attributes = map[string]string{}
		}
		desired.Attributes[a.name] = v
	}
	if len(errs) > 0 {
		return desired, mappingError(strings.Join(errs, "; "))
	}
	return desired, nil
}

// Change is what of the desired patch is to be written to the user: a display name only while it is empty or
// "unknown", a user principal name only while it is the generated one, attributes where they differ.
func Change(u signup.User, desired signup.Patch) signup.Patch {
	var p signup.Patch
	if replaceable(u.DisplayName) {
		p.DisplayName = desired.DisplayName
	}
	if u.HasGeneratedUPN() && !strings.EqualFold(u.UserPrincipalName, desired.UserPrincipalName) {
		p.UserPrincipalName = desired.UserPrincipalName
	}
	for name, v := range desired.Attributes {
		if u.Attributes[name] != v {
			if p.Attributes == nil {
				p.Attributes = map[string]string{}
			}
			p.Attributes[name] = v
		}
	}
	return p
}

func replaceable(displayName string) bool {
	name := strings.TrimSpace(displayName)
	return name == "" || strings.EqualFold(name, notCollected)
}

// Want evaluates a destination's rule and, if that holds, its record. It is to be called when all of Needs are
// settled. Expressions see the display name that the user has or is about to get. White space around a leaf is taken
// off; one that yields "" or nil is left out, and so are the maps and lists that are left without a leaf.
//
// An error is a *signup.Error: permanent with code "mapping" if an expression cannot be evaluated for this user;
// skip with code "needs" if it uses, without "?.", the account of a destination where the user has none. Neither
// holds a value of the user's.
func (m *Mapping) Want(name string, in Input) (record map[string]any, want bool, err error) {
	d := m.destination(name)
	if d == nil {
		return nil, false, mappingError(fmt.Sprintf("there is no destination %q", name))
	}
	if replaceable(in.User.DisplayName) && m.displayName != nil && len(m.displayName.needs) == 0 {
		desired, _ := (&Mapping{displayName: m.displayName}).Profile(in) // an error is the profile's, not this destination's
		if desired.DisplayName != "" {
			in.User.DisplayName = desired.DisplayName
		}
	}
	s := newScope(in)
	if d.when != nil {
		v, err := d.when.need(in, s)
		if err != nil {
			return nil, false, err
		}
		switch v := v.(type) {
		case nil:
			return nil, false, nil
		case bool:
			if !v {
				return nil, false, nil
			}
		default:
			return nil, false, mappingError(d.when.where() + " is not true or false for this user")
		}
	}
	v, err := d.record.fill(in, s)
	if err != nil {
		return nil, false, err
	}
	record, _ = v.(map[string]any)
	if record == nil {
		record = map[string]any{}
	}
	return record, true, nil
}

// Migrated reports that the configuration takes the user for one who was imported. An error is a permanent *signup.Error
// with code "mapping".
func (m *Mapping) Migrated(u signup.User) (bool, error) {
	if m.migrated == nil {
		return false, nil
	}
	v, err := m.migrated.run(newScope(Input{User: u}))
	if err != nil {
		return false, mappingError(err.Error())
	}
	is, _ := v.(bool) // nil is what there is of an attribute that the user does not have
	return is, nil
}

// need evaluates an expression of a destination.
func (e *expression) need(in Input, s *scope) (any, error) {
	for _, name := range e.must {
		if _, ok := in.Accounts[name]; !ok {
			return nil, &signup.Error{Class: signup.Skip, Code: signup.ReasonNeeds, Detail: name}
		}
	}
	v, err := e.run(s)
	if err != nil {
		return nil, mappingError(err.Error())
	}
	return v, nil
}

// ready reports that an expression of the profile can be evaluated.
func (e *expression) ready(in Input) bool {
	for _, name := range e.needs {
		if _, ok := in.Accounts[name]; !ok && (!in.Skipped[name] || slices.Contains(e.must, name)) {
			return false
		}
	}
	return true
}

// fill evaluates a record; nil is what is left out.
func (t *template) fill(in Input, s *scope) (any, error) {
	switch {
	case t.isMap:
		m := map[string]any{}
		for i, k := range t.keys {
			v, err := t.values[i].fill(in, s)
			if err != nil {
				return nil, err
			}
			if v != nil {
				m[k] = v
			}
		}
		if len(m) == 0 {
			return nil, nil
		}
		return m, nil
	case t.isList:
		var l []any
		for _, item := range t.items {
			v, err := item.fill(in, s)
			if err != nil {
				return nil, err
			}
			if v != nil {
				l = append(l, v)
			}
		}
		if len(l) == 0 {
			return nil, nil
		}
		return l, nil
	case t.leaf != nil:
		v, err := t.leaf.need(in, s)
		if err != nil {
			return nil, err
		}
		p, ok := plain(v)
		if !ok {
			return nil, mappingError(t.leaf.where() + " has no value that can be sent for this user")
		}
		if text, ok := p.(string); ok {
			if text = strings.TrimSpace(text); text == "" {
				return nil, nil
			}
			return text, nil
		}
		return p, nil
	}
	return t.literal, nil
}

// plain brings a value to the types of signup.Request's Record; ok is false if it has none of them. A time is written
// by RFC 3339; the zero time is none.
func plain(v any) (_ any, ok bool) {
	switch v := v.(type) {
	case nil, string, bool, int:
		return v, true
	case time.Time:
		if v.IsZero() {
			return nil, true
		}
		return v.UTC().Format(time.RFC3339), true
	case time.Duration:
		return nil, false
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.String:
		return r.String(), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return int(r.Int()), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int(r.Uint()), r.Uint() <= math.MaxInt
	case reflect.Float32, reflect.Float64:
		return r.Float(), !math.IsNaN(r.Float()) && !math.IsInf(r.Float(), 0)
	case reflect.Slice:
		l := make([]any, r.Len())
		for i := range l {
			if l[i], ok = plain(r.Index(i).Interface()); !ok {
				return nil, false
			}
		}
		return l, true
	case reflect.Map:
		m := make(map[string]any, r.Len())
		for it := r.MapRange(); it.Next(); {
			k, isString := it.Key().Interface().(string)
			if m[k], ok = plain(it.Value().Interface()); !ok || !isString {
				return nil, false
			}
		}
		return m, true
	}
	return nil, false
}

func newScope(in Input) *scope {
	u := in.User
	s := &scope{
		User: &userScope{ID: string(u.ID), DisplayName: u.DisplayName, GivenName: u.GivenName, Surname: u.Surname,
			UserPrincipalName: u.UserPrincipalName, Email: u.Email, EmailVerified: u.EmailVerified, Country: u.Country,
			City: u.City, PreferredLanguage: u.PreferredLanguage, Created: u.Created.UTC(), Attributes: maps.Clone(u.Attributes)},
		Signup: &signupScope{Kind: string(in.Signup.Kind), Origin: string(in.Signup.Origin), Way: string(in.Signup.Way),
			Provider: u.IdentityProvider(), At: in.Signup.At.UTC(), Detected: in.Signup.Detected.UTC(), Detector: in.Signup.Detector},
		Accounts: make(map[string]*AccountView, len(in.Accounts)),
	}
	for name, a := range in.Accounts {
		s.Accounts[name] = &a
	}
	return s
}

// tidy brings white space to single spaces inside, drops control characters, and cuts to Graph's limit.
func tidy(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxDisplayName {
		s = strings.TrimSpace(string(r[:maxDisplayName]))
	}
	return s
}

func mappingError(detail string) error {
	return &signup.Error{Class: signup.Permanent, Code: "mapping", Detail: detail}
}
