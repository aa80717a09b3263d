package spillover

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// Each field is one that Load reads, or one that only a program can set.
func TestLoadKnowsEveryField(t *testing.T) {
	inCode := []string{"Config.Base", "Config.Selector", "Config.Session", "Config.CountTokens", "Backend.Token",
		"Config.Logger", "Config.MeterProvider", "Config.TracerProvider"}
	var cfg Config
	var fill func(v reflect.Value, name string)
	fill = func(v reflect.Value, name string) {
		switch {
		case onlyInCode(v.Type()):
			require.Contains(t, inCode, name, "a new field is for a program alone? Then say so here")
		case v.Kind() == reflect.Struct:
			for _, f := range reflect.VisibleFields(v.Type()) {
				fill(v.FieldByIndex(f.Index), v.Type().Name()+"."+f.Name)
			}
		case v.Kind() == reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), name)
		case v.Type() == reflect.TypeFor[map[string]any]():
			v.Set(reflect.ValueOf(map[string]any{"a": true}))
		case v.Type() == reflect.TypeFor[map[string]string]():
			v.Set(reflect.ValueOf(map[string]string{"X-A": "b"}))
		case v.Type() == reflect.TypeFor[time.Duration]():
			v.Set(reflect.ValueOf(7 * time.Second))
		case v.Type() == reflect.TypeFor[Dialect]():
			v.Set(reflect.ValueOf(Azure))
		case v.Kind() == reflect.String:
			v.SetString("a-" + snake(name[strings.Index(name, ".")+1:]))
		case v.Kind() == reflect.Int:
			v.SetInt(7)
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		default:
			require.Fail(t, "Load does not read a "+v.Type().String(), name)
		}
	}
	fill(reflect.ValueOf(&cfg).Elem(), "")
	for _, text := range texts(t, cfg) {
		read, err := parseConfig("f", text, environment)
		require.NoError(t, err, "%s", text)
		require.Equal(t, cfg, read)
	}
}

// texts are a configuration in JSON and in YAML, with all that is not zero.
func texts(t require.TestingT, cfg Config) [][]byte {
	asJSON, err := json.Marshal(treeOf(reflect.ValueOf(cfg)))
	require.NoError(t, err)
	tree, mistake := parseTree("f.json", asJSON)
	require.Nil(t, mistake)
	var unquote func(*yaml.Node)
	unquote = func(n *yaml.Node) {
		switch {
		case isNumber(n.Tag):
			n.Tag = ""
		case !strings.Contains(n.Value, "\n"): // of which yaml may write a block that it cannot read
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

func treeOf(v reflect.Value) any {
	switch {
	case v.Type() == durationType:
		return fmt.Sprint(v)
	case v.Kind() == reflect.Struct:
		m := map[string]any{}
		for _, f := range reflect.VisibleFields(v.Type()) {
			if field := v.FieldByIndex(f.Index); !field.IsZero() && !onlyInCode(f.Type) {
				m[snake(f.Name)] = treeOf(field)
			}
		}
		return m
	case v.Kind() == reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, treeOf(v.Index(i)))
		}
		return list
	case v.Kind() == reflect.Map:
		m := map[string]any{}
		for _, key := range v.MapKeys() {
			m[key.String()] = treeOf(v.MapIndex(key))
		}
		return m
	case v.Kind() == reflect.Interface && v.IsNil():
		return nil
	case v.Kind() == reflect.Interface:
		return treeOf(v.Elem())
	case v.Type() == reflect.TypeFor[json.Number]():
		return v.Interface()
	case v.Kind() == reflect.String:
		return strings.ReplaceAll(v.String(), "${", "$${")
	}
	return v.Interface()
}

var durationType = reflect.TypeFor[time.Duration]()

// Whatever a configuration says, a file can say it, in both languages.
func TestLoadRoundTrip(t *testing.T) {
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
		cfg := Config{
			MaxAttempts: rapid.IntRange(0, 1<<40).Draw(t, "attempts"), HoldStreams: rapid.Bool().Draw(t, "hold"),
			MaxWait: time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "wait")),
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "backends") {
			b := Backend{
				Name: fmt.Sprint(i) + rapid.StringMatching(`[ -~]{0,12}`).Draw(t, "name"), URL: fmt.Sprintf("https://%d.example", i),
				Priority: rapid.IntRange(0, 9).Draw(t, "priority"), APIKey: rapid.StringMatching(`[!-~]{0,12}`).Filter(func(s string) bool { return asVariable(s) == "" }).Draw(t, "key"),
				IdleTimeout: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "idle")),
			}
			for _, name := range slices.Sorted(maps.Keys(rapid.MapOfN(words, rapid.Just(0), 0, 3).Draw(t, "models"))) {
				if strings.Trim(name, ".") != "" {
					b.Models = append(b.Models, Model{Name: name, TPM: rapid.IntRange(0, 9).Draw(t, "tpm")})
				}
			}
			for name, v := range rapid.MapOfN(words, value, 0, 3).Draw(t, "defaults") {
				if b.Defaults == nil {
					b.Defaults = map[string]any{}
				}
				b.Defaults["x"+name] = v
			}
			cfg.Backends = append(cfg.Backends, b)
		}
		for i, text := range texts(t, cfg) {
			read, err := parseConfig([]string{"f.json", "f.yaml"}[i], text, environment)
			require.NoError(t, err, "%s", text)
			require.Equal(t, cfg, read, "%s", text)
		}
	})
}

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{
		"Name": "name", "URL": "url", "APIKey": "api_key", "APIVersion": "api_version", "RPM": "rpm", "MaxAttempts": "max_attempts",
		"HoldStreams": "hold_streams", "UserID": "user_id", "HTTPProxyURL": "http_proxy_url", "": "",
	} {
		require.Equal(t, want, snake(name))
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"priorty", "priority", 1}, {"url", "lru", 2}, {"same", "same", 0}} {
		require.Equal(t, c.want, distance(c.a, c.b), c)
		require.Equal(t, c.want, distance(c.b, c.a), c)
	}
}

