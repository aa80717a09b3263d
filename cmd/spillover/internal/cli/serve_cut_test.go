package cli_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cut is a backend that breaks off in the middle of its response.
func cut(t *testing.T, kind string, withLength bool) (config string) {
	text := firstEvent
	if kind == "application/json" {
		text = `{"object":"chat.completion","choices":[`
	}
	return backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		if withLength {
			w.Header().Set("Content-Length", strconv.Itoa(len(text)+10))
		}
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
}

// cuts are the forms of responses that break off.
var cuts = []struct {
	kind       string
	withLength bool
}{{"text/event-stream", false}, {"application/json", false}, {"application/json", true}}

// A response that breaks off never looks complete to the caller.
func TestCutResponseIsABrokenConnection(t *testing.T) {
	for _, test := range cuts {
		t.Run(test.kind+", length "+strconv.FormatBool(test.withLength), func(t *testing.T) {
			s := serve(t, cut(t, test.kind, test.withLength))
			answer := raw(t, s, "GET /v1/files HTTP/1.1\r\nHost: localhost\r\n\r\n")
			head, body, found := strings.Cut(answer, "\r\n\r\n")
			require.True(t, found, answer)
			require.Contains(t, head, "HTTP/1.1 200 ")
			require.NotEmpty(t, body)
			if test.withLength {
				requireTruncated(t, answer)
			} else {
				require.Contains(t, head, "Transfer-Encoding: chunked")
				require.False(t, strings.HasSuffix(body, "0\r\n\r\n"), body)
			}
			c := dialHTTP2(t, s)
			c.get(1, "/v1/files")
			text, f := c.until(frameReset)
			require.NotEmpty(t, text)
			require.Equal(t, uint32(1), f.stream)
			require.NotEqual(t, []byte{0, 0, 0, 0}, f.payload, "an error")
		})
	}
}

// requireTruncated requires that a response is shorter than it says.
func requireTruncated(t *testing.T, answer string) {
	t.Helper()
	head, body, found := strings.Cut(answer, "\r\n\r\n")
	_, length, _ := strings.Cut(head, "Content-Length: ")
	length, _, _ = strings.Cut(length, "\r\n")
	n, err := strconv.Atoi(length)
	require.NoError(t, err, answer)
	require.True(t, found && len(body) < n, answer)
}

// HTTP/1.0, which nginx uses by default, has no chunks: there only a reset shows that the
// response is not complete.
func TestCutResponseIsAResetOfHTTP10(t *testing.T) {
	for _, test := range cuts {
		t.Run(test.kind+", length "+strconv.FormatBool(test.withLength), func(t *testing.T) {
			s := serve(t, cut(t, test.kind, test.withLength))
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = io.WriteString(conn, "GET /v1/files HTTP/1.0\r\nHost: localhost\r\n\r\n")
			require.NoError(t, err)
			answer, err := io.ReadAll(conn)
			if test.withLength {
				requireTruncated(t, string(answer))
			} else {
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
		})
	}
}
