package spillover

import (
	"context"
	"errors"
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

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

// waiting is a Transport whose requests wait for so long at most.
func waiting(t testing.TB, n http.RoundTripper, most time.Duration, backends ...Backend) *Transport {
	return steady(configured(t, Config{Base: n, MaxWait: most, Backends: backends}))
}

// refusing is a net where a asks for so many milliseconds once, or each time,
// and then answers.
func refusing(milliseconds ...int) *fakeNet {
	n := newNet()
	var all []roundTripFunc
	for _, ms := range milliseconds {
		all = append(all, status(429, "{}", "retry-after-ms: "+strconv.Itoa(ms)))
	}
	n.On(host("a"), append(all, status(200, "{}"))...)
	return n
}

func TestRequestWaitsUpToMaxWait(t *testing.T) {
	const most = 5 * time.Second
	gone := errors.New("gone")
	for name, test := range map[string]struct {
		soonest  int           // milliseconds
		deadline time.Duration // of the caller
		leaves   time.Duration
		status   int
		after    time.Duration
		waited   string
	}{
		"2 s":                             {soonest: 2000, status: 200, after: 2 * time.Second, waited: "2000"},
		"as long as it may":               {soonest: 5000, status: 200, after: 5 * time.Second, waited: "5000"},
		"9 s":                             {soonest: 9000, status: 429},
		"just too long":                   {soonest: 5001, status: 429},
		"the caller's deadline is later":  {soonest: 2000, deadline: 3 * time.Second, status: 200, after: 2 * time.Second, waited: "2000"},
		"the caller's deadline is sooner": {soonest: 2000, deadline: time.Second, status: 429},
		"the caller leaves":               {soonest: 2000, leaves: 1500 * time.Millisecond, after: 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := refusing(test.soonest)
				tr := waiting(t, n, most, azure("a"))
				resp, _ := send(t, balanceOff(tr), newChat(t, chatPath)) // somebody else finds out
				require.Equal(t, 429, resp.StatusCode)

				ctx := t.Context()
				if test.deadline > 0 {
					var cancel func()
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				if test.leaves > 0 {
					var cancel func(error)
					ctx, cancel = context.WithCancelCause(ctx)
					time.AfterFunc(test.leaves, func() { cancel(gone) })
				}
				begun, was := time.Now(), statusOf(t, tr, "a")
				resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.Equal(t, test.after, time.Since(begun))
				if test.leaves > 0 {
					require.ErrorIs(t, err, gone)
					require.Equal(t, was, statusOf(t, tr, "a"), "neutral")
					require.Equal(t, 1, n.Sends())
					return
				}
				require.NoError(t, err)
				require.Equal(t, test.status, resp.StatusCode)
				require.Equal(t, test.waited, resp.Header.Get("X-Spillover-Waited-Ms"))
				if test.status == 429 {
					require.Equal(t, strconv.Itoa(test.soonest), resp.Header.Get("Retry-After-Ms"))
					require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
					require.NotContains(t, resp.Header, "X-Spillover-Waited-Ms")
				}
				resp.Body.Close()
			})
		})
	}
}

// balanceOff is a Transport with what another knows, whose requests do not wait.
func balanceOff(tr *Transport) *Transport {
	s := *tr.setup.Load()
	s.cfg = withoutWait(s.cfg)
	other := &Transport{pool: pool{random: tr.random, done: tr.done}}
	other.setup.Store(&s)
	return other
}

func withoutWait(cfg Config) Config { cfg.MaxWait = 0; return cfg }

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
				n := refusing(2000)
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
		n := refusing(4000)
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
		n := refusing(2000, 2000, 2000, 2000)
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
		"out of quota":  {status(429, errorBody("insufficient_quota", "insufficient_quota")), 429},
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

// Nor is it waited for a deployment that the request may not be sent to any more.
func TestRequestWithoutAttemptsLeftDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, "{}"))
		tr := steady(configured(t, Config{
			Base: n, MaxWait: 5 * time.Second, MaxAttempts: 1, Backends: []Backend{azure("a"), azure("b", priority(2))},
		}))
		coolFor(deploymentOf(t, tr, "b"), 2*time.Second)
		begun := time.Now()
		resp, _ := ask(t, tr)
		require.Zero(t, time.Since(begun), "answered with %d", resp.StatusCode)
	})
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
		tr := waiting(t, refusing(5000), 5*time.Second, azure("a"))
		tr.random = func() uint64 { return math.MaxUint64 }
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
	})
}

