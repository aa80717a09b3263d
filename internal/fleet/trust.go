package fleet

import (
	"sync"
	"time"
)

// Trust is how far the other replicas are believed. A replica whose reports an own
// success contradicts three times in a row is ignored for a minute, then for twice as
// long with each repetition. The zero value believes everybody.
type Trust struct {
	mu       sync.Mutex
	replicas map[string]*replica
}

type replica struct {
	heard      time.Time
	contradict int // in a row
	ignored    int // how often it was ignored
	until      time.Time
}

const (
	// maxReplicas limits the replicas that are known. Beyond it, new ones replace those
	// that were heard last.
	maxReplicas = 256

	toleratedContradictions = 3
	firstIgnored            = time.Minute
	longestIgnored          = time.Hour
)

// Hears records that a replica was heard, and reports whether it is believed.
func (t *Trust) Hears(now time.Time, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.find(name)
	r.heard = now
	return !r.until.After(now)
}

// find returns what is known of a replica.
func (t *Trust) find(name string) *replica {
	if r := t.replicas[name]; r != nil {
		return r
	}
	if t.replicas == nil {
		t.replicas = map[string]*replica{}
	}
	if len(t.replicas) >= maxReplicas {
		oldest := ""
		for other, r := range t.replicas {
			if oldest == "" || r.heard.Before(t.replicas[oldest].heard) {
				oldest = other
			}
		}
		delete(t.replicas, oldest)
	}
	r := new(replica)
	t.replicas[name] = r
	return r
}

// Contradicted records that an own success has contradicted reports of replicas.
func (t *Trust) Contradicted(now time.Time, names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		r := t.find(name)
		if r.contradict++; r.contradict < toleratedContradictions {
			continue
		}
		r.contradict = 0
		r.until = now.Add(min(firstIgnored<<min(r.ignored, 10), longestIgnored))
		r.ignored++
	}
}

// Confirmed records that the service has confirmed reports of replicas.
func (t *Trust) Confirmed(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		r := t.find(name)
		r.contradict = 0
	}
}

// A Known replica is one that was heard.
type Known struct {
	Name    string
	Heard   time.Time
	Ignored bool
}

// Known returns the replicas that were heard lately, in no order.
func (t *Trust) Known(now time.Time, lately time.Duration) (all []Known) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, r := range t.replicas {
		if now.Sub(r.heard) <= lately {
			all = append(all, Known{name, r.heard, r.until.After(now)})
		}
	}
	return all
}
