package configfile_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// Whatever a struct holds, a file can hold it, in both languages.
func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	words := rapid.OneOf(
		rapid.StringMatching(`[ -~]{0,12}`),
		rapid.SampledFrom([]string{"", "yes", "null", "~", "1", "1e3", "0x10", "2024-10-21", "<<", "${A}", "$${A}", "$", "a: b", "- a", "&a", "*a", "!a", "# a", "a #b", "%", "@", "\t", "\n", "a\n b\n", "é😀", "'", `"`, `\`}),
		rapid.StringOf(rapid.RuneFrom([]rune("${}:-AB \"'\\\n#é😀"))),
	)
	var value *rapid.Generator[any]
	numbers := rapid.Map(rapid.OneOf(rapid.SampledFrom([]string{"0", "-0", "1.50", "1e400", "-1E-7", "123456789012345678901234567890"}),
		rapid.Map(rapid.Int(), func(n int) string { return fmt.Sprint(n) })), func(s string) any { return json.Number(s) })
	leaves := rapid.OneOf(rapid.Just(any(nil)), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(words, func(s string) any { return s }), numbers)
	value = rapid.OneOf(leaves, leaves, rapid.Custom(func(t *rapid.T) any {
		if rapid.Bool().Draw(t, "list") {
			return rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[any] { return value }), 0, 3).Draw(t, "items")
		}
		return rapid.MapOfN(words, rapid.Deferred(func() *rapid.Generator[any] { return value }), 0, 3).Draw(t, "members")
	}))
	rapid.Check(t, func(t *rapid.T) {
		cfg := config{
			Title: "t" + words.Draw(t, "title"), MaxRetries: rapid.Int().Draw(t, "retries"), DryRun: rapid.Bool().Draw(t, "dry run"),
			Timeout: time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "timeout")),
			Labels:  rapid.MapOfN(words, words, 1, 3).Draw(t, "labels"), Extra: rapid.MapOfN(words, value, 1, 3).Draw(t, "extra"),
			Tags: rapid.SliceOfN(words, 1, 3).Draw(t, "tags"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "servers") {
			s := server{Name: words.Draw(t, "name"), APIKey: words.Draw(t, "key"), Weight: rapid.IntRange(0, 9).Draw(t, "weight")}
			for range rapid.IntRange(0, 3).Draw(t, "ports") {
				s.Ports = append(s.Ports, port{words.Draw(t, "port"), rapid.Int().Draw(t, "number")})
			}
			cfg.Servers = append(cfg.Servers, s)
		}
		for i, text := range inBothLanguages(t, cfg) {
			read, problems := decode([]string{"f.json", "f.yaml"}[i], string(text))
			require.Empty(t, problems, "%s", text)
			require.Equal(t, cfg, read, "%s", text)
		}
	})
}

// inBothLanguages is a struct in JSON and in YAML, without its zero fields.
func inBothLanguages(t require.TestingT, cfg config) [][]byte {
	asJSON, err := json.Marshal(plain(reflect.ValueOf(cfg)))
	require.NoError(t, err)
	tree, problem := configfile.Parse("f.json", asJSON)
	require.Nil(t, problem)
	var unquote func(*yaml.Node)
	unquote = func(n *yaml.Node) {
		switch {
		case n.Tag == "!!int" || n.Tag == "!!float":
			n.Tag = ""
		case !strings.Contains(n.Value, "\n"): // yaml may write a block that it cannot read
			n.Style = 0
		}
		for _, c := range n.Content {
			unquote(c)
		}
	}
	unquote(tree)
	asYAML, err := yaml.Marshal(tree)
	require.NoError(t, err)
	return [][]byte{asJSON, asYAML}
}

// plain turns a struct into what encoding/json writes as the file.
func plain(v reflect.Value) any {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		return fmt.Sprint(v)
	case v.Kind() == reflect.Struct:
		m := map[string]any{}
		for _, f := range reflect.VisibleFields(v.Type()) {
			if field := v.FieldByIndex(f.Index); !field.IsZero() {
				m[configfile.Key(f.Name)] = plain(field)
			}
		}
		return m
	case v.Kind() == reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, plain(v.Index(i)))
		}
		return list
	case v.Kind() == reflect.Map:
		m := map[string]any{}
		for _, key := range v.MapKeys() {
			m[key.String()] = plain(v.MapIndex(key))
		}
		return m
	case v.Kind() == reflect.Interface && v.IsNil():
		return nil
	case v.Kind() == reflect.Interface:
		return plain(v.Elem())
	case v.Type() == reflect.TypeFor[json.Number]():
		return v.Interface()
	case v.Kind() == reflect.String:
		return strings.ReplaceAll(v.String(), "${", "$${")
	}
	return v.Interface()
}
