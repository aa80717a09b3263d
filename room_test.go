package spillover_test

import (
	"math"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// What is not known of one is thought to be as it is with the others: with less
// it would never be asked, and so never be known.
func TestRoomThatIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		plenty := status(200, "{}", testnet.LimitHeaders(1000000, 950000)...)
		n.On(host("a"), plenty)
		n.On(host("b"), plenty)
		tr := seeded(balance(t, n, azure("a"), azure("b")))
		for range 200 {
			ask(t, tr)
		}
		require.InDelta(t, 100, n.Sends(host("a")), 40)
		require.InDelta(t, 100, n.Sends(host("b")), 40)
	})
}

// Some services tell the largest number there is where there is no limit.
func TestLargestLimitsAreDrawn(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(200, "{}", testnet.LimitHeaders(int64(math.MaxInt64), int64(math.MaxInt64))...))
	n.On(host("b"), status(200, "{}", testnet.LimitHeaders(int64(math.MaxInt64-1), int64(math.MaxInt64-1))...))
	tr := seeded(balance(t, n, azure("a"), azure("b"), azure("c")))
	require.NotPanics(t, func() {
		for range 200 {
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode)
		}
	})
	require.InDelta(t, 100, n.Sends(host("a")), 60)
	require.InDelta(t, 100, n.Sends(host("b")), 60)

	most := func(tpm int) func(*spillover.Backend) {
		return func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", TPM: tpm}} }
	}
	tr = seeded(balance(t, newNet(), azure("a", most(math.MaxInt)), azure("b", most(math.MaxInt-1))))
	require.NotPanics(t, func() {
		for range 100 {
			ask(t, tr)
		}
	})
}

// One whose counter begins anew catches up with the others.
func TestDeploymentWhoseWindowRestartsCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		const limit = 200 * 264
		used := map[string]int{}
		var backends []spillover.Backend
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), func(req *http.Request) (*http.Response, error) {
				used[name]++
				return status(200, "{}", testnet.LimitHeaders(limit, limit-used[name]*264)...)(req)
			})
			backends = append(backends, azure(name))
		}
		tr := seeded(balance(t, n, backends...))
		for range 120 {
			ask(t, tr)
		}
		for name, count := range used {
			require.InDelta(t, 40, count, 12, name)
		}
		used["b"] = 0
		for range 100 {
			ask(t, tr)
		}
		for name, count := range used {
			require.InDelta(t, 60, count, 12, name)
		}
	})
}
