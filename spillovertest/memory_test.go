package spillovertest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

const ms = time.Millisecond

var slow = spillovertest.Latency{FirstToken: 400 * ms, PerToken: 50 * ms}

// virtual runs a test in a bubble, with a server in memory.
func virtual(t *testing.T, cfg spillovertest.Config, test func(*testing.T, *spillovertest.Server)) {
	synctest.Test(t, func(t *testing.T) { test(t, spillovertest.New(cfg)) })
}

// contents returns the times at which the tokens of a stream arrived, and its end.
func contents(t *testing.T, res *http.Response, since func() time.Duration) (at []time.Duration, err error) {
	t.Helper()
	r := bufio.NewReader(res.Body)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return at, err
		}
		if strings.Contains(line, `"delta":{"content":"`) || strings.Contains(line, `.delta","`) {
			at = append(at, since())
		}
	}
}

func TestLatency(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		since := stopwatch()
		get(t, s, azurePath, hello)
		require.Equal(t, 550*ms, since())

		since = stopwatch()
		res, err := post(t, s, azurePath, helloSSE)
		require.NoError(t, err)
		require.Equal(t, 200*ms, since())
		at, err := contents(t, res, since)
		require.Equal(t, io.EOF, err)
		require.Equal(t, []time.Duration{400 * ms, 450 * ms, 500 * ms}, at)
		require.Equal(t, 500*ms, since())
		res.Body.Close()

		since = stopwatch()
		get(t, s, strings.Replace(azurePath, "chat/completions", "embeddings", 1), `{"input":"x"}`)
		require.Equal(t, 400*ms, since())

		since = stopwatch()
		get(t, s, "/openai/files", hello)
		require.Zero(t, since())
	})
}

func TestLatencyOfPromptsAndRefusals(t *testing.T) {
	l := spillovertest.Latency{PerPromptToken: 10 * ms, Refusal: 5 * ms, PerToken: ms}
	cfg := spillovertest.Config{Deployments: deployment(spillovertest.PAYG{RPM: 6}, l)}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		since := stopwatch()
		status, _, _ := get(t, s, azurePath, hello) // three tokens each way
		require.Equal(t, 200, status)
		require.Equal(t, 33*ms, since())
		status, _, _ = get(t, s, azurePath, hello)
		require.Equal(t, 429, status)
		require.Equal(t, 38*ms, since())
	})
}

// The first token is followed by batches. The end arrives with the last batch.
func TestBatches(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	cfg.Deployments[0].Batch, cfg.Deployments[0].Output = 4, 8
	for path, text := range map[string]string{azurePath: `"delta":{"content":"`, "/openai/responses?api-version=1": `"delta":"`} {
		virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
			body := `{"model":"gpt","stream":true}`
			since := stopwatch()
			res, err := post(t, s, path, body)
			require.NoError(t, err)
			at, err := contents(t, res, since)
			require.Equal(t, io.EOF, err)
			require.Equal(t, []time.Duration{400 * ms, 600 * ms, 750 * ms}, at)
			require.Equal(t, 8, s.Stats().OutputTokens)

			_, _, got := get(t, s, path, body)
			require.Contains(t, got, text+`when"`)
			require.Contains(t, got, text+` one region is full"`)
			require.Contains(t, got, text+` the next one"`)

			// A fault within a batch cuts the batch.
			s.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 3})
			res, err = post(t, s, path, body)
			require.NoError(t, err)
			b, err := io.ReadAll(res.Body)
			require.Equal(t, io.ErrUnexpectedEOF, err)
			require.Contains(t, string(b), text+` one region"`)
			require.Equal(t, 8+8+3, s.Stats().OutputTokens)
		})
	}
}

// A request can set the number of its tokens.
func TestTokensByHeader(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(spillovertest.PTU{TPM: 60_000}, spillovertest.Latency{})}
	for _, tt := range []struct {
		prompt, output, body string
		want                 string
	}{
		{"1000", "2", hello, `"prompt_tokens":1000,"completion_tokens":2,`},
		{"1000", "2000", hello, `"prompt_tokens":1000,"completion_tokens":3,`}, // no more than it asks for
		{"", "2000", `{}`, `"prompt_tokens":0,"completion_tokens":2000,`},
		{"-5", "many", hello, `"prompt_tokens":3,"completion_tokens":3,`},
	} {
		s := spillovertest.New(cfg)
		r := request(t, t.Context(), "POST", s.URL+azurePath, tt.body)
		r.Header.Set("X-Spillovertest-Prompt", tt.prompt)
		r.Header.Set("X-Spillovertest-Output", tt.output)
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Contains(t, string(b), tt.want)
	}
}

// A slow reader gets what is due immediately, and does not delay later tokens.
func TestSlowReader(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		since := stopwatch()
		res, err := post(t, s, azurePath, helloSSE)
		require.NoError(t, err)
		defer res.Body.Close()
		time.Sleep(260 * ms)
		at, err := contents(t, res, since)
		require.Equal(t, io.EOF, err)
		require.Equal(t, []time.Duration{460 * ms, 460 * ms, 500 * ms}, at)
	})
}

