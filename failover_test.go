package spillover_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

func TestThrottledRequestFailsOver(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, `{"error":{"code":"429"}}`, "Retry-After: 7"))
	n.On(host("b"), ok200)
	resp, text := ask(t, firstAndSecond(t, n))
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, `{"ok":true}`, text)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
	require.Empty(t, resp.Header.Get("Retry-After"))
}

func TestServerErrorsEjectADeploymentUntilAProbeSucceeds(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504, 529} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), status(code, "{}"))
				tr := firstAndSecond(t, n)
				from := func() string {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
					return servedBy(resp)
				}
				for range 200 {
					require.Equal(t, "b", from())
					time.Sleep(100 * time.Millisecond)
				}
				require.LessOrEqual(t, n.Sends(host("a")), 8, "one is forgiven; then out for 1 s, 2 s, 4 s …")
				require.Greater(t, n.Sends(host("a")), 3, "and probed in between")
				for before := n.Sends(host("a")); n.Sends(host("a")) == before; { // up to the next probe
					time.Sleep(100 * time.Millisecond)
					require.Equal(t, "b", from())
				}
				require.NotEmpty(t, statusOf(t, tr, "a").Reason)

				n.On(host("a"), ok200)
				time.Sleep(probeWait)
				require.Equal(t, "a", from(), "the probe lets it back in")
				require.True(t, statusOf(t, tr, "a").Available)
				n.On(host("a"), status(code, "{}"), status(code, "{}"), ok200)
				require.Equal(t, "b", from())
				require.True(t, statusOf(t, tr, "a").Available, "one more failure is forgiven: the streak is over")
			})
		})
	}
}

func TestServerErrorWithRetryAfterClosesADeploymentUntilThen(t *testing.T) {
	for _, code := range []int{503, 529} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), status(code, "{}", "Retry-After: 20"), ok200)
			tr := firstAndSecond(t, n)
			ask(t, tr)
			require.Equal(t, time.Now().Add(20*time.Second), statusOf(t, tr, "a").Until)
			time.Sleep(20 * time.Second)
			resp, _ := ask(t, tr)
			require.Equal(t, "a", servedBy(resp))
		})
	}
}

func TestClientErrorIsReturnedWithoutFailover(t *testing.T) {
	for _, code := range []int{400, 413, 415, 422, 501 - 63} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			const text = `{"error":{"code":"content_filter",` + "\r\n\t" + `"message":"é   \u00e9"}} `
			n := newNet()
			n.On(host("a"), status(code, text, "X-Ms-Request-Id: 1"))
			tr := firstAndSecond(t, n)
			for i := range 5 {
				resp, got := ask(t, tr)
				require.Equal(t, code, resp.StatusCode)
				require.Equal(t, text, got)
				require.EqualValues(t, len(text), resp.ContentLength)
				require.Equal(t, "1", resp.Header.Get("X-Ms-Request-Id"))
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
				require.Equal(t, i+1, n.Sends())
				unharmed(t, tr, "a")
			}
		})
	}
}

func TestRequestTooLargeForOneLimitFailsOver(t *testing.T) {
	for _, code := range []int{413, 429} {
		n := newNet()
		n.On(host("a"), status(code, `{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 90000."}}`))
		tr := firstAndSecond(t, n)
		for range 5 {
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp), "the limit may be larger there")
			unharmed(t, tr, "a")
		}
	}
}

func TestClientErrorOfASingleBackendIsSentOnce(t *testing.T) {
	n := newNet()
	n.On(host("only"), status(400, "{}"))
	resp, _ := ask(t, balance(t, n, azure("only")))
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, 1, n.Sends())
}

func TestFailoverPassesTwoFailures(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(500, "{}"))
	n.On(host("b"), status(404, noDeployment))
	tr := balance(t, n, azure("a"), azure("b", priority(2)), azure("c", priority(3)))
	resp, _ := ask(t, tr)
	require.Equal(t, "c", servedBy(resp))
	require.Equal(t, "3", resp.Header.Get("X-Spillover-Attempts"))
	require.EqualValues(t, 1, statusOf(t, tr, "a").Failed)
	require.EqualValues(t, 1, statusOf(t, tr, "b").Failed)
	require.Equal(t, "404 DeploymentNotFound", statusOf(t, tr, "b").Reason)
}

func TestRequestTimeoutAndConflictWithRetryAfterFailOver(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer roundTripFunc
		sends  int
	}{
		{"408", status(408, "{}"), 2},
		{"409 with a time", status(409, "{}", "Retry-After: 3"), 2},
		{"409", status(409, "{}"), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), test.answer)
			tr := firstAndSecond(t, n)
			for i := range 5 {
				ask(t, tr)
				require.Equal(t, test.sends*(i+1), n.Sends())
				unharmed(t, tr, "a")
			}
		})
	}
}

func TestConnectionErrorClosesTheWholeBackend(t *testing.T) {
	for name, err := range map[string]error{
		"DNS":           errDNS,
		"refused":       errRefused,
		"no TLS":        tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"},
		"TLS alert":     &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")},
		"authority":     &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"host name":     x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a"},
		"TLS handshake": errors.New("net/http: TLS handshake timeout"),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), broken(err))
			tr := firstAndSecond(t, n)
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			first := tr.Status().Tiers[0].Backends[0]
			require.False(t, first.Available, "the backend as a whole")
			require.Equal(t, "no connection", first.Reason)
			for range 5 {
				send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/other/", 1)))
			}
			require.Equal(t, 1, n.Sends(host("a")), "its other models are not tried either")
		})
	}
}

