package pipeline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// usage walks one expression: it collects which accounts and attributes are used, refuses what cannot be known before
// the run, and gives absent attributes the empty value of what they meet.
type usage struct {
	*compiler
	open       []openNode        // nodes that may only stand before a member written out
	closed     map[ast.Node]bool // those of them that do
	attributes map[string]bool
	fields     map[string]bool // of the user, beside the attributes
	taken      []AttributeUse  // what attributes are taken for
	needs      map[string]bool
	must       map[string]bool
	found      []Problem
}

type openNode struct {
	ast.Node
	message string
}

var _ ast.Visitor = (*usage)(nil)

// Visit is called for the children of a node before the node.
func (u *usage) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		u.root(n)
	case *ast.MemberNode:
		u.member(n)
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			u.fill(&n.Node, &ast.BoolNode{})
		}
	case *ast.ConditionalNode:
		u.fill(&n.Cond, &ast.BoolNode{})
	case *ast.BinaryNode:
		u.comparison(n)
		u.fillOperands(n)
	case *ast.BuiltinNode:
		u.fillArguments(n.Name, n.Arguments)
		u.refuseNesting(n)
	case *ast.CallNode:
		if f, ok := n.Callee.(*ast.IdentifierNode); ok {
			u.fillArguments(f.Value, n.Arguments)
		}
	}
}

// root notes one of the names that a member must follow.
func (u *usage) root(n *ast.IdentifierNode) {
	switch {
	case n.Value == "accounts":
		u.open = append(u.open, openNode{n, `accounts needs a destination's name written out, as in accounts.billing?.id or accounts["my-crm"]?.id`})
	case n.Value == "$env":
		u.problem(n, "$env is not available: write user, signup or accounts")
	case members[n.Value] != nil:
		u.open = append(u.open, openNode{n, fmt.Sprintf("%s needs a member's name written out, as in %s.%s", n.Value, n.Value, members[n.Value][0])})
	}
}

func (u *usage) member(n *ast.MemberNode) {
	name, literal := n.Property.(*ast.StringNode)
	if root, ok := n.Node.(*ast.IdentifierNode); ok && literal {
		u.closed[root] = true
		switch {
		case root.Value == "accounts":
			u.account(n, name.Value)
		case root.Value == "user" && name.Value == "attributes":
			u.open = append(u.open, openNode{n, "user.attributes needs a custom attribute's name written out, as in user.attributes.company"})
		case members[root.Value] != nil && !slices.Contains(members[root.Value], name.Value):
			u.problem(n.Property, "%s has no member %q%s", root.Value, name.Value, DidYouMean(name.Value, members[root.Value]))
		case root.Value == "user":
			set(&u.fields, name.Value)
		}
		return
	}
	if isMember(n.Node, "user", "attributes") {
		u.closed[bare(n.Node)] = true
		if !literal {
			u.problem(n.Property, "the custom attribute must be known before the run: write its name, as in user.attributes.company")
			return
		}
		set(&u.attributes, name.Value)
		c := &compiler{}
		c.checkAttribute("", at(n.Property), name.Value)
		u.found = append(u.found, c.problems...)
		return
	}
	if isAttribute(n.Node) {
		u.problem(n.Property, "a custom attribute is a string, bool or number and has no members")
		return
	}
	if account, ok := bare(n.Node).(*ast.MemberNode); ok && isRoot(account.Node, "accounts") {
		u.closed[account] = true
		u.accountMember(n, account, name)
	}
}

// comparison allows to ask whether there is an account: accounts.billing != nil.
func (u *usage) comparison(n *ast.BinaryNode) {
	_, left := n.Left.(*ast.NilNode)
	_, right := n.Right.(*ast.NilNode)
	if (n.Operator == "==" || n.Operator == "!=") && (left || right) {
		u.closed[bare(n.Left)], u.closed[bare(n.Right)] = true, true
	}
}

