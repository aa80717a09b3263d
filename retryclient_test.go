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
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A paced base counts the bodies of answers that were handed out and closed,
// and notes when each request came.
type paced struct {
	http.RoundTripper
	open  atomic.Int32
	times []time.Duration
	start time.Time
}

func pace(base http.RoundTripper) *paced { return &paced{RoundTripper: base, start: time.Now()} }

func (b *paced) RoundTrip(req *http.Request) (*http.Response, error) {
	b.times = append(b.times, time.Since(b.start))
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		b.open.Add(1)
		resp.Body = &closeOnce{resp.Body, func() { b.open.Add(-1) }}
	}
	return resp, err
}

// retrying runs a test against a client that retries over one deployment.
func retrying(t *testing.T, retries int, answers []roundTripFunc, f func(t *testing.T, client *http.Client, base *paced, n *fakeNet)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), answers...)
		base := pace(n)
		client := spillover.RetryClient(balance(t, base, azure("a")), retries)
		f(t, client, base, n)
		require.Zero(t, base.open.Load(), "every body is closed")
		// A bubble ends only when no goroutine is left in it.
	})
}

// soonAfter tells whether a wait was as long as was asked for, and not much
// longer: a spread, and what repeated refusals teach.
func soonAfter(t testing.TB, want, got time.Duration) {
	require.GreaterOrEqual(t, got, want)
	require.Less(t, got, want+min(want/4+50*time.Millisecond, time.Second)+2*longestTrip)
}

func TestRetryWaits(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"retry-after-ms: 20": 20 * time.Millisecond,
		"Retry-After: 3":     3 * time.Second,
		"Retry-After: 50":    50 * time.Second,
		"Retry-After: 60":    time.Minute,      // what Azure asks for most
		"X-Nothing: here":    10 * time.Second, // the default cool-down
	} {
		t.Run(header, func(t *testing.T) {
			full := status(429, "", header)
			retrying(t, 2, []roundTripFunc{full, full, status(200, `"ok"`)}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
				req := newChat(t, chatPath)
				resp, body := testnet.Do(t, client, req)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, `"ok"`, body)
				require.Same(t, req, resp.Request)
				require.Equal(t, 3, n.Sends())
				soonAfter(t, want, base.times[1]-base.times[0])
				soonAfter(t, want, base.times[2]-base.times[1])
				for _, s := range n.Seen {
					require.Equal(t, n.Seen[0].Body, s.Body)
					require.EqualValues(t, len(s.Body), s.Length)
				}
			})
		})
	}
}

func TestRetriesAreBounded(t *testing.T) {
	for retries, sends := range map[int]int{-1: 1, 0: 1, 1: 2, 4: 5} {
		retrying(t, retries, []roundTripFunc{status(429, "", "Retry-After: 1")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
			resp, body := testnet.Do(t, client, newChat(t, chatPath))
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, sends, n.Sends())
			// The last answer is handed over as it is.
			told := map[bool]string{false: "1", true: "2"}[sends > 2] // what the first one taught is added to the third
			require.Equal(t, told, resp.Header.Get("Retry-After"))
			require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
			require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			require.Equal(t, "rate_limit_exceeded", testnet.APIError(t, body).Code)
		})
	}
}

// An answer that is not waited for, and why.
func TestRetryIsOfNoUse(t *testing.T) {
	const text = `{"error":{"message":"m","code":"c"}}`
	long := strings.Repeat("x", 200<<10)
	for name, c := range map[string]struct {
		answer roundTripFunc
		body   string
	}{
		"X-Should-Retry":  {status(500, text, "X-Should-Retry: false", "X-Mine: 1"), text},
		"client error":    {status(400, text, "Retry-After: 1", "X-Mine: 1"), text},
		"credential":      {status(401, text, "X-Mine: 1"), text},
		"long":            {status(422, long, "X-Mine: 1"), long},
		"redirect":        {status(307, text, "X-Mine: 1"), text},
		"not implemented": {status(503, text, "Retry-After: 121", "X-Mine: 1"), text},
	} {
		t.Run(name, func(t *testing.T) {
			retrying(t, 5, []roundTripFunc{c.answer}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
				resp, body := testnet.Do(t, client, newChat(t, chatPath))
				require.Equal(t, "1", resp.Header.Get("X-Mine"))
				require.Equal(t, c.body, body)
				require.Equal(t, 1, n.Sends())
				require.Zero(t, time.Since(base.start))
			})
		})
	}
}

