package spillover

import (
	"sync/atomic"
	"time"
)

// A silence watches whether a deployment still answers. One that accepts requests
// and answers none fails no request by itself: where no timeout is configured
// nothing else would tell. Its zero value has heard nothing and misses nothing.
type silence struct {
	awaiting atomic.Int64 // attempts that are under way without an answer
	left     atomic.Int64 // of those that callers gave up after long, since the last answer
	heard    moment       // when an answer came last, or the first attempt was sent that waits for one
	usual    atomic.Int64 // time to an answer: a mean, in nanoseconds
	quiet    atomic.Bool  // ejected for it
	compared moment       // until when no further request is sent elsewhere to compare
}

// A deployment seems silent once no answer has come for so long, and for so many
// times as long as usual, although at least so many attempts wait for one. It may
// just take long, and so may all others: it is ejected once another one has served
// a request meanwhile. One request is sent elsewhere to find out, after half of that
// time, and the next not before compareAgain.
const (
	silentLeast  = 10 * time.Second
	silentTimes  = 4
	silentMany   = 2
	compareAgain = 30 * time.Second
)

// await notes that an attempt was sent.
func (s *silence) await(now time.Time) {
	if s.quiet.Load() {
		s.awaiting.Add(1)
		return
	}
	if s.awaiting.Load() == 0 {
		s.heard.set(now) // before it counts, as others look without a lock
	}
	if s.awaiting.Add(1) == 1 {
		s.heard.set(now)
	}
}

// answered notes that an attempt has got an answer, whatever it says.
func (s *silence) answered(now time.Time) {
	s.awaiting.Add(-1)
	s.heard.set(now)
	if !s.compared.isZero() {
		s.compared.set(time.Time{})
	}
	if s.left.Load() != 0 {
		s.left.Store(0)
	}
}

// took is how long an attempt that was served waited for its answer.
func (s *silence) took(d time.Duration) {
	const weight = 16
	if mean := s.usual.Load(); mean != 0 {
		s.usual.Store(mean + (int64(d)-mean)/weight)
	} else {
		s.usual.Store(int64(d))
	}
}

// gaveUp notes that an attempt has ended without an answer, after so long. One
// that its caller leaves early says nothing.
func (s *silence) gaveUp(callerLeft bool, waited time.Duration) {
	if callerLeft && waited > s.patience() {
		s.left.Add(1)
	}
	s.awaiting.Add(-1)
}

// patience is how long no answer may come.
func (s *silence) patience() time.Duration {
	return max(silentLeast, silentTimes*time.Duration(s.usual.Load()))
}

// overdue reports whether the deployment seems silent and is not yet ejected.
func (s *silence) overdue(now time.Time) bool { return s.silentFor(now, s.patience()) }

// doubtful reports whether it may be so before long: then it is time to compare.
func (s *silence) doubtful(now time.Time) bool { return s.silentFor(now, s.patience()/2) }

func (s *silence) silentFor(now time.Time, d time.Duration) bool {
	return s.awaiting.Load()+s.left.Load() >= silentMany && !s.quiet.Load() && s.heard.age(now) > d
}

// outdone reports whether another deployment of a route has served a request since
// this one was heard last.
func (d *deployment) outdone(r *route, now time.Time) bool {
	silent := d.heard.age(now)
	for other := range r.all {
		if other != d && other.lastServed.age(now) < silent {
			return true
		}
	}
	return false
}

// mute ejects a deployment that is silent. It is false if it is not, or another
// request did it.
func (d *deployment) mute(now time.Time) bool {
	if !d.overdue(now) || d.quiet.Swap(true) {
		return false
	}
	d.change(func() {
		if !d.ejection.trial {
			d.ejection.silence(now, now.Add(-d.heard.age(now)))
		}
	})
	return true
}

// unmute takes a deployment back in that has answered.
func (d *deployment) unmute() (changed bool) {
	if !d.quiet.Load() || !d.quiet.Swap(false) {
		return false
	}
	d.change(func() {
		if d.ejection.cause == silent {
			d.ejection = ejection{probes: d.ejection.probes}
		}
	})
	return true
}
