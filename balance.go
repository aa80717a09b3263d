package spillover

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A selection is what a deployment is chosen for.
type selection struct {
	scope
	now      time.Time
	tried    []*deployment // by this request
	noPlace  []*deployment // whose last place another request has just taken
	tokens   int64         // the estimated cost of the request
	affinity affinity      // of the request's session
	selector Selector
	random   func() uint64

	attemptsLeft  int           // attempts left after a failure; 0 before the first failure
	passedOver    []*deployment // skipped because they have failed, see passOver
	silent        []*deployment // skipped because they may be silent
	includeSilent bool          // do not skip those

	spillRoll float64 // random, between 0 and 1: decides whether a PTU that is nearly full passes the request on
	pass              // what is looked for now

	healthyOnly bool // only deployments that nothing is held against

	heedsReports bool    // of other replicas
	throttled    bool    // an attempt of the request was rate-limited
	seeking      bool    // a stored object
	doubt        float64 // random, between 0 and 1: whether the request ignores them
}

// A skipReason is why a deployment is not a candidate.
type skipReason uint8

const (
	notSkipped      skipReason = iota // it is a candidate
	skipSilent                        // it has not answered for a while
	skipClosed                        // something closes it, see scope.accepts
	skipTried                         // by this request
	skipFull                          // it has as many requests in flight as it may have
	skipTroubled                      // the retry budget is spent, and something is held against it
	skipUtilization                   // a PTU that is nearly full
	skipHeadroom                      // too few tokens remain, as reported
	skipProbe                         // it has failed, and its half-open probe is deferred
	skipReported                      // another replica says that it is rate-limited, fails or is drained
	skipLocalLimit                    // too few requests or tokens remain of the configured limits
	skipReserved                      // kept for interactive requests
)

// skips is why a deployment may not be chosen. It changes nothing.
func (q *selection) skips(d *deployment) skipReason {
	switch {
	case !q.includeSilent && d.MaybeSilent(q.now):
		return skipSilent
	case !q.accepts(d, q.now):
		return skipClosed
	case slices.Contains(q.tried, d):
		return skipTried
	case d.Full() || slices.Contains(q.noPlace, d):
		return skipFull
	case q.heedsReports && d.Reports.Avoided(q.now, q.doubt):
		return skipReported
	case q.healthyOnly && q.troubled(d):
		return skipTroubled
	case q.minimumRate && !d.BackgroundDue(q.now), !q.minimumRate && q.reserves(d, q.now):
		return skipReserved
	case !q.probe && q.probeDeferred(d, q.now, q.attemptsLeft > 0):
		return skipProbe
	case q.ignoreHeadroom:
		return notSkipped
	case d.PassesOn(q.now, q.spillRoll):
		return skipUtilization
	case d.LacksHeadroom(q.now, q.tokens):
		return skipHeadroom
	case d.LocalLimits.Exhausted(q.now, d.rates, q.tokens):
		return skipLocalLimit
	}
	return notSkipped
}

// A pass is what a selection looks for, once nothing was found by the passes before.
type pass struct {
	probe          bool // include deployments whose half-open probe is deferred
	ignoreHeadroom bool // include deployments without headroom
	minimumRate    bool // as a background request that is due at a reserved deployment
}

// onlyProbes is a pass that finds nothing where no probe is deferred.
var onlyProbes = pass{probe: true}

var (
	interactivePasses = []pass{{}, {probe: true}, {probe: true, ignoreHeadroom: true}}
	backgroundPasses  = []pass{{}, {probe: true}, {probe: true, minimumRate: true}, {probe: true, ignoreHeadroom: true, minimumRate: true}}
)

func (q *selection) passes() []pass {
	if q.background {
		return backgroundPasses
	}
	return interactivePasses
}

// maxPassedOver is for how many deferred probes one request counts. It bounds what a
// request costs after many deployments have failed.
const maxPassedOver = 16

