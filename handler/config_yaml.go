package main

import (
	"errors"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"signup-sync/handler/pipeline"
)

type kind int

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindMap
)

func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a number", "a string", "a list", "a map"}[k]
}

// position is a place in the file, from 1; columns count characters.
type position struct{ line, column int }

// yamlNode is a value of the file, with its place.
type yamlNode struct {
	position
	path  string
	kind  kind
	value any        // bool, int, float64 or string
	style token.Type // of a string
	keys  []yamlKey  // of a map, in the order of the file
	items []*yamlNode
}

type yamlKey struct {
	position
	name  string
	value *yamlNode
}

// parse reads the text into a tree; nil if that is not possible, and then the reason is noted.
func (r *reader) parse(data []byte) *yamlNode {
	if !r.readable(data) {
		return nil
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	r.lines = strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	file, err := parseYAML(strings.Join(r.lines, "\n"))
	if err != nil {
		at, message := position{1, 1}, err.Error()
		if e, ok := errors.AsType[tokenError](err); ok {
			message = e.GetMessage()
			if t := e.GetToken(); t != nil && t.Position != nil {
				at = r.clamp(t.Position)
			}
		}
		r.problemAt(at, "", "not YAML: %s", message)
		return nil
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType {
			bodies = append(bodies, d.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		r.problemAt(position{1, 1}, "", "the file is empty: write at least destinations:")
		return nil
	case len(bodies) > 1:
		r.problemAt(r.clamp(bodies[1].GetToken().Position), "", "there is a second document: keep one, without ---")
		return nil
	}
	root := r.convert(bodies[0], "$", 0)
	if root.kind != kindMap {
		r.problemAt(root.position, "", "the file is %s; write a map such as destinations:", root.kind)
		return nil
	}
	return root
}

// readable refuses what would cost the YAML parser too much.
func (r *reader) readable(data []byte) bool {
	refuse := func(line int, format string, args ...any) bool {
		r.problemAt(position{line, 1}, "", format, args...)
		return false
	}
	switch {
	case len(data) > maxConfigSize:
		return refuse(1, "the file has %d bytes, more than %d", len(data), maxConfigSize)
	case !utf8.Valid(data):
		return refuse(1, "the file is not UTF-8 text: save it as UTF-8")
	case strings.IndexByte(string(data), 0) >= 0:
		return refuse(1, "the file is not text: it holds a zero byte")
	}
	depth, separators := 0, 0
	for i, line := range strings.Split(string(data), "\n") {
		if i >= maxConfigLines || len(line) > maxConfigLines {
			return refuse(i+1, "the file has more than %d lines, or a line has more than %d bytes", maxConfigLines, maxConfigLines)
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(depth-1, 0)
			case ',', ':':
				separators++
			}
		}
		if depth > maxConfigDepth || strings.Count(line, "- ") > maxConfigDepth && strings.Trim(line, "- ") == "" {
			return refuse(i+1, "values are nested more than %d deep, or a bracket is not closed", maxConfigDepth)
		}
		if separators > 4*maxConfigLines {
			return refuse(i+1, "the file has too many values")
		}
	}
	return true
}

// tokenError is what the YAML parser's errors have in common.
type tokenError interface {
	error
	GetMessage() string
	GetToken() *token.Token
}

// parseYAML turns a panic of the parser, which none of our inputs has caused, into an error.
func parseYAML(text string) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the parser gave up")
		}
	}()
	return parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
}

// clamp keeps a token's position inside the file.
func (r *reader) clamp(p *token.Position) position {
	if p == nil {
		return position{1, 1}
	}
	return position{min(max(p.Line, 1), len(r.lines)), max(p.Column, 1)}
}

