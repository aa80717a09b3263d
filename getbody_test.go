package spillover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/connections"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

func long(text string, n int) string {
	return fmt.Sprintf(`{"model":"m","input":"%s"}`, strings.Repeat(text, n))
}

func harmlessAt(t testing.TB, tr *spillover.Transport, backend string) {
	d := spillover.DeploymentOf(t, tr, backend)
	require.Zero(t, d.InFlight.Load())
	require.Zero(t, statusOf(t, tr, backend).Failed)
	require.True(t, statusOf(t, tr, backend).Available)
}

// A body that cannot be read is no deployment's fault.
func TestBodyThatFailsHarmsNobody(t *testing.T) {
	fault := errors.New("disk lost")
	upload := func() io.ReadCloser {
		return io.NopCloser(io.MultiReader(strings.NewReader("x"), testnet.ErrorReader{Err: fault}))
	}
	for contentType, sends := range map[string]int{"application/json": 0, "multipart/form-data; boundary=x": 1} { // JSON is read before it is sent
		for _, getBody := range []func() (io.ReadCloser, error){nil, func() (io.ReadCloser, error) { return upload(), nil }} {
			n, sent := newNet(), 0
			tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent++
				return n.RoundTrip(req)
			}), azure("a"), azure("b", priority(2)))
			req := newChat(t, "/v1/files")
			req.Header.Set("Content-Type", contentType)
			req.Body, req.GetBody, req.ContentLength = upload(), getBody, replay.MaxBuffered+1
			_, err := tr.RoundTrip(req)
			require.ErrorIs(t, err, fault)
			require.Equal(t, sends, sent)
			for _, b := range []string{"a", "b"} {
				harmlessAt(t, tr, b)
			}
			harmless(t, tr)
		}
	}
}

// A copy of a body with GetBody is not held while its answer is waited for, but
// for a small one.
func TestSentBodyIsNotHeld(t *testing.T) {
	const size = 8 << 20
	held := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var during int64
	tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
		during = held()
		return ok200(req)
	}), azure("a"))
	make1 := func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(`{"model":"m","input":"`), io.LimitReader(testnet.Endless{Bytes: new(atomic.Int64)}, size))), nil
	}
	req := newChat(t, "/v1/chat/completions")
	req.Body, _ = make1()
	req.GetBody, req.ContentLength = make1, size+22
	before := held()
	send(t, tr, req)
	require.Less(t, during-before, int64(size/4))
}

// An answer that comes before the upload is through is the caller's at once,
// although the upload is stuck.
func TestEarlyAnswerDoesNotWaitForTheUpload(t *testing.T) {
	for _, code := range []int{413, 400, 429, 500, 200} {
		for _, getBody := range []bool{false, true} {
			t.Run(fmt.Sprint(code, " ", getBody), func(t *testing.T) {
				// A server that answers after ten bytes.
				l, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				defer l.Close()
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						p := make([]byte, 64<<10)
						for read := 0; ; {
							n, err := c.Read(p[read:])
							read += n
							if _, body, _ := bytes.Cut(p[:read], []byte("\r\n\r\n")); len(body) >= 10 || err != nil {
								break
							}
						}
						fmt.Fprintf(c, "HTTP/1.1 %d Early\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", code)
					}
				}()
				tr := configured(t, spillover.Config{Backends: []spillover.Backend{{Name: "a", URL: "http://" + l.Addr().String(), Dialect: spillover.AzureV1, APIKey: "k"}}})
				defer tr.Close()
				upload, caller := io.Pipe()
				req := newChat(t, "/v1/files")
				req.Header.Set("Content-Type", "multipart/form-data; boundary=x") // which is not searched
				req.Body, req.GetBody, req.ContentLength = stubborn{upload}, nil, 64<<20
				if getBody {
					req.GetBody = func() (io.ReadCloser, error) { return stubborn{upload}, nil }
				}
				defer caller.Close()
				go caller.Write(make([]byte, 64<<10)) // and then it pauses
				answered := make(chan int, 1)
				go func() {
					if resp, err := tr.RoundTrip(req); err == nil {
						answered <- resp.StatusCode
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}()
				select {
				case got := <-answered:
					require.Equal(t, code, got)
				case <-time.After(10 * time.Second):
					require.Fail(t, "the answer waits for the upload")
				}
			})
		}
	}
}

