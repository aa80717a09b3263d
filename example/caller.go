package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/sashabaranov/go-openai"
)

// A result is the outcome of one chat.
type result struct {
	backend string // that answered; "" without spillover
	err     error
}

// rateLimited reports whether the caller received a 429.
func (r result) rateLimited() bool {
	var refused *openai.APIError
	return errors.As(r.err, &refused) && refused.HTTPStatusCode == http.StatusTooManyRequests
}

// ask sends a chat once, as any program does that uses go-openai. go-openai does
// not retry.
func ask(client *openai.Client, c chat) result {
	request := openai.ChatCompletionRequest{
		Model:     model,
		Messages:  []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: filler[:4*c.prompt]}},
		MaxTokens: c.output,
	}
	if c.stream {
		return stream(client, request)
	}
	answer, err := client.CreateChatCompletion(context.Background(), request)
	return result{answer.Header().Get("X-Spillover-Backend"), err}
}

func stream(client *openai.Client, request openai.ChatCompletionRequest) result {
	stream, err := client.CreateChatCompletionStream(context.Background(), request)
	if err != nil {
		return result{err: err}
	}
	defer stream.Close()
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return result{stream.Header().Get("X-Spillover-Backend"), err}
}
