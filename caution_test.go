package spillover

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// together sends requests at the same moment and counts the statuses.
func together(t *testing.T, tr *Transport, requests int) map[int]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	statuses := map[int]int{}
	for range requests {
		all.Go(func() {
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			code := -1
			if err == nil {
				code = resp.StatusCode
				resp.Body.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[code]++
		})
	}
	all.Wait()
	return statuses
}

// The budget of second attempts keeps nobody from a healthy deployment.
func TestBurstIsServedByTheOneThatHasRoom(t *testing.T) {
	for name, refusal := range map[string]roundTripFunc{
		"throttled":      status(429, "{}", "Retry-After: 6"),
		"throttled long": status(429, "{}", "Retry-After: 60"),
		"failing":        status(500, "{}"),
	} {
		for _, size := range []int{60, 300} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				for _, bad := range []string{"a", "b"} {
					n.on(host(bad), slow(50*time.Millisecond, refusal))
				}
				n.on(host("c"), slow(200*time.Millisecond, ok200))
				tr := balance(t, n, azure("a"), azure("b"), azure("c"))
				require.Equal(t, map[int]int{200: size}, together(t, tr, size), name)
			})
		}
	}
}

// A refusal that took long to come holds traffic back no longer than it says.
func TestSlowRefusalDoesNotHoldTrafficBack(t *testing.T) {
	for _, took := range []time.Duration{50 * time.Millisecond, 2 * time.Second, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.on(host("a"), slow(took, status(429, "{}", "Retry-After: 6")), slow(100*time.Millisecond, ok200))
			tr := balance(t, n, azure("a"))
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			time.Sleep(6 * time.Second)
			served := 0
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 300 {
				all.Go(func() {
					resp, _ := ask(t, tr)
					mu.Lock()
					defer mu.Unlock()
					if resp.StatusCode == 200 {
						served++
					}
				})
				time.Sleep(50 * time.Millisecond)
			}
			all.Wait()
			require.Equal(t, 300, served, "after a refusal that took %v", took)
		})
	}
}

// A token that takes its time is no slow refusal.
func TestSlowTokenDoesNotHoldTrafficBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), slow(20*time.Millisecond, status(429, "{}", "retry-after-ms: 20")), slow(100*time.Millisecond, ok200))
		tr := balance(t, n, azure("a", func(b *Backend) {
			b.APIKey = ""
			b.Token = func(context.Context) (string, error) { time.Sleep(5 * time.Second); return "token", nil }
		}))
		ask(t, tr)
		d := deploymentOf(t, tr, "a")
		require.Less(t, gapOf(t, &d.State), longestTrip/2)
	})
}

// A first tier that fails as a whole is seen by nobody while the next one is well.
func TestFailingTierIsSeenByNobody(t *testing.T) {
	for members := 1; members <= 5; members++ {
		for name, answer := range map[string]roundTripFunc{"500": status(500, "{}"), "reset": broken(errReset), "refused": broken(errRefused), "401": status(401, wrongKey)} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				backends := []Backend{azure("well", priority(2))}
				for i := range members {
					bad := fmt.Sprint("bad", i)
					n.on(host(bad), answer)
					backends = append(backends, azure(bad))
				}
				tr := balance(t, n, backends...)
				for range 50 {
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					require.NoError(t, err, name)
					require.Equal(t, 200, resp.StatusCode, "%s, %d of them", name, members)
					resp.Body.Close()
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
	}
}

// MaxAttempts is what it says all the same.
func TestTiersBelowDoNotExceedMaxAttempts(t *testing.T) {
	for most := 1; most <= 4; most++ {
		n := newNet()
		var backends []Backend
		for tier := 1; tier <= 3; tier++ {
			for i := range 3 {
				name := fmt.Sprintf("t%d-%d", tier, i)
				n.on(host(name), status(500, "{}"))
				backends = append(backends, azure(name, priority(tier)))
			}
		}
		tr := configured(t, Config{Base: n, MaxAttempts: most, Backends: backends})
		resp, _ := ask(t, tr)
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, most, n.sends())
	}
}

// A PTU that reports 101 % once is found out about with the next request.
func TestFullPTUIsAskedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("ptu"), slow(40*time.Millisecond, status(200, "{}", "Azure-Openai-Deployment-Utilization: 101%")),
			slow(40*time.Millisecond, status(200, "{}", "Azure-Openai-Deployment-Utilization: 50%")))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		spilled := 0
		for range 92 {
			if resp, _ := ask(t, tr); servedBy(resp) == "payg" {
				spilled++
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.Zero(t, spilled)
	})
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("ptu"), slow(100*time.Millisecond, status(200, "{}", "Azure-Openai-Deployment-Utilization: 120%")))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		ask(t, tr)
		for range 10 {
			require.Equal(t, map[int]int{200: 50}, together(t, tr, 50))
		}
		require.LessOrEqual(t, n.sends(host("ptu")), 30, "while it stays full it gets one or two a round trip, not all")
	})
}

