package configfile_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/stretchr/testify/require"
)

func TestDecodeReadsEveryType(t *testing.T) {
	want := config{
		Title: "a title", Mode: "fast", MaxRetries: -4, Small: 127, Timeout: 90 * time.Second, DryRun: true,
		Labels: map[string]string{"a": "1", "b": ""},
		Extra:  map[string]any{"number": json.Number("0.70"), "big": json.Number("123456789012345678901234567890"), "text": "7", "list": []any{"x", nil, true}, "nested": map[string]any{"since": "2024-10-21"}},
		Tags:   []string{"one", "two"}, Limits: limits{MaxOpen: 5},
		Servers: []server{{Name: "east", URL: "h", APIKey: "k", Weight: 2, Timeout: 250 * time.Millisecond, Extra: map[string]any{}, Ports: []port{{"http", 80}, {"https", 443}}}, {}},
	}
	for name, text := range map[string]string{
		"c.yaml": `
$schema: anything
title: a title
mode: fast
max_retries: -4
small: 127
timeout: 1m30s
dry_run: True
labels: {a: "1", b: ""}
extra:
  number: 0.70
  big: 123456789012345678901234567890
  text: "7"
  list: [x, ~, true]
  nested: {since: 2024-10-21}
tags: [one, two]
limits: {max_open: 5, max_idle: }
servers:
- {name: east, url: h, api_key: k, weight: 2, timeout: 250ms, extra: {}, ports: [{name: http, number: 80}, {name: https, number: 443}]}
- {}
`,
		"c.json": `{"$schema": 1, "title": "a title", "mode": "fast", "max_retries": -4, "small": 127, "timeout": "1m30s", "dry_run": true,
			"labels": {"a": "1", "b": ""},
			"extra": {"number": 0.70, "big": 123456789012345678901234567890, "text": "7", "list": ["x", null, true], "nested": {"since": "2024-10-21"}},
			"tags": ["one", "two"], "limits": {"max_open": 5, "max_idle": null},
			"servers": [{"name": "east", "url": "h", "api_key": "k", "weight": 2, "timeout": "250ms", "extra": {}, "ports": [{"name": "http", "number": 80}, {"name": "https", "number": 443}]}, {}]}`,
	} {
		cfg, problems := decode(name, text)
		require.Empty(t, problems, name)
		require.Equal(t, want, cfg, name)
	}
}

func TestNullLeavesAFieldAlone(t *testing.T) {
	cfg := config{Title: "before", Tags: []string{"before"}}
	_, problems := configfile.Decode("c", []byte("title:\ntags: ~\n"), &cfg, environment, nil)
	require.Empty(t, problems)
	require.Equal(t, config{Title: "before", Tags: []string{"before"}}, cfg)
}

// A JSON text is JSON whatever the name, and a surrogate pair is one character.
func TestJSONIsRecognizedByItsText(t *testing.T) {
	for _, name := range []string{"c.json", "c.yaml", "c"} {
		cfg, problems := decode(name, "\ufeff{\"title\": \"\\ud83d\\ude00 \\ud83d \\u00e9\"}")
		require.Empty(t, problems, name)
		require.Equal(t, "😀 \ufffd é", cfg.Title, name)
	}
	_, problems := decode("c.JSON", "title: x")
	require.Equal(t, []string{"1:2: is not valid JSON: invalid character 'i' in literal true (expecting 'r')"}, problems)
}

func TestVariablesAreReplacedAfterParsing(t *testing.T) {
	cfg, problems := decode("c.yaml", `
title: "${HOST} is $HOST, $$ and $${KEY"
mode: ${YAML}
max_retries: "${THREE}"
timeout: ${MINUTE}
dry_run: ${NOTHING:-true}
labels: {a: "${THREE}"}
extra: {plain: "3", quoted: "${THREE}", structure: '${YAML}'}
servers:
- name: ${HOST}-1
  weight: ${EMPTY:-7}
  extra:
    plain: ${THREE}
    none: ${EMPTY}
    quoted: "${THREE}"
    truth: ${NOTHING:-true}
`)
	require.Empty(t, problems)
	require.Equal(t, config{
		Title: "host.example is $HOST, $$ and ${KEY", Mode: "a: [1]\nb: &x *x # {", MaxRetries: 3, Timeout: time.Minute, DryRun: true,
		Labels: map[string]string{"a": "3"}, Extra: map[string]any{"plain": "3", "quoted": "3", "structure": "a: [1]\nb: &x *x # {"},
		Servers: []server{{Name: "host.example-1", Weight: 7, Extra: map[string]any{"plain": json.Number("3"), "none": nil, "quoted": "3", "truth": true}}},
	}, cfg)
	cfg, problems = decode("c.json", `{"title": "${JSON}", "max_retries": "${THREE}"}`)
	require.Empty(t, problems)
	require.Equal(t, config{Title: `", "title": "`, MaxRetries: 3}, cfg)
}

