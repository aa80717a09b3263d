package spillover_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
)

func TestBudgetOfATier(t *testing.T) {
	for name, answer := range map[string]roundTripFunc{
		"throttled": status(429, "{}", "retry-after-ms: 700"), "failing": status(500, `{"error":{"message":"sorry"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				var backends []spillover.Backend
				for i := range 4 {
					name := fmt.Sprintf("a%d", i)
					n.On(host(name), answer)
					backends = append(backends, azure(name))
				}
				tr := configured(t, spillover.Config{Base: n, MaxAttempts: 10, Backends: backends})
				require.True(t, strings.HasPrefix(name, "t") || spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost), "leaves three requests' worth of second attempts")
				for range 3 {
					before := n.Sends()
					ask(t, tr)
					require.Equal(t, 4, n.Sends()-before)
					time.Sleep(time.Minute)
				}
				for spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost) {
				}
				before := n.Sends()
				resp, text := ask(t, tr)
				if name == "failing" {
					require.Equal(t, 4, n.Sends()-before, "nothing is held against any of them, as the request fails everywhere")
					require.Equal(t, 500, resp.StatusCode)
					require.Equal(t, `{"error":{"message":"sorry"}}`, text)
				} else {
					require.Equal(t, 1, n.Sends()-before, "there is no second attempt left")
					// The others were not asked, and may be at once.
					require.Equal(t, 429, resp.StatusCode)
				}
				time.Sleep(time.Minute)
				for i := range 4 {
					n.On(host(fmt.Sprintf("a%d", i)), status(200, "{}"))
				}
				for range 5 {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
					time.Sleep(time.Second) // refused before, they are let in one by one
				}
				require.True(t, spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost), "five successes earned one")
				require.False(t, spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost))
			})
		})
	}
}

func TestBudgetNextTierIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "retry-after-ms: 10"))
		n.On(host("b"), status(429, "{}", "retry-after-ms: 10"))
		tr := steady(balance(t, n, azure("a"), azure("b"), azure("c", priority(2)), azure("d", priority(3))))
		for i := range 3 {
			for spillover.RetryBudgetOf(tr, "m", i).Spend(health.AttemptCost) {
			}
		}
		ask(t, tr) // a and b have refused from now on
		time.Sleep(time.Second)
		for range 20 {
			resp, _ := ask(t, tr)
			require.Equal(t, "c", servedBy(resp))
			require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"), "one of the first tier, then the next")
			time.Sleep(time.Second)
		}
		n.On(host("c"), status(500, "{}"))
		resp, _ := ask(t, tr)
		require.Equal(t, "d", servedBy(resp))

		// Although something is held against c, and the budget of its tier is spent, too.
		n.On(host("c"), ok200)
		for spillover.RetryBudgetOf(tr, "m", 1).Spend(health.AttemptCost) {
		}
		time.Sleep(time.Second)
		resp, _ = ask(t, tr)
		require.Equal(t, "c", servedBy(resp))
	})
}

// The budget is that of a tier of a model: another model's trouble is not its own.
func TestBudgetIsPerModel(t *testing.T) {
	tr := balance(t, newNet(), azure("a"), azure("b"))
	other := spillover.RetryBudgetOf(tr, "other", 0)
	for other.Spend(health.AttemptCost) {
	}
	require.True(t, spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost))
}