func TestErrorJoinsTheErrorsOfAllBackends(t *testing.T) {
	n := newNet()
	n.On(host("a"), broken(errRefused))
	n.On(host("b"), broken(fmt.Errorf("lookup: %w", errDNS)))
	n.On(host("c"), broken(io.ErrUnexpectedEOF))
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.Nil(t, resp)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	var dns *net.DNSError
	require.ErrorAs(t, err, &dns)
	for _, name := range []string{"a: ", "b: ", "c: "} {
		require.ErrorContains(t, err, name)
	}
	require.NotContains(t, err.Error(), "key-")
	require.NotContains(t, err.Error(), "example API key")
	for _, name := range []string{"a", "b", "c"} {
		require.True(t, statusOf(t, tr, name).Available, "a request that fails everywhere takes nothing down")
	}
}

func TestErrorIsATimeoutOnlyIfAllAttemptsTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), hung)
		n.On(host("b"), hung)
		impatient := func(b *spillover.Backend) { b.HeaderTimeout = time.Second }
		_, err := balance(t, n, azure("a", impatient), azure("b", impatient)).RoundTrip(newChat(t, chatPath))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())

		n.On(host("b"), broken(errReset))
		_, err = balance(t, n, azure("a", impatient), azure("b", impatient)).RoundTrip(newChat(t, chatPath))
		require.ErrorAs(t, err, &timeout)
		require.False(t, timeout.Timeout())
	})
}

func TestHeaderTimeoutFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), hung)
		tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.HeaderTimeout = 3 * time.Second }), azure("b", priority(2)))
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, 1, n.Sends(host("a")))
		require.True(t, statusOf(t, tr, "a").Available, "the first is ignored")
		require.True(t, statusOf(t, tr, "b").Available)
		ask(t, tr)
		s := statusOf(t, tr, "a")
		require.Equal(t, "no answer in time", s.Reason)
		require.LessOrEqual(t, time.Until(s.Until), 2400*time.Millisecond, "not out for long")
		require.Zero(t, s.InFlight)

		n.On(host("a"), slow(3*time.Second-1, ok200))
		time.Sleep(probeWait)
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

// HeaderTimeout ends with the first byte of the body: what is late behind that
// is not its concern.
func TestHeaderTimeoutEndsWithTheFirstByteOfTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), withBody(200, func(req *http.Request) io.ReadCloser {
			return io.NopCloser(io.MultiReader(strings.NewReader("not "), testnet.ReaderFunc(func([]byte) (int, error) {
				time.Sleep(time.Hour)
				return 0, io.EOF
			}), stoppable(req.Context(), "late")))
		}))
		tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.HeaderTimeout = time.Second }))
		_, text := ask(t, tr)
		require.Equal(t, "not late", text)
	})
}

// An answer that comes at the very moment of the timeout is handed over whole
// or not at all.
func TestAnswerAtTheHeaderTimeoutIsWholeOrAbsent(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			late := withBody(200, func(req *http.Request) io.ReadCloser {
				return io.NopCloser(io.MultiReader(testnet.ReaderFunc(func([]byte) (int, error) {
					time.Sleep(time.Second)
					return 0, io.EOF
				}), stoppable(req.Context(), "whole")))
			})
			n.On(host("a"), func(req *http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				return late(req)
			})
			n.On(host("b"), status(200, "whole"))
			_, text := ask(t, balance(t, n, azure("a", func(b *spillover.Backend) { b.HeaderTimeout = time.Second }), azure("b", priority(2))))
			require.Equal(t, "whole", text)
		})
	}
}

// stoppable is a text that cannot be read once a context has ended.
func stoppable(ctx context.Context, text string) io.Reader {
	r := strings.NewReader(text)
	return testnet.ReaderFunc(func(p []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

func TestCancelledRequestIsNeutral(t *testing.T) {
	var closed atomic.Int64
	stalling := func(code int) roundTripFunc {
		return withBody(code, func(req *http.Request) io.ReadCloser { return stalledBody{req.Context(), &closed} })
	}
	for _, test := range []struct {
		name   string
		after  time.Duration
		answer roundTripFunc
		sends  int
	}{
		{"before", 0, ok200, 0},
		{"during a send", time.Second, hung, 1},
		{"while an error answer comes", 100 * time.Millisecond, stalling(500), 1},
		{"while a refusal comes", 100 * time.Millisecond, stalling(401), 1},
		{"while the answer to a mistake comes", 100 * time.Millisecond, stalling(400), 1},
		{"while the answer comes", time.Hour, stalling(200), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answer)
				n.On(host("b"), test.answer)
				tr := firstAndSecond(t, n)
				for i := range 5 {
					ctx, cancel := context.WithCancel(t.Context())
					if test.after == 0 {
						cancel()
					}
					time.AfterFunc(test.after, cancel)
					resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					require.ErrorIs(t, err, context.Canceled)
					require.Equal(t, test.sends*(i+1), n.Sends(host("a")))
					require.True(t, statusOf(t, tr, "a").Available, "nothing is held against it")
					require.True(t, backendStatus(t, tr, "a").Available)
				}
				require.Zero(t, n.Sends(host("b")))
				nothingInFlight(t, tr)
			})
		})
	}
}

func TestExpiredDeadlineIsNeutral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), hung)
		tr := firstAndSecond(t, n)
		for i := range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, i+1, n.Sends(host("a")))
			unharmed(t, tr, "a")
		}
		require.Zero(t, n.Sends(host("b")))
	})
}

func TestMaxAttemptsCapsAttemptsButNotThrottles(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer roundTripFunc
		most   int
		sends  int
	}{
		{"3 by default", status(500, "{}"), 0, 3},
		{"as configured", status(500, "{}"), 5, 5},
		{"no answers", broken(errReset), 0, 3},
		{"wrong keys", status(401, wrongKey), 0, 3},
		{"throttles are not counted", status(429, "{}"), 0, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNet()
			var backends []spillover.Backend
			for i := range 9 {
				n.On(host(fmt.Sprint("b", i)), test.answer)
				backends = append(backends, azure(fmt.Sprint("b", i)))
			}
			resp, err := configured(t, spillover.Config{Base: n, Backends: backends, MaxAttempts: test.most}).RoundTrip(newChat(t, chatPath))
			require.True(t, (resp == nil) != (err == nil))
			require.Equal(t, test.sends, n.Sends())
		})
	}
}

