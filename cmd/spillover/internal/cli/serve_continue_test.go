package cli_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

// An expecting caller sends the header of a request, and the body once it is asked for.
type expecting struct {
	net.Conn
	answers *bufio.Reader
	closes  bool // the last response ends the connection
}

// expect sends the header of a request with a body of some length.
func expect(t *testing.T, s *serving, path string, length int64, header string) *expecting {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n", path, length, header)
	require.NoError(t, err)
	return &expecting{Conn: conn, answers: bufio.NewReader(conn)}
}

// answer reads a response.
func (e *expecting) answer(t *testing.T) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(e.answers, nil)
	require.NoError(t, err)
	e.closes = resp.Close
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

// upload sends a body that is asked for.
func (e *expecting) upload(t *testing.T, body string) {
	t.Helper()
	status, _ := e.answer(t)
	require.Equal(t, http.StatusContinue, status)
	_, err := io.WriteString(e, body)
	require.NoError(t, err)
}

const (
	chatPath   = "/v1/chat/completions"
	streamPath = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21" // names the model, so that a large body is passed on while it arrives
)

func TestExpectedBodyIsAskedForAndSent(t *testing.T) {
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, `{"bytes":%d}`, n)
	}))
	for _, path := range []string{chatPath, streamPath} {
		for _, length := range []int{len(chat), 2 << 20, 40 << 20} {
			e := expect(t, s, path, int64(length), "")
			e.upload(t, strings.Repeat(" ", length-len(chat))+chat)
			status, body := e.answer(t)
			require.Equal(t, http.StatusOK, status, "%s: %s", path, body)
			require.Equal(t, fmt.Sprintf(`{"bytes":%d}`, length), body, path)
		}
	}
}

// A request that is refused for its header is refused before its body.
func TestExpectedBodyIsNotAskedForInVain(t *testing.T) {
	key, sum := keys.New()
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) {}), "-max-body", "1", "-max-body-memory", "2",
		"-keys", file(t, "keys.yaml", "keys:\n  - {name: a, sha256: "+sum+"}\n"))
	authorization := "Api-Key: " + key + "\r\n"
	for name, test := range map[string]struct {
		length int64
		header string
		status int
		code   string
	}{
		"without a key": {10, "", 401, "invalid_api_key"},
		"too large":     {2 << 20, authorization, 413, "request_too_large"},
		"bad header":    {10, authorization + "X-Spillover-Class: urgent\r\n", 400, ""},
	} {
		e := expect(t, s, chatPath, test.length, test.header)
		status, body := e.answer(t)
		require.Equal(t, test.status, status, name)
		require.Contains(t, body, test.code, name)
		require.True(t, e.closes, "%s: nothing else is read as a request", name)
	}
	slow := expect(t, s, chatPath, 700<<10, authorization)
	slow.upload(t, strings.Repeat(" ", 699<<10))
	awaitOverload(t, s, 700<<10, authorization)
	small := expect(t, s, chatPath, int64(len(chat)), authorization)
	small.upload(t, chat)
	status, _ := small.answer(t)
	require.Equal(t, http.StatusOK, status, "there is room for it")
}

// awaitOverload waits until a request with a body of some length is refused.
func awaitOverload(t *testing.T, s *serving, length int64, header string) {
	require.Eventually(t, func() bool { // what was sent must arrive first
		status, body := expect(t, s, chatPath, length, header).answer(t)
		return status == http.StatusServiceUnavailable && strings.Contains(body, "overloaded")
	}, 20*time.Second, 10*time.Millisecond)
}

// A backend that answers before the body ends the request, or the attempt.
func TestExpectedBodyOfAnEarlyAnswer(t *testing.T) {
	for status, final := range map[int]int{400: 400, 413: 413, 429: 200, 500: 200} {
		early := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		second := backend(t, func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprintf(w, `{"bytes":%d}`, n)
		})
		config := early + strings.Replace(strings.TrimPrefix(second, "backends:\n"), "name: b", "name: c, priority: 2", 1)
		s := serve(t, config)
		e := expect(t, s, chatPath, 2<<20, "")
		e.upload(t, strings.Repeat(" ", 2<<20-len(chat))+chat)
		got, body := e.answer(t)
		require.Equal(t, final, got, body)

		// Classic Azure gets this one while it arrives, so the upload breaks off, and the
		// response arrives nevertheless. It may be sent elsewhere while nothing was read of it.
		s = serve(t, strings.NewReplacer("/v1\"", "\"", "dialect: openai", "dialect: azure").Replace(config))
		e = expect(t, s, streamPath, 40<<20, "")
		if got, body = e.answer(t); got == http.StatusContinue {
			written := make(chan struct{})
			go func() {
				defer close(written)
				_, _ = io.WriteString(e, strings.Repeat(" ", 40<<20-len(chat))+chat)
			}()
			got, body = e.answer(t)
			<-written
		}
		require.Contains(t, []int{status, final}, got, body)
	}
}

// Messages of a WebSocket count like bodies, while they arrive and until they are passed on.
func TestMessagesOfAWebSocketAreBounded(t *testing.T) {
	s := serve(t, echo(t), "-max-body", "1", "-max-body-memory", "2")
	piece := []byte(`{"type":"response.create","model":"gpt-4o","x":"` + strings.Repeat("x", 900<<10))
	begin := func() (*websocket.Conn, io.WriteCloser) {
		c := dial(t, s.url+"/v1/responses", nil)
		c.SetReadLimit(-1)
		w, err := c.Writer(t.Context(), websocket.MessageText)
		require.NoError(t, err)
		_, err = w.Write(piece)
		require.NoError(t, err)
		return c, w
	}
	first, end := begin()
	begin()
	awaitOverload(t, s, 400<<10, "")
	refused, _ := begin()
	text := receive(t, refused)
	require.Contains(t, text, `"overloaded"`)
	require.Contains(t, text, `"status":503`)
	_, _, err := refused.Read(t.Context())
	require.Equal(t, websocket.StatusTryAgainLater, websocket.CloseStatus(err))

	_, err = io.WriteString(end, `"}`)
	require.NoError(t, err)
	require.NoError(t, end.Close())
	require.Contains(t, receive(t, first), "/v1/responses?model=gpt-4o")
	require.Contains(t, receive(t, first), `"response.create"`)
	for range 5 { // what was passed on does not count
		send(t, first, string(piece)+`"}`)
		require.Contains(t, receive(t, first), `"response.create"`)
	}
}

// A bound that no body could keep is a mistake of the command line.
func TestBodyMemoryMustHoldTwoBodies(t *testing.T) {
	for memory, wrong := range map[string]bool{"-1": true, "1": true, "127": true, "9223372036854775807": true, "128": false, "0": false} {
		var errors bytes.Buffer
		code := cli.Run(t.Context(), []string{"spillover", "serve", "-config", filepath.Join(t.TempDir(), "missing.yaml"), "-max-body-memory", memory},
			cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: &errors})
		require.Equal(t, 2, code)
		require.Equal(t, wrong, strings.Contains(errors.String(), "max-body-memory must be"), "%s: %s", memory, errors.String())
	}
}
