package spillover

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"
)

// A health is what is known of a deployment, or of a whole backend. Its mutex
// guards it; gate repeats its verdict so that choosing takes no lock.
type health struct {
	gate     atomic.Int64 // closed until, in nanoseconds after start; 0 when nothing is known
	mu       sync.Mutex
	throttle throttle
	ejection ejection
}

// start is what gates count from, on the monotonic clock. A clock that is not
// the process's own, such as a test's, may be before it.
var start = time.Now()

// open tells whether nothing that is known speaks against asking.
func (h *health) open(now time.Time) bool {
	until := h.gate.Load()
	return until == 0 || int64(now.Sub(start)) >= until
}

// untroubled tells that nothing has been held against it since the last success.
func (h *health) untroubled() bool { return h.gate.Load() == 0 }

// change applies a change of what is known.
func (h *health) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	until := later(h.throttle.until, h.ejection.until)
	if until.IsZero() {
		h.gate.Store(0)
		return
	}
	h.gate.Store(cmp.Or(int64(until.Sub(start)), 1))
}

// admit takes the one place there is where a probe is due. probe tells that it
// did, and that the place must be given back if nothing is learnt.
func (h *health) admit(now time.Time) (ok, probe bool) {
	if h.untroubled() {
		return true, false
	}
	h.change(func() {
		ok = h.ejection.claim(now)
		probe = ok && h.ejection.trial
	})
	return ok, probe
}

func (h *health) release(now time.Time) {
	h.change(func() { h.ejection.release(now) })
}

// closed tells until when and why, and whether the service itself said so; the
// zero time when open.
func (h *health) closed(now time.Time) (until time.Time, reason string, throttled bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, e := &h.throttle, &h.ejection
	if e.until.After(now) && !t.until.After(e.until) {
		return e.until, e.reason, e.cause == outOfQuota || t.until.After(now)
	}
	if t.until.After(now) {
		return t.until, t.reason, true
	}
	return time.Time{}, "", false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A deployment is one (backend, model) pair: the unit that is chosen,
// throttled and measured.
type deployment struct {
	health
	backend  *backend
	model    string // what callers ask for; "" for requests that name none
	name     string // what the backend calls it; "" where that is what the caller said
	inFlight atomic.Int64

	served, throttled, failed atomic.Uint64
}

// available tells whether the deployment may be chosen.
func (d *deployment) available(now time.Time) bool {
	return d.open(now) && d.backend.open(now)
}

// hopeless tells that waiting does not mend why the deployment is closed.
func (d *deployment) hopeless(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := &d.ejection
	return e.until.After(now) && (e.cause == outOfQuota || e.cause == misconfigured)
}

// closed is health.closed for the deployment and its backend together.
func (d *deployment) closed(now time.Time) (until time.Time, reason string, throttled bool) {
	until, reason, throttled = d.health.closed(now)
	if whole, why, _ := d.backend.health.closed(now); whole.After(until) {
		return whole, why, throttled
	}
	return until, reason, throttled
}
