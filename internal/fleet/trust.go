package fleet

import (
	"slices"
	"sync"
	"time"
)

// Trust is how far the other replicas are believed. A replica whose reports successes
// contradict three times in a row is ignored for a minute, and a minute longer for each
// replica that contradicts it meanwhile, then for twice as long with each repetition. Of
// the successes that other replicas report, one of each counts: a wrong replica cannot
// have others ignored. The zero value believes everybody.
type Trust struct {
	mu       sync.Mutex
	replicas map[string]*replica
}

type replica struct {
	heard      time.Time
	contradict int       // own contradictions in a row
	witnesses  []string  // replicas that have contradicted it as well
	last       time.Time // contradiction
	ignored    int       // how often it was ignored
	suspect    bool      // it was ignored, and nothing has confirmed it since: the next contradiction is enough
	until      time.Time
}

const (
	// maxReplicas limits the replicas that are known. Beyond it, a new one replaces the
	// one that has not been heard for the longest time.
	maxReplicas = 256

	toleratedContradictions = 3
	throttleWitnesses       = 8
	firstIgnored            = time.Minute
	longestIgnored          = time.Hour
	// A row of contradictions ends after this time: every true report ends with a success,
	// and some of these come before the report ends. Who was ignored is known for longer.
	contradictionKept = 5 * time.Minute
	ignoredKept       = 2 * longestIgnored
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
	t.contradicted(now, "", names, toleratedContradictions)
}

// Witness records that a replica says that its success has contradicted another one.
// Rate limits are contradicted often, so more replicas must say so.
func (t *Trust) Witness(now time.Time, from, name string, ejection bool) {
	enough := throttleWitnesses
	if ejection {
		enough = toleratedContradictions
	}
	if from != name {
		t.contradicted(now, from, []string{name}, enough)
	}
}

func (t *Trust) contradicted(now time.Time, from string, names []string, enough int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		r := t.find(name)
		if r.until.After(now) {
			// It said so before it was ignored. The more replicas that concerned, the longer it
			// is ignored, but this is no repetition.
			if until := r.until.Add(firstIgnored); !until.After(now.Add(longestIgnored)) && !slices.Contains(r.witnesses, from) {
				r.witnesses = append(r.witnesses, from)
				r.until = until
			}
			continue
		}
		if now.Sub(r.last) > contradictionKept {
			r.contradict, r.witnesses = 0, nil
		}
		if now.Sub(r.until) > ignoredKept {
			r.ignored, r.suspect = 0, false
		}
		r.last = now
		switch {
		case from == "":
			r.contradict++
		case !slices.Contains(r.witnesses, from):
			r.witnesses = append(r.witnesses, from)
		}
		if !r.suspect && r.contradict+len(r.witnesses) < enough {
			continue
		}
		r.suspect = true
		r.contradict, r.witnesses = 0, nil
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
		r.contradict, r.witnesses, r.suspect = 0, nil, false
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