// What was known to fail, and still does, hides from nobody when to come back.
func TestFailedProbeIsNotTheAnswerWhileOthersAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("bad"), status(500, `{"error":{"message":"broken"}}`))
		n.on(host("b"), status(429, "{}", "Retry-After: 30"))
		tr := balance(t, n, azure("bad"), azure("b", priority(2)))
		d, now := deploymentOf(t, tr, "bad"), time.Now()
		h := d.ChangeOperation(wire.OperationIndex("chat/completions"))
		for range 2 {
			failAt(h, now, health.ServerFailure, "500", 0.5)
		}
		ask(t, tr)                  // b is throttled from now on
		time.Sleep(3 * time.Second) // and the other one is due for a probe
		resp, body := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode, body)
		require.Equal(t, "27", resp.Header.Get("Retry-After"))
		require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
		resp, _ = ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
	})
}

// The time told is that of the soonest, which is now while one is open.
func TestSoonestIsNowWhileOneIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, name := range []string{"a", "b", "c"} {
			n.on(host(name), status(401, wrongKey))
		}
		n.on(host("d"), status(429, "{}", "Retry-After: 60"))
		tr := balance(t, n, azure("a"), azure("b"), azure("c"), azure("d"), azure("e"))
		coolFor(deploymentOf(t, tr, "d"), time.Minute)
		for range 10 {
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode, "three wrong keys and one that is throttled keep nobody from the fifth")
		}
	})
}

// All out for failures alone: everybody is spread over all of them.
func TestAllEjectedShareTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var backends []Backend
		for i := range 6 {
			name := fmt.Sprint("d", i)
			var mu sync.Mutex
			busy := 0
			n.on(host(name), func(req *http.Request) (*http.Response, error) {
				mu.Lock()
				full := busy >= 20
				if !full {
					busy++
				}
				mu.Unlock()
				if full {
					return status(429, "{}", "Retry-After: 1")(req)
				}
				resp, err := slow(time.Second, ok200)(req)
				mu.Lock()
				busy--
				mu.Unlock()
				return resp, err
			})
			backends = append(backends, azure(name))
		}
		tr := balance(t, n, backends...)
		now := time.Now()
		for d := range tr.table().find("m").all {
			h := d.ChangeOperation(wire.OperationIndex("chat/completions"))
			for range 2 {
				failAt(h, now, health.ServerFailure, "500", 0.5)
			}
		}
		require.Equal(t, map[int]int{200: 90}, together(t, tr, 90))
	})
}

// A failure counts once another deployment has answered: what takes too long
// everywhere keeps no PTU idle.
func TestWhatIsSlowEverywhereEjectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		answer := func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("X-Poison") != "" {
				return slow(time.Minute, ok200)(req)
			}
			return slow(time.Second, ok200)(req)
		}
		n.on(host("ptu"), answer)
		n.on(host("payg"), answer)
		limit := func(b *Backend) { b.HeaderTimeout = 20 * time.Second }
		tr := balance(t, n, azure("ptu", limit), azure("payg", limit, priority(2)))
		var all sync.WaitGroup
		for i := range 4000 {
			all.Go(func() {
				if i%200 == 0 {
					_, err := tr.RoundTrip(poison(t))
					require.Error(t, err)
					return
				}
				resp, _ := ask(t, tr)
				require.Equal(t, "ptu", servedBy(resp))
			})
			time.Sleep(20 * time.Millisecond)
		}
		all.Wait()
	})
}

// One broken connection among hundreds of good answers costs a slow PTU nothing.
func TestOneResetKeepsASlowPTU(t *testing.T) {
	for _, took := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.on(host("ptu"), func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("X-Poison") != "" {
					return nil, errReset
				}
				return slow(took, ok200)(req)
			})
			n.on(host("payg"), slow(took, ok200))
			tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
			var all sync.WaitGroup
			for i := range 600 {
				all.Go(func() {
					req := newChat(t, chatPath)
					if i == 300 {
						req.Header.Set("X-Poison", "yes")
					}
					send(t, tr, req)
				})
				time.Sleep(200 * time.Millisecond)
			}
			all.Wait()
			// The one that was reset, and one each half minute that compares while nothing
			// is known of either.
			require.LessOrEqual(t, n.sends(host("payg")), 3, took)
		})
	}
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
		n.on(host("a"), slow(50*time.Millisecond, status(429, "{}", "Retry-After: 60")))
		n.on(host("b"), slow(100*time.Millisecond, ok200))
		tr := waiting(t, n, 30*time.Second, azure("a"), azure("b"))
		begun := time.Now()
		require.Equal(t, map[int]int{200: 100}, together(t, tr, 100))
		require.Less(t, time.Since(begun), time.Second)
	})
}
