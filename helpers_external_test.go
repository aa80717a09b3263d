package spillover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
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

// probeWait is the time after a failure from which a half-open probe waits for no other
// requests.
const probeWait = 31 * time.Second

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
func azure(name string, change ...func(*spillover.Backend)) spillover.Backend {
	b := spillover.Backend{Name: name, URL: "https://" + name + ".openai.azure.com", APIKey: "key-" + name}
	for _, f := range change {
		f(&b)
	}
	return b
}

func host(name string) string { return name + ".openai.azure.com" }

func priority(p int) func(*spillover.Backend) { return func(b *spillover.Backend) { b.Priority = p } }
func weight(w int) func(*spillover.Backend)   { return func(b *spillover.Backend) { b.Weight = w } }
func serves(models ...string) func(*spillover.Backend) {
	return func(b *spillover.Backend) {
		for _, m := range models {
			b.Models = append(b.Models, spillover.Model{Name: m})
		}
	}
}

// balance makes a Transport over a net.
func balance(t testing.TB, n http.RoundTripper, backends ...spillover.Backend) *spillover.Transport {
	return configured(t, spillover.Config{Base: n, Backends: backends})
}

func configured(t testing.TB, cfg spillover.Config) *spillover.Transport {
	tr, err := spillover.New(cfg)
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

// statusOf is the state of a backend's deployment of the model m.
func statusOf(t testing.TB, tr *spillover.Transport, backend string) spillover.DeploymentStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				if b.Name == backend && d.Model == "m" {
					return d
				}
			}
		}
	}
	require.Fail(t, "not in Status", backend)
	return spillover.DeploymentStatus{}
}

// nothingInFlight demands that every deployment has answered all its requests.
func nothingInFlight(t testing.TB, tr *spillover.Transport) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				require.Zero(t, d.InFlight, "%s %s", b.Name, d.Model)
			}
		}
	}
}

// maxErrorBody is how much of an error response is read, see docs/security.md.
const maxErrorBody = 64 << 10

// longestTrip is as long as the round trip of a refusal counts at most.
const longestTrip = 100 * time.Millisecond

// backendStatus is the state of a backend.
func backendStatus(t testing.TB, tr *spillover.Transport, name string) spillover.BackendStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			if b.Name == name {
				return b
			}
		}
	}
	require.Fail(t, "not in Status", name)
	return spillover.BackendStatus{}
}

// throttle makes a backend refuse the next request, which goes to no other one,
// and each that follows for a minute.
func throttle(t testing.TB, tr *spillover.Transport, n *fakeNet, name string) {
	n.on(host(name), status(429, "{}", "Retry-After: 60"))
	others := func(change func(string) error) {
		for _, tier := range tr.Status().Tiers {
			for _, b := range tier.Backends {
				if b.Name != name {
					require.NoError(t, change(b.Name))
				}
			}
		}
	}
	others(tr.Drain)
	ask(t, tr)
	others(tr.Resume)
	require.False(t, statusOf(t, tr, name).Available)
}

// order is the hosts in the order they were sent to.
func (n *fakeNet) order() (hosts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.seen {
		hosts = append(hosts, s.host)
	}
	return hosts
}

// streamPair is a pool of one and, in a second tier, two.
func streamPair(t testing.TB, n http.RoundTripper, change ...func(*spillover.Config)) *spillover.Transport {
	cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("one"), azure("two", priority(2))}}
	for _, f := range change {
		f(&cfg)
	}
	return configured(t, cfg)
}

// apiErrorIn is the error object of an answer's body.
func apiErrorIn(t testing.TB, body string) (e struct{ Message, Type, Param, Code any }) {
	var wrapped map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(body), &wrapped))
	require.Len(t, wrapped, 1)
	require.NoError(t, json.Unmarshal(wrapped["error"], &e))
	return e
}

// closing is the body of newChat that counts how often it is closed.
func closing(req *http.Request, closed *atomic.Int64) *http.Request {
	req.Body = countedBody{req.Body, closed}
	return req
}

