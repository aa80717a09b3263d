package litellm_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/litellm"
	_ "github.com/spillover-go/spillover/entra"
	"github.com/spillover-go/spillover/internal/doctest"
)

func convert(t testing.TB, text string) (litellm.Result, error) {
	t.Helper()
	return litellm.Convert("litellm.yaml", []byte(text), func(string) ([]byte, error) { return nil, os.ErrNotExist })
}

// converted is the result for a text that can be converted.
func converted(t testing.TB, text string) (yaml, notes string) {
	t.Helper()
	r, err := convert(t, text)
	require.NoError(t, err)
	load(t, r.YAML)
	return string(r.YAML), lines(r.Notes)
}

func lines(notes []litellm.Note) string {
	var b strings.Builder
	for _, n := range notes {
		b.WriteString(n.String() + "\n")
	}
	return b.String()
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// load loads a file with a value for each variable, and makes a transport from it.
func load(t testing.TB, text []byte) spillover.Config {
	t.Helper()
	for _, m := range variable.FindAllStringSubmatch(string(text), -1) {
		switch name := m[1]; {
		case regexp.MustCompile(`(?m)url: .*\$\{` + name + `\}`).Match(text):
			setenv(t, name, "https://"+strings.ToLower(strings.ReplaceAll(name, "_", "-"))+".example")
		case regexp.MustCompile(`(?m)(rpm|tpm|tokens|in_flight|timeout|cooldown|priority): .*\$\{` + name + `\}`).Match(text):
			setenv(t, name, "7")
		default:
			setenv(t, name, "value-of-"+name)
		}
	}
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o644))
	cfg, err := spillover.Load(path)
	require.NoError(t, err, "%s", text)
	lb, err := spillover.New(cfg)
	require.NoError(t, err, "%s", text)
	require.NoError(t, lb.Close())
	return cfg
}

// setenv is t.Setenv, also for fuzzing, which runs in parallel.
func setenv(t testing.TB, name, value string) {
	old, was := os.LookupEnv(name)
	require.NoError(t, os.Setenv(name, value)) //nolint:usetesting // see above
	t.Cleanup(func() {
		if was {
			os.Setenv(name, old) //nolint:usetesting // see above
		} else {
			os.Unsetenv(name)
		}
	})
}

func TestFilesAreConverted(t *testing.T) {
	for _, name := range []string{"azure", "mixed", "include"} {
		t.Run(name, func(t *testing.T) {
			in := filepath.Join("testdata", name+".yaml")
			text, err := os.ReadFile(in)
			require.NoError(t, err)
			r, err := litellm.Convert(in, text, os.ReadFile)
			require.NoError(t, err)
			doctest.File(t, filepath.Join("testdata", name+".out.yaml"), string(r.YAML))
			doctest.File(t, filepath.Join("testdata", name+".notes.txt"), lines(r.Notes))
			require.NotContains(t, string(r.YAML)+lines(r.Notes), "literal")
			require.Equal(t, name != "mixed", r.Complete())
			load(t, r.YAML)
		})
	}
}

// entry is one entry of a model_list with some parameters, as JSON.
func entry(params string) string {
	return `{"model_list": [{"model_name": "m", "litellm_params": ` + params + `}]}`
}

