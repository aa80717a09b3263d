package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A snapshot is all of a request that may not change: its fields, and what
// they point to.
type snapshot struct {
	req     http.Request
	body    io.ReadCloser
	getBody uintptr
}

func snap(req *http.Request) snapshot {
	s := snapshot{req: *req, body: req.Body, getBody: reflect.ValueOf(req.GetBody).Pointer()}
	u := *req.URL
	s.req.URL, s.req.Header, s.req.Trailer = &u, req.Header.Clone(), req.Trailer.Clone()
	s.req.TransferEncoding = slices.Clone(req.TransferEncoding)
	s.req.Body, s.req.GetBody = nil, nil
	return s
}

func TestRequestIsNotModified(t *testing.T) {
	for target, path := range map[string]string{
		"https://foo.openai.azure.com" + chatPath:                       "/base/openai/deployments/m/chat/completions",
		"https://api.openai.com/v1/chat/completions":                    "/base/openai/deployments/m/chat/completions",
		"https://x/openai/deployments/my%2Fdep/chat/completions?a=%20b": "/base/openai/deployments/my%2Fdep/chat/completions",
	} {
		// Only the last of three deployments answers, and b is asked twice.
		n := newNet()
		n.On(host("a"), status(429, "{}"))
		n.On(host("b"), status(500, "{}"))
		// A base does as it likes with what it is given.
		vandal := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := n.RoundTrip(req)
			for name, values := range req.Header {
				for i := range values {
					values[i] = "vandal"
				}
				req.Header[name] = append(values, "vandal")
			}
			req.Header.Set("Vandal", "yes")
			req.URL.Path, req.URL.Host, req.Host, req.Method = "/", "vandal", "vandal", "GET"
			return resp, err
		})
		based := func(b *spillover.Backend) { b.URL += "/base" }
		tr := balance(t, vandal, azure("a", based), azure("b", based, priority(2)), azure("c", based, priority(3)))
		req := newChat(t, target)
		req.Header["X-Two"] = []string{"1", "2"}
		req.Header["User-Agent"] = nil // net/http's way to send none
		req.TransferEncoding = []string{"identity"}
		req.Trailer = http.Header{"X-Trailer": nil}
		before := snap(req)
		stop := make(chan struct{})
		var reader sync.WaitGroup
		reader.Go(func() { // the caller may read it all the while: -race tells
			for {
				select {
				case <-stop:
					return
				default:
					_ = req.Header.Get("Api-Key") + req.URL.String() + req.Host
				}
			}
		})
		resp, _ := send(t, tr, req)
		close(stop)
		reader.Wait()
		require.Equal(t, "c", servedBy(resp))
		require.Equal(t, before, snap(req))
		require.Same(t, req, resp.Request)
		require.Equal(t, []string{host("a"), host("b"), host("b"), host("c")}, n.Order())
		for _, s := range n.Seen {
			require.NotContains(t, fmt.Sprint(s), "vandal", "each attempt starts from the caller's request")
			require.Equal(t, path, s.Path)
			require.Equal(t, []string{"key-" + s.Host[:1]}, s.Header["Api-Key"])
			require.Equal(t, []string{"1", "2"}, s.Header["X-Two"])
		}
	}
}

func TestHeadersWithoutValuesAreAccepted(t *testing.T) {
	for _, name := range []string{"Api-Key", "api-key", "Authorization", "X-Other"} {
		for _, values := range [][]string{nil, {}} {
			req := newChat(t, chatPath)
			req.Header = http.Header{name: values}
			require.NotPanics(t, func() { ask(t, balance(t, newNet(), azure("a"))) })
			require.NotPanics(t, func() { send(t, balance(t, newNet(), azure("a")), req) }, name)
		}
	}
	req := newChat(t, chatPath)
	req.Header = nil
	resp, _ := send(t, balance(t, newNet(), azure("a")), req)
	require.Equal(t, 200, resp.StatusCode)
}

