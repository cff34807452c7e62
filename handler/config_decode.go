package main

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/pipeline"
)

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// pathOf is the path of a list's item.
func pathOf(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// object decodes a map into the struct that into points to, by its tags. Defaults are set also where the map is
// absent, and then n is nil.
func (r *reader) object(path string, n *yamlNode, into any) {
	v := reflect.ValueOf(into).Elem()
	if path == "" {
		path = "$"
	}
	values := map[string]*yamlNode{}
	var names []string
	for f := range v.Type().Fields() {
		if name := f.Tag.Get("json"); name != "-" {
			names = append(names, name)
		}
	}
	if n != nil && n.kind != kindMap && n.kind != kindNull {
		r.problem(path, "wants a map, got %s", n.kind)
		n = nil
	}
	if n != nil {
		for _, k := range n.keys {
			if !slices.Contains(names, k.name) {
				r.problemAt(k.position, path, "there is no %q here%s", k.name, pipeline.DidYouMean(k.name, names))
				continue
			}
			values[k.name] = k.value
		}
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if name := f.Tag.Get("json"); name != "-" {
			r.field(pipeline.ChildPath(path, name), values[name], v.Field(i), f.Tag)
		}
	}
}

// field decodes one value; n is nil where the key is absent.
func (r *reader) field(path string, n *yamlNode, v reflect.Value, tag reflect.StructTag) {
	if v.Kind() == reflect.Struct {
		r.object(path, n, v.Addr().Interface())
		return
	}
	if n == nil || n.kind == kindNull {
		switch {
		case n != nil:
			r.problem(path, "there is no value: write one, or remove the line")
		case tag.Get("required") == "true":
			r.problem(path, "missing: write it")
		case tag.Get("default") != "":
			setDefault(v, tag.Get("default"))
		}
		return
	}
	switch into := v.Addr().Interface().(type) {
	case *time.Duration:
		r.duration(n, into, tag)
	case *Expression:
		r.expression(n, into)
	case *map[string]Expression:
		r.expressions(n, into)
	case *map[string]any:
		if n.kind != kindMap {
			r.problem(path, "wants a map, got %s", n.kind)
			return
		}
		*into, _ = n.plain().(map[string]any)
	case *[]DestinationConfig:
		r.destinations(n, into)
	case *bool:
		is, ok := n.value.(bool)
		if !ok {
			r.problem(path, "wants true or false, got %s", n.kind)
		}
		*into = is
	default:
		switch v.Kind() {
		case reflect.Slice:
			r.words(n, v, tag)
		case reflect.String:
			r.word(n, v, tag)
		default:
			r.number(n, v, tag)
		}
	}
}

// setDefault sets what the tag says; a list is written with commas.
func setDefault(v reflect.Value, text string) {
	if d, ok := v.Addr().Interface().(*time.Duration); ok {
		*d, _ = time.ParseDuration(text)
		return
	}
	if v.Kind() == reflect.Slice {
		for _, word := range strings.Split(text, ",") {
			v.Set(reflect.Append(v, reflect.ValueOf(word).Convert(v.Type().Elem())))
		}
		return
	}
	v.SetString(text)
}

func (r *reader) duration(n *yamlNode, into *time.Duration, tag reflect.StructTag) {
	text, _ := n.value.(string)
	d, err := time.ParseDuration(text)
	if n.value == 0 {
		d, err = 0, nil
	}
	if err != nil {
		r.problem(n.path, "wants a duration such as %s, in h, m or s", tag.Get("default"))
		return
	}
	low, _ := time.ParseDuration(tag.Get("min"))
	high, _ := time.ParseDuration(tag.Get("max"))
	if d < low || d > high {
		r.problem(n.path, "must be from %s to %s", tag.Get("min"), tag.Get("max"))
	}
	*into = d
}

func (r *reader) number(n *yamlNode, v reflect.Value, tag reflect.StructTag) {
	low, _ := strconv.ParseFloat(tag.Get("min"), 64)
	high, _ := strconv.ParseFloat(tag.Get("max"), 64)
	var x float64
	switch value := n.value.(type) {
	case int:
		x = float64(value)
	case float64:
		x = value
	default:
		r.problem(n.path, "wants a number, got %s", n.kind)
		return
	}
	if x < low || x > high {
		r.problem(n.path, "must be from %s to %s", tag.Get("min"), tag.Get("max"))
		return
	}
	if v.Kind() == reflect.Float64 {
		v.SetFloat(x)
		return
	}
	if x != float64(int(x)) {
		r.problem(n.path, "wants a whole number")
	}
	v.SetInt(int64(x))
}

// word decodes a string; digits alone are one too.
func (r *reader) word(n *yamlNode, v reflect.Value, tag reflect.StructTag) {
	text, ok := n.value.(string)
	if i, isInt := n.value.(int); isInt {
		text, ok = strconv.Itoa(i), true
	}
	if !ok {
		r.problem(n.path, "wants a string, got %s", n.kind)
		return
	}
	if known := tag.Get("enum"); known != "" && !slices.Contains(strings.Split(known, ","), text) {
		r.problem(n.path, "%q is not known%s", text, pipeline.DidYouMean(text, strings.Split(known, ",")))
		return
	}
	if tag.Get("form") == "guid" && !guid.MatchString(text) {
		r.problem(n.path, "wants a GUID such as 11111111-2222-3333-4444-555555555555")
		return
	}
	v.SetString(text)
}

func (r *reader) words(n *yamlNode, v reflect.Value, tag reflect.StructTag) {
	if n.kind != kindList || len(n.items) == 0 {
		r.problem(n.path, "wants a list with at least one of %s", strings.ReplaceAll(tag.Get("enum"), ",", ", "))
		return
	}
	seen := map[any]bool{}
	for _, item := range n.items {
		if seen[item.value] && item.kind == kindString {
			r.problem(item.path, "is there twice: remove one")
		}
		word := reflect.New(v.Type().Elem()).Elem()
		r.word(item, word, tag)
		if item.kind == kindString {
			seen[item.value] = true
		}
		v.Set(reflect.Append(v, word))
	}
}

// expression decodes the text of an expression; true, false and numbers are expressions too.
func (r *reader) expression(n *yamlNode, into *Expression) {
	switch value := n.value.(type) {
	case string:
		if *into = Expression(value); strings.TrimSpace(value) == "" {
			r.problem(n.path, "the expression is empty: write one, or remove the line")
		}
	case bool:
		*into = Expression(strconv.FormatBool(value))
	case int:
		*into = Expression(strconv.Itoa(value))
	case float64:
		*into = Expression(strconv.FormatFloat(value, 'g', -1, 64))
	default:
		r.problem(n.path, "wants an expression, got %s", n.kind)
	}
}

func (r *reader) expressions(n *yamlNode, into *map[string]Expression) {
	if n.kind != kindMap {
		r.problem(n.path, "wants a map, got %s", n.kind)
		return
	}
	*into = map[string]Expression{}
	for _, k := range n.keys {
		var e Expression
		if r.expression(k.value, &e); e != "" {
			(*into)[k.name] = e
		}
	}
}

func (r *reader) destinations(n *yamlNode, into *[]DestinationConfig) {
	if n.kind != kindList {
		r.problem(n.path, "wants a list, each item beginning with - name:, got %s", n.kind)
		return
	}
	for _, item := range n.items {
		if item.kind == kindMap {
			for _, k := range item.keys {
				if name, ok := k.value.value.(string); ok && k.name == "name" {
					r.labels = append(r.labels[:len(*into)], name)
				}
			}
		}
		if len(r.labels) == len(*into) {
			r.labels = append(r.labels, "")
		}
		var d DestinationConfig
		r.object(item.path, item, &d)
		*into = append(*into, d)
	}
}

// plain is a value without its places.
func (n *yamlNode) plain() any {
	switch n.kind {
	case kindMap:
		m := make(map[string]any, len(n.keys))
		for _, k := range n.keys {
			m[k.name] = k.value.plain()
		}
		return m
	case kindList:
		l := make([]any, 0, len(n.items))
		for _, item := range n.items {
			l = append(l, item.plain())
		}
		return l
	}
	return n.value
}
