package spillover

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A loader turns a tree into a Config and keeps what is wrong with it.
type loader struct {
	file    string
	vars    variables
	room    int // for values, so that aliases of aliases end
	errs    []*LoadError
	failed  map[slot]bool // what could not be read, or not all of it
	places  map[slot]spot // where the values are that New checks
	secrets []string      // what variables have given, in lower case
}

// A slot is a field of the Config (backend -1) or of a backend; without a name it
// is the whole of it.
type slot struct {
	backend int
	field   string
}

// A spot is a value of the file.
type spot struct {
	node  *yaml.Node
	path  string // as LoadError tells it
	slot  slot   // that it is in
	depth int
}

// to is a value inside another one. Of an alias it is what that stands for.
func (s spot) to(node *yaml.Node, path string) spot {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return spot{node, path, s.slot, s.depth + 1}
}

const (
	maxValues = 100_000
	maxDepth  = 100
)

func newLoader(file string, vars variables) *loader {
	return &loader{file: file, vars: vars, room: maxValues, failed: map[slot]bool{}, places: map[slot]spot{}}
}

// tell keeps a mistake. Its args must not hold what a variable has given, nor a
// key.
func (l *loader) tell(s spot, format string, args ...any) {
	l.errs = append(l.errs, &LoadError{File: l.file, Line: s.node.Line, Column: s.node.Column, Path: s.path, Err: fmt.Errorf(format, args...)})
}

// bad is tell for a value that is lost by it.
func (l *loader) bad(s spot, format string, args ...any) {
	l.failed[s.slot] = true
	l.tell(s, format, args...)
}

// mismatch is bad for a value of a wrong type.
func (l *loader) mismatch(s spot, tag, want string) {
	is, ok := map[string]string{
		mapTag: "a mapping", listTag: "a list", nullTag: "nothing", boolTag: "true or false",
		intTag: "a number", floatTag: "a number", textTag: "text",
	}[tag]
	if !ok {
		is = "of a type that is not known here"
	}
	if used := variableNames(s.node.Value); used != "" {
		is += ", by " + used
	}
	l.bad(s, "must be %s; this is %s", want, is)
}

// enter tells whether a value may be looked at.
func (l *loader) enter(s spot) bool {
	l.room--
	switch {
	case s.depth > maxDepth:
		l.bad(s, "is more than %d deep, or contains itself", maxDepth)
		return false
	case l.room == 0:
		l.bad(s, "is too much: no more than %d values are read, those of aliases included", maxValues)
	}
	return l.room > 0
}

// read fills a Config from the root of a file.
func (l *loader) read(root *yaml.Node, cfg *Config) {
	s := spot{node: root, slot: slot{backend: -1}}
	l.places[s.slot] = s
	if tagOf(root) == nullTag {
		l.bad(s, emptyFile)
		return
	}
	l.value(s, reflect.ValueOf(cfg).Elem())
}

// value reads a value as what its field is. One that is null is left alone.
func (l *loader) value(s spot, into reflect.Value) {
	tag := tagOf(s.node)
	switch kind := into.Kind(); {
	case !l.enter(s) || tag == nullTag:
	case kind == reflect.Struct && tag == mapTag:
		l.fields(s, into)
	case kind == reflect.Slice && tag == listTag:
		l.list(s, into)
	case into.Type() == reflect.TypeFor[map[string]string]() && tag == mapTag:
		into.Set(reflect.ValueOf(l.texts(s)))
	case kind == reflect.Map && tag == mapTag:
		into.Set(reflect.ValueOf(l.object(s)))
	case kind == reflect.Struct || kind == reflect.Map:
		l.mismatch(s, tag, "a mapping")
	case kind == reflect.Slice:
		l.mismatch(s, tag, "a list")
	default:
		l.scalar(s, into)
	}
}

// fields reads a mapping into a struct.
func (l *loader) fields(s spot, into reflect.Value) {
	t := into.Type()
	known := fileKeys[t]
	for _, p := range l.pairs(s) {
		key := p.key.Value
		f, ok := known[key]
		at := s.to(p.value, join(s.path, key))
		switch {
		case s.path == "" && key == "$schema":
			// It is for editors.
		case !ok:
			l.tell(s.to(p.key, s.path), "unknown key %q%s", shorten(key), similar(key, known))
		case onlyInCode(f.Type):
			l.tell(s.to(p.key, s.path), "%q cannot be said in a file: set %s.%s in the program", key, t.Name(), f.Name)
		default:
			if t != reflect.TypeFor[Model]() { // which are in the slot of Models
				at.slot.field = f.Name
				l.places[at.slot] = at
			}
			v, before := into.FieldByIndex(f.Index), len(l.errs)
			l.value(at, v)
			if hasVariable(at.node.Value) {
				l.secrets = append(l.secrets, strings.ToLower(fmt.Sprint(v)))
			}
			if key == "api_key" && v.IsZero() && len(l.errs) == before {
				l.bad(at, "is empty: leave it out where callers bring their own")
			}
		}
	}
}

// list reads a list into a slice of structs.
func (l *loader) list(s spot, into reflect.Value) {
	n := min(len(s.node.Content), l.room)
	into.Set(reflect.MakeSlice(into.Type(), n, n))
	for i := range n {
		at := s.to(s.node.Content[i], fmt.Sprintf("%s[%d]", s.path, i))
		if into.Type() == reflect.TypeFor[[]Backend]() {
			at.slot = slot{backend: i}
			if name := nameIn(at.node); name != "" {
				at.path = fmt.Sprintf("%s[%q]", s.path, shorten(name))
			}
			l.places[at.slot] = at
		}
		if tagOf(at.node) == nullTag {
			l.mismatch(at, nullTag, "a mapping")
			continue
		}
		l.value(at, into.Index(i))
	}
}

