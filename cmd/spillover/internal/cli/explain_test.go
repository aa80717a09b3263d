package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/doctest"
)

const explained = `backends:
  - name: ptu
    url: https://ptu.openai.azure.com
    api_key: key
    tags: [region=eu]
    models: [{name: gpt-4o, deployment: gpt-4o-ptu}]
  - name: eastus
    url: https://eastus.openai.azure.com
    api_key: key
    priority: 2
    tags: [region=us]
    models: [{name: gpt-4o}, {name: text-embedding-3-small}]
  - name: westus
    url: https://westus.openai.azure.com
    api_key: key
    priority: 2
    tags: [region=us]
    drained: true
    models: [{name: gpt-4o}]
`

func TestExplainPrintsCandidates(t *testing.T) {
	path := write(t, "spillover.yaml", explained)
	code, out, errs := run(t, "explain", "-config", path, "-model", "gpt-4o")
	require.Equal(t, 0, code, errs)
	require.Regexp(t, `(?m)^1 +ptu +gpt-4o-ptu +chosen$`, out)
	require.Regexp(t, `(?m)^2 +eastus +gpt-4o +a lower tier$`, out)
	require.Contains(t, out, "The request goes to ptu.\n")

	code, tagged, errs := run(t, "explain", "-config", path, "-model", "gpt-4o", "-tag", "region=us")
	require.Equal(t, 0, code, errs)
	require.Regexp(t, `(?m)^1 +ptu +gpt-4o-ptu +skipped: tags$`, tagged)
	require.Regexp(t, `(?m)^2 +eastus +gpt-4o +chosen$`, tagged)
	require.Regexp(t, `(?m)^2 +westus +gpt-4o +skipped: drained$`, tagged)
	doctest.Section(t, "../../../../docs/cli/explain.md", "output",
		"```console\n$ spillover explain -model gpt-4o -tag region=us\n"+tagged+"```\n")
}

func TestExplainReadsTheRequest(t *testing.T) {
	path := write(t, "spillover.yaml", explained)
	explain := func(args ...string) (trail spillover.Trail) {
		t.Helper()
		code, out, errs := run(t, append([]string{"explain", "-json", "-config", path}, args...)...)
		require.Equal(t, 0, code, errs)
		require.NoError(t, json.Unmarshal([]byte(out), &trail))
		return trail
	}
	require.Equal(t, "ptu", explain("-model", "gpt-4o", "-dialect", "azure").Backend)
	require.Equal(t, "ptu", explain("-model", "gpt-4o", "-dialect", "azure-v1").Backend)
	require.Equal(t, "eastus", explain("-model", "text-embedding-3-small", "-path", "/v1/embeddings").Backend)
	require.Equal(t, "background", explain("-model", "gpt-4o", "-class", "background").Class)
	require.True(t, explain("-model", "gpt-4o", "-session", "a").Session)
	require.Equal(t, "gpt-4o", explain("-model", "gpt-4o", "-path", "/v1/completions").Model)

	body := `{"model":"gpt-4o","max_tokens":1000,"messages":[{"role":"user","content":"` + strings.Repeat("word ", 1000) + `"}]}`
	require.Greater(t, explain("-in", write(t, "request.json", body)).Tokens, int64(2000))
	require.Empty(t, explain("-path", "/v1/models", "-method", "get").Model)
}

func TestExplainOfARequestThatNoDeploymentTakes(t *testing.T) {
	path := write(t, "spillover.yaml", explained)
	for _, args := range [][]string{{"-model", "unknown"}, {"-model", "gpt-4o", "-tag", "region=mars"}} {
		code, out, _ := run(t, append([]string{"explain", "-config", path}, args...)...)
		require.Equal(t, 1, code, args)
		require.Contains(t, out, "No deployment takes the request", args)
	}
}

func TestExplainOfWrongCommandLines(t *testing.T) {
	path := write(t, "spillover.yaml", explained)
	for want, args := range map[string][]string{
		"-model or -in is required":    {},
		"is not openai, azure":         {"-model", "m", "-dialect", "x"},
		"does not begin with /":        {"-path", "v1"},
		"neither interactive nor":      {"-model", "m", "-class", "x"},
		"cannot be combined":           {"-model", "m", "-in", path},
		"no such file":                 {"-in", path + "x"},
		"model is required":            {"-in", path, "-dialect", "azure"},
		`unexpected argument "gpt-4o"`: {"gpt-4o"},
		"invalid method":               {"-model", "m", "-method", "A B"},
	} {
		code, _, errs := run(t, append([]string{"explain", "-config", path}, args...)...)
		require.Equal(t, 2, code, args)
		require.Contains(t, errs, want, args)
	}
}