func TestBodyIsClosedOnEveryPath(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	fault := errors.New("fault")
	unread := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		return ok200(req)
	})
	for _, test := range []struct {
		name   string
		base   http.RoundTripper // in place of a network whose hosts give the answer
		answer roundTripFunc
		change func(*testing.T, *spillover.Transport, *http.Request) *http.Request
		fails  bool
	}{
		{name: "success"},
		{name: "a base that leaves the body unread", base: unread},
		{name: "a base that leaves a body unread that cannot be had again", base: unread, change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.GetBody, req.ContentLength = nil, replay.MaxBuffered+1
			return req
		}},
		{name: "all throttle", answer: status(429, "{}")},
		{name: "all fail", answer: status(500, "{}")},
		{name: "no answer", answer: broken(fault), fails: true},
		{name: "throttled before any send", answer: status(429, "{}", "Retry-After: 60"), change: func(t *testing.T, tr *spillover.Transport, req *http.Request) *http.Request {
			ask(t, tr)
			resp, _ := ask(t, tr)
			require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"))
			return req
		}},
		{name: "the context has ended", fails: true, change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			return req.WithContext(ended)
		}},
		{name: "the transport is closed", fails: true, change: func(_ *testing.T, tr *spillover.Transport, req *http.Request) *http.Request {
			tr.Close()
			return req
		}},
		{name: "unknown model", change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.URL.Path = strings.Replace(req.URL.Path, "/m/", "/unheard/", 1)
			return req
		}},
		{name: "no URL", fails: true, change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.URL = nil
			return req
		}},
		{name: "opaque URL", fails: true, change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.URL = &url.URL{Scheme: "https", Opaque: "x"}
			return req
		}},
		{name: "GetBody fails, and nothing is sent again", change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.URL.Path = "/v1/chat/completions"
			req.GetBody = func() (io.ReadCloser, error) { return nil, fault }
			return req
		}},
		{name: "GetBody fails at the second attempt", answer: status(429, "{}"), fails: true,
			change: func(t *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
				large := testnet.NewLargeChat(t, chatPath)
				large.Body = countedBody{large.Body, req.Body.(countedBody).closed}
				large.GetBody = func() (io.ReadCloser, error) { return nil, fault }
				return large
			}},
		{name: "reading it fails", fails: true, change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.GetBody = nil
			req.Body = countedBody{io.NopCloser(testnet.BrokenBody{Err: fault}), req.Body.(countedBody).closed}
			return req
		}},
		{name: "it is buffered", answer: status(500, "{}"), change: func(_ *testing.T, _ *spillover.Transport, req *http.Request) *http.Request {
			req.GetBody = nil
			return req
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNet()
			if test.answer != nil {
				n.On(host("a"), test.answer)
				n.On(host("b"), test.answer)
			}
			if test.base == nil {
				test.base = n
			}
			tr := balance(t, test.base, azure("a", serves("m")), azure("b", serves("m")))
			var closed atomic.Int64
			req := closing(newChat(t, chatPath), &closed)
			if test.change != nil {
				req = test.change(t, tr, req)
			}
			resp, err := tr.RoundTrip(req)
			require.Equal(t, test.fails, err != nil, "%v", err)
			require.Equal(t, test.fails, resp == nil)
			if err == nil {
				resp.Body.Close()
			}
			require.EqualValues(t, 1, closed.Load())
		})
	}
}

// A rewound body is azcore's: GetBody seeks, and hands out the same reader.
type rewound struct {
	*strings.Reader
	reads atomic.Int64
}

func (r *rewound) Read(p []byte) (int, error) { r.reads.Add(1); return r.Reader.Read(p) }

func (r *rewound) Close() error { return nil }

