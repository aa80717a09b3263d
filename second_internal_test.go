package spillover

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
)

// Whatever fails, a request is sent at most once more than to each deployment once,
// never beyond MaxAttempts, never with a spent budget, and every tier below keeps its
// attempt.
func TestSecondAttemptProperties(t *testing.T) {
	faults := []roundTripFunc{
		status(500, "{}"), status(503, "{}"), status(504, "{}"), status(503, "{}", "Retry-After: 1"), status(408, "{}"), status(401, "{}"),
		broken(errReset), broken(errRefused), ok200,
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := newNet()
		cfg := Config{Base: n, MaxAttempts: rapid.IntRange(1, 6).Draw(rt, "MaxAttempts")}
		tiers := rapid.IntRange(1, 4).Draw(rt, "tiers")
		var names []string
		for p := range tiers {
			for i := range rapid.IntRange(1, 3).Draw(rt, "members") {
				name := fmt.Sprintf("b%d%d", p, i)
				names = append(names, name)
				cfg.Backends = append(cfg.Backends, azure(name, priority(p+1)))
			}
		}
		tr, err := New(cfg)
		require.NoError(rt, err)
		defer tr.Close()
		spent := rapid.Bool().Draw(rt, "budgets are spent")
		for range rapid.IntRange(1, 4).Draw(rt, "requests") {
			for i, name := range names {
				if cfg.Backends[i].Priority == tiers {
					continue // the last tier answers
				}
				n.On(host(name), rapid.SliceOfN(rapid.SampledFrom(faults), 1, 3).Draw(rt, name)...)
			}
			if spent {
				for _, name := range names {
					for b := deploymentOf(t, tr, name).tier.budget; b.Spend(1); {
					}
				}
			}
			n.Seen = nil
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			total, more := n.Sends(), 0
			for _, name := range names {
				more += max(0, n.Sends(host(name))-1)
			}
			require.LessOrEqual(rt, more, 1, "additional sends")
			require.LessOrEqual(rt, total, cfg.MaxAttempts)
			if spent || tiers == 1 {
				require.Zero(rt, more, "the budget is spent, or there is no lower tier")
			}
			if cfg.MaxAttempts >= tiers {
				require.NoError(rt, err)
				require.Less(rt, resp.StatusCode, 500, "the last tier answers")
			}
			if err == nil {
				require.Equal(rt, strconv.Itoa(total), resp.Header.Get("X-Spillover-Attempts"))
				resp.Body.Close()
			}
			for _, name := range names {
				require.Zero(rt, deploymentOf(t, tr, name).PendingFailures.Load(), "nothing is left undecided")
			}
		}
	})
}

// The tier's budget pays for it, and gets the cost back if it is served.
func TestSecondAttemptIsPaidByTheRetryBudget(t *testing.T) {
	n := newNet()
	tr := firstAndSecond(t, n)
	budget := deploymentOf(t, tr, "a").tier.budget
	left := func() (fifths int64) {
		for budget.Has(fifths + 1) {
			fifths++
		}
		return fifths
	}
	full := left()
	n.On(host("a"), status(500, "{}"), ok200)
	ask(t, tr)
	require.Equal(t, 2, n.Sends(host("a")))
	require.Equal(t, full, left())

	n.On(host("a"), status(500, "{}"))
	ask(t, tr)
	require.Equal(t, 4, n.Sends(host("a")))
	require.Equal(t, full-health.AttemptCost, left(), "the other tier's success earns nothing here")
}
