// Package configfile decodes configuration files, in YAML or JSON, into structs
// and reports every problem of a file with its line and column. It works by
// reflection and knows no field by name: the key of a field is its name in
// snake_case.
package configfile

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Problem is something wrong in a file.
type Problem struct {
	// Line and Column count from 1, in characters. They are 0 where unknown.
	Line, Column int
	// Path names the value by its keys, such as backends[1].priority. An element
	// of a list at the top of the file is named by its key "name", if it has one:
	// backends["eastus"].priority. Path is empty for the file as a whole.
	Path string
	Err  error
}

// ErrEmpty is the Err of the Problem of a file without content.
var ErrEmpty = errors.New("is empty")

// Limits of what is read: a small file can contain itself, or aliases of aliases.
const (
	maxValues = 100_000
	maxDepth  = 100
)

// Decode reads text into the struct that into points to. The text is JSON if it
// is valid JSON or if name ends in .json, otherwise YAML. lookup returns the
// environment variables for ${NAME}, see [os.LookupEnv].
//
// The struct may have fields of the types string, bool, int (of any size),
// [time.Duration], [encoding.TextUnmarshaler], map[string]string, map[string]any, structs, and slices of
// these; numbers in a map[string]any are [json.Number]. A value that is null
// leaves its field alone. Fields of other types can be set in code only, see
// [OnlyInCode]. The key $schema at the top of the file is ignored.
//
// A Problem never quotes the value of a variable, nor a text of the file: it may be
// a secret. Elements of a list that are not mappings as they should be are shown
// the example of their type, if there is one. The Source is nil if the file could
// not be read to its end.
func Decode(name string, text []byte, into any, lookup func(string) (string, bool), examples map[reflect.Type]string) (*Source, []Problem) {
	root, problem := parse(name, text)
	if problem != nil {
		return nil, []Problem{*problem}
	}
	d := decoder{
		source:    &Source{places: map[string]location{}, failed: map[string]bool{}, incomplete: map[string]bool{}},
		variables: variables{lookup: lookup, remaining: MaxSize},
		remaining: maxValues,
		keys:      map[reflect.Type]map[string]reflect.StructField{},
		examples:  examples,
	}
	at := location{node: root}
	d.source.places[""] = at
	if tagOf(root) == nullTag {
		d.fail(at, "%w", ErrEmpty)
	} else {
		d.value(at, reflect.ValueOf(into).Elem())
	}
	if d.remaining <= 0 {
		return nil, d.problems
	}
	return d.source, d.problems
}

type decoder struct {
	source    *Source
	problems  []Problem
	variables variables
	remaining int // values that may still be read
	keys      map[reflect.Type]map[string]reflect.StructField
	examples  map[reflect.Type]string
}

// An UnknownKey is the Err of the Problem of a key that no field has.
type UnknownKey struct{ Key, suggestion string }

func (e *UnknownKey) Error() string {
	return fmt.Sprintf("unknown key %q%s", Shorten(e.Key), e.suggestion)
}

// A location is a value of the file and the field that it is decoded into.
type location struct {
	node  *yaml.Node
	path  string // see Problem
	field string // such as Backends[1].Priority or Backends[1].Headers["X-Team"]; what is inside a member of a map has the member's
	depth int
}

// child is a value inside another one. For an alias it is the aliased value.
func (at location) child(node *yaml.Node, path, field string) location {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return location{node, path, field, at.depth + 1}
}

// report adds a problem. args must not hold the value of a variable, or a secret.
func (d *decoder) report(at location, format string, args ...any) {
	d.problems = append(d.problems, Problem{at.node.Line, at.node.Column, at.path, fmt.Errorf(format, args...)})
}

// fail reports a problem because of which the value is not read.
func (d *decoder) fail(at location, format string, args ...any) {
	d.source.fail(at.field)
	d.report(at, format, args...)
}

// mismatch is fail for a value of the wrong type.
func (d *decoder) mismatch(at location, tag, expected string) {
	d.fail(at, "must be %s; this is %s", expected, describe(at, tag))
}

// describe says what a value is, without the value.
func describe(at location, tag string) string {
	actual, ok := map[string]string{
		mapTag: "a mapping", listTag: "a list", nullTag: "empty", boolTag: "true or false",
		intTag: "a number", floatTag: "a number", textTag: "text",
	}[tag]
	if !ok {
		actual = "of an unsupported type"
	}
	if names := variableNames(at.node.Value); names != "" {
		actual += ", from " + names
	}
	return actual
}