func TestEntriesAreConverted(t *testing.T) {
	for _, c := range []struct{ params, want, note string }{
		{`{"model": "openai/gpt-4o"}`, "url: https://api.openai.com\n    api_key: ${OPENAI_API_KEY}", ""},
		{`{"model": "gpt-4o"}`, "url: https://api.openai.com", ""},
		{`{"model": "x/y", "custom_llm_provider": "openai"}`, "deployment: x/y", ""},
		{`{"model": "azure/d"}`, "url: ${AZURE_API_BASE}\n    dialect: azure\n    api_key: ${AZURE_API_KEY}", ""},
		{`{"model": "azure/d", "api_base": "https://a.openai.azure.com/openai/v1/", "api_key": "os.environ/K"}`, "url: https://a.openai.azure.com\n    dialect: azure-v1\n    api_key: ${K}", ""},
		{`{"model": "azure/d", "api_base": "https://a.openai.azure.com", "api_version": "latest", "api_key": "os.environ/K"}`, "dialect: azure-v1\n    api_key", ""},
		{`{"model": "azure/responses/d", "base_url": "https://a.openai.azure.com", "api_key": "os.environ/K"}`, "deployment: d\n", "model: check: LiteLLM calls the Responses API"},
		{`{"model": "azure/d", "api_base": "https://gw.azure-api.net/team/openai", "api_key": "os.environ/K"}`, "url: https://gw.azure-api.net/team\n    dialect: azure\n", ""},
		{`{"model": "azure_ai/d", "api_base": "https://a.services.ai.azure.com/models", "api_key": "os.environ/K"}`, "url: https://a.services.ai.azure.com\n    dialect: azure-v1\n", "check: spillover uses the paths"},
		{`{"model": "openai/d", "api_base": "https://a.openai.azure.com/openai/v1/", "api_key": "os.environ/K"}`, "url: https://a.openai.azure.com/openai/v1\n    dialect: azure-v1\n", ""},
		{`{"model": "openai/d", "api_base": "https://h/v1/chat/completions", "api_key": "os.environ/K"}`, "url: https://h/v1\n", ""},
		{`{"model": "openai/d", "api_key": ""}`, "api_key: ${OPENAI_API_KEY}", ""},
		{`{"model": "azure/d", "api_key": ""}`, "api_key: ${AZURE_API_KEY}", ""},
		{`{"model": "hosted_vllm/d", "api_base": "http://localhost:8000/v1", "api_key": ""}`, "api_key: ${LOCALHOST_8000_KEY:-none}", ""},
		{`{"model": "hosted_vllm/org/d"}`, "url: ${HOSTED_VLLM_API_BASE}", ""},
		{`{"model": "openai/d", "api_base": "os.environ/B", "api_key": "os.environ/K"}`, "url: ${B}\n    dialect: openai", ""},
		{`{"model": "openai/d", "api_key": "a ${LITERAL} in a key"}`, "api_key: ${OPENAI_KEY}", "set: the value is a secret"},
		{`{"model": "openai/d", "api_key": "os.environ/not a name"}`, "api_key: ${OPENAI_KEY}", "set: the value is a secret"},
		{`{"model": "openai/d${X}"}`, "deployment: d$${X}\n", ""},
		{`{"model": "openai/d", "rpm": "1_000", "tpm": "os.environ/TPM", "timeout": "os.environ/T"}`, "header_timeout: ${T}s\n    models:\n      - name: m\n        deployment: d\n        rpm: 1000\n        tpm: ${TPM}\n", ""},
		{`{"model": "openai/d", "rpm": "many"}`, "", "litellm_params.rpm: left out: is not a whole number"},
		{`{"model": "openai/d", "timeout": {"read": 3}}`, "", "timeout: left out: is not a number of seconds"},
		{`{"model": "openai/d", "order": -1}`, "name: m\n", ""},
		{`{"model": "openai/d", "weight": "heavy"}`, "", "weight: left out: is not a number"},
		{`{"model": "openai/d", "extra_headers": {"api-key": "x"}}`, "", "extra_headers.?: left out: the header cannot be set"},
		{`{"model": "openai/d", "extra_headers": {"X-A": "os.environ/H", "X-B": "b"}}`, "headers:\n      X-A: ${H}\n      X-B: ${OPENAI_HEADER}\n", "extra_headers.?: set: the value is a secret"},
		{`{"model": "openai/d", "temperature": 0.5, "extra_body": {"top_k": 3, "a": [null, true, {"b": "auto"}]}}`, "defaults:\n      a:\n        - null\n        - true\n        - b: auto\n      temperature: 0.5\n      top_k: 3\n", ""},
		{`{"model": "openai/d", "extra_body": {"stream": true}}`, "", "extra_body.stream: left out: spillover cannot add this field"},
		{`{"model": "openai/d", "extra_body": {"data": {"key": "literal"}}}`, "data:\n        key: ${OPENAI_FIELD}\n", "extra_body.?.?: set: the value is a secret"},
		{`{"model": "openai/d", "extra_headers": {"X-A": "Bearer literal", "x-a": "b"}}`, "headers:\n      X-A: ${OPENAI_HEADER}\n", "extra_headers.?: left out: the header is set twice"},
		{`{"model": "openai/d", "extra_headers": {"X-A": ""}}`, "", "extra_headers.?: left out: is empty"},
		{`{"model": "openai/d", "order": 1000000}`, "", "order: left out: is not a whole number between"},
		{`{"model": "openai/d", "extra_body": {"a": .nan}}`, "", "extra_body.?: left out: cannot be a value in JSON"},
		{`{"model": "openai/d", "temperature": 1e-1, "seed": 1_000, "stop": "os.environ/STOP", "reasoning_effort": "high", "logprobs": TRUE}`, "logprobs: true\n      reasoning_effort: high\n      seed: 1000\n      stop: ${STOP}\n      temperature: 0.1\n", ""},
		{`{"model": "openai/d", "user": "literal"}`, "user: ${OPENAI_FIELD}\n", "litellm_params.user: set: the value is a secret"},
		{`{"model": "openai/d", "api_base": "http://localhost:8000/v1", "api_key": "literal"}`, "name: localhost-8000\n    url: http://localhost:8000/v1\n    api_key: ${LOCALHOST_8000_KEY}\n", "set: the value is a secret"},
		{`{"model": "openai/d", "unknown_thing": 1}`, "", "litellm_params.?: left out: an unknown setting"},
		{`{"model": "openai/d", "prompt_id": "x"}`, "", "prompt_id: left out: spillover has no such parameter"},
		{`{"model": "azure/d", "api_base": "https://a.openai.azure.com", "api_version": "literal", "api_key": "os.environ/K"}`, "dialect: azure\n    api_key", "api_version: left out: is not a version of Azure's API"},
		{`{"model": "openai/d", "organization": ["a", "b"]}`, "", "organization: left out: is not one organization"},
		{`{"model": "openai/d", "api_base": "https://h/v1?code=literal", "api_key": "os.environ/K"}`, "url: https://h/v1\n", "api_base: left out: the query of the URL"},
		{`{"model": "openai/d", "litellm_credential_name": "nowhere"}`, "", "left out: credential_list has no such credential"},
	} {
		yaml, notes := converted(t, entry(c.params))
		require.Contains(t, yaml, c.want, c.params)
		require.Contains(t, notes, c.note, c.params)
		require.NotContains(t, yaml+notes, "literal", c.params)
		if c.note == "" {
			require.Empty(t, notes, c.params)
		}
	}
}

