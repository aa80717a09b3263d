package spillover

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// trip is the round trip of the refusals here.
const trip = 100 * time.Millisecond

// refusedAtNoon is a pacing that has just begun.
func refusedAtNoon() *pacing {
	p := new(pacing)
	p.refused(noon, noon.Add(-trip))
	return p
}

// asked takes every place there is, as it becomes free, until a time. Each time
// somebody else is turned away if there is demand.
func asked(p *pacing, from, to time.Time, demand bool) (taken []time.Time) {
	var wanted atomic.Bool
	for now := from; now.Before(to); now = later(p.next, now.Add(1)) {
		wanted.Store(demand)
		if p.take(now, &wanted) {
			taken = append(taken, now)
		}
	}
	return taken
}

func TestPacingOnePerRoundTrip(t *testing.T) {
	p := refusedAtNoon()
	taken := asked(p, noon, noon.Add(paceQuiet*trip), true)
	require.Equal(t, noon, taken[0], "the first at once")
	for i := range taken[1:] {
		gap := taken[i+1].Sub(taken[i])
		require.GreaterOrEqual(t, gap, trip, "the word of one is there before the next is sent")
		require.Less(t, gap, 2*trip)
		var wanted atomic.Bool
		require.False(t, p.take(taken[i+1].Add(-1), &wanted))
	}
}

func TestPacingGrowsWithDemandAlone(t *testing.T) {
	p := refusedAtNoon()
	asked(p, noon, noon.Add(paceLasts-time.Second), false)
	require.Equal(t, 1.0, p.window, "nobody wanted more: what was learnt is kept")

	p = refusedAtNoon()
	var wanted atomic.Bool
	window, grown := p.window, noon
	for now := noon; p.window < paceMost; now = p.next {
		wanted.Store(true)
		require.True(t, p.take(now, &wanted))
		if p.window != window {
			require.Equal(t, min(window*paceGrowth, paceMost), p.window)
			require.Greater(t, now.Sub(grown), paceQuiet*trip, "not before so many quiet round trips")
			window, grown = p.window, now
		}
	}
}

func TestPacingTakesNoteOfDemand(t *testing.T) {
	p := refusedAtNoon()
	var wanted atomic.Bool
	wanted.Store(true)
	require.True(t, p.take(noon, &wanted))
	require.True(t, wanted.Load(), "not grown yet: kept for then")
	require.True(t, p.take(noon.Add((paceQuiet+1)*trip), &wanted))
	require.Equal(t, paceGrowth, p.window)
	require.False(t, wanted.Load(), "used up")
	require.True(t, p.take(noon.Add(3*(paceQuiet+1)*trip), &wanted))
	require.Equal(t, paceGrowth, p.window)
}

func TestPacingMost(t *testing.T) {
	p := new(pacing)
	p.refused(noon, noon.Add(-time.Millisecond))
	asked(p, noon, noon.Add(150*time.Millisecond), true)
	require.EqualValues(t, paceMost, p.window)
}

func TestPacingHalves(t *testing.T) {
	p := refusedAtNoon()
	p.window = 8
	for _, want := range []float64{4, 2, 1, 1} {
		p.refused(noon.Add(time.Second), noon)
		require.Equal(t, want, p.window)
	}
	p.window = 8
	p.refused(noon.Add(time.Second+paceLasts), noon)
	require.Equal(t, 1.0, p.window, "anew after it has ended")
}

// One slow refusal does not slow the pace down for long, nor does a quick one
// quicken it.
func TestPacingRoundTrip(t *testing.T) {
	p := refusedAtNoon()
	require.Equal(t, trip, p.trip)
	p.refused(noon, noon.Add(-9*trip))
	require.Equal(t, 2*trip, p.trip)
	for range 100 {
		p.refused(noon, noon.Add(-trip))
	}
	require.InDelta(t, trip, p.trip, float64(time.Microsecond))
}

func TestPacingEnds(t *testing.T) {
	p := refusedAtNoon()
	var wanted atomic.Bool
	end := noon.Add(paceLasts)
	require.True(t, p.take(end.Add(-1), &wanted))
	require.False(t, p.take(end.Add(-1), &wanted), "still one at a time")
	for range 1000 {
		require.True(t, p.take(end, &wanted))
	}
	require.Equal(t, pacing{trip: trip}, *p, "all but the round trip is forgotten")
}

