// Streaming shows a streamed chat that fails over before its first token:
//
//	go run ./example/streaming
//
// The deployments are simulated in memory. The provisioned one refuses the
// request with a 429, and the stream comes from the pay-as-you-go one. The caller
// sees no error. The next stream comes from the provisioned one again.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "streaming:", err)
		os.Exit(1)
	}
}

func run(w io.Writer) error {
	gpt := []spillovertest.Deployment{{
		Name: "gpt-4o", Latency: spillovertest.Latency{FirstToken: 200 * time.Millisecond, PerToken: 40 * time.Millisecond},
	}}
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu", Deployments: gpt})
	payg := spillovertest.New(spillovertest.Config{Name: "payg", Deployments: gpt})
	ptu.Set(spillovertest.Fault{
		Status: http.StatusTooManyRequests, Times: 1,
		Header: http.Header{"Retry-After-Ms": {"50"}},
	})
	pool, err := spillover.New(spillover.Config{
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL, Dialect: spillover.Azure, Priority: 1},
			{Name: "payg", URL: payg.URL, Dialect: spillover.Azure, Priority: 2},
		},
		Base: spillovertest.Network(ptu, payg), // leave it out for real ones
	})
	if err != nil {
		return err
	}
	defer pool.Close()

	config := openai.DefaultAzureConfig("your key", "https://any.openai.azure.com")
	config.AzureModelMapperFunc = func(model string) string { return model }
	config.HTTPClient = &http.Client{Transport: pool}
	client := openai.NewClientWithConfig(config)
	if err := ask(w, client); err != nil {
		return err
	}
	return ask(w, client)
}

// ask prints a stream as it arrives.
func ask(w io.Writer, client *openai.Client) error {
	stream, err := client.CreateChatCompletionStream(context.Background(), openai.ChatCompletionRequest{
		Model:    "gpt-4o",
		Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: "What is spillover?"}},
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	about := stream.Header()
	fmt.Fprintf(w, "%s, attempt %s:\n  ", about.Get("X-Spillover-Backend"), about.Get("X-Spillover-Attempts"))
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(w)
			return nil
		}
		if err != nil {
			return err
		}
		for _, choice := range chunk.Choices {
			fmt.Fprint(w, choice.Delta.Content)
		}
	}
}