func TestAbandonedAttemptDoesNotDisturbTheNext(t *testing.T) {
	text := `{"model":"m","input":"` + strings.Repeat("x", 1<<16) + `"}`
	for _, target := range []string{"https://x" + chatPath, "https://api.openai.com/v1/chat/completions"} {
		shared := &rewound{Reader: strings.NewReader(text)}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, shared)
		require.NoError(t, err)
		req.ContentLength = int64(len(text))
		req.GetBody = func() (io.ReadCloser, error) {
			_, err := shared.Seek(0, io.SeekStart)
			return shared, err
		}
		var lurkers sync.WaitGroup
		var bodies []string
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == host("c") {
				text, err := io.ReadAll(req.Body)
				bodies = append(bodies, string(text))
				require.NoError(t, err)
				return ok200(req)
			}
			// It answers early, and a goroutine still sends.
			_, err := io.ReadFull(req.Body, make([]byte, 100))
			require.NoError(t, err)
			lurkers.Go(func() {
				for {
					if _, err := req.Body.Read(make([]byte, 1)); err != nil {
						return
					}
				}
			})
			return status(429, "{}")(req)
		})
		resp, _ := send(t, balance(t, base, azure("a"), azure("b", priority(2)), azure("c", priority(3))), req)
		lurkers.Wait()
		require.Equal(t, "c", servedBy(resp))
		require.True(t, bodies[0] == text, "the attempt that answers sends all of it")
	}
}

func TestReadersOfABodyAreIndependent(t *testing.T) {
	for _, getBody := range []bool{true, false} {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			first := req.Body
			beginning := make([]byte, 10)
			_, err := io.ReadFull(first, beginning)
			require.NoError(t, err)
			second, err := req.GetBody()
			require.NoError(t, err)
			first.Read(make([]byte, 10)) // what was given up reads on, and closes late
			text, err := io.ReadAll(second)
			require.NoError(t, err)
			require.Equal(t, `{"messages":[{"role":"user","content":"hi"}],"model":"m"}`, string(text))
			second.Close()
			return ok200(req)
		})
		req := newChat(t, chatPath)
		if !getBody {
			req.GetBody = nil
		}
		send(t, balance(t, base, azure("a")), req)
	}
}

// A body whose Read waits is let go by closing it, as with net/http: else a
// caller could not leave while its upload is stuck.
func TestStuckUploadCanBeCancelled(t *testing.T) {
	// As net/http does it: one goroutine sends, and the end of the context closes the body.
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		go io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
		req.Body.Close()
		return nil, context.Cause(req.Context())
	})
	ctx, leave := context.WithCancel(t.Context())
	upload, caller := io.Pipe()
	req := newChat(t, chatPath).WithContext(ctx)
	req.Body, req.GetBody, req.ContentLength = upload, nil, replay.MaxBuffered+1
	tr, ended := balance(t, base, azure("a")), make(chan error, 1)
	go func() {
		_, err := tr.RoundTrip(req)
		ended <- err
	}()
	_, err := caller.Write([]byte("{")) // which returns once it is read; nothing follows
	require.NoError(t, err)
	leave()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(5 * time.Second): // a mutex is no bubble's to wait for
		caller.Close() // so that the test ends
		<-ended
		require.Fail(t, "RoundTrip hangs in a read of the caller's body")
	}
}

func TestContentLengthAndGetBodyMatchTheBody(t *testing.T) {
	for _, d := range []spillover.Dialect{spillover.Azure, spillover.AzureV1} {
		for _, getBody := range []bool{true, false} {
			t.Run(fmt.Sprint(d, " ", getBody), func(t *testing.T) {
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					for range 3 {
						text, err := io.ReadAll(req.Body)
						require.NoError(t, err)
						require.EqualValues(t, len(text), req.ContentLength)
						if d == spillover.AzureV1 {
							require.Contains(t, string(text), `"model":"m-`+req.URL.Host[:1]+`"`)
						}
						require.NotNil(t, req.GetBody)
						req.Body, err = req.GetBody()
						require.NoError(t, err)
					}
					req.Body.Close()
					if req.URL.Host == host("a") {
						return status(503, "{}")(req)
					}
					return ok200(req)
				})
				named := func(name string) func(*spillover.Backend) {
					return func(b *spillover.Backend) { b.Dialect, b.Models = d, []spillover.Model{{Name: "m", Deployment: name}} }
				}
				req := newChat(t, chatPath)
				if !getBody {
					req.GetBody, req.ContentLength = nil, -1
				}
				resp, _ := send(t, balance(t, base, azure("a", named("m-a")), azure("b", priority(2), named("m-b"))), req)
				require.Equal(t, "b", servedBy(resp))
			})
		}
	}
}

