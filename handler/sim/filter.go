package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The $filter grammar that the simulated Graph understands:
//
//	filter  = clause *( " and " clause )
//	clause  = path op literal | path " in (" literal *( "," literal ) ")" | "startswith(" path "," string ")"
//	        | path "/any(" v ":" v "/" property op literal *( " and " v "/" property op literal ) ")"
//
// Strings stand in single quotes, with '' for a quote; dates are bare ISO 8601.

// clause is one condition. For any, path is the collection and inner has the conditions on one member.
type clause struct {
	path   string
	op     string // eq, ge, le, gt, lt, ne, in, startswith, any
	values []literal
	inner  []clause
}

type literal struct {
	text   string
	quoted bool
}

var errFilter = errors.New("invalid filter clause")

// parseFilter reads a $filter; which properties and operators are allowed is for the schema to say.
func parseFilter(s string) ([]clause, error) {
	p := &filterParser{rest: s}
	var out []clause
	for {
		c, err := p.clause()
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		t, ok := p.next()
		if !ok {
			return out, nil
		}
		if t.quoted || t.text != "and" {
			return nil, fmt.Errorf("%w at %q", errFilter, t.text)
		}
	}
}

type filterParser struct{ rest string }

// next reads a token: a quoted string, one of "(),", or a run of anything else.
func (p *filterParser) next() (literal, bool) {
	p.rest = strings.TrimLeft(p.rest, " ")
	if p.rest == "" {
		return literal{}, false
	}
	switch c := p.rest[0]; c {
	case '(', ')', ',':
		p.rest = p.rest[1:]
		return literal{text: string(c)}, true
	case '\'':
		var b strings.Builder
		for i := 1; i < len(p.rest); i++ {
			if p.rest[i] != '\'' {
				b.WriteByte(p.rest[i])
				continue
			}
			if i+1 < len(p.rest) && p.rest[i+1] == '\'' {
				b.WriteByte('\'')
				i++
				continue
			}
			p.rest = p.rest[i+1:]
			return literal{b.String(), true}, true
		}
		p.rest = ""
		return literal{text: "'"}, true // not closed: no clause has such a token
	}
	end := strings.IndexAny(p.rest, " (),'")
	if end < 0 {
		end = len(p.rest)
	}
	t := p.rest[:end]
	p.rest = p.rest[end:]
	return literal{text: t}, true
}

func (p *filterParser) expect(text string) error {
	if t, ok := p.next(); !ok || t.quoted || t.text != text {
		return fmt.Errorf("%w: want %q", errFilter, text)
	}
	return nil
}

func (p *filterParser) word() (string, error) {
	t, ok := p.next()
	if !ok || t.quoted || strings.ContainsAny(t.text, "(),'") {
		return "", fmt.Errorf("%w: want a word", errFilter)
	}
	return t.text, nil
}

func (p *filterParser) value() (literal, error) {
	t, ok := p.next()
	if !ok || !t.quoted && strings.ContainsAny(t.text, "(),'") {
		return literal{}, fmt.Errorf("%w: want a literal", errFilter)
	}
	return t, nil
}

func (p *filterParser) clause() (clause, error) {
	path, err := p.word()
	if err != nil {
		return clause{}, err
	}
	if path == "startswith" {
		return p.startsWith()
	}
	if collection, ok := strings.CutSuffix(path, "/any"); ok {
		return p.any(collection)
	}
	return p.comparison(path)
}

func (p *filterParser) comparison(path string) (clause, error) {
	op, err := p.word()
	if err != nil {
		return clause{}, err
	}
	c := clause{path: path, op: op}
	if op != "in" {
		v, err := p.value()
		c.values = []literal{v}
		return c, err
	}
	if err := p.expect("("); err != nil {
		return clause{}, err
	}
	for {
		v, err := p.value()
		if err != nil {
			return clause{}, err
		}
		c.values = append(c.values, v)
		switch t, ok := p.next(); {
		case !ok || t.quoted:
			return clause{}, fmt.Errorf("%w: list is not closed", errFilter)
		case t.text == ")":
			return c, nil
		case t.text != ",":
			return clause{}, fmt.Errorf("%w: want a comma", errFilter)
		}
	}
}

func (p *filterParser) startsWith() (clause, error) {
	c := clause{op: "startswith"}
	err := p.expect("(")
	if err == nil {
		c.path, err = p.word()
	}
	if err == nil {
		err = p.expect(",")
	}
	var v literal
	if err == nil {
		v, err = p.value()
	}
	if err == nil {
		err = p.expect(")")
	}
	c.values = []literal{v}
	return c, err
}

