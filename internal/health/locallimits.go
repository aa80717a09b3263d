package health

import (
	"sync"
	"time"
)

// LocalLimits counts requests and tokens against configured limits, for a service that
// does not report its own, in windows of a minute. The first request after the end of
// a window opens the next one.
type LocalLimits struct {
	mu       sync.Mutex
	opened   time.Time
	requests int64
	tokens   int64
}

// Rates are limits in requests and tokens a minute; 0 means no limit.
type Rates struct{ RPM, TPM int64 }

// Reservation is what one request has reserved.
type Reservation struct {
	opened time.Time // the window; zero when nothing is counted
	tokens int64
}

// limitWindow is the period of the configured limits.
const limitWindow = time.Minute

// Exhausted reports whether a request of so many tokens would exceed a limit. A
// request that is larger than the whole limit does not while nothing else is counted.
func (l *LocalLimits) Exhausted(now time.Time, most Rates, tokens int64) bool {
	if most == (Rates{}) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exceeded(now, most, tokens)
}

// exceeded is Exhausted with the mutex held.
func (l *LocalLimits) exceeded(now time.Time, most Rates, tokens int64) bool {
	if now.Sub(l.opened) >= limitWindow {
		return false
	}
	return most.RPM > 0 && l.requests >= most.RPM || most.TPM > 0 && l.tokens > 0 && l.tokens+tokens > most.TPM
}

// Headroom returns the share of the limits that is left.
func (l *LocalLimits) Headroom(now time.Time, most Rates) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.opened) >= limitWindow {
		return 1
	}
	return 1 - max(share(l.requests, most.RPM), share(l.tokens, most.TPM))
}

// share returns how much of a limit is spent.
func share(spent, most int64) float64 {
	if most == 0 {
		return 0
	}
	return float64(spent) / float64(most)
}

// Reserve counts a request that is about to be sent. Unless anyway is set, it refuses
// a request that would exceed a limit.
func (l *LocalLimits) Reserve(now time.Time, most Rates, tokens int64, anyway bool) (e Reservation, ok bool) {
	if most == (Rates{}) {
		return Reservation{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !anyway && l.exceeded(now, most, tokens) {
		return Reservation{}, false
	}
	if now.Sub(l.opened) >= limitWindow {
		l.opened, l.requests, l.tokens = now, 0, 0
	}
	l.requests++
	l.tokens += tokens
	return Reservation{l.opened, tokens}, true
}

// Settle replaces the tokens that a request reserved by those that it cost, as long as
// its window is open. The request itself stays counted if it was sent.
func (l *LocalLimits) Settle(e Reservation, tokens int64, sent bool) {
	if e.opened.IsZero() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.opened.Equal(e.opened) {
		return
	}
	l.tokens += tokens - e.tokens
	if !sent {
		l.requests--
	}
}

// Counted returns what the current window has counted.
func (l *LocalLimits) Counted() (requests, tokens int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests, l.tokens
}
