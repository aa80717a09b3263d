package litellm_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/cmd/spillover/internal/litellm"
)

// secret is a credential as people have them.
func secret() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`sk-proj-[A-Za-z0-9]{20}`),
		rapid.StringMatching(`[0-9a-f]{32}`),
		rapid.StringMatching(`[a-zA-Z0-9]{40}`),
		rapid.StringMatching(`eyJ[a-z]{8}\.[a-zA-Z]{10}\.[a-zA-Z_-]{9}`),
		rapid.StringMatching(`(correct|horse|battery|staple)[-_](tower|orange)[-_][a-z]{5}`),
		rapid.StringMatching(`Pa55w0rd![a-z]{5}`),
	)
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// shows reports whether a text contains a secret, also as a part of the name of a variable or a backend.
func shows(text, secret string) bool {
	plain := func(s string) string { return notInNames.ReplaceAllString(strings.ToLower(s), "") }
	return strings.Contains(plain(text), plain(secret))
}

// A place is a scalar of the input, and what it may be.
type place struct {
	node *yaml.Node
	path string
	key  bool
}

// places are all scalars below a node.
func places(n *yaml.Node, path string) (all []place) {
	switch n.Kind {
	case yaml.DocumentNode:
		return places(n.Content[0], path)
	case yaml.SequenceNode:
		for _, e := range n.Content {
			all = append(all, places(e, path+"[]")...)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			all = append(all, place{key, path + "." + key.Value, true})
			all = append(all, places(n.Content[i+1], path+"."+key.Value)...)
		}
	case yaml.ScalarNode:
		all = append(all, place{n, path, false})
	}
	return all
}

// A name is what the result must contain: it identifies a model, a deployment or a resource.
var (
	isName    = regexp.MustCompile(`\.(model_name|model|api_base|base_url|region_name|organization|tags(\[\])?)$|^\.router_settings\.model_group_alias|^\.router_settings\.\w*fallbacks|^\.litellm_settings\.\w*fallbacks`)
	isNameKey = regexp.MustCompile(`\.(extra_headers|headers|extra_body|model_group_alias|tools|user|stop|temperature|max_completion_tokens)\b|fallbacks\[\]\.`)
)

// examples are files of which each test changes one.
func examples(t rapid.TB) (texts []string) {
	for _, name := range []string{"azure", "mixed", "include", "included/models"} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
		require.NoError(t, err)
		texts = append(texts, strings.Replace(string(text), "include:", "includes:", 1))
	}
	return append(texts, `
model_list:
  - model_name: m
    litellm_params:
      model: openai/d
      api_key: key
      api_version: "2024-10-21"
      user: somebody
      stop: [word, other]
      extra_headers: {X-Team: search}
      extra_body: {data_sources: [{type: azure_search, parameters: {authentication: {type: api_key, key: value}}}]}
      tools: [{type: mcp, server_label: docs, authorization: value, headers: {X: value}}]
      metadata: {a: b}
    model_info: {mode: chat, id: x}
router_settings:
  fallbacks: [{m: [n]}, {x: [m]}]
  model_group_alias: {a: m, b: nothing}
  default_litellm_params: {user: other, timeout: 5, extra_headers: {X-Team: search}, extra_body: {a: b}}
environment_variables: {OPENAI_API_KEY: value}
`)
}

// outputs are everything that convert writes.
func outputs(text string) (yaml, report string) {
	r, err := litellm.Convert("litellm.yaml", []byte(text), func(string) ([]byte, error) { return nil, os.ErrNotExist })
	report = lines(r.Notes)
	if err != nil {
		report += err.Error()
	}
	return string(r.YAML), report
}

func TestSecretsOfTheInputAreNotShown(t *testing.T) {
	texts := examples(t)
	rapid.Check(t, func(t *rapid.T) {
		var document yaml.Node
		require.NoError(t, yaml.Unmarshal([]byte(rapid.SampledFrom(texts).Draw(t, "file")), &document))
		p := rapid.SampledFrom(places(&document, "")).Draw(t, "place")
		s := secret().Draw(t, "secret")
		how := rapid.SampledFrom([]string{"instead", "behind", "before", "comment", "anchor", "in a list", "in a mapping", "as a key"}).Draw(t, "how")
		named := !p.key && isName.MatchString(p.path) || p.key && isNameKey.MatchString(p.path)
		fields := isNameKey.MatchString(p.path)
		switch how {
		case "instead":
			p.node.SetString(s)
		case "behind":
			p.node.SetString(p.node.Value + " " + s)
		case "before":
			p.node.SetString(s + "/" + p.node.Value)
		case "comment":
			p.node.HeadComment, p.node.LineComment = "# "+s, "# "+s
			named = false
		case "anchor":
			if p.key {
				return
			}
			p.node.Anchor = s
			named = false
		case "in a list":
			if p.key {
				return
			}
			*p.node = yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: s}}}
		default:
			if p.key {
				return
			}
			pair := []*yaml.Node{{Kind: yaml.ScalarNode, Value: "name"}, {Kind: yaml.ScalarNode, Value: s}}
			if how == "as a key" {
				slices.Reverse(pair)
				named = named || fields
			}
			*p.node = yaml.Node{Kind: yaml.MappingNode, Content: pair}
		}
		text, err := yaml.Marshal(&document)
		if err != nil {
			return // no file has such an anchor
		}
		converted, report := outputs(string(text))
		if named && shows(converted, s) {
			return
		}
		require.False(t, shows(converted, s), "%s\n\n%s", text, converted)
		require.False(t, shows(report, s), "%s %s\n%s\n\n%s", p.path, how, text, report)
	})
}

// Files that are broken in any way.
func TestErrorsOfBrokenFilesDoNotShowSecrets(t *testing.T) {
	texts := examples(t)
	rapid.Check(t, func(t *rapid.T) {
		all := strings.SplitAfter(rapid.SampledFrom(texts).Draw(t, "file"), "\n")
		s := secret().Draw(t, "secret")
		at := rapid.IntRange(0, len(all)-1).Draw(t, "line")
		line := rapid.StringMatching(`( {0,8})`).Draw(t, "indent") +
			rapid.SampledFrom([]string{"%", "%:", "- %", "*%", "&% x", "!% x", "!!%", "key: *%", "key: &%", "'%", `"%`, `"\%"`, "[%", "{%: ", "? %", "| %", "%%", "@%", "a: b: %", "<<: %"}).Draw(t, "form")
		text := strings.Join(slices.Insert(all, at, strings.ReplaceAll(line, "%", s)+"\n"), "")
		converted, report := outputs(text)
		if !shows(converted, s) {
			require.False(t, shows(report, s), "%s\n\n%s", text, report)
		}
	})
}