func TestJitter(t *testing.T) {
	latency := spillovertest.Latency{FirstToken: time.Second, Jitter: .2}
	virtual(t, spillovertest.Config{Deployments: deployment(nil, latency)}, func(t *testing.T, s *spillovertest.Server) {
		var low, high time.Duration = time.Hour, 0
		for range 200 {
			since := stopwatch()
			get(t, s, azurePath, hello)
			low, high = min(low, since()), max(high, since())
		}
		require.InDelta(t, .8, low.Seconds(), .02)
		require.InDelta(t, 1.2, high.Seconds(), .02)
		require.GreaterOrEqual(t, low, 800*ms)
		require.LessOrEqual(t, high, 1200*ms)
	})
}

// A request is admitted after its Retry-After.
func TestRetryAfter(t *testing.T) {
	for _, limit := range []spillovertest.Limit{
		spillovertest.PAYG{TPM: 60, RPM: 600}, spillovertest.PAYG{RPM: 6},
	} {
		virtual(t, spillovertest.Config{Deployments: deployment(limit, spillovertest.Latency{})}, func(t *testing.T, s *spillovertest.Server) {
			for range 12 { // six tokens each
				get(t, s, azurePath, hello)
			}
			status, h, _ := get(t, s, azurePath, hello)
			require.Equal(t, 429, status)
			wait, err := time.ParseDuration(h.Get("Retry-After") + "s")
			require.NoError(t, err)
			time.Sleep(wait - time.Second - 1)
			status, _, _ = get(t, s, azurePath, hello)
			require.Equal(t, 429, status)
			time.Sleep(time.Second + 1)
			status, _, _ = get(t, s, azurePath, hello)
			require.Equal(t, 200, status)
		})
	}
}

func TestPTURetryAfterMs(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(spillovertest.PTU{TPM: 6000}, spillovertest.Latency{})}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		get(t, s, azurePath, `{"max_tokens":800}`) // 2400 of 2000 input-equivalent tokens
		status, h, _ := get(t, s, azurePath, hello)
		require.Equal(t, 429, status)
		require.Equal(t, []string{"4", "4000", "120.0%"}, []string{
			h.Get("Retry-After"), h.Get("retry-after-ms"), h.Get("azure-openai-deployment-utilization")})
		time.Sleep(3999 * ms)
		status, h, _ = get(t, s, azurePath, hello)
		require.Equal(t, 429, status)
		require.Equal(t, []string{"1", "1"}, []string{h.Get("Retry-After"), h.Get("retry-after-ms")})
		time.Sleep(ms)
		status, _, _ = get(t, s, azurePath, hello)
		require.Equal(t, 200, status)
	})
}

// However an answer ends, a PTU is charged for what was written, once.
func TestPTUIsCorrected(t *testing.T) {
	const tenTokens = `{"messages":[{"content":"12345678"}],"max_tokens":10,"stream":true}`
	tests := []struct {
		name    string
		fault   spillovertest.Fault
		read    int // tokens before the client leaves; -1: all
		written int
		count   func(spillovertest.Stats) int
	}{
		{"to the end", spillovertest.Fault{}, -1, 10, func(s spillovertest.Stats) int { return s.Served }},
		{"cut", spillovertest.Fault{Kind: spillovertest.KindCut, After: 4}, -1, 4, func(s spillovertest.Stats) int { return s.Failed }},
		{"left", spillovertest.Fault{}, 3, 3, func(s spillovertest.Stats) int { return s.Canceled }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := spillovertest.Config{Deployments: deployment(spillovertest.PTU{TPM: 600}, slow)}
			virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
				if tt.fault.Kind != 0 {
					s.Set(tt.fault)
				}
				res, err := post(t, s, azurePath, tenTokens)
				require.NoError(t, err)
				require.Equal(t, 1, s.Stats().Deployments["gpt"].InFlight)
				r, n := bufio.NewReader(res.Body), 0
				for n != tt.read {
					line, err := r.ReadString('\n')
					if err != nil {
						break
					}
					n += strings.Count(line, `"delta":{"content":"`)
				}
				res.Body.Close()
				res.Body.Close()
				got := s.Stats()
				require.Equal(t, tt.written, got.OutputTokens)
				require.EqualValues(t, 2+3*tt.written, got.Charged)
				require.Equal(t, 2, got.PromptTokens)
				require.Equal(t, 1, tt.count(got))
				require.Zero(t, got.InFlight)
				require.Equal(t, 1, got.MaxInFlight)
				require.Less(t, got.Utilization, float64(2+3*tt.written)/200)
			})
		})
	}
}

func TestContextEndsWaiting(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	for body, after := range map[string]time.Duration{hello: 300 * ms, helloSSE: 100 * ms} {
		virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			since := stopwatch()
			_, err := s.RoundTrip(request(t, ctx, "POST", s.URL+azurePath, body))
			require.Equal(t, context.DeadlineExceeded, err)
			require.Equal(t, after, since())
			require.Equal(t, 1, s.Stats().Canceled)

			_, err = s.RoundTrip(request(t, ctx, "POST", s.URL+azurePath, body))
			require.Equal(t, context.DeadlineExceeded, err)
			require.Len(t, s.Requests(), 1) // it did not leave
		})
	}
}

