package interop

import (
	"context"

	"github.com/tmc/langchaingo/llms"
	"github.com/tmc/langchaingo/llms/openai"
)

var (
	langchain = langchainAdapter("langchaingo")

	langchainAzure = langchainAdapter("langchaingo, Azure", openai.WithAPIType(openai.APITypeAzure),
		openai.WithBaseURL(anyAzure), openai.WithAPIVersion(apiVersion))
)

func langchainAdapter(name string, mode ...openai.Option) adapter {
	model := func(s setup) *openai.LLM {
		llm, err := openai.New(append(mode, openai.WithToken(sdkKey), openai.WithModel(s.chatModel()),
			openai.WithEmbeddingModel(embeddingModel), openai.WithHTTPClient(s.client))...)
		if err != nil {
			panic(err) // the arguments are constant
		}
		return llm
	}
	return adapter{
		name: name, module: "github.com/tmc/langchaingo", inject: "`openai.WithHTTPClient`",
		facts: facts{fails: aText, hidesCause: true, cutsShort: true, deaf: true},
		chat: func(ctx context.Context, s setup) (string, error) {
			return llms.GenerateFromSinglePrompt(ctx, model(s), prompt)
		},
		stream: func(ctx context.Context, s setup) (string, error) {
			return llms.GenerateFromSinglePrompt(ctx, model(s), prompt, llms.WithStreamingFunc(func(_ context.Context, piece []byte) error {
				s.got(string(piece))
				return nil
			}))
		},
		embed: func(ctx context.Context, s setup) (string, error) {
			vectors, err := model(s).CreateEmbedding(ctx, []string{prompt})
			if err != nil {
				return "", err
			}
			return vectorText(vectors[0]), nil
		},
	}
}
