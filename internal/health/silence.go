package health

import (
	"sync/atomic"
	"time"
)

// Silence watches whether a deployment still answers. A deployment that accepts
// requests and answers none of them fails no request: without a configured timeout
// nothing else would notice. The zero value has seen no request.
type Silence struct {
	awaiting       atomic.Int64 // attempts in flight without a response
	abandoned      atomic.Int64 // attempts that callers left after waiting long, since the last response
	LastHeard      Timestamp    // when a response last arrived, or the first attempt was sent that waits for one
	meanWait       atomic.Int64 // time to a response: a mean (EWMA), in nanoseconds
	isEjected      atomic.Bool  // ejected as silent
	NextComparison Timestamp    // until when no further request is sent elsewhere to compare
}

// A deployment seems silent once no response has arrived for minSilence and for
// silenceFactor times the mean time to one, although at least minUnanswered attempts
// wait. All deployments may be slow, so it is ejected only once another one has served
// a request in that time. To find out, one request is sent elsewhere after half of that
// time, and the next one ComparisonInterval later.
const (
	minSilence         = 10 * time.Second
	silenceFactor      = 4
	minUnanswered      = 2
	ComparisonInterval = 30 * time.Second

	waitWeight = 16 // a new wait counts 1/waitWeight in the mean
)

// Unanswered returns the number of attempts in flight without a response.
func (s *Silence) Unanswered() int64 { return s.awaiting.Load() }

// RequestSent records that an attempt was sent.
func (s *Silence) RequestSent(now time.Time) {
	if s.isEjected.Load() {
		s.awaiting.Add(1)
		return
	}
	if s.awaiting.Load() == 0 {
		s.LastHeard.Set(now) // before it counts, because others read without a lock
	}
	if s.awaiting.Add(1) == 1 {
		s.LastHeard.Set(now)
	}
}

// ResponseReceived records that an attempt got a response, whatever it is.
func (s *Silence) ResponseReceived(now time.Time) {
	s.awaiting.Add(-1)
	s.LastHeard.Set(now)
	if !s.NextComparison.IsZero() {
		s.NextComparison.Set(time.Time{})
	}
	if s.abandoned.Load() != 0 {
		s.abandoned.Store(0)
	}
}

// ObserveWait records how long an attempt that was served waited for its response.
func (s *Silence) ObserveWait(d time.Duration) {
	if mean := s.meanWait.Load(); mean != 0 {
		s.meanWait.Store(mean + (int64(d)-mean)/waitWeight)
	} else {
		s.meanWait.Store(int64(d))
	}
}

// RequestAbandoned records that an attempt has ended without a response after waiting.
// An attempt that its caller leaves early shows nothing.
func (s *Silence) RequestAbandoned(callerLeft bool, waited time.Duration) {
	if callerLeft && s.Overdue(waited) {
		s.abandoned.Add(1)
	}
	s.awaiting.Add(-1)
}

// patience returns for how long no response may arrive.
func (s *Silence) patience() time.Duration {
	return max(minSilence, silenceFactor*time.Duration(s.meanWait.Load()))
}

// Overdue reports whether an attempt has waited for longer than a response may take.
func (s *Silence) Overdue(waited time.Duration) bool { return waited > s.patience() }

// SeemsSilent reports whether the deployment seems silent and is not yet ejected.
func (s *Silence) SeemsSilent(now time.Time) bool { return s.silentFor(now, s.patience()) }

// MaybeSilent reports whether half of the time for SeemsSilent has passed: then a
// request is sent elsewhere to compare.
func (s *Silence) MaybeSilent(now time.Time) bool { return s.silentFor(now, s.patience()/2) }

func (s *Silence) silentFor(now time.Time, d time.Duration) bool {
	return s.Unanswered()+s.abandoned.Load() >= minUnanswered && !s.isEjected.Load() && s.LastHeard.Age(now) > d
}

// EjectSilent ejects a deployment that seems silent. It returns false if it does not
// seem silent or is ejected already.
func (s *Deployment) EjectSilent(now time.Time) bool {
	if !s.SeemsSilent(now) || s.isEjected.Swap(true) {
		return false
	}
	s.change(func() {
		if !s.ejection.active {
			s.ejection.ejectSilent(now, now.Add(-s.LastHeard.Age(now)))
		}
	})
	return true
}

// HeardAgain ends the ejection of a silent deployment that has answered. It reports
// whether there was one.
func (s *Deployment) HeardAgain() (changed bool) {
	if !s.isEjected.Load() || !s.isEjected.Swap(false) {
		return false
	}
	s.change(func() {
		if s.ejection.cause == Silent {
			s.ejection = ejection{probes: s.ejection.probes}
		}
	})
	return true
}
