package health

import (
	"cmp"
	"math"
	"sync/atomic"
	"time"
)

// Start is what moments count from, on the monotonic clock. A clock that is not
// the process's own, such as a test's, may be before it.
var Start = time.Now()

// A Timestamp is a time that is read without a lock. The zero value has passed.
type Timestamp struct{ ns atomic.Int64 }

func (m *Timestamp) Set(t time.Time) {
	if t.IsZero() {
		m.ns.Store(0)
		return
	}
	m.ns.Store(cmp.Or(int64(t.Sub(Start)), 1))
}

// SetIfZero sets a time unless there is one.
func (m *Timestamp) SetIfZero(t time.Time) { m.ns.CompareAndSwap(0, cmp.Or(int64(t.Sub(Start)), 1)) }

func (m *Timestamp) IsZero() bool { return m.ns.Load() == 0 }

func (m *Timestamp) Passed(now time.Time) bool {
	ns := m.ns.Load()
	return ns == 0 || int64(now.Sub(Start)) >= ns
}

// Age is how long ago the time was; the longest for the zero value.
func (m *Timestamp) Age(now time.Time) time.Duration {
	ns := m.ns.Load()
	if ns == 0 {
		return math.MaxInt64
	}
	return now.Sub(Start) - time.Duration(ns)
}

func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
