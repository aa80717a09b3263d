package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// A stalled body arrives at once up to its last byte.
type stalled struct {
	io.Reader
	release <-chan struct{}
}

func stall(text string, release <-chan struct{}) *stalled {
	return &stalled{Reader: strings.NewReader(text), release: release}
}

func (b *stalled) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		<-b.release
	}
	return n, err
}

func (b *stalled) Close() error { return nil }

// upload sends a request with a body in the background.
func upload(h http.Handler, key string, body io.Reader, length int64) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://localhost/v1/chat/completions", body)
	r.ContentLength = length
	r.Header.Set("Api-Key", key)
	w := httptest.NewRecorder()
	w.Code = 0
	go h.ServeHTTP(w, r)
	return w
}

const mib = 1 << 20

// Callers that send large bodies slowly, any number of them, do not make the process grow:
// those for which there is no room are refused, and nothing of them is sent.
func TestSlowUploadsDoNotGrowMemory(t *testing.T) {
	text := `{"model":"gpt-4o","x":"` + strings.Repeat("x", 4*mib) + `"}`
	for name, more := range map[string]string{"all models": "", "some models": ", models: [gpt-4o]"} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{}
			p := newProxy(t, n, proxy.Options{MaxBody: 8 * mib, MaxBodyMemory: 32 * mib}, entry(secret, more))
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			release := make(chan struct{})
			var all []*httptest.ResponseRecorder
			for range 200 {
				all = append(all, upload(p, secret, stall(text, release), -1))
			}
			synctest.Wait()
			runtime.GC()
			runtime.ReadMemStats(&after)
			// Buffers grow by doubling, so up to twice of the half that one key may hold.
			require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(40*mib), name)
			require.Empty(t, n.dumps(), name)
			refused := 0
			for _, w := range all {
				if w.Code == http.StatusServiceUnavailable {
					refused++
					require.Equal(t, "overloaded", code(t, w))
					require.Equal(t, "1", w.Header().Get("Retry-After"))
				}
			}
			require.GreaterOrEqual(t, refused, 196, name)
			close(release)
			synctest.Wait()
			answered := 0
			for _, w := range all {
				if w.Code == http.StatusOK {
					answered++
				}
			}
			require.Equal(t, 200-refused, answered, name)
			require.Len(t, n.got, answered, name)
			runtime.KeepAlive(all)
			w := ask(p, "POST", "/v1/chat/completions", text, "Api-Key", secret)
			require.Equal(t, http.StatusOK, w.Code, "what was held is given back")
		})
	}
}

// One key cannot take the room of the others.
func TestAKeyLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, &network{}, proxy.Options{MaxBody: 2 * mib, MaxBodyMemory: 32 * mib},
			entry(secret, "")+strings.Replace(entry(adminKey, ""), "name: test", "name: other", 1))
		release := make(chan struct{})
		text := `{"model":"gpt-4o","x":"` + strings.Repeat("x", mib) + `"}`
		for range 50 {
			upload(p, secret, stall(text, release), -1)
		}
		synctest.Wait()
		w := ask(p, "POST", "/v1/chat/completions", text, "Api-Key", secret)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		for range 5 {
			upload(p, adminKey, stall(text, release), -1)
		}
		synctest.Wait()
		w = ask(p, "POST", "/v1/chat/completions", text, "Api-Key", adminKey)
		require.Equal(t, http.StatusOK, w.Code)
		close(release)
	})
}

// A body that is declared is refused before it is read. One that the transport does not
// keep is never refused in the middle.
func TestDeclaredBodiesAreRefusedBeforeTheyAreRead(t *testing.T) {
	for _, length := range []int64{63 * mib, 31 * mib, 1} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			p := newProxy(t, &network{}, proxy.Options{MaxBodyMemory: 128 * mib}, "")
			for range 2 {
				w := upload(p, "", stall(`{"model":"gpt-4o"`, release), 40*mib) // counts as 32 MiB
				synctest.Wait()
				require.Zero(t, w.Code)
			}
			read := &countingBody{}
			w := upload(p, "", read, length)
			synctest.Wait()
			require.NotEqual(t, http.StatusServiceUnavailable, w.Code, length)
			for range 2 {
				upload(p, "", stall(`{"model":"gpt-4o"`, release), 40*mib)
			}
			synctest.Wait()
			read = &countingBody{}
			w = upload(p, "", read, length)
			synctest.Wait()
			require.Equal(t, http.StatusServiceUnavailable, w.Code, length)
			require.Equal(t, "overloaded", code(t, w))
			require.Zero(t, read.reads, "not a byte")
			close(release)
		})
	}
}

// A countingBody counts its reads.
type countingBody struct{ reads int }

func (b *countingBody) Read([]byte) (int, error) {
	b.reads++
	return 0, io.EOF
}

func (b *countingBody) Close() error { return nil }

// Without a limit nothing is refused, and the room of a request is free once it has ended,
// however it ends.
func TestBodyMemoryIsGivenBack(t *testing.T) {
	for name, test := range map[string]struct {
		limit  int64
		body   string
		answer func(*http.Request) *http.Response
		status int
	}{
		"no limit": {body: chat, status: 200},
		"answered": {limit: 2 * mib, body: chat, status: 200},
		"refused":  {limit: 2 * mib, body: `{"model":"o3"}`, status: 403},
		"invalid":  {limit: 2 * mib, body: `{"model"`, status: 400},
		"key":      {limit: 2 * mib, body: `{"model":"gpt-4o","x":"` + secret + `"}`, status: 400},
		"failed": {limit: 2 * mib, body: chat, status: 400,
			answer: func(*http.Request) *http.Response { return response(400, "{}") }},
	} {
		n := &network{answer: test.answer}
		p := newProxy(t, n, proxy.Options{MaxBody: mib, MaxBodyMemory: test.limit}, entry(secret, ", models: [gpt-4o]"))
		body := test.body + strings.Repeat(" ", mib*3/4)
		for range 5 {
			w := ask(p, "POST", "/v1/chat/completions", body, "Api-Key", secret)
			require.Equal(t, test.status, w.Code, "%s: %s", name, w.Body)
		}
	}
}