func TestFailoverUsesTheBasePathOfEachBackend(t *testing.T) {
	n := newNet()
	n.On("a.example.com", status(429, "{}"))
	n.On("b.example.com", status(429, "{}"))
	under := func(url string, p int) spillover.Backend {
		return spillover.Backend{Name: url, URL: url, Dialect: spillover.Azure, APIKey: "k", Priority: p}
	}
	ask(t, balance(t, n, under("https://a.example.com/ai", 1), under("https://b.example.com/ai/", 2), under("https://c.example.com", 3)))
	const path = "/openai/deployments/m/chat/completions"
	var paths []string
	for _, s := range n.Seen {
		paths = append(paths, s.Path)
	}
	require.Equal(t, []string{"/ai" + path, "/ai" + path, path}, paths)
}

func TestCredentialsDoNotTravelBetweenBackends(t *testing.T) {
	keyless := func(b *spillover.Backend) { b.APIKey = "" }
	for _, test := range []struct {
		name     string
		backends []spillover.Backend
		keys     []string
	}{
		{"a key, then none", []spillover.Backend{azure("a"), azure("b", priority(2), keyless)}, []string{"key-a", "example API key"}},
		{"none, then a key", []spillover.Backend{azure("a", keyless), azure("b", priority(2))}, []string{"example API key", "key-b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), status(429, "{}"))
			ask(t, balance(t, n, test.backends...))
			for i, key := range test.keys {
				require.Equal(t, []string{key}, n.Seen[i].Header["Api-Key"])
				require.NotContains(t, n.Seen[i].Header, "Authorization")
			}
		})
	}
}

func TestBodyIsIdenticalInEveryAttempt(t *testing.T) {
	t.Parallel()
	text := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("all work ", 1<<20/9) + `"}],"model":"m" }`)
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	require.NoError(t, w.WriteField("model", "m"))
	file, err := w.CreateFormFile("file", "speech.mp3")
	require.NoError(t, err)
	for i := range 1 << 20 {
		file.Write([]byte{byte(i * i >> 3)})
	}
	require.NoError(t, w.Close())
	const transcriptions = "https://x/openai/deployments/m/audio/transcriptions?api-version=1"
	for _, test := range []struct {
		name, target, contentType string
		body                      []byte
	}{
		{"JSON", "https://x" + chatPath, "application/json", text},
		{"JSON, the model in the body", "https://x/v1/chat/completions", "application/json", text},
		{"multipart", transcriptions, w.FormDataContentType(), form.Bytes()},
	} {
		for _, getBody := range []bool{true, false} {
			t.Run(fmt.Sprint(test.name, ", GetBody ", getBody), func(t *testing.T) {
				n := newNet()
				n.On(host("a"), status(429, "{}"))
				n.On(host("b"), status(500, "{}"))
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, test.target, bytes.NewReader(test.body))
				require.NoError(t, err)
				req.Header.Set("Content-Type", test.contentType)
				if !getBody {
					req.GetBody = nil
				}
				resp, _ := send(t, balance(t, n, azure("a"), azure("b", priority(2)), azure("c", priority(3))), req)
				require.Equal(t, "c", servedBy(resp))
				for _, s := range n.Seen {
					require.True(t, s.Body == string(test.body))
					require.EqualValues(t, len(test.body), s.Length)
				}
			})
		}
	}
}

func TestModelIsReplacedInTheOriginalBodyOfEachAttempt(t *testing.T) {
	text := `{"messages":[{"content":"` + strings.Repeat("model ", 1<<10) + `"}], "model" : "m" ,"n":1}`
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	named := func(name string) func(*spillover.Backend) {
		return func(b *spillover.Backend) {
			b.Dialect, b.Models = spillover.AzureV1, []spillover.Model{{Name: "m", Deployment: name}}
		}
	}
	tr := balance(t, n, azure("a", named("a-very-long-name")), azure("b", named("b"), priority(2)))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.openai.com/v1/chat/completions", strings.NewReader(text))
	require.NoError(t, err)
	send(t, tr, req)
	for i, name := range []string{"a-very-long-name", "b"} {
		want := strings.Replace(text, `"m"`, `"`+name+`"`, 1)
		require.Equal(t, want, n.Seen[i].Body, "from the original each time")
		require.EqualValues(t, len(want), n.Seen[i].Length)
	}
}

func TestBodyWithoutGetBodyIsReplayed(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		n := newNet()
		n.On(host("a"), status(429, "{}"))
		req := newChat(t, chatPath)
		req.GetBody = nil
		if chunked {
			req.ContentLength = -1
		}
		resp, _ := send(t, firstAndSecond(t, n), req)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, n.Seen[0].Body, n.Seen[1].Body)
		require.EqualValues(t, len(n.Seen[0].Body), n.Seen[1].Length)
	}
}

// discarding is a base that counts a body and forgets it.
func discarding(count *atomic.Int64, answer roundTripFunc) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		n, err := io.Copy(io.Discard, req.Body)
		req.Body.Close()
		count.Add(n)
		if err != nil {
			return nil, err
		}
		return answer(req)
	}
}

func TestBodyTooLargeToBufferIsSentOnce(t *testing.T) {
	t.Parallel()
	const size = replay.MaxBuffered + 1<<20
	for name, test := range map[string]struct {
		length int64
		answer roundTripFunc
	}{
		"throttled": {size, status(429, `{"error":{"code":"429","message":"as it came"}}`, "Retry-After: 3")},
		"failed":    {-1, status(500, `{"error":{"message":"as it came"}}`)},
	} {
		t.Run(name, func(t *testing.T) {
			var count, read, closed atomic.Int64
			tr := firstAndSecond(t, discarding(&count, test.answer))
			req := newChat(t, chatPath)
			req.Body = &testnet.Tracked{Reader: io.LimitReader(testnet.Endless{Bytes: &read}, size), Closed: &closed}
			req.GetBody, req.ContentLength = nil, test.length
			resp, text := send(t, tr, req)
			require.Contains(t, text, "as it came", "the answer itself")
			require.Equal(t, "a", servedBy(resp))
			require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			require.EqualValues(t, size, count.Load(), "sent whole, and once")
			require.EqualValues(t, 1, closed.Load())
		})
	}
}

