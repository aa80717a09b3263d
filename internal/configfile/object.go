package configfile

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// object reads a mapping of any values that JSON has.
func (d *decoder) object(at location) map[string]any {
	m := map[string]any{}
	for _, p := range d.pairs(at, at.memberField) {
		m[p.key.Value] = d.any(d.member(at, p))
	}
	return m
}

// memberField is the field of a member of a map, or of what is inside one.
func (at location) memberField(key string) string {
	if strings.HasSuffix(at.field, `"]`) {
		return at.field
	}
	return at.field + "[" + strconv.Quote(key) + "]"
}

// member is the location of a member of a map.
func (d *decoder) member(at location, p pair) location {
	field := at.memberField(p.key.Value)
	member := at.child(p.value, join(at.path, Shorten(p.key.Value)), field)
	if field != at.field {
		d.source.places[field] = member
	}
	return member
}

// any reads any value that JSON has.
func (d *decoder) any(at location) any {
	if !d.enter(at) {
		return nil
	}
	switch tagOf(at.node) {
	case mapTag:
		return d.object(at)
	case listTag:
		list := []any{}
		for i, n := range at.node.Content {
			list = append(list, d.any(at.child(n, fmt.Sprintf("%s[%d]", at.path, i), at.field)))
		}
		return list
	}
	text, tag, ok := d.text(at)
	plain := at.node.Style == 0
	if !plain && hasVariable(at.node.Value) {
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
	d.mismatch(at, tag, "a value that JSON has: a number in plain digits, true, false, null, or text in quotes")
	return nil
}
