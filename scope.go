package spillover

import (
	"container/list"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A scope is what a request may find closed at a deployment beside the
// deployment as a whole: the operation that it asks for, and, at a backend
// without a credential of its own, what its own credential is good for.
type scope struct {
	op      int    // see operationIndex
	caller  uint64 // 0 where no backend is sent the callers' own credentials
	callers *callers
}

// An operationHealth is what is held against single operations of a deployment:
// a region without the Responses API answers 404 there and everything else as
// usual, and a role may allow one operation alone.
type operationHealth [wire.MaxOperations]atomic.Pointer[health]

// ofOperation is what is held against an operation; nil when nothing is.
func (s *state) ofOperation(index int) *health {
	if all := s.byOp.Load(); all != nil {
		return all[index].Load()
	}
	return nil
}

// holdOperation is the same to be changed.
func (s *state) holdOperation(index int) *health {
	all := s.byOp.Load()
	if all == nil {
		s.byOp.CompareAndSwap(nil, new(operationHealth))
		all = s.byOp.Load()
	}
	if all[index].Load() == nil {
		all[index].CompareAndSwap(nil, new(health))
	}
	return all[index].Load()
}

// operations is all that is held against single operations.
func (s *state) operations(yield func(index int, h *health) bool) {
	if all := s.byOp.Load(); all != nil {
		for i := range all {
			if h := all[i].Load(); h != nil && !yield(i, h) {
				return
			}
		}
	}
}

// healths is all that may close a deployment to a request, the widest first.
type healths [5]*health

func (s *scope) healths(d *deployment) healths {
	h := healths{&d.backend.health, &d.health, d.ofOperation(s.op)}
	if s.asks(d) {
		h[3], h[4] = s.callers.find(callerKey{d.state, s.caller, 0}), s.callers.find(callerKey{d.state, s.caller, 1 + s.op})
	}
	return h
}

// asks reports whether the caller's own credential is sent to a deployment, and
// something may be held against one.
func (s *scope) asks(d *deployment) bool {
	return s.caller != 0 && s.callers.any.Load() && d.backend.anonymous()
}

// accepts tells whether nothing is known against sending the request there.
func (s *scope) accepts(d *deployment, now time.Time) bool {
	if !d.open(now) || !d.backend.open(now) || d.backend.stuck(now) || d.backend.drained.Load() {
		return false
	}
	if h := d.ofOperation(s.op); h != nil && !h.open(now) {
		return false
	}
	if s.asks(d) {
		for i, h := range s.healths(d) {
			if i >= 3 && h != nil && !h.open(now) {
				return false
			}
		}
	}
	return true
}

// connecting tells whether nothing speaks against a deployment but a connection
// that has been pending for long.
func (s *scope) connecting(d *deployment, now time.Time) bool {
	until, _, _ := s.closed(d, now)
	return until.IsZero() && d.backend.stuck(now) && !d.backend.drained.Load()
}

// troubled tells whether anything is held against a deployment, even if that
// does not close it.
func (s *scope) troubled(d *deployment) bool {
	for _, h := range s.healths(d) {
		if h != nil && h.troubled.Load() {
			return true
		}
	}
	return false
}

// closed tells until when and why a deployment is closed to the request, and
// whether the service itself said so; the zero time when open.
func (s *scope) closed(d *deployment, now time.Time) (until time.Time, reason string, throttled bool) {
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		at, why, word := h.closed(now)
		throttled = throttled || word && !at.IsZero()
		if at.After(until) {
			until, reason = at, why
		}
	}
	return until, reason, throttled
}

// wordPassed is when the last word of the service's own passed, of a deployment
// that nothing but what was learnt from it closes.
func (s *scope) wordPassed(d *deployment, now time.Time) (passed time.Time, ok bool) {
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		at, own := h.wordPassed(now)
		if !own {
			return time.Time{}, false
		}
		passed = later(passed, at)
	}
	return passed, true
}

// ejected is what a deployment is ejected for that is closed by nothing else; of
// several causes the last to need a look.
func (s *scope) ejected(d *deployment, now time.Time) (cause failure, ok bool) {
	for _, h := range s.healths(d) {
		if h == nil || h.closedUntil.passed(now) {
			continue
		}
		h.mu.Lock()
		e, word := h.ejection, h.throttle.closedUntil()
		h.mu.Unlock()
		if word.After(now) {
			return noFailure, false
		}
		if e.until.After(now) {
			cause, ok = max(cause, e.cause), true
		}
	}
	return cause, ok
}

// hopeless tells that waiting does not end what closes a deployment.
func (s *scope) hopeless(d *deployment, now time.Time) bool {
	for _, h := range s.healths(d) {
		if h != nil && !h.closedUntil.passed(now) && h.hopeless(now) {
			return true
		}
	}
	return false
}

func (h *health) hopeless(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ejection.until.After(now) && h.ejection.cause.needsChange()
}

// Callers is what is held against credentials of callers, at backends that have
// none of their own: one caller's bad key or spent quota is no concern of the
// others. It is bounded; what was not looked at for longest is forgotten first.
type callers struct {
	any    atomic.Bool // whether there was ever one
	mu     sync.Mutex
	byKey  map[callerKey]*list.Element
	recent list.List // of callerHealth, the one that was looked at last in front
}

const maxCallers = 1000

// A callerKey is a caller at a deployment: what is throttled (0), or one
// operation (1 and its index).
type callerKey struct {
	state  *state
	caller uint64
	part   int
}

type callerHealth struct {
	key    callerKey
	health *health
}

func (c *callers) find(key callerKey) *health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look(key)
}

// look is find with the lock held.
func (c *callers) look(key callerKey) *health {
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(callerHealth).health
}

// hold is find for what is to be changed.
func (c *callers) hold(key callerKey) *health {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.look(key); h != nil {
		return h
	}
	c.any.Store(true)
	if c.byKey == nil {
		c.byKey = map[callerKey]*list.Element{}
	}
	h := &health{private: true}
	c.byKey[key] = c.recent.PushFront(callerHealth{key, h})
	if len(c.byKey) > maxCallers {
		oldest := c.recent.Back()
		delete(c.byKey, oldest.Value.(callerHealth).key)
		c.recent.Remove(oldest)
	}
	return h
}

var callerSeed = maphash.MakeSeed()

// noCredential is the caller of those without a credential.
const noCredential = 1

// callerOf tells callers apart by their credentials, which it does not keep.
func callerOf(r *http.Request) uint64 {
	var h maphash.Hash
	any := false
	h.SetSeed(callerSeed)
	for _, name := range [...]string{keyHeader, authHeader} {
		for n, values := range r.Header {
			if strings.EqualFold(n, name) {
				for _, v := range values {
					_, _ = h.WriteString(v)
					any = true
				}
			}
		}
		_ = h.WriteByte(0)
	}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, value, _ := strings.Cut(part, "="); strings.EqualFold(name, keyHeader) {
			_, _ = h.WriteString(value)
			any = true
		}
	}
	if !any {
		return noCredential
	}
	return max(noCredential+1, h.Sum64())
}
