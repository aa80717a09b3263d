package spillover_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// playsJSON answers with a status and a JSON body that comes in pieces.
func playsJSON(t testing.TB, code int, pieces ...any) roundTripFunc {
	answer := testnet.Plays(t, append([]any{http.Header{"Content-Type": {"application/json"}}}, pieces...)...)
	return func(req *http.Request) (*http.Response, error) {
		resp, err := answer(req)
		resp.StatusCode, resp.Status = code, fmt.Sprint(code)
		return resp, err
	}
}

// A whole answer has not begun before its body has: until then it fails over.
func TestHeaderTimeoutRunsUntilTheBodyBegins(t *testing.T) {
	for name, pieces := range map[string][]any{"never": {testnet.Forever{}}, "late": {time.Minute, `{}`}, "breaks at once": {io.ErrUnexpectedEOF}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("one"), playsJSON(t, 200, pieces...))
				n.On(host("two"), playsJSON(t, 200, time.Second, `{"ok":`, time.Hour, `true}`))
				tr := streamPair(t, n, streamTimeouts(5*time.Second, 0))
				begun := time.Now()
				for _, path := range []string{chatPath, embeddingsPath} {
					resp, err := tr.RoundTrip(newChat(t, path))
					require.NoError(t, err)
					require.Equal(t, "two", servedBy(resp))
					require.LessOrEqual(t, time.Since(begun), 6*time.Second)
					require.Equal(t, `{"ok":true}`, read(t, resp), "behind its beginning HeaderTimeout is over")
					begun = time.Now()
				}
				require.Zero(t, streamsInFlight(tr))
			})
		})
	}
}

// An answer that comes when its time is over, from a base that does not heed its
// context, is not used, and is closed.
func TestAnswerAfterItsTimeIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		n := newNet()
		n.On(host("one"), func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			resp, err := status(200, "too late")(req)
			resp.Body = &closeOnce{resp.Body, func() { closed++ }}
			return resp, err
		})
		n.On(host("two"), status(200, "in time"))
		tr := streamPair(t, n, streamTimeouts(5*time.Second, 0))
		resp, body := ask(t, tr)
		require.Equal(t, "two", servedBy(resp))
		require.Equal(t, "in time", body)
		require.Equal(t, 1, closed)
		require.Equal(t, "no answer in time", streamState(t, tr, "one").LastFailure.Reason)
		require.Zero(t, streamsInFlight(tr))

		_, err := balance(t, n, azure("one", func(b *spillover.Backend) { b.HeaderTimeout = 5 * time.Second })).RoundTrip(newChat(t, chatPath))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.True(t, timeout.Temporary())
		require.Equal(t, 2, closed)
	})
}

// IdleTimeout bounds a silence inside any answer.
func TestIdleTimeoutInsideAWholeAnswer(t *testing.T) {
	for _, path := range []string{chatPath, "/openai/v1/files/file-1/content"} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), playsJSON(t, 200, `{"half":`, 1900*time.Millisecond, `"of `, testnet.Forever{}))
			n.On(host("two"), playsJSON(t, 404, `{}`))
			tr := streamPair(t, n, streamTimeouts(5*time.Second, 2*time.Second))
			req := newChat(t, path)
			if path != chatPath {
				req.Method = http.MethodGet
			}
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			begun := time.Now()
			body, err := testnet.ReadAll(t, resp)
			require.Equal(t, `{"half":"of `, body)
			require.EqualError(t, err, "spillover: the answer was silent for IdleTimeout")
			var timeout net.Error
			require.ErrorAs(t, err, &timeout)
			require.True(t, timeout.Timeout() && timeout.Temporary())
			require.Equal(t, 3900*time.Millisecond, time.Since(begun))
			require.Zero(t, streamsInFlight(tr))
		})
	}
}

// An error answer whose body is late fails over, whatever its status; where
// nobody else is left it is handed over whole, as it comes.
func TestLateErrorBodies(t *testing.T) {
	const half, rest = `{"error":{"code":"x",`, `"message":"m"}}`
	for _, code := range []int{400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, pieces := range [][]any{{20 * time.Second, half + rest}, {half, 20 * time.Second, rest}} {
					n := newNet()
					n.On(host("one"), playsJSON(t, code, pieces...))
					n.On(host("two"), ok200)
					tr := streamPair(t, n)
					begun := time.Now()
					resp, _ := ask(t, tr)
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, time.Second, time.Since(begun))
					require.Zero(t, streamsInFlight(tr))

					if code == 429 {
						continue // exhausted by refusals alone, the answer is the transport's
					}
					tr = balance(t, n, azure("one"))
					begun = time.Now()
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					require.NoError(t, err)
					require.Equal(t, code, resp.StatusCode)
					require.Equal(t, time.Second, time.Since(begun))
					require.Equal(t, half+rest, read(t, resp))
					require.Equal(t, 20*time.Second, time.Since(begun))
					require.Zero(t, streamsInFlight(tr))
				}
			})
		})
	}
}

// What has come is enough where it is a whole error, although the answer does not end.
func TestErrorBodyThatDoesNotEndIsJudgedByWhatCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("one"), playsJSON(t, 400, `{"error":{"code":"context_length_exceeded"}}`, testnet.Forever{}))
		n.On(host("two"), ok200)
		tr := streamPair(t, n)
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, "one", servedBy(resp), "it is the caller's own mistake")
		begun := time.Now()
		body, err := testnet.ReadAll(t, resp)
		require.Equal(t, `{"error":{"code":"context_length_exceeded"}}`, body)
		require.EqualError(t, err, "spillover: the body of the error answer did not come in time", "and the silence has an end")
		require.Equal(t, time.Minute, time.Since(begun))
	})
}

// A request that creates something is sent once: its late error is handed over.
func TestLateErrorOfWhatIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("one"), playsJSON(t, 400, 5*time.Second, `{"error":{}}`))
		tr := streamPair(t, n)
		req := newChat(t, "/openai/v1/batches")
		resp, body := send(t, tr, req)
		require.Equal(t, 400, resp.StatusCode)
		require.Equal(t, `{"error":{}}`, body)
		require.Equal(t, 1, n.Sends())
	})
}

// Large error answers pass whole, in time or late.
func TestLargeErrorBodiesPassWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", maxErrorBody)
		for _, pieces := range [][]any{{large + "yz"}, {large, time.Minute - 1, "yz"}, {large + "y", time.Second, "z"}, {large[:10], 2 * time.Second, large[10:] + "yz"}} {
			n := newNet()
			n.On(host("one"), playsJSON(t, 422, pieces...))
			tr := balance(t, n, azure("one"))
			_, body := ask(t, tr)
			require.True(t, large+"yz" == body)
			require.Zero(t, streamsInFlight(tr))
		}
	})
}

type closeOnce struct {
	io.ReadCloser
	closed func()
}

func (c *closeOnce) Close() error {
	if c.closed != nil {
		c.closed()
		c.closed = nil
	}
	return c.ReadCloser.Close()
}