// enter counts a value, and returns whether it may be read.
func (d *decoder) enter(at location) bool {
	d.remaining--
	switch {
	case at.depth > maxDepth:
		d.fail(at, "is nested more than %d levels deep, or contains itself", maxDepth)
		return false
	case d.remaining == 0:
		d.fail(at, "is too much: at most %d values are read, including those of aliases", maxValues)
	}
	return d.remaining > 0
}

// value reads a value into a field, an element of a list, or the whole struct.
func (d *decoder) value(at location, into reflect.Value) {
	tag := tagOf(at.node)
	switch kind := into.Kind(); {
	case !d.enter(at) || tag == nullTag:
	case kind == reflect.Struct && tag == mapTag:
		d.fields(at, into)
	case kind == reflect.Slice && tag == listTag:
		d.list(at, into)
	case into.Type() == reflect.TypeFor[map[string]string]() && tag == mapTag:
		into.Set(reflect.ValueOf(d.texts(at)))
	case kind == reflect.Map && tag == mapTag:
		into.Set(reflect.ValueOf(d.object(at)))
	case kind == reflect.Struct || kind == reflect.Map || kind == reflect.Slice:
		d.mismatch(at, tag, d.expectation(into.Type()))
	default:
		d.scalar(at, into)
	}
}

// expectation describes the values of a type.
func (d *decoder) expectation(t reflect.Type) string {
	switch example := d.examples[t]; {
	case example != "":
		return "a mapping, such as " + example
	case t == reflect.TypeFor[time.Duration]():
		return "a duration with its unit, such as 30s, 1m30s or 250ms"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return "a mapping"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text, in quotes if it looks like something else"
	}
	return "a whole number in plain digits"
}

// fields reads a mapping into a struct.
func (d *decoder) fields(at location, into reflect.Value) {
	t := into.Type()
	known := d.keys[t]
	if known == nil {
		known = keysOf(t)
		d.keys[t] = known
	}
	fieldOf := func(key string) string { return join(at.field, known[key].Name) }
	pairs := d.pairs(at, fieldOf)
	given := map[string]bool{}
	for _, p := range pairs {
		given[p.key.Value] = true
	}
	for _, p := range pairs {
		key := p.key.Value
		f, ok := known[key]
		switch {
		case at.path == "" && key == "$schema":
			// It is for editors.
		case !ok:
			meant := nearest(key, slices.Collect(maps.Keys(known)))
			if meant != "" && !given[meant] {
				d.source.fail(fieldOf(meant))
			}
			d.report(at.child(p.key, at.path, at.field), "%w", &UnknownKey{key, proposal(meant)})
		case OnlyInCode(f.Type):
			d.report(at.child(p.key, at.path, at.field), "%q cannot be set in a file: set %s.%s in the program", key, t.Name(), f.Name)
		default:
			at := at.child(p.value, join(at.path, key), fieldOf(key))
			d.source.places[at.field] = at
			v := into.FieldByIndex(f.Index)
			d.value(at, v)
			if hasVariable(at.node.Value) {
				d.source.addSecret(fmt.Sprint(v))
			}
		}
	}
}

// list reads a list into a slice.
func (d *decoder) list(at location, into reflect.Value) {
	n := min(len(at.node.Content), d.remaining)
	into.Set(reflect.MakeSlice(into.Type(), n, n))
	for i := range n {
		index := fmt.Sprintf("[%d]", i)
		element := at.child(at.node.Content[i], at.path+index, at.field+index)
		if name := nameOf(element.node); name != "" && at.depth == 1 {
			element.path = fmt.Sprintf("%s[%q]", at.path, Shorten(name))
		}
		d.source.places[element.field] = element
		if tagOf(element.node) == nullTag {
			d.mismatch(element, nullTag, d.expectation(into.Type().Elem()))
			continue
		}
		d.value(element, into.Index(i))
	}
}

// nameOf is the value of the key "name" of a mapping, if it is plain text.
func nameOf(n *yaml.Node) string {
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if v := n.Content[i+1]; n.Content[i].Value == "name" && tagOf(v) == textTag && !hasVariable(v.Value) {
			return v.Value
		}
	}
	return ""
}