// A stubborn body's Read is not ended by Close.
type stubborn struct{ io.Reader }

func (stubborn) Close() error { return nil }

// A caller can leave although a body, which is to be sent again, is stuck.
func TestStuckRepeatCanBeLeft(t *testing.T) {
	reading, let := make(chan struct{}), make(chan struct{})
	defer close(let)
	upload := stubborn{testnet.ReaderFunc(func([]byte) (int, error) {
		close(reading)
		<-let
		return 0, io.EOF
	})}
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		go io.Copy(io.Discard, req.Body)
		<-reading
		return status(429, "{}", "Retry-After: 1")(req)
	})
	req, leave := newChat(t, "/v1/files"), make(chan struct{})
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	req.Cancel = leave
	req.Body, req.ContentLength = upload, 64<<20
	req.GetBody = func() (io.ReadCloser, error) { return upload, nil }
	ended, second := make(chan error, 1), make(chan struct{})
	tr := balance(t, base, azure("a"), spillover.Backend{Name: "b", URL: "https://b", Dialect: spillover.AzureV1, Priority: 2, Token: func(context.Context) (string, error) {
		close(second) // it is about to be sent again
		return "t", nil
	}})
	go func() {
		_, err := tr.RoundTrip(req)
		ended <- err
	}()
	<-second
	close(leave)
	select {
	case err := <-ended:
		require.EqualError(t, err, spillover.ErrRequestCanceled.Error())
	case <-time.After(10 * time.Second):
		require.Fail(t, "RoundTrip waits for the body")
	}
}

// What is made in the background is made once, whoever retries.
func TestRetryClientSendsBackgroundOnce(t *testing.T) {
	for name, test := range map[string]struct {
		path, body string
		sends      int
	}{
		"background":                  {"/v1/responses", `{"model":"m","background":true,"input":"x"}`, 1},
		"late in a long body":         {"/v1/responses", `{"model":"m","input":"` + strings.Repeat("x", replay.MaxReused) + `", "background" : true}`, 1},
		"by an escaped name":          {"/v1/responses", `{"model":"m","b\u0061ckground":true}`, 1},
		"of Azure's path":             {"/openai/v1/responses?api-version=preview", `{"model":"m","background":true}`, 1},
		"not":                         {"/v1/responses", `{"model":"m","background":false,"input":{"background":true}}`, 3},
		"not, and a long body":        {"/v1/responses", `{"model":"m","input":"` + strings.Repeat("x", replay.MaxReused) + `"}`, 3},
		"a chat, which knows no such": {chatPath, `{"messages":[],"background":false}`, 3},
	} {
		for _, answer := range []roundTripFunc{broken(errReset), status(500, "{}")} {
			for _, getBody := range []bool{true, false} {
				retrying(t, 2, []roundTripFunc{answer}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
					req := newChat(t, test.path)
					req.Body, req.ContentLength = io.NopCloser(strings.NewReader(test.body)), int64(len(test.body))
					req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(test.body)), nil }
					if !getBody {
						req.GetBody, req.ContentLength = nil, -1
					}
					if resp, err := client.Do(req); err == nil {
						read(t, resp)
					}
					require.Equal(t, test.sends, n.Sends(), name)
					for _, s := range n.Seen {
						require.True(t, s.Body == test.body, name)
					}
				})
			}
		}
	}
	// A refusal made nothing.
	retrying(t, 1, []roundTripFunc{status(429, "", "Retry-After: 1"), status(200, "{}")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
		req := newChat(t, "/v1/responses")
		req.Body, req.GetBody = io.NopCloser(strings.NewReader(`{"model":"m","background":true}`)), nil
		req.ContentLength = -1
		resp, _ := testnet.Do(t, client, req)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, 2, n.Sends())
	})
}

