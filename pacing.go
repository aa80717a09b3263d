package spillover

import (
	"sync/atomic"
	"time"
)

// A pacing lets requests back in after a throttle: one for each round trip that a
// refusal takes, more as they stay unrefused. Without it all who waited for the
// end of a cool-down would come at once, only to be refused at once.
type pacing struct {
	last   time.Time     // of the last throttle; zero when nothing is paced
	trip   time.Duration // a refusal's round trip, as of late
	window float64       // requests a round trip
	next   time.Time     // before that, no other one
	grown  time.Time     // when window changed last, or the last mark ends
}

// The pacing ends after so long without a throttle, grows after so many round
// trips without one, by so much, up to so many requests a round trip.
const (
	paceLasts  = 30 * time.Second
	paceQuiet  = 5
	paceGrowth = 1.5
	paceMost   = 256
)

// refused begins anew, or halves: the request was sent at a time and throttled.
func (p *pacing) refused(now, sent time.Time) {
	trip := now.Sub(sent)
	if p.trip > 0 {
		trip = (7*p.trip + trip) / 8
	}
	p.trip = trip
	if p.active(now) {
		p.window = max(1, p.window/2)
	} else {
		p.window = 1
	}
	p.last, p.grown = now, now
}

func (p *pacing) active(now time.Time) bool { return !p.last.IsZero() && now.Sub(p.last) < paceLasts }

// take asks for the place of the next request. wanted tells that others were
// turned away, and is taken note of: growth without demand would forget what
// was learnt.
func (p *pacing) take(now time.Time, wanted *atomic.Bool) bool {
	if !p.active(now) {
		*p = pacing{trip: p.trip}
		return true
	}
	if now.Before(p.next) {
		return false
	}
	if now.Sub(p.grown) > paceQuiet*p.trip && wanted.Swap(false) {
		p.window, p.grown = min(p.window*paceGrowth, paceMost), now
	}
	p.next = now.Add(time.Duration(1.3 * float64(p.trip) / p.window))
	if end := p.last.Add(paceLasts); end.Before(p.next) {
		p.next = end // however slow the refusals were
	}
	return true
}
