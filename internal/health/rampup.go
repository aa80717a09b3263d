package health

import (
	"math"
	"time"
)

// rampUp lets requests in one by one after a throttle (slow start). Without it, all
// requests that waited for the end of a cool-down would be sent at once and refused
// at once.
//
// The gap between two requests grows by a factor with each refusal and shrinks with
// each request that is let in:
//
//	gap(n) = gap * exp(-gapGrowth * (n/recoveryRequests)^3)
//
// where n is the number of requests let in since the last refusal. It shrinks slowly
// at first, and faster the longer there is no refusal. Where requests are refused
// because they come too fast, it settles at one refusal per recoveryRequests. Where
// they are refused by chance, whatever the gap, long runs without a refusal shrink it.
type rampUp struct {
	gap          time.Duration // between two requests, right after the last refusal; 0 when there is no ramp-up
	admitted     int           // requests let in since then
	lastAdmitted time.Time     // when the last of them was
	next         time.Time     // when the next one may be sent

	interval  time.Duration // from when a request may be sent until one is, on average: how fast requests arrive
	roundTrip time.Duration // of a refusal, on average
	wait      time.Duration // that a refusal asks for (Retry-After), on average
}

const (
	// gapGrowth is the exponent of the growth: a refusal lengthens the gap by a factor
	// of e^gapGrowth, and recoveryRequests without a refusal undo that. baseRecovery is
	// the smallest number of these requests: if more than about one in baseRecovery is
	// refused by chance, the gap grows to its limit.
	gapGrowth    = 0.2
	baseRecovery = 4.8
	// recoveryPerTrip and maxWaitRecovery raise the number where refusals are hardly a
	// matter of chance: where a refusal is known only some requests later (the round
	// trip is longer than the gap), or where Retry-After is longer than the gap.
	recoveryPerTrip = 5
	maxWaitRecovery = 2
	// The first gap is the larger of minGapOfTrip round trips, minGapOfInterval
	// intervals and minGap; the longest is maxGapOfInterval intervals, at least
	// maxGapFloor, at most maxGap. An interval is the mean time that a request takes
	// to arrive once it may be sent. maxTrip is the most of a round trip that counts.
	minGapOfTrip     = 0.5
	minGapOfInterval = 0.3
	maxGapOfInterval = 16
	maxGapFloor      = 2 * time.Second
	maxTrip          = 100 * time.Millisecond
	minGap           = time.Millisecond // a shorter gap ends the ramp-up
	maxGap           = 30 * time.Second

	// An idle time counts as at most minIdleCounted or idleFactor intervals: an idle
	// hour says nothing about how fast requests arrive. 1/meanWeight is the weight of
	// a new value in the means.
	minIdleCounted = time.Second
	idleFactor     = 4
	meanWeight     = 8
)

// active reports whether requests are let in one by one.
func (p *rampUp) active() bool { return p.gap > 0 }

// recoveryRequests is the number of requests after which the gap is as long as it was
// before the last refusal.
func (p *rampUp) recoveryRequests() float64 {
	apart := float64(p.gap + p.interval)
	return baseRecovery * max(1, recoveryPerTrip*float64(p.roundTrip)/apart, min(1+2*float64(max(0, p.wait-p.roundTrip))/apart, maxWaitRecovery))
}

// current returns the gap as it is now.
func (p *rampUp) current() time.Duration {
	if !p.active() {
		return 0
	}
	n := float64(p.admitted) / p.recoveryRequests()
	return time.Duration(float64(p.gap) * math.Exp(-gapGrowth*n*n*n))
}

// refused lengthens the gap; the next request may be sent at a time. How long a
// service takes to refuse says little about the network, so at most maxTrip counts.
func (p *rampUp) refused(until time.Time, trip, hint time.Duration) {
	gap := time.Duration(math.Exp(gapGrowth) * float64(p.current()))
	p.roundTrip, p.wait = mean(p.roundTrip, min(trip, maxTrip)), mean(p.wait, hint)
	least := max(fraction(minGapOfTrip, p.roundTrip), fraction(minGapOfInterval, p.interval), minGap)
	p.gap = min(max(gap, least), max(maxGapFloor, maxGapOfInterval*p.interval), maxGap)
	p.admitted, p.next = 0, until
}

// admit asks for the place of the next request.
func (p *rampUp) admit(now time.Time) bool {
	if !p.active() {
		return true
	}
	if now.Before(p.next) {
		return false
	}
	idle := now.Sub(Latest(p.lastAdmitted, p.next))
	p.interval = mean(p.interval, min(idle, max(minIdleCounted, idleFactor*p.interval)))
	p.lastAdmitted = now
	p.admitted++
	gap := p.current()
	if gap < minGap {
		p.gap, p.next = 0, time.Time{}
		return true
	}
	p.next = Latest(p.next, now).Add(gap)
	return true
}

// spareAt returns when a slot has been free for so long that one more is left.
func (p *rampUp) spareAt() time.Time {
	if !p.active() {
		return p.next
	}
	return p.next.Add(p.current())
}

// admitSpare asks for a place that leaves one for the next request.
func (p *rampUp) admitSpare(now time.Time) bool {
	if !p.active() {
		return true
	}
	if now.Before(p.spareAt()) {
		return false
	}
	p.admitted++
	p.lastAdmitted, p.next = now, now // the place that is left
	if p.current() < minGap {
		p.gap, p.next = 0, time.Time{}
	}
	return true
}

// mean is an exponentially weighted moving average (EWMA); the first value is the first
// mean.
func mean(before, value time.Duration) time.Duration {
	if before == 0 {
		return value
	}
	return before + (value-before)/meanWeight
}

// fraction returns a share of a duration.
func fraction(share float64, d time.Duration) time.Duration { return time.Duration(share * float64(d)) }