func TestAliasesAndMergeKeys(t *testing.T) {
	cfg, problems := decode("c.yaml", `
extra: {shared: &ports [{name: http, number: 80}]}
servers:
- &east {name: east, url: h, ports: *ports, timeout: 30s}
- &slow {timeout: 60s, weight: 3}
- <<: *east
  name: west
- <<: [*slow, *east]
  name: north
  "<<": fine
`)
	require.Equal(t, []string{`10:3: servers["north"]: unknown key "<<"`}, problems)
	ports := []port{{"http", 80}}
	require.Equal(t, []server{
		{Name: "east", URL: "h", Ports: ports, Timeout: 30 * time.Second}, {Weight: 3, Timeout: time.Minute},
		{Name: "west", URL: "h", Ports: ports, Timeout: 30 * time.Second}, {Name: "north", URL: "h", Ports: ports, Weight: 3, Timeout: time.Minute},
	}, cfg.Servers)
}

func TestProblems(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                   {"1:1: is empty"},
		"\n \n":                              {"1:1: is empty"},
		"# a comment\n":                      {"1:1: is empty"},
		"null":                               {"1:1: is empty"},
		"text":                               {"1:1: must be a mapping; this is text"},
		"[]":                                 {"1:1: must be a mapping; this is a list"},
		"title: a\ntitle: b\n":               {`2:1: duplicate key "title", first in line 1`},
		"titel: a":                           {`1:1: unknown key "titel"; did you mean "title"?`},
		"maxRetries: 1":                      {`1:1: unknown key "maxRetries"; did you mean "max_retries"?`},
		"zzz: 1":                             {`1:1: unknown key "zzz"`},
		"hidden: 1":                          {`1:1: unknown key "hidden"`},
		"hook: x":                            {`1:1: "hook" cannot be set in a file: set config.Hook in the program`},
		"output: ":                           {`1:1: "output" cannot be set in a file: set config.Output in the program`},
		"parent: {}":                         {`1:1: "parent" cannot be set in a file: set config.Parent in the program`},
		"servers: [new_token: x]":            {`1:11: servers[0]: "new_token" cannot be set in a file: set server.NewToken in the program`},
		"servers: [$schema: x]":              {`1:11: servers[0]: unknown key "$schema"`},
		"title: 1":                           {"1:8: title: must be text, in quotes if it looks like something else; this is a number"},
		"title: []":                          {"1:8: title: must be text, in quotes if it looks like something else; this is a list"},
		"title: !x y":                        {"1:8: title: must be text, in quotes if it looks like something else; this is of an unsupported type"},
		"max_retries: 1e3":                   {"1:14: max_retries: must be a whole number in plain digits, not 1e3"},
		"max_retries: 0x1":                   {"1:14: max_retries: must be a whole number in plain digits, not 0x1"},
		"max_retries: \"1\"":                 {"1:14: max_retries: must be a whole number in plain digits; this is text"},
		"max_retries: !!int \"1\"":           nil,
		"max_retries: !!int x":               {"1:14: max_retries: must be a whole number in plain digits; this is of an unsupported type"},
		"max_retries: 99999999999999999999":  {"1:14: max_retries: is out of range"},
		"small: 128":                         {"1:8: small: is out of range"},
		"timeout: 30":                        {"1:10: timeout: must be a duration with its unit, such as 30s, 1m30s or 250ms, not 30"},
		"timeout: 1d":                        {"1:10: timeout: must be a duration with its unit, such as 30s, 1m30s or 250ms; this is text"},
		"timeout: !duration 1s":              {"1:10: timeout: must be a duration with its unit, such as 30s, 1m30s or 250ms; this is of an unsupported type"},
		"dry_run: yes":                       {"1:10: dry_run: must be true or false; this is text"},
		"labels: x":                          {"1:9: labels: must be a mapping; this is text"},
		"labels: {a: }":                      {"1:13: labels.a: must be text, in quotes if it looks like something else; this is empty"},
		"labels: {a: 1}":                     {"1:13: labels.a: must be text, in quotes if it looks like something else; this is a number"},
		"extra: []":                          {"1:8: extra: must be a mapping; this is a list"},
		"extra: {a: .inf}":                   {"1:12: extra.a: must be a value that JSON has: a number in plain digits, true, false, null, or text in quotes; this is a number"},
		"extra: {a: [!x y]}":                 {"1:13: extra.a[0]: must be a value that JSON has: a number in plain digits, true, false, null, or text in quotes; this is of an unsupported type"},
		"extra: {1: x, ? {a: b} : z}":        {"1:9: extra: must be text, because it is a key; this is a number", "1:17: extra: must be text, because it is a key; this is a mapping"},
		"tags: [a, ]":                        nil,
		"tags: [a, ~, 3]":                    {"1:11: tags[1]: must be text, in quotes if it looks like something else; this is empty", "1:14: tags[2]: must be text, in quotes if it looks like something else; this is a number"},
		"limits: [max_open]":                 {"1:9: limits: must be a mapping; this is a list"},
		"limits: {max_open: x}":              {"1:20: limits.max_open: must be a whole number in plain digits; this is text"},
		"servers: {}":                        {"1:10: servers: must be a list; this is a mapping"},
		"servers: [~, 3]":                    {"1:11: servers[0]: must be a mapping; this is empty", "1:14: servers[1]: must be a mapping; this is a number"},
		"servers: [{weight: x, name: east}]": {`1:20: servers["east"].weight: must be a whole number in plain digits; this is text`},
		"servers: [{weight: x, name: 1}]":    {"1:20: servers[0].weight: must be a whole number in plain digits; this is text", "1:29: servers[0].name: must be text, in quotes if it looks like something else; this is a number"},
		"servers: [{name: '${HOST}', weight: x}]":                   {"1:37: servers[0].weight: must be a whole number in plain digits; this is text"},
		"servers: [{name: a, ports: [{name: b, number: x}]}]":       {`1:47: servers["a"].ports[0].number: must be a whole number in plain digits; this is text`},
		"servers: [{<<: 3}, {<<: [x]}]":                             {"1:16: servers[0]: must be a mapping or a list of mappings, for << to merge; this is a number", "1:26: servers[1]: must be a mapping or a list of mappings, for << to merge; this is text"},
		"max_retries: ${HOST}":                                      {"1:14: max_retries: must be a whole number in plain digits; this is text, from ${HOST}"},
		"timeout: ${THREE}${HOST:-x}":                               {"1:10: timeout: must be a duration with its unit, such as 30s, 1m30s or 250ms; this is text, from ${THREE} and ${HOST}"},
		"dry_run: ${EMPTY}":                                         {"1:10: dry_run: must be true or false; this is empty, from ${EMPTY}"},
		"extra: {a: 1, b: \"0\"}\ntitle: ${NOTHING}${ALSO_NOTHING}": {"2:8: title: the variable NOTHING is not set", "2:8: title: the variable ALSO_NOTHING is not set"},
		"title: x${HOST":                                            {"1:8: title: has a ${ without }; write $${ for ${ itself"},
		"title: ${3}${}":                                            {"1:8: title: has a ${…} that is neither ${NAME} nor ${NAME:-default}; write $${ for ${ itself", "1:8: title: has a ${…} that is neither ${NAME} nor ${NAME:-default}; write $${ for ${ itself"},
		"title: ${NOTHING:-${THREE}}":                               {"1:8: title: the default of ${NOTHING} contains a variable"},
		"extra:\n  a: 0x${THREE}\n  b: .${INF}\n  c: ${NOTHING}": {
			"2:6: extra.a: must be a value that JSON has: a number in plain digits, true, false, null, or text in quotes; this is a number, from ${THREE}",
			"3:6: extra.b: must be a value that JSON has: a number in plain digits, true, false, null, or text in quotes; this is a number, from ${INF}",
			"4:6: extra.c: the variable NOTHING is not set",
		},
		`{"titel": 1, "servers": [{"name": "é", "weihgt": 2}]}`: {`1:2: unknown key "titel"; did you mean "title"?`, `1:40: servers["é"]: unknown key "weihgt"; did you mean "weight"?`},
	} {
		_, got := decode("c.yaml", text)
		require.Equal(t, want, got, text)
	}
}