func FuzzLoad(f *testing.F) {
	const secret = "XyZZy-Secret"
	for name, text := range seedFiles(f) {
		f.Add([]byte(text), strings.HasSuffix(name, ".json"))
	}
	for _, s := range []string{
		"backends:\n- name: ${S}\n  url: ${S}://${S}:${S}@${H}:${N}?${S}#${S}\n  priority: ${N}\n  weight: ${S}\n  dialect: ${S}\n  api_version: '${S} '\n  api_key: '${S} '\n",
		"max_wait: ${S}\nmax_cooldown: ${D}\ndefault_cooldown: ${N}\nhold_streams: ${S}\nbackends:\n- {url: '${H}', models: [{name: '${S}', deployment: ..}, {name: '${S}', rpm: '${N}'}], defaults: {a: !x '${S}', b: '0x${S}'}}\n",
		"backends:\n- {name: '${S}', url: a}\n- {name: '${S}', url: a, api_key: k, models: [{name: '${S}'}]}\n- {name: x, url: a, api_key: k, models: [{name: '${S}'}]}\n- {url: '${H}'}\n- {url: '${H}'}\n",
		"a: *b\n", "? - a\n  - b\n: c\n", "a:\n  # x\n\n# y\n  b: 1\n  # z\n", "- # a\n  - b\n# c\n-\n", "a: |-\n  x\n#\n", "{a: [b, {c: d}, ], # e\n}", "a: !!binary x\n", "%TAG ! x\n---\n",
	} {
		f.Add([]byte(s), false)
	}
	lookup := func(name string) (string, bool) {
		value, set := map[string]string{"S": secret, "H": "https://" + secret + ".example", "N": "-7", "D": "-90s", "E": ""}[name]
		return value, set
	}
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		name := "f.yaml"
		if isJSON {
			name = "f.json"
		}
		cfg, err := parseConfig(name, text, lookup)
		if err != nil {
			require.Equal(t, Config{}, cfg)
			if !strings.Contains(strings.ToLower(string(text)), "xyzzy") {
				require.NotContains(t, strings.ToLower(err.Error()), "xyzzy")
			}
			for _, e := range mistakesOf(err) {
				require.Equal(t, name, e.File)
				require.LessOrEqual(t, e.Line, strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+strings.Count(string(text), "\u2028")+strings.Count(string(text), "\u2029")+strings.Count(string(text), "\u0085")+2)
			}
			return
		}
		for i := range cfg.Backends {
			if cfg.Backends[i].APIKey == "" {
				entra(&cfg.Backends[i])
			}
			_, err := json.Marshal(cfg.Backends[i].Defaults)
			require.NoError(t, err)
		}
		_, err = New(cfg)
		require.NoError(t, err)
	})
}