// An attempt that does not touch the body leaves it for the next.
func TestLargeBodyThatWasNotReadFailsOver(t *testing.T) {
	const size = replay.MaxBuffered + 1
	var count, read, closed atomic.Int64
	tr := firstAndSecond(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == host("a") {
			req.Body.Close()
			return nil, errRefused
		}
		return discarding(&count, ok200)(req)
	}))
	req := newChat(t, chatPath)
	req.Body = &testnet.Tracked{Reader: io.LimitReader(testnet.Endless{Bytes: &read}, size), Closed: &closed}
	req.GetBody, req.ContentLength = nil, size
	resp, _ := send(t, tr, req)
	require.Equal(t, "b", servedBy(resp))
	require.EqualValues(t, size, count.Load())
	require.EqualValues(t, 1, closed.Load())
}

// The beginning of a large body is held once, also where the model is to be
// found in it.
func TestLargeBodyIsBufferedOnlyOnce(t *testing.T) {
	const size = replay.MaxBuffered + 1<<20
	for _, target := range []string{"https://x" + chatPath, "https://api.openai.com/v1/chat/completions"} {
		var count, read, closed atomic.Int64
		var before, during runtime.MemStats
		tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			runtime.GC()
			runtime.ReadMemStats(&during)
			return discarding(&count, ok200)(req)
		}), azure("a"))
		req := newChat(t, target)
		req.Body = &testnet.Tracked{Closed: &closed, Reader: io.MultiReader(strings.NewReader(`{"model":"m","input":"`), io.LimitReader(testnet.Endless{Bytes: &read}, size))}
		req.GetBody, req.ContentLength = nil, -1
		runtime.GC()
		runtime.ReadMemStats(&before)
		resp, _ := send(t, tr, req)
		require.Equal(t, 200, resp.StatusCode)
		held := int64(during.HeapAlloc) - int64(before.HeapAlloc)
		require.Less(t, held, int64(2*replay.MaxBuffered+replay.MaxBuffered/2), "%s: a buffer grows by doubling", target)
	}
}

func TestNoFailoverAfterTheAnswerBegan(t *testing.T) {
	n := newNet()
	n.On(host("a"), withBody(200, func(*http.Request) io.ReadCloser {
		return io.NopCloser(io.MultiReader(strings.NewReader("half"), testnet.BrokenBody{Err: io.ErrUnexpectedEOF}))
	}))
	tr := firstAndSecond(t, n)
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.Equal(t, "half", string(text))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 1, n.Sends())
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}

func TestEndlessErrorBodyIsNotReadToItsEnd(t *testing.T) {
	var read, closed atomic.Int64
	n := newNet()
	n.On(host("a"), withBody(500, func(*http.Request) io.ReadCloser {
		return &testnet.Tracked{Reader: testnet.Endless{Bytes: &read}, Closed: &closed}
	}))
	tr := sentOnce(t, n)
	resp, _ := ask(t, tr)
	require.Equal(t, "b", servedBy(resp))
	require.LessOrEqual(t, read.Load(), int64(2*maxErrorBody))
	require.EqualValues(t, 1, closed.Load())
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}

func TestStalledErrorBodyFailsOverAfterASecond(t *testing.T) {
	for _, code := range []int{400, 401, 404, 408, 409, 413, 422, 429, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			var closed atomic.Int64
			n := newNet()
			n.On(host("a"), withBody(code, func(req *http.Request) io.ReadCloser { return stalledBody{req.Context(), &closed} }))
			tr := firstAndSecond(t, n)
			began := time.Now()
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			require.Equal(t, time.Second, time.Since(began))
			require.EqualValues(t, 1, closed.Load())
			require.Zero(t, statusOf(t, tr, "a").InFlight)
		})
	}
}

// The caller still sees what came of the last answer, and that it was cut.
func TestStalledErrorBodyOfTheLastAnswerIsReturnedCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int64
		n := newNet()
		n.On(host("a"), withBody(500, func(req *http.Request) io.ReadCloser {
			return struct {
				io.Reader
				io.Closer
			}{io.MultiReader(strings.NewReader("half"), stalledBody{req.Context(), &closed}), stalledBody{closed: &closed}}
		}))
		tr := balance(t, n, azure("a"))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, 500, resp.StatusCode)
		text, err := io.ReadAll(resp.Body)
		require.Equal(t, "half", string(text))
		require.Error(t, err)
		resp.Body.Close()
		require.Zero(t, statusOf(t, tr, "a").InFlight)
	})
}

func TestEveryAnswerIsClosed(t *testing.T) {
	t.Parallel()
	var opened, closed atomic.Int64
	n := newNet()
	answers := map[string]int{"a": 429, "b": 500, "c": 401, "d": 408, "e": 503}
	cfg := spillover.Config{Base: n, MaxAttempts: 100}
	for name, code := range answers {
		cfg.Backends = append(cfg.Backends, azure(name))
		n.On(host(name), withBody(code, func(*http.Request) io.ReadCloser {
			opened.Add(1)
			return &testnet.Tracked{Reader: strings.NewReader(strings.Repeat("x", 100+int(opened.Load())%3*maxErrorBody)), Closed: &closed}
		}))
	}
	for range 20 {
		resp, err := configured(t, cfg).RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.GreaterOrEqual(t, closed.Load(), opened.Load()-1, "all but the caller's")
		resp.Body.Close()
		require.Equal(t, opened.Load(), closed.Load())
	}

	// An error answer is given back before the caller closes it: many never do.
	tr := balance(t, withBody(400, func(*http.Request) io.ReadCloser {
		opened.Add(1)
		return &testnet.Tracked{Reader: strings.NewReader("small"), Closed: &closed}
	}), azure("a"))
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	require.Equal(t, opened.Load(), closed.Load())
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}

