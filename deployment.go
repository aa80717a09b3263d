package spillover

import (
	"cmp"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// start is what moments count from, on the monotonic clock. A clock that is not
// the process's own, such as a test's, may be before it.
var start = time.Now()

// A moment is a time that is read without a lock. The zero value has passed.
type moment struct{ ns atomic.Int64 }

func (m *moment) set(t time.Time) {
	if t.IsZero() {
		m.ns.Store(0)
		return
	}
	m.ns.Store(cmp.Or(int64(t.Sub(start)), 1))
}

// setIfZero sets a time unless there is one.
func (m *moment) setIfZero(t time.Time) { m.ns.CompareAndSwap(0, cmp.Or(int64(t.Sub(start)), 1)) }

func (m *moment) isZero() bool { return m.ns.Load() == 0 }

func (m *moment) passed(now time.Time) bool {
	ns := m.ns.Load()
	return ns == 0 || int64(now.Sub(start)) >= ns
}

// age is how long ago the time was; the longest for the zero value.
func (m *moment) age(now time.Time) time.Duration {
	ns := m.ns.Load()
	if ns == 0 {
		return math.MaxInt64
	}
	return now.Sub(start) - time.Duration(ns)
}

// A health is what is known of a deployment, or of a whole backend. Its mutex
// guards it; the two atomics repeat its verdict so that a request that all is
// well with takes no lock.
type health struct {
	closedUntil moment
	troubled    atomic.Bool // something is held against it since the last success
	wanted      atomic.Bool // a request was turned away
	mu          sync.Mutex
	throttle    throttle
	ejection    ejection
	told        notice
}

// open tells whether nothing that is known speaks against asking. It takes note
// of being asked in vain.
func (h *health) open(now time.Time) bool {
	if h.closedUntil.passed(now) {
		return true
	}
	if !h.wanted.Load() {
		h.wanted.Store(true)
	}
	return false
}

// change applies a change of what is known.
func (h *health) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.closedUntil.set(later(h.throttle.closedUntil(), h.ejection.until))
	h.troubled.Store(!h.throttle.calm() || h.ejection.streak > 0)
}

// admit takes the one place there is where a probe is due, or the next one
// where requests are let back in one by one. probe tells that it is a probe's,
// which must be given back if nothing is learnt.
func (h *health) admit(now time.Time) (ok, probe bool) {
	if !h.troubled.Load() {
		return true, false
	}
	h.change(func() {
		ok = h.throttle.take(now, &h.wanted) && h.ejection.claim(now)
		probe = ok && h.ejection.trial
	})
	return ok, probe
}

func (h *health) release(now time.Time) {
	h.change(func() { h.ejection.release(now) })
}

// amend forgets a failure that was a matter of the configuration.
func (h *health) amend() {
	h.change(func() {
		if h.ejection.cause.needsChange() {
			h.ejection = ejection{}
		}
	})
}

// closed tells until when and why, and whether the service itself said so; the
// zero time when open.
func (h *health) closed(now time.Time) (until time.Time, reason string, throttled bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, e := &h.throttle, &h.ejection
	mark := t.closedUntil()
	if e.until.After(now) && !mark.After(e.until) {
		return e.until, e.reason, e.cause == outOfQuota || mark.After(now)
	}
	if mark.After(now) {
		return mark, cmp.Or(t.reason, "one at a time"), true
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
	*state
	backend  *backend
	tier     *tier
	share    atomic.Int64 // its size among those of its tier
	sized    atomic.Int64 // the limit that was told when that was worked out
	model    string       // what callers ask for; "" for requests that name none
	name     string       // what the backend calls it; "" where that is what the caller said
	rates    rates        // that are configured
	identity atomic.Pointer[identity]
}

// A state is what is known of a deployment. It outlives the configuration.
type state struct {
	// What choosing reads comes first, within a cache line: there may be
	// thousands.
	inFlight atomic.Int64
	ceiling  atomic.Int64 // of inFlight, while it grows after an ejection; 0 when there is none
	pressed  moment       // until when it counts as full, as Azure spilled one of its requests
	health

	gauge
	latencies
	ledger                    ledger
	served, throttled, failed atomic.Uint64
	input, output             atomic.Int64 // tokens, as answers told
}

// A link is what is known of the connection to a backend, which all its
// deployments share. It outlives the configuration.
type link struct {
	health
	answered   moment // when an answer came last
	connecting moment // when a connection that is pending has been so for too long; zero when none is
	drained    atomic.Bool
	latest     atomic.Pointer[backend] // the backend as it is configured
}

// stuck tells that a connection has been pending for long.
func (l *link) stuck(now time.Time) bool {
	return !l.connecting.isZero() && l.connecting.passed(now)
}

// pressureLasts is how long a spilled answer speaks of a full PTU.
const pressureLasts = 10 * time.Second

// available tells whether the deployment may be chosen.
func (d *deployment) available(now time.Time) bool {
	return d.accepts(now) && d.below()
}

// accepts tells whether nothing is known against the deployment or its backend.
func (d *deployment) accepts(now time.Time) bool {
	return d.open(now) && d.backend.open(now) && !d.backend.stuck(now) && !d.backend.drained.Load()
}

// below tells whether there is room under the ceiling.
func (d *deployment) below() bool {
	c := d.ceiling.Load()
	return c == 0 || d.inFlight.Load() < c
}

// measure reads what an answer tells of the deployment's limits, see gauge.read.
func (d *deployment) measure(now, sent time.Time, tokens int64, h http.Header) {
	d.gauge.read(now, sent, tokens, h)
	if d.limit.Load() != d.sized.Load() {
		d.tier.resize()
	}
}

// recover is what a success says. After an ejection traffic returns gradually:
// the room doubles with each success.
func (d *deployment) recover(now, sent time.Time) {
	const first, enough = 2, 32
	if !d.troubled.Load() && d.ceiling.Load() == 0 {
		return
	}
	back := false
	d.change(func() {
		out := d.ejection.trial
		d.throttle.lift(sent)
		d.ejection.succeed(sent)
		back = out && !d.ejection.trial
	})
	switch c := d.ceiling.Load(); {
	case back:
		d.ceiling.Store(first)
	case c >= enough:
		d.ceiling.Store(0)
	case c > 0:
		d.ceiling.Store(2 * c)
	}
}

// streak is how many failures in a row are counted.
func (d *deployment) streak() int {
	if !d.troubled.Load() {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ejection.streak
}

// hopeless tells that waiting does not mend why the deployment is closed.
func (d *deployment) hopeless(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ejection.until.After(now) && d.ejection.cause.needsChange()
}

// closed is health.closed for the deployment and its backend together.
func (d *deployment) closed(now time.Time) (until time.Time, reason string, throttled bool) {
	until, reason, throttled = d.health.closed(now)
	if whole, why, _ := d.backend.health.closed(now); whole.After(until) {
		return whole, why, throttled
	}
	return until, reason, throttled
}
