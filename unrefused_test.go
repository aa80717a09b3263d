package spillover

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

// connecting is a base whose connections to one host take their time.
func connecting(n *fakeNet, name string, takes time.Duration) roundTripFunc {
	slowly := connects(&takes, n)
	return func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == host(name) {
			return slowly(req)
		}
		return n.RoundTrip(req)
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
				backends := []Backend{azure("a", priority(2))}
				if test.first != nil {
					n.on(host("first"), test.first)
					backends = append(backends, azure("first"))
				}
				tr := configured(t, Config{MaxWait: test.wait, Base: connecting(n, "a", 2*time.Second), Backends: backends})
				go func() {
					if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
						resp.Body.Close()
					}
				}()
				time.Sleep(pendingConnect + 100*time.Millisecond)
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
		tr := balance(t, connecting(n, "a", 2*time.Second), azure("a"))
		go tr.RoundTrip(newChat(t, chatPath))
		time.Sleep(pendingConnect + 100*time.Millisecond)
		require.NoError(t, tr.Drain("a"))
		resp, _ := ask(t, tr)
		require.Equal(t, 503, resp.StatusCode)
		require.NotEmpty(t, resp.Header.Get(headerSynthesized))
		time.Sleep(2 * time.Second)
	})
}

// Where a tier can afford no second attempt toward what is troubled, the healthy
// one beside that is asked all the same, with whatever draw.
func TestSpentBudgetHidesNoHealthyDeployment(t *testing.T) {
	for troubled := 1; troubled <= 4; troubled++ {
		for _, selector := range []Selector{nil, selectorFunc(func([]Candidate) int { return 0 })} {
			for range 30 {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.on(host("a"), status(429, "{}", "Retry-After: 6"))
					backends := []Backend{azure("a", weight(1000))}
					for i := range troubled {
						backends = append(backends, azure(fmt.Sprint("b", i)))
					}
					tr := configured(t, Config{Base: n, Selector: selector, Backends: append(backends, azure("c"))})
					for i := range troubled {
						d := deploymentOf(t, tr, fmt.Sprint("b", i))
						rampUp(&d.State)
					}
					budget := deploymentOf(t, tr, "a").tier.budget
					for budget.Spend(health.AttemptCost) {
					}
					resp, text := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode, text)
				})
			}
		}
	}
}

type selectorFunc func([]Candidate) int

func (f selectorFunc) Select(c []Candidate) int { return f(c) }

// One attempt more than MaxAttempts allows is made where the caller would be told
// to wait although one is open, and no more than one.
func TestOneAttemptMoreThanMaxAttempts(t *testing.T) {
	for most := 1; most <= 4; most++ {
		for bad := most; bad <= 8; bad++ {
			n := newNet()
			backends := []Backend{azure("throttled")}
			for i := range bad {
				name := fmt.Sprint("bad", i)
				n.on(host(name), status(401, wrongKey))
				backends = append(backends, azure(name))
			}
			tr := configured(t, Config{Base: n, MaxAttempts: most, Backends: backends})
			coolFor(deploymentOf(t, tr, "throttled"), time.Minute)
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.LessOrEqual(t, n.sends(), most+1)
			if bad > most+1 {
				require.Equal(t, "1", resp.Header.Get("Retry-After"), "one is open")
			}
		}
	}
}

// Those who wait wake up when a probe is given back that told nothing, and when
// a connection is made that was pending.
func TestWaitersWakeWhenAProbeIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), hung)
		tr := configured(t, Config{MaxWait: 20 * time.Second, Base: n, Backends: []Backend{azure("ptu"), azure("a", priority(2))}})
		coolFor(deploymentOf(t, tr, "ptu"), time.Minute)
		d := deploymentOf(t, tr, "a")
		failAt(&d.State, time.Now(), health.Unreachable, "no connection", 0.5)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go tr.RoundTrip(newChat(t, chatPath).WithContext(ctx)) // probes, and leaves
		synctest.Wait()
		n.on(host("a"), ok200)
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.LessOrEqual(t, time.Since(began), time.Second+wakeSpread)
	})
}

func TestWaitersWakeWhenAConnectionIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := configured(t, Config{MaxWait: time.Minute, Base: connecting(n, "a", 2*time.Second), Backends: []Backend{azure("ptu"), azure("a", priority(2))}})
		coolFor(deploymentOf(t, tr, "ptu"), 30*time.Second)
		go tr.RoundTrip(newChat(t, chatPath))
		time.Sleep(time.Second)
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.LessOrEqual(t, time.Since(began), 3*time.Second+wakeSpread, "the pending one's second, and its own two")
	})
}

// A request that waits until its tier can afford another attempt waits for as long
// as it may, and not ever shorter.
func TestWaitForABudgetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("bad"), status(401, wrongKey))
		tr := configured(t, Config{MaxWait: 5 * time.Second, Base: n, Backends: []Backend{azure("bad", weight(1000)), azure("open"), azure("throttled")}})
		coolFor(deploymentOf(t, tr, "throttled"), time.Minute)
		d := deploymentOf(t, tr, "open")
		rampUp(&d.State)
		for d.tier.budget.Spend(health.AttemptCost) {
		}
		for n.sends(host("bad")) == 0 {
			began := time.Now()
			resp, _ := ask(t, tr)
			require.LessOrEqual(t, time.Since(began), 5*time.Second)
			if n.sends(host("bad")) > 0 && resp.StatusCode == 429 {
				require.Greater(t, time.Since(began), 4*time.Second)
			}
		}
	})
}
