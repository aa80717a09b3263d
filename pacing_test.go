package spillover

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// trip is the round trip of the refusals here.
const trip = 100 * time.Millisecond

// pacedBy is a pacing that has just begun, of a deployment that serves every so often.
func pacedBy(every time.Duration) *pacing {
	p := new(pacing)
	p.refused(noon, trip, every)
	return p
}

// taken takes every place there is, as it becomes free, until a time.
func taken(p *pacing, from, to time.Time) (at []time.Time) {
	for now := from; now.Before(to); now = later(p.next, now.Add(1)) {
		if p.take(now) {
			at = append(at, now)
		}
		if !p.active() {
			break
		}
	}
	return at
}

func TestPacingBeginsAtTheRateOfBefore(t *testing.T) {
	const every = time.Second
	at := taken(pacedBy(every), noon, noon.Add(time.Hour))
	require.Equal(t, noon, at[0], "the first at once")
	require.InDelta(t, paceShare*every.Seconds(), at[2].Sub(at[1]).Seconds(), 0.1)
	for i := range at[2:] {
		require.LessOrEqual(t, at[i+2].Sub(at[i+1]), at[i+1].Sub(at[i])+1, "faster and faster")
	}
	require.Less(t, len(at), 100, "and then no more")
}

func TestPacingWaitsForTheFirstWord(t *testing.T) {
	p := pacedBy(10 * time.Millisecond) // served often: the round trip is longer
	require.True(t, p.take(noon))
	require.False(t, p.take(noon.Add(trip)))
	require.True(t, p.take(noon.Add(trip*13/10)))
}

func TestPacingOfADeploymentThatNeverServed(t *testing.T) {
	at := taken(pacedBy(0), noon, noon.Add(time.Hour))
	require.LessOrEqual(t, at[1].Sub(at[0]), trip*13/10, "by the round trip")
}

// A refusal that took half a minute to come says nothing of how long the next one
// takes to be known.
func TestPacingBoundsTheRoundTrip(t *testing.T) {
	p := new(pacing)
	p.refused(noon, 30*time.Second, 0)
	require.LessOrEqual(t, p.trip, time.Second)
	require.True(t, p.take(noon))
	require.True(t, p.take(noon.Add(1300*time.Millisecond)))
}

func TestPacingRoundTripIsAMean(t *testing.T) {
	p := pacedBy(time.Second)
	require.Equal(t, trip, p.trip)
	p.refused(noon, 9*trip, time.Second)
	require.Equal(t, 2*trip, p.trip)
	for range 100 {
		p.refused(noon, trip, time.Second)
	}
	require.InDelta(t, trip, p.trip, float64(time.Microsecond))
}

func TestPacingHasCreditForTwoAfterAPause(t *testing.T) {
	p := pacedBy(time.Second)
	require.True(t, p.take(noon))
	now := noon.Add(time.Minute)
	for range 3 {
		require.True(t, p.take(now))
	}
	require.False(t, p.take(now))
}

func TestPacingProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p pacing
		now := noon
		let := 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 2*time.Second))
			if rapid.IntRange(0, 30).Draw(t, "refused") == 0 {
				until := now.Add(drawSpan(t, "mark", time.Second))
				p.refused(until, drawSpan(t, "took", 40*time.Second), drawSpan(t, "every", 30*time.Second))
				require.Equal(t, until, p.next)
				let = 0
			}
			was := p
			ok := p.take(now)
			require.Equal(t, !was.active() || !now.Before(was.next), ok)
			if !ok {
				require.Equal(t, was, p)
				continue
			}
			if let++; !p.active() {
				require.Zero(t, p.next, "nothing is paced any more")
				continue
			}
			require.Less(t, p.next.Sub(now), longestEvery, "never longer than a deployment takes to serve one")
			require.LessOrEqual(t, let, 1000, "it comes to an end")
		}
	})
}

func TestRhythmIsTheMeanTimeBetweenSuccesses(t *testing.T) {
	var r rhythm
	now := noon
	require.Zero(t, r.every())
	r.served(now, false)
	require.Zero(t, r.every())
	for range 100 {
		now = now.Add(time.Second)
		r.served(now, false)
	}
	require.Equal(t, time.Second, r.every())

	now = now.Add(time.Hour)
	r.served(now, false)
	require.LessOrEqual(t, r.every(), 1125*time.Millisecond, "an idle hour says nothing")
	now = now.Add(time.Hour)
	r.served(now, true)
	require.Greater(t, r.every(), 4*time.Second, "an hour in which others were turned away does")
	require.LessOrEqual(t, r.every(), longestEvery)
}

// A thousand that come at the end of a cool-down are let in one by one; the
// others go where there is headroom.
func TestHerdIsLetInOneByOne(t *testing.T) {
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
		for range 10 {
			time.Sleep(trip / 2)
			herd(20)
		}
		all.Wait()
		require.Less(t, len(at), 20)
		require.Greater(t, len(at), 3)
		require.GreaterOrEqual(t, at[1].Sub(at[0]), trip, "the word of the first is there before the second is sent")

		// It served all of them: before long nothing is held against it.
		for range 400 {
			time.Sleep(trip / 2)
			herd(2)
		}
		at = nil
		herd(100)
		all.Wait()
		require.Len(t, at, 100)
	})
}