// GetBody of the base's request fails as the caller's does.
func TestGetBodyErrorReachesTheBase(t *testing.T) {
	fault := errors.New("gone")
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		_, err := req.GetBody()
		return nil, err
	})
	req := testnet.NewLargeChat(t, chatPath)
	req.GetBody = func() (io.ReadCloser, error) { return nil, fault }
	_, err := balance(t, base, azure("a")).RoundTrip(req)
	require.ErrorIs(t, err, fault)
}

func TestRequestWithoutBodyStaysWithout(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		for _, answer := range []roundTripFunc{ok200, status(429, "{}"), status(500, "{}"), broken(errReset), broken(errRefused)} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://x/openai/models?api-version=1", body)
			require.NoError(t, err)
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				require.True(t, req.Body == nil || req.Body == http.NoBody)
				require.Zero(t, req.ContentLength)
				if req.URL.Host == host("b") {
					return ok200(req)
				}
				return answer(req)
			})
			require.NotPanics(t, func() { send(t, firstAndSecond(t, base), req) })
		}
	}
}

func TestRoundTripReturnsEitherResponseOrError(t *testing.T) {
	fault := errors.New("fault")
	var closed atomic.Int64
	both := func(req *http.Request) (*http.Response, error) {
		resp, _ := status(200, "{}")(req)
		resp.Body = &testnet.Tracked{Reader: strings.NewReader(""), Closed: &closed}
		return resp, fault
	}
	for _, test := range []struct {
		name string
		base roundTripFunc
		want string
	}{
		{"neither", func(*http.Request) (*http.Response, error) { return nil, nil }, "neither an answer nor an error"},
		{"both", both, "fault"},
		{"both, without a body", func(*http.Request) (*http.Response, error) { return &http.Response{}, fault }, "fault"},
	} {
		n := newNet()
		n.On(host("a"), test.base)
		tr := firstAndSecond(t, n)
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp), "another one answers")
		n.On(host("b"), test.base)
		resp, err := firstAndSecond(t, n).RoundTrip(newChat(t, chatPath))
		require.Nil(t, resp)
		require.ErrorContains(t, err, test.want)
	}
	require.EqualValues(t, 5, closed.Load(), "of two sends to a, and then of two to a and one to b")

	resp, text := ask(t, balance(t, roundTripFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200}, nil
	}), azure("a")))
	require.Equal(t, 200, resp.StatusCode)
	require.Empty(t, text)
	require.Equal(t, "a", servedBy(resp), "a header was made")
}

func TestSynthesizedAnswersHaveAllFieldsOfAResponse(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}", "Retry-After: 60"))
	tr := balance(t, n, azure("a", serves("m")))
	for target, code := range map[string]string{
		chatPath: "429 Too Many Requests",
		strings.Replace(chatPath, "/m/", "/x/", 1): "404 Not Found",
	} {
		req := newChat(t, target)
		resp, text := send(t, tr, req)
		require.Equal(t, code, resp.Status)
		require.Equal(t, code[:3], fmt.Sprint(resp.StatusCode))
		require.Equal(t, []any{"HTTP/1.1", 1, 1}, []any{resp.Proto, resp.ProtoMajor, resp.ProtoMinor})
		require.EqualValues(t, len(text), resp.ContentLength)
		require.Same(t, req, resp.Request)
		require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
		require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
	}
}

