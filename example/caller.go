package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sashabaranov/go-openai"
)

// A result is what became of one chat.
type result struct {
	chat
	entered  time.Time // into the transport
	sent     time.Time // the last attempt
	refusals int       // 429s of deployments
	status   int       // of the answer
	backend  string    // that gave it; "" when the transport did
	wait     string    // that a 429 told the caller, in milliseconds
	err      error
}

// ask is a caller like any other: go-openai, and no word of deployments.
func (p *pool) ask(c chat) {
	p.tally.asked()
	r := &result{chat: c}
	ctx := context.WithValue(context.Background(), resultKey{}, r)
	request := openai.ChatCompletionRequest{
		Model:     model,
		Messages:  []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: filler[:4*c.prompt]}},
		MaxTokens: c.output,
	}
	if c.stream {
		r.err = p.stream(ctx, request)
	} else {
		_, r.err = p.client.CreateChatCompletion(ctx, request)
	}
	p.tally.ended(r)
}

func (p *pool) stream(ctx context.Context, request openai.ChatCompletionRequest) error {
	stream, err := p.client.CreateChatCompletionStream(ctx, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

type resultKey struct{}

// resultOf is the result that a request, or an attempt made of it, belongs to.
func resultOf(r *http.Request) *result { return r.Context().Value(resultKey{}).(*result) }

// entrance notes when a request enters the transport, and what it gets.
type entrance struct{ http.RoundTripper }

func (e entrance) RoundTrip(in *http.Request) (*http.Response, error) {
	r := resultOf(in)
	r.entered = time.Now()
	resp, err := e.RoundTripper.RoundTrip(in)
	if err == nil {
		r.status = resp.StatusCode
		r.backend = resp.Header.Get("X-Spillover-Backend")
		r.wait = resp.Header.Get("Retry-After-Ms")
	}
	return resp, err
}

// exit notes when an attempt leaves it, and whether it is refused.
type exit struct{ http.RoundTripper }

func (e exit) RoundTrip(out *http.Request) (*http.Response, error) {
	r := resultOf(out)
	r.sent = time.Now()
	resp, err := e.RoundTripper.RoundTrip(out)
	if err == nil && resp.StatusCode == http.StatusTooManyRequests {
		r.refusals++
	}
	return resp, err
}

// counts are of chats.
type counts struct {
	chats    int
	answered int
	spilled  int // of the answered, those that cost extra
	absorbed int // 429s on the way to an answer
	told     int // 429s that reached the caller
	failed   int // anything else that did
}

// A tally collects the results.
type tally struct {
	mu      sync.Mutex
	counts  counts
	results []*result
	wait    string // that the last caller was told
}

func (t *tally) asked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.chats++
}

func (t *tally) ended(r *result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results = append(t.results, r)
	switch {
	case r.err == nil:
		t.counts.answered++
		t.counts.absorbed += r.refusals
		if r.backend != deployments[0].name {
			t.counts.spilled++
		}
	case r.status == http.StatusTooManyRequests:
		t.counts.told++
		t.wait = r.wait
	default:
		t.counts.failed++
	}
}

func (t *tally) now() (counts, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts, t.wait
}
