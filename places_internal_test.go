package spillover

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A place that wakes a request which does not take it goes to the next one, and each
// place wakes one request only.
func TestPlaceThatIsNotTakenWakesTheNext(t *testing.T) {
	full := func(most int64) *deployment {
		d := &deployment{record: new(record), backend: &backend{sharedState: new(sharedState), weight: 1}}
		d.MaxInFlight.Store(most)
		for d.TakePlace() {
		}
		require.Equal(t, most, d.InFlight.Load())
		return d
	}
	a, b := full(1), full(2)
	r := newRoute("m", []*deployment{a, b}, nil)
	awake := func(w *placeWaiter) bool { return len(w.woken) > 0 }
	wait := func(first bool) *placeWaiter {
		return new(scope).wait(r, func(*deployment) bool { return false }, first)
	}
	one, two, three, again := wait(false), wait(false), wait(false), wait(true)
	a.givePlace()
	require.True(t, awake(again), "it has waited before")
	require.False(t, awake(one))
	again.leave() // its caller has left
	require.True(t, awake(one))
	require.False(t, awake(two))
	require.True(t, a.TakePlace())
	one.leave()
	require.False(t, awake(two))
	b.givePlace()
	b.givePlace()
	require.True(t, awake(two) && awake(three))
	two.leave()
	three.leave()
	require.Zero(t, a.places.waiting.Load()+b.places.waiting.Load())
	require.Zero(t, a.places.waiters.Len()+b.places.waiters.Len())
	late := wait(false) // b has places
	require.False(t, awake(late), "it asks b itself")
	late.leave()
}

// A request that waits at two deployments takes one place: the other goes to the next one.
func TestRequestThatWaitsTwiceIsWokenOnce(t *testing.T) {
	var both []*deployment
	for range 2 {
		d := &deployment{record: new(record), backend: &backend{sharedState: new(sharedState), weight: 1}}
		d.MaxInFlight.Store(1)
		require.True(t, d.TakePlace())
		both = append(both, d)
	}
	r := newRoute("m", both, nil)
	wait := func() *placeWaiter { return new(scope).wait(r, func(*deployment) bool { return false }, false) }
	one, two := wait(), wait()
	both[0].givePlace()
	require.Len(t, one.woken, 1)
	require.Empty(t, two.woken)
	both[1].givePlace()
	require.Len(t, one.woken, 1)
	require.Len(t, two.woken, 1)
}
