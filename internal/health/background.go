package health

import (
	"math"
	"sync/atomic"
	"time"
)

// background is what a deployment may take of background requests, which use the
// capacity that interactive requests leave.
//
// A PTU admits them by its reports of utilization. With share = 1 - utilization /
// backgroundBelow, the response to a background request grants a credit of
//
//	creditMost * share^creditExponent
//
// requests, and any other response the square of share^creditExponent. So however many
// wait, a report admits at most creditMost of them: their rate at most doubles with
// each round trip, settles well below backgroundBelow, and a single report stops it.
// There are many other responses where there is much interactive traffic: a few of a
// low utilization are enough to begin with.
type background struct {
	last   Timestamp    // when a request was admitted
	credit atomic.Int64 // in thousandths of a request
}

const (
	// backgroundBelow is the utilization in thousandths from which on a PTU is kept
	// for interactive requests.
	backgroundBelow = 500
	creditExponent  = 2
	creditMost      = 2 // requests
	// creditFor is how long a report grants its credit. Later, if it was of less than
	// a fifth of backgroundBelow or no longer counts, one request at a time is admitted, and
	// one in creditFor: it brings the next report, unless its response has none.
	creditFor = time.Second

	// reservedMost is how long a deployment is taken to be reserved if nothing says when
	// that ends. It is as long as a report of utilization counts.
	reservedMost = utilizationFresh

	// backgroundReserve is the share of a token limit that is kept for interactive
	// requests.
	backgroundReserve = 0.2
	// backgroundEvery is the minimum rate of background requests: so long after the
	// last one the next is admitted as if it were interactive.
	backgroundEvery = 30 * time.Second
)

// oneRequest is the credit that one request costs.
const oneRequest = 1000

// CreditBackground adds the credit of a utilization that was reported now, in a
// response to a background request or to another one.
func (s *Deployment) CreditBackground(now time.Time, background bool) {
	if s.UtilizationAt.Age(now) <= 0 {
		s.background.report(s.Utilization.Load(), background)
	}
}

// report adds the credit of a reported utilization.
func (b *background) report(utilization int64, own bool) {
	share := 1 - float64(utilization)/backgroundBelow
	if share <= 0 {
		b.credit.Store(0)
		return
	}
	granted := math.Pow(min(share, 1), creditExponent)
	if own {
		granted *= creditMost
	} else {
		granted *= granted
	}
	for {
		credit := b.credit.Load()
		if b.credit.CompareAndSwap(credit, min(credit+int64(oneRequest*granted), creditMost*oneRequest)) {
			return
		}
	}
}

// take takes the credit of one request, and reports whether there was enough.
func (b *background) take() bool {
	for {
		credit := b.credit.Load()
		if credit < oneRequest {
			return false
		}
		if b.credit.CompareAndSwap(credit, credit-oneRequest) {
			return true
		}
	}
}

// Reserves reports whether the deployment keeps its capacity for interactive
// requests, by what it reports and by what is counted against configured limits.
func (s *Deployment) Reserves(now time.Time, most Rates) bool {
	return !s.SpilledUntil.Passed(now) || !s.utilizationReservesUntil(now).IsZero() || s.limitsReserve(now, most)
}

// ReservedUntil is until when Reserves is likely to hold if nothing is reported
// meanwhile. That is at most reservedMost from now, and exactly that where nothing says it.
func (s *Deployment) ReservedUntil(now time.Time, most Rates) time.Time {
	if !s.SpilledUntil.Passed(now) || s.limitsReserve(now, most) {
		return now.Add(reservedMost)
	}
	return s.utilizationReservesUntil(now)
}

// limitsReserve is Reserves for limits, reported or configured.
func (s *Deployment) limitsReserve(now time.Time, most Rates) bool {
	if remaining, limit := s.remainingNow(now); limit > 0 && float64(remaining) < backgroundReserve*float64(limit) {
		return true
	}
	return most != (Rates{}) && s.LocalLimits.Headroom(now, most) < backgroundReserve
}

// utilizationReservesUntil is until when a PTU is reserved that reports its
// utilization; zero if it is not.
func (s *Deployment) utilizationReservesUntil(now time.Time) time.Time {
	if s.UtilizationAt.IsZero() {
		return time.Time{}
	}
	age := s.UtilizationAt.Age(now)
	if age <= creditFor && s.background.credit.Load() >= oneRequest {
		return time.Time{}
	}
	if age <= utilizationFresh && s.Utilization.Load() >= backgroundBelow/5 {
		return now.Add(utilizationFresh - age)
	}
	if age <= creditFor {
		return now.Add(creditFor - age)
	}
	if s.Unanswered() > 0 {
		return now.Add(creditFor)
	}
	if last := s.background.last.Age(now); last < creditFor { // see TakeBackground
		return now.Add(creditFor - last)
	}
	return time.Time{}
}

// TakeBackground takes the place of a background request, and reports whether there
// was one. At a reserved deployment that is the place of the minimum rate.
func (s *Deployment) TakeBackground(now time.Time, reserved bool) bool {
	b := &s.background
	switch {
	case reserved:
		return b.last.Claim(now, backgroundEvery)
	case s.UtilizationAt.IsZero():
	case s.UtilizationAt.Age(now) > creditFor:
		return b.last.Claim(now, creditFor)
	case !b.take():
		return false
	}
	b.last.Set(now)
	return true
}

// BackgroundDue reports whether a background request is due by the minimum rate.
func (s *Deployment) BackgroundDue(now time.Time) bool {
	return s.background.last.Age(now) >= backgroundEvery
}

// BackgroundDueAt returns when a background request is due by the minimum rate.
func (s *Deployment) BackgroundDueAt(now time.Time) time.Time {
	return now.Add(max(0, backgroundEvery-s.background.last.Age(now)))
}
