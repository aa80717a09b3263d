package spillover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert" //nolint:depguard // require must not be called in other goroutines
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A soakPlan is one request, and what its caller does with the response.
type soakPlan struct {
	id, model, kind, session string
	tags                     []string
	class                    spillover.Class
	tokens                   int
	withoutGetBody           bool
	reads                    soakReader
	seed                     uint64
	unit                     time.Duration
}

type soakReader int

// What a caller does. Most read all of it.
const (
	readsUntilDeadline soakReader = iota // has a deadline
	readsSlowly
	closesEarly
	neverCloses  // and its context ends later
	leavesEarly  // cancels before there is a response
	sendsBadBody // whose Read fails
	readsAll     // and so do those above it
)

const callersKey = "key-of-the-caller-0123456789abcdef"

// soakChecks stands between the replicas and the services, and between the callers and
// the replicas, and checks what must hold whatever happens.
type soakChecks struct {
	t       *testing.T
	base    http.RoundTripper
	callers sync.WaitGroup

	// Whether requests run at the same time as a rule. Then a trail may have what another
	// one changed after the choice. In virtual time this is rare: those of one instant.
	concurrent bool

	answered atomic.Int64 // requests that got one answer
	open     atomic.Int64 // bodies of services' responses that are not closed
	uploads  atomic.Int64 // bodies of requests that are not closed

	mu       sync.Mutex
	backends map[string]spillover.Backend // by host
	secrets  []string
	plans    map[string]soakPlan // requests under way
	sends    map[string]int      // by request
	heard    [][]byte            // the last notices
	served   map[string]int      // by backend
	outcomes map[string]int      // by status, or "error"
	skipped  []string            // trails by which a tier was skipped

	words []string // of a stream that is complete
}

func newSoakChecks(t *testing.T) *soakChecks {
	c := &soakChecks{
		t: t, backends: map[string]spillover.Backend{}, plans: map[string]soakPlan{}, sends: map[string]int{},
		served: map[string]int{}, outcomes: map[string]int{},
	}
	healthy := spillovertest.New(spillovertest.Config{Dialect: spillovertest.OpenAI})
	resp, err := healthy.RoundTrip(c.request(t.Context(), soakPlan{model: "m", kind: "stream", tokens: 100}))
	require.NoError(t, err)
	stream, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	c.words = contentOf(stream)
	require.Len(t, c.words, 100)
	c.secrets = []string{callersKey}
	return c
}

func (c *soakChecks) knows(address string, b spillover.Backend) {
	u, err := url.Parse(address)
	require.NoError(c.t, err)
	c.backends[u.Host] = b
	c.secrets = append(c.secrets, b.APIKey)
}

// RoundTrip is where a replica sends a request to a service.
func (c *soakChecks) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	b, known := c.backends[req.URL.Host]
	plan, expected := c.plans[req.Header.Get("X-Soak-Id")]
	c.sends[plan.id]++
	sends := c.sends[plan.id]
	c.mu.Unlock()
	if !assert.True(c.t, known, "sent to %s", req.URL.Host) || !assert.True(c.t, expected, "sent after its end: %s", req.Header.Get("X-Soak-Id")) {
		return nil, errors.New("refused by the test")
	}
	for _, tag := range plan.tags {
		assert.Contains(c.t, b.Tags, tag, "sent to a backend without the tag")
	}
	// No other credential than the backend's own.
	header, _ := json.Marshal(req.Header)
	for _, secret := range c.secrets {
		assert.Equal(c.t, secret == b.APIKey, bytes.Contains(header, []byte(secret)), "credentials at %s", b.Name)
		assert.NotContains(c.t, req.URL.String(), secret)
	}
	assert.LessOrEqual(c.t, sends, 40, "sent again and again")
	var sent []byte
	if req.Body != nil {
		sent, _ = io.ReadAll(req.Body)
		req.Body.Close()
		out := req.Clone(req.Context())
		out.Body = io.NopCloser(bytes.NewReader(sent))
		req = out
	}
	if text := req.URL.Path + string(sent); plan.model == "n" {
		assert.NotContains(c.t, text, `"model":"m"`, "another model")
		assert.NotContains(c.t, text, "/deployments/m/", "another model")
	}
	resp, err := c.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	body := &soakBody{ReadCloser: resp.Body, open: &c.open}
	context.AfterFunc(req.Context(), func() { body.Close() }) // as http.Transport ends the connection then
	resp.Body = body
	return resp, nil
}

// A soakBody counts when it is closed first.
type soakBody struct {
	io.ReadCloser
	open   *atomic.Int64
	closed atomic.Bool
}

func (b *soakBody) Close() error {
	if b.closed.CompareAndSwap(false, true) {
		b.open.Add(-1)
	}
	return b.ReadCloser.Close()
}