// A wrapped default transport does not lose what the default has.
func TestBaseUnderAWrappedDefault(t *testing.T) {
	plain, ok := http.DefaultTransport.(*http.Transport)
	require.True(t, ok)
	t.Cleanup(func() { http.DefaultTransport = plain })
	http.DefaultTransport = roundTripFunc(plain.RoundTrip)
	base := connections.NewTransport()
	require.Equal(t, plain.IdleConnTimeout, base.IdleConnTimeout)
	require.Equal(t, plain.TLSHandshakeTimeout, base.TLSHandshakeTimeout)
	require.Equal(t, plain.ExpectContinueTimeout, base.ExpectContinueTimeout)
	require.Equal(t, plain.ForceAttemptHTTP2, base.ForceAttemptHTTP2)
	require.Equal(t, plain.MaxIdleConns, base.MaxIdleConns)
	require.GreaterOrEqual(t, base.WriteBufferSize, replay.MaxKept+4<<10, "a body that is sent from memory, and a header")
	require.NotNil(t, base.DialContext, "with a timeout of 30 s")
	require.NotNil(t, base.Proxy)

	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	base.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	defer base.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	_, proto := send(t, base, req)
	require.Equal(t, "HTTP/2.0", proto)
}

// replaced is a request of which a program has replaced Body and ContentLength,
// and has forgotten GetBody.
func replaced(t testing.TB, target, old, text string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(old))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return req
}

// What is sent first is the caller's Body, as net/http does.
func TestBodyIsSentFirst(t *testing.T) {
	for name, size := range map[string]int{"small": 10, "more than is kept": 20 << 10, "large": replay.MaxReused + 1<<10} {
		for _, target := range []string{"https://x" + chatPath, v1URL, "https://x/v1/files", "https://x/unknown"} {
			for _, d := range []spillover.Dialect{spillover.Azure, spillover.AzureV1, spillover.OpenAI} {
				t.Run(fmt.Sprint(name, " ", target, " ", d), func(t *testing.T) {
					old, text := long("old", size/3), long("new!", size/4+9)
					to := spillover.Backend{Name: "a", URL: "https://a", Dialect: d, APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "renamed"}}}
					if d == spillover.Azure {
						to.APIVersion = "1"
					}
					for _, client := range []func(*spillover.Transport) http.RoundTripper{
						func(tr *spillover.Transport) http.RoundTripper { return tr },
						func(tr *spillover.Transport) http.RoundTripper { return spillover.RetryClient(tr, 2).Transport },
					} {
						n := newNet()
						resp, _ := send(t, client(balance(t, n, to)), replaced(t, target, old, text))
						require.Equal(t, 200, resp.StatusCode)
						got := strings.Replace(n.Seen[0].Body, `"model":"renamed"`, `"model":"m"`, 1)
						require.True(t, got == text, "%.60s", got)
						require.EqualValues(t, len(n.Seen[0].Body), n.Seen[0].Length)
					}
				})
			}
		}
	}
}

// A repeat is what was sent first, or nothing: a small body was kept, and what
// GetBody returns for another is not sent.
func TestRepeatIsTheSameBody(t *testing.T) {
	for name, test := range map[string]struct {
		old, text string
		again     bool
	}{
		"small":                {long("old", 10), long("new!", 10), true},
		"small, of one length": {long("old", 10), long("new", 10), true},
		"shorter before":       {long("old", 10<<10), long("new!", 20<<10), false},
		"longer before":        {long("old", 30<<10), long("new!", 10<<10), false},
		"of one length":        {long("old", 20<<10), long("new", 20<<10), false},
		"large, and shorter":   {long("old", 1<<20), long("new!", 1<<20), false},
		"large, and longer":    {long("old!", 1<<20), long("new", 1<<20), false},
	} {
		for refusal, answer := range map[string]roundTripFunc{
			"429": status(429, `"full"`, "Retry-After: 5"), "500": status(500, `"full"`), "nothing": broken(errReset),
		} {
			t.Run(name+", "+refusal, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), answer)
				tr := balance(t, n, azure("a"), azure("b", priority(2)), azure("c", priority(3)))
				resp, err := tr.RoundTrip(replaced(t, v1URL, test.old, test.text))
				for _, s := range n.Seen {
					require.True(t, s.Body == test.text, "%s: %.60s", s.Host, s.Body)
				}
				switch {
				case test.again:
					require.NoError(t, err)
					require.Equal(t, "b", servedBy(resp))
					read(t, resp)
				case refusal == "nothing":
					require.ErrorIs(t, err, errReset.Err)
					require.ErrorIs(t, err, replay.ErrOtherBody)
				default:
					require.NoError(t, err)
					require.Equal(t, "a", servedBy(resp), "its answer, as it came")
					require.Equal(t, `"full"`, read(t, resp))
				}
				harmlessAt(t, tr, "b")
			})
		}
	}
}
