package spillover

import (
	"sync"
	"time"
)

// A ledger counts what is sent against limits that are configured, for a
// service that reports nothing of them: requests and tokens in windows of a
// minute, each opened by the first request after the last.
type ledger struct {
	mu       sync.Mutex
	opened   time.Time
	requests int64
	tokens   int64
}

// Rates are limits in requests and tokens a minute; 0 is none.
type rates struct{ rpm, tpm int64 }

// An entry is what one request has reserved.
type entry struct {
	opened time.Time // the window; zero when nothing is counted
	tokens int64
}

const ledgerWindow = time.Minute

// lacks tells whether a request of so many tokens would be over a limit. One
// that is more than a whole limit is not, while nothing else is counted.
func (l *ledger) lacks(now time.Time, most rates, tokens int64) bool {
	if most == (rates{}) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over(now, most, tokens)
}

func (l *ledger) over(now time.Time, most rates, tokens int64) bool {
	if now.Sub(l.opened) >= ledgerWindow {
		return false
	}
	return most.rpm > 0 && l.requests >= most.rpm || most.tpm > 0 && l.tokens > 0 && l.tokens+tokens > most.tpm
}

// room is the share of the limits that is left.
func (l *ledger) room(now time.Time, most rates) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.opened) >= ledgerWindow {
		return 1
	}
	return 1 - max(share(l.requests, most.rpm), share(l.tokens, most.tpm))
}

// share is how much of a limit is spent.
func share(spent, most int64) float64 {
	if most == 0 {
		return 0
	}
	return float64(spent) / float64(most)
}

// reserve counts a request that is about to be sent, if there is room for it or
// it is sent all the same.
func (l *ledger) reserve(now time.Time, most rates, tokens int64, anyway bool) (e entry, ok bool) {
	if most == (rates{}) {
		return entry{}, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !anyway && l.over(now, most, tokens) {
		return entry{}, false
	}
	if now.Sub(l.opened) >= ledgerWindow {
		l.opened, l.requests, l.tokens = now, 0, 0
	}
	l.requests++
	l.tokens += tokens
	return entry{l.opened, tokens}, true
}

// settle puts what a request cost in the place of what it reserved, as long as
// its window is open. The request itself stays counted if it was sent.
func (l *ledger) settle(e entry, tokens int64, sent bool) {
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
