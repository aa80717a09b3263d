package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/internal/random"
	"github.com/spillover-go/spillover/spillovertest"
)

const (
	benchTokens = 10
	benchFirst  = 200 * time.Millisecond // to the first token
	benchNext   = 50 * time.Millisecond  // to each further one

	outage = 60 * time.Second
	period = 4 * time.Second // between two requests of an outage
)

// A benchFault is a fault of the primary.
type benchFault struct {
	number int    // of the sixteen
	name   string // as in the table
	faults []spillovertest.Fault
	// lasts is whether the fault lasts for 60 s, with a request every 4 s. Other faults
	// happen to one request.
	lasts bool
	// whole is whether the request asks for a response without a stream.
	whole bool
	// fallback is whether there is a model for requests that are too long.
	fallback bool
	// most is how many requests the primary may get in those 60 s.
	most int
}

const (
	complete = "complete"
	primary  = "primary"
	fallback = "fallback"
)

// The texts of streams of the primary that no Fault makes. Tokens are those that the
// servers send.
var benchWords = [...]string{"when", " one", " region", " is", " full", " the", " next", " one", " takes", " the"}

func benchChunks(from, to int) string {
	var b strings.Builder
	for _, word := range benchWords[from:to] {
		fmt.Fprintf(&b, `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`+"\n\n", word)
	}
	return b.String()
}

const (
	benchRole   = `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	benchFinish = `data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	benchDone   = "data: [DONE]\n\n"
	// benchUsage is a usage that no caller may see: its deployment has not answered.
	benchUsage = `data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":7777,"completion_tokens":7777,"total_tokens":15554}}` + "\n\n"
)

func answered(status int, body string, header ...string) spillovertest.Fault {
	f := spillovertest.Fault{Status: status, Body: body, Header: http.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		f.Header.Set(header[i], header[i+1])
	}
	return f
}

// twice is a fault that happens to the second attempt in the same tier, too.
func twice(f spillovertest.Fault) spillovertest.Fault {
	f.Times = 2
	return f
}

func streamed(events string) spillovertest.Fault {
	return answered(200, events, "Content-Type", "text/event-stream")
}

var (
	throttled = answered(429, `{"error":{"code":"429","message":"Requests have exceeded the rate limit. Please retry after 60 seconds."}}`, "Retry-After", "60")
	tooLong   = answered(400, `{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`)
	filtered  = answered(400, `{"error":{"message":"The response was filtered.","type":null,"param":"prompt","code":"content_filter","status":400}}`)
)

var benchFaults = []benchFault{
	{number: 1, name: "429 once, with `Retry-After: 60`", faults: []spillovertest.Fault{throttled}},
	{number: 2, name: "429 for 60 s", faults: []spillovertest.Fault{throttled}, lasts: true, most: 1},
	{number: 3, name: "500 once", faults: []spillovertest.Fault{answered(500, `{"error":{"code":"500","message":"m"}}`)}},
	{number: 4, name: "503 for 60 s", faults: []spillovertest.Fault{answered(503, `{"error":{"code":"503","message":"m"}}`)}, lasts: true, most: 4},
	{number: 5, name: "connection reset before the header", faults: []spillovertest.Fault{{Kind: spillovertest.KindReset}}},
	{number: 6, name: "silence", faults: []spillovertest.Fault{{Kind: spillovertest.KindSilent}}},
	{number: 7, name: "first token after 10 s", faults: []spillovertest.Fault{{Kind: spillovertest.KindSlow, Delay: 10 * time.Second}}},
	{number: 8, name: "cut after four tokens", faults: []spillovertest.Fault{{Kind: spillovertest.KindCut, After: 4}}},
	{number: 9, name: "stall after four tokens", faults: []spillovertest.Fault{{Kind: spillovertest.KindStall, After: 4}}},
	{number: 10, name: "malformed event after four tokens", faults: []spillovertest.Fault{streamed(benchRole + benchChunks(0, 4) + "data: {malformed\n\n" + benchChunks(4, 10) + benchFinish + benchDone)}},
	{number: 10, name: "malformed event before the first token", faults: []spillovertest.Fault{streamed(benchRole + "data: {malformed\n\n" + benchChunks(0, 10) + benchFinish + benchDone)}},
	{number: 11, name: "no `[DONE]`, all tokens", faults: []spillovertest.Fault{streamed(benchRole + benchChunks(0, 10) + benchFinish)}},
	{number: 11, name: "no `[DONE]`, and no more after four tokens", faults: []spillovertest.Fault{streamed(benchRole + benchChunks(0, 4))}},
	{number: 11, name: "no `[DONE]`, and no token", faults: []spillovertest.Fault{streamed(benchRole)}},
	{number: 12, name: "context length exceeded", faults: []spillovertest.Fault{tooLong}},
	{number: 12, name: "context length exceeded, with a fallback to another model", faults: []spillovertest.Fault{tooLong}, fallback: true},
	{number: 13, name: "content filter", faults: []spillovertest.Fault{filtered}},
	{number: 14, name: "cut before the first token", faults: []spillovertest.Fault{{Kind: spillovertest.KindCut}}},
	{number: 14, name: "cut after the first token", faults: []spillovertest.Fault{{Kind: spillovertest.KindCut, After: 1}}},
	{number: 14, name: "cut in a response without a stream", faults: []spillovertest.Fault{{Kind: spillovertest.KindCut}}, whole: true},
	{number: 15, name: "outage of 60 s, connections refused", faults: []spillovertest.Fault{{Kind: spillovertest.KindRefuse}}, lasts: true, most: 4},
	{number: 16, name: "usage in streams that end before the first token, twice", faults: []spillovertest.Fault{twice(streamed(benchRole + benchUsage))}},
	{number: 16, name: "usage without a stream, 429 once", faults: []spillovertest.Fault{throttled}, whole: true},
}