// Waiting for a quota is of no use either.
func TestRetryOfAllOutOfQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, noQuota))
		tr := balance(t, n, azure("a"))
		ask(t, tr)
		started := time.Now()
		resp, _ := testnet.Do(t, spillover.RetryClient(tr, 5), newChat(t, chatPath))
		require.Equal(t, "false", resp.Header.Get("X-Should-Retry"))
		require.Zero(t, time.Since(started))
	})
}

func TestRetryWithinDeadline(t *testing.T) {
	for _, by := range []string{"context", "client"} {
		retrying(t, 9, []roundTripFunc{status(429, "", "Retry-After: 4")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
			req := newChat(t, chatPath)
			if by == "client" {
				client.Timeout = 6 * time.Second
			} else {
				ctx, cancel := context.WithTimeout(req.Context(), 6*time.Second)
				defer cancel()
				req = req.WithContext(ctx)
			}
			resp, _ := testnet.Do(t, client, req)
			require.Equal(t, 429, resp.StatusCode, "rather the answer than the error of a wait in vain")
			require.Equal(t, 2, n.Sends())
			soonAfter(t, 4*time.Second, time.Since(base.start))
		})
	}
}

func TestRetryCancelledWhileWaiting(t *testing.T) {
	retrying(t, 9, []roundTripFunc{status(429, "", "Retry-After: 40")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
		req := newChat(t, chatPath)
		ctx, cancel := context.WithCancel(req.Context())
		time.AfterFunc(5*time.Second, cancel)
		resp, err := client.Do(req.WithContext(ctx))
		require.Nil(t, resp)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 5*time.Second, time.Since(base.start))
		require.Equal(t, 1, n.Sends())
	})
}

// Trouble that names no time is waited out longer each time, if the request may
// be sent again at all.
func TestRetryOfTrouble(t *testing.T) {
	for name, answer := range map[string]roundTripFunc{
		"500": status(500, `"boom"`), "502": status(502, ""), "503": status(503, ""), "529": status(529, ""), "408": status(408, ""),
	} {
		retrying(t, 6, []roundTripFunc{answer}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
			resp, _ := testnet.Do(t, client, newChat(t, chatPath))
			require.Equal(t, name, resp.Status[:3])
			require.Len(t, base.times, 7)
			for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second} {
				soonAfter(t, want, base.times[i+1]-base.times[i])
			}
		})
		retrying(t, 6, []roundTripFunc{answer}, func(t *testing.T, client *http.Client, _ *paced, n *fakeNet) {
			resp, _ := testnet.Do(t, client, newChat(t, "/v1/files"))
			require.Equal(t, name, resp.Status[:3])
			require.Equal(t, 1, n.Sends(), "a file is not made twice")
		})
	}
	retrying(t, 1, []roundTripFunc{status(503, "", "Retry-After: 5"), status(200, "{}")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
		testnet.Do(t, client, newChat(t, chatPath))
		soonAfter(t, 5*time.Second, time.Since(base.start))
	})
	// A refusal made nothing.
	retrying(t, 1, []roundTripFunc{status(429, "", "Retry-After: 5"), status(200, "{}")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
		resp, _ := testnet.Do(t, client, newChat(t, "/v1/files"))
		require.Equal(t, 200, resp.StatusCode)
	})
}

