package spillover

import (
	"context"
	"slices"
	"sync"
)

// A Fleet carries notices between the replicas of a program, so that each learns
// within milliseconds what another one was told by a service: that a deployment is
// rate-limited, fails or has recovered, and how much of a PTU is used. See
// [Config.Fleet]. Package github.com/spillover-go/spillover/fleet/redis has one for
// Redis and Valkey; a [LocalFleet] connects the Transports of one process.
//
// A notice is a short text of at most 256 bytes, without a key, a host or a name. It may
// be lost, late or repeated: that costs a few refused attempts. docs/fleet.md has its
// format, for engines that keep notices for Recall.
type Fleet interface {
	// Publish sends a notice to the other replicas. It must not block, and may drop the
	// notice. It must not keep the slice.
	Publish(notice []byte)
	// Subscribe calls f with each notice that is published, those of its own process
	// included or not, until cancel is called. f does not block and does not keep the
	// slice.
	Subscribe(f func(notice []byte)) (cancel func())
	// Recall returns notices that still hold, of the places that the keys name, for a
	// replica that joins later. It may return none. It is called off the request path.
	Recall(ctx context.Context, keys []string) ([][]byte, error)
}

// A LocalFleet connects the Transports of one process, and those of a test. The zero
// value is ready for use. It keeps nothing for Recall.
type LocalFleet struct {
	mu          sync.RWMutex
	subscribers []*func([]byte)
}

// Publish calls each subscriber, one after the other, before it returns.
func (l *LocalFleet) Publish(notice []byte) {
	l.mu.RLock()
	subscribers := l.subscribers
	l.mu.RUnlock()
	for _, f := range subscribers {
		(*f)(notice)
	}
}

// Subscribe implements [Fleet].
func (l *LocalFleet) Subscribe(f func(notice []byte)) (cancel func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribers = append(slices.Clone(l.subscribers), &f)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.subscribers = slices.DeleteFunc(slices.Clone(l.subscribers), func(other *func([]byte)) bool { return other == &f })
	}
}

// Recall returns nothing.
func (l *LocalFleet) Recall(context.Context, []string) ([][]byte, error) { return nil, nil }
