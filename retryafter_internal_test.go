package spillover

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// left is how long that deployment is still left alone.
func left(t testing.TB, tr *Transport, backend string) time.Duration {
	if d := statusOf(t, tr, backend); !d.Available {
		return time.Until(d.Until)
	}
	return 0
}

// dealt makes the choices of a Transport the same each time. The requests of
// such a test come one after the other.
func dealt(tr *Transport) *Transport {
	tr.random = rand.New(rand.NewPCG(1, 2)).Uint64
	return tr
}

const (
	defaultWait = 10 * time.Second
	longestWait = 60 * time.Second
)

// spilling is a deployment with a spare behind it, which always answers.
func spilling(t testing.TB, n *fakeNet, answers ...roundTripFunc) *Transport {
	n.On(host("a"), answers...)
	return configured(t, Config{
		Base: n, Backends: []Backend{azure("a"), azure("spare", priority(2))},
		DefaultCooldown: defaultWait, MaxCooldown: longestWait,
	})
}

func TestMessageTimesInMinutesAndHoursAreRead(t *testing.T) {
	require.Equal(t, 62500*time.Millisecond, prose([]byte("Please try again in 1m2.5s.")))
	require.Equal(t, time.Hour+2*time.Minute, prose([]byte("retry after 1 hour 2 minutes")))
}

func TestThrottledDeploymentIsSkippedUntilRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 5"), status(200, "{}"))
		tr := dealt(balance(t, n, azure("a"), azure("b")))
		for n.Sends(host("a")) == 0 {
			ask(t, tr)
		}
		for range 4 {
			time.Sleep(time.Second)
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		}
		require.Equal(t, 1, n.Sends(host("a")))
		require.Zero(t, statusOf(t, tr, "a").Failed)
		require.EqualValues(t, 1, statusOf(t, tr, "a").Throttled)

		time.Sleep(2 * time.Second)
		for range 10 {
			ask(t, tr)
		}
		require.Greater(t, n.Sends(host("a")), 1)
	})
}

// The wall clock may be put back. A time that is compared by the monotonic one
// carries that reading, which Round(0) takes away.
func TestThrottleEndIsOnTheMonotonicClock(t *testing.T) {
	tr := spilling(t, newNet(), status(429, "", "Retry-After: 20"))
	ask(t, tr)
	until := statusOf(t, tr, "a").Until
	require.NotEqual(t, until.Round(0), until)
	require.False(t, tr.table().find("m").tiers[0].members[0].Open(time.Now()))
}

func TestLoadIsSharedAgainAfterAThrottleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 1"), status(200, "{}"))
		tr := dealt(balance(t, n, azure("a"), azure("b")))
		for range 20 {
			ask(t, tr)
		}
		require.Equal(t, 1, n.Sends(host("a")))
		time.Sleep(time.Second)
		for range 1000 {
			ask(t, tr)
		}
		require.InDelta(t, 500, n.Sends(host("a")), 200)
	})
}

// The wall clock is read: a step of it would shorten or stretch every wait.
func TestThrottleKeepsTheMonotonicClockReading(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	tr := balance(t, n, azure("a"))
	ask(t, tr)
	d := tr.table().find("m").tiers[0].members[0]
	until, _, _ := d.Closed(time.Now())
	require.Contains(t, until.String(), " m=+", "a time with a reading of the monotonic clock")
}
