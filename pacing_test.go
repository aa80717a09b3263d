package spillover

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
)

// trip is the round trip of the refusals here.
const trip = 100 * time.Millisecond

// refusedOnce is a pacing after the first refusal, which was told to wait until noon.
func refusedOnce() *health.RampUp {
	p := new(health.RampUp)
	p.Refused(noon, trip, 0)
	return p
}

// taken takes every place there is, as it becomes free, until a time.
func taken(p *health.RampUp, from, to time.Time) (at []time.Time) {
	for now := from; now.Before(to); now = health.Later(p.Next, now.Add(1)) {
		if p.Admit(now) {
			at = append(at, now)
		}
		if !p.Active() {
			break
		}
	}
	return at
}

func TestPacingShrinksFasterAndFasterAndEnds(t *testing.T) {
	at := taken(refusedOnce(), noon, noon.Add(time.Hour))
	require.Equal(t, noon, at[0], "the first at once")
	require.InDelta(t, health.PaceShareOfTrip*trip.Seconds(), at[1].Sub(at[0]).Seconds(), 0.001)
	for i := range at[2:] {
		require.LessOrEqual(t, at[i+2].Sub(at[i+1]), at[i+1].Sub(at[i])+1, "faster and faster")
	}
	require.Less(t, len(at), 1000, "and then no more")
}

// As many requests as usual undo what a refusal did, fewer do not, more do more.
func TestPacingSettlesWhereSoManyAreRefused(t *testing.T) {
	for every, want := range map[int]func(t require.TestingT, e1, e2 any, msgAndArgs ...any){
		3: require.Greater, 8: require.Less,
	} {
		p := health.RampUp{Gap: 10 * time.Second, Arrival: 10 * time.Second}
		for range 6 {
			now := health.Later(p.Next, noon)
			for range every {
				require.True(t, p.Admit(now))
				now = p.Next.Add(p.Arrival)
			}
			p.Refused(now, 0, 0)
		}
		want(t, p.Gap, 10*time.Second, "one in %d", every)
	}
}

// Half of all requests would be sent without the gap, so it is no shorter than a
// share of the time between them, and no longer than a multiple.
func TestPacingIsBoundedByTheDemand(t *testing.T) {
	p := refusedOnce()
	now := noon
	for range 100 {
		now = health.Later(now, p.Next).Add(time.Second)
		require.True(t, p.Admit(now))
		p.Refused(now, trip, 0)
	}
	require.InDelta(t, 1, p.Arrival.Seconds(), 0.01)
	require.InDelta(t, health.PaceMostOfDemand, p.Gap.Seconds(), 0.2)
	p.Gap = 0
	p.Refused(now, trip, 0)
	require.InDelta(t, health.PaceShareOfDemand, p.Gap.Seconds(), 0.01)

	now = now.Add(time.Hour)
	require.True(t, p.Admit(now))
	require.Less(t, p.Arrival, 2*time.Second, "an idle hour is no measure")
}

// Where a refusal is known only some requests later, or the service wants none
// most of the time, it takes more of them.
func TestPacingTakesMoreRequestsWhereTheyAreClose(t *testing.T) {
	usual := func(trip, hint time.Duration) float64 {
		return (&health.RampUp{Gap: time.Second, Arrival: time.Second, RoundTrip: trip, Wait: hint}).RecoveryRequests()
	}
	require.Equal(t, health.PaceUsual, usual(0, 0))
	require.InDelta(t, health.PaceUsual, usual(trip, 10*time.Millisecond), 0.1)
	require.InDelta(t, 1.5*health.PaceUsual, usual(0, time.Second/2), 1e-9)
	require.InDelta(t, health.PaceUsual, usual(trip, trip), 1e-9, "a hint within the round trip says nothing")
	require.InDelta(t, health.PaceHints*health.PaceUsual, usual(0, time.Hour), 1e-9)
	require.InDelta(t, health.PaceTrips*health.PaceUsual, usual(2*time.Second, time.Hour), 1e-9)
}

// A refusal that took half a minute to come says nothing of how long the next one
// takes to be known.
func TestPacingBoundsTheRoundTrip(t *testing.T) {
	p := new(health.RampUp)
	p.Refused(noon, 30*time.Second, 0)
	require.Equal(t, health.PaceLongestTrip, p.RoundTrip)
	require.True(t, p.Admit(noon))
	require.True(t, p.Admit(noon.Add(health.PaceLongestTrip)))
}

func TestPacingProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var p health.RampUp
		now := noon
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 2*time.Second))
			if rapid.IntRange(0, 30).Draw(t, "refused") == 0 {
				until := now.Add(drawSpan(t, "mark", time.Second))
				p.Refused(until, drawSpan(t, "took", 40*time.Second), drawSpan(t, "hint", 40*time.Second))
				require.Equal(t, until, p.Next)
				require.True(t, p.Active())
			}
			was := p
			ok := p.Admit(now)
			require.Equal(t, !was.Active() || !now.Before(was.Next), ok)
			switch {
			case !ok:
				require.Equal(t, was, p)
			case !p.Active():
				require.Zero(t, p.Next, "nothing is paced any more")
			default:
				require.GreaterOrEqual(t, p.Arrival, time.Duration(0))
				require.LessOrEqual(t, p.Next.Sub(now), health.PaceMost)
			}
		}
	})
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

// A refusal that says that the region is short, or that comes while a PTU reports
// to be far from full, is believed to the letter and teaches nothing; others do.
func TestRefusalsThatTeachNothing(t *testing.T) {
	for name, c := range map[string]struct {
		body, utilization string
		teaches           bool
	}{
		"no_capacity":           {`{"error":{"code":"no_capacity","message":"The system is currently experiencing high demand."}}`, "", false},
		"overloaded":            {`{"error":{"type":"server_is_overloaded","message":"Try again."}}`, "", false},
		"the limit":             {`{"error":{"code":"429","message":"Requests have exceeded token rate limit."}}`, "", true},
		"half full":             {`{"error":{"code":"429","message":"Requests have exceeded token rate limit."}}`, "50.0%", false},
		"no longer far from it": {`{"error":{"code":"429","message":"Requests have exceeded token rate limit."}}`, "85.0%", true},
		"no body":               {``, "", true},
		"no error in the body":  {`high demand`, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				header := []string{"Retry-After: 6"}
				if c.utilization != "" {
					header = append(header, "azure-openai-deployment-utilization: "+c.utilization)
				}
				n.on(host("a"), slow(trip, status(429, c.body, header...)))
				tr := balance(t, n, azure("a"), azure("b", priority(2)))
				for range 2 {
					ask(t, tr)
					require.InDelta(t, 6*time.Second, left(t, tr, "a"), float64(trip))
					time.Sleep(7 * time.Second)
				}
				require.Equal(t, 2, n.sends(host("a")))
				require.Equal(t, c.teaches, deploymentOf(t, tr, "a").Throttle.RampUp.Active())
			})
		})
	}
}
