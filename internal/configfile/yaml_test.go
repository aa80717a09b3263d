package configfile_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// The YAML library says what is wrong in texts only. If an update changes one of
// them, yamlProblem has to change with it.
func TestSentencesOfTheYAMLLibrary(t *testing.T) {
	for text, c := range map[string]struct{ library, ours string }{
		"title: *b\n":                 {"unknown anchor 'b' referenced", "1:8: an unquoted value that begins with * is an alias, and this one has no anchor"},
		"extra:\n- [x\nb\n":           {"line 1: did not find expected ',' or ']'", "2: is not valid YAML: did not find expected ',' or ']', in this line or in the list or mapping that begins here"},
		"title: {b: c\n":              {"line 1: did not find expected ',' or '}'", "2: is not valid YAML: did not find expected ',' or '}', in this line or in the list or mapping that begins here"},
		"- a\nb: c\n":                 {"line 1: did not find expected '-' indicator", "2: is not valid YAML: did not find expected '-' indicator, in this line or in the list or mapping that begins here"},
		"a:\n  b: c\n - d\n":          {"line 2: did not find expected key", "3: is not valid YAML: did not find expected key, in this line or in the list or mapping that begins here"},
		"[\n\n":                       {"line 2: did not find expected node content", "3: is not valid YAML: did not find expected node content"},
		"a: b\n...\nc\n%x\n":          {"line 2: did not find expected <document start>", "3: is not valid YAML: did not find expected <document start>"},
		"a: b\nc: !x!y z\n":           {"line 1: found undefined tag handle", "2: is not valid YAML: found undefined tag handle"},
		"%YAML 1.1\n%YAML 1.1\n---\n": {"line 1: found duplicate %YAML directive", "2: is not valid YAML: found duplicate %YAML directive"},
		"%TAG ! x\n%TAG ! y\n---\n":   {"line 1: found duplicate %TAG directive", "2: is not valid YAML: found duplicate %TAG directive"},
		"#\n%YAML 3.0\n---\n":         {"line 1: found incompatible YAML document", "2: is not valid YAML: found incompatible YAML document"},
		"a: b\n - c: d\n":             {"line 2: mapping values are not allowed in this context", "2: is not valid YAML: mapping values are not allowed in this context"},
		"a: b: c\n":                   {"mapping values are not allowed in this context", "1: is not valid YAML: mapping values are not allowed in this context"},
		"a: b\n...\n@":                {"line 3: found character that cannot start any token", "3: is not valid YAML: found character that cannot start any token"},
		"a: b\nc\n":                   {"line 2: could not find expected ':'", "2: is not valid YAML: could not find expected ':'"},
		"a: b\n\tc: d\n":              {"line 2: found a tab character that violates indentation", "2: is not valid YAML: a line cannot be indented with a tab"},
		"a: {\n\tb: ${C} }\n":         {"line 1: did not find expected ',' or '}'", "2: is not valid YAML: a line cannot be indented with a tab"},
	} {
		var library error
		decoder := yaml.NewDecoder(strings.NewReader(text))
		for library == nil {
			library = decoder.Decode(new(yaml.Node))
		}
		require.EqualError(t, library, "yaml: "+c.library, text)
		_, ours := decode("c.yaml", text)
		require.Equal(t, []string{c.ours}, ours, text)
	}
}
