package pipeline

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"signup-sync/handler/signup"
)

// Spec is what the configuration says about the user's own record and about the destinations, as plain values.
type Spec struct {
	Migrated          string            // an expression that is true of users who were imported; "" is nobody
	DisplayName       string            // an expression; "" leaves display names alone
	UserPrincipalName string            // an expression for the local part; "" leaves user principal names alone
	Domain            string            // … and the domain behind it; "" is the one that the user has
	Attributes        map[string]string // expressions by the attribute's name; see signup.AttributeKind
	Destinations      []DestinationSpec
}

// DestinationSpec is one destination's rule and mapping.
type DestinationSpec struct {
	Name   string
	When   string         // an expression that yields a bool; "" is every user
	Record map[string]any // leaves: a string is an expression, a bool or number is itself; maps and lists nest
}

// Problem is one thing that is wrong with a Spec.
type Problem struct {
	Path    string // where, as a YAMLPath: "$.destinations[2].record.email"
	Column  int    // the character of the expression at Path, from 0; -1 if it is not about one
	Message string
}

// Mapping is a Spec, compiled. It may be used from several goroutines at once.
type Mapping struct {
	migrated     *expression
	displayName  *expression
	principal    *expression
	domain       string
	attributes   []namedExpression // sorted by name
	destinations []destination
}

type namedExpression struct {
	name string
	kind signup.AttributeKind
	*expression
}

type destination struct {
	name   string
	when   *expression // nil is every user
	record *template
	needs  []string
}

var (
	destinationName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	plainKey        = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// Compile checks and compiles the whole Spec. It returns either a Mapping or all that is wrong, in the order of the
// document as far as a Spec keeps it: keys of maps are taken in the order of the alphabet.
func Compile(s Spec) (*Mapping, []Problem) {
	c := &compiler{known: map[string]bool{}, conditional: map[string]bool{}}
	for _, d := range s.Destinations {
		c.names = append(c.names, d.Name)
		c.known[d.Name] = true
		c.conditional[d.Name] = c.conditional[d.Name] || strings.TrimSpace(d.When) != ""
	}
	m := &Mapping{
		migrated:    c.migrated(s.Migrated),
		displayName: c.optional("$.profile.displayName", s.DisplayName, wantString),
		principal:   c.optional("$.profile.userPrincipalName", s.UserPrincipalName, wantString),
		domain:      s.Domain,
	}
	c.checkDomain(s)
	same := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
		path := ChildPath("$.profile.attributes", name)
		kind := c.checkAttribute(path, -1, name)
		if other := same[strings.ToLower(name)]; other != "" {
			c.problem(path, -1, "is the same attribute as %s: remove one", other)
		}
		same[strings.ToLower(name)] = name
		m.attributes = append(m.attributes, namedExpression{name, kind, c.compile(path, s.Attributes[name], wantString)})
	}
	seen := map[string]bool{}
	for i, d := range s.Destinations {
		path := fmt.Sprintf("$.destinations[%d]", i)
		c.checkName(path+".name", d.Name, seen)
		c.current = d.Name
		compiled := destination{name: d.Name, when: c.optional(path+".when", d.When, wantBool)}
		compiled.record = c.template(path+".record", d.Record)
		compiled.needs = needsOf(append(compiled.record.expressions(), compiled.when))
		m.destinations = append(m.destinations, compiled)
	}
	c.refuseCycles(m.destinations)
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return m, nil
}

// migrated compiles the rule for those who were imported, which is asked before anything is known of the user beside the
// profile.
func (c *compiler) migrated(text string) *expression {
	const path = "$.signups.migrated"
	e := c.optional(path, text, wantBool)
	if e != nil && len(e.needs) > 0 {
		c.problem(path, -1, "it is asked before the user has any account: write user, not accounts")
	}
	return e
}

// ChildPath is the YAMLPath of a key below path.
func ChildPath(path, key string) string {
	if !plainKey.MatchString(key) {
		key = "'" + strings.ReplaceAll(key, "'", `\'`) + "'"
	}
	return path + "." + key
}

// compiler collects the problems of one Spec.
type compiler struct {
	names       []string
	known       map[string]bool
	conditional map[string]bool // destinations that have a rule
	current     string          // the destination whose expressions are being compiled, "" in the profile
	problems    []Problem
}

func (c *compiler) problem(path string, column int, format string, args ...any) {
	c.problems = append(c.problems, Problem{Path: path, Column: column, Message: fmt.Sprintf(format, args...)})
}

func (c *compiler) checkName(path, name string, seen map[string]bool) {
	switch {
	case name == "":
		c.problem(path, -1, "a destination needs a name: it is kept in the ledger and must never change")
	case name == signup.Profile:
		c.problem(path, -1, "%q is reserved for the user's own record: choose another name", name)
	case !destinationName.MatchString(name):
		c.problem(path, -1, "%q is not a destination's name: write a lower-case letter and then up to 30 lower-case letters, digits or hyphens", name)
	case seen[name]:
		c.problem(path, -1, "there is another destination %q: names must differ", name)
	}
	seen[name] = true
}

func (c *compiler) checkAttribute(path string, column int, name string) signup.AttributeKind {
	kind, err := signup.ParseAttribute(name)
	if err != nil {
		c.problem(path, column, "%v", err)
	}
	return kind
}

