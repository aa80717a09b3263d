package spillovertest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// listening runs a test with the servers that listen.
func listening(t *testing.T, test func(*testing.T, *spillovertest.Server)) {
	for _, name := range []string{"http", "https"} {
		t.Run(name, func(t *testing.T) {
			s := servers[name](none)
			defer s.Close()
			test(t, s)
		})
	}
}

func TestProtocols(t *testing.T) {
	for name, want := range map[string]string{"memory": "HTTP/1.1", "http": "HTTP/1.1", "https": "HTTP/2.0"} {
		s := servers[name](none)
		defer s.Close()
		get(t, s, azurePath, hello)
		require.Equal(t, want, s.Requests()[0].Proto)
		require.Equal(t, "test", s.Name)
	}
}

func TestRefuseAndBack(t *testing.T) {
	listening(t, func(t *testing.T, s *spillovertest.Server) {
		url := s.URL
		for range 3 {
			status, _, _ := get(t, s, azurePath, hello)
			require.Equal(t, 200, status)
			s.Set(spillovertest.Fault{Kind: spillovertest.KindRefuse})
			requireRefused(t, s)
			s.Set(spillovertest.Fault{Status: 500, Times: 1}, spillovertest.Fault{Kind: spillovertest.KindRefuse})
			requireRefused(t, s)
			s.Heal()
			require.Equal(t, url, s.URL)
		}
		require.Equal(t, 3, s.Stats().Requests)
	})
}

// requireRefused expects a refusal, after at most one failure of a connection
// that the client had not yet noticed to be gone.
func requireRefused(t *testing.T, s *spillovertest.Server) {
	t.Helper()
	_, err := post(t, s, azurePath, hello)
	require.Error(t, err)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		_, err = post(t, s, azurePath, hello)
	}
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// KindRefuse closes existing connections.
func TestRefuseBreaksStreams(t *testing.T) {
	listening(t, func(t *testing.T, s *spillovertest.Server) {
		s.Set(spillovertest.Fault{Kind: spillovertest.KindStall, After: 1})
		res, err := post(t, s, azurePath, helloSSE)
		require.NoError(t, err)
		defer res.Body.Close()
		readTo(t, res.Body, `"when"`)
		s.Set(spillovertest.Fault{Kind: spillovertest.KindRefuse})
		_, err = io.ReadAll(res.Body)
		require.Error(t, err)
		require.Zero(t, s.Stats().InFlight)
	})
}

// readTo reads up to the line that contains text.
func readTo(t *testing.T, body io.Reader, text string) {
	t.Helper()
	for lines := bufio.NewScanner(body); lines.Scan(); {
		if strings.Contains(lines.Text(), text) {
			return
		}
	}
	require.Fail(t, "not found", text)
}

