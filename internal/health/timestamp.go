package health

import (
	"cmp"
	"math"
	"sync/atomic"
	"time"
)

// clockStart is what timestamps count from, on the monotonic clock. The clock of a
// test may be before it.
var clockStart = time.Now()

// Timestamp is a time that is read without a lock. The zero value is in the past.
type Timestamp struct{ ns atomic.Int64 }

// Set stores a time; the zero time makes it zero.
func (m *Timestamp) Set(t time.Time) {
	if t.IsZero() {
		m.ns.Store(0)
		return
	}
	m.ns.Store(cmp.Or(int64(t.Sub(clockStart)), 1))
}

// SetIfZero stores a time unless there is one.
func (m *Timestamp) SetIfZero(t time.Time) {
	m.ns.CompareAndSwap(0, cmp.Or(int64(t.Sub(clockStart)), 1))
}

// IsZero reports whether there is no time.
func (m *Timestamp) IsZero() bool { return m.ns.Load() == 0 }

// Passed reports whether the time is not after now.
func (m *Timestamp) Passed(now time.Time) bool {
	ns := m.ns.Load()
	return ns == 0 || int64(now.Sub(clockStart)) >= ns
}

// Age returns how long ago the time was; the maximum for the zero value.
func (m *Timestamp) Age(now time.Time) time.Duration {
	ns := m.ns.Load()
	if ns == 0 {
		return math.MaxInt64
	}
	return now.Sub(clockStart) - time.Duration(ns)
}

// Claim sets the time to now if it is at least so long ago, and reports whether it did.
// Of several callers at a time one succeeds.
func (m *Timestamp) Claim(now time.Time, after time.Duration) bool {
	ns := m.ns.Load()
	if ns != 0 && now.Sub(clockStart)-time.Duration(ns) < after {
		return false
	}
	return m.ns.CompareAndSwap(ns, cmp.Or(int64(now.Sub(clockStart)), 1))
}

// Time returns the time; the zero time for the zero value.
func (m *Timestamp) Time() time.Time {
	if ns := m.ns.Load(); ns != 0 {
		return clockStart.Add(time.Duration(ns))
	}
	return time.Time{}
}

// Latest returns the later of two times.
func Latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
