package testnet

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

// Events of chat completions as Azure sends them.
const (
	AzureFirst = `data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}` + "\n\n"
	RoleChunk  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}]}` + "\n\n"
	LastChunk  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	UsageChunk = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}` + "\n\n"
	DoneEvent  = "data: [DONE]\n\n"
)

// TokenChunk returns an event with content.
func TokenChunk(text string) string {
	return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":` + wire.QuoteJSON(text) + `},"finish_reason":null}]}` + "\n\n"
}

// ChatError returns an error event.
func ChatError(object string) string { return `data: {"error":` + object + "}\n\n" }

// ResponseEvent returns an event of the Responses API. members begin with a comma.
func ResponseEvent(kind, members string) string {
	return "event: " + kind + "\ndata: {\"type\":\"" + kind + "\",\"sequence_number\":0" + members + "}\n\n"
}

// ResponseCreated returns the first event of a response. It repeats a request of that size.
func ResponseCreated(size int) string {
	return ResponseEvent("response.created", `,"response":{"id":"resp_1","status":"in_progress","error":null,"usage":null,"instructions":"`+strings.Repeat("x", size)+`"}`)
}

// WholeChat is a complete stream of a chat completion.
var WholeChat = AzureFirst + RoleChunk + TokenChunk("hello") + TokenChunk(" there") + LastChunk + UsageChunk + DoneEvent

// Forever is a silence that only the caller or the transport ends.
type Forever struct{}

// Plays answers with a stream. A string is what one Read returns, a time.Duration or a
// Forever is silence, an http.Header is added to that of the answer. An error ends the
// stream; without one it ends with io.EOF. Each body must be closed, or read to its end,
// when the test ends.
func Plays(t testing.TB, pieces ...any) RoundTripFunc {
	h := http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}
	pieces = slices.DeleteFunc(slices.Clone(pieces), func(piece any) bool {
		more, ok := piece.(http.Header)
		maps.Copy(h, more)
		return ok
	})
	return func(req *http.Request) (*http.Response, error) {
		b := &player{ctx: req.Context(), pieces: pieces, closed: make(chan struct{})}
		t.Cleanup(func() { require.True(t, b.givenBack(), "a body was left open") })
		return &http.Response{
			Status: "200 OK", StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h.Clone(), Body: b, ContentLength: -1, Request: req,
		}, nil
	}
}

// A player is the body of a stream of Plays.
type player struct {
	ctx    context.Context
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	pieces []any
	text   string
	ended  bool
}

func (b *player) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.text == "" {
		if err := b.gone(); err != nil {
			return 0, err
		}
		if len(b.pieces) == 0 {
			b.ended = true
			return 0, io.EOF
		}
		var due <-chan time.Time
		switch piece := b.pieces[0].(type) {
		case error:
			b.ended = true
			return 0, piece
		case string:
			b.text, b.pieces = piece, b.pieces[1:]
			continue
		case time.Duration:
			timer := time.NewTimer(piece)
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-due:
			b.pieces = b.pieces[1:]
		case <-b.ctx.Done():
		case <-b.closed:
		}
	}
	n := copy(p, b.text)
	b.text = b.text[n:]
	return n, nil
}

func (b *player) gone() error {
	select {
	case <-b.closed:
		return http.ErrBodyReadAfterClose
	default:
		return b.ctx.Err()
	}
}

func (b *player) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func (b *player) givenBack() bool {
	if b.gone() != nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended
}
