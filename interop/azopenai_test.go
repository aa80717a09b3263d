package interop

import (
	"context"
	"errors"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/ai/azopenai"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

var azOpenAI = adapter{
	name: "azopenai", module: "github.com/Azure/azure-sdk-for-go/sdk/ai/azopenai", inject: "`ClientOptions.Transport`", off: "`ClientOptions.Retry.MaxRetries = -1`",
	facts: facts{retries: 3, fails: "`*azcore.ResponseError`"},
	chat: func(ctx context.Context, s setup) (string, error) {
		resp, err := azClient(s).GetChatCompletions(ctx, azopenai.ChatCompletionsOptions{DeploymentName: new(s.chatModel()), Messages: azMessages}, nil)
		if err != nil {
			return "", err
		}
		return *resp.Choices[0].Message.Content, nil
	},
	stream: func(ctx context.Context, s setup) (text string, err error) {
		resp, err := azClient(s).GetChatCompletionsStream(ctx, azopenai.ChatCompletionsStreamOptions{DeploymentName: new(chatModel), Messages: azMessages}, nil)
		if err != nil {
			return "", err
		}
		defer resp.ChatCompletionsStream.Close()
		for {
			chunk, err := resp.ChatCompletionsStream.Read()
			if errors.Is(err, io.EOF) {
				return text, nil
			}
			if err != nil {
				return text, err
			}
			for _, c := range chunk.Choices {
				if c.Delta != nil && c.Delta.Content != nil {
					text += *c.Delta.Content
					s.got(*c.Delta.Content)
				}
			}
		}
	},
	embed: func(ctx context.Context, s setup) (string, error) {
		resp, err := azClient(s).GetEmbeddings(ctx, azopenai.EmbeddingsOptions{DeploymentName: new(embeddingModel), Input: []string{prompt}}, nil)
		if err != nil {
			return "", err
		}
		return vectorText(resp.Data[0].Embedding), nil
	},
	image: func(ctx context.Context, s setup) (string, error) {
		resp, err := azClient(s).GetImageGenerations(ctx, azopenai.ImageGenerationOptions{DeploymentName: new(imageModel), Prompt: new(prompt)}, nil)
		if err != nil {
			return "", err
		}
		return *resp.Data[0].Base64Data, nil
	},
	transcribe: func(ctx context.Context, s setup) (string, error) {
		resp, err := azClient(s).GetAudioTranscription(ctx, azopenai.AudioTranscriptionOptions{DeploymentName: new(transcriber), File: []byte(recording)}, nil)
		if err != nil {
			return "", err
		}
		return *resp.Text, nil
	},
}

var azMessages = []azopenai.ChatRequestMessageClassification{
	&azopenai.ChatRequestUserMessage{Content: azopenai.NewChatRequestUserMessageContent(prompt)},
}

func azClient(s setup) *azopenai.Client {
	var options azopenai.ClientOptions
	options.Transport = s.client
	if s.once {
		options.Retry.MaxRetries = -1
	}
	client, err := azopenai.NewClientWithKeyCredential(anyAzure, azcore.NewKeyCredential(sdkKey), &options)
	if err != nil {
		panic(err) // the arguments are constant
	}
	return client
}
