package spillover_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/spillovertest"
)

// countedBodies is a base that knows which bodies are open.
type countedBodies struct {
	http.RoundTripper
	open, made atomic.Int64
}

func (c *countedBodies) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(req)
	if err == nil {
		c.open.Add(1)
		c.made.Add(1)
		b := &socketBody{ReadCloser: resp.Body, done: sync.OnceFunc(func() { c.open.Add(-1) })}
		context.AfterFunc(req.Context(), b.done) // net/http gives the connection up
		resp.Body = b
	}
	return resp, err
}

type socketBody struct {
	io.ReadCloser
	done func()
}

func (b *socketBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done()
	}
	return n, err
}

func (b *socketBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}

// A thousand streams over real connections, HTTP/1.1 and HTTP/2: whole ones,
// some that the servers cut, some that stall until their callers leave or close
// them. Nothing of them is left.
func TestStreamsOverSocketsLeaveNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	var servers []*spillovertest.Server
	var backends []spillover.Backend
	kind := func(k string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Header.Get("X-Kind") == k }
	}
	for i := range 4 {
		start := []func(spillovertest.Config) *spillovertest.Server{spillovertest.NewServer, spillovertest.NewTLSServer}[i%2]
		s := start(spillovertest.Config{Name: fmt.Sprintf("region%d", i)})
		script := []spillovertest.Fault{
			{Kind: spillovertest.KindCut, After: 3, Match: kind("cut")},
			{Kind: spillovertest.KindStall, After: 3, Match: kind("stall")},
		}
		if i < 2 {
			// On one of each sort, so that another one can answer.
			script = append(script,
				spillovertest.Fault{Kind: spillovertest.KindCut, Match: kind("moves")},
				spillovertest.Fault{Kind: spillovertest.KindReset, Match: kind("resets")},
				spillovertest.Fault{Kind: spillovertest.KindError, Match: kind("fails"), Header: http.Header{"Retry-After-Ms": {"1"}}})
		}
		s.Set(script...)
		servers = append(servers, s)
		backends = append(backends, spillover.Backend{Name: s.Name, URL: s.URL, Dialect: spillover.Azure, APIKey: "k", HeaderTimeout: time.Minute, IdleTimeout: time.Minute})
	}
	real := servers[1].Client().Transport.(*http.Transport).Clone() // trusts all: they share a certificate
	real.MaxIdleConnsPerHost, real.ForceAttemptHTTP2 = 200, true
	base := &countedBodies{RoundTripper: real}
	tr := configured(t, spillover.Config{Base: base, Backends: backends})

	var whole, broken, left, protocols atomic.Int64
	one := func(i int) error {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		const text = `{"messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":6}`
		// Each eight have a model of their own, as faults take a model's deployments out.
		path := strings.Replace(chatPath, "/m/", fmt.Sprintf("/m%d/", i/8), 1)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://foo.openai.azure.com"+path, strings.NewReader(text))
		if err != nil {
			return err
		}
		how := []string{"", "cut", "stall", "stall", "stall", "moves", "resets", "fails"}[i%8]
		req.Header.Set("X-Kind", how)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return fmt.Errorf("%s: %w", how, err)
		}
		protocols.Or(1 << resp.ProtoMajor)
		if how == "stall" {
			p := make([]byte, 200)
			if _, err := resp.Body.Read(p); err != nil {
				return err
			}
			left.Add(1)
			switch i % 8 {
			case 2: // leaves, and forgets to close
			case 3:
				return resp.Body.Close()
			case 4:
				context.AfterFunc(ctx, func() { resp.Body.Close() })
				go leave()
				_, _ = io.ReadAll(resp.Body)
			}
			return nil
		}
		body, err := io.ReadAll(resp.Body)
		tokens := strings.Count(string(body), `"delta":{"content":"`)
		switch {
		case how == "cut" && err != nil && tokens == 3:
			broken.Add(1)
		case how != "cut" && err == nil && tokens == 6 && strings.HasSuffix(string(body), testnet.DoneEvent):
			whole.Add(1)
		default:
			return fmt.Errorf("%s: %d tokens, %w: %s", how, tokens, err, body)
		}
		return resp.Body.Close()
	}
	var callers sync.WaitGroup
	var next atomic.Int64
	errs := make(chan error, 1000)
	for range 200 {
		callers.Go(func() {
			for i := next.Add(1); i <= 1000; i = next.Add(1) {
				if err := one(int(i - 1)); err != nil {
					errs <- err
				}
			}
		})
	}
	callers.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, []int64{500, 125, 375}, []int64{whole.Load(), broken.Load(), left.Load()})
	require.EqualValues(t, 1<<1|1<<2, protocols.Load(), "both protocols were spoken")

	testnet.Eventually(t, "requests in flight", func() bool { return streamsInFlight(tr) == 0 })
	testnet.Eventually(t, "open bodies", func() bool { return base.open.Load() == 0 })
	for _, s := range servers {
		testnet.Eventually(t, "requests in flight at "+s.Name, func() bool { return s.Stats().InFlight == 0 })
	}
	real.CloseIdleConnections()
	for _, s := range servers {
		s.Close()
	}
	testnet.Eventually(t, "goroutines left", func() bool { return runtime.NumGoroutine() <= before })
	t.Logf("%d answers over sockets", base.made.Load())
}

// Over each protocol a stream is what was sent.
func TestStreamsAreIdenticalOverEachProtocol(t *testing.T) {
	for name, start := range map[string]func(spillovertest.Config) *spillovertest.Server{
		"HTTP/1.1": spillovertest.NewServer, "HTTP/2.0": spillovertest.NewTLSServer,
	} {
		s := start(spillovertest.Config{})
		defer s.Close()
		s.Set(spillovertest.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: testnet.WholeChat})
		tr := configured(t, spillover.Config{Base: s.Client().Transport, Backends: []spillover.Backend{{URL: s.URL, Dialect: spillover.Azure, APIKey: "k"}}})
		resp, body := ask(t, tr)
		require.Equal(t, testnet.WholeChat, body)
		require.Equal(t, name, resp.Proto)
		require.Zero(t, streamsInFlight(tr))
	}
}
