package health

import (
	"math"
	"time"
)

// A RampUp lets requests back in after a throttle one by one (slow start). Without
// it all who waited for the end of a cool-down would come at once, only to be
// refused at once.
//
// The gap between two requests grows with each refusal and shrinks with each
// request that is let in: slowly at first, and ever faster the longer there is no
// refusal. So it settles where one request of so many is refused, if they are
// refused because they come too fast; where they are refused by chance, at
// whatever distance they come, long runs without a refusal bring it down again.
type RampUp struct {
	Gap  time.Duration // between two requests, right after the last refusal; 0 when nothing is paced
	n    int           // requests let in since then
	last time.Time     // when the last one was
	Next time.Time     // before that, no other one

	Arrival   time.Duration // from when a request may be sent until there is one, on average
	RoundTrip time.Duration // a refusal's round trip, on average
	Wait      time.Duration // what a refusal asks for, on average
}

const (
	// A refusal lengthens the gap by a factor of e^paceStep, and paceUsual requests
	// without one undo that: of as many about one may be refused by chance before
	// the gap grows without end.
	paceStep  = 0.2
	PaceUsual = 4.8
	// PaceTrips and PaceHints: it takes more requests where they are so many that a
	// refusal is known only some requests later, or that several come while the
	// service wants none, which
	// is when a hint is longer than the time between them: then refusals are hardly
	// a matter of chance.
	PaceTrips = 5
	PaceHints = 2
	// PaceShareOfTrip, PaceShareOfDemand, PaceMostOfDemand: the gap begins at this
	// share of the round trip or of the mean time between two requests that would be
	// sent, and ends at so many times the latter.
	PaceShareOfTrip   = 0.5
	PaceShareOfDemand = 0.3
	PaceMostOfDemand  = 16
	paceMostAtLeast   = 2 * time.Second
	PaceLongestTrip   = 100 * time.Millisecond
	paceLeast         = time.Millisecond // a shorter gap is none
	PaceMost          = 30 * time.Second
)

func (p *RampUp) Active() bool { return p.Gap > 0 }

// RecoveryRequests is after how many requests the gap is as long as it was before the last
// refusal.
func (p *RampUp) RecoveryRequests() float64 {
	apart := float64(p.Gap + p.Arrival)
	return PaceUsual * max(1, PaceTrips*float64(p.RoundTrip)/apart, min(1+2*float64(max(0, p.Wait-p.RoundTrip))/apart, PaceHints))
}

// Current is the gap as it is now.
func (p *RampUp) Current() time.Duration {
	if !p.Active() {
		return 0
	}
	n := float64(p.n) / p.RecoveryRequests()
	return time.Duration(float64(p.Gap) * math.Exp(-paceStep*n*n*n))
}

// Refused lengthens the gap. The next request may come at a time. What a service
// takes to refuse tells little about the way there, so it counts within bounds.
func (p *RampUp) Refused(until time.Time, trip, hint time.Duration) {
	gap := time.Duration(math.Exp(paceStep) * float64(p.Current()))
	p.RoundTrip, p.Wait = mean(p.RoundTrip, min(trip, PaceLongestTrip)), mean(p.Wait, hint)
	least := max(part(PaceShareOfTrip, p.RoundTrip), part(PaceShareOfDemand, p.Arrival), paceLeast)
	p.Gap = min(max(gap, least), max(paceMostAtLeast, PaceMostOfDemand*p.Arrival), PaceMost)
	p.n, p.Next = 0, until
}

// Admit asks for the place of the next request.
func (p *RampUp) Admit(now time.Time) bool {
	if !p.Active() {
		return true
	}
	if now.Before(p.Next) {
		return false
	}
	idle := now.Sub(Later(p.last, p.Next))
	p.Arrival = mean(p.Arrival, min(idle, max(time.Second, 4*p.Arrival))) // an idle hour is no measure
	p.last = now
	p.n++
	gap := p.Current()
	if gap < paceLeast {
		p.Gap, p.Next = 0, time.Time{}
		return true
	}
	p.Next = Later(p.Next, now).Add(gap)
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