func TestEntriesThatCannotBeConverted(t *testing.T) {
	for _, c := range []struct{ params, note string }{
		{`{"model": "anthropic/claude-sonnet-4-5"}`, `litellm_params.model: left out: the provider "anthropic" has another API`},
		{`{"model": "claude-3"}`, "left out: names no provider"},
		{`{"model": "azure/"}`, "left out: names no deployment"},
		{`{"model": "openai/*"}`, "model_name: left out: a pattern"},
		{`{"model": "*"}`, "model: left out: names no provider"},
		{`{}`, "left out: has no litellm_params.model"},
		{`{"model": "custom_openai/x"}`, "left out: has no api_base"},
		{`{"model": "openai/x", "api_base": "https://user:literal@h/v1"}`, "left out: has user info"},
		{`{"model": "openai/x", "api_base": "https://h/v1beta/openai"}`, "left out: the path does not end in /v1"},
		{`{"model": "openai/x", "api_base": "https://:literal"}`, "left out: is not a valid URL"},
		{`{"model": "openai/x", "api_base": "literal"}`, "left out: does not begin with https:// or http://"},
		{`{"model": "literal/x"}`, "left out: the text before / is not a provider that can be converted"},
		{`{"model": "ollama/llama3"}`, "left out: write openai/ instead of ollama/, and add /v1 to api_base"},
		{`{"model": "ollama_chat/llama3"}`, "left out: write openai/ instead of ollama_chat/, and add /v1 to api_base"},
		{`{"model": "os.environ/MODEL"}`, "left out: is a variable: write the model"},
		{`{"model": "azure_ai/command-r", "api_base": "https://x.eastus2.models.ai.azure.com"}`, "left out: only models of Foundry"},
		{`{"model": "openai/.."}`, "left out:"},
	} {
		r, err := convert(t, entry(c.params))
		require.ErrorContains(t, err, "no deployment could be converted", c.params)
		require.Contains(t, lines(r.Notes), c.note, c.params)
		require.NotContains(t, lines(r.Notes), "literal", c.params)
		require.Empty(t, r.YAML)
	}
}

