package configfile

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseYAML returns the root of the only document of a text.
func parseYAML(text []byte) (*yaml.Node, *Problem) {
	first, second, err := readDocuments(text)
	switch {
	case err != nil:
		return nil, yamlProblem(text, err)
	case second != nil:
		return nil, &Problem{Line: second.Line, Column: second.Column, Err: errors.New("a second document starts here; a file must have only one")}
	case first == nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: nullTag, Line: 1, Column: 1}, nil
	}
	return first.Content[0], nil
}

// readDocuments returns the first two documents of a text, nil for those that it
// does not have.
func readDocuments(text []byte) (first, second *yaml.Node, err error) {
	defer func() {
		// The library panics in states that it assumes to be unreachable.
		if recover() != nil {
			err = errors.New("the parser cannot read it")
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for _, document := range []**yaml.Node{&first, &second} {
		var n yaml.Node
		switch err := decoder.Decode(&n); {
		case err == io.EOF:
			return first, second, nil
		case err != nil:
			return nil, nil, err
		}
		*document = &n
	}
	return first, second, nil
}

var lineNumber = regexp.MustCompile(`^line (\d+): `)

// yamlProblem turns an error of the YAML library into a problem. The library
// returns texts only, so this compares texts: yaml_test.go fails if an update of
// the library changes them.
func yamlProblem(text []byte, err error) *Problem {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	if anchor, ok := strings.CutPrefix(what, "unknown anchor '"); ok {
		anchor, _, _ = strings.Cut(anchor, "'")
		// It may also be a key that begins with an asterisk.
		line, column := position(text, bytes.Index(text, []byte("*"+anchor)))
		return &Problem{Line: line, Column: column, Err: errors.New("an unquoted value that begins with * is an alias, and this one has no anchor")}
	}
	p := &Problem{}
	if m := lineNumber.FindStringSubmatch(what); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		what = what[len(m[0]):]
	}
	says := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(what, prefix) })
	}
	// These are reported at the start of the list or mapping, or where it goes wrong.
	inCollection := says("did not find expected '-'", "did not find expected key", "did not find expected ','")
	// The library's scanner counts lines from 1, its parser from 0.
	if inCollection || says("did not find expected <", "did not find expected node", "found undefined tag handle", "found duplicate", "found incompatible") {
		p.Line++
	}
	p.Line = max(p.Line, 1)
	missingComma := says("did not find expected ','")
	if lines := bytes.SplitN(text, []byte("\n"), p.Line+1); p.Line <= len(lines) && bytes.HasPrefix(bytes.TrimLeft(lines[p.Line-1], " "), []byte("\t")) {
		what, inCollection, missingComma = "a line cannot be indented with a tab", false, false
	}
	if inCollection {
		what += ", in this line or in the list or mapping that begins here"
	}
	if missingComma && bytes.Contains(text, []byte("${")) {
		what += "; within { } and [ ] a ${…} must be in quotes"
	}
	p.Err = errors.New("is not valid YAML: " + what)
	return p
}
