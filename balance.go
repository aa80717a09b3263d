package spillover

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A query is what a choice is made for.
type selection struct {
	scope
	now      time.Time
	tried    []*deployment // to which the request was sent already
	tokens   int64         // an estimate of what the request costs
	affinity affinity      // the session it is of
	selector Selector
	random   func() uint64

	attemptsLeft  int           // attempts that are left after a failure; 0 before one
	silent        []*deployment // passed over as they seem silent
	includeSilent bool          // pass over none for that

	spillRoll      float64 // between 0 and 1: whether a PTU that is nearly full passes the request on
	ignoreHeadroom bool    // ask also those that are thought to have no room

	healthyOnly bool // ask only those that nothing is held against
}

// takes tells whether a deployment is a candidate.
func (q *selection) candidate(d *deployment) bool {
	if !q.includeSilent && d.MaybeSilent(q.now) {
		if !slices.Contains(q.silent, d) {
			q.silent = append(q.silent, d)
		}
		return false
	}
	return q.accepts(d, q.now) && !slices.Contains(q.tried, d) && !(q.healthyOnly && q.troubled(d)) &&
		(q.ignoreHeadroom || !d.PassesOn(q.now, q.spillRoll) && !d.LacksHeadroom(q.now, q.tokens) && !d.Ledger.Exhausted(q.now, d.rates, q.tokens))
}

// choose is an available deployment that was not tried, or nil.
func (t *tier) choose(q *selection) *deployment {
	q.healthyOnly = t.retryBudgetSpent(q)
	if q.affinity != 0 && len(t.members) > 1 {
		if d := t.chooseByAffinity(q); d != nil {
			return d
		}
	}
	if q.selector != nil {
		return t.chooseBySelector(q)
	}
	return t.chooseOfTwo(q)
}

// chooseTwo draws two different candidates by size and takes the better. Two
// choices halve the imbalance of one; the best of all would herd, since what a
// process knows of a deployment is always a little old.
func (t *tier) chooseOfTwo(q *selection) *deployment {
	s := t.weights.Load()
	first := t.draw(q, s, nil)
	if first == nil || len(t.members) == 1 {
		return first
	}
	if second := t.draw(q, s, first); second != nil && better(q.now, second, first) {
		return second
	}
	return first
}

// better compares first whether one has just failed, as far as that is known yet,
// then whether Azure said that one is full, then whether one is slow, then the
// headroom that both reported, then the requests in flight by size. Of equals the
// one that was drawn first is taken, so that shares follow the sizes when idle.
func better(now time.Time, a, b *deployment) bool {
	if doubted := b.PendingFailures.Load() > 0; doubted != (a.PendingFailures.Load() > 0) {
		return doubted
	}
	if full := !b.SpilledUntil.Passed(now); full == a.SpilledUntil.Passed(now) {
		return full
	}
	if slow := b.Slow(&a.Deployment, now); slow != a.Slow(&b.Deployment, now) {
		return slow
	}
	if more := a.headroom(now).More(b.headroom(now)); more > health.SameHeadroom || more < -health.SameHeadroom {
		return more > 0
	}
	return a.InFlight.Load()*b.drawWeight.Load() < b.InFlight.Load()*a.drawWeight.Load()
}

// Shares are the sizes of the members of a tier, as they are drawn by.
type weights struct {
	bounds []int64 // running sum; nil where all are equal
}

// resize works out the sizes anew: weights where one was configured, else the
// limits that were configured or told. Who has none is taken for the mean of
// the others.
func (t *tier) reweigh() {
	t.resizing.Lock() // the last to look has the last word
	defer t.resizing.Unlock()
	var sum, known int64
	weighted := slices.ContainsFunc(t.members, func(d *deployment) bool { return d.backend.weight != 1 })
	size := func(d *deployment) int64 {
		if weighted {
			return int64(d.backend.weight)
		}
		return min(cmp.Or(d.rates.TPM, d.weighedLimit.Load()), wire.MaxTokenCount)
	}
	for _, d := range t.members {
		d.weighedLimit.Store(d.Limit.Load()) // one told from here on is another reason to look
		if n := size(d); n > 0 {
			sum, known = sum+n, known+1
		}
	}
	mean := int64(1)
	if known > 0 {
		mean = max(1, sum/known)
	}
	s, total, equal := &weights{bounds: make([]int64, len(t.members))}, int64(0), true
	for i, d := range t.members {
		n := size(d)
		if n <= 0 {
			n = mean
		}
		d.drawWeight.Store(n)
		total += n
		s.bounds[i] = total
		equal = equal && n == t.members[0].drawWeight.Load()
	}
	if equal {
		s.bounds = nil
	}
	t.weights.Store(s)
}

// index turns a random number into that of a member, in proportion to size.
func (s *weights) index(r uint64, members int) int {
	if s.bounds == nil {
		return int(below(r, uint64(members)))
	}
	i, _ := slices.BinarySearch(s.bounds, 1+int64(below(r, uint64(s.bounds[members-1]))))
	return i
}

// draws is how often draw guesses before it looks at every member: with half
// of a tier closed one guess in 256 comes that far.
const draws = 8

// draw picks one of the candidates other than but, with a probability in
// proportion to size. Guessing and looking again is as fair as looking at
// every member, and does not slow down with their number.
func (t *tier) draw(q *selection, s *weights, but *deployment) *deployment {
	for range draws {
		if d := t.members[s.index(q.random(), len(t.members))]; d != but && q.candidate(d) {
			return d
		}
	}
	var sum uint64
	for _, d := range t.members {
		if d != but && q.candidate(d) {
			sum += uint64(d.drawWeight.Load())
		}
	}
	if sum == 0 {
		return nil
	}
	// What is known may change between the two looks. While there is a
	// candidate one is drawn all the same: the tier must not seem empty.
	at := below(q.random(), sum)
	var last *deployment
	for _, d := range t.members {
		if d != but && q.candidate(d) {
			last = d
			n := uint64(d.drawWeight.Load())
			if at < n {
				break
			}
			at -= n
		}
	}
	return last
}

// below maps a random number to 0 ≤ n < limit.
func below(r, limit uint64) uint64 {
	n, _ := bits.Mul64(r, limit)
	return n
}

// choosePlugged lets a Selector choose.
func (t *tier) chooseBySelector(q *selection) *deployment {
	var open []*deployment
	var candidates []Candidate
	for _, d := range t.members {
		if q.candidate(d) {
			open = append(open, d)
			candidates = append(candidates, Candidate{
				Backend: d.backend.name, Model: d.model, Deployment: d.name, Priority: t.priority,
				Weight: d.backend.weight, InFlight: int(d.InFlight.Load()),
			})
		}
	}
	switch len(open) {
	case 0:
		return nil
	case 1:
		return open[0]
	}
	if i := q.selector.Select(candidates); i >= 0 && i < len(open) {
		return open[i]
	}
	return t.chooseOfTwo(q)
}

// unit maps a random number to 0 ≤ u < 1.
func unit(r uint64) float64 { return float64(r>>11) / (1 << 53) }

// outdone reports whether another deployment of a route has served a request since
// this one was heard last.
func (d *deployment) outdone(r *route, now time.Time) bool {
	silent := d.LastHeard.Age(now)
	for other := range r.all {
		if other != d && other.LastServed.Age(now) < silent {
			return true
		}
	}
	return false
}
