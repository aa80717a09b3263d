package cli_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

const (
	firstEvent = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"first\"}}]}\n\n"
	lastEvent  = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"last\"}}]}\n\ndata: [DONE]\n\n"
)

// A stoppable backend streams an event, and the last one once finish is called.
func stoppable(t *testing.T) (config string, finish func()) {
	proceed := make(chan struct{})
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			_, _ = io.WriteString(w, "{}")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, firstEvent)
		w.(http.Flusher).Flush()
		select {
		case <-proceed:
			_, _ = io.WriteString(w, lastEvent)
		case <-r.Context().Done():
		}
	}), func() { close(proceed) }
}

// refusesConnections waits until nothing listens any more.
func refusesConnections(t *testing.T, s *serving) {
	t.Helper()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 20*time.Second, 10*time.Millisecond)
}

// At its end, serve announces the end of an HTTP/2 connection, and lets the streams on it
// finish.
func TestServeDrainsHTTP2WithoutTLS(t *testing.T) {
	config, finish := stoppable(t)
	s := serve(t, config)
	c := dialHTTP2(t, s)
	c.get(1, "/v1/files")
	f, err := c.next()
	require.NoError(t, err)
	for f.kind != frameData {
		f, err = c.next()
		require.NoError(t, err)
	}
	require.Contains(t, string(f.payload), "first")
	s.stop()
	_, f = c.until(frameGoAway)
	require.Equal(t, []byte{0, 0, 0, 0}, f.payload[4:8], "no error")
	refusesConnections(t, s)
	finish()
	text, _ := c.until(frameData)
	require.Contains(t, text, "last")
	for err == nil {
		_, err = c.next()
	}
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 0, s.exitCode())
}

// During the delay, connections that are kept alive are served, and end with the response.
func TestServeEndsKeptConnectionsDuringTheDelay(t *testing.T) {
	config, finish := stoppable(t)
	defer finish()
	s := serve(t, config, "-drain-delay", "5s")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	answers := bufio.NewReader(conn)
	ask := func() *http.Response {
		_, err := io.WriteString(conn, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		return resp
	}
	require.False(t, ask().Close)
	s.stop()
	s.records.await(t, "shutting down")
	require.True(t, ask().Close)
	_, err = answers.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// serveWebSockets starts a proxy with two WebSockets in use, one that is relayed as it is
// and one whose messages are read. ended gets the errors that end the backend's sides.
func serveWebSockets(t *testing.T, flags ...string) (s *serving, realtime, responses *websocket.Conn, ended chan error) {
	ended = make(chan error, 2)
	s = serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx := context.WithoutCancel(r.Context())
		_ = c.Write(ctx, websocket.MessageText, []byte("hello"))
		for err == nil {
			_, _, err = c.Read(ctx)
		}
		ended <- err
	}), flags...)
	realtime = dial(t, s.url+"/v1/realtime?model=m", nil)
	responses = dial(t, s.url+"/v1/responses", nil)
	send(t, responses, `{"type":"response.create","model":"m"}`)
	for _, c := range []*websocket.Conn{realtime, responses} {
		require.Equal(t, "hello", receive(t, c))
	}
	return s, realtime, responses, ended
}

// Both sides of a WebSocket learn that the proxy goes away, of one that is relayed as it
// is and of one whose messages are read.
func TestServeClosesWebSocketsAtItsEnd(t *testing.T) {
	s, realtime, responses, ended := serveWebSockets(t, "-shutdown-timeout", "100ms")
	s.stop()
	for _, c := range []*websocket.Conn{realtime, responses} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, _, err := c.Read(ctx)
		require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), err)
	}
	for range 2 {
		require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(<-ended))
	}
	require.Equal(t, 0, s.exitCode())
}

// A caller of a WebSocket that vanishes without a close frame holds nothing.
func TestBackendLearnsThatACallerOfAWebSocketHasVanished(t *testing.T) {
	s, realtime, responses, ended := serveWebSockets(t)
	for _, c := range []*websocket.Conn{realtime, responses} {
		require.NoError(t, c.CloseNow())
		select {
		case err := <-ended:
			require.Error(t, err)
		case <-time.After(20 * time.Second):
			require.Fail(t, "the backend's connection is open")
		}
	}
	s.records.await(t, "request", "path", "/v1/realtime", "status", "101")
	s.records.await(t, "request", "path", "/v1/responses", "status", "101")
}

// A WebSocket may be silent for longer than a caller may take for a body or a response.
func TestServeKeepsSilentWebSockets(t *testing.T) {
	s := serve(t, echo(t), "-client-timeout", "200ms")
	realtime := dial(t, s.url+"/v1/realtime?model=m", nil)
	responses := dial(t, s.url+"/v1/responses", nil)
	send(t, responses, `{"type":"response.create","model":"m"}`)
	receive(t, realtime)
	receive(t, responses)
	receive(t, responses)
	time.Sleep(600 * time.Millisecond) // what is tested is that nothing happens
	for _, c := range []*websocket.Conn{realtime, responses} {
		send(t, c, `{"type":"x"}`)
		require.JSONEq(t, `{"type":"x"}`, receive(t, c))
	}
}
