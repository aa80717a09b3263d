package health

import (
	"sync/atomic"
	"time"
)

// A Silence detects whether a deployment still answers. One that accepts requests
// and answers none fails no request by itself: where no timeout is configured
// nothing else would tell. Its zero value has heard nothing and misses nothing.
type Silence struct {
	Awaiting       atomic.Int64 // attempts that are under way without an answer
	left           atomic.Int64 // of those that callers gave up after long, since the last answer
	LastHeard      Timestamp    // when an answer came last, or the first attempt was sent that waits for one
	usual          atomic.Int64 // time to an answer: a mean, in nanoseconds
	quiet          atomic.Bool  // ejected for it
	NextComparison Timestamp    // until when no further request is sent elsewhere to compare
}

// A deployment seems silent once no answer has come for so long, and for so many
// times as long as usual, although at least so many attempts wait for one. It may
// just take long, and so may all others: it is ejected once another one has served
// a request meanwhile. One request is sent elsewhere to find out, after half of that
// time, and the next not before compareAgain.
const (
	silentLeast        = 10 * time.Second
	silentTimes        = 4
	silentMany         = 2
	ComparisonInterval = 30 * time.Second
)

// RequestSent notes that an attempt was sent.
func (s *Silence) RequestSent(now time.Time) {
	if s.quiet.Load() {
		s.Awaiting.Add(1)
		return
	}
	if s.Awaiting.Load() == 0 {
		s.LastHeard.Set(now) // before it counts, as others look without a lock
	}
	if s.Awaiting.Add(1) == 1 {
		s.LastHeard.Set(now)
	}
}

// ResponseReceived notes that an attempt has got an answer, whatever it says.
func (s *Silence) ResponseReceived(now time.Time) {
	s.Awaiting.Add(-1)
	s.LastHeard.Set(now)
	if !s.NextComparison.IsZero() {
		s.NextComparison.Set(time.Time{})
	}
	if s.left.Load() != 0 {
		s.left.Store(0)
	}
}

// ObserveWait is how long an attempt that was served waited for its answer.
func (s *Silence) ObserveWait(d time.Duration) {
	const weight = 16
	if mean := s.usual.Load(); mean != 0 {
		s.usual.Store(mean + (int64(d)-mean)/weight)
	} else {
		s.usual.Store(int64(d))
	}
}

// RequestAbandoned notes that an attempt has ended without an answer, after so long. One
// that its caller leaves early says nothing.
func (s *Silence) RequestAbandoned(callerLeft bool, waited time.Duration) {
	if callerLeft && waited > s.patience() {
		s.left.Add(1)
	}
	s.Awaiting.Add(-1)
}

// patience is how long no answer may come.
func (s *Silence) patience() time.Duration {
	return max(silentLeast, silentTimes*time.Duration(s.usual.Load()))
}

// SeemsSilent reports whether the deployment seems silent and is not yet ejected.
func (s *Silence) SeemsSilent(now time.Time) bool { return s.silentFor(now, s.patience()) }

// MaybeSilent reports whether it may be so before long: then it is time to compare.
func (s *Silence) MaybeSilent(now time.Time) bool { return s.silentFor(now, s.patience()/2) }

func (s *Silence) silentFor(now time.Time, d time.Duration) bool {
	return s.Awaiting.Load()+s.left.Load() >= silentMany && !s.quiet.Load() && s.LastHeard.Age(now) > d
}

// EjectSilent ejects a deployment that is silent. It is false if it is not, or another
// request did it.
func (s *Deployment) EjectSilent(now time.Time) bool {
	if !s.SeemsSilent(now) || s.quiet.Swap(true) {
		return false
	}
	s.Change(func() {
		if !s.Ejection.Active {
			s.Ejection.silence(now, now.Add(-s.LastHeard.Age(now)))
		}
	})
	return true
}

// HeardAgain takes a deployment back in that has answered.
func (s *Deployment) HeardAgain() (changed bool) {
	if !s.quiet.Load() || !s.quiet.Swap(false) {
		return false
	}
	s.Change(func() {
		if s.Ejection.Cause == Silent {
			s.Ejection = Ejection{Probes: s.Ejection.Probes}
		}
	})
	return true
}
