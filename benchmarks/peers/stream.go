package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"
)

// Events of a stream as Azure sends them; those of content have about 200 bytes.
var (
	firstEvents = []string{
		`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}` + "\n\n",
		`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n",
	}
	contentEvent = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"` +
		strings.Repeat("token ", 8) + `"},"finish_reason":null}]}` + "\n\n"
	lastEvents = []string{
		`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n",
		"data: [DONE]\n\n",
	}
)

// A pacedBase sends events over a connection of HTTP/1.1, each when it is read: a model is slower than its readers, so
// every event wakes one up.
type pacedBase struct {
	server *httptest.Server
	first  int                           // bytes up to the end of the first content
	due    atomic.Pointer[chan struct{}] // of the request in progress
}

func newPacedBase(events int) *pacedBase {
	all := append([]string{}, firstEvents...)
	for range events {
		all = append(all, contentEvent)
	}
	all = append(all, lastEvents...)
	p := &pacedBase{first: len(strings.Join(all[:3], ""))}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		due := *p.due.Load()
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for _, event := range all {
			<-due
			_, _ = io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	}))
	return p
}

func (p *pacedBase) RoundTrip(req *http.Request) (*http.Response, error) {
	due := make(chan struct{}, 1<<12)
	p.due.Store(&due)
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = "http", p.server.Listener.Addr().String()
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err == nil {
		resp.Body = pacedBody{resp.Body, due}
	}
	return resp, err
}

type pacedBody struct {
	io.ReadCloser
	due chan struct{}
}

func (b pacedBody) Read(p []byte) (int, error) {
	b.due <- struct{}{}
	return b.ReadCloser.Read(p)
}

// streams compares streams with so many events of content.
func streams(ctx context.Context, s settings, events int, names ...string) (*comparison, error) {
	base := newPacedBase(events)
	defer base.server.Close()
	var m mounts
	defer m.end()
	var candidates []candidate
	for _, name := range names {
		rt, request, err := m.add(ctx, peerNamed(name), pool{base, "https", s.backends}, 1<<10)
		if err != nil {
			return nil, err
		}
		candidates = append(candidates, candidate{name, func(n int) (usage, error) {
			var firsts []usage
			u, err := measure(n, func() error {
				first, err := readStream(rt, request(), base.first)
				firsts = append(firsts, usage{FirstContent: first})
				return err
			})
			if err == nil {
				u.FirstContent = median(firsts, func(u usage) time.Duration { return u.FirstContent })
			}
			return u, err
		}})
	}
	return compare(s, candidates...)
}

// readStream reads a stream to its end and returns how long its first bytes took.
func readStream(rt http.RoundTripper, req *http.Request, bytes int) (first time.Duration, err error) {
	var buffer [4 << 10]byte
	begun := time.Now()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for read := 0; err == nil; {
		var n int
		n, err = resp.Body.Read(buffer[:])
		if read += n; first == 0 && read >= bytes {
			first = time.Since(begun)
		}
	}
	if err != io.EOF {
		return 0, err
	}
	if first == 0 {
		return 0, fmt.Errorf("the stream had no content")
	}
	return first, nil
}