func TestASecondNameOfADeploymentReportsEachSettingThatIsLost(t *testing.T) {
	const text = `
model_list:
  - model_name: quick
    litellm_params: {model: openai/d, api_key: os.environ/K, top_p: 0.5}
  - model_name: thorough
    litellm_params: {model: openai/d, api_key: os.environ/K, reasoning_effort: high, timeout: 90, order: 2, extra_body: {literal: 1}}
  - model_name: same
    litellm_params: {model: openai/d, api_key: os.environ/K, top_p: 0.5}
`
	r, err := convert(t, text)
	require.NoError(t, err)
	require.False(t, r.Complete())
	require.Equal(t, `litellm.yaml:5: model_list[1]: left out: its deployment is also that of an entry before it, and a deployment has one set of `+
		`settings, so those of that entry apply to both: priority, header_timeout, defaults.reasoning_effort, defaults.top_p, defaults.?`+"\n", lines(r.Notes))

	_, notes := converted(t, strings.Replace(text, "reasoning_effort: high, ", "", 1))
	require.NotContains(t, notes, "reasoning_effort")
}

func TestEveryValueOfDropParamsButFalseIsReported(t *testing.T) {
	for value, want := range map[string]string{
		"true": "drop_params: check: requests are passed on unchanged", `["tool_choice"]`: "drop_params: check: requests are passed on unchanged", "false": "", "null": "",
	} {
		_, notes := converted(t, entry(`{"model": "openai/d", "drop_params": `+value+`}`))
		if want == "" {
			require.Empty(t, notes, value)
		}
		require.Contains(t, notes, want, value)
	}
}

func TestTheConfigurationInsideAHelmChartIsPointedOut(t *testing.T) {
	_, err := convert(t, "replicaCount: 1\nproxy_config:\n  model_list:\n    - {model_name: a, litellm_params: {model: openai/a}}\n")
	require.EqualError(t, err, "litellm.yaml:4: the file has no model_list, but proxy_config has one: convert the part below proxy_config as a file of its own")

	_, err = convert(t, "proxy_config: {literal: 1}")
	require.EqualError(t, err, "litellm.yaml: no deployment could be converted")
}

func TestInputsThatCannotBeRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "is empty",
		"- a":               "is not a mapping",
		"a: [":              "line 1",
		"a: *literal":       "litellm.yaml: refers to an unknown anchor",
		"include: [x.yaml]": "litellm.yaml:1: include: the file cannot be read: file does not exist",
		"{}":                "no deployment could be converted",
	} {
		_, err := convert(t, text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "literal", text)
	}
}

func TestFilesThatIncludeThemselves(t *testing.T) {
	const text = "include: [litellm.yaml]"
	_, err := litellm.Convert("litellm.yaml", []byte(text), func(string) ([]byte, error) { return []byte(text), nil })
	require.ErrorContains(t, err, "more than 20 levels deep")
}

func TestSettingsAreConverted(t *testing.T) {
	const model = `"model_list": [{"model_name": "m", "litellm_params": {"model": "openai/d"}}, {"model_name": "p", "litellm_params": {"model": "openai/e"}}, {"model_name": "c", "litellm_params": {"model": "bedrock/c"}}]`
	for _, c := range []struct{ settings, want, note string }{
		{`"router_settings": {"num_retries": 0}`, "max_attempts: 1\n", ""},
		{`"router_settings": {"num_retries": 1}, "litellm_settings": {"num_retries": 7}`, "max_attempts: 2\n", ""},
		{`"litellm_settings": {"cooldown_time": 5}`, "default_cooldown: 5s\nbackends", ""},
		{`"litellm_settings": {"cooldown_time": 0}`, "\nbackends", "cooldown_time: left out"},
		{`"litellm_settings": {"request_timeout": 20}, "router_settings": {"stream_timeout": 3}`, "header_timeout: 20s\n    idle_timeout: 3s\n", ""},
		{`"router_settings": {"routing_strategy": "least-busy"}`, "", "routing_strategy: check: spillover uses the power of two choices"},
		{`"router_settings": {"model_group_alias": {"a": {"model": "m", "hidden": true}}}`, "- name: a\n        deployment: d\n", ""},
		{`"router_settings": {"model_group_alias": {"a": "nothing"}}`, "", `model_group_alias.?: left out: model_list has no such model`},
		{`"router_settings": {"fallbacks": [{"m": ["p"]}], "context_window_fallbacks": [{"p": ["m"]}]}`, "- model: m\n    to: [p]\n    \"on\": exhausted\n", "context_window_fallbacks[0].p: left out: they form a cycle"},
		{`"litellm_settings": {"fallbacks": [{"m": ["c", "p", {"model": "x"}]}]}`, "- model: m\n    to: [p]\n", `fallbacks[0].m[0]: left out: no backend serves "c"`},
		{`"litellm_settings": {"fallbacks": [{"*": ["p"]}]}`, "- model: m\n    to: [p]\n", ""},
		{`"litellm_settings": {"default_fallbacks": ["p"]}`, "- model: m\n    to: [p]\n", ""},
		{`"general_settings": {"master_key": "literal"}`, "", "general_settings.master_key: left out: the keys of callers"},
		{`"environment_variables": {"OPENAI_API_KEY": "literal", "OTHER": "literal"}`, "", "environment_variables.?: set: the value was not copied: set the environment variable OPENAI_API_KEY"},
		{`"guardrails": [1]`, "", "guardrails: left out"},
		{`"anything": 1`, "", "litellm.yaml:1: ?: left out: an unknown setting"},
	} {
		yaml, notes := converted(t, "{"+model+", "+c.settings+"}")
		require.Contains(t, yaml, c.want, c.settings)
		require.Contains(t, notes, c.note, c.settings)
		require.NotContains(t, yaml+notes, "literal", c.settings)
	}
}

