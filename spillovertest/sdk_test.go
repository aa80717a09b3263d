package spillovertest_test

import (
	"io"
	"testing"

	goopenai "github.com/sashabaranov/go-openai"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// sdk returns a go-openai client for a server.
func sdk(s *spillovertest.Server, d spillovertest.Dialect) *goopenai.Client {
	cfg := goopenai.DefaultConfig("key")
	cfg.BaseURL = s.URL + "/v1"
	switch d {
	case spillovertest.Azure:
		cfg = goopenai.DefaultAzureConfig("key", s.URL)
	case spillovertest.AzureV1:
		cfg.BaseURL = s.URL + "/openai/v1"
	}
	cfg.HTTPClient = s.Client()
	return goopenai.NewClientWithConfig(cfg)
}

func TestSDK(t *testing.T) {
	for _, d := range []spillovertest.Dialect{spillovertest.Azure, spillovertest.AzureV1, spillovertest.OpenAI} {
		cfg := spillovertest.Config{Dialect: d, Keys: []string{"key"}, Deployments: []spillovertest.Deployment{
			{Name: "gpt", Output: 5}, {Name: "text-embedding-3-small"},
		}}
		t.Run(string(d), func(t *testing.T) {
			everywhere(t, cfg, func(t *testing.T, s *spillovertest.Server) {
				c := sdk(s, d)
				t.Run("chat", func(t *testing.T) { sdkChat(t, c) })
				t.Run("stream", func(t *testing.T) { sdkStream(t, c) })
				t.Run("embeddings", func(t *testing.T) { sdkEmbeddings(t, c) })
				t.Run("error", func(t *testing.T) { sdkErrors(t, c, s) })
				require.Zero(t, s.Stats().InFlight)
			})
		})
	}
}

var sdkRequest = goopenai.ChatCompletionRequest{
	Model:    "gpt",
	Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "Hello there!"}},
}

func sdkChat(t *testing.T, c *goopenai.Client) {
	res, err := c.CreateChatCompletion(t.Context(), sdkRequest)
	require.NoError(t, err)
	require.Equal(t, "when one region is full", res.Choices[0].Message.Content)
	require.Equal(t, 3, res.Usage.PromptTokens)
	require.Equal(t, 8, res.Usage.TotalTokens)

	old, err := c.CreateCompletion(t.Context(), goopenai.CompletionRequest{Model: "gpt", Prompt: "hi", MaxTokens: 2})
	require.NoError(t, err)
	require.Equal(t, "when one", old.Choices[0].Text)

	models, err := c.ListModels(t.Context())
	require.NoError(t, err)
	require.Equal(t, "gpt", models.Models[0].ID)
}

func sdkStream(t *testing.T, c *goopenai.Client) {
	r := sdkRequest
	r.StreamOptions = &goopenai.StreamOptions{IncludeUsage: true}
	stream, err := c.CreateChatCompletionStream(t.Context(), r)
	require.NoError(t, err)
	defer stream.Close()
	var text string
	var usage *goopenai.Usage
	for {
		chunk, err := stream.Recv()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		for _, choice := range chunk.Choices {
			text += choice.Delta.Content
		}
		if chunk.Usage != nil {
			usage = chunk.Usage
		}
	}
	require.Equal(t, "when one region is full", text)
	require.Equal(t, 5, usage.CompletionTokens)
}

func sdkEmbeddings(t *testing.T, c *goopenai.Client) {
	r := goopenai.EmbeddingRequest{Input: []string{"one", "two", "one"}, Model: goopenai.SmallEmbedding3}
	res, err := c.CreateEmbeddings(t.Context(), r)
	require.NoError(t, err)
	require.Len(t, res.Data, 3)
	a, b := res.Data[0].Embedding, res.Data[1].Embedding
	require.Len(t, a, 8)
	require.NotEqual(t, a, b)
	require.Equal(t, a, res.Data[2].Embedding)
	var square float32
	for _, x := range a {
		square += x * x
	}
	require.InDelta(t, 1, square, 1e-5)

	r.Input, r.EncodingFormat, r.Dimensions = []int{1, 2, 3}, goopenai.EmbeddingEncodingFormatBase64, 4
	res, err = c.CreateEmbeddings(t.Context(), r)
	require.NoError(t, err)
	require.Len(t, res.Data, 1)
	require.Len(t, res.Data[0].Embedding, 4)
	require.Equal(t, 3, res.Usage.PromptTokens)
}

func sdkErrors(t *testing.T, c *goopenai.Client, s *spillovertest.Server) {
	r := sdkRequest
	r.Model = "other"
	_, err := c.CreateChatCompletion(t.Context(), r)
	var api *goopenai.APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, 404, api.HTTPStatusCode)
	require.NotEmpty(t, api.Message)
	require.NotEmpty(t, api.Code)

	s.Set(spillovertest.Fault{Kind: spillovertest.KindError, After: 1})
	defer s.Heal()
	stream, err := c.CreateChatCompletionStream(t.Context(), sdkRequest)
	require.NoError(t, err)
	defer stream.Close()
	for err == nil {
		_, err = stream.Recv()
	}
	require.ErrorAs(t, err, &api, "%v", err)
	require.Equal(t, "rate_limit_exceeded", api.Code)
}
