package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// together sends requests at the same moment and counts the statuses.
func together(t *testing.T, tr *spillover.Transport, requests int) map[int]int {
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
					n.On(host(bad), slow(50*time.Millisecond, refusal))
				}
				n.On(host("c"), slow(200*time.Millisecond, ok200))
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
			n.On(host("a"), slow(took, status(429, "{}", "Retry-After: 6")), slow(100*time.Millisecond, ok200))
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

// A first tier that fails as a whole is seen by nobody while the next one is well.
func TestFailingTierIsSeenByNobody(t *testing.T) {
	for members := 1; members <= 5; members++ {
		for name, answer := range map[string]roundTripFunc{"500": status(500, "{}"), "reset": broken(errReset), "refused": broken(errRefused), "401": status(401, wrongKey)} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				backends := []spillover.Backend{azure("well", priority(2))}
				for i := range members {
					bad := fmt.Sprint("bad", i)
					n.On(host(bad), answer)
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
		var backends []spillover.Backend
		for tier := 1; tier <= 3; tier++ {
			for i := range 3 {
				name := fmt.Sprintf("t%d-%d", tier, i)
				n.On(host(name), status(500, "{}"))
				backends = append(backends, azure(name, priority(tier)))
			}
		}
		tr := configured(t, spillover.Config{Base: n, MaxAttempts: most, Backends: backends})
		resp, _ := ask(t, tr)
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, most, n.Sends())
	}
}

// A PTU that reports 101 % once is found out about with the next request.
func TestFullPTUIsAskedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), slow(40*time.Millisecond, status(200, "{}", "Azure-Openai-Deployment-Utilization: 101%")),
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
		n.On(host("ptu"), slow(100*time.Millisecond, status(200, "{}", "Azure-Openai-Deployment-Utilization: 120%")))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		ask(t, tr)
		for range 10 {
			require.Equal(t, map[int]int{200: 50}, together(t, tr, 50))
		}
		require.LessOrEqual(t, n.Sends(host("ptu")), 30, "while it stays full it gets one or two a round trip, not all")
	})
}

// The time told is that of the soonest, which is now while one is open.
func TestSoonestIsNowWhileOneIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), status(401, wrongKey))
		}
		tr := balance(t, n, azure("a"), azure("b"), azure("c"), azure("d"), azure("e"))
		throttle(t, tr, n, "d")
		for range 10 {
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode, "three wrong keys and one that is throttled keep nobody from the fifth")
		}
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
		n.On(host("ptu"), answer)
		n.On(host("payg"), answer)
		limit := func(b *spillover.Backend) { b.HeaderTimeout = 20 * time.Second }
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
			n.On(host("ptu"), func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("X-Poison") != "" {
					return nil, errReset
				}
				return slow(took, ok200)(req)
			})
			n.On(host("payg"), slow(took, ok200))
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
			require.LessOrEqual(t, n.Sends(host("payg")), 3, took)
		})
	}
}

// That a connection takes long refuses nobody where there is no other deployment.
func TestPendingConnectionRefusesNobody(t *testing.T) {
	for name, test := range map[string]struct {
		first roundTripFunc // of the tier above; nil where there is none
		wait  time.Duration
		later time.Duration // than the pending connection is there
	}{
		"alone":                                {nil, 0, 0},
		"alone, waiting":                       {nil, 30 * time.Second, 0},
		"beside a throttled one":               {status(429, "{}", "Retry-After: 60"), 0, 0},
		"beside a throttled one, waiting":      {status(429, "{}", "Retry-After: 60"), 3 * time.Second, 0},
		"beside a throttled one, long waiting": {status(429, "{}", "Retry-After: 60"), 2 * time.Minute, 0},
		"beside one without connection":        {broken(errRefused), 0, 0},
		"beside one with a wrong key":          {status(401, wrongKey), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				backends := []spillover.Backend{azure("a", priority(2))}
				if test.first != nil {
					n.On(host("first"), test.first)
					backends = append(backends, azure("first"))
				}
				tr := configured(t, spillover.Config{MaxWait: test.wait, Base: testnet.Connecting(n, "a", 2*time.Second), Backends: backends})
				go func() {
					if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
						resp.Body.Close()
					}
				}()
				time.Sleep(500*time.Millisecond + 100*time.Millisecond)
				began := time.Now()
				resp, text := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode, text)
				require.LessOrEqual(t, time.Since(began), 4*time.Second)
				synctest.Wait()
			})
		})
	}
	// A backend that is drained is not asked for that.
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, testnet.Connecting(n, "a", 2*time.Second), azure("a"))
		go tr.RoundTrip(newChat(t, chatPath))
		time.Sleep(500*time.Millisecond + 100*time.Millisecond)
		require.NoError(t, tr.Drain("a"))
		resp, _ := ask(t, tr)
		require.Equal(t, 503, resp.StatusCode)
		require.NotEmpty(t, resp.Header.Get("X-Spillover-Synthesized"))
		time.Sleep(2 * time.Second)
	})
}

