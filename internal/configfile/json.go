package configfile

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseJSON returns the tree that valid JSON would have as YAML. The YAML parser
// cannot read all of JSON: it does not know surrogate pairs.
func parseJSON(text []byte) *yaml.Node {
	r := jsonReader{textPosition: newPosition(text), decoder: json.NewDecoder(bytes.NewReader(text))}
	r.decoder.UseNumber()
	return r.node()
}

type jsonReader struct {
	textPosition
	decoder *json.Decoder
}

func (r *jsonReader) node() *yaml.Node {
	r.moveTo(int(r.decoder.InputOffset()))
	for strings.IndexByte(" \t\r\n,:", r.text[r.offset]) >= 0 {
		r.moveTo(r.offset + 1)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	token, _ := r.decoder.Token()
	switch t := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, mapTag
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, listTag
		}
		for r.decoder.More() {
			n.Content = append(n.Content, r.node())
		}
		_, _ = r.decoder.Token()
	case string:
		n.Tag, n.Value, n.Style = textTag, t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = floatTag, t.String()
		if wholeNumber.MatchString(n.Value) {
			n.Tag = intTag
		}
	case bool:
		n.Tag, n.Value = boolTag, strconv.FormatBool(t)
	default:
		n.Tag = nullTag
	}
	return n
}

// A textPosition is a place in a text, with its line and column in characters
// from 1.
type textPosition struct {
	text                 []byte
	offset, line, column int
}

func newPosition(text []byte) textPosition { return textPosition{text: text, line: 1, column: 1} }

// moveTo moves forward to an offset.
func (p *textPosition) moveTo(offset int) {
	for ; p.offset < offset; p.offset++ {
		switch c := p.text[p.offset]; {
		case c == '\n':
			p.line, p.column = p.line+1, 1
		case utf8.RuneStart(c):
			p.column++
		}
	}
}

// position is the line and column of an offset.
func position(text []byte, offset int) (line, column int) {
	p := newPosition(text)
	p.moveTo(offset)
	return p.line, p.column
}
