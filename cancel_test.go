package spillover_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// slowly answers after a time, unless the caller leaves: it heeds the context and
// Request.Cancel, as net/http does, and whichever is first.
func slowly(d time.Duration) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return status(200, "{}")(req)
		case <-req.Cancel:
			return nil, errors.New("net/http: request canceled")
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
	}
}

// sixBackends are healthy backends, more than one request may fail at.
func sixBackends(t testing.TB, base http.RoundTripper) *spillover.Transport {
	var backends []spillover.Backend
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		backends = append(backends, azure(name))
	}
	return balance(t, base, backends...)
}

// harmless demands that nothing is held against a deployment and nothing is in flight.
func harmless(t testing.TB, tr *spillover.Transport) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			require.True(t, b.Available, b.Reason)
			for _, d := range b.Deployments {
				require.Zero(t, d.Failed, b.Name)
				require.Zero(t, d.InFlight, b.Name)
				require.True(t, d.Available, d.Reason)
			}
		}
	}
}

// timedOut demands the error that an http.Client makes of its Timeout: of the
// context's, or with "Client.Timeout exceeded" of Request.Cancel's.
func timedOut(t testing.TB, err error) {
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	if strings.Contains(err.Error(), "request canceled") {
		require.ErrorContains(t, err, "net/http: request canceled (Client.Timeout exceeded while awaiting headers)")
	}
}

// A Timeout of http.Client closes Request.Cancel and ends the context, in either
// order. Neither says anything of a deployment.
func TestClientTimeoutIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := sixBackends(t, slowly(time.Second))
		client := &http.Client{Transport: tr, Timeout: 50 * time.Millisecond}
		var all sync.WaitGroup
		for range 160 {
			all.Go(func() {
				_, err := client.Do(newChat(t, chatPath))
				timedOut(t, err)
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		harmless(t, tr)
	})
}

// The same over connections.
func TestClientTimeoutOverConnections(t *testing.T) {
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(release)
	var backends []spillover.Backend
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		backends = append(backends, spillover.Backend{Name: name, URL: slow.URL, Dialect: spillover.Azure, APIKey: "key-" + name})
	}
	tr := configured(t, spillover.Config{Backends: backends})
	defer tr.Close()
	client := &http.Client{Transport: tr, Timeout: 50 * time.Millisecond}
	var all sync.WaitGroup
	for range 60 {
		all.Go(func() {
			_, err := client.Do(newChat(t, chatPath))
			timedOut(t, err)
		})
	}
	all.Wait()
	harmless(t, tr)
}

func TestRequestCancelIsNoFailure(t *testing.T) {
	for name, base := range map[string]roundTripFunc{
		"a base that heeds it": slowly(time.Hour),
		"a base that heeds the context alone": func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, context.Cause(req.Context())
		},
		"a base that heeds it late": func(req *http.Request) (*http.Response, error) {
			<-req.Cancel
			time.Sleep(time.Second)
			return nil, errors.New("broken by then")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				for _, b := range []string{"a", "b", "c", "d", "e", "f"} {
					n.On(host(b), base)
				}
				tr := sixBackends(t, n)
				req, leave := newChat(t, chatPath), make(chan struct{})
				req.Cancel = leave
				time.AfterFunc(time.Second, func() { close(leave) })
				_, err := tr.RoundTrip(req)
				require.EqualError(t, err, "net/http: request canceled")
				require.Equal(t, 1, n.Sends(), "it does not move on")
				harmless(t, tr)
			})
		})
	}
	// It may be closed already.
	n := newNet()
	tr := sixBackends(t, n)
	req, left := newChat(t, chatPath), make(chan struct{})
	close(left)
	req.Cancel = left
	_, err := tr.RoundTrip(req)
	require.EqualError(t, err, "net/http: request canceled")
	require.Zero(t, n.Sends())
}

// A request whose Cancel is never closed is like any other, and leaves no goroutine.
func TestRequestCancelUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, answer := range []roundTripFunc{
			status(200, "{}"), status(400, "{}"), status(429, "{}", "Retry-After: 3"), broken(cutOff), testnet.EventStream(0, contentEvent, "[DONE]"),
		} {
			n.On(host("a"), answer)
			req := newChat(t, chatPath)
			req.Cancel = make(chan struct{})
			resp, err := balance(t, n, azure("a")).RoundTrip(req)
			if err == nil {
				read(t, resp)
				require.Same(t, req, resp.Request)
			}
		}
		require.Equal(t, 5, n.Sends())
		for _, change := range []func(*http.Request){
			func(req *http.Request) { req.URL = nil },
			func(req *http.Request) { req.URL.Path = "/openai/deployments/unknown/chat/completions" },
			func(req *http.Request) { req.Body, req.GetBody = io.NopCloser(testnet.BrokenBody{Err: cutOff}), nil },
		} {
			req := newChat(t, chatPath)
			req.Cancel = make(chan struct{})
			change(req)
			if resp, err := balance(t, n, azure("a", serves("m"))).RoundTrip(req); err == nil {
				read(t, resp)
			}
		}
	}) // which ends only when no goroutine is left
}

// What a request waits for it no longer waits for.
func TestRequestCancelEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 30"))
		tr := configured(t, spillover.Config{Base: n, MaxWait: time.Minute, Backends: []spillover.Backend{azure("a")}})
		for _, client := range []*http.Client{{Transport: tr}, spillover.RetryClient(balance(t, n, azure("a")), 5)} {
			started := time.Now()
			req, leave := newChat(t, chatPath), make(chan struct{})
			req.Cancel = leave
			time.AfterFunc(time.Second, func() { close(leave) })
			_, err := client.Transport.RoundTrip(req)
			require.EqualError(t, err, "net/http: request canceled")
			require.Equal(t, time.Second, time.Since(started))
		}
	})
}

// An answer that a caller leaves with Cancel alone, and forgets, ends with it.
func TestRequestCancelEndsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, forgets := range []bool{false, true} {
			tr := balance(t, withBody(200, func(req *http.Request) io.ReadCloser {
				return io.NopCloser(testnet.ReaderFunc(func([]byte) (int, error) {
					select {
					case <-req.Cancel:
						return 0, errors.New("net/http: request canceled")
					case <-req.Context().Done():
						return 0, context.Cause(req.Context())
					}
				}))
			}), azure("a"))
			req, leave := newChat(t, chatPath), make(chan struct{})
			req.Cancel = leave
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			time.AfterFunc(time.Second, func() { close(leave) })
			if forgets {
				time.Sleep(2 * time.Second)
			} else {
				_, err = io.ReadAll(resp.Body)
				require.EqualError(t, err, "net/http: request canceled")
			}
			synctest.Wait()
			harmless(t, tr)
		}
	})
}

// After an http.Client's Timeout the error names who was silent, whichever of the
// two ways in which the client leaves comes first.
func TestClientTimeoutNamesTheSilentDeployment(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("ptu"), slowly(time.Hour))
			client := &http.Client{Transport: balance(t, n, azure("ptu")), Timeout: 5 * time.Second}
			_, err := client.Do(newChat(t, chatPath))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "ptu has not answered for 5s")
		})
	}
	// Who closes Cancel before any deadline has left, and no more.
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), slowly(time.Hour))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, left := newChat(t, chatPath).WithContext(ctx), make(chan struct{})
		req.Cancel = left
		time.AfterFunc(time.Second, func() { close(left) })
		_, err := balance(t, n, azure("ptu")).RoundTrip(req)
		require.EqualError(t, err, "net/http: request canceled")
	})
}
