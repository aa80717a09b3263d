package spillover

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// waiting is a Transport whose requests wait for so long at most.
func waiting(t testing.TB, n http.RoundTripper, most time.Duration, backends ...Backend) *Transport {
	return steady(configured(t, Config{Base: n, MaxWait: most, Backends: backends}))
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
				n := testnet.Refusing(test.soonest)
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

// Nor is it waited for a deployment that the request may not be sent to any more.
func TestRequestWithoutAttemptsLeftDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, "{}"))
		tr := steady(configured(t, Config{
			Base: n, MaxWait: 5 * time.Second, MaxAttempts: 1, Backends: []Backend{azure("a"), azure("b", priority(2))},
		}))
		coolFor(DeploymentOf(t, tr, "b"), 2*time.Second)
		begun := time.Now()
		resp, _ := ask(t, tr)
		require.Zero(t, time.Since(begun), "answered with %d", resp.StatusCode)
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
		coolFor(DeploymentOf(t, tr, "a"), 3*time.Second)
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

// Close wakes all who wait: they get what they would have got without waiting.
func TestCloseWakesAllWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := seeded(waiting(t, testnet.Refusing(), time.Minute, azure("a")))
		coolFor(DeploymentOf(t, tr, "a"), 20*time.Second)
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
		tr := waiting(t, testnet.Refusing(), time.Minute, azure("a"))
		coolFor(DeploymentOf(t, tr, "a"), 20*time.Second)
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
		n := testnet.Refusing()
		tr := seeded(waiting(t, n, time.Hour, azure("a")))
		coolFor(DeploymentOf(t, tr, "a"), time.Minute)
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
		coolFor(DeploymentOf(t, tr, "ptu"), time.Minute)
		d := DeploymentOf(t, tr, "a")
		testnet.FailAt(&d.State, time.Now(), health.Unreachable, "no connection", 0.5)
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
		coolFor(DeploymentOf(t, tr, "ptu"), 30*time.Second)
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
			d := DeploymentOf(t, tr, "a")
			c := &call{pool: &tr.pool, activeConfig: tr.setup.Load(), request: request{Request: newChat(t, chatPath)}}
			c.ctx = t.Context()
			c.recover(&attempt{deployment: d, sentAt: time.Now()}, time.Now(), &http.Response{StatusCode: 200})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			tr := waiting(t, n, time.Minute, azure("a"), azure("b"))
			coolFor(DeploymentOf(t, tr, "a"), 25*time.Second)
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
