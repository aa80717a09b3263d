package spillovertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
)

// RoundTrip answers a request in memory, whatever its host, without a connection or a
// goroutine. Responses and their times are the same as over a network. The body of a
// response waits in Read until its next piece is due, so it works in the virtual time
// of [testing/synctest]. The errors are those that [http.Transport] would return.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := readRequest(r)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if isClosed(s.closed) {
		return nil, netError(errRefused)
	}
	in := r.WithContext(ctx) // a copy, since a Match may change it
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	in.RequestURI = r.URL.RequestURI()
	x := s.begin(in, in.RequestURI, body, make(chan struct{}))
	if err := x.awaitHeader(ctx); err != nil {
		x.finish()
		return nil, netError(err)
	}
	return &http.Response{
		Status: itoa(x.status) + " " + statusText(x.status), StatusCode: x.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: x.header, ContentLength: int64(x.length), Request: r,
		Body: &memoryBody{x: x, ctx: ctx},
	}, nil
}

// readRequest reads and closes a request's body.
func readRequest(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// netError returns the error that [http.Transport] would return.
func netError(err error) error {
	switch err {
	case errRefused:
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case errReset, errClosed:
		return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	return err
}

// A memoryBody is a response body that returns the events of an answer.
type memoryBody struct {
	x    *exchange
	ctx  context.Context
	once sync.Once

	mu   sync.Mutex // one Read at a time
	data bytes.Reader
	err  error
}

var errBodyClosed = errors.New("spillovertest: read on closed response body")

func (b *memoryBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if isClosed(b.x.left) {
		return 0, errBodyClosed
	}
	for b.err == nil && b.data.Len() == 0 && len(p) > 0 {
		e, err := b.x.event(b.ctx)
		b.data.Reset(e.data)
		if err != nil {
			b.err = bodyError(err)
			b.x.finish()
		}
	}
	if b.data.Len() > 0 {
		return b.data.Read(p)
	}
	return 0, b.err
}

func bodyError(err error) error {
	switch err {
	case errCut, errClosed:
		return io.ErrUnexpectedEOF
	case errLeft:
		return errBodyClosed
	}
	return err
}

// Close may be called while a Read waits. It ends the Read.
func (b *memoryBody) Close() error {
	b.once.Do(func() {
		close(b.x.left)
		b.x.finish()
	})
	return nil
}

// Network combines servers in memory: each request goes to the server whose URL has
// its host and port. Requests to other hosts fail with a [net.DNSError]. Network panics
// if two servers have the same host and port.
func Network(servers ...*Server) http.RoundTripper {
	n := make(network, len(servers))
	for _, s := range servers {
		u, err := url.Parse(s.URL)
		if err != nil || n[hostOf(u)] != nil {
			panic("spillovertest: two servers at " + s.URL)
		}
		n[hostOf(u)] = s
	}
	return n
}

type network map[string]*Server

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	if s := n[hostOf(r.URL)]; s != nil {
		return s.RoundTrip(r)
	}
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
		Err: "no such host", Name: r.URL.Hostname(), IsNotFound: true,
	}}
}

// hostOf returns the host and the port of a URL, by default the port of its scheme.
func hostOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
