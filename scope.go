package spillover

import (
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// A scope is what a request may find closed at a deployment beside the
// deployment as a whole: the operation that it asks for, and, at a backend
// without a credential of its own, what its own credential is good for.
type scope struct {
	op      int    // see operationIndex
	caller  uint64 // 0 where no backend is sent the callers' own credentials
	callers *health.Callers
}

// healths is all that may close a deployment to a request, the widest first.
type healths [5]*health.State

func (s *scope) healths(d *deployment) healths {
	h := healths{&d.backend.State, &d.State, d.Operation(s.op)}
	if s.asks(d) {
		h[3], h[4] = s.callers.Find(health.CallerKey{Deployment: &d.Deployment, Caller: s.caller, Part: 0}), s.callers.Find(health.CallerKey{Deployment: &d.Deployment, Caller: s.caller, Part: 1 + s.op})
	}
	return h
}

// asks reports whether the caller's own credential is sent to a deployment, and
// something may be held against one.
func (s *scope) asks(d *deployment) bool {
	return s.caller != 0 && s.callers.Any.Load() && d.backend.usesCallerCredential()
}

// accepts tells whether nothing is known against sending the request there.
func (s *scope) accepts(d *deployment, now time.Time) bool {
	if !d.Open(now) || !d.backend.Open(now) || d.backend.Stuck(now) || d.backend.drained.Load() {
		return false
	}
	if h := d.Operation(s.op); h != nil && !h.Open(now) {
		return false
	}
	if s.asks(d) {
		for i, h := range s.healths(d) {
			if i >= 3 && h != nil && !h.Open(now) {
				return false
			}
		}
	}
	return true
}

// connecting tells whether nothing speaks against a deployment but a connection
// that has been pending for long.
func (s *scope) connecting(d *deployment, now time.Time) bool {
	until, _ := s.closed(d, now)
	return until.IsZero() && d.backend.Stuck(now) && !d.backend.drained.Load()
}

// troubled tells whether anything is held against a deployment, even if that
// does not close it.
func (s *scope) troubled(d *deployment) bool {
	for _, h := range s.healths(d) {
		if h != nil && h.Troubled() {
			return true
		}
	}
	return false
}

// closed returns until when a deployment is closed to the request (the zero time
// if it is open), and whether a rate limit of the service is one of the reasons.
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

// wordPassed is when the last word of the service's own passed, of a deployment
// that nothing but what was learnt from it closes.
func (s *scope) wordPassed(d *deployment, now time.Time) (passed time.Time, ok bool) {
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		at, own := h.OnlyLearned(now)
		if !own {
			return time.Time{}, false
		}
		passed = health.Later(passed, at)
	}
	return passed, true
}

// ejected is what a deployment is ejected for that is closed by nothing else; of
// several causes the last to need a look.
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

// hopeless tells that waiting does not end what closes a deployment.
func (s *scope) hopeless(d *deployment, now time.Time) bool {
	for _, h := range s.healths(d) {
		if h != nil && h.NeedsChange(now) {
			return true
		}
	}
	return false
}
