package spillover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

type selectorFunc func([]Candidate) int

func (f selectorFunc) Select(c []Candidate) int { return f(c) }

// A request that waits until its tier can afford another attempt waits for as long
// as it may, and not ever shorter.
func TestWaitForABudgetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("bad"), status(401, wrongKey))
		tr := configured(t, Config{MaxWait: 5 * time.Second, Base: n, Backends: []Backend{azure("bad", weight(1000)), azure("open"), azure("throttled")}})
		coolFor(DeploymentOf(t, tr, "throttled"), time.Minute)
		d := DeploymentOf(t, tr, "open")
		testnet.RampUp(&d.State)
		for RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost) {
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
