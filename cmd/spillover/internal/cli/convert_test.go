package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
	"github.com/spillover-go/spillover/internal/doctest"
)

const litellmFile = `model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-ptu
      api_base: https://ptu.openai.azure.com
      api_key: os.environ/PTU_KEY
      order: 1
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o
      api_base: https://eastus.openai.azure.com
      api_key: 5f0c-a-key-in-the-file
      order: 2
      tpm: 450000
  - model_name: claude
    litellm_params:
      model: bedrock/anthropic.claude-sonnet-4-5
router_settings:
  num_retries: 2
`

func TestConvertPrintsAConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("litellm.yaml", []byte(litellmFile), 0o600))
	code, out, errs := run(t, "convert", "litellm.yaml")
	require.Equal(t, 1, code)
	require.NotContains(t, out+errs, "a-key-in-the-file")
	require.Contains(t, errs, "litellm.yaml:17: model_list[2].litellm_params.model: left out: the provider")
	require.Contains(t, errs, "set the environment variable EASTUS_KEY")
	require.NoError(t, os.WriteFile("spillover.yaml", []byte(out), 0o600))
	t.Setenv("PTU_KEY", "a")
	t.Setenv("EASTUS_KEY", "b")
	code, checked, errs2 := run(t, "check", "-offline")
	require.Equal(t, 0, code, errs2)
	require.Equal(t, "spillover.yaml is valid: 2 backends in 2 tiers\n", checked)

	page := filepath.Join(packageDir, "../../../../docs/cli/convert.md")
	doctest.Section(t, page, "input", "```yaml\n"+litellmFile+"```\n")
	doctest.Section(t, page, "output", "```console\n$ spillover convert litellm.yaml > spillover.yaml\n"+errs+"$ cat spillover.yaml\n"+out+"```\n")
}

// packageDir is the directory of this package, for tests that change theirs.
var packageDir, _ = os.Getwd()

func TestConvertWritesAFileOnce(t *testing.T) {
	in := write(t, "litellm.yaml", "model_list: [{model_name: m, litellm_params: {model: gpt-4o}}]")
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	code, out, errs := run(t, "convert", "-out", path, in)
	require.Equal(t, 0, code, errs)
	require.Empty(t, out)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), "api_key: ${OPENAI_API_KEY}")
	code, _, errs = run(t, "convert", "-out", path, in)
	require.Equal(t, 2, code)
	require.Contains(t, errs, "spillover: -out: "+path+" exists, and is not replaced\n")
}

func TestConvertReadsStandardInput(t *testing.T) {
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), []string{"spillover", "convert", "-"}, cli.Streams{In: strings.NewReader("model_list: []"), Out: &out, Err: &errs})
	require.Equal(t, 2, code)
	require.Equal(t, "spillover: standard input: no deployment could be converted\n", errs.String())
}

func TestConvertOfWrongInputs(t *testing.T) {
	for want, args := range map[string][]string{
		"name one file to convert, or - for standard input": {},
		"no such file":           {filepath.Join(t.TempDir(), "x")},
		"is larger than 1 MiB":   {write(t, "large.yaml", strings.Repeat("#", 1<<20+1))},
		"line 2":                 {write(t, "wrong.yaml", "a: 1\n  b: [")},
		"no deployment could be": {write(t, "empty.yaml", "model_list: []")},
	} {
		code, out, errs := run(t, append([]string{"convert"}, args...)...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out, args)
		require.Contains(t, errs, want, args)
	}
}