// account notes that the expression mentions a destination's account.
func (u *usage) account(n *ast.MemberNode, name string) {
	switch {
	case name == u.current && name != "":
		u.problem(n.Property, "destination %q waits for itself: take out accounts.%s", name, name)
	case !u.known[name]:
		fix := DidYouMean(name, u.names)
		for _, other := range u.names {
			if strings.HasPrefix(other, name+"-") {
				fix = fmt.Sprintf(": write %s", spell(other))
			}
		}
		u.problem(n.Property, "there is no destination %q%s", name, fix)
	default:
		set(&u.needs, name)
		u.open = append(u.open, openNode{n, fmt.Sprintf("an account is not a value: write %s?.id, or compare it with nil", spell(name))})
	}
}

// spell is how an expression names a destination's account.
func spell(name string) string {
	if strings.Contains(name, "-") {
		return fmt.Sprintf("accounts[%q]", name)
	}
	return "accounts." + name
}

// accountMember looks at the member of an account, which may be asked with or without "?.".
func (u *usage) accountMember(n, account *ast.MemberNode, member *ast.StringNode) {
	name, ok := account.Property.(*ast.StringNode)
	if !ok || !u.known[name.Value] {
		return
	}
	if member == nil || member.Value != "id" {
		u.problem(n.Property, "an account has only an id: write %s?.id", spell(name.Value))
		return
	}
	if n.Optional {
		return
	}
	set(&u.must, name.Value)
	if u.conditional[name.Value] {
		u.problem(n.Property, "destination %q has a rule, so the user may have no account there: write %s?.id", name.Value, spell(name.Value))
	}
}

// predicates are the functions that evaluate an expression for each element of a list.
var predicates = []string{"all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex",
	"count", "sum", "groupBy", "sortBy", "reduce"}

// refuseNesting keeps the time of an evaluation linear in the memory budget.
func (u *usage) refuseNesting(n *ast.BuiltinNode) {
	if !slices.Contains(predicates, n.Name) {
		return
	}
	for i := range n.Arguments {
		if p, ok := n.Arguments[i].(*ast.PredicateNode); ok {
			inner := &finder{}
			ast.Walk(&p.Node, inner)
			if inner.found != "" {
				u.problem(n, "%s inside the predicate of %s: loops in loops are not available", inner.found, n.Name)
			}
		}
	}
}

type finder struct{ found string }

func (f *finder) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.BuiltinNode); ok && slices.Contains(predicates, n.Name) {
		f.found = n.Name
	}
}

// finish reports what is wrong, with the open nodes that no member follows.
func (u *usage) finish(path string) []Problem {
	for _, n := range u.open {
		if !u.closed[n.Node] {
			u.problem(n.Node, "%s", n.message)
		}
	}
	for i := range u.found {
		u.found[i].Path = path
	}
	slices.SortStableFunc(u.found, func(a, b Problem) int { return a.Column - b.Column })
	return u.found
}

func (u *usage) problem(n ast.Node, format string, args ...any) {
	u.found = append(u.found, Problem{Column: at(n), Message: fmt.Sprintf(format, args...)})
}

func at(n ast.Node) int { return n.Location().From }

func set(m *map[string]bool, key string) {
	if *m == nil {
		*m = map[string]bool{}
	}
	(*m)[key] = true
}

// bare takes a chain of "?." off a node.
func bare(n ast.Node) ast.Node {
	if c, ok := n.(*ast.ChainNode); ok {
		return c.Node
	}
	return n
}

func isRoot(n ast.Node, name string) bool {
	i, ok := n.(*ast.IdentifierNode)
	return ok && i.Value == name
}

func isMember(n ast.Node, root, member string) bool {
	m, ok := bare(n).(*ast.MemberNode)
	if !ok || !isRoot(m.Node, root) {
		return false
	}
	p, ok := m.Property.(*ast.StringNode)
	return ok && p.Value == member
}