func TestThrottledDeploymentIsAskedAgainWithinARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 1"), ok200)
		n.On(host("b"), slow(1200*time.Millisecond, status(429, "{}", "Retry-After: 60")))
		resp, _ := ask(t, firstAndSecond(t, n))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, []string{host("a"), host("b"), host("a")}, n.Order())
	})
}

func TestThrottledDeploymentIsAskedAgainOnlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, name := range []string{"a", "b"} {
			n.On(host(name), slow(time.Second, status(429, "{}", "Retry-After-Ms: 500")))
		}
		resp, _ := ask(t, firstAndSecond(t, n))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, []string{host("a"), host("b"), host("a"), host("b")}, n.Order())
	})
}

func TestPoisonedRequestEjectsNobody(t *testing.T) {
	for name, answer := range map[string]roundTripFunc{"500": status(500, `{"error":{"message":"poison"}}`), "reset": broken(errReset)} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("X-Poison") != "" {
					return answer(req)
				}
				return n.RoundTrip(req)
			})
			tr := balance(t, base, azure("a"), azure("b"), azure("c"))
			for range 10 {
				req := newChat(t, chatPath)
				req.Header.Set("X-Poison", "yes")
				resp, err := tr.RoundTrip(req)
				if err == nil {
					require.Equal(t, 500, resp.StatusCode, "the last real answer, no 429")
					require.Contains(t, read(t, resp), "poison")
				}
				for _, name := range []string{"a", "b", "c"} {
					require.True(t, statusOf(t, tr, name).Available)
				}
				resp, _ = ask(t, tr)
				require.Equal(t, 200, resp.StatusCode, "another request is served")
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			}
		})
	}
}

func TestServerErrorOutranksThrottleWhenAllFail(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(503, "real"))
	n.On(host("b"), status(429, "{}", "Retry-After: 9"))
	resp, text := ask(t, firstAndSecond(t, n))
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "real", text)
	require.Equal(t, "a", servedBy(resp))
	require.Equal(t, "3", resp.Header.Get("X-Spillover-Attempts"), "twice to a")

	// What fails for reasons of its own says nothing of the request: waiting
	// for the throttled one helps.
	n.On(host("a"), status(401, wrongKey))
	resp, _ = ask(t, firstAndSecond(t, n))
	require.Equal(t, 429, resp.StatusCode)
	require.Equal(t, "9", resp.Header.Get("Retry-After"))
}

// After a 401, and a 403 or 404 like it, a deployment is ejected until a probe succeeds.
func TestMisconfiguredDeploymentIsEjectedAndProbed(t *testing.T) {
	for _, test := range []struct {
		reason string
		answer roundTripFunc
	}{
		{"401", status(401, wrongKey)},
		{"401 invalid_api_key", status(401, `{"error":{"code":"invalid_api_key"}}`)},
		{"403", status(403, `{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}`)},
		{"404 DeploymentNotFound", status(404, noDeployment)},
		{"404 model_not_found", status(404, `{"error":{"code":"model_not_found"}}`)},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answer)
				tr := firstAndSecond(t, n)
				from := func() string {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
					return servedBy(resp)
				}
				require.Equal(t, "b", from())
				s := statusOf(t, tr, "a")
				require.False(t, s.Available)
				require.Equal(t, test.reason, s.Reason)
				require.InDelta(t, 5, time.Until(s.Until).Seconds(), 1)
				for range 600 {
					require.Equal(t, "b", from())
					time.Sleep(100 * time.Millisecond)
				}
				require.LessOrEqual(t, n.Sends(host("a")), 6, "5 s, 10 s, 20 s, 30 s …")

				n.On(host("a"), ok200)
				time.Sleep(36 * time.Second)
				require.Equal(t, "a", from())
				n.On(host("a"), test.answer)
				require.Equal(t, "b", from())
				require.InDelta(t, 5, time.Until(statusOf(t, tr, "a").Until).Seconds(), 1, "as long as at first: the streak is over")
			})
		})
	}
}

func TestLastAnswerIsReturnedWhenAllAreMisconfigured(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(401, wrongKey))
	n.On(host("b"), status(404, noDeployment))
	tr := firstAndSecond(t, n)
	for range 3 {
		resp, text := ask(t, tr)
		require.Equal(t, 404, resp.StatusCode, "the last such answer")
		require.Equal(t, noDeployment, text)
	}
	require.Equal(t, 6, n.Sends())
}

func TestEjectedDeploymentIsProbedByOneRequestAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, wrongKey))
		tr := firstAndSecond(t, n)
		ask(t, tr)
		require.Equal(t, 1, n.Sends(host("a")))

		n.On(host("a"), hung) // the probe is lost
		time.Sleep(probeWait)
		lost, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(lost))
			require.ErrorIs(t, err, context.Canceled)
		}()
		synctest.Wait()
		require.Equal(t, 2, n.Sends(host("a")))
		inTurn(t, tr, 50, 0)
		time.Sleep(10*time.Second - 1)
		inTurn(t, tr, 50, 0)
		require.Equal(t, 2, n.Sends(host("a")), "one probe at a time")

		n.On(host("a"), slow(time.Second, ok200))
		time.Sleep(1)
		inTurn(t, tr, 50, 0)
		require.Equal(t, 3, n.Sends(host("a")), "the claim has expired: another may probe")
		for range 8 {
			inTurn(t, tr, 50, 0)
		}
		before := n.Sends(host("a"))
		inTurn(t, tr, 50, 0)
		require.Equal(t, before+50, n.Sends(host("a")), "and its success lets all in, little by little")
		leave()
		<-gone
		require.True(t, statusOf(t, tr, "a").Available)
	})
}

