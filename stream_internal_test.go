package spillover

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

// Events of chat completions as Azure sends them.
const (
	azureFirst = `data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}` + "\n\n"
	roleChunk  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}]}` + "\n\n"
	lastChunk  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usageChunk = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}` + "\n\n"
	doneEvent  = "data: [DONE]\n\n"
)

func tokenChunk(text string) string {
	return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":` + wire.QuoteJSON(text) + `},"finish_reason":null}]}` + "\n\n"
}

func chatError(object string) string { return `data: {"error":` + object + "}\n\n" }

// responseEvent is one of the Responses API; members begin with a comma.
func responseEvent(kind, members string) string {
	return "event: " + kind + "\ndata: {\"type\":\"" + kind + "\",\"sequence_number\":0" + members + "}\n\n"
}

// responseCreated echoes the request, and so is as long as that.
func responseCreated(size int) string {
	return responseEvent("response.created", `,"response":{"id":"resp_1","status":"in_progress","error":null,"usage":null,"instructions":"`+strings.Repeat("x", size)+`"}`)
}

// wholeChat is a complete stream.
var wholeChat = azureFirst + roleChunk + tokenChunk("hello") + tokenChunk(" there") + lastChunk + usageChunk + doneEvent

// forever is a silence that only the caller or the transport ends.
type forever struct{}

// plays answers with a stream. Of its pieces a string is what one Read brings,
// a duration is silence, a header is added, an error is the end; without one
// the end is EOF. Every body must be given back by the end of the test.
func plays(t testing.TB, pieces ...any) roundTripFunc {
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

// A player is the body of such a stream.
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

// streamPair is a Transport that asks one, and two if one fails. Its chance is
// even, so that ejections last exactly as long as the policy says.
func streamPair(t testing.TB, n http.RoundTripper, change ...func(*Config)) *Transport {
	cfg := Config{Base: n, Backends: []Backend{azure("one"), azure("two", priority(2))}}
	for _, f := range change {
		f(&cfg)
	}
	tr := configured(t, cfg)
	tr.random = func() uint64 { return 1 << 63 }
	return tr
}

func holdStreams(cfg *Config) { cfg.HoldStreams = true }

func streamTimeouts(header, idle time.Duration) func(*Config) {
	return func(cfg *Config) {
		for i := range cfg.Backends {
			cfg.Backends[i].HeaderTimeout, cfg.Backends[i].IdleTimeout = header, idle
		}
	}
}

// streamState is the state of a backend's one deployment.
func streamState(t testing.TB, tr *Transport, backend string) DeploymentStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			if b.Name == backend {
				asked := slices.DeleteFunc(b.Deployments, func(d DeploymentStatus) bool { return len(b.Deployments) > 1 && d.Served+d.Failed+d.Throttled == 0 })
				require.Len(t, asked, 1)
				return asked[0]
			}
		}
	}
	require.Fail(t, "no backend "+backend)
	return DeploymentStatus{}
}

// out is for how long a deployment is left alone.
func (s DeploymentStatus) out() time.Duration {
	if s.Available {
		return 0
	}
	return time.Until(s.Until)
}

func streamsInFlight(tr *Transport) (sum int) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				sum += d.InFlight
			}
		}
	}
	return sum
}

const (
	completionsPath = "/openai/deployments/m/completions?api-version=2024-10-21"
	embeddingsPath  = "/openai/deployments/m/embeddings?api-version=2024-10-21"
	responsesPath   = "/openai/v1/responses"
)

// readAll reads a body to its end, be that an error, and closes it.
func readAll(t testing.TB, resp *http.Response) (string, error) {
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	return string(text), err
}

// A deployment that breaks off every stream is left alone longer each time: that
// a stream began well is no success.
func TestBreakingOffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), withBody(200, func(*http.Request) io.ReadCloser {
			return io.NopCloser(io.MultiReader(strings.NewReader("half"), brokenBody{err: io.ErrUnexpectedEOF}))
		}))
		tr := balance(t, n, azure("a"))
		tr.random = func() uint64 { return 1 << 63 } // no jitter
		for i, out := range []time.Duration{0, 2, 4, 8, 16, 30, 30} {
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			until := statusOf(t, tr, "a").Until
			if i == 0 {
				require.Zero(t, until, "the first is ignored")
				continue
			}
			require.Equal(t, out*time.Second, time.Until(until))
			time.Sleep(time.Until(until))
		}
	})
}