// Each file of testdata cannot be parsed, as the file beside it says.
func TestUnparsableFiles(t *testing.T) {
	for name, text := range seedFiles(t) {
		_, got := decode(name, text)
		require.Len(t, got, 1, name)
		doctest.File(t, filepath.Join("testdata", name+".txt"), got[0]+"\n")
		require.NotContains(t, got[0], "literal", "a key of the file")
	}
}

// A small file cannot make the decoder read or keep much.
func TestSmallFilesStaySmall(t *testing.T) {
	t.Parallel()
	aliases := "extra: {a: &a [1,1,1,1,1,1,1,1,1]"
	for c := 'b'; c <= 'i'; c++ {
		aliases += fmt.Sprintf(", %[1]c: &%[1]c [%s]", c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	merges := "servers:\n- &a {url: h.example}\n- &b {<<: [" + strings.TrimSuffix(strings.Repeat("*a,", 500), ",") + "]}\n" +
		"- {<<: [" + strings.TrimSuffix(strings.Repeat("*b,", 1000), ",") + "]}\n"
	list := `{"extra":{"a":[` + strings.Repeat("0,", configfile.MaxValues) + `0]},"title":"x"}`
	const tooMuch = "is too much: at most 100000 values are read, including those of aliases"
	for _, c := range []struct {
		name, text string
		problems   int
		want       string
	}{
		{"aliases", aliases + "}", 1, tooMuch},
		{"merges", merges, 1, tooMuch},
		{"list", list, 1, tooMuch},
		{"elements", "tags: [" + strings.Repeat("a,", configfile.MaxValues+1) + "]", 1, tooMuch},
		{"deep", "extra: {a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", 1, "is nested more than 100 levels deep, or contains itself"},
		{"containing itself", "extra: &a {b: *a}", 1, "is nested more than 100 levels deep, or contains itself"},
		{"merging itself", "servers: [&a {<<: *a}]", 1, "is nested more than 100 levels deep, or contains itself"},
		{"too deep for the parser", strings.Repeat("[", 20_000), 1, "exceeded max depth"},
		{"deep JSON", `{"servers":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + "}", 1, "must be a mapping; this is a list"},
		{"variables", "title: \"" + strings.Repeat("${BIG}", 100) + "\"", 1, "the values of variables make the file too large"},
		{"names", "servers: [{name: " + strings.Repeat("n", 200) + ", " + strings.Repeat("k", 200) + ": 1, url: \"${" + strings.Repeat("N", 200) + "}\"}]", 2,
			`servers["` + strings.Repeat("n", 64) + `…"].url: the variable ` + strings.Repeat("N", 64) + "… is not set"},
	} {
		var cfg config
		source, problems := configfile.Decode("f.yaml", []byte(c.text), &cfg, func(name string) (string, bool) { return strings.Repeat("v", 100_000), name == "BIG" }, nil)
		require.Len(t, problems, c.problems, c.name)
		require.Contains(t, lines(problems)[c.problems-1], c.want, c.name)
		require.Equal(t, strings.Contains(c.want, "too much") || strings.Contains(c.want, "max depth"), source == nil, c.name)
	}
}

func TestUnsupportedTypePanics(t *testing.T) {
	var unsupported struct{ Ratio float64 }
	require.PanicsWithValue(t, "configfile: cannot decode into a float64", func() {
		configfile.Decode("c", []byte("ratio: 1"), &unsupported, environment, nil)
	})
}

func FuzzDecode(f *testing.F) {
	const secret = "XyZZy-Secret"
	for name, text := range seedFiles(f) {
		f.Add([]byte(text), strings.HasSuffix(name, ".json"))
	}
	for _, s := range []string{
		"title: ${S}\nmode: ${S}\nmax_retries: ${N}\nsmall: ${S}\ntimeout: ${D}\ndry_run: ${S}\nlabels: {a: '${S}'}\nextra: {a: !x '${S}', b: '0x${S}'}\ntags: ['${S}']\nlimits: '${S}'\n",
		"servers:\n- &a {name: '${S}', url: '${H}', weight: '${S}', ports: [{name: '${S}', number: '${S}'}]}\n- <<: *a\n  name: ${E}\n",
		`{"title": "${S}", "max_retries": "${S}", "extra": {"a": 1e400, "b": ["${S}"]}}`,
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
		var cfg config
		_, problems := configfile.Decode(name, text, &cfg, lookup, nil)
		newlines := 0
		for _, s := range []string{"\n", "\r", "\u2028", "\u2029", "\u0085"} {
			newlines += strings.Count(string(text), s)
		}
		for _, p := range problems {
			require.LessOrEqual(t, p.Line, newlines+2)
			if !strings.Contains(strings.ToLower(string(text)), "xyzzy") {
				require.NotContains(t, strings.ToLower(p.Path+p.Err.Error()), "xyzzy")
			}
		}
		if len(problems) == 0 {
			_, err := json.Marshal(cfg.Extra)
			require.NoError(t, err)
		}
	})
}