type brokenReader struct{ io.Reader }

func (b brokenReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil {
		err = errors.New("the caller's disk is broken")
	}
	return n, err
}

func (c *soakChecks) request(ctx context.Context, p soakPlan) *http.Request {
	path, body := "/v1/chat/completions", fmt.Sprintf(`{"model":"%s","max_tokens":%d,"messages":[{"role":"user","content":"hello"}]}`, p.model, p.tokens)
	switch p.kind {
	case "stream":
		body = strings.Replace(body, `{`, `{"stream":true,`, 1)
	case "embeddings":
		path, body = "/v1/embeddings", fmt.Sprintf(`{"model":"%s","input":"hello"}`, p.model)
	case "responses":
		path, body = "/v1/responses", fmt.Sprintf(`{"model":"%s","store":false,"max_output_tokens":%d,"input":"hello"}`, p.model, p.tokens)
	}
	var reader io.Reader = strings.NewReader(body)
	if p.reads == sendsBadBody {
		reader = brokenReader{io.LimitReader(reader, 20)}
	} else if p.withoutGetBody {
		reader = io.MultiReader(reader)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://any.test"+path, reader)
	if err != nil {
		c.t.Error(err)
		return nil
	}
	if p.reads != sendsBadBody {
		req.ContentLength = int64(len(body))
	}
	c.uploads.Add(1)
	req.Body = &soakBody{ReadCloser: req.Body, open: &c.uploads}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+callersKey)
	req.Header.Set("X-Soak-Id", p.id)
	return req
}

// ask sends a request as its caller does, checks the answer, and returns its status, or 0.
func (c *soakChecks) ask(replica *spillover.Transport, p soakPlan) int {
	r := rand.New(rand.NewPCG(p.seed, 2))
	trail := new(spillover.Trail)
	ctx, cancel := p.contextOf(trail, r)
	req := c.request(ctx, p)
	c.mu.Lock()
	c.plans[p.id] = p
	c.mu.Unlock()
	if p.reads == leavesEarly {
		timer := time.AfterFunc(time.Duration(r.Int64N(int64(p.unit))), cancel)
		defer timer.Stop()
	}
	resp, err := replica.RoundTrip(req)
	assert.NotEqual(c.t, resp == nil, err == nil, "either a response or an error")
	c.answered.Add(1)
	c.trail(p, trail)
	c.mu.Lock()
	if err != nil {
		c.outcomes["error"]++
	} else {
		c.outcomes[resp.Status]++
		c.served[resp.Header.Get("X-Spillover-Backend")]++
	}
	c.mu.Unlock()
	defer func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.plans, p.id)
		delete(c.sends, p.id)
	}()
	if err != nil {
		c.noSecret("an error", err.Error())
		return 0
	}
	c.response(p, resp, r)
	return resp.StatusCode
}

