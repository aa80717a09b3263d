package spillover

import (
	"context"
	"sync"
	"time"
)

// A timeout cancels an attempt that takes too long. It is started and stopped
// with each read of a stream, so its timer is left running: when it fires it looks
// whether there is still a deadline.
type timeout struct {
	cancel context.CancelCauseFunc // of the attempt; set before the first start

	mu       sync.Mutex
	timer    *time.Timer
	fires    time.Time // when the timer fires; zero if it does not run
	deadline time.Time // zero: there is none
	cause    error     // what the attempt is canceled with
	expired  bool
	closed   bool
}

// start cancels the attempt after d, unless stop comes first. It returns the time
// of the start; with d <= 0 there is no timeout and the time is zero.
func (t *timeout) start(d time.Duration, cause error) (now time.Time) {
	if d <= 0 {
		return time.Time{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now = time.Now()
	t.deadline, t.cause = now.Add(d), cause
	switch {
	case t.timer == nil:
		t.timer = time.AfterFunc(d, t.fire)
	case t.fires.IsZero() || t.fires.After(t.deadline):
		t.timer.Reset(d)
	default:
		return now // it fires earlier, and looks again
	}
	t.fires = t.deadline
	return now
}

// stop ends the timeout. It reports whether it was in time.
func (t *timeout) stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deadline = time.Time{}
	return !t.expired
}

// close stops the timer of an attempt that has ended.
func (t *timeout) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *timeout) fire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fires = (time.Time{}); t.deadline.IsZero() || t.closed {
		return
	}
	if left := time.Until(t.deadline); left > 0 {
		t.timer.Reset(left)
		t.fires = t.deadline
		return
	}
	t.expired = true
	t.cancel(t.cause)
}
