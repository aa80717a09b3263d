// Azure sends a request to real Azure OpenAI deployments. The first one is the
// provisioned deployment (PTU):
//
//	export AZURE_OPENAI_ENDPOINTS=https://ptu.openai.azure.com,https://payg.openai.azure.com
//	export AZURE_OPENAI_KEYS=key-of-ptu,key-of-payg
//	export AZURE_OPENAI_DEPLOYMENT=gpt-4o
//	go run ./example/azure
//
// A single key is used for all endpoints. AZURE_OPENAI_API_VERSION is optional.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
)

func main() {
	os.Exit(run(os.Getenv, nil, os.Stdout, os.Stderr))
}

// run is main with its environment as arguments. It returns the exit
// status: 2 when the environment is not complete, 1 when there is no answer.
func run(env func(string) string, base http.RoundTripper, stdout, stderr io.Writer) int {
	backends, err := backends(env)
	if err != nil {
		fmt.Fprintln(stderr, "azure:", err)
		return 2
	}
	pool, err := spillover.New(spillover.Config{Backends: backends, Base: base})
	if err != nil {
		fmt.Fprintln(stderr, "azure:", err)
		return 2
	}
	defer pool.Close()

	// Neither key nor host matter: every attempt gets its deployment's own.
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	config.AzureModelMapperFunc = func(model string) string { return model }
	config.HTTPClient = spillover.RetryClient(pool, 2)
	config.APIVersion = "2024-10-21"
	if v := env("AZURE_OPENAI_API_VERSION"); v != "" {
		config.APIVersion = v
	}
	answer, err := openai.NewClientWithConfig(config).CreateChatCompletion(context.Background(), openai.ChatCompletionRequest{
		Model:    env("AZURE_OPENAI_DEPLOYMENT"),
		Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: "In one sentence: what is a spillway?"}},
	})
	if err == nil && len(answer.Choices) == 0 {
		err = errors.New("the response has no choices")
	}
	if err != nil {
		fmt.Fprintln(stderr, "azure:", err)
		return 1
	}
	fmt.Fprintf(stdout, "%s\n\nX-Spillover-Backend: %s\n", answer.Choices[0].Message.Content, answer.Header().Get("X-Spillover-Backend"))
	return 0
}

// backends reads the backends from the environment.
func backends(env func(string) string) ([]spillover.Backend, error) {
	var missing []string
	for _, name := range []string{"AZURE_OPENAI_ENDPOINTS", "AZURE_OPENAI_KEYS", "AZURE_OPENAI_DEPLOYMENT"} {
		if env(name) == "" {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("set %s in the environment; see go doc ./example/azure", strings.Join(missing, ", "))
	}
	endpoints, keys := list(env("AZURE_OPENAI_ENDPOINTS")), list(env("AZURE_OPENAI_KEYS"))
	if len(keys) != 1 && len(keys) != len(endpoints) {
		return nil, fmt.Errorf("AZURE_OPENAI_KEYS has %d keys for %d endpoints; give one, or one for each", len(keys), len(endpoints))
	}
	var backends []spillover.Backend
	for i, url := range endpoints {
		backends = append(backends, spillover.Backend{URL: url, APIKey: keys[i%len(keys)], Priority: min(i+1, 2)})
	}
	return backends, nil
}

// list splits at commas.
func list(s string) []string {
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}
