package spillover

import (
	"cmp"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/objects"
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

// A health is what is known of a deployment, of one operation of it, or of a
// whole backend. Its mutex guards it; the two atomics repeat its verdict so that
// a request to something healthy takes no lock.
type health struct {
	closedUntil moment
	troubled    atomic.Bool   // something is held against it since the last success
	ended       atomic.Uint64 // answers that were read to their end
	mu          sync.Mutex
	throttle    throttle
	ejection    ejection
	told        notice
	private     bool // it is about one caller: not told
}

// open tells whether nothing that is known speaks against asking.
func (h *health) open(now time.Time) bool { return h.closedUntil.passed(now) }

// change applies a change of what is known.
func (h *health) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.closedUntil.set(later(h.throttle.closedUntil(), h.ejection.until))
	h.troubled.Store(!h.throttle.calm() || h.ejection.streak > 0)
}

// admit takes the one place there is where a probe is due, or the next one
// where requests are let back in one by one. The probe's number, if it is one,
// must be given back if nothing is learnt.
func (h *health) admit(now time.Time) (ok bool, probe uint64) {
	if !h.troubled.Load() {
		return true, 0
	}
	h.change(func() {
		if ok = h.throttle.take(now); ok {
			ok, probe = h.ejection.claim(now)
		}
	})
	return ok, probe
}

// release gives the place of a probe back, and reports whether that opened it.
func (h *health) release(now time.Time, probe uint64) bool {
	return h.opens(now, func() { h.ejection.release(now, probe) })
}

// opens applies a change and reports whether it opened what was closed.
func (h *health) opens(now time.Time, f func()) bool {
	closed := !h.closedUntil.passed(now)
	h.change(f)
	return closed && h.closedUntil.passed(now)
}

// amend forgets a failure that was a matter of the configuration.
func (h *health) amend() {
	h.change(func() {
		if h.ejection.cause.needsChange() {
			h.ejection = ejection{probes: h.ejection.probes}
		}
	})
}

// wordPassed is when the service's own word passed, where nothing but what was
// learnt closes it. It is not ok where something else does.
func (h *health) wordPassed(now time.Time) (passed time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.throttle.word, !h.throttle.word.After(now) && !h.ejection.until.After(now)
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
	doubts   atomic.Int64 // failures that no other deployment's answer confirms yet
	pressed  moment       // until when it counts as full, as Azure spilled one of its requests
	health
	silence
	lastServed moment                          // when it served a request last
	byOp       atomic.Pointer[operationHealth] // nil while every operation is healthy
	done       atomic.Uint64                   // operations that it served, by their bits

	gauge
	latencies
	ledger                    ledger
	served, throttled, failed atomic.Uint64
	input, output             atomic.Int64            // tokens, as answers told
	failure                   atomic.Pointer[Failure] // the last one
}

// A link is what is known of the connection to a backend, which all its
// deployments share. It outlives the configuration.
type link struct {
	health
	answered   moment       // when an answer came last
	connecting moment       // when a connection that is pending has been so for too long; zero when none is
	lostProbes atomic.Int32 // in a row, to the time that they have to connect
	drained    atomic.Bool
	home       *objects.Resource       // that the backend is an entry of
	failure    atomic.Pointer[Failure] // the last one of any of its deployments
	latest     atomic.Pointer[backend] // the backend as it is configured
}

// stuck tells that a connection has been pending for long.
func (l *link) stuck(now time.Time) bool {
	return !l.connecting.isZero() && l.connecting.passed(now)
}

// pressureLasts is how long a spilled answer speaks of a full PTU.
const pressureLasts = 10 * time.Second

// measure reads what an answer tells of the deployment's limits, see gauge.read.
func (d *deployment) measure(now, sent time.Time, tokens int64, h http.Header) {
	d.gauge.read(now, sent, tokens, h)
	if d.limit.Load() != d.sized.Load() {
		d.tier.resize()
	}
}

// closed tells until when and why a deployment is closed to everybody: as a
// whole, or for every operation that it was asked for.
func (d *deployment) closed(now time.Time) (until time.Time, reason string, throttled bool) {
	for _, h := range [...]*health{&d.health, &d.backend.health} {
		at, why, word := h.closed(now)
		throttled = throttled || word && !at.IsZero()
		if at.After(until) {
			until, reason = at, why
		}
	}
	if !until.IsZero() {
		return until, reason, throttled
	}
	var closed uint64
	for i, h := range d.operations {
		if at, why, _ := h.closed(now); !at.IsZero() {
			if closed |= 1 << i; until.IsZero() || at.Before(until) {
				until, reason = at, why
			}
		}
	}
	if d.done.Load()&^closed != 0 {
		return time.Time{}, "", false
	}
	return until, reason, false
}

// serve notes that an operation was served.
func (s *state) serve(op int) {
	if bit := uint64(1) << op; s.done.Load()&bit == 0 {
		s.done.Or(bit)
	}
}

// recover is what a success says to all that may have spoken against it. It
// reports whether it opened anything.
func (c *call) recover(a *attempt, now time.Time, resp *http.Response) {
	d := a.d
	opened := false
	for _, h := range c.scope.healths(d) {
		if h == nil || !h.troubled.Load() {
			continue
		}
		opened = h.opens(now, func() {
			if a.resort {
				h.throttle.relent()
			}
			h.throttle.lift(a.sent)
			h.ejection.succeed(a.sent)
		}) || opened
		c.tell(h, d, now, wellBy(resp))
	}
	if opened {
		c.transport.opened.notify()
	}
}

// A record of an operation is how many failures in a row count against it, and
// how many answers were read to their end.
type record struct {
	streak int
	ended  uint64
}

func (c *call) record(d *deployment) (r record) {
	if h := d.ofOperation(c.scope.op); h != nil {
		r.ended = h.ended.Load()
		if h.troubled.Load() {
			h.mu.Lock()
			defer h.mu.Unlock()
			r.streak = h.ejection.streak
		}
	}
	return r
}

// readWhole notes that an answer was read to its end.
func (s *sending) readWhole() {
	s.fate.Store(endedWhole)
	if h := s.d.ofOperation(s.call.scope.op); h != nil {
		h.ended.Add(1)
	}
}
