package interop

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// TestSchema holds docs/config.schema.json against files of which spillover's
// own tests say whether Load takes them.
func TestSchema(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	schema, err := compiler.Compile("../docs/config.schema.json")
	require.NoError(t, err)

	for _, c := range []struct {
		files string
		valid bool
	}{
		{"../docs/spillover.*", true},
		{"../testdata/config/good/*", true},
		{"../testdata/config/bad/*.yaml", false},
		{"../testdata/config/bad/*.json", false},
	} {
		files, err := filepath.Glob(c.files)
		require.NoError(t, err)
		require.NotEmpty(t, files, c.files)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			err = schema.Validate(asEditorsSee(t, file, text))
			if c.valid {
				require.NoError(t, err, file)
			} else {
				require.Error(t, err, file)
			}
		}
	}

	// And every mistake by itself.
	require.NoError(t, schema.Validate(asEditorsSee(t, "c.json", []byte(`{"backends": [{"url": "h", "models": [{"name": "m"}]}]}`))))
	for name, value := range map[string]string{
		"max_attempts": `3.5`, "max_wait": `30`, "default_cooldown": `"1d"`, "max_cooldown": `"10"`, "hold_streams": `"yes"`, "base": `null`, "max_atempts": `3`,
		"backends": `{}`,
	} {
		refused(t, schema, `{"backends": [{"url": "h"}], "`+name+`": `+value+`}`)
	}
	for name, value := range map[string]string{
		"name": `7`, "url": `null`, "priority": `"1"`, "weight": `1000001`, "dialect": `"Azure"`, "api_key": `1`, "api_version": `20241021`, "token": `"x"`,
		"models": `[{"deployment": "x"}]`, "defaults": `[]`, "header_timeout": `"-3s"`, "idle_timeout": `"3 s"`, "apikey": `"x"`,
	} {
		refused(t, schema, `{"backends": [{"url": "h", "`+name+`": `+value+`}]}`)
	}
	for name, value := range map[string]string{"name": `null`, "deployment": `1`, "rpm": `-1`, "tpm": `"1"`, "limit": `1`} {
		refused(t, schema, `{"backends": [{"url": "h", "models": [{"name": "m", "`+name+`": `+value+`}]}]}`)
	}
}

func refused(t *testing.T, schema *jsonschema.Schema, text string) {
	require.Error(t, schema.Validate(asEditorsSee(t, "c.json", []byte(text))), text)
}

// asEditorsSee is a file as JSON, or YAML 1.2, which knows no dates, has it.
func asEditorsSee(t *testing.T, file string, text []byte) (value any) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if json.Valid(text) {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err, file)
		return value
	}
	var tree yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &tree), file)
	var plain func(*yaml.Node)
	plain = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!timestamp" {
			n.Tag = "!!str"
		}
		for _, c := range n.Content {
			plain(c)
		}
	}
	plain(&tree)
	require.NoError(t, tree.Decode(&value), file)
	return value
}
