package spillover_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// What is shown in the documents can be loaded.
func TestConfigExamples(t *testing.T) {
	lookup := func(name string) (string, bool) { return "key-of-" + name, strings.HasSuffix(name, "_KEY") }
	var all []spillover.Config
	for _, file := range []string{"docs/spillover.yaml", "docs/spillover.json"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		cfg, err := spillover.ParseConfig(filepath.Base(file), text, lookup)
		require.NoError(t, err)
		require.NoError(t, configured(t, cfg).Close())
		all = append(all, cfg)
	}
	require.Equal(t, all[0], all[1])
	require.Equal(t, 3, all[0].Backends[3].Priority)

	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := strings.Split(string(readme), "```yaml\n")[1:]
	require.Len(t, blocks, 1)
	text, _, _ := strings.Cut(blocks[0], "```")
	cfg, err := spillover.ParseConfig("README.md", []byte(text), lookup)
	require.NoError(t, err)
	require.NoError(t, configured(t, cfg).Close())
}

// The mistakes that docs/configuration.md shows are those of such a file.
func TestConfigMistakesInDocs(t *testing.T) {
	page, err := os.ReadFile("docs/configuration.md")
	require.NoError(t, err)
	const file = `max_wait: 5s

backends:
  # What is paid for anyway goes first.
  - name: ptu
    url: https://ptu.openai.azure.com
    api_key: ${PTU_KEY}
    weight: 1
    priority: first
  - name: eastus
    url: https://eastus.openai.azure.com
    apikey: ${EASTUS_KEY}


  - name: westus

    url: https://westus.openai.azure.com

    api_key: ${WESTUS_KEY}
`
	_, err = spillover.ParseConfig("spillover.yaml", []byte(file), func(name string) (string, bool) { return "key", name == "PTU_KEY" })
	require.Contains(t, string(page), "```\n"+err.Error()+"\n```")
}

// Every configuration that the documents show can be loaded and used.
func TestConfigBlocks(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	shown, key := 0, testnet.WriteFile(t, "key", "the-key")
	for _, path := range append(documents, "README.md", "CHANGELOG.md") {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, language := range []string{"yaml", "json"} {
			for _, block := range strings.Split(string(text), "```"+language+"\n")[1:] {
				block, _, _ := strings.Cut(block, "```")
				if !strings.Contains(block, "backends") {
					continue
				}
				shown++
				// Neither the module entra nor the files with keys are here.
				block = strings.ReplaceAll(block, "auth: entra", "auth: spillover-test")
				block = regexp.MustCompile(`api_key_file: \S+`).ReplaceAllString(block, "api_key_file: "+key)
				cfg, err := spillover.ParseConfig(path, []byte(block), func(name string) (string, bool) { return "key-of-" + name, true })
				require.NoError(t, err, block)
				for i := range cfg.Backends {
					if b := &cfg.Backends[i]; !b.HasCredential() {
						b.Token = func(context.Context) (string, error) { return "", nil } // the program's to set
					}
				}
				configured(t, cfg)
			}
		}
	}
	require.NotZero(t, shown)
}