func (p *filterParser) any(collection string) (clause, error) {
	c := clause{path: collection, op: "any"}
	if err := p.expect("("); err != nil {
		return clause{}, err
	}
	w, err := p.word()
	if err != nil {
		return clause{}, err
	}
	name, rest, ok := strings.Cut(w, ":")
	if !ok {
		return clause{}, fmt.Errorf("%w: want a range variable", errFilter)
	}
	p.rest = rest + p.rest
	for {
		inner, err := p.clause()
		if err != nil {
			return clause{}, err
		}
		property, ok := strings.CutPrefix(inner.path+"/", name+"/")
		property = strings.TrimSuffix(property, "/")
		if !ok || inner.op == "any" {
			return clause{}, fmt.Errorf("%w: want %s/…", errFilter, name)
		}
		inner.path = property
		c.inner = append(c.inner, inner)
		switch t, ok := p.next(); {
		case !ok || t.quoted:
			return clause{}, fmt.Errorf("%w: any is not closed", errFilter)
		case t.text == ")":
			return c, nil
		case t.text != "and":
			return clause{}, fmt.Errorf("%w: want and", errFilter)
		}
	}
}

// property says how one property can be filtered.
type property struct {
	kind string // text, fold (text without regard to letter case), time, number, flag
	ops  string // the documented operators, separated by blanks
	more string // operators that work although no page lists them
}

// schema has the properties of a resource that can be filtered; a member of a collection is "collection/any/member".
type schema map[string]property

// check reports the first clause that the schema refuses.
func (s schema) check(clauses []clause, strict bool) error {
	for _, c := range clauses {
		if c.op == "any" {
			for _, in := range c.inner {
				in.path = c.path + "/any/" + in.path
				if err := s.check([]clause{in}, strict); err != nil {
					return err
				}
			}
			continue
		}
		p, ok := s[c.path]
		if !ok {
			return fmt.Errorf("%w: property %s", errFilter, c.path)
		}
		ops := strings.Fields(p.ops)
		if !strict {
			ops = append(ops, strings.Fields(p.more)...)
		}
		if !slices.Contains(ops, c.op) {
			return fmt.Errorf("%w: %s %s", errFilter, c.path, c.op)
		}
		for _, v := range c.values {
			if !p.fits(v) {
				return fmt.Errorf("%w: value of %s", errFilter, c.path)
			}
		}
	}
	return nil
}

func (p property) fits(v literal) bool {
	if p.kind == "text" || p.kind == "fold" {
		return v.quoted
	}
	if v.quoted {
		return false
	}
	var err error
	switch p.kind {
	case "time":
		_, err = time.Parse(time.RFC3339Nano, v.text)
	case "number":
		_, err = strconv.Atoi(v.text)
	case "flag":
		_, err = strconv.ParseBool(v.text)
	}
	return err == nil
}

// match applies checked clauses to a decoded record.
func (s schema) match(clauses []clause, record map[string]any) bool {
	for _, c := range clauses {
		if c.op == "any" {
			if !s.matchAny(c, record) {
				return false
			}
			continue
		}
		if !s[c.path].match(c, dig(record, c.path)) {
			return false
		}
	}
	return true
}

func (s schema) matchAny(c clause, record map[string]any) bool {
	members, _ := dig(record, c.path).([]any)
	return slices.ContainsFunc(members, func(m any) bool {
		fields, _ := m.(map[string]any)
		for _, in := range c.inner {
			member := m // of a collection of plain values
			if in.path != "" {
				member = dig(fields, in.path)
			}
			if !s[c.path+"/any/"+in.path].match(in, member) {
				return false
			}
		}
		return true
	})
}

func (p property) match(c clause, have any) bool {
	for _, v := range c.values {
		if p.compare(c.op, have, v.text) {
			return true
		}
	}
	return false
}

func (p property) compare(op string, have any, want string) bool {
	switch p.kind {
	case "time":
		text, _ := have.(string)
		h, err := time.Parse(time.RFC3339Nano, text)
		w, errWant := time.Parse(time.RFC3339Nano, want)
		return err == nil && errWant == nil && ordered(op, h.Compare(w))
	case "number":
		n, ok := have.(float64)
		w, err := strconv.ParseFloat(want, 64)
		return ok && err == nil && op == "eq" && n == w
	case "flag":
		b, ok := have.(bool)
		return ok && strconv.FormatBool(b) == strings.ToLower(want)
	}
	text, ok := have.(string)
	if p.kind == "fold" {
		text, want = strings.ToLower(text), strings.ToLower(want)
	}
	if op == "startswith" {
		return ok && strings.HasPrefix(text, want)
	}
	return ok && text == want
}

func ordered(op string, c int) bool {
	switch op {
	case "ge":
		return c >= 0
	case "le":
		return c <= 0
	case "gt":
		return c > 0
	case "lt":
		return c < 0
	}
	return c == 0
}

// dig follows a path such as initiatedBy/user/id; nil if something on the way is missing.
func dig(record map[string]any, path string) any {
	var v any = record
	for part := range strings.SplitSeq(path, "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}
