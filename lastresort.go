package spillover

import (
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// lastResort is an attempt although something is held against each deployment,
// as long as the service itself has not asked to wait: nobody is refused
// because of our own caution alone. In this order:
//
//   - a deployment that is open, once, if the request would be answered 429
//     only because other deployments have used up its attempts;
//   - if the request cannot wait, one that is closed only by what was
//     learned from earlier refusals, if its tier's budget allows and the
//     request is interactive, or one with a connection pending;
//   - one that is ejected, whatever the cause if no deployment is
//     rate-limited.
func (c *call) lastResort(now time.Time) *attempt {
	if c.final || !c.body.CanSend() {
		return nil
	}
	q := c.selection(now)
	throttled := c.scope.outlook(c.route, now, nil).temporary() // at any of them
	if !c.mayResend() {
		if c.maybeRequestsFault || !throttled && !c.throttled || c.failures > c.cfg.MaxAttempts {
			return nil
		}
		_, d := c.choose(&q)
		if d == nil {
			return nil
		}
		a := c.newAttempt(d, now, q.ignoreHeadroom)
		if a != nil {
			c.tried = append(c.tried, d)
		}
		return a
	}
	for {
		t, d, why := c.resort(&q, throttled)
		switch why {
		case resortLearned:
			if a := c.attemptAnyway(d, now); a != nil {
				t.budget.Spend(health.LastResortCost)
				a.lastResort, a.cost = true, health.LastResortCost
				return a
			}
		case resortConnecting:
			if a := c.newAttempt(d, now, true); a != nil {
				c.tried = append(c.tried, d)
				return a
			}
			q.tried = append(slices.Clip(q.tried), d)
		case resortEjected:
			if a := c.attemptAnyway(d, now); a != nil {
				a.knownToFail = true
				return a
			}
		default:
			return nil
		}
	}
}

// A resort is why a deployment is asked although something is held against it.
type resort int

const (
	noResort         resort = iota // none is asked
	resortLearned                  // only what was learned from refusals closes it
	resortConnecting               // a connection to it is pending
	resortEjected                  // all others that may be asked are ejected too
)

// String is why, for a trail.
func (r resort) String() string {
	return [...]string{
		"", "last resort: only what was learned from refusals closes the deployment",
		"last resort: a connection to the deployment is pending", "last resort: every other deployment is ejected too",
	}[r]
}

// resort chooses the deployment of the last resort, and its tier in the route. It
// changes nothing. throttled is whether any is rate-limited, or full.
func (c *call) resort(q *selection, throttled bool) (*tier, *deployment, resort) {
	if !c.canWait(q.now, c.scope.outlook(c.route, q.now, c.unsuitable)) {
		for _, t := range c.route.tiers {
			if c.waited > 0 || c.scope.background || !t.budget.Has(health.LastResortCost) {
				continue
			}
			if d := c.leastCautious(t, q); d != nil {
				return t, d, resortLearned
			}
		}
		for d := range c.route.all {
			if !slices.Contains(q.tried, d) && c.scope.connecting(d, q.now) {
				return d.tier, d, resortConnecting
			}
		}
	}
	if c.triedKnownFailing {
		return nil, nil, noResort // once per request
	}
	if d := c.leastBusyEjected(q, throttled); d != nil {
		return d.tier, d, resortEjected
	}
	return nil, nil, noResort
}

// attemptAnyway is an attempt that takes no probe or ramp-up place of a
// deployment. It is nil if the deployment is full.
func (c *call) attemptAnyway(d *deployment, now time.Time) *attempt {
	if !d.TakePlace() {
		return nil
	}
	a := c.place()
	a.call, a.deployment, a.sentAt, a.inFlight = c, d, now, true
	a.reserved, _ = d.LocalLimits.Reserve(now, d.rates, c.tokens, true)
	c.tried = append(c.tried, d)
	return a
}

// leastCautious is the deployment of a tier that is closed only by what was
// learned from refusals, and whose requested wait ended first.
func (c *call) leastCautious(t *tier, q *selection) (best *deployment) {
	var longest time.Time
	for _, d := range t.members {
		if slices.Contains(c.tried, d) || d.backend.drained.Load() || d.backend.Stuck(q.now) || d.Full() || c.scope.accepts(d, q.now) {
			continue
		}
		passed, ok := c.scope.onlyLearned(d, q.now)
		if ok && (best == nil || passed.Before(longest)) {
			best, longest = d, passed
		}
	}
	return best
}

// leastBusyEjected is the less busy of two random deployments that are closed
// only by ejections. If others are rate-limited, only those count that requests
// may have caused: a 429 with a time is better than waiting for a deployment
// that is known to be silent, or being refused once more. An account without quota counts
// as rate-limited.
func (c *call) leastBusyEjected(q *selection, throttled bool) *deployment {
	var all []*deployment
	for d := range c.route.all {
		if slices.Contains(c.tried, d) || d.backend.drained.Load() || d.Full() || c.scope.accepts(d, q.now) {
			continue
		}
		if cause, ok := c.scope.ejected(d, q.now); ok && (cause.Uncertain() || !throttled) {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return nil
	}
	one, other := all[below(q.random(), uint64(len(all)))], all[below(q.random(), uint64(len(all)))]
	if other.InFlight.Load() < one.InFlight.Load() {
		return other
	}
	return one
}
