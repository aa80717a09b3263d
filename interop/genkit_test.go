package interop

import (
	"context"

	"github.com/firebase/genkit/go/ai"
	"github.com/firebase/genkit/go/genkit"
	"github.com/firebase/genkit/go/plugins/compat_oai/openai"
	"github.com/openai/openai-go/option"
)

// genkit's plugin is built on openai-go v1, whose retries are of their own kind.
var genkitOpenAI = adapter{
	name: "genkit", module: "github.com/firebase/genkit/go", inject: "`OpenAI.Opts`: `option.WithHTTPClient`", off: "`OpenAI.Opts`: `option.WithMaxRetries(0)`",
	facts: facts{retries: 2, fails: "`*openai.Error` of openai-go v1", sleeps: true},
	chat: func(ctx context.Context, s setup) (string, error) {
		return withGenkit(ctx, s, func(g *genkit.Genkit) (string, error) {
			resp, err := genkit.Generate(ctx, g, ai.WithModelName("openai/"+s.chatModel()), ai.WithPrompt(prompt))
			if err != nil {
				return "", err
			}
			return resp.Text(), nil
		})
	},
	stream: func(ctx context.Context, s setup) (string, error) {
		return withGenkit(ctx, s, func(g *genkit.Genkit) (text string, err error) {
			_, err = genkit.Generate(ctx, g, ai.WithModelName("openai/"+s.chatModel()), ai.WithPrompt(prompt),
				ai.WithStreaming(func(_ context.Context, chunk *ai.ModelResponseChunk) error {
					text += chunk.Text()
					s.got(chunk.Text())
					return nil
				}))
			return text, err
		})
	},
	embed: func(ctx context.Context, s setup) (string, error) {
		return withGenkit(ctx, s, func(g *genkit.Genkit) (string, error) {
			resp, err := genkit.Embed(ctx, g, ai.WithEmbedderName("openai/"+embeddingModel), ai.WithTextDocs(prompt))
			if err != nil {
				return "", err
			}
			return vectorText(resp.Embeddings[0].Embedding), nil
		})
	},
}

func withGenkit(ctx context.Context, s setup, do func(*genkit.Genkit) (string, error)) (string, error) {
	plugin := &openai.OpenAI{APIKey: sdkKey, Opts: []option.RequestOption{option.WithHTTPClient(s.client)}}
	if s.once {
		plugin.Opts = append(plugin.Opts, option.WithMaxRetries(0))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // or a goroutine of genkit waits for signals for ever
	return do(genkit.Init(ctx, genkit.WithPlugins(plugin)))
}