// A pipeListener is a listener in memory, whose connections work in virtual time.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A bench is a proxy before two simulated resources, and a caller.
type bench struct {
	t                 *testing.T
	primary, fallback *spillovertest.Server
	transport         *spillover.Transport
	client            *http.Client

	mu    sync.Mutex
	asked int // requests that were sent to the primary, also those that it refused
}

// RoundTrip implements [http.RoundTripper] for the requests to the resources.
func (b *bench) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Host, primary+".") {
		b.mu.Lock()
		b.asked++
		b.mu.Unlock()
	}
	return spillovertest.Network(b.primary, b.fallback).RoundTrip(r)
}

func newBench(t *testing.T, hold, modelFallback bool) *bench {
	b := &bench{t: t}
	latency := spillovertest.Latency{FirstToken: benchFirst, PerToken: benchNext}
	deployments := []spillovertest.Deployment{{Name: "m", Output: benchTokens, Latency: latency}, {Name: "m-long", Output: benchTokens, Latency: latency}}
	b.primary = spillovertest.New(spillovertest.Config{Name: primary, Deployments: deployments})
	b.fallback = spillovertest.New(spillovertest.Config{Name: fallback, Deployments: deployments})
	models := []spillover.Model{{Name: "m"}}
	cfg := spillover.Config{Base: b, HoldStreams: hold, Backends: []spillover.Backend{
		{Name: primary, URL: b.primary.URL, APIKey: "k", HeaderTimeout: 2 * time.Second, IdleTimeout: time.Second, Models: models},
		{Name: fallback, URL: b.fallback.URL, APIKey: "k", HeaderTimeout: 2 * time.Second, IdleTimeout: time.Second, Priority: 2, Models: models},
	}}
	if modelFallback {
		cfg.Backends[1].Models = []spillover.Model{{Name: "m"}, {Name: "m-long"}}
		cfg.Fallbacks = []spillover.Fallback{{Model: "m", To: []string{"m-long"}}}
	}
	var err error
	b.transport, err = spillover.New(cfg)
	require.NoError(t, err)
	s := &server{serveOptions: serveOptions{log: slog.New(slog.DiscardHandler)}}
	callers := s.newHTTPServer(t.Context(), proxy.New(proxy.Options{Transport: b.transport}))
	l := newPipeListener()
	ended := make(chan error)
	go func() { ended <- callers.Serve(l) }()
	connections := &http.Transport{DialContext: l.dial}
	b.client = &http.Client{Transport: connections}
	t.Cleanup(func() {
		connections.CloseIdleConnections()
		require.NoError(t, callers.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
		require.NoError(t, b.transport.Close())
	})
	return b
}

// A benchAnswer is what a caller sees.
type benchAnswer struct {
	seen  string
	by    string
	took  time.Duration
	usage int // total_tokens
}

// ask sends a request as an SDK does, and requires that the response is complete or ends with an error.
func (b *bench) ask(whole bool) (a benchAnswer) {
	body := `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`
	if whole {
		body = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "http://localhost/v1/chat/completions", strings.NewReader(body))
	require.NoError(b.t, err)
	req.Header.Set("Content-Type", "application/json")
	begun := time.Now()
	defer func() { a.took = time.Since(begun) }()
	resp, err := b.client.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	a.by = resp.Header.Get("X-Spillover-Backend")
	if resp.StatusCode != http.StatusOK {
		a.seen = b.refused(resp)
		return a
	}
	var text string
	var finished bool
	if whole {
		text, finished, a.usage, err = readWhole(resp.Body)
	} else {
		text, finished, a.usage, err = readStream(resp.Body)
	}
	all := strings.Join(benchWords[:], "")
	require.True(b.t, strings.HasPrefix(all, text), "a token is missing, or delivered twice: %q", text)
	switch tokens := countTokens(text); {
	case err != nil:
		a.seen = fmt.Sprintf("%d of %d tokens, then %v", tokens, benchTokens, err)
	case text == all && finished:
		a.seen = complete
	default:
		a.seen = fmt.Sprintf("**%d of %d tokens, and no error**", tokens, benchTokens)
	}
	return a
}

// refused is what a caller sees of an error response.
func (b *bench) refused(resp *http.Response) string {
	var body struct{ Error struct{ Code string } }
	require.NoError(b.t, json.NewDecoder(resp.Body).Decode(&body))
	require.NotEmpty(b.t, body.Error.Code)
	return fmt.Sprintf("the %d, `%s`", resp.StatusCode, body.Error.Code)
}

func countTokens(text string) (n int) {
	for _, word := range benchWords {
		if text == "" {
			break
		}
		text = strings.TrimPrefix(text, word)
		n++
	}
	return n
}

// A chatChunk is an event of a stream, or a response.
type chatChunk struct {
	Choices []struct {
		Delta, Message struct{ Content string }
		FinishReason   string `json:"finish_reason"`
	}
	Usage struct {
		TotalTokens int `json:"total_tokens"`
	}
	Error *struct{ Code string }
}

var (
	errConnection = errors.New("a broken connection")
	errJSON       = errors.New("an event that is not JSON")
)

// readStream reads a stream as SDKs do: up to [DONE], an error event, or the end.
func readStream(r io.Reader) (text string, finished bool, usage int, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if string(data) == "[DONE]" {
			return text, finished, usage, nil
		}
		var c chatChunk
		if json.Unmarshal(data, &c) != nil {
			return text, finished, usage, errJSON
		}
		if c.Error != nil {
			return text, finished, usage, fmt.Errorf("an error event, `%s`", c.Error.Code)
		}
		for _, choice := range c.Choices {
			text += choice.Delta.Content
			finished = finished || choice.FinishReason != ""
		}
		usage = cmp.Or(c.Usage.TotalTokens, usage)
	}
	if lines.Err() != nil {
		err = errConnection
	}
	return text, finished, usage, err
}