// nameIn is the name that a backend is given in plain text.
func nameIn(n *yaml.Node) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if v := n.Content[i+1]; n.Content[i].Value == "name" && tagOf(v) == textTag && !hasVariable(v.Value) {
			return v.Value
		}
	}
	return ""
}

// text is a scalar with its variables, and the tag that it has then.
func (l *loader) text(s spot) (text, tag string, ok bool) {
	if !hasVariable(s.node.Value) {
		return s.node.Value, tagOf(s.node), true
	}
	text, used, errs := l.vars.expand(s.node.Value)
	for _, value := range used {
		if value != "" {
			l.secrets = append(l.secrets, strings.ToLower(value))
		}
	}
	for _, err := range errs {
		l.bad(s, "%w", err)
	}
	return text, tagOf(&yaml.Node{Kind: yaml.ScalarNode, Value: text}), errs == nil
}

var (
	wholeNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	jsonNumber  = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// scalar reads a duration, a number, a truth value or text.
func (l *loader) scalar(s spot, into reflect.Value) {
	text, tag, ok := l.text(s)
	if !ok {
		return
	}
	switch into.Kind() {
	case reflect.Int64: // time.Duration
		d, err := time.ParseDuration(text)
		if err != nil || tag != textTag {
			l.mismatch(s, tag, "a duration with its unit, such as 30s, 1m30s or 250ms")
		}
		into.SetInt(int64(d))
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, strconv.IntSize)
		switch {
		case !isNumber(tag) || !wholeNumber.MatchString(text):
			l.mismatch(s, tag, "a whole number in plain digits")
		case err != nil:
			l.bad(s, "is out of range")
		}
		into.SetInt(n)
	case reflect.Bool:
		if tag != boolTag {
			l.mismatch(s, tag, "true or false")
		}
		into.SetBool(strings.EqualFold(text, "true"))
	default:
		if tag != textTag && !hasVariable(s.node.Value) {
			l.mismatch(s, tag, "text, in quotes if it looks like something else")
		}
		into.SetString(text)
	}
}

// texts reads a mapping of text. A key without a value is not set.
func (l *loader) texts(s spot) map[string]string {
	m := map[string]string{}
	for _, p := range l.pairs(s) {
		at := s.to(p.value, join(s.path, shorten(p.key.Value)))
		if tagOf(at.node) == nullTag {
			continue
		}
		var text string
		l.value(at, reflect.ValueOf(&text).Elem())
		m[p.key.Value] = text
	}
	return m
}

// object reads a mapping of whatever JSON has.
func (l *loader) object(s spot) map[string]any {
	m := map[string]any{}
	for _, p := range l.pairs(s) {
		m[p.key.Value] = l.any(s.to(p.value, join(s.path, shorten(p.key.Value))))
	}
	return m
}

// any reads whatever JSON has.
func (l *loader) any(s spot) any {
	if !l.enter(s) {
		return nil
	}
	switch tagOf(s.node) {
	case mapTag:
		return l.object(s)
	case listTag:
		list := []any{}
		for i, n := range s.node.Content {
			list = append(list, l.any(s.to(n, fmt.Sprintf("%s[%d]", s.path, i))))
		}
		return list
	}
	text, tag, ok := l.text(s)
	plain := s.node.Style == 0
	if !plain && hasVariable(s.node.Value) {
		tag = textTag
	}
	switch {
	case !ok || tag == nullTag:
		return nil
	case tag == boolTag:
		return strings.EqualFold(text, "true")
	case jsonNumber.MatchString(text) && (plain || isNumber(tag)):
		return json.Number(text)
	case tag == textTag:
		return text
	}
	l.mismatch(s, tag, "what JSON can say: a number in plain digits, true, false, null, or text in quotes")
	return nil
}

type pair struct{ key, value *yaml.Node }

// pairs are the members of a mapping, with those that << merges into it.
func (l *loader) pairs(s spot) (found []pair) {
	lines := map[string]int{} // of the keys
	var merged []*yaml.Node
	for i := 0; i+1 < len(s.node.Content); i += 2 {
		key, value := s.to(s.node.Content[i], s.path), s.to(s.node.Content[i+1], s.path)
		if !l.enter(key) {
			return found
		}
		name := key.node.Value
		line, twice := lines[name]
		switch {
		case key.node.ShortTag() == mergeTag && value.node.Kind == yaml.SequenceNode:
			merged = append(merged, value.node.Content...)
		case key.node.ShortTag() == mergeTag:
			merged = append(merged, value.node)
		case tagOf(key.node) != textTag:
			l.mismatch(key, tagOf(key.node), "text, as it is a key")
		case twice:
			l.bad(key, "the key %q is there twice, first in line %d", shorten(name), line)
		default:
			lines[name] = key.node.Line
			found = append(found, pair{key.node, value.node})
		}
	}
	for _, n := range merged {
		from := s.to(n, s.path)
		if tag := tagOf(from.node); tag != mapTag {
			l.mismatch(from, tag, "a mapping, or a list of mappings, as << merges it")
			continue
		}
		if !l.enter(from) {
			return found
		}
		for _, p := range l.pairs(from) {
			if _, there := lines[p.key.Value]; !there {
				lines[p.key.Value] = p.key.Line
				found = append(found, p)
			}
		}
	}
	return found
}
