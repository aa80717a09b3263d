// Azure sends one chat to your own Azure OpenAI deployments and prints the
// answer and which of them gave it. To run it, set three environment variables:
//
//	export AZURE_OPENAI_ENDPOINTS=https://ptu.openai.azure.com,https://payg.openai.azure.com
//	export AZURE_OPENAI_KEYS=key-of-ptu,key-of-payg
//	export AZURE_OPENAI_DEPLOYMENT=gpt-4o
//	go run ./example/azure
//
// The first endpoint is used first, for example a provisioned deployment (PTU).
// The others are its fallback. The deployment must have the same name at each
// endpoint. A single key is used for all endpoints. AZURE_OPENAI_API_VERSION is
// optional.
//
// Deployments that fail are logged to standard error. The exit status is 2 if a
// variable is missing or wrong, and 1 if no deployment has answered.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
)

func main() {
	os.Exit(run(os.Getenv, nil, os.Stdout, os.Stderr))
}

// timeout is for the whole request, with all its attempts.
const timeout = time.Minute

// run is main without global state. It returns the exit status.
func run(env func(string) string, base http.RoundTripper, stdout, stderr io.Writer) int {
	backends, err := backends(env)
	if err != nil {
		fmt.Fprintln(stderr, "azure:", err)
		return 2
	}
	pool, err := spillover.New(spillover.Config{
		Backends: backends,
		Base:     base, // nil except in tests
		Logger:   slog.New(slog.NewTextHandler(stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(stderr, "azure:", err)
		return 2
	}
	defer pool.Close()

	// The key and the host are placeholders: each attempt gets those of its backend.
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	// By default go-openai changes the names of some models, such as gpt-3.5-turbo.
	config.AzureModelMapperFunc = func(model string) string { return model }
	config.HTTPClient = spillover.RetryClient(pool, 2) // go-openai never retries
	config.APIVersion = "2024-10-21"
	if v := env("AZURE_OPENAI_API_VERSION"); v != "" {
		config.APIVersion = v
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	answer, err := openai.NewClientWithConfig(config).CreateChatCompletion(ctx, openai.ChatCompletionRequest{
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
		return nil, fmt.Errorf("set %s in the environment; see: go doc ./example/azure", strings.Join(missing, ", "))
	}
	endpoints, keys := list(env("AZURE_OPENAI_ENDPOINTS")), list(env("AZURE_OPENAI_KEYS"))
	if len(keys) != 1 && len(keys) != len(endpoints) {
		return nil, fmt.Errorf("AZURE_OPENAI_KEYS has %d keys for %d endpoints; give one, or one for each", len(keys), len(endpoints))
	}
	if i := slices.Index(keys, ""); i >= 0 {
		return nil, fmt.Errorf("AZURE_OPENAI_KEYS: key %d is empty", i+1)
	}
	var backends []spillover.Backend
	for i, url := range endpoints {
		backends = append(backends, spillover.Backend{URL: url, APIKey: keys[i%len(keys)], Priority: min(i+1, 2)})
	}
	return backends, nil
}

// list splits a list at its commas.
func list(s string) []string {
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}
