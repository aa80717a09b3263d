// Package interop holds tests of the OpenAI SDKs over a spillover.Transport.
package interop

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/azure"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A pool is a PTU and a pay-as-you-go deployment, in memory.
type pool struct {
	ptu, payg *spillovertest.Server
	client    *http.Client
}

func newPool(t *testing.T) *pool {
	p := &pool{
		ptu:  spillovertest.New(spillovertest.Config{Name: "ptu", Keys: []string{"key-ptu"}}),
		payg: spillovertest.New(spillovertest.Config{Name: "payg", Dialect: spillovertest.AzureV1, Keys: []string{"key-payg"}}),
	}
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(p.ptu, p.payg),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: p.ptu.URL, Dialect: spillover.Azure, APIVersion: "2024-10-21", APIKey: "key-ptu"},
			{Name: "payg", URL: p.payg.URL, Dialect: spillover.AzureV1, APIKey: "key-payg", Priority: 2,
				Models: []spillover.Model{{Name: "gpt-4o", Deployment: "gpt-4o-west"}}},
		},
	})
	require.NoError(t, err)
	p.client = &http.Client{Transport: lb}
	return p
}

// throttle makes a server refuse for a time, or until it is healed if times is 0.
func throttle(s *spillovertest.Server, retryAfter string, times int) {
	s.Set(spillovertest.Fault{Status: 429, Times: times, Header: http.Header{"Retry-After": {retryAfter}},
		Body: `{"error":{"code":"429","message":"Please retry after ` + retryAfter + ` seconds."}}`})
}

func (p *pool) throttleAll(retryAfter string, times int) {
	throttle(p.ptu, retryAfter, times)
	throttle(p.payg, retryAfter, times)
}

// An sdk asks for one chat completion and tells the text.
type sdk struct {
	name string
	ask  func(ctx context.Context, client *http.Client) (string, error)
}

var sdks = []sdk{
	{"go-openai", func(ctx context.Context, client *http.Client) (string, error) {
		config := goopenai.DefaultConfig("unused")
		config.HTTPClient = client
		resp, err := goopenai.NewClientWithConfig(config).CreateChatCompletion(ctx, goopenai.ChatCompletionRequest{
			Model: "gpt-4o", Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "hi"}},
		})
		if err != nil {
			return "", err
		}
		return resp.Choices[0].Message.Content, nil
	}},
	{"go-openai azure", func(ctx context.Context, client *http.Client) (string, error) {
		config := goopenai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
		config.HTTPClient = client
		resp, err := goopenai.NewClientWithConfig(config).CreateChatCompletion(ctx, goopenai.ChatCompletionRequest{
			Model: "gpt-4o", Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "hi"}},
		})
		if err != nil {
			return "", err
		}
		return resp.Choices[0].Message.Content, nil
	}},
	{"openai-go", func(ctx context.Context, client *http.Client) (string, error) {
		return askOpenAI(ctx, openaigo.NewClient(option.WithAPIKey("unused"), option.WithHTTPClient(client)))
	}},
	{"openai-go azure", func(ctx context.Context, client *http.Client) (string, error) {
		return askOpenAI(ctx, openaigo.NewClient(azure.WithEndpoint("https://any.openai.azure.com", "2024-10-21"),
			azure.WithAPIKey("unused"), option.WithHTTPClient(client)))
	}},
	{"openai-go azure v1", func(ctx context.Context, client *http.Client) (string, error) {
		return askOpenAI(ctx, openaigo.NewClient(option.WithBaseURL("https://any.openai.azure.com/openai/v1/"),
			option.WithAPIKey("unused"), option.WithHTTPClient(client)))
	}},
}

func askOpenAI(ctx context.Context, client openaigo.Client) (string, error) {
	resp, err := client.Chat.Completions.New(ctx, openaigo.ChatCompletionNewParams{
		Model: "gpt-4o", Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage("hi")},
	})
	if err != nil {
		return "", err
	}
	return resp.Choices[0].Message.Content, nil
}

