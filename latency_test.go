package spillover_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// takes makes a host answer after a time, with so many tokens of output.
func takes(after func() time.Duration, output int, answer roundTripFunc) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		d := after()
		if answer == nil {
			answer = status(200, fmt.Sprintf(`{"usage":{"prompt_tokens":10,"completion_tokens":%d}}`, output))
		}
		time.Sleep(d)
		return answer(req)
	}
}

// One is fast and one slow. What is slow is found out by its good answers alone, is
// asked when nobody else is left, and has its share back soon after it is well.
func TestSlowDeploymentIsFoundByItsLatency(t *testing.T) {
	t.Parallel()
	always := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
	stream := testnet.Content("text/event-stream", testnet.WholeChat)
	for name, test := range map[string]struct {
		a, b       roundTripFunc
		least, top float64 // of 200, to a
	}{
		"five times slower":              {takes(always(time.Second), 50, nil), takes(always(5*time.Second), 50, nil), 185, 200},
		"streams":                        {takes(always(time.Second), 0, stream), takes(always(5*time.Second), 0, stream), 185, 200},
		"a little slower":                {takes(always(time.Second), 50, nil), takes(always(1500*time.Millisecond), 50, nil), 60, 140},
		"more output is not slower":      {takes(always(time.Second), 50, nil), takes(always(5*time.Second), 330, nil), 60, 140},
		"no output is told":              {takes(always(time.Second), 50, status(200, "{}")), takes(always(5*time.Second), 50, status(200, "{}")), 60, 140},
		"what another one made, spilled": {takes(always(time.Second), 50, nil), takes(always(5*time.Second), 50, status(200, `{"usage":{"prompt_tokens":1,"completion_tokens":50}}`, "x-ms-is-spilled-over: true")), 100, 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.a)
				n.On(host("b"), test.b)
				tr := seeded(balance(t, n, azure("a"), azure("b")))
				for range 200 {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
				}
				require.GreaterOrEqual(t, float64(n.Sends(host("a"))), test.least)
				require.LessOrEqual(t, float64(n.Sends(host("a"))), test.top)
			})
		})
	}
}

func TestSlowIsAskedWhenNobodyElseIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		took := time.Second
		n.On(host("slow"), takes(func() time.Duration { return took }, 50, nil))
		n.On(host("fast"), takes(func() time.Duration { return time.Second }, 50, nil))
		tr := seeded(balance(t, n, azure("slow"), azure("fast")))
		run := func(requests int) float64 {
			before := n.Sends(host("slow"))
			for range requests {
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode)
			}
			return float64(n.Sends(host("slow"))-before) / float64(requests)
		}
		require.InDelta(t, 0.5, run(100), 0.15)
		took = 10 * time.Second
		require.Less(t, run(300), 0.1)
		n.On(host("fast"), status(429, "{}", "retry-after: 10"))
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode, "slow is not closed")
		require.Equal(t, "slow", servedBy(resp))
		n.On(host("fast"), takes(func() time.Duration { return time.Second }, 50, nil))
		time.Sleep(20 * time.Second)
		require.Less(t, run(100), 0.15, "still slow")
		took = time.Second
		run(100)
		require.InDelta(t, 0.5, run(200), 0.15, "well again")
	})
}

// A failure is fast, and no merit.
func TestFailuresAreNoLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(500, "{}"), status(429, "{}", "retry-after-ms: 1"), status(400, "{}"), status(500, `{"usage":{"completion_tokens":1}}`))
		tr := balance(t, n, azure("a"))
		for range 4 {
			ask(t, tr)
			time.Sleep(time.Minute)
		}
		d := spillover.DeploymentOf(t, tr, "a")
		_, whole := d.Whole.Value()
		_, stream := d.Stream.Value()
		require.False(t, whole || stream)
	})
}
