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

// A token that takes its time is no slow refusal.
func TestSlowTokenDoesNotHoldTrafficBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(20*time.Millisecond, status(429, "{}", "retry-after-ms: 20")), slow(100*time.Millisecond, ok200))
		tr := balance(t, n, azure("a", func(b *Backend) {
			b.APIKey = ""
			b.Token = func(context.Context) (string, error) { time.Sleep(5 * time.Second); return "token", nil }
		}))
		ask(t, tr)
		d := deploymentOf(t, tr, "a")
		require.Less(t, gapOf(t, &d.State), longestTrip/2)
	})
}

// What was known to fail, and still does, hides from nobody when to come back.
func TestFailedProbeIsNotTheAnswerWhileOthersAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("bad"), status(500, `{"error":{"message":"broken"}}`))
		n.On(host("b"), status(429, "{}", "Retry-After: 30"))
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

// All out for failures alone: everybody is spread over all of them.
func TestAllEjectedShareTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var backends []Backend
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
		for d := range tr.table().find("m").all {
			h := d.ChangeOperation(wire.OperationIndex("chat/completions"))
			for range 2 {
				failAt(h, now, health.ServerFailure, "500", 0.5)
			}
		}
		require.Equal(t, map[int]int{200: 90}, together(t, tr, 90))
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
					n.On(host("a"), status(429, "{}", "Retry-After: 6"))
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

// A request that waits until its tier can afford another attempt waits for as long
// as it may, and not ever shorter.
func TestWaitForABudgetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("bad"), status(401, wrongKey))
		tr := configured(t, Config{MaxWait: 5 * time.Second, Base: n, Backends: []Backend{azure("bad", weight(1000)), azure("open"), azure("throttled")}})
		coolFor(deploymentOf(t, tr, "throttled"), time.Minute)
		d := deploymentOf(t, tr, "open")
		rampUp(&d.State)
		for d.tier.budget.Spend(health.AttemptCost) {
		}
		for n.Sends(host("bad")) == 0 {
			began := time.Now()
			resp, _ := ask(t, tr)
			require.LessOrEqual(t, time.Since(began), 5*time.Second)
			if n.Sends(host("bad")) > 0 && resp.StatusCode == 429 {
				require.Greater(t, time.Since(began), 4*time.Second)
			}
		}
	})
}