// A hundred who wait for the same moment wake up over a while.
func TestWakeUpsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var mu sync.Mutex
		at := map[time.Duration]int{}
		var end time.Time
		n.On(host("a"), func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			at[time.Since(end)]++
			return status(200, "{}")(req)
		})
		tr := seeded(waiting(t, n, time.Minute, azure("a")))
		coolFor(deploymentOf(t, tr, "a"), 3*time.Second)
		end = time.Now().Add(3 * time.Second)
		inTurn(t, tr, 100, 0)
		early := 0
		for d, count := range at {
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.Less(t, d, wakeSpread)
			if d < wakeSpread/2 {
				early += count
			}
		}
		require.Greater(t, len(at), 90)
		require.InDelta(t, 50, early, 20)
		require.Less(t, time.Since(end), wakeSpread)
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

// Close wakes all who wait: they get what they would have got without waiting.
func TestCloseWakesAllWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := seeded(waiting(t, refusing(), time.Minute, azure("a")))
		coolFor(deploymentOf(t, tr, "a"), 20*time.Second)
		begun := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				resp, _ := ask(t, tr)
				require.Equal(t, 429, resp.StatusCode)
				require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
				require.Equal(t, 5*time.Second, time.Since(begun))
			})
		}
		time.Sleep(5 * time.Second)
		require.NoError(t, tr.Close())
		all.Wait()
		_, err := tr.RoundTrip(newChat(t, chatPath))
		require.Error(t, err)
	})
}

// Callers are told the time that is left when the transport closes.
func TestCloseReportsTheRemainingRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := waiting(t, refusing(), time.Minute, azure("a"))
		coolFor(deploymentOf(t, tr, "a"), 20*time.Second)
		time.AfterFunc(5*time.Second, func() { tr.Close() })
		resp, _ := ask(t, tr)
		require.Equal(t, "15000", resp.Header.Get("Retry-After-Ms"))
		require.Equal(t, "5000", resp.Header.Get("X-Spillover-Waited-Ms"))
	})
}

// A hundred callers who leave while they wait leave nothing behind: a bubble
// does not end before its last goroutine.
func TestCancelledWaitersLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := refusing()
		tr := seeded(waiting(t, n, time.Hour, azure("a")))
		coolFor(deploymentOf(t, tr, "a"), time.Minute)
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Hour, nil)
		time.AfterFunc(time.Second, cancel)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.ErrorIs(t, err, context.Canceled)
			})
		}
		all.Wait()
		require.Zero(t, n.Sends())
		require.Zero(t, statusOf(t, tr, "a").InFlight)
	})
}

// Those who wait wake up when a probe is given back that told nothing, and when
// a connection is made that was pending.
func TestWaitersWakeWhenAProbeIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), hung)
		tr := configured(t, Config{MaxWait: 20 * time.Second, Base: n, Backends: []Backend{azure("ptu"), azure("a", priority(2))}})
		coolFor(deploymentOf(t, tr, "ptu"), time.Minute)
		d := deploymentOf(t, tr, "a")
		failAt(&d.State, time.Now(), health.Unreachable, "no connection", 0.5)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go tr.RoundTrip(newChat(t, chatPath).WithContext(ctx)) // probes, and leaves
		synctest.Wait()
		n.On(host("a"), ok200)
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.LessOrEqual(t, time.Since(began), time.Second+wakeSpread)
	})
}

func TestWaitersWakeWhenAConnectionIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := configured(t, Config{MaxWait: time.Minute, Base: testnet.Connecting(n, "a", 2*time.Second), Backends: []Backend{azure("ptu"), azure("a", priority(2))}})
		coolFor(deploymentOf(t, tr, "ptu"), 30*time.Second)
		go tr.RoundTrip(newChat(t, chatPath))
		time.Sleep(time.Second)
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.LessOrEqual(t, time.Since(began), 3*time.Second+wakeSpread, "the pending one's second, and its own two")
	})
}

// A waiting request is served as soon as anything becomes available.
func TestWaitersWakeWhenSomethingBecomesAvailable(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, tr *Transport){
		"a backend is resumed": func(t *testing.T, tr *Transport) { require.NoError(t, tr.Resume("b")) },
		"a success lifts a cool-down": func(t *testing.T, tr *Transport) {
			d := deploymentOf(t, tr, "a")
			c := &call{pool: &tr.pool, activeConfig: tr.setup.Load(), request: request{Request: newChat(t, chatPath)}}
			c.ctx = t.Context()
			c.recover(&attempt{deployment: d, sentAt: time.Now()}, time.Now(), &http.Response{StatusCode: 200})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			tr := waiting(t, n, time.Minute, azure("a"), azure("b"))
			coolFor(deploymentOf(t, tr, "a"), 25*time.Second)
			require.NoError(t, tr.Drain("b"))
			begun := time.Now()
			answer := background(t, tr, newChat(t, chatPath))
			time.Sleep(time.Second)
			open(t, tr)
			resp, _ := answer()
			require.Equal(t, 200, resp.StatusCode, name)
			require.Equal(t, time.Second, time.Since(begun), name)
		})
	}
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