// Many at the same moment, and not one after the other.
func TestConcurrentRequestsSendOneProbe(t *testing.T) {
	for name, fault := range map[string]roundTripFunc{"deployment": status(401, wrongKey), "backend": broken(errRefused)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), fault)
				tr := firstAndSecond(t, n)
				ask(t, tr)
				time.Sleep(6 * time.Second)
				n.On(host("a"), slow(time.Second, ok200))
				var all sync.WaitGroup
				for range 200 {
					all.Go(func() { ask(t, tr) })
				}
				all.Wait()
				require.Equal(t, 2, n.Sends(host("a")))
				require.Equal(t, 1+199, n.Sends(host("b")))
			})
		})
	}
}

func TestProbeWithoutAVerdictIsGivenBack(t *testing.T) {
	for name, fault := range map[string]roundTripFunc{"deployment": status(401, wrongKey), "backend": broken(errRefused)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), fault, hung, status(408, "{}"), ok200)
				tr := firstAndSecond(t, n)
				ask(t, tr)
				time.Sleep(probeWait)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				ask(t, tr) // 408 tells nothing either
				require.Equal(t, 3, n.Sends(host("a")))
				resp, _ := ask(t, tr)
				require.Equal(t, "a", servedBy(resp))
			})
		})
	}
}

func TestAttemptsHeaderEqualsRequestsSent(t *testing.T) {
	n := newNet()
	for i, answer := range []roundTripFunc{status(429, "{}"), status(500, "{}"), broken(errReset), status(408, "{}")} {
		n.On(host(fmt.Sprint("b", i)), answer)
	}
	cfg := spillover.Config{Base: n, MaxAttempts: 9}
	for i := range 5 {
		cfg.Backends = append(cfg.Backends, azure(fmt.Sprint("b", i), priority(i+1)))
	}
	resp, _ := ask(t, configured(t, cfg))
	require.Equal(t, []string{host("b0"), host("b1"), host("b1"), host("b2"), host("b3"), host("b4")}, n.Order(), "once more after the first failure")
	require.Equal(t, "6", resp.Header.Get("X-Spillover-Attempts"))
}

func TestBackendWithoutTheModelIsSkipped(t *testing.T) {
	n := newNet()
	resp, _ := ask(t, balance(t, n, azure("a", serves("other")), azure("b", priority(2), serves("m"))))
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, 1, n.Sends())
}

// newCreation is a request that creates something, and names no model.
func newCreation(t testing.TB, path string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://foo.openai.azure.com"+path, strings.NewReader(`{"purpose":"batch"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	return req
}

func TestStateIsCreatedOnce(t *testing.T) {
	impatient := func(b *spillover.Backend) { b.HeaderTimeout = time.Second }
	for _, path := range []string{"/v1/files", "/v1/batches", "/v1/threads/t/runs", "/openai/files?api-version=1", "/never/heard/of"} {
		for _, test := range []struct {
			name   string
			answer roundTripFunc
			sends  int
		}{
			{"500", status(500, "{}"), 1},
			{"503 with a time", status(503, "{}", "Retry-After: 1"), 1},
			{"408", status(408, "{}"), 1},
			{"reset", broken(errReset), 1},
			{"no answer in time", hung, 1},
			{"429", status(429, "{}"), 2},
			{"refused", broken(errRefused), 2},
			{"401", status(401, wrongKey), 2},
			{"429 out of quota", status(429, noQuota), 2},
		} {
			t.Run(path+" "+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("a"), test.answer)
					tr := balance(t, n, azure("a", impatient), azure("b", impatient, priority(2)))
					resp, err := tr.RoundTrip(newCreation(t, path))
					require.True(t, (resp == nil) != (err == nil))
					require.Equal(t, test.sends, n.Sends())
					if test.sends == 2 {
						require.Equal(t, "b", servedBy(resp))
						return
					}
					d := backendStatus(t, tr, "a").Deployments[0]
					require.True(t, d.Available || test.name == "503 with a time", "no other one answered: it is not blamed")
				})
			})
		}
	}
}

func TestStateIsReadAgain(t *testing.T) {
	for name, answer := range map[string]roundTripFunc{
		"500": status(500, "{}"), "429": status(429, "{}"), "reset": broken(errReset), "refused": broken(errRefused),
	} {
		n := newNet()
		n.On(host("a"), answer)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://x/v1/files/f", nil)
		require.NoError(t, err)
		require.NotPanics(t, func() {
			resp, _ := send(t, firstAndSecond(t, n), req)
			require.Equal(t, "b", servedBy(resp), name)
		})
	}
}

func TestOutOfQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Two deployments of one account, and another account's.
		account := func(name, deployment string) spillover.Backend {
			return spillover.Backend{Name: name, URL: "https://one.openai.azure.com", APIKey: "one", Models: []spillover.Model{{Name: "m", Deployment: deployment}}}
		}
		n := newNet()
		n.On("one.openai.azure.com", status(429, noQuota, "Retry-After: 1"))
		tr := balance(t, n, account("a", "m-a"), account("b", "m-b"), azure("rest", priority(2)))
		for range 300 {
			resp, _ := ask(t, tr)
			require.Equal(t, "rest", servedBy(resp))
			time.Sleep(790 * time.Millisecond)
		}
		require.Equal(t, 1, n.Sends("one.openai.azure.com"), "both are left alone")
		for _, name := range []string{"a", "b"} {
			require.Equal(t, "429 insufficient_quota", statusOf(t, tr, name).Reason)
		}
		n.On("one.openai.azure.com", ok200)
		time.Sleep(6*time.Minute - 300*790*time.Millisecond)
		resp, _ := ask(t, tr)
		require.NotEqual(t, "rest", servedBy(resp), "back after five minutes")
	})
}

