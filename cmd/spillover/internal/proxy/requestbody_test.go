package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// A strictWriter notes what is done with it after its request has ended. That of net/http
// panics with HTTP/2, and with HTTP/1.1 it changes the connection of the next request.
type strictWriter struct {
	*httptest.ResponseRecorder
	ended, misused atomic.Bool
	canWrite       time.Time
}

func (w *strictWriter) use() error {
	if w.ended.Load() {
		w.misused.Store(true)
	}
	return nil
}

func (w *strictWriter) SetReadDeadline(time.Time) error    { return w.use() }
func (w *strictWriter) SetWriteDeadline(t time.Time) error { w.canWrite = t; return w.use() }
func (w *strictWriter) EnableFullDuplex() error            { return w.use() }

// azurePath names the model, so that a large body is passed on while it arrives.
const azurePath = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"

// A backend may answer before it has received the body. net/http reads on in the background,
// and such a Read may end, or begin, after the request has ended.
func TestBodyThatIsReadAfterTheEndOfItsRequest(t *testing.T) {
	for _, protocol := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			lb, err := spillover.New(spillover.Config{Backends: pool, Base: roundTrip(func(r *http.Request) (*http.Response, error) {
				if _, err := io.CopyN(io.Discard, r.Body, 3); err != nil {
					return nil, err
				}
				go func() {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = r.Body.Read(make([]byte, 1))
				}()
				synctest.Wait()
				return response(200, "{}"), nil
			})})
			require.NoError(t, err)
			defer lb.Close()
			w := &strictWriter{ResponseRecorder: httptest.NewRecorder()}
			r := httptest.NewRequest("POST", "http://localhost"+azurePath, stall("the body", release))
			r.ContentLength, r.ProtoMajor = 40*mib, protocol
			proxy.New(proxy.Options{Transport: lb}).ServeHTTP(w, r)
			require.Equal(t, http.StatusOK, w.Code)
			require.False(t, w.misused.Load())
			w.ended.Store(true)
			close(release)
			synctest.Wait()
			require.False(t, w.misused.Load(), protocol)
		})
	}
}

// net/http asks for a body with its first Read, which may be long after the header: it must
// still be able to write.
func TestBodyCanBeAskedForLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb, err := spillover.New(spillover.Config{Backends: pool, Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			time.Sleep(5 * time.Minute)
			_, err := io.Copy(io.Discard, r.Body)
			return response(200, "{}"), err
		})})
		require.NoError(t, err)
		defer lb.Close()
		w := &strictWriter{ResponseRecorder: httptest.NewRecorder()}
		read := false
		body := readFunc(func([]byte) (int, error) {
			read = true
			require.True(t, w.canWrite.After(time.Now()))
			return 0, io.EOF
		})
		r := httptest.NewRequest("POST", "http://localhost"+azurePath, body)
		r.ContentLength = 40 * mib
		proxy.New(proxy.Options{Transport: lb}).ServeHTTP(w, r)
		require.True(t, read)
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// A body that is too long ends the connection of HTTP/1.1, where the rest of it would follow.
// With HTTP/2 it ends its stream, and no other one.
func TestOnlyHTTP1ConnectionsEndWithABody(t *testing.T) {
	for protocol, want := range map[int]string{1: "close", 2: ""} {
		for _, length := range []int64{101, -1} {
			r := httptest.NewRequest("POST", "http://localhost/v1/chat/completions", strings.NewReader(strings.Repeat(" ", 101)))
			r.ContentLength, r.ProtoMajor = length, protocol
			w := httptest.NewRecorder()
			newProxy(t, &network{}, proxy.Options{MaxBody: 100}, "").ServeHTTP(w, r)
			require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
			require.Equal(t, want, w.Header().Get("Connection"), "HTTP/%d, length %d", protocol, length)
		}
	}
}
