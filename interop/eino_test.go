package interop

import (
	"context"
	"errors"
	"io"

	einoembedding "github.com/cloudwego/eino-ext/components/embedding/openai"
	einochat "github.com/cloudwego/eino-ext/components/model/openai"
	"github.com/cloudwego/eino/schema"
)

var (
	eino      = einoAdapter("eino", false)
	einoAzure = einoAdapter("eino, Azure", true).renaming("gpt-3.5-turbo", "gpt-35-turbo").renaming("gpt-4.1", "gpt-41")
)

func einoAdapter(name string, azure bool) adapter {
	url, version := "", ""
	if azure {
		url, version = anyAzure, apiVersion
	}
	model := func(ctx context.Context, s setup) *einochat.ChatModel {
		m, err := einochat.NewChatModel(ctx, &einochat.ChatModelConfig{
			Model: s.chatModel(), APIKey: sdkKey, ByAzure: azure, BaseURL: url, APIVersion: version, HTTPClient: s.client,
		})
		if err != nil {
			panic(err) // the arguments are constant
		}
		return m
	}
	messages := []*schema.Message{schema.UserMessage(prompt)}
	return adapter{
		name: name, module: "github.com/cloudwego/eino-ext/components/model/openai", inject: "`ChatModelConfig.HTTPClient`",
		facts: facts{fails: "`*openai.APIError`"},
		chat: func(ctx context.Context, s setup) (string, error) {
			m, err := model(ctx, s).Generate(ctx, messages)
			if err != nil {
				return "", err
			}
			return m.Content, nil
		},
		stream: func(ctx context.Context, s setup) (text string, err error) {
			stream, err := model(ctx, s).Stream(ctx, messages)
			if err != nil {
				return "", err
			}
			defer stream.Close()
			for {
				m, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return text, nil
				}
				if err != nil {
					return text, err
				}
				text += m.Content
				s.got(m.Content)
			}
		},
		embed: func(ctx context.Context, s setup) (string, error) {
			e, err := einoembedding.NewEmbedder(ctx, &einoembedding.EmbeddingConfig{
				Model: embeddingModel, APIKey: sdkKey, ByAzure: azure, BaseURL: url, APIVersion: version, HTTPClient: s.client,
			})
			if err != nil {
				return "", err
			}
			vectors, err := e.EmbedStrings(ctx, []string{prompt})
			if err != nil {
				return "", err
			}
			return vectorText(vectors[0]), nil
		},
	}
}
