package spillover

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseTree reads a text as JSON or YAML. What it says of a mistake holds
// nothing of the text, in which there may be keys.
func parseTree(file string, text []byte) (*yaml.Node, *LoadError) {
	at := func(offset int, what string) *LoadError {
		line, column := position(text, offset)
		return &LoadError{File: file, Line: line, Column: column, Err: errors.New(what)}
	}
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return nil, &LoadError{File: file, Err: errors.New("is in UTF-16 and must be in UTF-8")}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return nil, at(i, "is not UTF-8")
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return nil, at(i, "has a control character")
		}
		i += size
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, at(0, emptyFile)
	}

	var ignored json.RawMessage
	err := json.Unmarshal(text, &ignored)
	if err == nil {
		r := jsonReader{text: text, line: 1, column: 1, dec: json.NewDecoder(bytes.NewReader(text))}
		r.dec.UseNumber()
		return r.node(), nil
	}
	if e := (*json.SyntaxError)(nil); strings.EqualFold(filepath.Ext(file), ".json") && errors.As(err, &e) {
		return nil, at(max(0, int(e.Offset)-1), "is no JSON: "+e.Error())
	}

	n, err := parseYAML(text)
	var second secondDocument
	switch {
	case err == nil:
		return n, nil
	case errors.As(err, &second):
		return nil, &LoadError{File: file, Line: second.Line, Column: second.Column, Err: err}
	}
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if anchor, ok := strings.CutPrefix(what, "unknown anchor '"); ok {
		anchor, _, _ = strings.Cut(anchor, "'")
		// It may be a key that begins with an asterisk.
		return nil, at(bytes.Index(text, []byte("*"+anchor)), "a value that begins with * and is not in quotes is an alias, and there is no anchor for this one")
	}
	e := &LoadError{File: file}
	if m := yamlLine.FindStringSubmatch(what); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		what = m[2]
	}
	if yamlParserSays.MatchString(what) {
		e.Line++
	}
	e.Line = max(e.Line, 1)
	if lines := bytes.SplitN(text, []byte("\n"), e.Line+1); e.Line <= len(lines) && bytes.HasPrefix(bytes.TrimLeft(lines[e.Line-1], " "), []byte("\t")) {
		what = "a tab cannot indent a line"
	}
	if yamlContextSays.MatchString(what) {
		what += ", here or in what begins here"
	}
	if strings.HasPrefix(what, "did not find expected ','") && bytes.Contains(text, []byte("${")) {
		what += "; within { } and [ ] a ${…} must be in quotes"
	}
	e.Err = errors.New("is no YAML: " + what)
	return nil, e
}

const emptyFile = "is empty: at least one backend is needed"

var (
	yamlLine = regexp.MustCompile(`^line (\d+): (.*)$`)
	// What the parser says, not the scanner. It counts lines from 0.
	yamlParserSays = regexp.MustCompile(`^did not find expected (<|node|'-'|key|',')|tag handle$|^found (duplicate|incompatible)`)
	// What it may say of the line where the list or mapping begins.
	yamlContextSays = regexp.MustCompile(`^did not find expected ('-'|key|',')`)
)

type secondDocument struct{ Line, Column int }

func (secondDocument) Error() string { return "a second document begins; a file has one configuration" }

// parseYAML is the root of the only document.
func parseYAML(text []byte) (root *yaml.Node, err error) {
	defer func() {
		// The reader panics at places that it thinks out of reach.
		if recover() != nil {
			err = errors.New("the reader has given up")
		}
	}()
	var first, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	switch err := dec.Decode(&first); {
	case err == io.EOF:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: 1, Column: 1}, nil
	case err != nil:
		return nil, err
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, secondDocument{second.Line, second.Column}
	case err != io.EOF:
		return nil, err
	}
	return first.Content[0], nil
}

// A jsonReader turns JSON that is known to be valid into the tree that the same
// in YAML would be. YAML's own reader knows no surrogate pairs.
type jsonReader struct {
	dec          *json.Decoder
	text         []byte
	at           int // an offset
	line, column int // of it
}

func (r *jsonReader) node() *yaml.Node {
	r.moveTo(int(r.dec.InputOffset()))
	for strings.IndexByte(" \t\r\n,:", r.text[r.at]) >= 0 {
		r.moveTo(r.at + 1)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	token, _ := r.dec.Token()
	switch t := token.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		if t == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		for r.dec.More() {
			n.Content = append(n.Content, r.node())
		}
		_, _ = r.dec.Token()
	case string:
		n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", t.String()
		if wholeNumber.MatchString(n.Value) {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	default:
		n.Tag = "!!null"
	}
	return n
}

func (r *jsonReader) moveTo(offset int) {
	for ; r.at < offset; r.at++ {
		switch c := r.text[r.at]; {
		case c == '\n':
			r.line, r.column = r.line+1, 1
		case utf8.RuneStart(c):
			r.column++
		}
	}
}

// position is where an offset is, in lines and characters from 1.
func position(text []byte, offset int) (line, column int) {
	r := jsonReader{text: text, line: 1, column: 1}
	r.moveTo(offset)
	return r.line, r.column
}

const (
	mapTag, listTag, mergeTag, nullTag = "!!map", "!!seq", "!!merge", "!!null"
	textTag, boolTag, intTag, floatTag = "!!str", "!!bool", "!!int", "!!float"
)

// tagOf is the type of a value. What YAML takes for a date is text. A tag that
// is written down has to agree with the value.
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