// One attempt more than MaxAttempts allows is made where the caller would be told
// to wait although one is open, and no more than one.
func TestOneAttemptMoreThanMaxAttempts(t *testing.T) {
	for most := 1; most <= 4; most++ {
		for bad := most; bad <= 8; bad++ {
			n := newNet()
			backends := []spillover.Backend{azure("throttled")}
			for i := range bad {
				name := fmt.Sprint("bad", i)
				n.On(host(name), status(401, wrongKey))
				backends = append(backends, azure(name))
			}
			tr := configured(t, spillover.Config{Base: n, MaxAttempts: most, Backends: backends})
			throttle(t, tr, n, "throttled")
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.LessOrEqual(t, n.Sends(), 1+most+1)
			if bad > most+1 {
				require.Equal(t, "1", resp.Header.Get("Retry-After"), "one is open")
			}
		}
	}
}

func poison(t testing.TB) *http.Request {
	req := newChat(t, chatPath)
	req.Header.Set("X-Poison", "yes")
	return req
}

// A token that takes its time is no slow refusal.
func TestSlowTokenDoesNotHoldTrafficBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(20*time.Millisecond, status(429, "{}", "retry-after-ms: 20")), slow(100*time.Millisecond, ok200))
		tr := balance(t, n, azure("a", func(b *spillover.Backend) {
			b.APIKey = ""
			b.Token = func(context.Context) (string, error) { time.Sleep(5 * time.Second); return "token", nil }
		}))
		ask(t, tr)
		d := spillover.DeploymentOf(t, tr, "a")
		require.Less(t, testnet.FirstGap(t, &d.State), longestTrip/2)
	})
}

// What was known to fail, and still does, hides from nobody when to come back.
func TestFailedProbeIsNotTheAnswerWhileOthersAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("bad"), status(500, `{"error":{"message":"broken"}}`))
		n.On(host("b"), status(429, "{}", "Retry-After: 30"))
		tr := balance(t, n, azure("bad"), azure("b", priority(2)))
		d, now := spillover.DeploymentOf(t, tr, "bad"), time.Now()
		h := d.ChangeOperation(wire.OperationIndex("chat/completions"))
		for range 2 {
			testnet.FailAt(h, now, health.ServerFailure, "500", 0.5)
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

// All out for failures alone: everybody is spread over all of them.
func TestAllEjectedShareTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var backends []spillover.Backend
		for i := range 6 {
			name := fmt.Sprint("d", i)
			var mu sync.Mutex
			busy := 0
			n.On(host(name), func(req *http.Request) (*http.Response, error) {
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
		for d := range spillover.DeploymentsOf(tr, "m") {
			h := d.ChangeOperation(wire.OperationIndex("chat/completions"))
			for range 2 {
				testnet.FailAt(h, now, health.ServerFailure, "500", 0.5)
			}
		}
		require.Equal(t, map[int]int{200: 90}, together(t, tr, 90))
	})
}

// Where a tier can afford no second attempt toward what is troubled, the healthy
// one beside that is asked all the same, with whatever draw.
func TestSpentBudgetHidesNoHealthyDeployment(t *testing.T) {
	for troubled := 1; troubled <= 4; troubled++ {
		for _, selector := range []spillover.Selector{nil, selectorFunc(func([]spillover.Candidate) int { return 0 })} {
			for range 30 {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("a"), status(429, "{}", "Retry-After: 6"))
					backends := []spillover.Backend{azure("a", weight(1000))}
					for i := range troubled {
						backends = append(backends, azure(fmt.Sprint("b", i)))
					}
					tr := configured(t, spillover.Config{Base: n, Selector: selector, Backends: append(backends, azure("c"))})
					for i := range troubled {
						d := spillover.DeploymentOf(t, tr, fmt.Sprint("b", i))
						testnet.RampUp(&d.State)
					}
					budget := spillover.RetryBudgetOf(tr, "m", 0)
					for budget.Spend(health.AttemptCost) {
					}
					resp, text := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode, text)
				})
			}
		}
	}
}

type selectorFunc func([]spillover.Candidate) int

func (f selectorFunc) Select(c []spillover.Candidate) int { return f(c) }
