package interop

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/azure"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

var (
	openaiGo = openaiGoAdapter("openai-go", option.WithAPIKey(sdkKey))

	openaiGoAzure = openaiGoAdapter("openai-go, Azure", azure.WithEndpoint(anyAzure, "2025-03-01-preview"), azure.WithAPIKey(sdkKey))

	openaiGoAzureV1 = openaiGoAdapter("openai-go, Azure v1", option.WithBaseURL(anyAzure+"/openai/v1/"), option.WithAPIKey(sdkKey))

	openaiGoEntra = openaiGoAdapter("openai-go, Azure with Entra ID", azure.WithEndpoint(anyAzure, "2025-03-01-preview"), azure.WithTokenCredential(credential{sdkKey}))
)

// A credential stands for one of azidentity.
type credential struct{ token string }

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: c.token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func openaiGoAdapter(name string, mode ...option.RequestOption) adapter {
	client := func(s setup) openaigo.Client {
		options := append([]option.RequestOption{option.WithHTTPClient(s.client)}, mode...)
		if s.once {
			options = append(options, option.WithMaxRetries(0))
		}
		return openaigo.NewClient(options...)
	}
	chat := func(s setup) openaigo.ChatCompletionNewParams {
		return openaigo.ChatCompletionNewParams{Model: s.chatModel(), Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage(prompt)}}
	}
	response := responses.ResponseNewParams{Model: chatModel, Input: responses.ResponseNewParamsInputUnion{OfString: openaigo.String(prompt)}}
	return adapter{
		name: name, module: "github.com/openai/openai-go/v3", inject: "`option.WithHTTPClient`", off: "`option.WithMaxRetries(0)`",
		facts: facts{retries: 2, fails: "`*openai.Error`"},
		chat: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			resp, err := c.Chat.Completions.New(ctx, chat(s))
			if err != nil {
				return "", err
			}
			return resp.Choices[0].Message.Content, nil
		},
		stream: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			return openaiGoStream(s, c.Chat.Completions.NewStreaming(ctx, chat(s)), func(chunk openaigo.ChatCompletionChunk) (text string) {
				for _, choice := range chunk.Choices {
					text += choice.Delta.Content
				}
				return text
			})
		},
		embed: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			resp, err := c.Embeddings.New(ctx, openaigo.EmbeddingNewParams{
				Model: embeddingModel, Input: openaigo.EmbeddingNewParamsInputUnion{OfString: openaigo.String(prompt)},
			})
			if err != nil {
				return "", err
			}
			return vectorText(resp.Data[0].Embedding), nil
		},
		respond: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			resp, err := c.Responses.New(ctx, response)
			if err != nil {
				return "", err
			}
			return resp.OutputText(), nil
		},
		respondStream: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			return openaiGoStream(s, c.Responses.NewStreaming(ctx, response), func(e responses.ResponseStreamEventUnion) string { return e.Delta })
		},
		image: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			resp, err := c.Images.Generate(ctx, openaigo.ImageGenerateParams{Model: imageModel, Prompt: prompt})
			if err != nil {
				return "", err
			}
			return resp.Data[0].B64JSON, nil
		},
		transcribe: func(ctx context.Context, s setup) (string, error) {
			c := client(s)
			file := openaigo.File(strings.NewReader(recording), "voice.wav", "audio/wav")
			resp, err := c.Audio.Transcriptions.New(ctx, openaigo.AudioTranscriptionNewParams{Model: transcriber, File: file})
			if err != nil {
				return "", err
			}
			return resp.Text, nil
		},
	}
}

// WithUnsafeAllowHTTP goes around the transport: it connects by itself.
func TestUnsafeAllowHTTP(t *testing.T) {
	server := spillovertest.NewServer(spillovertest.Config{})
	defer server.Close()
	transport := &tap{next: server.Client().Transport}
	client := openaigo.NewClient(option.WithHTTPClient(&http.Client{Transport: transport}), option.WithHeader("Connection", "close"),
		azure.WithEndpoint(server.URL, apiVersion), azure.WithAPIKey(sdkKey), azure.WithUnsafeAllowHTTP())
	_, err := client.Embeddings.New(t.Context(), openaigo.EmbeddingNewParams{
		Model: embeddingModel, Input: openaigo.EmbeddingNewParamsInputUnion{OfString: openaigo.String(prompt)},
	})
	require.NoError(t, err)
	require.Equal(t, 1, server.Stats().Served)
	require.Empty(t, transport.seen)
}

// openaiGoStream reads a stream to its end.
func openaiGoStream[T any](s setup, stream *ssestream.Stream[T], textOf func(T) string) (text string, err error) {
	defer stream.Close()
	for stream.Next() {
		piece := textOf(stream.Current())
		text += piece
		s.got(piece)
	}
	return text, stream.Err()
}
