package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A virtualServe is a proxy in memory, in virtual time.
type virtualServe struct {
	listener *pipeListener
	h1, h2   *http.Transport
}

// newVirtualServe makes the proxy that serve runs, before one backend.
func newVirtualServe(t *testing.T, o proxy.Options, backend roundTrip) *virtualServe {
	var err error
	o.Transport, err = spillover.New(spillover.Config{Base: backend, Backends: []spillover.Backend{{Name: "b", URL: "https://b.example/v1", Dialect: spillover.OpenAI, APIKey: "k"}}})
	require.NoError(t, err)
	s := &server{serveOptions: serveOptions{log: slog.New(slog.DiscardHandler)}}
	callers := s.newHTTPServer(t.Context(), proxy.New(o))
	v := &virtualServe{listener: newPipeListener()}
	v.h1 = &http.Transport{DialContext: v.listener.dial}
	v.h2 = &http.Transport{DialContext: v.listener.dial, Protocols: new(http.Protocols)}
	v.h2.Protocols.SetUnencryptedHTTP2(true)
	ended := make(chan error)
	go func() { ended <- callers.Serve(v.listener) }()
	t.Cleanup(func() {
		v.h1.CloseIdleConnections()
		v.h2.CloseIdleConnections()
		require.NoError(t, callers.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
		require.NoError(t, o.Transport.Close())
	})
	return v
}

// both runs a test with HTTP/1.1 and with HTTP/2 without TLS, in virtual time.
func both(t *testing.T, o proxy.Options, backend roundTrip, test func(*testing.T, *http.Transport)) {
	for _, name := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVirtualServe(t, o, backend)
				if name == "HTTP/2" {
					test(t, v.h2)
				} else {
					test(t, v.h1)
				}
			})
		})
	}
}

// A slowBody is a body that arrives in pieces, with a pause before each.
type slowBody struct {
	ctx   context.Context
	left  int // pieces
	piece []byte
	pause time.Duration
	rest  []byte
}

func (b *slowBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		if b.left == 0 {
			return 0, io.EOF
		}
		select {
		case <-time.After(b.pause):
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
		b.left--
		b.rest = b.piece
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *slowBody) upload(t *testing.T) *http.Request {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	b.ctx = ctx
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/v1/files", b)
	require.NoError(t, err)
	return r
}

// received is a backend that says how much it has received.
func received(r *http.Request) (*http.Response, error) {
	n := int64(0)
	if r.Body != nil {
		var err error
		if n, err = io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"bytes":%d}`, n))), ContentLength: -1, Request: r}, nil
}

// A caller that sends a byte now and then, never too late, does not hold its place for long.
func TestServeEndsUploadsThatTrickle(t *testing.T) {
	both(t, proxy.Options{}, received, func(t *testing.T, transport *http.Transport) {
		begun := time.Now()
		resp, err := transport.RoundTrip((&slowBody{left: 1000, piece: []byte("x"), pause: 20 * time.Second}).upload(t))
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
		require.Contains(t, string(text), "request_timeout")
		require.LessOrEqual(t, time.Since(begun), 70*time.Second)
	})
}

// A large upload over a slow line takes as long as it needs, also one that is passed on while it
// arrives.
func TestServeWaitsForSlowLines(t *testing.T) {
	for _, pieces := range []int{500, 1200} { // of 32 KiB
		both(t, proxy.Options{}, received, func(t *testing.T, transport *http.Transport) {
			begun := time.Now()
			resp, err := transport.RoundTrip((&slowBody{left: pieces, piece: make([]byte, 32<<10), pause: 3 * time.Second}).upload(t))
			require.NoError(t, err)
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf(`{"bytes":%d}`, pieces<<15), string(text))
			require.GreaterOrEqual(t, time.Since(begun), time.Duration(pieces)*3*time.Second)
		})
	}
}

// The time that a backend takes for a body is not the caller's.
func TestSlowBackendsDoNotMakeACallerSlow(t *testing.T) {
	backend := func(r *http.Request) (*http.Response, error) {
		for range 20 {
			time.Sleep(50 * time.Second)
			if _, err := io.CopyN(io.Discard, r.Body, 1<<20); err != nil {
				return nil, err
			}
		}
		return received(r)
	}
	both(t, proxy.Options{}, backend, func(t *testing.T, transport *http.Transport) {
		resp, err := transport.RoundTrip((&slowBody{left: 1200, piece: make([]byte, 32<<10), pause: time.Millisecond}).upload(t))
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf(`{"bytes":%d}`, 1200<<15-20<<20), string(text))
	})
}

// Neither the deadlines of the body nor those of earlier pieces end a response that takes
// long, whatever the body's form is.
func TestDeadlinesDoNotEndLongResponses(t *testing.T) {
	backend := func(r *http.Request) (*http.Response, error) {
		resp, err := received(r)
		if err != nil {
			return nil, err
		}
		pr, pw := io.Pipe()
		go func() {
			for i := range 5 {
				select {
				case <-time.After(3 * time.Minute):
				case <-r.Context().Done():
					_ = pw.CloseWithError(r.Context().Err())
					return
				}
				_, _ = fmt.Fprintf(pw, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%d\"}}]}\n\n", i)
			}
			_, _ = io.WriteString(pw, "data: [DONE]\n\n")
			_ = pw.Close()
		}()
		resp.Body = pr
		resp.Header.Set("Content-Type", "text/event-stream")
		return resp, nil
	}
	const chat = `{"model":"m","stream":true,"messages":[]}`
	both(t, proxy.Options{}, backend, func(t *testing.T, transport *http.Transport) {
		for name, body := range map[string]io.Reader{
			"with a length": strings.NewReader(chat),
			"in chunks":     io.MultiReader(strings.NewReader(chat[:5]), strings.NewReader(chat[5:])),
			"slow":          &slowBody{ctx: t.Context(), left: 1, piece: []byte(chat), pause: 55 * time.Second},
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/v1/chat/completions", body)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(r)
			require.NoError(t, err, name)
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			require.NoError(t, err, name)
			require.Contains(t, string(text), `"4"`, name)
			require.Contains(t, string(text), "[DONE]", name)
		}
	})
}

// After a body that was too slow, nothing else of the connection is understood as a request.
func TestConnectionEndsWithASlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVirtualServe(t, proxy.Options{}, received)
		conn, err := v.listener.dial(t.Context(), "", "")
		require.NoError(t, err)
		defer conn.Close()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.WriteString(conn, "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
			time.Sleep(61 * time.Second)
			_, _ = io.WriteString(conn, "GET /v1/files HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}()
		answer := bufio.NewReader(conn)
		resp, err := http.ReadResponse(answer, nil)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
		require.True(t, resp.Close)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		_, err = answer.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		<-sent
	})
}