func TestReset(t *testing.T) {
	listening(t, func(t *testing.T, s *spillovertest.Server) {
		s.Set(spillovertest.Fault{Kind: spillovertest.KindReset, Times: 1})
		_, err := post(t, s, azurePath, hello)
		require.Error(t, err)
		if strings.HasPrefix(s.URL, "http:") {
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
		require.Equal(t, 1, s.Stats().Failed)
		status, _, _ := get(t, s, azurePath, hello)
		require.Equal(t, 200, status)
	})
}

// With TLS but without HTTP/2 there is a connection to reset, too.
func TestResetTLS(t *testing.T) {
	s := spillovertest.NewTLSServer(none)
	defer s.Close()
	transport := s.Client().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	s.Set(spillovertest.Fault{Kind: spillovertest.KindReset, Times: 1})
	_, err := transport.RoundTrip(request(t, t.Context(), "POST", s.URL+azurePath, hello))
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestSilentUntilTheClientLeaves(t *testing.T) {
	listening(t, func(t *testing.T, s *spillovertest.Server) {
		ctx, cancel := context.WithCancel(t.Context())
		s.Set(spillovertest.Fault{Kind: spillovertest.KindSilent, Match: func(*http.Request) bool {
			go cancel() // it has arrived
			return true
		}})
		_, err := s.Client().Do(request(t, ctx, "POST", s.URL+azurePath, hello))
		require.ErrorIs(t, err, context.Canceled)
		for s.Stats().Failed == 0 { // the server is about to notice
			runtime.Gosched()
		}
		require.Zero(t, s.Stats().InFlight)
	})
}

func TestStallUntilTheClientLeaves(t *testing.T) {
	listening(t, func(t *testing.T, s *spillovertest.Server) {
		s.Set(spillovertest.Fault{Kind: spillovertest.KindStall, After: 1})
		ctx, cancel := context.WithCancel(t.Context())
		res, err := s.Client().Do(request(t, ctx, "POST", s.URL+azurePath, helloSSE))
		require.NoError(t, err)
		defer res.Body.Close()
		readTo(t, res.Body, `"when"`)
		cancel()
		_, err = io.ReadAll(res.Body)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestCloseDoesNotWait(t *testing.T) {
	for _, kind := range []spillovertest.Kind{spillovertest.KindSilent, spillovertest.KindStall} {
		listening(t, func(t *testing.T, s *spillovertest.Server) {
			arrived := make(chan struct{})
			s.Set(spillovertest.Fault{Kind: kind, Match: func(*http.Request) bool { close(arrived); return true }})
			done := make(chan error)
			go func() {
				res, err := post(t, s, azurePath, hello)
				if err == nil {
					_, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				done <- err
			}()
			<-arrived
			s.Close()
			require.Error(t, <-done)
			requireRefused(t, s)
			s.Heal() // and stays so
			requireRefused(t, s)
		})
	}
}

// A server can be the handler of another HTTP server, which goes on listening whatever
// the fault.
func TestHandler(t *testing.T) {
	s := spillovertest.New(none)
	outer := httptest.NewServer(http.StripPrefix("/up", s))
	defer outer.Close()
	send := func() (*http.Response, error) {
		return outer.Client().Post(outer.URL+"/up"+azurePath, "", strings.NewReader(hello))
	}
	res, err := send()
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, 200, res.StatusCode)
	s.Set(spillovertest.Fault{Kind: spillovertest.KindRefuse})
	_, err = send()
	require.ErrorIs(t, err, syscall.ECONNRESET)

	s.Set(spillovertest.Fault{Kind: spillovertest.KindReset})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", azurePath, nil))
	})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", azurePath, errReader{io.ErrUnexpectedEOF}))
	})
}

// The same holds for a client that disconnects in the middle of a write.
func TestFailingWrite(t *testing.T) {
	s := spillovertest.New(none)
	s.ServeHTTP(deafWriter{httptest.NewRecorder()}, httptest.NewRequest("POST", azurePath, strings.NewReader(helloSSE)))
	require.Equal(t, 1, s.Stats().Canceled)
}

type deafWriter struct{ *httptest.ResponseRecorder }

func (deafWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestRequests(t *testing.T) {
	everywhere(t, none, func(t *testing.T, s *spillovertest.Server) {
		r := request(t, t.Context(), "POST", s.URL+"/openai/deployments/a%2Fb%20c/chat/completions?api-version=1&x=%2F", hello)
		r.Header.Set("Api-Key", "secret")
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		res.Body.Close()
		r.Header.Set("Api-Key", "changed")

		got := s.Requests()
		require.Len(t, got, 1)
		require.Equal(t, "POST", got[0].Method)
		require.Equal(t, "/openai/deployments/a%2Fb%20c/chat/completions?api-version=1&x=%2F", got[0].URL)
		require.Equal(t, "https://"+got[0].Host, "https://"+r.URL.Host)
		require.Equal(t, "secret", got[0].Header.Get("Api-Key"))
		require.Equal(t, hello, string(got[0].Body))
		require.Equal(t, "a/b c", got[0].Deployment)
		require.Equal(t, 200, got[0].Status)
		require.False(t, got[0].Time.IsZero())
	})
}

func TestOnlyTheLastRequestsAreKept(t *testing.T) {
	s := spillovertest.New(none)
	for i := range 1234 {
		get(t, s, fmt.Sprintf("/%d", i), "")
	}
	got := s.Requests()
	require.Len(t, got, 1000)
	require.Equal(t, "/234", got[0].URL)
	require.Equal(t, "/1233", got[999].URL)
}

func TestStats(t *testing.T) {
	cfg := spillovertest.Config{Deployments: []spillovertest.Deployment{
		{Name: "gpt", Limit: spillovertest.PAYG{TPM: 5, RPM: 600}}, {Name: "idle"},
	}}
	everywhere(t, cfg, func(t *testing.T, s *spillovertest.Server) {
		get(t, s, azurePath, hello)
		get(t, s, azurePath, hello)                                    // throttled
		get(t, s, strings.Replace(azurePath, "gpt", "none", 1), hello) // 404
		s.Set(spillovertest.Fault{Status: 500})
		get(t, s, azurePath, hello)
		got := s.Stats()
		gpt := got.Deployments["gpt"]
		require.InDelta(t, 1.2, gpt.Utilization, .01)
		require.Equal(t, gpt.Utilization, got.Utilization)
		gpt.Utilization, got.Utilization = 0, 0
		want := spillovertest.Counts{
			Requests: 3, Served: 1, Throttled: 1, Failed: 1, MaxInFlight: 1,
			PromptTokens: 3, OutputTokens: 3, Charged: 6,
		}
		require.Equal(t, want, gpt)
		require.Zero(t, got.Deployments["idle"])
		require.Len(t, got.Deployments, 2)
		want.Requests, want.Failed = 4, 2
		require.Equal(t, want, got.Counts)
	})
}

// All methods may be called concurrently.
func TestConcurrentUse(t *testing.T) {
	everywhere(t, ptu, func(t *testing.T, s *spillovertest.Server) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for range 10 {
					if res, err := post(t, s, azurePath, helloSSE); err == nil {
						_, _ = io.ReadAll(res.Body)
						res.Body.Close()
					}
					if i == 0 {
						s.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 1, Times: 3})
						s.Stats()
						s.Requests()
					}
				}
			})
		}
		wg.Wait()
		got := s.Stats()
		require.Equal(t, 80, got.Requests)
		require.Equal(t, got.Requests, got.Served+got.Throttled+got.Failed+got.Canceled+got.InFlight)
	})
}