func TestContextEndsReading(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		ctx, cancel := context.WithTimeout(t.Context(), 425*ms)
		defer cancel()
		since := stopwatch()
		res, err := s.RoundTrip(request(t, ctx, "POST", s.URL+azurePath, helloSSE))
		require.NoError(t, err)
		at, err := contents(t, res, since)
		require.Equal(t, context.DeadlineExceeded, err)
		require.Len(t, at, 1)
		require.Equal(t, 425*ms, since())
		require.Zero(t, s.Stats().InFlight) // even before Close
	})
}

func TestCloseEndsRead(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		res, err := post(t, s, azurePath, helloSSE)
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := io.ReadAll(res.Body)
			require.ErrorContains(t, err, "closed")
		})
		synctest.Wait()
		require.NoError(t, res.Body.Close())
		wg.Wait()
		_, err = res.Body.Read(make([]byte, 1))
		require.ErrorContains(t, err, "closed")
	})
}

func TestServerCloseEndsEverything(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := post(t, s, azurePath, hello)
			require.ErrorIs(t, err, syscall.ECONNRESET)
		})
		res, err := post(t, s, azurePath, helloSSE)
		require.NoError(t, err)
		s.Close()
		s.Close()
		_, err = io.ReadAll(res.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		wg.Wait()
		_, err = post(t, s, azurePath, hello)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Equal(t, 2, s.Stats().Canceled)
	})
}

// A body is a request body that records whether it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

// The http.RoundTripper contract: the request's body is closed, whatever
// happens, and the request is not changed.
func TestRoundTripContract(t *testing.T) {
	s := spillovertest.New(spillovertest.Config{})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	bad := errors.New("bad disk")
	for name, send := range map[string]func(*http.Request) (*http.Response, error){
		"served":    s.RoundTrip,
		"canceled":  func(r *http.Request) (*http.Response, error) { return s.RoundTrip(r.WithContext(canceled)) },
		"not found": spillovertest.Network().RoundTrip,
		"refused": func(r *http.Request) (*http.Response, error) {
			s.Set(spillovertest.Fault{Kind: spillovertest.KindRefuse})
			defer s.Heal()
			return s.RoundTrip(r)
		},
		"unreadable": func(r *http.Request) (*http.Response, error) {
			r.Body.(*body).Reader = io.MultiReader(strings.NewReader("{"), errReader{bad})
			return s.RoundTrip(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, t.Context(), "POST", s.URL+azurePath, "")
			b := &body{Reader: strings.NewReader(hello)}
			r.Body = b
			before := fmt.Sprint(r.Method, r.URL, r.Header, r.Host, r.RequestURI)
			res, err := send(r)
			require.True(t, b.closed)
			require.Equal(t, before, fmt.Sprint(r.Method, r.URL, r.Header, r.Host, r.RequestURI))
			require.Equal(t, name == "served", err == nil)
			if name == "unreadable" {
				require.Equal(t, bad, err)
			}
			if err == nil {
				require.Same(t, r, res.Request)
				require.Equal(t, "200 OK", res.Status)
				require.Equal(t, "HTTP/1.1", res.Proto)
				n, err := res.Body.Read(nil)
				require.Zero(t, n)
				require.NoError(t, err)
				res.Body.Close()
			}
		})
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestRequestWithoutBody(t *testing.T) {
	s := spillovertest.New(spillovertest.Config{})
	r, err := http.NewRequest("GET", s.URL+"/openai/models?api-version=1", nil)
	require.NoError(t, err)
	res, err := s.RoundTrip(r)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, 200, res.StatusCode)
}

func TestNetwork(t *testing.T) {
	east := spillovertest.New(spillovertest.Config{Name: "east"})
	west := spillovertest.New(spillovertest.Config{Name: "west"})
	real := spillovertest.NewServer(spillovertest.Config{})
	defer real.Close()
	client := &http.Client{Transport: spillovertest.Network(east, west, real)}
	for _, url := range []string{
		east.URL, "https://WEST.openai.azure.test:443/prefix", real.URL, "http://east.openai.azure.test", "https://north.openai.azure.test",
	} {
		res, err := client.Post(url+azurePath, "application/json", strings.NewReader(hello))
		if strings.Contains(url, "north") || strings.HasPrefix(url, "http://east") {
			var op *net.OpError
			var dns *net.DNSError
			require.ErrorAs(t, err, &op)
			require.Equal(t, "dial", op.Op)
			require.ErrorAs(t, err, &dns)
			require.True(t, dns.IsNotFound)
			continue
		}
		require.NoError(t, err)
		res.Body.Close()
	}
	for _, s := range []*spillovertest.Server{east, west, real} {
		require.Equal(t, 1, s.Stats().Requests, s.URL)
	}
	require.Equal(t, "/prefix"+azurePath, west.Requests()[0].URL)
	require.Panics(t, func() { spillovertest.Network(east, east) })
}
