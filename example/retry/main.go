// Retry shows how RetryClient adds retries to an SDK that has none, go-openai,
// while every deployment is rate-limited:
//
//	go run ./example/retry
//
// The deployments are simulated in memory. Each refuses one request; the
// transport then generates a 429 with the time until the first of them is
// available again, and RetryClient waits for that time and a little more.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "retry:", err)
		os.Exit(1)
	}
}

func run(w io.Writer) error {
	east := spillovertest.New(spillovertest.Config{Name: "east"})
	west := spillovertest.New(spillovertest.Config{Name: "west"})
	pool, err := spillover.New(spillover.Config{
		Backends: []spillover.Backend{
			{Name: "east", URL: east.URL, Dialect: spillover.Azure},
			{Name: "west", URL: west.URL, Dialect: spillover.Azure},
		},
		Base: spillovertest.Network(east, west), // leave it out for real ones
	})
	if err != nil {
		return err
	}
	defer pool.Close()

	fmt.Fprintln(w, "Without retries, the caller gets the 429 of the rate-limited pool:")
	throttle(east, "1500")
	throttle(west, "2500")
	if err := ask(w, &http.Client{Transport: pool}); err == nil {
		return fmt.Errorf("the pool was not rate-limited")
	}
	fmt.Fprintln(w, "\nThe same situation with RetryClient:")
	return ask(w, spillover.RetryClient(pool, 3))
}

// throttle makes a deployment refuse one request.
func throttle(s *spillovertest.Server, milliseconds string) {
	s.Set(spillovertest.Fault{
		Status: http.StatusTooManyRequests, Times: 1,
		Header: http.Header{"Retry-After-Ms": {milliseconds}},
	})
}

func ask(w io.Writer, client *http.Client) error {
	config := openai.DefaultAzureConfig("your key", "https://any.openai.azure.com")
	config.AzureModelMapperFunc = func(model string) string { return model }
	config.HTTPClient = client
	start := time.Now()
	answer, err := openai.NewClientWithConfig(config).CreateChatCompletion(context.Background(), openai.ChatCompletionRequest{
		Model:    "gpt-4o",
		Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: "Why wait?"}},
	})
	fmt.Fprintf(w, "  after %.1f s: ", time.Since(start).Seconds())
	if refused := new(openai.APIError); errors.As(err, &refused) {
		// The message is the transport's: two sentences, too long for one line.
		fmt.Fprintf(w, "%s\n    %s\n", refused.HTTPStatus, strings.ReplaceAll(refused.Message, ". ", ".\n    "))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s answered\n    %s\n", answer.Header().Get("X-Spillover-Backend"), answer.Choices[0].Message.Content)
	return nil
}