func TestOutOfQuotaCodes(t *testing.T) {
	for _, code := range wire.QuotaCodes {
		n := newNet()
		n.On(host("a"), status(429, fmt.Sprintf(`{"error":{"code":%q}}`, code)))
		tr := firstAndSecond(t, n)
		ask(t, tr)
		s := statusOf(t, tr, "a")
		require.Equal(t, "429 "+code, s.Reason)
		require.Greater(t, time.Until(s.Until), 3*time.Minute)
	}
}

func TestOutOfQuotaEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, noQuota))
		n.On(host("b"), status(429, noQuota))
		tr := firstAndSecond(t, n)
		for i := range 3 {
			resp, text := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Contains(t, text, "insufficient_quota")
			require.Equal(t, "false", resp.Header.Get("X-Should-Retry"), "request %d", i)
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, 2, n.Sends(), "they are left alone")
	})
}

// Where a backend is sent the caller's credential, that is what is spent:
// other callers are served as ever.
func TestOutOfQuotaIsTheCallersOwn(t *testing.T) {
	n := newNet()
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("Api-Key") == "spent" {
			return status(429, noQuota)(req)
		}
		return n.RoundTrip(req)
	})
	keyless := func(b *spillover.Backend) { b.APIKey = "" }
	tr := balance(t, base, azure("a", keyless), azure("b", keyless))
	req := newChat(t, chatPath)
	req.Header.Set("Api-Key", "spent")
	resp, _ := send(t, tr, req)
	require.Equal(t, 429, resp.StatusCode)
	resp, _ = ask(t, tr)
	require.Equal(t, 200, resp.StatusCode)
}

// A deployment that refuses the key of one caller serves the others.
func TestRefusedCallerIsToldFromOthers(t *testing.T) {
	for name, refuses := range map[string]roundTripFunc{
		"quota": status(429, noQuota), "rate limit": status(429, "{}", "Retry-After: 30"), "key": status(401, wrongKey),
	} {
		t.Run(name, func(t *testing.T) {
			n, asked := newNet(), 0
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("Api-Key") == "refused" && req.URL.Host == host("a") {
					asked++
					return refuses(req)
				}
				return n.RoundTrip(req)
			})
			keyless := func(b *spillover.Backend) { b.APIKey = "" }
			tr := balance(t, base, azure("a", keyless), azure("b", keyless, priority(2)))
			for _, key := range []string{"refused", "another", "refused", "a third"} {
				req := newChat(t, chatPath)
				req.Header.Set("Api-Key", key)
				resp, _ := send(t, tr, req)
				require.Equal(t, key == "refused", servedBy(resp) == "b", key)
			}
			require.Equal(t, 1, asked, "the second time the caller is known")
		})
	}
}

func TestMisconfiguredAndOutOfQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := firstAndSecond(t, n)
		n.On(host("a"), status(401, wrongKey))
		n.On(host("b"), ok200, status(429, noQuota))
		ask(t, tr) // a is ejected
		ask(t, tr) // and b
		require.Equal(t, 3, n.Sends())
		resp, text := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "false", resp.Header.Get("X-Should-Retry"))
		require.Contains(t, text, `"code":"insufficient_quota"`)
		require.Equal(t, 3, n.Sends())
	})
}

// A first tier of as many as MaxAttempts that are all bad keeps no caller from
// the second for ever: the first request may fail of it, those after it may not.
func TestBadTierAsLargeAsMaxAttempts(t *testing.T) {
	for name, answer := range map[string]roundTripFunc{
		"refused": broken(errRefused), "401": status(401, wrongKey), "500": status(500, "{}"), "reset": broken(errReset), "no answer in time": hung,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				impatient := func(b *spillover.Backend) { b.HeaderTimeout = 100 * time.Millisecond }
				backends := []spillover.Backend{azure("good", priority(2), impatient)}
				for _, name := range []string{"x", "y", "z"} {
					n.On(host(name), answer)
					backends = append(backends, azure(name, impatient))
				}
				tr := balance(t, n, backends...)
				failed := 0
				for range 20 {
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					if err != nil || resp.StatusCode != 200 {
						failed++
					}
					if err == nil {
						resp.Body.Close()
					}
				}
				require.LessOrEqual(t, failed, 2)
			})
		})
	}
}

// One of four deployments is bad, and callers do not notice.
func TestPersistentFault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer roundTripFunc
		most   int
	}{
		{"401", status(401, wrongKey), 3},
		{"403", status(403, `{"error":{"code":"403","message":"Access denied"}}`), 3},
		{"a firewall", status(403, "<html>"), 6},
		{"404", status(404, noDeployment), 3},
		{"503", status(503, "{}"), 12},
		{"refused", broken(errRefused), 12},
		{"reset", broken(errReset), 12},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				var backends []spillover.Backend
				for _, name := range []string{"bad", "b", "c", "d"} {
					n.On(host(name), slow(250*time.Millisecond, ok200))
					backends = append(backends, azure(name))
				}
				n.On(host("bad"), test.answer)
				inTurn(t, balance(t, n, backends...), 1000, 10*time.Millisecond)
				require.LessOrEqual(t, n.Sends(host("bad")), test.most)
				require.NotZero(t, n.Sends(host("bad")))
			})
		})
	}
}

func TestServerErrorOfAFailingRequestIsReturnedAndHarmsNobody(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), status(500, "poison"), status(200, "{}"))
		}
		resp, text := ask(t, tr)
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, "poison", text)
		for range 3 {
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp))
		}
	})
}

func TestNetworkErrorsFailOver(t *testing.T) {
	for _, err := range []error{noConnection, cutOff, io.EOF, io.ErrUnexpectedEOF, errors.New("boom")} {
		inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			n.On(host("a"), broken(err))
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			require.Equal(t, 2, n.Sends())
		})
	}
}

func TestFailedDeploymentIsNotAskedAgainByTheSameRequest(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), status(500, "{}"))
		}
		ask(t, tr)
		for _, name := range []string{"a", "b", "c"} {
			require.Equal(t, 1, n.Sends(host(name)))
		}
	})
}