// candidate reports whether a deployment may be chosen.
func (q *selection) candidate(d *deployment) bool {
	why := q.skips(d)
	switch {
	case why == skipSilent && !slices.Contains(q.silent, d):
		q.silent = append(q.silent, d)
	case (why == skipProbe || why == skipClosed && q.probeDeferred(d, q.now, false)) && len(q.passedOver) < maxPassedOver && !slices.Contains(q.passedOver, d):
		q.passedOver = append(q.passedOver, d)
	}
	return why == notSkipped
}

// passOver counts a request that goes to a deployment for the probes that are deferred.
func (q *selection) passOver(chosen *deployment) {
	for _, d := range q.passedOver {
		if d != chosen {
			q.scope.passOver(d, q.now)
		}
	}
}

// choose returns an available deployment that was not tried, or nil.
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

// chooseOfTwo draws two different candidates by weight and takes the better one
// (power of two choices). Two choices halve the imbalance of one. Taking the
// best of all would make requests herd, since what a process knows is always
// slightly old.
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

// better compares two candidates: first whether one has just failed, even if
// that is not confirmed yet, then whether Azure reported one as full, then
// whether one is slow, then their headroom, then the requests in flight
// relative to weight. Of equals the one drawn first is taken, so that an idle
// tier is used in proportion to the weights.
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

// Weights are what the members of a tier are drawn by.
type weights struct {
	bounds []int64 // running sum; nil if all are equal
}

// reweigh computes the weights: the configured ones if there are any, else the
// configured or reported token limits. A member without a limit gets the mean
// of the others.
func (t *tier) reweigh() {
	t.resizing.Lock() // so that the latest limits win
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
		d.weighedLimit.Store(d.Limit.Load()) // a limit reported from here on computes them again
		if n := size(d); n > 0 {
			sum, known = sum+n, known+1
		}
	}
	mean := int64(1)
	if known > 0 {
		mean = max(1, sum/known)
	}
	for _, d := range t.members {
		n := size(d)
		if n <= 0 {
			n = mean
		}
		d.drawWeight.Store(n)
	}
	t.weights.Store(weightsOf(t.members))
}

// weightsOf are the weights of some members of a tier.
func weightsOf(members []*deployment) *weights {
	s, total, equal := &weights{bounds: make([]int64, len(members))}, int64(0), true
	first := members[0].drawWeight.Load()
	for i, d := range members {
		n := d.drawWeight.Load()
		total += n
		s.bounds[i] = total
		equal = equal && n == first
	}
	if equal {
		s.bounds = nil
	}
	return s
}

// index maps a random number to a member, in proportion to weight.
func (s *weights) index(r uint64, members int) int {
	if s.bounds == nil {
		return int(below(r, uint64(members)))
	}
	i, _ := slices.BinarySearch(s.bounds, 1+int64(below(r, uint64(s.bounds[members-1]))))
	return i
}

// draws is how often draw guesses before it looks at every member. With half of
// a tier closed, one request in 256 gets that far.
const draws = 8

// draw picks a candidate other than except, with a probability in proportion to
// its weight. Guessing and checking is as fair as looking at every member, and
// does not become slower with their number.
func (t *tier) draw(q *selection, s *weights, except *deployment) *deployment {
	for range draws {
		if d := t.members[s.index(q.random(), len(t.members))]; d != except && q.candidate(d) {
			return d
		}
	}
	var sum uint64
	for _, d := range t.members {
		if d != except && q.candidate(d) {
			sum += uint64(d.drawWeight.Load())
		}
	}
	if sum == 0 {
		return nil
	}
	// Health may change between the two passes. If there is a candidate one is
	// drawn anyway: the tier must not appear empty.
	at := below(q.random(), sum)
	var last *deployment
	for _, d := range t.members {
		if d != except && q.candidate(d) {
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

// chooseBySelector lets the configured Selector choose.
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

// outdone reports whether another deployment of a route has served a request for the
// same model since this one was last heard. Other models may be faster.
func (d *deployment) outdone(r *route, now time.Time) bool {
	silent := d.LastHeard.Age(now)
	for other := range r.all {
		if other != d && other.model == d.model && other.LastServed.Age(now) < silent {
			return true
		}
	}
	return false
}
