//go:build walljump

package spillover_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// These tests are built with another time.Now (internal/walljump).

func init() { jumpWallClock = time.JumpWallClock }

// jumps are what happens to the wall clock in these tests, one after the other.
var jumps = []time.Duration{-time.Hour, time.Hour, -24 * time.Hour, 24 * time.Hour}

func TestWallClockJumpsDoNotChangeACooldown(t *testing.T) {
	for _, jump := range jumps {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			tr := spilling(t, n, status(429, "", "Retry-After: 20"), status(200, "{}"))
			ask(t, tr)
			before := time.Now()
			time.JumpWallClock(jump)
			defer time.JumpWallClock(-jump)
			require.Equal(t, jump, time.Now().Round(0).Sub(before.Round(0)), "the wall clock jumps")
			require.Zero(t, time.Since(before), "the monotonic clock does not")
			time.Sleep(20*time.Second - 1)
			resp, _ := ask(t, tr)
			require.Equal(t, "spare", servedBy(resp))
			time.Sleep(1)
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp))
		})
	}
}

// A date is compared with the clock of its sender. If that is unknown, MaxCooldown is the
// limit, however wrong the own clock is.
func TestWallClockJumpsAndRetryAfterDates(t *testing.T) {
	for _, jump := range jumps {
		for _, test := range []struct {
			header []string
			most   time.Duration
		}{
			{[]string{"Retry-After: Sat, 01 Jan 2000 00:00:20 GMT", "Date: Sat, 01 Jan 2000 00:00:00 GMT"}, 20 * time.Second},
			{[]string{"Retry-After: Sat, 01 Jan 2000 00:00:20 GMT"}, longestWait},
		} {
			synctest.Test(t, func(t *testing.T) {
				time.JumpWallClock(jump)
				defer time.JumpWallClock(-jump)
				tr := spilling(t, newNet(), status(429, "", test.header...), status(200, "{}"))
				ask(t, tr)
				time.Sleep(test.most)
				resp, _ := ask(t, tr)
				require.Equal(t, "a", servedBy(resp))
			})
		}
	}
}

func TestWallClockJumpsDoNotChangeAnEjection(t *testing.T) {
	for _, jump := range jumps {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			code := http.StatusServiceUnavailable
			tr := spilling(t, n, func(req *http.Request) (*http.Response, error) { return status(code, "{}")(req) })
			deployment := func() spillover.DeploymentStatus { return tr.Status().Tiers[0].Backends[0].Deployments[0] }
			for range 20 {
				ask(t, tr)
				time.Sleep(10 * time.Millisecond)
			}
			until := deployment().Until
			left := time.Until(until)
			require.Positive(t, left, "it is ejected")
			code = http.StatusOK
			time.JumpWallClock(jump)
			defer time.JumpWallClock(-jump)
			require.Equal(t, left, time.Until(until))
			time.Sleep(left - 1)
			resp, _ := ask(t, tr)
			require.Equal(t, "spare", servedBy(resp))
			for range 60 {
				time.Sleep(time.Second)
				ask(t, tr)
			}
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp))
			require.True(t, deployment().Available)
		})
	}
}