// Two deployments of one model at the same resource need two backends, and the same
// deployment under two names must be in one.
func TestDeploymentsOfOneResource(t *testing.T) {
	cfg := func(a, b string) spillover.Config {
		r, err := convert(t, `{"model_list": [`+a+`,`+b+`]}`)
		require.NoError(t, err)
		return load(t, r.YAML)
	}
	e := func(name, deployment, more string) string {
		return `{"model_name": "` + name + `", "litellm_params": {"model": "azure/` + deployment + `", "api_base": "https://a.openai.azure.com", "api_key": "os.environ/K"` + more + `}}`
	}
	require.Len(t, cfg(e("m", "x", ""), e("n", "y", "")).Backends, 1)
	require.Len(t, cfg(e("m", "x", ""), e("m", "y", "")).Backends, 2)
	require.Len(t, cfg(e("m", "x", ""), e("n", "x", `, "timeout": 3`)).Backends[0].Models, 2)
	require.Len(t, cfg(e("m", "x", ""), e("n", "y", `, "timeout": 3`)).Backends, 2)
	tagged := cfg(e("m", "x", `, "tags": ["a"]`), e("m", "x", `, "tags": ["b"]`))
	require.Len(t, tagged.Backends, 1)
	require.Equal(t, []string{"a", "b"}, tagged.Backends[0].Tags)
}

// What a model has beside its parameters.
func TestModelInfo(t *testing.T) {
	yaml, notes := converted(t, `{"model_list": [{"model_name": "m", "tpm": 1000, "litellm_params": {"model": "openai/d"},
		"model_info": {"blocked": true, "access_groups": ["a"], "id": "x", "max_input_tokens": 8000, "input_cost_per_token": 0.1}}]}`)
	require.Contains(t, yaml, "drained: true\n")
	require.Contains(t, yaml, "context_tokens: 8000\n        tpm: 1000\n")
	require.Contains(t, notes, "model_info.access_groups: left out: the keys of spillover serve")
	require.Equal(t, 1, strings.Count(notes, "\n"))
}

func TestAllModelsOfAllProvidersBecomeThoseOfOpenAI(t *testing.T) {
	yaml, notes := converted(t, `{"model_list": [{"model_name": "*", "litellm_params": {"model": "*"}}]}`)
	require.Contains(t, yaml, "- name: openai\n    url: https://api.openai.com\n    api_key: ${OPENAI_API_KEY}\n")
	require.Contains(t, notes, "model_list[0].litellm_params.model: left out: models of other providers")
	require.Contains(t, notes, "model_name: check: the backend takes every model")
	require.Equal(t, 2, strings.Count(notes, "\n"))
}

