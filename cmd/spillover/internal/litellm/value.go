package litellm

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A value is a part of the input.
type value struct {
	file, path string
	node       *yaml.Node // nil if there is none
	parts      []value    // of a list that comes from several files, instead of node
}

// resolve follows an alias.
func (v value) resolve() *yaml.Node {
	n := v.node
	for range maxDepth {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// isNull reports whether there is no value.
func (v value) isNull() bool {
	if len(v.parts) > 0 {
		return false
	}
	n := v.resolve()
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// scalar is the text of a scalar.
func (v value) scalar() (string, bool) {
	n := v.resolve()
	if n == nil || n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return "", false
	}
	return n.Value, true
}

func (v value) isTrue() bool {
	s, _ := v.scalar()
	return slices.Contains([]string{"true", "yes", "on"}, strings.ToLower(s)) // as in YAML 1.1, which LiteLLM reads
}

func (v value) isList() bool {
	n := v.resolve()
	return len(v.parts) > 0 || n != nil && n.Kind == yaml.SequenceNode
}

// list are the elements of a sequence.
func (v value) list() (all []value) {
	for _, part := range v.parts {
		all = append(all, part.list()...)
	}
	n := v.resolve()
	if n == nil || n.Kind != yaml.SequenceNode {
		return all
	}
	for i, e := range n.Content {
		all = append(all, value{file: v.file, path: fmt.Sprintf("%s[%d]", v.path, i), node: e})
	}
	return all
}

// texts are the scalars of a sequence, or a single scalar.
func (v value) texts() (all []value) {
	if _, ok := v.scalar(); ok {
		return []value{{file: v.file, path: v.path, node: v.resolve()}}
	}
	for _, e := range v.list() {
		if _, ok := e.scalar(); ok {
			all = append(all, value{file: e.file, path: e.path, node: e.resolve()})
		}
	}
	return all
}

// An object is a mapping of which members are taken one by one. What remains in the
// end was not converted.
type object struct {
	value
	members map[string]value
	keys    []string // in the order of the file
}

// object reads a mapping. The last of equal keys counts, as in Python.
func (v value) object() (object, bool) {
	n := v.resolve()
	if n == nil || n.Kind != yaml.MappingNode {
		return object{value: v, members: map[string]value{}}, false
	}
	o := object{value: value{file: v.file, path: v.path, node: n}, members: map[string]value{}}
	o.addAll(n, 0, map[string]bool{})
	return o, true
}

// addAll adds the members of a mapping and of those that it merges. given are keys
// that what is merged does not replace.
func (o *object) addAll(n *yaml.Node, depth int, given map[string]bool) {
	if depth > maxDepth {
		return
	}
	var merged []*yaml.Node
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, member := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			continue
		}
		if key.ShortTag() == "!!merge" {
			m := value{node: member}.resolve()
			if m != nil && m.Kind == yaml.SequenceNode {
				merged = append(merged, m.Content...)
			} else if m != nil {
				merged = append(merged, m)
			}
			continue
		}
		if given[key.Value] {
			continue
		}
		own[key.Value] = true
		o.set(key.Value, value{file: o.file, path: join(o.path, key.Value), node: member})
	}
	for key := range own {
		given[key] = true
	}
	for _, m := range merged {
		if m = (value{node: m}).resolve(); m != nil && m.Kind == yaml.MappingNode {
			o.addAll(m, depth+1, given)
		}
	}
}

func (o *object) set(key string, v value) {
	if _, ok := o.members[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.members[key] = v
}

// merge adds another file: lists are appended, other values replaced.
func (o *object) merge(other object) {
	for _, key := range other.rest() {
		v := other.members[key]
		if mine := o.members[key]; mine.isList() && v.isList() {
			v = value{file: mine.file, path: mine.path, parts: []value{mine, v}}
		}
		o.set(key, v)
	}
}

// take removes a member and returns it. ok is false if it is not there, or null.
func (o *object) take(key string) (v value, ok bool) {
	v, ok = o.members[key]
	delete(o.members, key)
	if !ok || v.isNull() {
		return value{file: o.file, path: join(o.path, key)}, false
	}
	return v, true
}

// section takes a member that is a mapping. It is empty if there is none.
func (o *object) section(key string) object {
	v, _ := o.take(key)
	s, _ := v.object()
	return s
}

// rest are the keys that were not taken.
func (o *object) rest() (keys []string) {
	for _, key := range o.keys {
		if v, ok := o.members[key]; ok && !v.isNull() {
			keys = append(keys, key)
		}
	}
	return keys
}

// printable is a text without what could disturb a terminal, of at most 80 characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > 80 {
		return string(runes[:80]) + "…"
	}
	return s
}

// whole is a whole number, or the reference to a variable; nil and a note if it is
// neither.
func (c *converter) whole(v value, least int) any {
	s, ok := v.scalar()
	if name, isVariable := variableOf(s); ok && isVariable {
		return c.variable(name)
	}
	n, err := parseWhole(s)
	if !ok || err != nil || n < least {
		c.note(LeftOut, v, "is not a whole number of at least %d", least)
		return nil
	}
	return n
}

// parseWhole reads a whole number as Python does: 80_000 is one, and 3.0, too.
func parseWhole(s string) (int, error) {
	s = strings.ReplaceAll(s, "_", "")
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, errNotWhole
	}
	return int(f), nil
}

// seconds is a number of seconds as a duration; "" and a note if it is none.
func (c *converter) seconds(v value) string {
	s, ok := v.scalar()
	if name, isVariable := variableOf(s); ok && isVariable {
		return c.variable(name) + "s"
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if !ok || err != nil || !(f >= 0.001 && f <= 365*24*3600) {
		c.note(LeftOut, v, "is not a number of seconds")
		return ""
	}
	if f == math.Trunc(f) {
		return strconv.Itoa(int(f)) + "s"
	}
	return time.Duration(f * float64(time.Second)).Round(time.Millisecond).String()
}
