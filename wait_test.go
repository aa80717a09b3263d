package spillover_test

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

// waiting is a Transport whose requests wait for so long at most.
func waiting(t testing.TB, n http.RoundTripper, most time.Duration, backends ...spillover.Backend) *spillover.Transport {
	return steady(configured(t, spillover.Config{Base: n, MaxWait: most, Backends: backends}))
}

// The request that is refused itself waits as well, and its body is sent again.
func TestThrottledRequestWaitsAndIsReplayed(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"with GetBody":    func(*http.Request) {},
		"without GetBody": func(r *http.Request) { r.GetBody = nil },
		"of unknown length": func(r *http.Request) {
			r.GetBody, r.ContentLength, r.Body = nil, -1, io.NopCloser(iotest.OneByteReader(r.Body))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := testnet.Refusing(2000)
				tr := waiting(t, n, 5*time.Second, azure("a"))
				req := newChat(t, chatPath)
				change(req)
				begun := time.Now()
				resp, _ := send(t, tr, req)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, 2*time.Second, time.Since(begun))
				require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
				require.Equal(t, "a", servedBy(resp))
				require.Len(t, n.Seen, 2)
				require.NotEmpty(t, n.Seen[0].Body)
				require.Equal(t, n.Seen[0].Body, n.Seen[1].Body)
			})
		})
	}
}

// Answers that came at once say nothing of waiting.
func TestAnswerWithoutWaitHasNoWaitedHeader(t *testing.T) {
	tr := waiting(t, newNet(), time.Minute, azure("a"))
	resp, _ := ask(t, tr)
	require.NotContains(t, resp.Header, "X-Spillover-Waited-Ms")
}

// A wait ends at another deployment, if that is the soonest.
func TestWaitEndsAtTheSoonestDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.Refusing(4000)
		n.On(host("b"), status(429, "{}", "retry-after-ms: 1500"), status(200, "{}"))
		tr := waiting(t, n, 5*time.Second, azure("a"), azure("b", priority(2)))
		begun := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, 1500*time.Millisecond, time.Since(begun))
		require.Equal(t, []string{host("a"), host("b"), host("b")}, n.Order())
	})
}

// A body that cannot be had again is not waited with once it was sent.
func TestRequestWithUnreplayableBodyDoesNotWait(t *testing.T) {
	for name, reads := range map[string]bool{"begun": true, "unread": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sends := 0
				tr := waiting(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if sends++; sends > 1 {
						return status(200, "{}")(req)
					}
					if reads {
						_, err := req.Body.Read(make([]byte, 1))
						require.NoError(t, err)
					}
					req.Body.Close()
					return status(429, `"its own"`, "retry-after-ms: 2000")(req)
				}), 5*time.Second, azure("a"))
				req := newChat(t, chatPath)
				req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader("too large to be kept")), nil, replay.MaxBuffered+1
				begun := time.Now()
				resp, body := send(t, tr, req)
				if reads {
					require.Equal(t, 429, resp.StatusCode)
					require.Equal(t, `"its own"`, body)
					require.Zero(t, time.Since(begun))
					return
				}
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, 2*time.Second, time.Since(begun))
			})
		})
	}
}

// Several waits are one: together they are no longer than MaxWait.
func TestRepeatedWaitsShareMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.Refusing(2000, 2000, 2000, 2000)
		tr := waiting(t, n, 5*time.Second, azure("a"))
		begun := time.Now()
		resp, _ := ask(t, tr)
		waited := time.Since(begun)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, 3, n.Sends(), "twice it was worth it")
		require.GreaterOrEqual(t, waited, 4*time.Second)
		require.LessOrEqual(t, waited, 5*time.Second)
		require.Equal(t, strconv.FormatInt(waited.Milliseconds(), 10), resp.Header.Get("X-Spillover-Waited-Ms"))
		require.Equal(t, resp.Header.Get("Retry-After-Ms"), strconv.Itoa(int(math.Ceil(time.Until(statusOf(t, tr, "a").Until).Seconds()*1000))))
	})
}