func TestOnlyOpenDeploymentOfManyIsFound(t *testing.T) {
	n := newNet()
	var backends []spillover.Backend
	for i := range 50 {
		backends = append(backends, azure(fmt.Sprintf("b%d", i)))
	}
	tr := balance(t, n, backends...)
	for i := range backends {
		n.On(host(fmt.Sprintf("b%d", i)), status(429, "{}", "Retry-After: 60"))
	}
	n.On(host("b37"), ok200)
	require.NoError(t, tr.Drain("b37"))
	ask(t, tr)
	require.Equal(t, 49, n.Sends())
	require.NoError(t, tr.Resume("b37"))
	for range 100 {
		resp, _ := ask(t, tr)
		require.Equal(t, "b37", servedBy(resp))
	}
}

func TestLastErrorBodyIsReturnedWhole(t *testing.T) {
	for _, answer := range []roundTripFunc{status(500, azureServer), status(401, azureServer), status(408, azureServer), status(404, azureServer), status(400, azureServer)} {
		inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			for _, name := range []string{"a", "b", "c"} {
				n.On(host(name), answer)
			}
			resp, text := ask(t, tr)
			require.Equal(t, azureServer, text)
			require.EqualValues(t, len(azureServer), resp.ContentLength)
		})
	}
}

func TestMaxAttemptsIsExact(t *testing.T) {
	for attempts := 1; attempts <= 4; attempts++ {
		n := newNet()
		var backends []spillover.Backend
		for i := range 5 {
			n.On(host(fmt.Sprint("b", i)), status(500, "{}"))
			backends = append(backends, azure(fmt.Sprint("b", i)))
		}
		resp, _ := ask(t, configured(t, spillover.Config{Base: n, Backends: backends, MaxAttempts: attempts}))
		require.Equal(t, attempts, n.Sends())
		require.Equal(t, fmt.Sprint(attempts), resp.Header.Get("X-Spillover-Attempts"))
	}
}

func TestFullPTUSpillsOverAndTrafficReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), status(200, "{}"), status(429, azurePTU, "retry-after-ms: 40"), status(200, "{}"))
		n.On(host("east"), status(200, "{}"), status(429, azureTokens, "Retry-After: 1"), status(200, "{}"))
		tr := balance(t, n, azure("ptu"), azure("east", priority(2)), azure("west", priority(3)))
		for _, want := range []string{"ptu", "east", "west"} {
			resp, _ := ask(t, tr)
			require.Equal(t, want, servedBy(resp))
		}
		time.Sleep(50 * time.Millisecond)
		resp, _ := ask(t, tr)
		require.Equal(t, "ptu", servedBy(resp))
	})
}

func TestThrottlesDoNotEjectADeployment(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(429, "{}", "retry-after-ms: 1"))
		for range 20 {
			ask(t, tr)
			time.Sleep(time.Second)
		}
		require.Greater(t, n.Sends(host("a")), 5, "it is asked again each time, if later each time")
		require.Zero(t, statusOf(t, tr, "a").Failed)
		time.Sleep(time.Minute)
		n.On(host("a"), status(500, "{}"), ok200)
		ask(t, tr)
		require.EqualValues(t, 1, statusOf(t, tr, "a").Failed)
		require.NotEqual(t, "500", statusOf(t, tr, "a").Reason, "and the first failure is forgiven")
	})
}

const azureTokens = `{"error":{"code":"429","message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}}`

const azurePTU = `{"error":{"message":"Requests have exceeded the throughput limit on your Provisioned-Managed deployment.","type":"too_many_requests","param":null,"code":"rate_limit_reached"}}`

const azureServer = `{"error":{"message":"The server had an error while processing your request. Sorry about that!","type":"server_error","param":null,"code":null}}`

// One forgiven 500 before does not make the poison stick.
func TestPoisonedRequestEjectsNobodyAfterAnEarlierFailure(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	for _, name := range []string{"a", "b", "c"} {
		n.On(host(name), broken(errReset))
		d, now := spillover.DeploymentOf(t, tr, name), time.Now()
		testnet.FailAt(&d.State, now, health.ServerFailure, "500", 0.5)
		require.True(t, statusOf(t, tr, name).Available)
	}
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	for _, name := range []string{"a", "b", "c"} {
		require.True(t, statusOf(t, tr, name).Available, name)
	}
}

func TestThrottleNeitherCountsNorEndsAFailureStreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		// The first request is sent there twice, which counts once.
		n.On(host("a"), status(500, "{}"), status(500, "{}"), status(500, "{}"), status(429, "{}", "Retry-After: 1"), status(500, "{}"))
		tr := firstAndSecond(t, n)
		for i, streak := range []int{1, 2, 2, 3} {
			if i > 0 {
				time.Sleep(probeWait)
			}
			ask(t, tr)
			require.Equal(t, streak, testnet.Failures(heldAgainst(t, tr, "a")))
		}
		require.Equal(t, 5, n.Sends(host("a")))
		time.Sleep(1200 * time.Millisecond)
		require.False(t, statusOf(t, tr, "a").Available, "out for twice as long")
	})
}

// A failure that could not be tried elsewhere is neither blamed nor a success.
func TestFailureOfACreationIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(500, "{}"))
		tr := firstAndSecond(t, n)
		d := slices.Collect(spillover.DeploymentsOf(tr, ""))[0]
		now := time.Now()
		testnet.FailAt(&d.State, now, health.ServerFailure, "500", 0.5)
		testnet.FailAt(&d.State, now, health.ServerFailure, "500", 0.5)
		time.Sleep(probeWait)
		resp, _ := send(t, tr, newCreation(t, "/v1/batches"))
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, "a", servedBy(resp))
		require.Equal(t, 2, testnet.Failures(&d.State), "the probe failed: no success is recorded")
	})
}