type countedBody struct {
	io.ReadCloser
	closed *atomic.Int64
}

func (b countedBody) Close() error { b.closed.Add(1); return b.ReadCloser.Close() }

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

var errDNS = &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "a.openai.azure.com", IsNotFound: true}}

const wrongKey = `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`

const noDeployment = `{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}`

const noQuota = `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`

var ok200 = status(200, `{"ok":true}`)

// hung never answers.
func hung(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// firstAndSecond is a pool of two tiers.
func firstAndSecond(t testing.TB, n http.RoundTripper) *spillover.Transport {
	return balance(t, n, azure("a"), azure("b", priority(2)))
}

// sentOnce is a pool of two tiers whose requests are sent once to each: MaxAttempts
// leaves no second attempt in the first tier.
func sentOnce(t testing.TB, n http.RoundTripper) *spillover.Transport {
	return configured(t, spillover.Config{Base: n, MaxAttempts: 2, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))}})
}

// unharmed demands that nothing is held against a deployment.
func unharmed(t testing.TB, tr *spillover.Transport, backend string) {
	s := statusOf(t, tr, backend)
	require.True(t, s.Available, s.Reason)
	require.Zero(t, s.Failed)
	require.True(t, backendStatus(t, tr, backend).Available)
}

// A tracked body tells when it is closed.
type tracked struct {
	io.Reader
	closed *atomic.Int64
	once   sync.Once
}

func (b *tracked) Close() error {
	b.once.Do(func() { b.closed.Add(1) })
	return nil
}

// endless is a text without an end.
type endless struct{ read *atomic.Int64 }

var manyX = bytes.Repeat([]byte("x"), 64<<10)

func (e endless) Read(p []byte) (int, error) {
	n := copy(p, manyX)
	e.read.Add(int64(n))
	return n, nil
}

// A stalled body stays silent, until the request's context ends as with net/http.
type stalledBody struct {
	ctx    context.Context
	closed *atomic.Int64
}

func (b stalledBody) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, context.Cause(b.ctx) }

func (b stalledBody) Close() error { b.closed.Add(1); return nil }

// withBody answers with a body of the test's own.
func withBody(code int, body func(*http.Request) io.ReadCloser) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := status(code, "")(req)
		resp.Body, resp.ContentLength = body(req), -1
		return resp, err
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// background sends a request whose answer comes later.
func background(t testing.TB, tr *spillover.Transport, req *http.Request) (answer func() (resp *http.Response, body string)) {
	var resp *http.Response
	var body string
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, body = send(t, tr, req)
	}()
	synctest.Wait()
	return func() (*http.Response, string) { <-done; return resp, body }
}

// left is how long that deployment is still left alone.
func left(t testing.TB, tr *spillover.Transport, backend string) time.Duration {
	if d := statusOf(t, tr, backend); !d.Available {
		return time.Until(d.Until)
	}
	return 0
}

// slow answers after a time, or not at all once the request's context ends.
func slow(wait time.Duration, f roundTripFunc) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		select {
		case <-time.After(wait):
			return f(req)
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
}

// inTurn starts requests one after the other, all of which are under way
// together, and waits until all are answered with 200.
func inTurn(t testing.TB, tr *spillover.Transport, requests int, between time.Duration) {
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode)
		})
		synctest.Wait()
		if between > 0 {
			time.Sleep(between)
		}
	}
	all.Wait()
}

// three is a pool of a, b and c.
func three(t testing.TB, n http.RoundTripper) *spillover.Transport {
	return balance(t, n, azure("a"), azure("b"), azure("c"))
}

// with makes a request of "METHOD path body", to the caller's own host.
func with(t testing.TB, line string, header ...string) *http.Request {
	method, rest, _ := strings.Cut(line, " ")
	path, text, _ := strings.Cut(rest, " ")
	var body io.Reader
	if text != "" {
		body = strings.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://foo.openai.azure.com"+path, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	return req
}

// last is the request that was sent last.
func (n *fakeNet) last() sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen[len(n.seen)-1]
}
