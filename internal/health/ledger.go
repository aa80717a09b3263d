package health

import (
	"sync"
	"time"
)

// A LocalLimits counts what is sent against limits that are configured, for a
// service that reports nothing of them: requests and tokens in windows of a
// minute, each opened by the first request after the last.
type LocalLimits struct {
	mu       sync.Mutex
	opened   time.Time
	Requests int64
	Tokens   int64
}

// Rates are limits in requests and tokens a minute; 0 is none.
type Rates struct{ RPM, TPM int64 }

// An Reservation is what one request has reserved.
type Reservation struct {
	opened time.Time // the window; zero when nothing is counted
	Tokens int64
}

const LedgerWindow = time.Minute

// Exhausted tells whether a request of so many tokens would be over a limit. One
// that is more than a whole limit is not, while nothing else is counted.
func (l *LocalLimits) Exhausted(now time.Time, most Rates, tokens int64) bool {
	if most == (Rates{}) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over(now, most, tokens)
}

func (l *LocalLimits) over(now time.Time, most Rates, tokens int64) bool {
	if now.Sub(l.opened) >= LedgerWindow {
		return false
	}
	return most.RPM > 0 && l.Requests >= most.RPM || most.TPM > 0 && l.Tokens > 0 && l.Tokens+tokens > most.TPM
}

// Headroom is the share of the limits that is left.
func (l *LocalLimits) Headroom(now time.Time, most Rates) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.opened) >= LedgerWindow {
		return 1
	}
	return 1 - max(share(l.Requests, most.RPM), share(l.Tokens, most.TPM))
}

// share is how much of a limit is spent.
func share(spent, most int64) float64 {
	if most == 0 {
		return 0
	}
	return float64(spent) / float64(most)
}

// Reserve counts a request that is about to be sent, if there is room for it or
// it is sent all the same.
func (l *LocalLimits) Reserve(now time.Time, most Rates, tokens int64, anyway bool) (e Reservation, ok bool) {
	if most == (Rates{}) {
		return Reservation{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !anyway && l.over(now, most, tokens) {
		return Reservation{}, false
	}
	if now.Sub(l.opened) >= LedgerWindow {
		l.opened, l.Requests, l.Tokens = now, 0, 0
	}
	l.Requests++
	l.Tokens += tokens
	return Reservation{l.opened, tokens}, true
}

// Settle puts what a request cost in the place of what it reserved, as long as
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
	l.Tokens += tokens - e.Tokens
	if !sent {
		l.Requests--
	}
}

// Counted is what the current window has counted.
func (l *LocalLimits) Counted() (requests, tokens int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Requests, l.Tokens
}
