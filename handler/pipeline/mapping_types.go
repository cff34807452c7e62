package pipeline

import (
	"slices"

	"github.com/expr-lang/expr/ast"

	"signup-sync/handler/signup"
)

// AttributeUse is an attribute of the user's record and what an expression takes its values for.
type AttributeUse struct {
	Name string               `json:"name"` // as the configuration has it
	Type signup.AttributeType `json:"type"` // of what it is compared with, or stands for
	Path string               `json:"path"` // where, as a YAMLPath: $.destinations[1].when
}

// AttributeUses returns what attributes are taken for, as far as the configuration tells, each once for each place. Where
// the tenant has another type nobody is ever equal, and nothing tells: "true" is not true. Anything else that
// meets the wrong type fails the user.
func (m *Mapping) AttributeUses() []AttributeUse {
	var all []AttributeUse
	add := func(e *expression) {
		if e != nil {
			all = append(all, e.taken...)
		}
	}
	add(m.migrated)
	for _, e := range m.profile() {
		add(e)
	}
	for _, a := range m.attributes { // which are written as strings
		all = append(all, AttributeUse{Name: a.name, Type: signup.StringType, Path: a.path})
	}
	for _, d := range m.destinations {
		add(d.when)
		for _, e := range d.record.expressions() {
			add(e)
		}
	}
	return all
}

// take notes that a node, which is an attribute, is taken for a value of that type.
func (u *usage) take(n ast.Node, t signup.AttributeType) {
	name, ok := bare(n).(*ast.MemberNode).Property.(*ast.StringNode)
	if use := (AttributeUse{Type: t}); ok {
		if use.Name = name.Value; !slices.Contains(u.taken, use) {
			u.taken = append(u.taken, use)
		}
	}
}

// takeLike notes that a node, if it is an attribute, is taken for what another one is.
func (u *usage) takeLike(n, other ast.Node) {
	if empty := emptyLike(other); empty != nil && isAttribute(n) {
		u.take(n, typeOfNode(empty))
	}
}

// takeWhole notes what an expression that is an attribute and nothing else is taken for.
func (u *usage) takeWhole(n ast.Node, want wanted) {
	if !isAttribute(n) {
		return
	}
	switch want {
	case wantString:
		u.take(n, signup.StringType)
	case wantBool:
		u.take(n, signup.BoolType)
	}
}

// typeOfNode is the type of an empty value.
func typeOfNode(empty ast.Node) signup.AttributeType {
	switch empty.(type) {
	case *ast.BoolNode:
		return signup.BoolType
	case *ast.IntegerNode:
		return signup.NumberType
	}
	return signup.StringType
}
