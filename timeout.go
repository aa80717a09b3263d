package spillover

import (
	"sync"
	"time"
)

// A timeLimit ends an attempt that takes too long. It is set and lifted with
// each read of a stream: so its timer is left to run, and looks when it fires
// whether there is still a limit.
type timeLimit struct {
	mu    sync.Mutex
	timer *time.Timer
	fires time.Time // when the timer does; zero when it does not
	until time.Time // zero: there is no limit
	cause error     // of the end that it makes
	over  bool      // it made that end
}

// limit ends the attempt after a time, unless relax is called before; 0 does not.
func (a *attempt) startTimeout(d time.Duration, cause error) (now time.Time) {
	if d <= 0 {
		return time.Time{}
	}
	l := &a.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	now = time.Now()
	l.until, l.cause = now.Add(d), cause
	switch {
	case l.timer == nil:
		l.timer = time.AfterFunc(d, a.expire)
	case l.fires.IsZero() || l.fires.After(l.until):
		l.timer.Reset(d)
	default:
		return now // it fires before, and looks
	}
	l.fires = l.until
	return now
}

// stop spares a timer whose attempt has ended its turn.
func (l *timeLimit) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (a *attempt) expire() {
	l := &a.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fires = (time.Time{}); l.until.IsZero() || a.ended.Load() {
		return
	}
	if left := time.Until(l.until); left > 0 {
		l.timer.Reset(left)
		l.fires = l.until
		return
	}
	l.over = true
	a.cancel(l.cause)
}

// relax ends a limit. It is false when that was too late.
func (a *attempt) stopTimeout() bool {
	a.limits.mu.Lock()
	defer a.limits.mu.Unlock()
	a.limits.until = time.Time{}
	return !a.limits.over
}