// checkDomain looks at the domain of user principal names; whether the tenant has it, the directory must say.
func (c *compiler) checkDomain(s Spec) {
	const path = "$.profile.userPrincipalNameDomain"
	switch {
	case s.Domain == "":
	case !domainName.MatchString(s.Domain):
		c.problem(path, -1, "%q is not a domain: write one of the tenant's verified domains, such as contoso.com", s.Domain)
	case len(s.Domain) > maxDomain:
		c.problem(path, -1, "the domain has more than the %d characters that user principal names allow", maxDomain)
	case strings.TrimSpace(s.UserPrincipalName) == "":
		c.problem(path, -1, "there is no profile.userPrincipalName to put before the domain: write it, or remove the line")
	}
}

// refuseCycles reports every destination that waits for itself through others, once a cycle.
func (c *compiler) refuseCycles(all []destination) {
	needs := map[string][]string{}
	for _, d := range all {
		if needs[d.name] == nil {
			needs[d.name] = d.needs
		}
	}
	const visiting, done = 1, 2
	state := map[string]int{}
	var trail []string
	var visit func(name string)
	visit = func(name string) {
		state[name], trail = visiting, append(trail, name)
		for _, next := range needs[name] {
			switch {
			case next == name: // reported where it is written
			case state[next] == visiting:
				cycle := append(slices.Clone(trail[slices.Index(trail, next):]), next)
				path := fmt.Sprintf("$.destinations[%d].name", slices.Index(c.names, next))
				c.problem(path, -1, "destinations wait for each other: %s; take out one of the accounts.… that make this circle", strings.Join(cycle, " needs "))
			case state[next] == 0:
				visit(next)
			}
		}
		state[name], trail = done, trail[:len(trail)-1]
	}
	for _, name := range c.names {
		if state[name] == 0 {
			visit(name)
		}
	}
}

// Names returns the destinations in the order of the configuration.
func (m *Mapping) Names() []string {
	names := make([]string, 0, len(m.destinations))
	for _, d := range m.destinations {
		names = append(names, d.name)
	}
	return names
}

// Needs returns the destinations whose accounts the destination's rule or record mention, sorted. It is worked when
// all of them are settled.
func (m *Mapping) Needs(name string) []string {
	if d := m.destination(name); d != nil {
		return slices.Clone(d.needs)
	}
	return nil
}

// ProfileNeeds returns the destinations whose accounts the user's own record mentions, sorted.
func (m *Mapping) ProfileNeeds() []string { return needsOf(m.profile()) }

// LinkBack returns the attribute that holds exactly the destination's account id, the first by name, and
// whether there is one.
func (m *Mapping) LinkBack(name string) (attribute string, ok bool) {
	for _, a := range m.attributes {
		if a.linkBack == name {
			return a.name, true
		}
	}
	return "", false
}

// Reads returns what expressions ask of a user, sorted: members such as givenName, and attributes.
func (m *Mapping) Reads() (fields, attributes []string) {
	for _, e := range m.expressions() {
		fields, attributes = append(fields, e.fields...), append(attributes, e.attributes...)
	}
	slices.Sort(fields)
	slices.Sort(attributes)
	return slices.Compact(fields), slices.Compact(attributes)
}

// Attributes returns the names of all attributes that are read or written, sorted: what a read of a
// profile must select.
func (m *Mapping) Attributes() []string {
	set := map[string]bool{}
	for _, e := range m.expressions() {
		for _, a := range e.attributes {
			set[a] = true
		}
	}
	for _, a := range m.attributes {
		set[a.name] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// expressions returns all that there are.
func (m *Mapping) expressions() []*expression {
	all := append(m.profile(), m.migrated)
	for _, d := range m.destinations {
		all = append(append(all, d.when), d.record.expressions()...)
	}
	return slices.DeleteFunc(all, func(e *expression) bool { return e == nil })
}

func (m *Mapping) destination(name string) *destination {
	for i := range m.destinations {
		if m.destinations[i].name == name {
			return &m.destinations[i]
		}
	}
	return nil
}

// profile returns the expressions of the user's own record; some may be nil.
func (m *Mapping) profile() []*expression {
	all := []*expression{m.displayName, m.principal}
	for _, a := range m.attributes {
		all = append(all, a.expression)
	}
	return all
}

func needsOf(all []*expression) []string {
	set := map[string]bool{}
	for _, e := range all {
		if e != nil {
			for _, n := range e.needs {
				set[n] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// template is a record with expressions at its leaves. Exactly one of its fields is used.
type template struct {
	keys    []string // of a map, sorted
	values  []*template
	isMap   bool
	items   []*template
	isList  bool
	leaf    *expression
	literal any // a bool, int or float64
}

func (c *compiler) template(path string, v any) *template {
	switch v := v.(type) {
	case map[string]any:
		t := &template{isMap: true, keys: slices.Sorted(maps.Keys(v))}
		for _, k := range t.keys {
			t.values = append(t.values, c.template(ChildPath(path, k), v[k]))
		}
		return t
	case []any:
		t := &template{isList: true}
		for i, item := range v {
			t.items = append(t.items, c.template(path+"["+strconv.Itoa(i)+"]", item))
		}
		return t
	case string:
		return &template{leaf: c.compile(path, v, wantValue)}
	case nil:
		c.problem(path, -1, "there is no value: write an expression, or remove the line")
		return &template{}
	}
	if n, ok := plain(v); ok {
		return &template{literal: n}
	}
	c.problem(path, -1, "%T is not a value for a record: write an expression, true, false or a number", v)
	return &template{}
}

func (t *template) expressions() []*expression {
	var all []*expression
	if t.leaf != nil {
		all = append(all, t.leaf)
	}
	for _, v := range slices.Concat(t.values, t.items) {
		all = append(all, v.expressions()...)
	}
	return all
}