// isAttribute reports that a node is user.attributes.something.
func isAttribute(n ast.Node) bool {
	m, ok := bare(n).(*ast.MemberNode)
	return ok && isMember(m.Node, "user", "attributes")
}

// fill makes an absent attribute the given empty value, and notes that it is taken for one of its type.
func (u *usage) fill(n *ast.Node, empty ast.Node) {
	if isAttribute(*n) {
		u.take(*n, typeOfNode(empty))
		ast.Patch(n, &ast.BinaryNode{Operator: "??", Left: *n, Right: empty})
	}
}

// fillOperands gives an attribute the empty value of the operand it meets, so that one that is absent compares as "",
// false or 0; against nil, and against another attribute, it stays absent.
func (u *usage) fillOperands(n *ast.BinaryNode) {
	switch n.Operator {
	case "??":
		u.takeLike(n.Left, n.Right)
	case "in":
		if list, ok := n.Right.(*ast.ArrayNode); ok && len(list.Nodes) > 0 {
			u.takeLike(n.Left, list.Nodes[0])
		}
	case "and", "&&", "or", "||":
		u.fill(&n.Left, &ast.BoolNode{})
		u.fill(&n.Right, &ast.BoolNode{})
	case "contains", "startsWith", "endsWith", "matches":
		u.fill(&n.Left, &ast.StringNode{})
		u.fill(&n.Right, &ast.StringNode{})
	case "-", "*", "/", "%", "**", "^":
		u.fill(&n.Left, &ast.IntegerNode{})
		u.fill(&n.Right, &ast.IntegerNode{})
	case "+", "==", "!=", "<", ">", "<=", ">=":
		left, right := emptyLike(n.Left), emptyLike(n.Right)
		if right != nil {
			u.fill(&n.Left, right)
		}
		if left != nil {
			u.fill(&n.Right, left)
		}
		if n.Operator == "+" && left == nil && right == nil {
			u.fill(&n.Left, &ast.StringNode{})
			u.fill(&n.Right, &ast.StringNode{})
		}
	}
}

// emptyLike is the empty value of a node's type; nil if that is not known, or has none.
func emptyLike(n ast.Node) ast.Node {
	if b, ok := n.(*ast.BinaryNode); ok && b.Operator == "+" {
		if e := emptyLike(b.Left); e != nil {
			return e
		}
		return emptyLike(b.Right)
	}
	switch t := n.Nature(); {
	case t.Type == nil:
		return nil
	case t.IsString():
		return &ast.StringNode{}
	case t.IsBool():
		return &ast.BoolNode{}
	case t.IsNumber():
		return &ast.IntegerNode{}
	}
	return nil
}

// fillArguments gives absent attributes the empty value that a function takes.
func (u *usage) fillArguments(function string, arguments []ast.Node) {
	for i := range arguments {
		switch function {
		case "slug", "short", "clip", "lower", "upper", "trim", "trimPrefix", "trimSuffix", "split", "splitAfter", "replace", "repeat",
			"indexOf", "lastIndexOf", "hasPrefix", "hasSuffix", "string", "len", "toBase64":
			u.fill(&arguments[i], &ast.StringNode{})
		case "int", "float", "abs", "ceil", "floor", "round":
			u.fill(&arguments[i], &ast.IntegerNode{})
		}
	}
}

// DidYouMean ends a message about an unknown name: with the known one that differs least, or with all if none is near.
func DidYouMean(name string, known []string) string {
	best, distance := "", 1+len(name)/3
	for _, k := range known {
		if d := EditDistance(strings.ToLower(name), strings.ToLower(k)); d <= distance {
			best, distance = k, d-1
		}
	}
	if best == "" {
		return ": there are " + strings.Join(known, ", ")
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// EditDistance is Levenshtein's.
func EditDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := min(row[j]+1, row[j+1]+1)
			if a[i] == b[j] {
				next = min(next, diagonal)
			} else {
				next = min(next, diagonal+1)
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
