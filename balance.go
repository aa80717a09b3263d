package spillover

import (
	"math/bits"
	"slices"
	"time"
)

// A Candidate is a deployment that may be chosen, as a [Selector] sees it.
type Candidate struct {
	Backend    string // the backend's name
	Model      string // what the caller asked for
	Deployment string // what the backend calls it
	Priority   int
	Weight     int
	InFlight   int // requests of this process that are under way there
}

// A Selector chooses among the deployments of one tier that are available and
// were not tried by the request yet. It returns an index of candidates; with
// another value it leaves the choice to the transport. It is called only when
// there are two or more, by many goroutines at once, and must not keep the
// slice.
type Selector interface {
	Select(candidates []Candidate) int
}

// choose is an available deployment that was not tried, or nil.
func (t *tier) choose(now time.Time, tried []*deployment, s Selector, random func() uint64) *deployment {
	if s != nil {
		return t.choosePlugged(now, tried, s, random)
	}
	return t.chooseTwo(now, tried, random)
}

// chooseTwo draws two different candidates by weight and takes the less loaded.
// Two choices halve the imbalance of one; the best of all would herd, since
// what a process knows of a deployment is always a little old.
func (t *tier) chooseTwo(now time.Time, tried []*deployment, random func() uint64) *deployment {
	first := t.draw(now, tried, nil, random)
	if first == nil || len(t.members) == 1 {
		return first
	}
	if second := t.draw(now, tried, first, random); second != nil && lessLoaded(now, second, first) {
		return second
	}
	return first
}

// lessLoaded compares first whether Azure said that one is full, then the
// requests in flight by weight. Of equals the one that was drawn first is
// taken, so that shares follow the weights when idle.
func lessLoaded(now time.Time, a, b *deployment) bool {
	if full := !b.pressed.passed(now); full == a.pressed.passed(now) {
		return full
	}
	return a.inFlight.Load()*int64(b.backend.weight) < b.inFlight.Load()*int64(a.backend.weight)
}

// draws is how often draw guesses before it looks at every member: with half
// of a tier closed one guess in 256 comes that far.
const draws = 8

// draw picks one of the candidates other than but, with a probability in
// proportion to weight. Guessing and looking again is as fair as looking at
// every member, and does not slow down with their number.
func (t *tier) draw(now time.Time, tried []*deployment, but *deployment, random func() uint64) *deployment {
	candidate := func(d *deployment) bool {
		return d != but && d.available(now) && !slices.Contains(tried, d)
	}
	for range draws {
		if d := t.members[t.index(random())]; candidate(d) {
			return d
		}
	}
	var sum uint64
	for _, d := range t.members {
		if candidate(d) {
			sum += uint64(d.backend.weight)
		}
	}
	if sum == 0 {
		return nil
	}
	// What is known may change between the two looks. While there is a
	// candidate one is drawn all the same: the tier must not seem empty.
	at := below(random(), sum)
	var last *deployment
	for _, d := range t.members {
		if candidate(d) {
			last = d
			if at < uint64(d.backend.weight) {
				break
			}
			at -= uint64(d.backend.weight)
		}
	}
	return last
}

// index turns a random number into that of a member, in proportion to weight.
func (t *tier) index(r uint64) int {
	if t.bounds == nil {
		return int(below(r, uint64(len(t.members))))
	}
	at := int32(below(r, uint64(t.bounds[len(t.bounds)-1])))
	i, _ := slices.BinarySearch(t.bounds, at+1)
	return i
}

// below maps a random number to 0 ≤ n < limit.
func below(r, limit uint64) uint64 {
	n, _ := bits.Mul64(r, limit)
	return n
}

// choosePlugged lets a Selector choose.
func (t *tier) choosePlugged(now time.Time, tried []*deployment, s Selector, random func() uint64) *deployment {
	var open []*deployment
	var candidates []Candidate
	for _, d := range t.members {
		if d.available(now) && !slices.Contains(tried, d) {
			open = append(open, d)
			candidates = append(candidates, Candidate{
				Backend: d.backend.name, Model: d.model, Deployment: d.name, Priority: t.priority,
				Weight: d.backend.weight, InFlight: int(d.inFlight.Load()),
			})
		}
	}
	switch len(open) {
	case 0:
		return nil
	case 1:
		return open[0]
	}
	if i := s.Select(candidates); i >= 0 && i < len(open) {
		return open[i]
	}
	return t.chooseTwo(now, tried, random)
}
