package spillover

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// A route is the deployments that serve one model, tier by tier in order of
// priority. It does not change after it is built.
type route struct {
	model  string
	tiers  []*tier
	longer *route // for requests that are too long for the model; nil if there is none
}

// A tier is the deployments of one priority.
type tier struct {
	priority int
	members  []*deployment
	hashes   []uint64 // of their backends, if these all have the same weight; else nil
	weights  atomic.Pointer[weights]
	resizing sync.Mutex
	budget   *health.RetryBudget
}

func newTier(priority int, members []*deployment, b *health.RetryBudget) *tier {
	t := &tier{priority: priority, members: members, hashes: hashesOf(members), budget: b}
	t.reweigh()
	return t
}

// with is the tier reduced to some members, for one request. The weights are
// those of the original tier.
func (t *tier) with(members []*deployment, s *weights, b *health.RetryBudget) *tier {
	w := &tier{priority: t.priority, members: members, budget: b}
	w.weights.Store(s)
	return w
}

// choose chooses a deployment: the first model of the route with an available one
// decides, and of that the first tier. A lower tier is considered only if no deployment
// of a higher one is available, or the request was tried there and the tier's retry
// budget is spent, or the attempts that are left are needed for the tiers below.
// Deployments without headroom are asked only if nobody else is left. For a background
// request, one that is reserved is never asked, unless one is due there by the minimum
// rate.
func (r *route) choose(q *selection) (*tier, *deployment) {
	if q.spillRoll = q.affinity.spillRoll(); q.affinity == 0 {
		q.spillRoll = unit(q.random())
	}
	if q.heedsReports {
		q.doubt = unit(q.random())
	}
	for first := 0; first < len(r.tiers); first = r.nextModel(first) {
		next := r.nextModel(first)
		for _, pass := range q.passes() {
			if pass == onlyProbes && len(q.passedOver) == 0 {
				continue
			}
			q.pass = pass
			for i, t := range r.tiers[first:next] {
				d := t.choose(q)
				if d == nil || q.attemptsLeft > 0 && t.triedHere(q.tried) && q.attemptsLeft <= r.openBelow(first+i+1, q) {
					continue
				}
				return t, d
			}
		}
		if q.heedsReports {
			if t, d := r.leastReported(first, next, q); d != nil {
				return t, d
			}
		}
	}
	return nil, nil
}

// leastReported chooses, among some tiers, the available deployment whose reports by
// other replicas end first: what they say never refuses a request. After a failure
// elsewhere it leaves out what two replicas agree on, and after a rate limit everything
// that is reported, as it would only be refused once more. A stored object may be
// anywhere, so its search leaves out nothing.
func (r *route) leastReported(first, next int, q *selection) (tier *tier, best *deployment) {
	again := len(q.tried) > 0 && !q.seeking
	if again && q.throttled {
		return nil, nil
	}
	q.heedsReports = false
	defer func() { q.heedsReports = true }()
	passes := q.passes()
	if !q.background {
		passes = passes[len(passes)-1:]
	}
	for _, pass := range passes {
		q.pass = pass
		var soonest time.Time
		for _, t := range r.tiers[first:next] {
			q.healthyOnly = t.retryBudgetSpent(q)
			for _, d := range t.members {
				if !q.candidate(d) {
					continue
				}
				until := d.Reports.Until(q.now)
				if d.Reports.Skipped(q.now, q.doubt) {
					if again {
						continue
					}
					until = until.Add(time.Hour) // two replicas agree: only if there is no other
				}
				if best == nil || until.Before(soonest) {
					tier, best, soonest = t, d, until
				}
			}
		}
		if best != nil {
			break
		}
	}
	return tier, best
}

// nextModel is the index of the first tier of the model after that of the tier at
// index i, to which the request falls back.
func (r *route) nextModel(i int) int {
	model := r.tiers[i].members[0].model
	for i++; i < len(r.tiers) && r.tiers[i].members[0].model == model; i++ {
	}
	return i
}

// position is the index of a tier, or -1.
func (r *route) position(t *tier) int {
	return slices.IndexFunc(r.tiers, func(own *tier) bool { return own.budget == t.budget })
}

// openBelow counts the tiers from index i on that can take the request.
func (r *route) openBelow(i int, q *selection) (n int) {
	for _, t := range r.tiers[i:] {
		if t.choose(q) != nil {
			n++
		}
	}
	return n
}