func TestAttemptEndsOnceHoweverTheBodyEnds(t *testing.T) {
	fault := errors.New("cut")
	for name, end := range map[string]func(*testing.T, *http.Response, context.CancelFunc){
		"EOF": func(t *testing.T, resp *http.Response, _ context.CancelFunc) {
			_, err := io.CopyN(io.Discard, resp.Body, 4)
			require.NoError(t, err)
			_, err = resp.Body.Read(make([]byte, 9))
			require.Equal(t, io.EOF, err)
			_, err = resp.Body.Read(make([]byte, 9))
			require.Equal(t, io.EOF, err)
		},
		"error": func(t *testing.T, resp *http.Response, _ context.CancelFunc) {
			_, err := io.ReadAll(resp.Body)
			require.ErrorIs(t, err, fault)
		},
		"Close": func(t *testing.T, resp *http.Response, _ context.CancelFunc) {
			require.NoError(t, resp.Body.Close())
			require.NoError(t, resp.Body.Close())
		},
		"the context's end": func(_ *testing.T, _ *http.Response, leave context.CancelFunc) { leave() },
		"all of them": func(_ *testing.T, resp *http.Response, leave context.CancelFunc) {
			var all sync.WaitGroup
			all.Go(leave)
			all.Go(func() { io.Copy(io.Discard, resp.Body) })
			all.Go(func() { resp.Body.Close() })
			all.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended context.Context
				tr := balance(t, withBody(200, func(req *http.Request) io.ReadCloser {
					ended = req.Context()
					if name == "error" {
						return testnet.BrokenBody{Closer: io.NopCloser(nil), Err: fault}
					}
					return io.NopCloser(strings.NewReader("text"))
				}), azure("a"))
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.NoError(t, err)
				require.Equal(t, 1, statusOf(t, tr, "a").InFlight)
				require.NoError(t, ended.Err())
				end(t, resp, leave)
				synctest.Wait()
				require.Zero(t, statusOf(t, tr, "a").InFlight)
				require.Error(t, ended.Err(), "what the attempt holds is given back")
				resp.Body.Close()
				leave()
				synctest.Wait()
				require.Zero(t, statusOf(t, tr, "a").InFlight)
			})
		})
	}
}

// A context that cannot end needs no watch.
func TestBackgroundContextNeedsNoWatch(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(context.Background()))
	require.NoError(t, err)
	read(t, resp)
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}

func TestUpgradedBodyIsWritable(t *testing.T) {
	u := &testnet.Upgraded{Reader: strings.NewReader("frames")}
	for code, writes := range map[int]bool{101: true, 200: false} {
		tr := balance(t, withBody(code, func(*http.Request) io.ReadCloser { return u }), azure("a"))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		w, ok := resp.Body.(io.Writer)
		require.Equal(t, writes, ok)
		if ok {
			_, err = w.Write([]byte("hello"))
			require.NoError(t, err)
			require.Equal(t, "hello", u.Buffer.String())
		}
		read(t, resp)
		require.Zero(t, statusOf(t, tr, "a").InFlight)
	}
}

func TestDrainOfErrorBodiesIsCapped(t *testing.T) {
	for _, size := range []int{0, 100, maxErrorBody, maxErrorBody + 2, maxErrorBody * 10} {
		text := strings.Repeat("x", size)
		source := strings.NewReader(text)
		var closed atomic.Int64
		n := newNet()
		n.On(host("a"), withBody(500, func(*http.Request) io.ReadCloser { return &testnet.Tracked{Reader: source, Closed: &closed} }))
		ask(t, sentOnce(t, n))
		require.LessOrEqual(t, size-source.Len(), maxErrorBody+1)
		require.Equal(t, size <= maxErrorBody, source.Len() == 0, "a small one is read to its end, so that its connection can be used again")
		require.EqualValues(t, 1, closed.Load())

		// The caller gets all of it, however long.
		source.Reset(text)
		resp, got := ask(t, balance(t, n, azure("a")))
		require.Equal(t, 500, resp.StatusCode)
		require.True(t, got == text)
		require.EqualValues(t, 2, closed.Load())
	}
}

