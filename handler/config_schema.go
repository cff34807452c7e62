package main

import (
	"encoding/json"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	"signup-sync/handler/connector"
	"signup-sync/handler/signup"
)

// configSchema is the JSON Schema (draft 2020-12) of the file, for editors; kinds are the connectors there are. It is
// made from the tags of Config and of the kinds' settings, as the decoders are.
func configSchema(kinds ...connector.Kind) []byte {
	root := objectSchema(reflect.TypeFor[Config]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "signup-sync.yaml"
	sync := root["properties"].(map[string]any)["sync"].(map[string]any)["properties"].(map[string]any)
	sync["detectors"].(map[string]any)["contains"] = map[string]any{"enum": []string{"audit", "directory"}} // signUps is not enough
	item := root["properties"].(map[string]any)["destinations"].(map[string]any)["items"].(map[string]any)
	destination := item["properties"].(map[string]any)
	var names []string
	var each []any
	for _, k := range kinds {
		names = append(names, k.Name)
		each = append(each, kindSchema(k))
	}
	if len(kinds) > 0 {
		destination["connector"].(map[string]any)["enum"], item["allOf"] = names, each
	}
	name := destination["name"].(map[string]any)
	name["pattern"] = "^[a-z][a-z0-9-]{0,30}$"
	name["not"] = map[string]any{"const": signup.Profile}
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("the schema of the configuration is not JSON: " + err.Error()) // it is made of maps, strings and numbers
	}
	return append(out, '\n')
}

// kindSchema says what a destination of one kind may hold.
func kindSchema(k connector.Kind) map[string]any {
	then := map[string]any{"settings": objectSchema(reflect.TypeOf(k.Settings))}
	if len(k.Record) > 0 {
		fields := map[string]any{}
		for _, f := range k.Record {
			name, nested := strings.CutSuffix(f.Name, ".*")
			fields[name] = map[string]any{"description": f.Doc}
			if nested {
				fields[name].(map[string]any)["type"] = "object"
			}
		}
		then["record"] = map[string]any{"type": "object", "additionalProperties": false, "properties": fields}
	}
	return map[string]any{
		"if":   map[string]any{"required": []string{"connector"}, "properties": map[string]any{"connector": map[string]any{"const": k.Name}}},
		"then": map[string]any{"properties": then},
	}
}

func objectSchema(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for f := range t.Fields() {
		name := f.Tag.Get("json")
		if name == "-" {
			continue
		}
		if f.Anonymous {
			maps.Copy(properties, objectSchema(f.Type)["properties"].(map[string]any))
			continue
		}
		properties[name] = fieldSchema(f.Type, f.Tag)
		if f.Tag.Get("required") == "true" {
			required = append(required, name)
		}
	}
	s := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func fieldSchema(t reflect.Type, tag reflect.StructTag) map[string]any {
	s := typeSchema(t, tag)
	if doc := tag.Get("doc"); doc != "" {
		s["description"] = doc
	}
	if absent := tag.Get("default"); absent != "" {
		s["default"] = absent
		if t.Kind() == reflect.Slice {
			s["default"] = strings.Split(absent, ",")
		}
	}
	return s
}

func typeSchema(t reflect.Type, tag reflect.StructTag) map[string]any {
	word := map[string]any{"type": "string"}
	if enum := tag.Get("enum"); enum != "" {
		word["enum"] = strings.Split(enum, ",")
	}
	if tag.Get("form") == "guid" {
		word["pattern"] = guid.String()
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`}
	case t == reflect.TypeFor[Expression]():
		return map[string]any{"type": []string{"string", "boolean", "number"}}
	case t == reflect.TypeFor[map[string]Expression]():
		return map[string]any{"type": "object", "additionalProperties": typeSchema(reflect.TypeFor[Expression](), "")}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object"}
	case t.Kind() == reflect.Struct:
		return objectSchema(t)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return map[string]any{"type": "array", "items": objectSchema(t.Elem())}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": word}
	case t.Kind() == reflect.String:
		return word
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	}
	number := map[string]any{"type": "number"}
	if t.Kind() == reflect.Int {
		number["type"] = "integer"
	}
	for _, limit := range [][2]string{{"min", "minimum"}, {"max", "maximum"}} {
		if x, err := strconv.ParseFloat(tag.Get(limit[0]), 64); err == nil {
			number[limit[1]] = x
		}
	}
	return number
}
