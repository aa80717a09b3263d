package health

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"
)

// A State is what is known of a deployment, of one operation of it, or of a
// whole backend. Its mutex guards it; the two atomics repeat its verdict so that
// a request to something healthy takes no lock.
type State struct {
	closedUntil  Timestamp
	isTroubled   atomic.Bool   // something is held against it since the last success
	ended        atomic.Uint64 // answers that were read to their end
	Mu           sync.Mutex
	Throttle     Throttle
	Ejection     Ejection
	lastReported Transition
	Private      bool // about one caller only: its transitions are not recorded
}

// Open tells whether nothing that is known speaks against asking.
func (h *State) Open(now time.Time) bool { return h.closedUntil.Passed(now) }

// Change applies a change and publishes its result.
func (h *State) Change(f func()) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	f()
	h.closedUntil.Set(Later(h.Throttle.closedUntil(), h.Ejection.Until))
	h.isTroubled.Store(!h.Throttle.calm() || h.Ejection.Streak > 0)
}

// opens applies a change and reports whether it opened what was closed.
func (h *State) opens(now time.Time, f func()) bool {
	closed := !h.closedUntil.Passed(now)
	h.Change(f)
	return closed && h.closedUntil.Passed(now)
}

// Troubled reports whether anything is held against it, even if that does not
// close it.
func (h *State) Troubled() bool { return h.isTroubled.Load() }

// Admit takes the place of the next request: the only one while a probe is due,
// or the next one during ramp-up. A probe has a number, which must be released if
// the request shows nothing.
func (h *State) Admit(now time.Time) (ok bool, probe uint64) {
	if !h.Troubled() {
		return true, 0
	}
	h.Change(func() {
		if ok = h.Throttle.Admit(now); ok {
			ok, probe = h.Ejection.Claim(now)
		}
	})
	return ok, probe
}

// Release gives the place of a probe back. It reports whether that opened
// anything.
func (h *State) Release(now time.Time, probe uint64) (opened bool) {
	return h.opens(now, func() { h.Ejection.Release(now, probe) })
}

// Refuse records that the service refused a request for its rate limit. u is
// random, between 0 and 1.
func (h *State) Refuse(now time.Time, r Refusal, u float64) {
	h.Change(func() { h.Throttle.Refuse(now, r, u) })
}

// A FailedAttempt is what a failure is counted by.
type FailedAttempt struct {
	Sent, Seen time.Time
	Cause      Cause
	Reason     string
	Outdated   func() bool // reports that the configuration it depends on was replaced; may be nil
}

// An Undo takes a failure back: it has the ejection before and after it.
type Undo struct{ before, after Ejection }

// Fail counts a failure and reports whether it did: requests that were in flight
// together count once. u is random, between 0 and 1.
func (h *State) Fail(now time.Time, f FailedAttempt, u float64) (_ Undo, counted bool) {
	var taken Undo
	h.Change(func() {
		if f.Cause.NeedsChange() && f.Outdated != nil && f.Outdated() {
			return
		}
		taken.before = h.Ejection
		counted = h.Ejection.Fail(now, f.Seen, f.Sent, f.Cause, f.Reason, u)
		taken.after = h.Ejection
	})
	return taken, counted
}

// Pardon takes a failure back that the request itself has caused. It reports
// whether that opened anything.
func (h *State) Pardon(now time.Time, u Undo) (opened bool) {
	return h.opens(now, func() { h.Ejection.Pardon(u.before, u.after) })
}

// A Progress is what was known of an operation before an answer began.
type Progress struct {
	streak int    // failures in a row
	ended  uint64 // answers that were read to their end
}

// Progress is what is known now.
func (h *State) Progress() (p Progress) {
	if h == nil {
		return p
	}
	p.ended = h.ended.Load()
	if h.Troubled() {
		h.Mu.Lock()
		defer h.Mu.Unlock()
		p.streak = h.Ejection.Streak
	}
	return p
}

// ReadToEnd records that an answer was read to its end.
func (h *State) ReadToEnd() {
	if h != nil {
		h.ended.Add(1)
	}
}

// FailLate counts a failure of an answer that had begun well. That it began well
// was no success after all: the failures before it still count, unless another
// answer has been read to its end meanwhile.
func (h *State) FailLate(now time.Time, f FailedAttempt, before Progress, u float64) {
	h.Change(func() {
		if h.Ejection.Streak < before.streak && h.ended.Load() == before.ended {
			h.Ejection.Streak, h.Ejection.Since = before.streak, f.Sent
		}
		h.Ejection.Fail(now, f.Seen, f.Sent, f.Cause, f.Reason, u)
	})
}

// Succeed records a success of an attempt that was sent at a time. It reports
// whether that opened anything. lastResort tells that it was sent although only
// what was learned from refusals closed the deployment.
func (h *State) Succeed(now, sent time.Time, lastResort bool) (opened bool) {
	return h.opens(now, func() {
		if lastResort {
			h.Throttle.Relax()
		}
		h.Throttle.Clear(sent)
		h.Ejection.Succeed(sent)
	})
}

// Reached records that a connection was made, whatever the answer says.
func (h *State) Reached(sent time.Time) { h.Change(func() { h.Ejection.Succeed(sent) }) }

// Reconfigured forgets a failure that a new configuration may have repaired.
func (h *State) Reconfigured() {
	h.Change(func() {
		if h.Ejection.Cause.NeedsChange() {
			h.Ejection = Ejection{Probes: h.Ejection.Probes}
		}
	})
}

// OnlyLearned reports whether nothing but what was learned from earlier refusals
// closes it, and when the wait that the service asked for ended.
func (h *State) OnlyLearned(now time.Time) (ended time.Time, ok bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.Throttle.ServiceUntil, !h.Throttle.ServiceUntil.After(now) && !h.Ejection.Until.After(now)
}

// Closed reports until when it is closed and why, and whether the service itself
// said so; the zero time when it is open.
func (h *State) Closed(now time.Time) (until time.Time, reason string, throttled bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	t, e := &h.Throttle, &h.Ejection
	mark := t.closedUntil()
	if e.Until.After(now) && !mark.After(e.Until) {
		return e.Until, e.Reason, e.Cause == OutOfQuota || mark.After(now)
	}
	if mark.After(now) {
		return mark, cmp.Or(t.Reason, "one at a time"), true
	}
	return time.Time{}, "", false
}

// Ejected is the cause of an ejection in force, if there is one, and whether it
// is throttled as well.
func (h *State) Ejected(now time.Time) (cause Cause, ejected, throttled bool) {
	if h.closedUntil.Passed(now) {
		return NoFailure, false, false
	}
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.Ejection.Cause, h.Ejection.Until.After(now), h.Throttle.closedUntil().After(now)
}

// NeedsChange reports whether it is ejected until the configuration changes.
func (h *State) NeedsChange(now time.Time) bool {
	if h.closedUntil.Passed(now) {
		return false
	}
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.Ejection.Until.After(now) && h.Ejection.Cause.NeedsChange()
}
