package spillover

import (
	"math"
	"time"
)

// A pacing lets requests back in after a throttle one by one (slow start). Without
// it all who waited for the end of a cool-down would come at once, only to be
// refused at once.
//
// The gap between two requests grows with each refusal and shrinks with each
// request that is let in: slowly at first, and ever faster the longer there is no
// refusal. So it settles where one request of so many is refused, if they are
// refused because they come too fast; where they are refused by chance, at
// whatever distance they come, long runs without a refusal bring it down again.
type pacing struct {
	gap  time.Duration // between two requests, right after the last refusal; 0 when nothing is paced
	n    int           // requests let in since then
	last time.Time     // when the last one was
	next time.Time     // before that, no other one

	demand time.Duration // from when a request may be sent until there is one, on average
	trip   time.Duration // a refusal's round trip, on average
	hint   time.Duration // what a refusal asks for, on average
}

const (
	// A refusal lengthens the gap by a factor of e^paceStep, and paceUsual requests
	// without one undo that: of as many about one may be refused by chance before
	// the gap grows without end.
	paceStep  = 0.2
	paceUsual = 4.8
	// It takes more requests where they are so many that a refusal is known only
	// some requests later, or that several come while the service wants none, which
	// is when a hint is longer than the time between them: then refusals are hardly
	// a matter of chance.
	paceTrips = 5
	paceHints = 2
	// The gap begins at this share of the round trip or of the mean time between
	// two requests that would be sent, and ends at so many times the latter.
	paceShareOfTrip   = 0.5
	paceShareOfDemand = 0.3
	paceMostOfDemand  = 16
	paceMostAtLeast   = 2 * time.Second
	paceLongestTrip   = 100 * time.Millisecond
	paceLeast         = time.Millisecond // a shorter gap is none
	paceMost          = 30 * time.Second
)

func (p *pacing) active() bool { return p.gap > 0 }

// usual is after how many requests the gap is as long as it was before the last
// refusal.
func (p *pacing) usual() float64 {
	apart := float64(p.gap + p.demand)
	return paceUsual * max(1, paceTrips*float64(p.trip)/apart, min(1+2*float64(max(0, p.hint-p.trip))/apart, paceHints))
}

// current is the gap as it is now.
func (p *pacing) current() time.Duration {
	if !p.active() {
		return 0
	}
	n := float64(p.n) / p.usual()
	return time.Duration(float64(p.gap) * math.Exp(-paceStep*n*n*n))
}

// refused lengthens the gap. The next request may come at a time. What a service
// takes to refuse tells little about the way there, so it counts within bounds.
func (p *pacing) refused(until time.Time, trip, hint time.Duration) {
	gap := time.Duration(math.Exp(paceStep) * float64(p.current()))
	p.trip, p.hint = mean(p.trip, min(trip, paceLongestTrip)), mean(p.hint, hint)
	least := max(part(paceShareOfTrip, p.trip), part(paceShareOfDemand, p.demand), paceLeast)
	p.gap = min(max(gap, least), max(paceMostAtLeast, paceMostOfDemand*p.demand), paceMost)
	p.n, p.next = 0, until
}

// take asks for the place of the next request.
func (p *pacing) take(now time.Time) bool {
	if !p.active() {
		return true
	}
	if now.Before(p.next) {
		return false
	}
	idle := now.Sub(later(p.last, p.next))
	p.demand = mean(p.demand, min(idle, max(time.Second, 4*p.demand))) // an idle hour is no measure
	p.last = now
	p.n++
	gap := p.current()
	if gap < paceLeast {
		p.gap, p.next = 0, time.Time{}
		return true
	}
	p.next = later(p.next, now).Add(gap)
	return true
}

// mean is a moving average; its first value is the mean at first.
func mean(before, value time.Duration) time.Duration {
	if before == 0 {
		return value
	}
	return before + (value-before)/8
}

func part(share float64, d time.Duration) time.Duration { return time.Duration(share * float64(d)) }