// retryBudgetSpent reports whether the tier can afford no retry of the request.
// Its first attempt there is free, and so is one to a deployment that nothing
// is held against.
func (t *tier) retryBudgetSpent(q *selection) bool {
	return t.triedHere(q.tried) && !t.budget.Has(health.AttemptCost)
}

// payForRetry takes the cost of a retry in the tier out of its budget.
func (t *tier) payForRetry(q *selection, d *deployment) int64 {
	if t.triedHere(q.tried) && q.troubled(d) && t.budget.Spend(health.AttemptCost) {
		return health.AttemptCost
	}
	return 0
}

// triedHere reports whether any of the tried deployments is in this tier.
func (t *tier) triedHere(tried []*deployment) bool {
	return slices.ContainsFunc(tried, func(d *deployment) bool { return d.tier.budget == t.budget })
}

// filter is the route to the backends that suit, or nil if there are none.
func (r *route) filter(suits func(*backend) bool) *route {
	return r.keep(func(d *deployment) bool { return suits(d.backend) })
}

// keep is the route to the deployments that suit, or nil if there are none.
func (r *route) keep(suits func(*deployment) bool) *route {
	if r == nil {
		return nil
	}
	w := &route{model: r.model, longer: r.longer.keep(suits)}
	for _, t := range r.tiers {
		var members []*deployment
		for _, d := range t.members {
			if suits(d) {
				members = append(members, d)
			}
		}
		if len(members) > 0 {
			w.tiers = append(w.tiers, t.with(members, weightsOf(members), t.budget))
		}
	}
	if len(w.tiers) == 0 {
		return nil
	}
	return w
}

// and is the route with the other models of a second one after its own; that may be nil.
func (r *route) and(more *route) *route {
	both := &route{model: r.model, tiers: slices.Clone(r.tiers)}
	if more != nil {
		for _, t := range more.tiers {
			if !slices.ContainsFunc(r.tiers, func(own *tier) bool { return own.budget == t.budget }) {
				both.tiers = append(both.tiers, t)
			}
		}
	}
	return both
}

// free is the same route with retries that nobody counts.
func (r *route) free() *route {
	f := &route{model: r.model}
	for _, t := range r.tiers {
		w := t.with(t.members, t.weights.Load(), new(health.RetryBudget))
		w.hashes = t.hashes
		f.tiers = append(f.tiers, w)
	}
	return f
}

// ofOneModel is the route without its fallbacks.
func (r *route) ofOneModel() *route {
	return &route{model: r.model, tiers: r.tiers[:r.nextModel(0)]}
}

// all yields every deployment of the route.
func (r *route) all(yield func(*deployment) bool) {
	for _, t := range r.tiers {
		for _, d := range t.members {
			if !yield(d) {
				return
			}
		}
	}
}

// newRoute sorts deployments into tiers. A tier that an earlier route has keeps
// its retry budget.
func newRoute(model string, deployments []*deployment, old *route) *route {
	r := &route{model: model}
	byPriority := func(a, b *deployment) int { return cmp.Compare(a.backend.priority, b.backend.priority) }
	deployments = slices.SortedStableFunc(slices.Values(deployments), byPriority)
	for len(deployments) > 0 {
		p := deployments[0].backend.priority
		n := 1
		for n < len(deployments) && deployments[n].backend.priority == p {
			n++
		}
		t := newTier(p, deployments[:n:n], old.budget(p))
		for _, d := range t.members {
			d.tier = t
		}
		r.tiers = append(r.tiers, t)
		deployments = deployments[n:]
	}
	return r
}

// budget is the retry budget of a tier, or a new one.
func (r *route) budget(priority int) *health.RetryBudget {
	if r != nil {
		for _, t := range r.tiers {
			if t.priority == priority {
				return t.budget
			}
		}
	}
	return new(health.RetryBudget)
}

// byBackend is the deployments of a route by the shared state of their
// backends, which outlives a configuration.
func (r *route) byBackend() map[*sharedState]*deployment {
	if r == nil {
		return nil
	}
	known := map[*sharedState]*deployment{}
	for d := range r.all {
		known[d.backend.sharedState] = d
	}
	return known
}
