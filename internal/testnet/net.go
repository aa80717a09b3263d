// Package testnet has what the tests of the root package share, inside of the package and
// outside of it: a network in memory, requests, answers and streams.
package testnet

import (
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A Net is a transport in memory. Each host answers as On has said, or 200.
type Net struct {
	mu    sync.Mutex
	hosts map[string]http.RoundTripper
	Seen  []Sent // the requests that arrived; to be read when none is in flight
}

// Sent is a request that arrived.
type Sent struct {
	Host, Path, Query, Body string
	Header                  http.Header
	Length                  int64
}

// RoundTripFunc is a RoundTrip method.
type RoundTripFunc func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f RoundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// New returns a network without hosts.
func New() *Net { return &Net{hosts: map[string]http.RoundTripper{}} }

// On sets how a host answers: with one answer after the other, then always with the last.
func (n *Net) On(host string, answers ...RoundTripFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host] = RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		n.mu.Lock()
		f := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		n.mu.Unlock()
		return f(req)
	})
}

// RoundTrip answers for the host of the request.
func (n *Net) RoundTrip(req *http.Request) (*http.Response, error) {
	s := Sent{Host: req.URL.Host, Path: req.URL.EscapedPath(), Query: req.URL.RawQuery, Header: req.Header.Clone(), Length: req.ContentLength}
	if req.Body != nil {
		text, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		s.Body = string(text)
	}
	n.mu.Lock()
	n.Seen = append(n.Seen, s)
	host := n.hosts[req.URL.Host]
	n.mu.Unlock()
	if host == nil {
		return Status(200, "{}")(req)
	}
	return host.RoundTrip(req)
}

// Sends returns how many requests reached the hosts, or all hosts if none is named.
func (n *Net) Sends(hosts ...string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.Seen {
		if len(hosts) == 0 {
			count++
		}
		for _, h := range hosts {
			if s.Host == h {
				count++
			}
		}
	}
	return count
}

// IdleCloser counts the calls of CloseIdleConnections.
type IdleCloser struct {
	http.RoundTripper
	Calls int
}

func (c *IdleCloser) CloseIdleConnections() { c.Calls++ }

// Last returns the last request that arrived.
func (n *Net) Last() Sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Seen[len(n.Seen)-1]
}

// Order returns the hosts in the order of the requests.
func (n *Net) Order() (hosts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.Seen {
		hosts = append(hosts, s.Host)
	}
	return hosts
}

// Nop is a transport that answers at once and reads no body, to measure what a Transport adds.
type Nop struct{}

// RoundTrip answers 200.
func (Nop) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	return &http.Response{
		Status: "200 OK", StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody, Request: req,
	}, nil
}

// Listen starts a TCP server, and returns its address. serve gets each connection.
func Listen(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// Eventually waits for what other goroutines do, for a minute at most.
func Eventually(t *testing.T, what string, done func() bool) {
	for begun := time.Now(); !done(); runtime.Gosched() {
		if time.Since(begun) > time.Minute {
			stacks := make([]byte, 1<<20)
			require.Fail(t, what, "%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}
