package connector

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decode sets the fields of the struct into, by their json tags, and gives the absent ones the value of their default
// tag. It reports every unknown key, wrong type and absent required field. No error holds a value: it may be a secret.
func decode(settings map[string]any, into any) []error {
	fields := map[string]field{}
	collect(reflect.ValueOf(into).Elem(), fields)
	names := sortedKeys(fields)
	var errs []error
	for _, key := range sortedKeys(settings) {
		f, ok := fields[key]
		if !ok {
			errs = append(errs, fmt.Errorf("settings.%s: not known%s", key, meant(names)))
			continue
		}
		if err := f.set(settings[key]); err != nil {
			errs = append(errs, fmt.Errorf("settings.%s: %w", key, err))
		}
	}
	for _, name := range names {
		f := fields[name]
		v, set := settings[name]
		switch {
		case (!set || v == nil || v == "" || f.value.Kind() == reflect.Slice && f.value.Len() == 0) && f.tag.Get("required") == "true":
			errs = append(errs, fmt.Errorf("settings.%s: missing", name))
		case (!set || v == nil) && f.tag.Get("default") != "":
			if err := f.set(f.absent()); err != nil {
				panic("connector: default of settings." + name + ": " + err.Error()) // a mistake in the struct's tag
			}
		}
	}
	return errs
}

type field struct {
	value reflect.Value
	tag   reflect.StructTag
}

// collect finds the fields of a settings struct, embedded structs included.
func collect(v reflect.Value, into map[string]field) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			collect(v.Field(i), into)
			continue
		}
		into[f.Tag.Get("json")] = field{v.Field(i), f.Tag}
	}
}

// absent is the value of the default tag, as a decoder would have made it.
func (f field) absent() any {
	text := f.tag.Get("default")
	if n, err := strconv.Atoi(text); err == nil && f.value.Kind() == reflect.Int {
		return n
	}
	return text
}

func (f field) set(v any) error {
	if v == nil {
		return nil
	}
	switch p := f.value.Addr().Interface().(type) {
	case *string:
		switch v := v.(type) {
		case string:
			*p = v
		case []any, map[string]any:
			return errors.New("wants text")
		default:
			return errors.New("wants text: put quotes around it")
		}
	case *bool:
		b, ok := v.(bool)
		if !ok {
			return errors.New("wants true or false")
		}
		*p = b
	case *int:
		n, ok := integer(v)
		if !ok {
			return errors.New("wants a whole number")
		}
		*p = n
	case *time.Duration:
		s, _ := v.(string)
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New(`wants a duration above 0 such as "30s" or "10m"`)
		}
		*p = d
	case *[]string:
		list, ok := stringsOf(v)
		if !ok {
			return errors.New("wants a list of texts")
		}
		*p = list
	default:
		panic(fmt.Sprintf("connector: a setting cannot be a %T", p)) // a mistake in the struct
	}
	return nil
}

// integer takes the number types that a YAML or JSON decoder makes.
func integer(v any) (int, bool) {
	switch n := v.(type) {
	case int:
		return n, true
	case int64:
		return int(n), true
	case uint64:
		return int(n), n <= math.MaxInt
	case float64:
		return int(n), n == math.Trunc(n) && math.Abs(n) < 1<<53
	}
	return 0, false
}

// meant names what there is; a kind has a handful of settings and fields.
func meant(known []string) string { return "; there are " + strings.Join(known, ", ") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
