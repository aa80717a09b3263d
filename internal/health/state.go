package health

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"
)

// State is the health of a deployment, of one of its operations, of a backend, or of
// a caller's credential at a deployment. The mutex guards the throttle, the ejection
// and the last transition. The first fields, which are atomic, repeat the result, so that
// a request to a healthy deployment takes no lock.
type State struct {
	closedUntil  Timestamp
	probeFrom    Timestamp     // until then a due probe waits for other requests, see ProbeDeferred
	needsProbe   atomic.Bool   // ejected until a probe succeeds
	spareFrom    Timestamp     // when the ramp-up has a slot that leaves one
	isTroubled   atomic.Bool   // a throttle, a ramp-up or failures since the last success
	completed    atomic.Uint64 // responses that were read to their end
	mu           sync.Mutex
	throttle     throttle
	ejection     ejection
	lastReported Transition
	Private      bool // about one caller: its transitions are not reported
}

// Open reports whether neither a throttle, nor the ramp-up, nor an ejection closes it.
func (h *State) Open(now time.Time) bool { return h.closedUntil.Passed(now) }

// change applies a change with the mutex held and publishes its result.
func (h *State) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.closedUntil.Set(Latest(h.throttle.closedUntil(), h.ejection.until))
	h.probeFrom.Set(h.ejection.deferredUntil())
	h.needsProbe.Store(h.ejection.active)
	h.spareFrom.Set(h.throttle.rampUp.spareAt())
	h.isTroubled.Store(!h.throttle.calm() || h.ejection.streak > 0)
}

// reopens applies a change and reports whether it opened what was closed.
func (h *State) reopens(now time.Time, f func()) bool {
	closed := !h.closedUntil.Passed(now)
	h.change(f)
	return closed && h.closedUntil.Passed(now)
}

// ProbeDeferred reports whether the next half-open probe waits until more requests went
// elsewhere. It is only for callers who have another deployment: who has none sends the
// probe as soon as it is open.
func (h *State) ProbeDeferred(now time.Time) bool { return !h.probeFrom.Passed(now) }

// NeedsProbe reports whether it was ejected, and no half-open probe has succeeded yet.
func (h *State) NeedsProbe() bool { return h.needsProbe.Load() }

// ProbeFrom returns when ProbeDeferred becomes false at the latest.
func (h *State) ProbeFrom() time.Time { return h.probeFrom.Time() }

// PassOver counts a request that went elsewhere while it was ejected.
func (h *State) PassOver() { h.change(func() { h.ejection.passed++ }) }

// Troubled reports whether there is a throttle, a ramp-up or a failure since the last
// success, even if it does not close it.
func (h *State) Troubled() bool { return h.isTroubled.Load() }

// HasSpareSlot reports whether a request would leave a slot of the ramp-up to the
// next one. It is true without a ramp-up.
func (h *State) HasSpareSlot(now time.Time) bool { return h.spareFrom.Passed(now) }

// SpareSlotAt returns when HasSpareSlot becomes true.
func (h *State) SpareSlotAt() time.Time { return h.spareFrom.Time() }

// Admit takes the place of the next request: the only one while a half-open probe is
// due, or the next one during ramp-up, or one that leaves the next one (spare). A probe
// has a number, which must be given to Release if the request ends without a result.
func (h *State) Admit(now time.Time, spare bool) (ok bool, probe uint64) {
	if !h.Troubled() {
		return true, 0
	}
	h.change(func() {
		if ok = h.throttle.admit(now, spare); ok {
			ok, probe = h.ejection.claim(now)
		}
	})
	return ok, probe
}

// Release gives back the place of a probe that ended without a result. It reports
// whether that opened it.
func (h *State) Release(now time.Time, probe uint64) (opened bool) {
	return h.reopens(now, func() { h.ejection.release(now, probe) })
}

// Refuse records that the service refused a request because of a rate limit. u is
// random, between 0 and 1. It reports whether that was news: of attempts that were in
// flight together only the first refusal is.
func (h *State) Refuse(now time.Time, r Refusal, u float64) (taught bool) {
	h.change(func() { taught = h.throttle.refuse(now, r, u) })
	return taught
}