// response reads a response as the caller does.
func (c *soakChecks) response(p soakPlan, resp *http.Response, r *rand.Rand) {
	header, _ := json.Marshal(resp.Header)
	c.noSecret("a header", string(header))
	var read []byte
	var err error
	switch p.reads {
	case neverCloses:
		_, _ = io.CopyN(io.Discard, resp.Body, r.Int64N(2000))
		return // its context ends
	case closesEarly:
		_, _ = io.CopyN(io.Discard, resp.Body, r.Int64N(2000))
		resp.Body.Close()
		return
	case readsSlowly:
		piece := make([]byte, 400)
		for err == nil {
			var n int
			n, err = resp.Body.Read(piece)
			read = append(read, piece[:n]...)
			time.Sleep(time.Duration(r.Int64N(int64(p.unit))))
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	default:
		read, err = io.ReadAll(resp.Body)
	}
	resp.Body.Close()
	c.noSecret("a body", string(read))
	if resp.StatusCode == http.StatusOK && p.kind == "stream" && resp.Header.Get("Content-Type") == "text/event-stream; charset=utf-8" {
		// Each token at most once, and in order.
		for i, word := range contentOf(read) {
			if !assert.Equal(c.t, c.words[i], word, "token %d of a stream", i) {
				break
			}
		}
		if err == nil && bytes.Contains(read, []byte(`"finish_reason":"stop"`)) {
			assert.Len(c.t, contentOf(read), p.tokens, "a stream that has ended")
		}
	}
}

// contentOf are the pieces of text of a stream of chat completions.
func contentOf(stream []byte) (pieces []string) {
	for line := range strings.Lines(string(stream)) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok {
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if json.Unmarshal([]byte(data), &chunk) != nil {
			continue
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content != "" {
				pieces = append(pieces, choice.Delta.Content)
			}
		}
	}
	return pieces
}

// trail checks that a request never goes to a lower tier, or to another model, while a
// deployment is left that it could have gone to.
func (c *soakChecks) trail(p soakPlan, trail *spillover.Trail) {
	text, err := json.Marshal(trail)
	if err != nil {
		c.t.Error(err)
	}
	c.noSecret("a trail", string(text))
	chain := []string{p.model}
	if p.model == "m" {
		chain = append(chain, "n")
	}
	failed := false
	rank := func(d spillover.TrailCandidate) int { return slices.Index(chain, d.Model)*100 + d.Priority }
	for _, step := range trail.Steps {
		i := slices.IndexFunc(step.Candidates, func(d spillover.TrailCandidate) bool { return d.Chosen })
		if i < 0 {
			continue
		}
		chosen := step.Candidates[i]
		assert.Contains(c.t, chain, chosen.Model, "another model than %s and its fallbacks", p.model)
		for _, d := range step.Candidates {
			// After a failure the last of MaxAttempts is kept for a lower tier.
			if !c.concurrent && !failed && chosen.Skipped == "" && d.Skipped == "" && slices.Contains(chain, d.Model) && rank(chosen) > rank(d) {
				c.mu.Lock()
				c.skipped = append(c.skipped, string(text))
				c.mu.Unlock()
				break
			}
		}
		failed = failed || step.Attempt != nil && step.Attempt.Outcome != "throttled"
	}
}

func (c *soakChecks) noSecret(where, text string) {
	for _, secret := range c.secrets {
		assert.NotContains(c.t, text, secret, "%s has a secret", where)
	}
}

// status checks what Status shows.
func (c *soakChecks) status(replicas []*spillover.Transport) {
	for _, replica := range replicas {
		status := replica.Status()
		for _, tier := range status.Tiers {
			for _, b := range tier.Backends {
				require.Less(c.t, time.Until(b.Until), 6*time.Minute, "%s is closed for too long: %s", b.Name, b.Reason)
				for _, d := range b.Deployments {
					require.GreaterOrEqual(c.t, d.InFlight, 0)
					require.Less(c.t, time.Until(d.Until), 6*time.Minute, "%s of %s is closed for too long: %s", d.Name, b.Name, d.Reason)
					require.Less(c.t, time.Until(d.AvoidedUntil), time.Hour+time.Minute, d.Name)
				}
			}
		}
	}
}

// notice sees what is published on the fleet.
func (c *soakChecks) notice(notice []byte) {
	c.noSecret("a notice", string(notice))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, slices.Clone(notice))
	if len(c.heard) > 20 {
		c.heard = c.heard[1:]
	}
}

func (c *soakChecks) lastNotices() (notices [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.heard {
		notices = append(notices, slices.Clone(n))
	}
	return notices
}

// lie changes the sender of a notice, and what it says.
func lie(notice []byte, r *rand.Rand) []byte {
	var n map[string]any
	if json.Unmarshal(notice, &n) != nil || n == nil {
		return notice
	}
	n["f"] = fmt.Sprintf("%08x", r.IntN(3))
	n["l"] = 3600_000
	n["k"] = []string{"throttled", "ejected", "recovered", "utilization", "drained", "resumed"}[r.IntN(6)]
	n["u"] = r.IntN(5000)
	lie, err := json.Marshal(n)
	if err != nil {
		return notice
	}
	return lie
}

// logger checks each record.
func (c *soakChecks) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(writerFunc(func(record []byte) (int, error) {
		c.noSecret("a log record", string(record))
		return len(record), nil
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// nothingOpen requires that every body has been closed, once no request is under way.
func (c *soakChecks) nothingOpen() {
	require.Eventually(c.t, func() bool { return c.open.Load() == 0 && c.uploads.Load() == 0 }, time.Minute, 10*time.Millisecond,
		"bodies are open: %d of responses, %d of requests", c.open.Load(), c.uploads.Load())
}

// flat requires that memory does not grow from part to part of a run.
func (c *soakChecks) flat(heap []uint64) {
	c.t.Logf("heap in use after each part, in KiB: %v", func() (kib []uint64) {
		for _, h := range heap {
			kib = append(kib, h>>10)
		}
		return kib
	}())
	early, late := slices.Min(heap[:len(heap)/2]), slices.Min(heap[len(heap)/2:])
	require.Less(c.t, late, early+4<<20, "memory grows")
}

func (c *soakChecks) end(started int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Logf("%d requests: %v; by backend %v", started, c.outcomes, c.served)
	require.GreaterOrEqual(c.t, int(c.answered.Load()), started, "each request has one answer")
	require.Empty(c.t, c.plans)
	require.LessOrEqual(c.t, len(c.skipped), 1+started/20_000, "tiers are skipped: %s", c.skipped)
	require.Greater(c.t, c.outcomes["200 OK"], started/10, "something works")
}