// However slow a refusal was: what it taught does not outlast paceLasts.
func TestPacingEndsAfterASlowRefusal(t *testing.T) {
	var h health
	h.change(func() { h.throttle.refuse(noon, noon.Add(-2*paceLasts), time.Second, "503", 0) })
	ok, _ := h.admit(noon.Add(time.Second))
	require.True(t, ok)
	require.False(t, h.open(noon.Add(2*time.Second)))
	require.True(t, h.open(noon.Add(paceLasts)))
}

func TestPacingProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p pacing
		var wanted atomic.Bool
		var refused, next time.Time // the last throttle, and before which nothing is let in
		now := noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 2*time.Second))
			if rapid.IntRange(0, 5).Draw(t, "refused") == 0 {
				p.refused(now, now.Add(-drawSpan(t, "took", time.Second)))
				refused = now
			}
			wanted.Store(rapid.Bool().Draw(t, "wanted"))
			if refused.IsZero() || now.Sub(refused) >= paceLasts {
				require.True(t, p.take(now, &wanted), "nothing is paced without a throttle")
				next = time.Time{}
				continue
			}
			window, demand := p.window, wanted.Load()
			ok := p.take(now, &wanted)
			require.Equal(t, !now.Before(next), ok)
			require.True(t, p.window == window || ok && demand && p.window == min(paceMost, window*paceGrowth))
			require.GreaterOrEqual(t, p.window, 1.0)
			if ok {
				next = later(next, now.Add(time.Duration(float64(p.trip)/p.window)))
				require.False(t, p.next.Before(next), "a round trip for each of the window")
				next = p.next
			}
		}
	})
}

// The first requests after a mark come one by one for as many round trips as
// have to be quiet, however long the mark was.
func TestPacingBeginsWithTheEndOfTheMark(t *testing.T) {
	var h health
	const mark = 10 * time.Second
	h.change(func() { h.throttle.refuse(noon, noon.Add(-trip), mark, "429", 0) })
	require.False(t, h.open(noon.Add(time.Second)), "there is demand")
	end := noon.Add(mark)
	var last time.Time
	for now := end; now.Before(end.Add(paceQuiet * trip)); now = now.Add(time.Millisecond) {
		if !h.open(now) {
			continue
		}
		ok, _ := h.admit(now)
		require.True(t, ok)
		require.True(t, last.IsZero() || now.Sub(last) >= trip, "%v after the one before", now.Sub(last))
		last = now
	}
}

// A thousand that come at the end of a cool-down are let in one by one; the
// others go where there is room.
func TestPacingHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var at []time.Time // sends to a
		noted := func(f roundTripFunc) roundTripFunc {
			return func(req *http.Request) (*http.Response, error) {
				n.mu.Lock()
				at = append(at, time.Now())
				n.mu.Unlock()
				return slow(trip, f)(req)
			}
		}
		n.on(host("a"), noted(status(429, "{}", "Retry-After: 3")), noted(status(200, "{}")))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		end := time.Now().Add(3 * time.Second)
		time.Sleep(time.Until(end))
		at = nil

		var all sync.WaitGroup
		herd := func(requests int) {
			for range requests {
				all.Go(func() {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
				})
			}
			synctest.Wait()
		}
		herd(1000)
		require.Equal(t, []time.Time{end}, at, "one at the moment it ends")
		for range 2 * paceQuiet {
			time.Sleep(trip / 2)
			herd(20)
		}
		all.Wait()
		require.LessOrEqual(t, float64(len(at)), paceGrowth*paceQuiet)
		require.Greater(t, len(at), paceQuiet/2)
		for i := range at[1:] {
			require.GreaterOrEqual(t, float64(at[i+1].Sub(at[i])), float64(trip)/paceGrowth)
		}

		// After half a minute without a throttle nothing is held against it.
		time.Sleep(paceLasts)
		at = nil
		herd(100)
		all.Wait()
		require.Len(t, at, 100)
	})
}