// Gap is the time between two requests that the ramp-up allows now.
func (h *State) Gap() time.Duration {
	if !h.Troubled() {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.throttle.rampUp.current()
}

// FailedAttempt describes a failure: when the attempt was sent, when the failure was
// seen, and why it failed.
type FailedAttempt struct {
	Sent, Seen time.Time
	Cause      Cause
	Reason     string
	Earlier    int         // failures in a row that other replicas report
	Outdated   func() bool // reports that the configuration that caused it was replaced; may be nil
}

// Undo takes a failure back: it has the ejection before and after the failure.
type Undo struct{ before, after ejection }

// Fail counts a failure and reports whether it did: attempts that were in flight
// together count once. u is random, between 0 and 1.
func (h *State) Fail(now time.Time, f FailedAttempt, u float64) (_ Undo, counted bool) {
	var taken Undo
	h.change(func() {
		if f.Cause.NeedsChange() && f.Outdated != nil && f.Outdated() {
			return
		}
		taken.before = h.ejection
		if earlier := min(f.Earlier, maxDoublings); earlier > h.ejection.streak {
			h.ejection.streak, h.ejection.since = earlier, Latest(h.ejection.since, f.Sent.Add(-1))
		}
		if counted = h.ejection.fail(now, f.Seen, f.Sent, f.Cause, f.Reason, u); !counted {
			h.ejection = taken.before
		}
		taken.after = h.ejection
	})
	return taken, counted
}

// Pardon takes back a failure that the request itself caused. It reports whether that
// opened it.
func (h *State) Pardon(now time.Time, u Undo) (opened bool) {
	return h.reopens(now, func() { h.ejection.pardon(u.before, u.after) })
}

// Failures returns the number of failures in a row, and the reason of the last.
func (h *State) Failures() (inARow int, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ejection.streak, h.ejection.reason
}

// Progress is what was known of an operation before a response began.
type Progress struct {
	failures  int    // failures in a row
	completed uint64 // responses that were read to their end
}

// Progress returns what is known now. A nil State knows nothing.
func (h *State) Progress() (p Progress) {
	if h == nil {
		return p
	}
	p.completed = h.completed.Load()
	if h.Troubled() {
		p.failures, _ = h.Failures()
	}
	return p
}

// ReadToEnd records that a response was read to its end.
func (h *State) ReadToEnd() {
	if h != nil {
		h.completed.Add(1)
	}
}

// FailLate counts a failure of a response whose beginning was counted as a success.
// The failures before it count again, unless another response was read to its end
// in the meantime.
func (h *State) FailLate(now time.Time, f FailedAttempt, before Progress, u float64) {
	h.change(func() {
		if h.ejection.streak < before.failures && h.completed.Load() == before.completed {
			h.ejection.streak, h.ejection.since = before.failures, f.Sent
		}
		h.ejection.fail(now, f.Seen, f.Sent, f.Cause, f.Reason, u)
	})
}

// Succeed records the success of an attempt that was sent at a time. It reports
// whether that opened it. lastResort means that the attempt was sent while only the
// ramp-up or the time added to Retry-After closed the deployment.
func (h *State) Succeed(now, sent time.Time, lastResort bool) (opened bool) {
	return h.reopens(now, func() {
		if lastResort {
			h.throttle.relax()
		}
		h.throttle.clear(sent)
		h.ejection.succeed(sent)
	})
}

// Reached records that a connection was made, whatever the response is.
func (h *State) Reached(sent time.Time) { h.change(func() { h.ejection.succeed(sent) }) }

// Reconfigured forgets failures that a new configuration may have repaired.
func (h *State) Reconfigured() {
	h.change(func() {
		if h.ejection.cause.NeedsChange() {
			h.ejection = ejection{probes: h.ejection.probes}
		}
	})
}

// OnlyLearned reports whether only the ramp-up, or the time added to Retry-After,
// closes it, and when the wait that the service itself asked for ends.
func (h *State) OnlyLearned(now time.Time) (ended time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.throttle.serviceUntil, !h.throttle.serviceUntil.After(now) && !h.ejection.until.After(now)
}

// Closed returns until when it is closed, why, and whether the service itself refuses
// requests (rate limit or quota). The time is zero when it is open.
func (h *State) Closed(now time.Time) (until time.Time, reason string, throttled bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, e := &h.throttle, &h.ejection
	mark := t.closedUntil()
	if e.until.After(now) && !mark.After(e.until) {
		return e.until, e.reason, e.cause == OutOfQuota || mark.After(now)
	}
	if mark.After(now) {
		return mark, cmp.Or(t.reason, "one at a time"), true
	}
	return time.Time{}, "", false
}

// Unavailable returns what Closed does. While a probe is deferred, it returns the end of
// the ejection, which has passed.
func (h *State) Unavailable(now time.Time) (until time.Time, reason string, throttled bool) {
	if until, reason, throttled = h.Closed(now); until.IsZero() && h.ProbeDeferred(now) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.ejection.until, h.ejection.reason, false
	}
	return until, reason, throttled
}

// Ejected returns the cause of the ejection in force, if there is one, and whether it
// is throttled as well.
func (h *State) Ejected(now time.Time) (cause Cause, ejected, throttled bool) {
	if h.closedUntil.Passed(now) {
		return NoFailure, false, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ejection.cause, h.ejection.until.After(now), h.throttle.closedUntil().After(now)
}

// NeedsChange reports whether it is ejected for a cause that only a change of
// configuration or account repairs.
func (h *State) NeedsChange(now time.Time) bool {
	if h.closedUntil.Passed(now) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ejection.until.After(now) && h.ejection.cause.NeedsChange()
}
