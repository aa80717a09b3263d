package spillover

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/replay"
)

// A net is a base in memory: each host answers as it was told, and everything
// that is sent is seen.
type fakeNet struct {
	mu    sync.Mutex
	hosts map[string]http.RoundTripper
	seen  []sent
}

// A sent request is what arrived, its body read.
type sent struct {
	host, path, query, body string
	header                  http.Header
	length                  int64
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func newNet() *fakeNet { return &fakeNet{hosts: map[string]http.RoundTripper{}} }

// on tells how a host answers: in turn, the last answer for ever.
func (n *fakeNet) on(host string, answers ...roundTripFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host] = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		n.mu.Lock()
		f := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		n.mu.Unlock()
		return f(req)
	})
}

func (n *fakeNet) RoundTrip(req *http.Request) (*http.Response, error) {
	s := sent{host: req.URL.Host, path: req.URL.EscapedPath(), query: req.URL.RawQuery, header: req.Header.Clone(), length: req.ContentLength}
	if req.Body != nil {
		text, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		s.body = string(text)
	}
	n.mu.Lock()
	n.seen = append(n.seen, s)
	host := n.hosts[req.URL.Host]
	n.mu.Unlock()
	if host == nil {
		return status(200, "{}")(req)
	}
	return host.RoundTrip(req)
}

// sends is how many requests reached the hosts, or all hosts if none is named.
func (n *fakeNet) sends(hosts ...string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.seen {
		if len(hosts) == 0 {
			count++
		}
		for _, h := range hosts {
			if s.host == h {
				count++
			}
		}
	}
	return count
}

// status answers with a status, a body and a header of "Name: value" lines.
func status(code int, body string, header ...string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			h.Add(name, value)
		}
		return &http.Response{
			Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
		}, nil
	}
}

// A brokenBody fails at once.
type brokenBody struct {
	io.Closer
	err error
}

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }

// broken answers with an error.
func broken(err error) roundTripFunc {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// azure is a backend of Azure's classic dialect at https://NAME.openai.azure.com.
func azure(name string, change ...func(*Backend)) Backend {
	b := Backend{Name: name, URL: "https://" + name + ".openai.azure.com", APIKey: "key-" + name}
	for _, f := range change {
		f(&b)
	}
	return b
}

func host(name string) string { return name + ".openai.azure.com" }

func priority(p int) func(*Backend) { return func(b *Backend) { b.Priority = p } }
func weight(w int) func(*Backend)   { return func(b *Backend) { b.Weight = w } }
func serves(models ...string) func(*Backend) {
	return func(b *Backend) {
		for _, m := range models {
			b.Models = append(b.Models, Model{Name: m})
		}
	}
}

// balance makes a Transport over a net.
func balance(t testing.TB, n http.RoundTripper, backends ...Backend) *Transport {
	return configured(t, Config{Base: n, Backends: backends})
}

func configured(t testing.TB, cfg Config) *Transport {
	tr, err := New(cfg)
	require.NoError(t, err)
	return tr
}

const chatPath = "/openai/deployments/m/chat/completions?api-version=2024-08-01-preview"

// newChat is a chat completion as an Azure SDK sends it.
func newChat(t testing.TB, target string) *http.Request {
	if strings.HasPrefix(target, "/") {
		target = "https://foo.openai.azure.com" + target
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, bytes.NewReader([]byte(`{"messages":[{"role":"user","content":"hi"}],"model":"m"}`)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("api-key", "example API key")
	return req
}

// newLargeChat is newChat with a body that is too large to be kept in memory: to
// send it again GetBody is asked.
func newLargeChat(t testing.TB, target string) *http.Request {
	req := newChat(t, target)
	text := `{"messages":[{"role":"user","content":"` + strings.Repeat("a", replay.MaxKept) + `"}],"model":"m"}`
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return req
}

// ask sends a request to the model m and reads the answer.
func ask(t testing.TB, rt http.RoundTripper) (resp *http.Response, body string) {
	return send(t, rt, newChat(t, chatPath))
}

func send(t testing.TB, rt http.RoundTripper, req *http.Request) (resp *http.Response, body string) {
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	return resp, read(t, resp)
}

func read(t testing.TB, resp *http.Response) string {
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(text)
}

// served is the name of the backend that answered.
func servedBy(resp *http.Response) string { return resp.Header.Get("X-Spillover-Backend") }

// table is the one that the next request finds its route in.
func (t *Transport) table() *table { return t.setup.Load().table }

// chosen is choose without the tier.
func (r *route) chosen(q *selection) *deployment {
	_, d := r.choose(q)
	return d
}

// accepts and closed are those of a request that asks for nothing in particular.
func (d *deployment) accepts(now time.Time) bool { return new(scope).accepts(d, now) }
