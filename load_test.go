package spillover_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// environment is what ${NAME} finds in the files of testdata/config.
func environment(name string) (string, bool) {
	value, set := map[string]string{
		"KEY": "sk-from-the-environment", "REGION": "swedencentral", "THREE": "3", "NEGATIVE": "-7777", "EMPTY": "", "COOLDOWN": "1m",
		"LONG": "1234s", "SHORT": "1233s", "DOTS": "..", "INF": "inf", "WHOLE": "secrets://environment.example:99999",
		"YAML": "a: [1]\nb: &x *x # {", "JSON": `", "api_key": "`,
		"TOO_LONG": strings.Repeat("environment ", 20) + ".", "ESCAPED": "environ ment", "ENCODED": "environ%2Fment",
	}[name]
	return value, set
}

func readSample(t testing.TB, file string) (spillover.Config, error) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return spillover.ParseConfig(filepath.Base(file), text, environment)
}

// All errors of each bad file are in the file beside it. The JSON Schema rejects
// those in bad, too, as interop/schema_test.go shows.
func TestLoadReportsEveryErrorOfAFile(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*/*")
	require.NoError(t, err)
	for _, file := range files {
		if filepath.Base(filepath.Dir(file)) == "good" || filepath.Ext(file) == ".txt" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := readSample(t, file)
			require.Error(t, err)
			require.Equal(t, spillover.Config{}, cfg)
			if *doctest.Update {
				require.NoError(t, os.WriteFile(file+".txt", []byte(err.Error()+"\n"), 0o644))
			}
			want, e := os.ReadFile(file + ".txt")
			require.NoError(t, e)
			require.Equal(t, string(want), err.Error()+"\n")
			for _, secret := range []string{"literal", "environ", "swedencentral", "7777", "99999", "secrets\""} {
				require.NotContains(t, strings.ReplaceAll(err.Error(), "literal-is-no-name", ""), secret)
			}
			for _, e := range loadErrorsOf(err) {
				require.Equal(t, filepath.Base(file), e.File)
			}
		})
	}
}

// loadErrorsOf are the errors that an error of Load joins.
func loadErrorsOf(err error) (all []*spillover.LoadError) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, e.(*spillover.LoadError))
		}
		return all
	}
	return []*spillover.LoadError{err.(*spillover.LoadError)}
}

const minimal = "backends: [{url: h.example}]\n"

func TestLoadReplacesEnvironmentVariables(t *testing.T) {
	t.Setenv("SPILLOVER_TEST_HOST", "h.example")
	path := testnet.WriteFile(t, "c.yaml", "backends: [{url: \"${SPILLOVER_TEST_HOST}\"}]")
	cfg, err := spillover.Load(path)
	require.NoError(t, err)
	require.Equal(t, spillover.Config{Backends: []spillover.Backend{{URL: "h.example"}}}, cfg)

	require.NoError(t, os.WriteFile(path, []byte("backends: [{url: \"${SPILLOVER_TEST_NO_HOST}\"}]"), 0o644))
	_, err = spillover.Load(path)
	require.EqualError(t, err, path+":1:18: backends[0].url: the variable SPILLOVER_TEST_NO_HOST is not set")
	var e *spillover.LoadError
	require.ErrorAs(t, err, &e)
	require.Equal(t, spillover.LoadError{File: path, Line: 1, Column: 18, Path: "backends[0].url", Err: e.Err}, *e)
	require.EqualError(t, e.Unwrap(), "the variable SPILLOVER_TEST_NO_HOST is not set")
}

// A name that ends in .json is JSON, whatever the text may be.
func TestLoadReadsJSONByName(t *testing.T) {
	_, err := spillover.Load(testnet.WriteFile(t, "c.yml", minimal))
	require.NoError(t, err)
	_, err = spillover.Load(testnet.WriteFile(t, "c.JSON", minimal))
	require.ErrorContains(t, err, "c.JSON:1:1: is not valid JSON: invalid character 'b' looking for beginning of value")
	_, err = spillover.Load(testnet.WriteFile(t, "c", `{"backends": [{"url": "h.example"}]}`))
	require.NoError(t, err)
}

func TestLoadReportsFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                                "is a directory",
		filepath.Join(dir, "missing.yaml"): "no such file or directory",
		filepath.Join(testnet.WriteFile(t, "file", ""), "c.yaml"): "not a directory",
		"":       "no such file or directory",
		"a\x00b": "invalid argument",
	} {
		cfg, err := spillover.Load(path)
		require.EqualError(t, err, path+": "+want)
		require.Equal(t, spillover.Config{}, cfg)
		require.Equal(t, want == "no such file or directory", errors.Is(err, fs.ErrNotExist), path)
	}
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")))
	_, err := spillover.Load(filepath.Join(dir, "link"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestLoadErrorFormat(t *testing.T) {
	e := errors.New("what")
	for _, c := range []struct {
		err  spillover.LoadError
		want string
	}{
		{spillover.LoadError{File: "f", Err: e}, "f: what"},
		{spillover.LoadError{File: "f", Line: 2, Err: e}, "f:2: what"},
		{spillover.LoadError{File: "f", Line: 2, Column: 3, Path: "a[0].b", Err: e}, "f:2:3: a[0].b: what"},
		{spillover.LoadError{File: "f", Path: "a", Err: e}, "f: a: what"},
	} {
		require.EqualError(t, &c.err, c.want)
	}
}

// A file that was written for another program is recognised.
func TestLoadRecognisesOtherPrograms(t *testing.T) {
	for text, want := range map[string]string{
		"model_list:\n- model_name: gpt-4o\n  litellm_params: {model: azure/gpt-4o, api_key: os.environ/KEY}\nlitellm_settings: {num_retries: 3}\n": `f:1:1: is a file for LiteLLM, because it has the key "model_list": ` + `"spillover convert" turns it into a file for spillover, see ` + spillover.MigrationPage + "#litellm-proxy",
		"litellm_settings: {}\nmodel_list: []\n":        `f:1:1: is a file for LiteLLM, because it has the key "litellm_settings": ` + `"spillover convert" turns it into a file for spillover, see ` + spillover.MigrationPage + "#litellm-proxy",
		`{"client": {}, "providers": {}}`:               `f:1:16: is a file for Bifrost, because it has the key "providers": ` + spillover.MigrationPage + "#bifrost shows how to write it for spillover",
		"static_resources: {listeners: []}\n":           `f:1:1: is a file for Envoy, because it has the key "static_resources": ` + spillover.MigrationPage + " shows how to write files for spillover",
		"apiVersion: v1\nkind: ConfigMap\ndata: {a: b}": `f:1:1: is a file for Kubernetes, because it has the key "apiVersion": a ConfigMap's data has the file to load`,
		minimal + "model_list: []\n":                    `f:2:1: unknown key "model_list"`,
	} {
		_, err := spillover.ParseConfig("f", []byte(text), environment)
		require.EqualError(t, err, want)
		require.Len(t, loadErrorsOf(err), 1)
	}
	page, err := os.ReadFile("docs/migration.md")
	require.NoError(t, err)
	require.Contains(t, string(page), "\n## LiteLLM proxy\n")
	require.Contains(t, string(page), "\n## Bifrost\n")
}

// Only so many errors are reported.
func TestLoadLimitsTheNumberOfErrors(t *testing.T) {
	text := "backends: [{url: h.example}]\n"
	for i := range 150 {
		text += fmt.Sprintf("unknown-%d: 1\n", i)
	}
	_, err := spillover.ParseConfig("f", []byte(text), environment)
	all := loadErrorsOf(err)
	require.Len(t, all, spillover.MaxLoadErrors+1)
	require.EqualError(t, all[99], `f:101:1: unknown key "unknown-99"`)
	require.EqualError(t, all[100], "f: and 50 more errors")
}

// Each field is one that Load reads, or one that only a program can set.
func TestLoadKnowsEveryField(t *testing.T) {
	inCode := []string{"Config.Base", "Config.Selector", "Config.Session", "Config.Tags", "Config.Fleet", "Config.Class", "Config.CountTokens", "Backend.Token",
		"Config.Logger", "Config.MeterProvider", "Config.TracerProvider"}
	var cfg spillover.Config
	var fill func(v reflect.Value, name string)
	fill = func(v reflect.Value, name string) {
		switch {
		case configfile.OnlyInCode(v.Type()):
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
		case v.Type() == reflect.TypeFor[spillover.Dialect]():
			v.Set(reflect.ValueOf(spillover.Azure))
		case v.Type() == reflect.TypeFor[spillover.FallbackOn]():
			v.Set(reflect.ValueOf(spillover.OnContextLength))
		case v.Kind() == reflect.String:
			v.SetString("a-" + configfile.Key(name[strings.Index(name, ".")+1:]))
		case v.Kind() == reflect.Int:
			v.SetInt(7)
			if name == "Backend.FailoverStatuses" {
				v.SetInt(451)
			}
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		default:
			require.Fail(t, "Load does not read a "+v.Type().String(), name)
		}
	}
	fill(reflect.ValueOf(&cfg).Elem(), "")
	models := &cfg.Backends[0].Models
	*models = append(*models, spillover.Model{Name: "another"})
	cfg.Fallbacks[0].Model, cfg.Fallbacks[0].To = (*models)[0].Name, []string{"another"}
	// Only one credential can be set.
	key, file := filepath.Join(t.TempDir(), "key"), cfg
	require.NoError(t, os.WriteFile(key, []byte("k"), 0o600))
	cfg.Backends[0].APIKeyFile, cfg.Backends[0].Auth = "", ""
	file.Backends = slices.Clone(cfg.Backends)
	file.Backends[0].APIKey, file.Backends[0].APIKeyFile = "", key
	source := file
	source.Backends = slices.Clone(file.Backends)
	source.Backends[0].APIKeyFile, source.Backends[0].Auth = "", "spillover-test"
	for _, cfg := range []spillover.Config{cfg, file, source} {
		readBack(t, cfg)
	}
}

// readBack loads a configuration from the texts that a file could have.
func readBack(t *testing.T, cfg spillover.Config) {
	for _, text := range texts(t, cfg) {
		read, err := spillover.ParseConfig("f", text, environment)
		require.NoError(t, err, "%s", text)
		require.Equal(t, cfg, read)
	}
}

// texts are a configuration in JSON and in YAML, with all that is not zero.
func texts(t require.TestingT, cfg spillover.Config) [][]byte {
	tree := treeOf(reflect.ValueOf(cfg))
	asJSON, err := json.Marshal(tree)
	require.NoError(t, err)
	asYAML, err := yaml.Marshal(tree)
	require.NoError(t, err)
	return [][]byte{asJSON, asYAML}
}

// treeOf is a value as a file has it.
func treeOf(v reflect.Value) any {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration](), v.Type() == reflect.TypeFor[spillover.FallbackOn]():
		return fmt.Sprint(v)
	case v.Kind() == reflect.Struct:
		m := map[string]any{}
		for _, f := range reflect.VisibleFields(v.Type()) {
			if field := v.FieldByIndex(f.Index); !field.IsZero() && !configfile.OnlyInCode(f.Type) {
				m[configfile.Key(f.Name)] = treeOf(field)
			}
		}
		return m
	case v.Kind() == reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, treeOf(v.Index(i)))
		}
		return list
	}
	return v.Interface()
}

var full = spillover.Config{
	MaxAttempts: 4, MaxWait: 5 * time.Second, DefaultCooldown: 1500 * time.Millisecond, MaxCooldown: 2 * time.Minute, HoldStreams: true,
	Backends: []spillover.Backend{
		{Name: "ptu", URL: "https://ptu.openai.azure.com", Priority: 1, Weight: 2, Dialect: spillover.Azure, APIVersion: "2024-10-21", APIKey: "key-ptu",
			HeaderTimeout: 90 * time.Second, IdleTimeout: 250 * time.Millisecond,
			Models: []spillover.Model{{Name: "gpt-4o", Deployment: "gpt-4o-ptu", RPM: 60, TPM: 100000}, {Name: "gpt-4o-mini"}},
			Defaults: map[string]any{
				"temperature": json.Number("0.70"), "max_completion_tokens": json.Number("4096"), "stop": []any{"\n", "end"}, "store": false, "user": nil,
				"metadata": map[string]any{"team": "7", "since": "2024-10-21", "big": json.Number("123456789012345678901234567890"), "small": json.Number("1e-400")},
			}},
		{URL: "api.openai.com"},
	},
}

var goodFiles = map[string]spillover.Config{
	"full.yaml": full,
	"full.json": full,
	"variables.yaml": {MaxAttempts: 3, MaxWait: 2 * time.Second, DefaultCooldown: time.Minute, HoldStreams: true, Backends: []spillover.Backend{{
		Name: "swedencentral-1", URL: "https://swedencentral.openai.azure.com", APIKey: "sk-from-the-environment", Priority: 3, Weight: 7,
		Models: []spillover.Model{{Name: "${REGION} is $REGION, $$ and $${KEY", RPM: 3}},
		Defaults: map[string]any{"plain": json.Number("3"), "quoted": "3", "none": nil, "empty": "", "structure": "a: [1]\nb: &x *x # {",
			"truth": true, "block": "sk-from-the-environment\n"},
	}}},
	"variables.json": {MaxAttempts: 3, MaxWait: 2 * time.Second, HoldStreams: true, Backends: []spillover.Backend{{
		URL: "swedencentral", APIKey: "sk-from-the-environment", Priority: 3, Defaults: map[string]any{"text": "3", "structure": `", "api_key": "`},
	}}},
	"aliases.yaml": {Backends: []spillover.Backend{
		{Name: "east", URL: "https://east.openai.azure.com", APIKey: "sk-from-the-environment", HeaderTimeout: 30 * time.Second,
			Models: []spillover.Model{{Name: "gpt-4o", TPM: 1000}, {Name: "gpt-4.1", TPM: 1000}}, Defaults: map[string]any{"temperature": json.Number("0")}},
		{Name: "west", URL: "https://west.openai.azure.com", APIKey: "sk-from-the-environment", HeaderTimeout: 30 * time.Second,
			Models: []spillover.Model{{Name: "gpt-4o", TPM: 1000}, {Name: "gpt-4.1", TPM: 1000}}, Defaults: map[string]any{"temperature": json.Number("0")}},
		{Name: "north", URL: "https://north.openai.azure.com", APIKey: "sk-from-the-environment", HeaderTimeout: 30 * time.Second, Weight: 3, Priority: 2,
			Defaults: map[string]any{"temperature": json.Number("0"), "top_p": json.Number("1")}},
	}},
	"cluster.yaml": {Backends: []spillover.Backend{
		{Name: "ptu", URL: "https://ptu.openai.azure.com", Auth: "spillover-test"},
		{Name: "eastus", URL: "https://eastus.openai.azure.com/openai/v1", Dialect: spillover.AzureV1, APIVersion: "preview", APIKeyFile: "testdata/key", Drained: true},
		{Name: "apim", URL: "https://apim.azure-api.net/ai", Headers: map[string]string{"Ocp-Apim-Subscription-Key": "sk-from-the-environment", "X-Team": "7"}},
	}},
	"nulls.yaml":      {Backends: []spillover.Backend{{URL: "h.example"}}},
	"flow.yaml":       {Backends: []spillover.Backend{{URL: "h.example", Models: []spillover.Model{{Name: "m", Deployment: "it's"}}}}},
	"bom.yaml":        {Backends: []spillover.Backend{{URL: "h.example", Name: "bom"}}},
	"surrogates.json": {Backends: []spillover.Backend{{URL: "h.example", Models: []spillover.Model{{Name: "😀 \ufffd😀é"}}}}},
	"json-in.yaml":    {Backends: []spillover.Backend{{URL: "h.example", Models: []spillover.Model{{Name: "😀"}}}}},
}

func TestLoadReadsValidFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/config/good/*")
	require.NoError(t, err)
	require.Len(t, files, len(goodFiles))
	for _, file := range files {
		cfg, err := readSample(t, file)
		require.NoError(t, err, file)
		require.Equal(t, goodFiles[filepath.Base(file)], cfg, file)
		for i := range cfg.Backends {
			if !cfg.Backends[i].HasCredential() {
				entra(&cfg.Backends[i])
			}
		}
		tr, err := spillover.New(cfg)
		require.NoError(t, err, file)
		require.NoError(t, tr.Close())
	}
}

// seedFiles are the files of testdata/config by name.
func seedFiles(t testing.TB) map[string]string {
	files, err := filepath.Glob("testdata/config/*/*")
	require.NoError(t, err)
	seeds := map[string]string{}
	for _, file := range files {
		if filepath.Ext(file) != ".txt" {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			seeds[file] = string(text)
		}
	}
	return seeds
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
		"backends:\n- {url: '${H}', tags: ['${L}', 'x${L}', '${S}', '${S}'], failover_statuses: ['${N}'], models: [{name: '${S}'}, {name: '${L}'}]}\nfallbacks:\n- {model: '${L}', to: ['${S}', '${S}', 'x ${L}']}\n- {model: '${S}', to: ['${L}'], on: '${S}'}\n- {model: '${S}', to: ['${S}'], on: both}\n",
		"model_list: []\nBackends: []\n", "backends:\n- {url: '${H}', auth: '${S}', drained: '${S}'}\n- {url: '${H}', api_key_file: '${S}', headers: {A: '${S} ', B: }}\n- {url: '${H}', auth: spillover-test, api_key_file: testdata/key}\n",
		"a: *b\n", "? - a\n  - b\n: c\n", "a:\n  # x\n\n# y\n  b: 1\n  # z\n", "- # a\n  - b\n# c\n-\n", "a: |-\n  x\n#\n", "{a: [b, {c: d}, ], # e\n}", "a: !!binary x\n", "%TAG ! x\n---\n",
	} {
		f.Add([]byte(s), false)
	}
	lookup := func(name string) (string, bool) {
		value, set := map[string]string{"S": secret, "H": "https://" + secret + ".example", "N": "-7", "D": "-90s", "E": "", "L": strings.Repeat(secret+" ", 20)}[name]
		return value, set
	}
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		name := "f.yaml"
		if isJSON {
			name = "f.json"
		}
		cfg, err := spillover.ParseConfig(name, text, lookup)
		if err != nil {
			require.Equal(t, spillover.Config{}, cfg)
			if !strings.Contains(strings.ToLower(string(text)), "xyzzy") {
				require.NotContains(t, strings.ToLower(err.Error()), "xyzzy")
			}
			for _, e := range loadErrorsOf(err) {
				require.Equal(t, name, e.File)
				require.LessOrEqual(t, e.Line, strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+strings.Count(string(text), "\u2028")+strings.Count(string(text), "\u2029")+strings.Count(string(text), "\u0085")+2)
			}
			return
		}
		for i := range cfg.Backends {
			if !cfg.Backends[i].HasCredential() {
				entra(&cfg.Backends[i])
			}
			_, err := json.Marshal(cfg.Backends[i].Defaults)
			require.NoError(t, err)
		}
		_, err = spillover.New(cfg)
		require.NoError(t, err)
	})
}
