package spillover

import (
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// drainedReason is the reason of a drained backend.
const drainedReason = "drained"

// A scope is what may be closed to a request beside the deployment as a whole:
// its operation, its class and, at a backend without its own credential, its caller's
// credential.
type scope struct {
	op         uint16 // see wire.OperationIndex
	background bool   // interactive requests go first
	caller     uint64 // a hash, see callerOf; 0 if no backend gets callers' credentials
	callers    *health.Callers
}

// healths are the states that may close a deployment to a request, the widest
// first.
type healths [5]*health.State

func (s *scope) healths(d *deployment) healths {
	h := healths{&d.backend.State, &d.State, d.Operation(int(s.op))}
	if s.usesCaller(d) {
		h[3], h[4] = s.callers.Find(health.CallerKey{Deployment: &d.Deployment, Caller: s.caller, Part: 0}), s.callers.Find(health.CallerKey{Deployment: &d.Deployment, Caller: s.caller, Part: 1 + int(s.op)})
	}
	return h
}

// usesCaller reports whether the caller's credential is sent to the deployment
// and something may be held against a caller.
func (s *scope) usesCaller(d *deployment) bool {
	return s.caller != 0 && s.callers.Any.Load() && d.backend.usesCallerCredential()
}

// accepts reports whether nothing closes the deployment to the request.
func (s *scope) accepts(d *deployment, now time.Time) bool {
	if !d.Open(now) || !d.backend.Open(now) || d.backend.Stuck(now) || d.backend.drained.Load() {
		return false
	}
	if h := d.Operation(int(s.op)); h != nil && !h.Open(now) {
		return false
	}
	if s.usesCaller(d) {
		for i, h := range s.healths(d) {
			if i >= 3 && h != nil && !h.Open(now) {
				return false
			}
		}
	}
	return true
}

// probeDeferred reports whether the next half-open probe of a deployment waits until
// more requests went elsewhere. The retry of a request is no probe.
func (s *scope) probeDeferred(d *deployment, now time.Time, retry bool) bool {
	deferred := func(h *health.State) bool { return h != nil && (h.ProbeDeferred(now) || retry && h.NeedsProbe()) }
	if deferred(&d.State) || deferred(&d.backend.State) || deferred(d.Operation(int(s.op))) {
		return true
	}
	if s.usesCaller(d) {
		for i, h := range s.healths(d) {
			if i >= 3 && deferred(h) {
				return true
			}
		}
	}
	return false
}

// probeDeferredUntil is until when it waits at most.
func (s *scope) probeDeferredUntil(d *deployment) (until time.Time) {
	for _, h := range s.healths(d) {
		if h != nil {
			until = health.Latest(until, h.ProbeFrom())
		}
	}
	return until
}

// passOver counts a request that goes to another deployment than one whose probe is
// deferred.
func (s *scope) passOver(d *deployment, now time.Time) {
	for _, h := range s.healths(d) {
		if h != nil && h.ProbeDeferred(now) {
			h.PassOver()
		}
	}
}

// connecting reports whether only a pending connection keeps the request away
// from a deployment.
func (s *scope) connecting(d *deployment, now time.Time) bool {
	until, _ := s.closed(d, now)
	return until.IsZero() && d.backend.Stuck(now) && !d.backend.drained.Load()
}

// troubled reports whether anything is held against a deployment, even if that
// does not close it.
func (s *scope) troubled(d *deployment) bool {
	for _, h := range s.healths(d) {
		if h != nil && h.Troubled() {
			return true
		}
	}
	return false
}

// closed reports until when a deployment is closed to the request, and whether the
// service itself said so. The time is zero when it is open.
func (s *scope) closed(d *deployment, now time.Time) (until time.Time, throttled bool) {
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		at, _, word := h.Closed(now)
		throttled = throttled || word && !at.IsZero()
		if at.After(until) {
			until = at
		}
	}
	return until, throttled
}

// onlyLearned reports whether only what was learned from earlier refusals
// closes a deployment, and when the wait that the service asked for ended.
func (s *scope) onlyLearned(d *deployment, now time.Time) (passed time.Time, ok bool) {
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		at, own := h.OnlyLearned(now)
		if !own {
			return time.Time{}, false
		}
		passed = health.Latest(passed, at)
	}
	return passed, true
}

// ejected is the cause of a deployment's ejection if nothing else closes it. Of
// several causes it is the most lasting one.
func (s *scope) ejected(d *deployment, now time.Time) (cause health.Cause, ok bool) {
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		c, ejected, throttled := h.Ejected(now)
		switch {
		case throttled:
			return health.NoFailure, false
		case ejected:
			cause, ok = max(cause, c), true
		}
	}
	return cause, ok
}

// hopeless reports whether waiting does not open the deployment: only a change
// of the configuration does.
func (s *scope) hopeless(d *deployment, now time.Time) bool {
	for _, h := range s.healths(d) {
		if h != nil && h.NeedsChange(now) {
			return true
		}
	}
	return false
}

// reserves reports whether a deployment keeps what it can take for interactive
// requests. It is false for an interactive request.
func (s *scope) reserves(d *deployment, now time.Time) bool {
	if !s.background {
		return false
	}
	for _, h := range s.healths(d) {
		if h != nil && !h.HasSpareSlot(now) {
			return true
		}
	}
	return d.Reserves(now, d.rates)
}

// admits reports whether a deployment is open, and not reserved for more urgent
// requests.
func (s *scope) admits(d *deployment, now time.Time) bool {
	return s.accepts(d, now) && !s.reserves(d, now)
}

// reservedUntil is until when a deployment is reserved; zero if it is not. It is
// uncertain if a report may end that sooner or later.
func (s *scope) reservedUntil(d *deployment, now time.Time) (until time.Time, uncertain bool) {
	if !s.reserves(d, now) {
		return time.Time{}, false
	}
	for _, h := range s.healths(d) {
		if h != nil {
			until = health.Latest(until, h.SpareSlotAt())
		}
	}
	if uncertain = d.Reserves(now, d.rates); uncertain {
		until = health.Latest(until, d.ReservedUntil(now, d.rates))
	}
	if due := d.BackgroundDueAt(now); due.Before(until) {
		until = due
	}
	return until, uncertain
}