func TestRetryOfNoAnswer(t *testing.T) {
	lost := errors.New("connection lost")
	retrying(t, 2, []roundTripFunc{broken(lost), broken(lost), status(200, "{}")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
		resp, _ := testnet.Do(t, client, newChat(t, chatPath))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, 3, n.Sends())
	})
	for path, sends := range map[string]int{chatPath: 3, "/v1/files": 1} {
		retrying(t, 2, []roundTripFunc{broken(lost)}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
			resp, err := client.Do(newChat(t, path))
			require.Nil(t, resp)
			require.ErrorIs(t, err, lost)
			require.Equal(t, 1, strings.Count(err.Error(), "https://"), "wrapped once: %v", err)
			require.Equal(t, sends, n.Sends())
		})
	}
	// A body that cannot be had again is not waited for once more.
	for _, answer := range []roundTripFunc{broken(errors.New("another")), status(503, "{}")} {
		retrying(t, 9, []roundTripFunc{answer}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
			req := testnet.NewLargeChat(t, chatPath)
			req.GetBody = func() (io.ReadCloser, error) { return nil, lost }
			resp, err := client.Do(req)
			require.ErrorIs(t, err, lost)
			require.Nil(t, resp)
			require.Equal(t, 1, n.Sends())
			soonAfter(t, 500*time.Millisecond, time.Since(base.start))
		})
	}
}

// The caller's request is read, closed and never changed.
func TestRetryLeavesTheRequestAlone(t *testing.T) {
	const text = `{"model":"m"}`
	for _, kind := range []string{"GetBody", "no GetBody", "no length", "no body", "NoBody"} {
		t.Run(kind, func(t *testing.T) {
			retrying(t, 2, []roundTripFunc{status(429, "", "Retry-After: 1"), status(200, "{}")}, func(t *testing.T, client *http.Client, base *paced, n *fakeNet) {
				req := newChat(t, chatPath)
				body := &testnet.CloseCounter{Reader: strings.NewReader(text)}
				req.Body, req.ContentLength = body, int64(len(text))
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
				switch kind {
				case "no GetBody":
					req.GetBody = nil
				case "no length":
					req.GetBody, req.ContentLength = nil, -1
				case "no body":
					req.Body, req.GetBody, req.ContentLength = nil, nil, 0
				case "NoBody":
					req.Body, req.GetBody, req.ContentLength = http.NoBody, nil, 0
				}
				before, header := *req, req.Header.Clone()
				resp, err := client.Transport.RoundTrip(req)
				require.NoError(t, err)
				read(t, resp)
				require.Equal(t, 200, resp.StatusCode)
				require.Same(t, req, resp.Request)
				require.Equal(t, header, req.Header)
				require.Equal(t, before.Body, req.Body)
				require.Same(t, before.URL, req.URL)
				require.Equal(t, before.ContentLength, req.ContentLength)
				require.Len(t, n.Seen, 2)
				for _, s := range n.Seen {
					if strings.HasPrefix(kind, "no b") || kind == "NoBody" {
						require.Empty(t, s.Body)
						continue
					}
					require.Equal(t, text, s.Body)
					require.EqualValues(t, len(text), s.Length)
					require.Equal(t, 1, body.Closes)
				}
			})
		})
	}
}

// Under it the transport fails over as ever, with the whole body, and redirects
// are the caller's client's to follow.
func TestRetryOverFailoverAndRedirects(t *testing.T) {
	for _, size := range []int{10, replay.MaxKept, replay.MaxReused} {
		text := long("y", size)
		n := newNet()
		n.On(host("a"), status(500, "{}"), status(500, "{}"), status(429, "{}", "Retry-After: 1"))
		n.On(host("b"), status(307, "", "Location: https://b.openai.azure.com/elsewhere"), status(200, "done"))
		for _, getBody := range []bool{true, false} {
			n.Seen = nil
			req := newChat(t, "/openai/deployments/m/chat/completions?api-version=1")
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
			req.GetBody = nil
			if getBody {
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
			}
			client := spillover.RetryClient(balance(t, n, azure("a"), azure("b", priority(2))), 2)
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			resp, _ := testnet.Do(t, client, req)
			require.Equal(t, map[bool]int{true: 307, false: 200}[getBody], resp.StatusCode)
			require.Len(t, n.Seen, map[bool]int{true: 3, false: 2}[getBody], "twice to a after the 500")
			for _, s := range n.Seen {
				require.True(t, s.Body == text)
				require.EqualValues(t, len(text), s.Length)
			}
		}
	}
}

