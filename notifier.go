package spillover

import (
	"sync"
	"sync/atomic"
)

// A notifier wakes those who wait whenever something becomes available. Nothing
// is done while nobody waits.
type notifier struct {
	waiting atomic.Int64
	mu      sync.Mutex
	ch      chan struct{} // closed at the next notice; nil while nobody has asked for it
}

func (n *notifier) subscribe() <-chan struct{} {
	n.waiting.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notifier) unsubscribe() { n.waiting.Add(-1) }

func (n *notifier) notify() {
	if n.waiting.Load() == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