// What waiting does not mend is not waited for.
func TestRequestDoesNotWaitForPermanentErrors(t *testing.T) {
	for name, test := range map[string]struct {
		answer roundTripFunc
		status int
	}{
		"out of quota":  {status(429, testnet.ErrorBody("insufficient_quota", "insufficient_quota")), 429},
		"its key":       {status(401, "{}"), 401},
		"its own fault": {status(400, "{}"), 400},
		"broken":        {status(500, "{}"), 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answer)
				n.On(host("b"), test.answer)
				tr := waiting(t, n, time.Hour, azure("a"), azure("b", priority(2)))
				begun := time.Now()
				resp, _ := ask(t, tr)
				require.Equal(t, test.status, resp.StatusCode)
				require.Zero(t, time.Since(begun))
				require.NotContains(t, resp.Header, "X-Spillover-Waited-Ms")
			})
		})
	}
}

// Two that throttle a request at first and then do not take it at all.
func TestThrottlesFollowedByRefusalsOfTheKeyEndTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, most := range []time.Duration{0, 5 * time.Second} {
			n := newNet()
			for _, name := range []string{"a", "b"} {
				n.On(host(name), slow(10*time.Millisecond, status(429, "{}", "retry-after-ms: 5")), slow(10*time.Millisecond, status(401, `"key"`)))
			}
			tr := waiting(t, n, most, azure("a"), azure("b"))
			require.NotPanics(t, func() {
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				require.Contains(t, []int{401, 429}, resp.StatusCode)
			})
		}
	})
}

// The spread comes out of MaxWait: it is no reason to refuse who may wait until
// the soonest.
func TestWakeSpreadDoesNotExceedMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := waiting(t, testnet.Refusing(5000), 5*time.Second, azure("a"))
		tr.SetRandom(func() uint64 { return math.MaxUint64 })
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
	})
}

// And however many wake up, no more are admitted than the pacing allows.
func TestWaitersAreAdmittedAtThePaceAfterAThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var mu sync.Mutex
		var at []time.Time
		a := slow(trip, status(200, "{}"))
		n.On(host("a"), slow(trip, status(429, "{}", "Retry-After: 3")), func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			at = append(at, time.Now())
			mu.Unlock()
			return a(req)
		})
		tr := seeded(waiting(t, n, 2*time.Minute, azure("a")))
		inTurn(t, tr, 1, 0) // is refused, and begins the pacing
		begun := at[0]
		inTurn(t, tr, 100, 0)
		require.Len(t, at, 101)
		require.GreaterOrEqual(t, at[1].Sub(begun), trip, "the word of the first is there before the next is sent")
		for i := range at[:21] {
			require.Less(t, i, 2+int(at[i].Sub(begun)/(trip/8)), "not all at once")
		}
		require.Less(t, time.Since(begun), 30*time.Second, "growing all the same")
	})
}

// A pool that stays throttled: all wait, none for longer than it may.
func TestWaitersAreRefusedAfterMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(trip, status(429, "{}", "Retry-After: 2")))
		tr := seeded(waiting(t, n, 9*time.Second, azure("a")))
		begun := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				resp, _ := ask(t, tr)
				require.Equal(t, 429, resp.StatusCode)
				ms, err := strconv.Atoi(resp.Header.Get("Retry-After-Ms"))
				require.NoError(t, err)
				require.Positive(t, ms)
			})
		}
		all.Wait()
		require.LessOrEqual(t, time.Since(begun), 10*time.Second)
		require.Less(t, n.Sends(), 100+10, "once each when nobody knew yet, then one by one")
	})
}

// With MaxWait a request that may be sent at once does not wait for what is closed.
func TestWaitingIsForTheSoonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(50*time.Millisecond, status(429, "{}", "Retry-After: 60")))
		n.On(host("b"), slow(100*time.Millisecond, ok200))
		tr := waiting(t, n, 30*time.Second, azure("a"), azure("b"))
		begun := time.Now()
		require.Equal(t, map[int]int{200: 100}, together(t, tr, 100))
		require.Less(t, time.Since(begun), time.Second)
	})
}
