package spillover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

// Our own judgement never shuts a pool: the one that is due first is asked.
func TestSoonestEjectedDeploymentIsAskedWhenAllAreEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a"), azure("b"), azure("c", priority(2)))
		out := map[string]time.Duration{"a": 8 * time.Second, "b": 4 * time.Second, "c": 6 * time.Second}
		for d := range tr.table().find("m").all {
			n.On(d.backend.host, status(500, `"bad"`))
			now := time.Now()
			for i := range 5 { // the fifth failure ejects it for 8 s
				at := now.Add(time.Duration(i-65) * time.Second)
				d.Fail(now.Add(out[d.backend.name]-8*time.Second), health.FailedAttempt{Sent: at, Seen: at, Cause: health.ServerFailure, Reason: "500"}, 0.5)
			}
		}
		for i := range 3 {
			resp, body := ask(t, tr)
			require.Equal(t, 500, resp.StatusCode)
			require.Equal(t, `"bad"`, body)
			require.Equal(t, i+1, n.Sends())
		}

		for d := range tr.table().find("m").all {
			n.On(d.backend.host, status(200, "{}"))
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, statusOf(t, tr, servedBy(resp)).Available)
	})
}