// convert builds the tree and notes every value's place. Anchors, aliases, merges and tags are refused: none is needed,
// and with them a small file can be a large one.
func (r *reader) convert(n ast.Node, path string, depth int) *yamlNode {
	out := &yamlNode{path: path, position: position{1, 1}}
	if n == nil {
		return out
	}
	if t := n.GetToken(); t != nil {
		out.position = r.clamp(t.Position)
	}
	if depth > maxConfigDepth {
		r.problemAt(out.position, path, "values are nested more than %d deep", maxConfigDepth)
		return out
	}
	r.nodes[path] = out
	switch n := n.(type) {
	case *ast.MappingNode:
		r.convertMap(out, n.Values, depth)
		if !n.IsFlowStyle && len(out.keys) > 0 {
			out.position = out.keys[0].position
		}
	case *ast.MappingValueNode:
		r.convertMap(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.kind = kindList
		for i, v := range n.Values {
			out.items = append(out.items, r.convert(v, pathOf(path, i), depth+1))
		}
	case *ast.StringNode:
		out.kind, out.value, out.style = kindString, n.Value, n.Token.Type
	case *ast.LiteralNode:
		out.kind, out.value, out.style = kindString, n.Value.Value, n.Start.Type
	case *ast.BoolNode:
		out.kind, out.value = kindBool, n.Value
	case *ast.IntegerNode:
		out.kind = kindNumber
		switch v := n.Value.(type) {
		case int64:
			out.value = int(v)
		case uint64:
			if out.value = int(v); v > math.MaxInt {
				out.value = float64(v)
			}
		}
	case *ast.FloatNode:
		out.kind, out.value = kindNumber, n.Value
	case *ast.NullNode:
	case *ast.InfinityNode, *ast.NanNode:
		r.problemAt(out.position, path, "wants a finite number")
	case *ast.AnchorNode, *ast.AliasNode:
		r.problemAt(out.position, path, "anchors and aliases are not available: write the value out")
	case *ast.TagNode:
		r.problemAt(out.position, path, "tags are not available: write the value without the !")
	default:
		r.problemAt(out.position, path, "%s is not available here: write a plain value", n.Type().YAMLName())
	}
	return out
}

func (r *reader) convertMap(out *yamlNode, values []*ast.MappingValueNode, depth int) {
	out.kind = kindMap
	seen := map[string]position{}
	for _, v := range values {
		t := v.Key.GetToken()
		at := r.clamp(t.Position)
		if v.Key.IsMergeKey() || v.Key.Type() == ast.MappingKeyType || v.Key.Type() == ast.AnchorType {
			r.problemAt(at, out.path, "merges, anchors and complex keys are not available: write the keys out")
			continue
		}
		name, path := t.Value, pipeline.ChildPath(out.path, t.Value)
		if first, ok := seen[name]; ok {
			r.problemAt(at, path, "is there twice, first in line %d: remove one", first.line)
			continue
		}
		seen[name], r.keys[path] = at, at
		out.keys = append(out.keys, yamlKey{at, name, r.convert(v.Value, path, depth+1)})
	}
}

// inside is the place of the character at offset of a string, or the string's beginning where escapes or folding make
// that hard to tell.
func (r *reader) inside(n *yamlNode, offset int) position {
	text := []rune(n.value.(string))
	if offset > len(text) || n.line > len(r.lines) {
		return n.position
	}
	line := []rune(r.lines[n.line-1])
	switch n.style {
	case token.LiteralType:
		return r.insideBlock(n, text, offset)
	case token.SingleQuoteType, token.DoubleQuoteType:
		at := n.column // the character behind the quote, counted from 0
		for range offset {
			if at+1 < len(line) && (line[at] == '\\' && n.style == token.DoubleQuoteType || line[at] == '\'' && line[at+1] == '\'') {
				if line[at] == '\\' && !strings.ContainsRune(`"\/`, line[at+1]) {
					return n.position
				}
				at++
			}
			at++
		}
		if at < len(line) {
			return position{n.line, at + 1}
		}
	case token.StringType:
		if strings.HasPrefix(string(line[min(n.column-1, len(line)):]), string(text)) {
			return position{n.line, n.column + offset}
		}
	}
	return n.position
}

// insideBlock is inside for a block behind "|".
func (r *reader) insideBlock(n *yamlNode, text []rune, offset int) position {
	before := strings.Split(string(text[:offset]), "\n")
	wanted := strings.Split(string(text), "\n")[len(before)-1]
	if i := n.line + len(before) - 1; i < len(r.lines) && wanted != "" && strings.HasSuffix(r.lines[i], wanted) {
		indent := utf8.RuneCountInString(strings.TrimSuffix(r.lines[i], wanted))
		return position{i + 1, indent + utf8.RuneCountInString(before[len(before)-1]) + 1}
	}
	return n.position
}
