package spillover

import (
	"sync"
	"sync/atomic"
)

// A notifier wakes waiting requests when a deployment becomes available. It
// does nothing while nobody waits.
type notifier struct {
	waiting atomic.Int64
	mu      sync.Mutex
	ch      chan struct{} // closed by the next notify; nil without a subscriber
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
