// Streaming shows a streamed chat that fails over before its first token:
//
//	go run ./example/streaming
//
// It needs no network and no key: the deployments are simulated in memory. The
// provisioned deployment (PTU) refuses the first chat with a 429, so the
// pay-as-you-go deployment (PAYG) streams the answer. The caller sees no error.
// The second chat is answered by the PTU again.
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
		Base: spillovertest.Network(ptu, payg), // leave it out for real deployments
	})
	if err != nil {
		return err
	}
	defer pool.Close()

	// The key and the host are placeholders: each attempt gets those of its backend.
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	// By default go-openai changes the names of some models, such as gpt-3.5-turbo.
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
	header := stream.Header()
	fmt.Fprintf(w, "%s, attempt %s:\n  ", header.Get("X-Spillover-Backend"), header.Get("X-Spillover-Attempts"))
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
