package interop

import (
	"context"
	"errors"
	"io"
	"strings"

	goopenai "github.com/sashabaranov/go-openai"
)

var (
	goOpenAI = goOpenAIAdapter("go-openai", func() goopenai.ClientConfig { return goopenai.DefaultConfig(sdkKey) })

	goOpenAIAzure = goOpenAIAdapter("go-openai, Azure", func() goopenai.ClientConfig { return goopenai.DefaultAzureConfig(sdkKey, anyAzure) }).
			renaming("gpt-3.5-turbo", "gpt-35-turbo")
)

func goOpenAIAdapter(name string, config func() goopenai.ClientConfig) adapter {
	client := func(s setup) *goopenai.Client {
		c := config()
		c.HTTPClient = s.client
		return goopenai.NewClientWithConfig(c)
	}
	messages := []goopenai.ChatCompletionMessage{{Role: goopenai.ChatMessageRoleUser, Content: prompt}}
	return adapter{
		name: name, module: "github.com/sashabaranov/go-openai", inject: "`ClientConfig.HTTPClient`",
		facts: facts{fails: "`*openai.APIError`"},
		chat: func(ctx context.Context, s setup) (string, error) {
			resp, err := client(s).CreateChatCompletion(ctx, goopenai.ChatCompletionRequest{Model: s.chatModel(), Messages: messages})
			if err != nil {
				return "", err
			}
			return resp.Choices[0].Message.Content, nil
		},
		stream: func(ctx context.Context, s setup) (string, error) {
			stream, err := client(s).CreateChatCompletionStream(ctx, goopenai.ChatCompletionRequest{Model: chatModel, Messages: messages})
			if err != nil {
				return "", err
			}
			defer stream.Close()
			return goOpenAIStream(s, stream.Recv, func(r goopenai.ChatCompletionStreamResponse) (text string) {
				for _, c := range r.Choices {
					text += c.Delta.Content
				}
				return text
			})
		},
		embed: func(ctx context.Context, s setup) (string, error) {
			resp, err := client(s).CreateEmbeddings(ctx, goopenai.EmbeddingRequest{Model: embeddingModel, Input: []string{prompt}})
			if err != nil {
				return "", err
			}
			return vectorText(resp.Data[0].Embedding), nil
		},
		respond: func(ctx context.Context, s setup) (string, error) {
			resp, err := client(s).CreateResponse(ctx, goopenai.CreateResponseRequest{Model: chatModel, Input: prompt})
			if err != nil {
				return "", err
			}
			return resp.GetOutputText(), nil
		},
		respondStream: func(ctx context.Context, s setup) (string, error) {
			stream, err := client(s).CreateResponseStream(ctx, goopenai.CreateResponseRequest{Model: chatModel, Input: prompt})
			if err != nil {
				return "", err
			}
			defer stream.Close()
			return goOpenAIStream(s, func() (goopenai.ResponseStreamEvent, error) {
				e, err := stream.Recv()
				if e.Type == goopenai.ResponseStreamEventError { // an event like any other
					err = errors.New(e.Error.Message)
				}
				return e, err
			}, func(e goopenai.ResponseStreamEvent) string { return e.Delta })
		},
		image: func(ctx context.Context, s setup) (string, error) {
			resp, err := client(s).CreateImage(ctx, goopenai.ImageRequest{Model: imageModel, Prompt: prompt})
			if err != nil {
				return "", err
			}
			return resp.Data[0].B64JSON, nil
		},
		transcribe: func(ctx context.Context, s setup) (string, error) {
			resp, err := client(s).CreateTranscription(ctx, goopenai.AudioRequest{Model: transcriber, FilePath: "voice.wav", Reader: strings.NewReader(recording)})
			return resp.Text, err
		},
	}
}

// goOpenAIStream reads a stream to its end.
func goOpenAIStream[T any](s setup, next func() (T, error), textOf func(T) string) (text string, err error) {
	for {
		piece, err := next()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return text, err
		}
		text += textOf(piece)
		s.got(textOf(piece))
	}
}