// text is a scalar with its variables expanded, and the tag that it then has.
func (d *decoder) text(at location) (text, tag string, ok bool) {
	if !hasVariable(at.node.Value) {
		return at.node.Value, tagOf(at.node), true
	}
	text, used, errs := d.variables.expand(at.node.Value)
	for _, value := range used {
		d.source.addSecret(value)
	}
	for _, err := range errs {
		d.fail(at, "%w", err)
	}
	return text, tagOf(&yaml.Node{Kind: yaml.ScalarNode, Value: text}), errs == nil
}

var (
	wholeNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	jsonNumber  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// scalar reads a duration, a number, a boolean or text.
func (d *decoder) scalar(at location, into reflect.Value) {
	text, tag, ok := d.text(at)
	if !ok {
		return
	}
	if named, ok := reflect.TypeAssert[encoding.TextUnmarshaler](into.Addr()); ok {
		if err := named.UnmarshalText([]byte(text)); err != nil {
			d.fail(at, "%w", err)
		}
		return
	}
	mismatch := func() {
		expected := d.expectation(into.Type())
		if into.Kind() != reflect.String && (isNumber(tag) || tag == boolTag) && !hasVariable(at.node.Value) {
			d.fail(at, "must be %s, not %s", expected, Shorten(text)) // no secret is a number here
			return
		}
		d.mismatch(at, tag, expected)
	}
	switch {
	case into.Type() == reflect.TypeFor[time.Duration]():
		duration, err := time.ParseDuration(text)
		if err != nil || tag != textTag {
			mismatch()
		}
		into.SetInt(int64(duration))
	case into.CanInt():
		n, err := strconv.ParseInt(text, 10, into.Type().Bits())
		switch {
		case !isNumber(tag) || !wholeNumber.MatchString(text):
			mismatch()
		case err != nil:
			d.fail(at, "is out of range")
		}
		into.SetInt(n)
	case into.Kind() == reflect.Bool:
		if tag != boolTag {
			mismatch()
		}
		into.SetBool(strings.EqualFold(text, "true"))
	case into.Kind() == reflect.String:
		if tag != textTag && !hasVariable(at.node.Value) {
			mismatch()
		}
		into.SetString(text)
	default:
		panic("configfile: cannot decode into a " + into.Type().String())
	}
}

// texts reads a mapping of text. A key without a value is an error: an empty text
// is often a value that a template has left out.
func (d *decoder) texts(at location) map[string]string {
	m := map[string]string{}
	for _, p := range d.pairs(at, at.memberField) {
		member := d.member(at, p)
		if tagOf(member.node) == nullTag {
			d.mismatch(member, nullTag, d.expectation(reflect.TypeFor[string]()))
		}
		var text string
		d.value(member, reflect.ValueOf(&text).Elem())
		m[p.key.Value] = text
	}
	return m
}

type pair struct{ key, value *yaml.Node }

// pairs are the members of a mapping, including those that << merges into it.
// fieldOf returns the field that a key stands for.
func (d *decoder) pairs(at location, fieldOf func(key string) string) (found []pair) {
	lines := map[string]int{} // of the keys
	var merged []*yaml.Node
	for i := 0; i+1 < len(at.node.Content); i += 2 {
		key, value := at.child(at.node.Content[i], at.path, at.field), at.child(at.node.Content[i+1], at.path, at.field)
		if !d.enter(key) {
			return found
		}
		name := key.node.Value
		line, duplicate := lines[name]
		switch {
		case key.node.ShortTag() == mergeTag && value.node.Kind == yaml.SequenceNode:
			merged = append(merged, value.node.Content...)
		case key.node.ShortTag() == mergeTag:
			merged = append(merged, value.node)
		case tagOf(key.node) != textTag:
			d.report(key, "must be text, because it is a key; this is %s", describe(key, tagOf(key.node)))
		case duplicate:
			d.source.fail(fieldOf(name))
			d.report(key, "duplicate key %q, first in line %d", Shorten(name), line)
		default:
			lines[name] = key.node.Line
			found = append(found, pair{key.node, value.node})
		}
	}
	for _, n := range merged {
		from := at.child(n, at.path, at.field)
		if tag := tagOf(from.node); tag != mapTag {
			d.mismatch(from, tag, "a mapping or a list of mappings, for << to merge")
			continue
		}
		if !d.enter(from) {
			return found
		}
		for _, p := range d.pairs(from, fieldOf) {
			if _, overridden := lines[p.key.Value]; !overridden {
				lines[p.key.Value] = p.key.Line
				found = append(found, p)
			}
		}
	}
	return found
}