// What is too large to be kept is sent once, as it comes.
func TestRetryOfTooLargeBody(t *testing.T) {
	const length = replay.MaxBuffered + 1
	var got int64
	base := roundTripFunc(func(req *http.Request) (resp *http.Response, err error) {
		got, err = io.Copy(io.Discard, req.Body)
		require.NoError(t, err)
		require.NoError(t, req.Body.Close())
		require.EqualValues(t, length, req.ContentLength)
		return status(503, `"busy"`)(req)
	})
	body := &testnet.CloseCounter{Reader: bytes.NewReader(make([]byte, length))}
	req := newChat(t, chatPath)
	req.Body, req.GetBody, req.ContentLength = body, nil, length
	resp, text := testnet.Do(t, spillover.RetryClient(balance(t, base, azure("a")), 3), req)
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, `"busy"`, text)
	require.EqualValues(t, length, got)
	require.Equal(t, 1, body.Closes)
	require.Same(t, req, resp.Request)
}

func TestRetryBodyCannotBeRead(t *testing.T) {
	lost := errors.New("disk lost")
	n := newNet()
	req := newChat(t, chatPath)
	body := &testnet.CloseCounter{Reader: io.MultiReader(strings.NewReader("{"), testnet.ErrorReader{Err: lost})}
	req.Body, req.GetBody, req.ContentLength = body, nil, 10
	_, err := spillover.RetryClient(balance(t, n, azure("a")), 3).Do(req)
	require.ErrorIs(t, err, lost)
	require.Equal(t, 1, body.Closes)
	require.Zero(t, n.Sends())
}

// Between the client and the Transport may be other RoundTrippers, as of
// instrumentation.
func TestRetryClientGoesThroughAnyRoundTripper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 3"), broken(&net.OpError{Op: "dial", Err: errors.New("refused")}), status(200, "{}"))
		seen := pace(balance(t, n, azure("a")))
		client := spillover.RetryClient(wrapping{seen}, 5)
		resp, _ := testnet.Do(t, client, newChat(t, chatPath))
		require.Equal(t, 200, resp.StatusCode)
		require.Len(t, seen.times, 3, "a 429, no answer, a success")
		require.Zero(t, seen.open.Load(), "every body is closed")
		client.CloseIdleConnections() // which it cannot pass on
	})
}

// A wrapping RoundTripper wraps errors too.
type wrapping struct{ of http.RoundTripper }

func (w wrapping) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.of.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("instrumented: %w", err)
	}
	return resp, nil
}

func TestRetryClientWithoutABaseUsesTheDefaultTransport(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }))
	defer s.Close()
	client := spillover.RetryClient(nil, 2)
	defer client.CloseIdleConnections()
	resp, err := client.Get(s.URL)
	require.NoError(t, err)
	require.Equal(t, "hi", read(t, resp))
}

// Idle connections are closed when the program says so, not when one request
// is given up.
func TestRetryKeepsIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 1"))
		base := &flushed{RoundTripper: n}
		client := spillover.RetryClient(balance(t, base, azure("a")), 1)
		testnet.Do(t, client, newChat(t, chatPath))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err := client.Do(newChat(t, chatPath).WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, base.n.Load())
		client.CloseIdleConnections()
		require.EqualValues(t, 1, base.n.Load())
	})
}

// A stream is handed over while it is under way.
func TestRetryHandsStreamsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		events, w := io.Pipe()
		n.On(host("a"), status(429, "", "Retry-After: 1"), func(req *http.Request) (*http.Response, error) {
			resp, err := status(200, "", "Content-Type: text/event-stream")(req)
			resp.Body, resp.ContentLength = events, -1
			return resp, err
		})
		resp, err := spillover.RetryClient(balance(t, n, azure("a")), 1).Do(newChat(t, chatPath))
		require.NoError(t, err)
		go func() {
			io.WriteString(w, "data: 1\n\n")
			time.Sleep(time.Hour)
			w.Close()
		}()
		p := make([]byte, 100)
		k, err := resp.Body.Read(p)
		require.NoError(t, err)
		require.Equal(t, "data: 1\n\n", string(p[:k]))
		require.Empty(t, read(t, resp))
	})
}
