package spillover_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// A time that a 5xx comes with is obeyed once another deployment has answered. A
// request that MaxAttempts ends says as little against a large pool as one that
// fails everywhere says against a small one.
func TestTimeOfAServerErrorNeedsAnotherAnswer(t *testing.T) {
	for _, code := range []int{500, 503, 529} {
		for members := 1; members <= 10; members++ {
			for tiers := 1; tiers <= min(3, members); tiers++ {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					var backends []spillover.Backend
					for i := range members {
						backends = append(backends, azure(fmt.Sprint("d", i), priority(1+i%tiers)))
					}
					tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if req.Header.Get("X-Poison") != "" {
							return status(code, `{"error":{"message":"overloaded"}}`, "Retry-After: 20")(req)
						}
						return n.RoundTrip(req)
					}), backends...)
					resp, _ := send(t, tr, poison(t))
					require.Equal(t, code, resp.StatusCode)
					for i := range members {
						require.Zero(t, left(t, tr, fmt.Sprint("d", i)), "%d in %d tiers", members, tiers)
					}
					for range 5 {
						resp, _ = send(t, tr, poison(t)) // as an SDK does
						require.Equal(t, code, resp.StatusCode)
						resp, _ = ask(t, tr)
						require.Equal(t, 200, resp.StatusCode)
						require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
					}
				})
			}
		}
	}
	// A tier that says so of everything is left.
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		backends := []spillover.Backend{azure("well", priority(2))}
		for i := range 5 {
			n.On(host(fmt.Sprint("d", i)), status(503, "{}", "Retry-After: 20"))
			backends = append(backends, azure(fmt.Sprint("d", i)))
		}
		tr := balance(t, n, backends...)
		for range 10 {
			resp, _ := ask(t, tr)
			require.Equal(t, "well", servedBy(resp))
		}
		require.LessOrEqual(t, n.Sends(), 10+5, "each of the five once")
	})
}

// A stream that breaks off counts with the failures before it, unless others have
// ended well meanwhile.
func TestBrokenStreamAmongGoodAnswersEjectsNobody(t *testing.T) {
	for between := range 3 {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			next := broken(errReset)
			n.On(host("a"), func(req *http.Request) (*http.Response, error) { return next(req) })
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			ask(t, tr) // which counts once
			next = func(req *http.Request) (*http.Response, error) {
				begun, rest := io.Pipe()
				go func() {
					_, _ = io.WriteString(rest, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n")
					time.Sleep(time.Minute)
					rest.CloseWithError(errReset)
				}()
				resp, _ := status(200, "")(req)
				resp.Header.Set("Content-Type", "text/event-stream")
				resp.Body, resp.ContentLength = begun, -1
				return resp, nil
			}
			time.Sleep(time.Millisecond)
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			require.Equal(t, "a", servedBy(resp))
			next = ok200
			for range between {
				time.Sleep(time.Second)
				other, _ := ask(t, tr)
				require.Equal(t, "a", servedBy(other))
			}
			_, err = io.ReadAll(resp.Body)
			require.Error(t, err)
			require.Equal(t, between == 0, left(t, tr, "a") > 0, "%d answers between", between)
		})
	}
}

// A panic of the log while failures are counted leaves no doubt behind.
func TestPanicWhileFailuresAreCounted(t *testing.T) {
	for record, answer := range map[string]roundTripFunc{
		"deployment out": status(500, "{}"), "deployment cooling": status(503, "{}", "Retry-After: 5"), "attempt": broken(errReset),
	} {
		synctest.Test(t, func(t *testing.T) {
			at := ""
			n := newNet()
			n.On(host("a"), answer)
			n.On(host("b"), answer)
			tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a"), azure("b"), azure("c", priority(2))}, Logger: slog.New(panicking{at: &at})})
			ask(t, tr)
			at = record
			for range 6 {
				func() {
					defer func() { _ = recover() }()
					if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
						resp.Body.Close()
					}
				}()
				time.Sleep(time.Second)
			}
			for d := range spillover.DeploymentsOf(tr, "m") {
				require.Zero(t, d.PendingFailures.Load(), "%s, %s", record, d.BackendName())
				require.Zero(t, d.InFlight.Load(), "%s, %s", record, d.BackendName())
				require.Zero(t, d.Unanswered(), "%s, %s", record, d.BackendName())
			}
		})
	}
}
