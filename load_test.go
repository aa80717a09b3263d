package spillover

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillover-go/spillover/internal/doctest"

	"github.com/stretchr/testify/require"
)

// environment is what the files of testdata/config find.
func environment(name string) (string, bool) {
	value, set := map[string]string{
		"KEY": "sk-from-the-environment", "REGION": "swedencentral", "THREE": "3", "NEGATIVE": "-7777", "EMPTY": "", "COOLDOWN": "1m",
		"LONG": "1234s", "SHORT": "1233s", "DOTS": "..", "INF": "inf", "WHOLE": "secrets://environment.example:99999",
		"YAML": "a: [1]\nb: &x *x # {", "JSON": `", "api_key": "`,
	}[name]
	return value, set
}

func readConfig(t testing.TB, file string) (Config, error) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return parseConfig(filepath.Base(file), text, environment)
}

var full = Config{
	MaxAttempts: 4, MaxWait: 5 * time.Second, DefaultCooldown: 1500 * time.Millisecond, MaxCooldown: 2 * time.Minute, HoldStreams: true,
	Backends: []Backend{
		{Name: "ptu", URL: "https://ptu.openai.azure.com", Priority: 1, Weight: 2, Dialect: Azure, APIVersion: "2024-10-21", APIKey: "key-ptu",
			HeaderTimeout: 90 * time.Second, IdleTimeout: 250 * time.Millisecond,
			Models: []Model{{Name: "gpt-4o", Deployment: "gpt-4o-ptu", RPM: 60, TPM: 100000}, {Name: "gpt-4o-mini"}},
			Defaults: map[string]any{
				"temperature": json.Number("0.70"), "max_completion_tokens": json.Number("4096"), "stop": []any{"\n", "end"}, "store": false, "user": nil,
				"metadata": map[string]any{"team": "7", "since": "2024-10-21", "big": json.Number("123456789012345678901234567890"), "small": json.Number("1e-400")},
			}},
		{URL: "api.openai.com"},
	},
}

var goodFiles = map[string]Config{
	"full.yaml": full,
	"full.json": full,
	"variables.yaml": {MaxAttempts: 3, MaxWait: 2 * time.Second, DefaultCooldown: time.Minute, HoldStreams: true, Backends: []Backend{{
		Name: "swedencentral-1", URL: "https://swedencentral.openai.azure.com", APIKey: "sk-from-the-environment", Priority: 3, Weight: 7,
		Models: []Model{{Name: "${REGION} is $REGION, $$ and $${KEY", RPM: 3}},
		Defaults: map[string]any{"plain": json.Number("3"), "quoted": "3", "none": nil, "empty": "", "structure": "a: [1]\nb: &x *x # {",
			"truth": true, "block": "sk-from-the-environment\n"},
	}}},
	"variables.json": {MaxAttempts: 3, MaxWait: 2 * time.Second, HoldStreams: true, Backends: []Backend{{
		URL: "swedencentral", APIKey: "sk-from-the-environment", Priority: 3, Defaults: map[string]any{"text": "3", "structure": `", "api_key": "`},
	}}},
	"aliases.yaml": {Backends: []Backend{
		{Name: "east", URL: "https://east.openai.azure.com", APIKey: "sk-from-the-environment", HeaderTimeout: 30 * time.Second,
			Models: []Model{{Name: "gpt-4o", TPM: 1000}, {Name: "gpt-4.1", TPM: 1000}}, Defaults: map[string]any{"temperature": json.Number("0")}},
		{Name: "west", URL: "https://west.openai.azure.com", APIKey: "sk-from-the-environment", HeaderTimeout: 30 * time.Second,
			Models: []Model{{Name: "gpt-4o", TPM: 1000}, {Name: "gpt-4.1", TPM: 1000}}, Defaults: map[string]any{"temperature": json.Number("0")}},
		{Name: "north", URL: "https://north.openai.azure.com", APIKey: "sk-from-the-environment", HeaderTimeout: 30 * time.Second, Weight: 3, Priority: 2,
			Defaults: map[string]any{"temperature": json.Number("0"), "top_p": json.Number("1")}},
	}},
	"nulls.yaml":      {Backends: []Backend{{URL: "h.example"}}},
	"flow.yaml":       {Backends: []Backend{{URL: "h.example", Models: []Model{{Name: "m", Deployment: "it's"}}}}},
	"bom.yaml":        {Backends: []Backend{{URL: "h.example", Name: "bom"}}},
	"surrogates.json": {Backends: []Backend{{URL: "h.example", Models: []Model{{Name: "😀 \ufffd😀é"}}}}},
	"json-in.yaml":    {Backends: []Backend{{URL: "h.example", Models: []Model{{Name: "😀"}}}}},
}

func TestLoadGood(t *testing.T) {
	files, err := filepath.Glob("testdata/config/good/*")
	require.NoError(t, err)
	require.Len(t, files, len(goodFiles))
	for _, file := range files {
		cfg, err := readConfig(t, file)
		require.NoError(t, err, file)
		require.Equal(t, goodFiles[filepath.Base(file)], cfg, file)
		for i := range cfg.Backends {
			if cfg.Backends[i].APIKey == "" {
				entra(&cfg.Backends[i])
			}
		}
		tr, err := New(cfg)
		require.NoError(t, err, file)
		require.NoError(t, tr.Close())
	}
}

// Each bad file has all its mistakes beside it. Those in bad the schema refuses,
// too, as interop/schema_test.go shows.
func TestLoadBad(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*/*")
	require.NoError(t, err)
	for _, file := range files {
		if filepath.Base(filepath.Dir(file)) == "good" || filepath.Ext(file) == ".txt" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := readConfig(t, file)
			require.Error(t, err)
			require.Equal(t, Config{}, cfg)
			if *doctest.Update {
				require.NoError(t, os.WriteFile(file+".txt", []byte(err.Error()+"\n"), 0o644))
			}
			want, e := os.ReadFile(file + ".txt")
			require.NoError(t, e)
			require.Equal(t, string(want), err.Error()+"\n")
			for _, secret := range []string{"literal", "environment", "swedencentral", "7777", "99999", "secrets\""} {
				require.NotContains(t, strings.ReplaceAll(err.Error(), "literal-is-no-name", ""), secret)
			}
			for _, e := range mistakesOf(err) {
				require.Equal(t, filepath.Base(file), e.File)
			}
		})
	}
}

// mistakesOf are the mistakes that an error of Load joins.
func mistakesOf(err error) (all []*LoadError) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, e.(*LoadError))
		}
		return all
	}
	return []*LoadError{err.(*LoadError)}
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
