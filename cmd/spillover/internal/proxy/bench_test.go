package proxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// BenchmarkProxy compares serve with a reverse proxy that does nothing else, over real
// connections on this host. The difference of their times is the latency that serve adds. With
// parallel, it is the throughput that differs.
func BenchmarkProxy(b *testing.B) {
	const body = `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`
	answers := map[string]string{
		"application/json":  `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`,
		"text/event-stream": strings.Repeat("data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n", 50) + "data: [DONE]\n\n",
	}
	for name, contentType := range map[string]string{"json": "application/json", "stream": "text/event-stream"} {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", contentType)
			if contentType == "application/json" {
				_, _ = io.WriteString(w, answers[contentType])
				return
			}
			for event := range strings.SplitAfterSeq(answers[contentType], "\n\n") {
				_, _ = io.WriteString(w, event)
				_ = http.NewResponseController(w).Flush()
			}
		}))
		defer backend.Close()
		target, err := url.Parse(backend.URL)
		require.NoError(b, err)
		base := http.DefaultTransport.(*http.Transport).Clone()
		base.MaxIdleConnsPerHost = 100
		bare := &httputil.ReverseProxy{Transport: base, FlushInterval: -1, BufferPool: new(benchBuffers), Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(target) }}
		lb, err := spillover.New(spillover.Config{Base: base, Backends: []spillover.Backend{{Name: "b", URL: backend.URL, Dialect: spillover.OpenAI, APIKey: "k"}}})
		require.NoError(b, err)
		logger := slog.New(slog.DiscardHandler)
		open := proxy.New(proxy.Options{Transport: lb, Logger: logger})
		keyed, limited := proxy.New(proxy.Options{Transport: lb, Logger: logger}), proxy.New(proxy.Options{Transport: lb, Logger: logger})
		for p, more := range map[*proxy.Proxy]string{keyed: "", limited: ", models: [gpt-4o]"} {
			set, err := keys.Parse(fmt.Appendf(nil, "keys:\n  - {name: a, sha256: %s%s}\n", keys.Sum(secret), more))
			require.NoError(b, err)
			p.SetKeys(set)
		}
		for _, kind := range []struct {
			name    string
			handler http.Handler
		}{{"bare", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex() // without it, some streams break off: net/http closes the request's body too early
			bare.ServeHTTP(w, r)
		})}, {"serve", open}, {"serve with keys", keyed}, {"serve with models", limited}} {
			server := httptest.NewServer(kind.handler)
			defer server.Close()
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
			ask := func(b *testing.B) {
				req, err := http.NewRequest("POST", server.URL+"/v1/chat/completions", strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer "+secret)
				resp, err := client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				defer resp.Body.Close()
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 || n != int64(len(answers[contentType])) {
					b.Error(resp.StatusCode, n, err)
				}
			}
			b.Run(name+"/"+kind.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					ask(b)
				}
			})
			b.Run(name+"/"+kind.name+"/parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						ask(b)
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}

// benchBuffers are the buffers of the bare proxy: it is compared with one that has some, too.
type benchBuffers struct{ pool sync.Pool }

func (b *benchBuffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, 32<<10)
}

func (b *benchBuffers) Put(buf []byte) { b.pool.Put(&buf) }
