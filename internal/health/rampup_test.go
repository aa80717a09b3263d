package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// refusedOnce is a ramp-up after the first refusal, which asked to wait until noon.
func refusedOnce() *rampUp {
	p := new(rampUp)
	p.refused(noon, trip, 0)
	return p
}

// taken admits requests as early as possible, until a time.
func taken(p *rampUp, from, to time.Time) (at []time.Time) {
	for now := from; now.Before(to); now = Latest(p.next, now.Add(1)) {
		if p.admit(now) {
			at = append(at, now)
		}
		if !p.active() {
			break
		}
	}
	return at
}

func TestRampUpGapShrinksFasterAndFaster(t *testing.T) {
	at := taken(refusedOnce(), noon, noon.Add(time.Hour))
	require.Equal(t, noon, at[0], "the first at once")
	require.InDelta(t, minGapOfTrip*trip.Seconds(), at[1].Sub(at[0]).Seconds(), 0.001)
	for i := range at[2:] {
		require.LessOrEqual(t, at[i+2].Sub(at[i+1]), at[i+1].Sub(at[i])+1, "faster and faster")
	}
	require.Less(t, len(at), 1000, "and then no more")
}

// recoveryRequests undo what a refusal did; fewer do not, more do more.
func TestRampUpSettlesWhereSoManyAreRefused(t *testing.T) {
	for every, want := range map[int]func(t require.TestingT, e1, e2 any, msgAndArgs ...any){
		3: require.Greater, 8: require.Less,
	} {
		p := rampUp{gap: 10 * time.Second, interval: 10 * time.Second}
		for range 6 {
			now := Latest(p.next, noon)
			for range every {
				require.True(t, p.admit(now))
				now = p.next.Add(p.interval)
			}
			p.refused(now, 0, 0)
		}
		want(t, p.gap, 10*time.Second, "one in %d", every)
	}
}

// The gap is no shorter than a share of the interval between requests, and no longer
// than a multiple of it.
func TestRampUpIsBoundedByTheDemand(t *testing.T) {
	p := refusedOnce()
	now := noon
	for range 100 {
		now = Latest(now, p.next).Add(time.Second)
		require.True(t, p.admit(now))
		p.refused(now, trip, 0)
	}
	require.InDelta(t, 1, p.interval.Seconds(), 0.01)
	require.InDelta(t, maxGapOfInterval, p.gap.Seconds(), 0.2)
	p.gap = 0
	p.refused(now, trip, 0)
	require.InDelta(t, minGapOfInterval, p.gap.Seconds(), 0.01)

	now = now.Add(time.Hour)
	require.True(t, p.admit(now))
	require.Less(t, p.interval, 2*time.Second, "an idle hour is no measure")
}

// Where a refusal is known only some requests later, or Retry-After is longer than the
// gap, it takes more requests to undo a refusal.
func TestRampUpTakesMoreRequestsWhereTheyAreClose(t *testing.T) {
	usual := func(trip, hint time.Duration) float64 {
		return (&rampUp{gap: time.Second, interval: time.Second, roundTrip: trip, wait: hint}).recoveryRequests()
	}
	require.Equal(t, baseRecovery, usual(0, 0))
	require.InDelta(t, baseRecovery, usual(trip, 10*time.Millisecond), 0.1)
	require.InDelta(t, 1.5*baseRecovery, usual(0, time.Second/2), 1e-9)
	require.InDelta(t, baseRecovery, usual(trip, trip), 1e-9, "a hint within the round trip says nothing")
	require.InDelta(t, maxWaitRecovery*baseRecovery, usual(0, time.Hour), 1e-9)
	require.InDelta(t, recoveryPerTrip*baseRecovery, usual(2*time.Second, time.Hour), 1e-9)
}

// A refusal that took half a minute says nothing about how long the next one takes.
func TestRampUpBoundsTheRoundTrip(t *testing.T) {
	p := new(rampUp)
	p.refused(noon, 30*time.Second, 0)
	require.Equal(t, maxTrip, p.roundTrip)
	require.True(t, p.admit(noon))
	require.True(t, p.admit(noon.Add(maxTrip)))
}

func TestRampUpProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p rampUp
		now := noon
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 2*time.Second))
			if rapid.IntRange(0, 30).Draw(t, "refused") == 0 {
				until := now.Add(drawSpan(t, "mark", time.Second))
				p.refused(until, drawSpan(t, "took", 40*time.Second), drawSpan(t, "hint", 40*time.Second))
				require.Equal(t, until, p.next)
				require.True(t, p.active())
			}
			was := p
			ok := p.admit(now)
			require.Equal(t, !was.active() || !now.Before(was.next), ok)
			switch {
			case !ok:
				require.Equal(t, was, p)
			case !p.active():
				require.Zero(t, p.next, "nothing is paced any more")
			default:
				require.GreaterOrEqual(t, p.interval, time.Duration(0))
				require.LessOrEqual(t, p.next.Sub(now), maxGap)
			}
		}
	})
}