// R13: a throttled PTU is not seen by any SDK.
func TestSpillsOver(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t)
				throttle(p.ptu, "30", 1)
				start := time.Now()
				text, err := s.ask(t.Context(), p.client)
				require.NoError(t, err)
				require.NotEmpty(t, text)
				require.Zero(t, time.Since(start), "the SDK did not wait")
				require.Equal(t, 1, p.payg.Stats().Served)
			})
		})
	}
}

// A5: what each SDK makes of the 429 when all are down.
func TestAllDown(t *testing.T) {
	const message = "All 2 deployments of gpt-4o are unavailable"
	for _, s := range sdks {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t)
				p.throttleAll("50", 0)
				_, err := s.ask(t.Context(), p.client)
				require.Error(t, err)
				var goError *goopenai.APIError
				var openaiError *openaigo.Error
				switch {
				case errors.As(err, &goError):
					require.Contains(t, goError.Message, message)
					require.Equal(t, 429, goError.HTTPStatusCode)
					require.Equal(t, "rate_limit_exceeded", goError.Code)
					require.Equal(t, "rate_limit_error", goError.Type)
				case errors.As(err, &openaiError):
					require.Contains(t, openaiError.Message, message)
					require.Equal(t, 429, openaiError.StatusCode)
					require.Equal(t, "rate_limit_exceeded", openaiError.Code)
					require.NotEmpty(t, openaiError.Response.Header.Get("Retry-After"))
				default:
					t.Fatalf("%T is not the SDK's own error", err)
				}
			})
		})
	}
}

// openai-go waits for exactly as long as the 429 says, and not in vain.
func TestOpenAIGoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t)
		p.throttleAll("3", 1)
		start := time.Now()
		_, err := askOpenAI(t.Context(), openaigo.NewClient(option.WithAPIKey("unused"), option.WithHTTPClient(p.client)))
		require.NoError(t, err)
		require.InDelta(t, 3*time.Second, time.Since(start), float64(100*time.Millisecond))
		require.Equal(t, 2, p.ptu.Stats().Requests)
		require.Equal(t, 1, p.payg.Stats().Requests)
	})
}

// azcore's retry policy reads the 429, and its error names the code.
func TestAzcore(t *testing.T) {
	ask := func(t *testing.T, p *pool) (*http.Response, error) {
		pipeline := runtime.NewPipeline("interop", "v0", runtime.PipelineOptions{}, &policy.ClientOptions{Transport: p.client})
		req, err := runtime.NewRequest(t.Context(), http.MethodPost,
			"https://any.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")
		require.NoError(t, err)
		require.NoError(t, runtime.MarshalAsJSON(req, map[string]any{"messages": []any{map[string]any{"role": "user", "content": "hi"}}}))
		return pipeline.Do(req)
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t)
		p.throttleAll("3", 1)
		start := time.Now()
		resp, err := ask(t, p)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		require.InDelta(t, 3*time.Second, time.Since(start), float64(100*time.Millisecond))
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t)
		p.throttleAll("50", 0)
		resp, err := ask(t, p)
		require.NoError(t, err)
		require.Equal(t, 429, resp.StatusCode)
		var e *azcore.ResponseError
		require.ErrorAs(t, runtime.NewResponseError(resp), &e)
		require.Equal(t, "rate_limit_exceeded", e.ErrorCode)
	})
}

// go-openai never retries; a RetryClient does it for it.
func TestGoOpenAIRetryClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t)
		p.throttleAll("3", 1)
		client := spillover.RetryClient(p.client.Transport.(*spillover.Transport), 2)
		start := time.Now()
		_, err := sdks[0].ask(t.Context(), client)
		require.NoError(t, err)
		require.InDelta(t, 3*time.Second, time.Since(start), float64(time.Second))
	})
}