func TestContextIsCheckedBetweenAttempts(t *testing.T) {
	ctx, leave := context.WithCancelCause(t.Context())
	reason := errors.New("the user went away")
	n := newNet()
	n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		leave(reason)
		return status(429, "{}")(req)
	})
	tr := firstAndSecond(t, n)
	_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
	require.ErrorIs(t, err, reason, "the cause, as net/http returns it")
	require.Equal(t, 1, n.Sends())
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}

func TestCloseIdleConnectionsReachesTheBase(t *testing.T) {
	base := &testnet.IdleCloser{RoundTripper: newNet()}
	tr := balance(t, base, azure("a"))
	(&http.Client{Transport: tr}).CloseIdleConnections()
	require.Equal(t, 1, base.Calls)
	require.NoError(t, tr.Close())
	require.Equal(t, 1, base.Calls, "a base that was given is left alone")
	require.NotPanics(t, balance(t, newNet(), azure("a")).CloseIdleConnections, "not every base has idle connections")
}

// A transport interprets errors, and nothing else: what is none is handed over
// before its body is looked at.
func TestSuccessfulAnswersAreNotInterpreted(t *testing.T) {
	for _, code := range []int{200, 201, 204, 299, 302, 304, 399} {
		var read atomic.Int64
		tr := balance(t, func() http.RoundTripper {
			n := newNet()
			n.On(host("a"), func(req *http.Request) (*http.Response, error) {
				resp, err := withBody(code, func(*http.Request) io.ReadCloser { return io.NopCloser(testnet.Endless{Bytes: &read}) })(req)
				resp.Header["X-Odd"] = []string{"", "two"}
				resp.Header.Set("Location", "https://elsewhere/")
				return resp, err
			})
			return n
		}(), azure("a"))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, code, resp.StatusCode)
		require.Zero(t, read.Load())
		require.Equal(t, []string{"", "two"}, resp.Header["X-Odd"])
		require.Equal(t, "https://elsewhere/", resp.Header.Get("Location"))
		resp.Body.Close()
	}
}

func TestClientTimeoutCoversTheWholeStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A stream of 200 s, one byte each second.
		tr := balance(t, withBody(200, func(req *http.Request) io.ReadCloser {
			left := 200
			return io.NopCloser(testnet.ReaderFunc(func(p []byte) (int, error) {
				select {
				case <-time.After(time.Second):
				case <-req.Context().Done():
					return 0, req.Context().Err()
				}
				if left--; left < 0 {
					return 0, io.EOF
				}
				return copy(p, "x"), nil
			}))
		}), azure("a", func(b *spillover.Backend) { b.HeaderTimeout = 5 * time.Second }))

		client := &http.Client{Transport: tr, Timeout: 30500 * time.Millisecond}
		resp, err := client.Do(newChat(t, chatPath))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.Len(t, text, 30)
		require.Zero(t, statusOf(t, tr, "a").InFlight)
		require.True(t, statusOf(t, tr, "a").Available)
		resp.Body.Close()

		client.Timeout = 0
		resp, err = client.Do(newChat(t, chatPath))
		require.NoError(t, err)
		require.Len(t, read(t, resp), 200, "a backend's own timeout ends with the header")
	})
}

func TestClosed(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	open, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, tr.Close())
	}
	require.Equal(t, "{}", read(t, open), "what is under way finishes")
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.Nil(t, resp)
	require.ErrorIs(t, err, net.ErrClosed)
	require.Equal(t, 1, n.Sends())
	require.NotPanics(t, func() { tr.Status(); tr.CloseIdleConnections() })
}

// With a base of its own a closed transport leaves no connection behind.
func TestClosedLeavesNoConnection(t *testing.T) {
	var open atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	gone := make(chan struct{})
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			if open.Add(-1) == 0 {
				close(gone)
			}
		}
	}
	server.Start()
	defer server.Close()
	tr, err := spillover.New(spillover.Config{Backends: []spillover.Backend{{URL: server.URL, APIKey: "key", Dialect: spillover.Azure}}})
	require.NoError(t, err)
	for range 3 {
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
	}
	require.EqualValues(t, 1, open.Load(), "one connection, used again")
	require.NoError(t, tr.Close())
	<-gone
}