// LiteLLM adds them to each request, so they take precedence over those of an entry.
func TestDefaultParametersApplyToEachEntry(t *testing.T) {
	yaml, notes := converted(t, `{"model_list": [
		{"model_name": "m", "litellm_params": {"model": "openai/d", "temperature": 1, "seed": 7}},
		{"model_name": "n", "litellm_params": {"model": "azure/e", "api_base": "https://a.openai.azure.com", "api_key": "os.environ/K"}}],
		"router_settings": {"default_litellm_params": {"temperature": 0.2, "user": "literal", "headers": {"X-Team": "literal-2"}, "timeout": 5, "literal-3": 1, "max_tokens": null}}}`)
	require.Contains(t, yaml, "name: openai\n    url: https://api.openai.com\n    api_key: ${OPENAI_API_KEY}\n    headers:\n      X-Team: ${OPENAI_HEADER}\n"+
		"    defaults:\n      seed: 7\n      temperature: 0.2\n      user: ${OPENAI_FIELD}\n")
	require.Contains(t, yaml, "name: a\n    url: https://a.openai.azure.com\n    dialect: azure\n    api_key: ${K}\n    headers:\n      X-Team: ${OPENAI_HEADER}\n"+
		"    defaults:\n      temperature: 0.2\n      user: ${OPENAI_FIELD}\n")
	const at = "litellm.yaml:4: router_settings.default_litellm_params."
	const secret = "set: the value is a secret, so it was not copied: set the environment variable "
	require.Equal(t, at+"timeout: left out: only fields and headers of requests can be defaults\n"+
		at+"?: left out: an unknown setting; its name is not shown, since it may be a secret\n"+
		at+"headers.?: "+secret+"OPENAI_HEADER to it\n"+
		at+"user: "+secret+"OPENAI_FIELD to it\n", notes)
}

func TestModelsThatLiteLLMCallsWithTheResponsesAPI(t *testing.T) {
	_, notes := converted(t, `{"model_list": [{"model_name": "m", "litellm_params": {"model": "openai/d"}, "model_info": {"mode": "responses"}}]}`)
	require.Contains(t, notes, "model_info.mode: check: LiteLLM calls the Responses API")
}

// Entries without an order, and names of variables that are taken.
func TestEntriesBesideOthers(t *testing.T) {
	yaml, notes := converted(t, `{"model_list": [
		{"model_name": "m", "litellm_params": {"model": "openai/d", "api_base": "https://a.example/v1", "api_key": "literal-1", "order": 3}},
		{"model_name": "m", "litellm_params": {"model": "openai/d", "api_base": "https://b.example/v1", "api_key": "os.environ/A_KEY"}},
		{"model_name": "*", "litellm_params": {"model": "azure/*", "api_base": "https://c.openai.azure.com", "api_key": "os.environ/C"}}]}`)
	require.Contains(t, yaml, "api_key: ${A_KEY_2}\n    priority: 3\n")
	require.Contains(t, yaml, "api_key: ${A_KEY}\n    priority: 4\n")
	require.Contains(t, yaml, "api_key: ${C}\n    priority: 5\n")
	require.Contains(t, notes, "model_list[1]: check: has no order")
}

// Backends that are valid alone, and not together.
func TestBackendsThatConflict(t *testing.T) {
	var entries []string
	for i := range 40 {
		body := map[string]int{}
		for j := range 8 {
			body[fmt.Sprintf("field_%d_%d", i, j)] = 1
		}
		text, err := json.Marshal(body)
		require.NoError(t, err)
		entries = append(entries, fmt.Sprintf(`{"model_name": "m%d", "litellm_params": {"model": "openai/d%d", "extra_body": %s}}`, i, i, text))
	}
	yaml, notes := converted(t, `{"model_list": [`+strings.Join(entries, ",")+`]}`)
	require.Contains(t, yaml, "name: openai\n")
	require.Contains(t, notes, "left out: backend openai-40: ")
	require.Contains(t, notes, "different fields")
}

func FuzzConvert(f *testing.F) {
	for _, name := range []string{"azure", "mixed", "include"} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Add(entry(`{"model": "openai/d", "api_key": "s3cr3t-literal"}`))
	f.Add("a: &a {<<: *a}\nmodel_list: [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := convert(t, text)
		if err != nil {
			require.NotContains(t, err.Error(), "the result is not valid")
			return
		}
		_, err = json.Marshal(r.Notes)
		require.NoError(t, err)
		const secret = "s3cr3t-literal"
		if strings.Contains(text, `"api_key": "`+secret+`"`) && strings.Count(text, secret) == 1 {
			require.NotContains(t, string(r.YAML)+lines(r.Notes), secret)
		}
		load(t, r.YAML)
	})
}
