package spillover

import (
	"sync/atomic"
	"time"
)

// A pacing lets requests back in after a throttle (slow start): at first at about
// the rate at which the deployment served before, then faster and faster. Without
// it all who waited for the end of a cool-down would come at once, only to be
// refused at once.
type pacing struct {
	gap  time.Duration // between two requests, at first; 0 when nothing is paced
	trip time.Duration // a refusal's round trip, as of late
	n    int           // requests let in since the last refusal
	next time.Time     // before that, no other one
}

// The first requests come a little slower than the mean time between two
// successes. How many come before the pace doubles: so many, and at least as
// many as so many round trips take. The longest that a round trip counts, as a
// service may hold a refusal back. A pacing ends when the gap is below paceOver.
const (
	paceShare = 0.85
	paceLeast = 6.0
	paceTrips = 15.0
	paceTrip  = time.Second
	paceOver  = time.Millisecond
)

func (p *pacing) active() bool { return p.gap > 0 }

// refused begins anew: the next request may come at a time.
func (p *pacing) refused(until time.Time, trip, every time.Duration) {
	trip = min(trip, paceTrip)
	if p.trip > 0 {
		trip = (7*p.trip + trip) / 8
	}
	gap := time.Duration(paceShare * float64(every))
	if every == 0 {
		gap = trip
	}
	*p = pacing{gap: max(gap, paceOver), trip: trip, next: until}
}

// take asks for the place of the next request.
func (p *pacing) take(now time.Time) bool {
	if !p.active() {
		return true
	}
	if now.Before(p.next) {
		return false
	}
	p.n++
	many := max(paceLeast, paceTrips*float64(p.trip)/float64(p.gap))
	n := float64(p.n) / many
	g := time.Duration(float64(p.gap) / (1 + n*n))
	if p.n == 1 {
		g = max(g, p.trip*13/10) // its own word is there before the next is sent
	}
	if g < paceOver || n > 10 {
		*p = pacing{trip: p.trip}
		return true
	}
	// Two may come together: arrivals are not even, and a pace without credit
	// would lose what it gives to those who come late.
	p.next = later(p.next, now.Add(-2*g)).Add(g)
	return true
}

// A rhythm is how often a deployment serves a request. Its zero value knows
// nothing.
type rhythm struct {
	last moment       // when it served one last
	mean atomic.Int64 // time between two, in nanoseconds
}

// longestEvery bounds the time between two successes, and is taken where it is
// not known.
const longestEvery = 30 * time.Second

func mostEvery(every time.Duration) time.Duration {
	if every == 0 {
		return longestEvery
	}
	return every
}

// served notes a success. A time in which nobody was turned away says little of
// how often it could have served: it may just have had nothing to do.
func (r *rhythm) served(now time.Time, turnedAway bool) {
	was := r.last.swap(now)
	if was.IsZero() {
		return
	}
	dt, mean := max(now.Sub(was), 1), time.Duration(r.mean.Load())
	if mean == 0 {
		r.mean.Store(int64(min(dt, longestEvery)))
		return
	}
	if !turnedAway {
		dt = min(dt, 2*mean)
	}
	r.mean.Store(int64(max(1, mean+(min(dt, longestEvery)-mean)/8)))
}

func (r *rhythm) every() time.Duration { return time.Duration(r.mean.Load()) }