func TestConcurrentFailuresReturnEitherAnswerOrError(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault")
	var turn atomic.Uint64
	answers := []roundTripFunc{
		status(429, "{}", "Retry-After-Ms: 1"), status(500, "{}"), broken(fault), status(503, "{}"), status(401, "{}"),
		broken(errRefused), status(408, "{}"), func(*http.Request) (*http.Response, error) { return nil, nil },
	}
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
		if req.URL.Host == host("good") {
			return ok200(req)
		}
		return answers[turn.Add(1)%uint64(len(answers))](req)
	})
	tr := balance(t, base, azure("a"), azure("b"), azure("good", priority(2)))
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			if (resp == nil) == (err == nil) {
				t.Error("neither, or both", resp, err)
				return
			}
			if err != nil || resp.StatusCode != 200 {
				t.Error("one deployment is good", resp, err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
	}
	all.Wait()
	nothingInFlight(t, tr)
}

func TestFlappingBackendsUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var backends []spillover.Backend
		for i := range 5 {
			name := fmt.Sprint("b", i)
			backends = append(backends, azure(name, priority(1+i/3), weight(1+i)))
			// Up and down by turns, each at its own pace.
			n.On(host(name), slow(time.Millisecond, func(req *http.Request) (*http.Response, error) {
				switch now := time.Now().UnixMilli(); now / int64(50+7*i) % 4 {
				case 0:
					return status(429, "{}", "Retry-After-Ms: 20")(req)
				case 1:
					return status(500, "{}")(req)
				case 2:
					return nil, errRefused
				}
				return ok200(req)
			}))
		}
		tr := balance(t, n, backends...)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				for range 50 {
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					if (resp == nil) == (err == nil) {
						t.Error("neither, or both", resp, err)
						return
					}
					if resp != nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
					for _, tier := range tr.Status().Tiers {
						for _, b := range tier.Backends {
							for _, d := range b.Deployments {
								if d.InFlight < 0 || d.InFlight > 100 {
									t.Error(b.Name, "in flight", d.InFlight)
								}
							}
						}
					}
					time.Sleep(3 * time.Millisecond)
				}
			})
		}
		all.Wait()
		nothingInFlight(t, tr)
		time.Sleep(time.Minute)
		for i := range 5 {
			n.On(host(fmt.Sprint("b", i)), ok200)
		}
		for range 100 {
			ask(t, tr)
		}
		for _, tier := range tr.Status().Tiers[:1] {
			for _, b := range tier.Backends {
				require.True(t, b.Available, "all are back")
			}
		}
	})
}

// inTime runs a test in virtual time over a pool of a, b and c, in three tiers.
func inTime(t *testing.T, f func(t *testing.T, n *fakeNet, tr *spillover.Transport)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		f(t, n, balance(t, n, azure("a"), azure("b", priority(2)), azure("c", priority(3))))
	})
}

func TestInFlightIsReleasedOnceHoweverAStreamEnds(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), testnet.Content("text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: {\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":-1},\"choices\":[]}\n\ndata: [DONE]\n\n"))
		for _, end := range []func(*http.Response, context.CancelFunc){
			func(resp *http.Response, _ context.CancelFunc) { _, _ = io.ReadAll(resp.Body) },
			func(resp *http.Response, _ context.CancelFunc) { resp.Body.Close(); resp.Body.Close() },
			func(_ *http.Response, leave context.CancelFunc) { leave() }, // and never closed
			func(resp *http.Response, leave context.CancelFunc) {
				leave()
				_, _ = io.ReadAll(resp.Body)
				resp.Body.Close()
			},
		} {
			ctx, leave := context.WithCancel(t.Context())
			resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			require.NoError(t, err)
			require.Equal(t, 1, statusOf(t, tr, "a").InFlight)
			end(resp, leave)
			synctest.Wait()
			require.Zero(t, statusOf(t, tr, "a").InFlight)
			leave()
		}
		require.Zero(t, statusOf(t, tr, "a").InputTokens)
		require.Zero(t, statusOf(t, tr, "a").OutputTokens)
	})
}

