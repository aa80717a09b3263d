package interop

import (
	"net/http"
	"os"
	"strings"
	"testing"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// The README's programs, so that they compile. The names of the packages are
// the README's.

func readmeGoOpenAI(key1, key2, key3 string) (any, error) {
	var openai goOpenAI
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://ptu.openai.azure.com", APIKey: key1, Priority: 1},
		{URL: "https://eastus.openai.azure.com", APIKey: key2, Priority: 2},
		{URL: "https://westus.openai.azure.com", APIKey: key3, Priority: 2},
	}})
	// err tells every mistake at once
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	config.HTTPClient = spillover.RetryClient(lb, 2) // go-openai never retries; or &http.Client{Transport: lb}
	client := openai.NewClientWithConfig(config)
	return client, err
}

func readmeOpenAIGo(key1, key2, key3 string) (any, error) {
	var openai openaiGo
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://ptu.openai.azure.com", APIKey: key1, Dialect: spillover.AzureV1},
		{URL: "https://eastus.openai.azure.com", APIKey: key2, Dialect: spillover.AzureV1, Priority: 2},
		{URL: "https://api.openai.com", APIKey: key3, Priority: 3},
	}})
	// err tells every mistake at once
	client := openai.NewClient(
		option.WithAPIKey("unused"),
		option.WithHTTPClient(&http.Client{Transport: lb}),
	)
	return client, err
}

type goOpenAI struct{}

func (goOpenAI) DefaultAzureConfig(key, url string) goopenai.ClientConfig {
	return goopenai.DefaultAzureConfig(key, url)
}
func (goOpenAI) NewClientWithConfig(c goopenai.ClientConfig) *goopenai.Client {
	return goopenai.NewClientWithConfig(c)
}

type openaiGo struct{}

func (openaiGo) NewClient(opts ...option.RequestOption) openaigo.Client {
	return openaigo.NewClient(opts...)
}

func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("readme_test.go")
	require.NoError(t, err)
	flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	blocks := strings.Split(string(readme), "```go\n")[1:]
	require.Len(t, blocks, 2)
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		require.Contains(t, flat(string(source)), flat(code))
	}
	for _, program := range []func(a, b, c string) (any, error){readmeGoOpenAI, readmeOpenAIGo} {
		client, err := program("k1", "k2", "k3")
		require.NoError(t, err)
		require.NotNil(t, client)
	}
}
