package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parse reads a text as JSON or YAML. A problem quotes nothing of the text,
// which may contain secrets.
func parse(name string, text []byte) (*yaml.Node, *Problem) {
	at := func(offset int, err error) *Problem {
		line, column := position(text, offset)
		return &Problem{Line: line, Column: column, Err: err}
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return nil, &Problem{Err: errors.New("is in UTF-16 and must be in UTF-8")}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return nil, at(i, errors.New("is not valid UTF-8"))
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return nil, at(i, errors.New("contains a control character"))
		}
		i += size
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, at(0, ErrEmpty)
	}

	var ignored json.RawMessage
	err := json.Unmarshal(text, &ignored)
	if err == nil {
		return parseJSON(text), nil
	}
	if e := (*json.SyntaxError)(nil); strings.EqualFold(filepath.Ext(name), ".json") && errors.As(err, &e) {
		return nil, at(max(0, int(e.Offset)-1), errors.New("is not valid JSON: "+e.Error()))
	}
	return parseYAML(text)
}

const (
	mapTag, listTag, mergeTag, nullTag = "!!map", "!!seq", "!!merge", "!!null"
	textTag, boolTag, intTag, floatTag = "!!str", "!!bool", "!!int", "!!float"
)

// tagOf is the type of a value. What YAML takes for a date is text. An explicit
// tag must agree with the value.
func tagOf(n *yaml.Node) string {
	tag := n.ShortTag()
	if n.Kind == yaml.ScalarNode && n.Style&yaml.TaggedStyle != 0 && tag != textTag {
		plain := (&yaml.Node{Kind: yaml.ScalarNode, Value: n.Value}).ShortTag()
		if plain != tag && !(isNumber(plain) && isNumber(tag)) {
			return "!"
		}
	}
	switch tag {
	case "!!timestamp", mergeTag:
		return textTag
	}
	return tag
}

func isNumber(tag string) bool { return tag == intTag || tag == floatTag }