func TestConcurrentUseIsRaceFree(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}", "retry-after-ms: 1"), status(500, "{}"), status(401, azureKey), broken(noConnection), status(200, testnet.ResponseText))
	tr := balance(t, n, azure("a"), azure("b"), azure("c", priority(2)))
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 20 {
				resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
				require.Equal(t, 200, resp.StatusCode)
				tr.Status()
			}
		})
	}
	all.Wait()
}

func TestRandomFailuresReturnEitherAnswerOrError(t *testing.T) {
	n := newNet()
	kinds := []roundTripFunc{status(429, "{}"), status(500, "{}"), broken(cutOff), status(404, "{}"), broken(nil), status(200, "{}"), status(408, "")}
	for _, name := range []string{"a", "b"} {
		n.On(host(name), func(req *http.Request) (*http.Response, error) { return kinds[rand.IntN(len(kinds))](req) })
	}
	tr := balance(t, n, azure("a"), azure("b"))
	for range 200 {
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.True(t, (resp == nil) != (err == nil))
	}
}

const azureKey = `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key"}}`

// A request over HTTP/2: the first backend refuses it, the second one is sent the
// same request in its own form, and the stream and what it used are handed over
// and counted.
func TestRequestOverHTTP2FailsOverAndIsCounted(t *testing.T) {
	const stream = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n" +
		"data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4},\"choices\":[]}\n\ndata: [DONE]\n\n"
	arrived := make(chan []string, 9)
	serve := func(answer http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			arrived <- []string{r.Proto, r.URL.RequestURI(), r.Header.Get("Api-Key"), r.Header.Get("Authorization"), string(body)}
			answer(w, r)
		}))
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	a := serve(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	b := serve(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, stream)
	})
	backend := func(name, url string, p int) spillover.Backend {
		return spillover.Backend{Name: name, URL: url, Dialect: spillover.Azure, APIKey: "key-" + name, Priority: p, Models: []spillover.Model{{Name: "m", Deployment: "m-" + name}}}
	}
	base := b.Client().Transport // both servers have the same certificate
	tr := configured(t, spillover.Config{Base: base, Backends: []spillover.Backend{backend("a", a.URL, 1), backend("b", b.URL, 2)}})

	hints := make(chan int, 9)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		hints <- code
		return nil
	}})
	req := newChat(t, chatPath).WithContext(ctx)
	req.Header.Set("Authorization", "Bearer the caller's")
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, 2, resp.ProtoMajor)
	require.Equal(t, 1, statusOf(t, tr, "b").InFlight, "until the stream has ended")
	require.Equal(t, stream, read(t, resp))
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
	require.Same(t, req, resp.Request)
	require.Equal(t, http.StatusEarlyHints, <-hints)
	for _, name := range []string{"a", "b"} {
		require.Equal(t, []string{
			"HTTP/2.0", "/openai/deployments/m-" + name + "/chat/completions?api-version=2024-08-01-preview", "key-" + name, "",
			`{"messages":[{"role":"user","content":"hi"}],"model":"m"}`,
		}, <-arrived)
	}

	s := statusOf(t, tr, "a")
	require.False(t, s.Available)
	require.Equal(t, []uint64{0, 1, 0}, []uint64{s.Served, s.Throttled, s.Failed})
	s = statusOf(t, tr, "b")
	require.True(t, s.Available)
	require.Equal(t, []uint64{1, 0, 0}, []uint64{s.Served, s.Throttled, s.Failed})
	require.Equal(t, []int64{3, 4}, []int64{s.InputTokens, s.OutputTokens})
	nothingInFlight(t, tr)
}