func readWhole(r io.Reader) (text string, finished bool, usage int, err error) {
	var c chatChunk
	if err := json.NewDecoder(r).Decode(&c); err != nil || len(c.Choices) != 1 {
		return "", false, 0, errConnection
	}
	return c.Choices[0].Message.Content, c.Choices[0].FinishReason != "", c.Usage.TotalTokens, nil
}

// run puts the fault before requests and returns a row of the table.
func (f *benchFault) run(t *testing.T, hold bool) string {
	b := newBench(t, hold, f.fallback)
	script := slices.Clone(f.faults)
	for i := range script {
		if !f.lasts && script[i].Times == 0 {
			script[i].Times = 1
		}
		script[i].Deployment = "m"
		if script[i].Kind == spillovertest.KindRefuse {
			script[i].Deployment = ""
		}
	}
	b.primary.Set(script...)
	if f.lasts {
		return f.runOutage(b)
	}
	a := b.ask(f.whole)
	require.NotContains(t, a.seen, "no error", "a response that looks complete and is not")
	if a.by == fallback && a.seen == complete {
		// "hi" and ten tokens.
		require.Equal(t, 1+benchTokens, a.usage, "the usage is that of the fallback")
	}
	return fmt.Sprintf("%s | %v | %d | %s", a.seen, a.took, b.asked, a.by)
}

// runOutage sends a request every 4 s for 60 s, and then until the primary is used again.
func (f *benchFault) runOutage(b *bench) string {
	begun := time.Now()
	var last benchAnswer
	for next := begun; next.Before(begun.Add(outage)); next = next.Add(period) {
		time.Sleep(time.Until(next))
		a := b.ask(f.whole)
		require.Equal(b.t, complete, a.seen)
		require.Equal(b.t, fallback, a.by)
		a.took = max(a.took, last.took)
		last = a
	}
	asked := b.asked
	require.LessOrEqual(b.t, asked, f.most, "requests to the primary in an outage")
	time.Sleep(time.Until(begun.Add(outage)))
	b.primary.Heal()
	for next := begun.Add(outage); ; next = next.Add(period) {
		require.Less(b.t, next.Sub(begun), 3*outage)
		time.Sleep(time.Until(next))
		a := b.ask(f.whole)
		require.Equal(b.t, complete, a.seen)
		if a.by == primary {
			return fmt.Sprintf("all %d %s | %v | %d | %s; %s again %v after the end", outage/period, last.seen, last.took, asked, last.by, a.by, next.Sub(begun.Add(outage)))
		}
	}
}

func TestFaultBench(t *testing.T) {
	chosen := random.Uint64
	random.Uint64 = func() uint64 { return 1 << 63 } // ejections without jitter
	t.Cleanup(func() { random.Uint64 = chosen })
	for _, hold := range []bool{false, true} {
		table := "| # | fault of the primary | caller sees | time | primary asked | answered by |\n|---|---|---|---|---|---|\n"
		name := map[bool]string{false: "faults", true: "held"}[hold]
		for _, f := range benchFaults {
			t.Run(name+"/"+f.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					table += fmt.Sprintf("| %d | %s | %s |\n", f.number, f.name, f.run(t, hold))
				})
			})
		}
		t.Log("\n" + table)
		if !t.Failed() {
			doctest.Section(t, filepath.Join(docs, "faultbench.md"), name, table)
		}
	}
}
