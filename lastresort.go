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
//     learned from earlier refusals, if its tier's budget allows, or one
//     with a connection pending;
//   - one that is ejected, whatever the cause if no deployment is
//     rate-limited.
func (c *call) lastResort(now time.Time) *attempt {
	if c.final || !c.body.CanSend() {
		return nil
	}
	q := c.selection(now)
	throttled := c.scope.outlook(c.route, now, nil).throttled
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
	if !c.canWait(now, c.scope.outlook(c.route, now, c.unsuitable)) {
		for _, t := range c.route.tiers {
			if c.waited > 0 || !t.budget.Has(health.LastResortCost) {
				continue
			}
			if d := c.leastCautious(t, &q); d != nil {
				t.budget.Spend(health.LastResortCost)
				a := c.attemptAnyway(d, now)
				a.lastResort, a.cost = true, health.LastResortCost
				return a
			}
		}
		for d := range c.route.all {
			if slices.Contains(c.tried, d) || !c.scope.connecting(d, now) {
				continue
			}
			if a := c.newAttempt(d, now, true); a != nil {
				c.tried = append(c.tried, d)
				return a
			}
		}
	}
	if c.triedKnownFailing {
		return nil // once per request
	}
	if d := c.leastBusyEjected(&q, throttled); d != nil {
		a := c.attemptAnyway(d, now)
		a.knownToFail = true
		return a
	}
	return nil
}

// attemptAnyway is an attempt that takes no probe or ramp-up place of a
// deployment.
func (c *call) attemptAnyway(d *deployment, now time.Time) *attempt {
	a := c.place()
	a.call, a.deployment, a.sentAt = c, d, now
	a.reserved, _ = d.LocalLimits.Reserve(now, d.rates, c.tokens, true)
	c.tried = append(c.tried, d)
	return a
}

// leastCautious is the deployment of a tier that is closed only by what was
// learned from refusals, and whose requested wait ended first.
func (c *call) leastCautious(t *tier, q *selection) (best *deployment) {
	var longest time.Time
	for _, d := range t.members {
		if slices.Contains(c.tried, d) || d.backend.drained.Load() || d.backend.Stuck(q.now) || c.scope.accepts(d, q.now) {
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
// that is known to be silent, or being refused once more.
func (c *call) leastBusyEjected(q *selection, throttled bool) *deployment {
	var all []*deployment
	for d := range c.route.all {
		if slices.Contains(c.tried, d) || d.backend.drained.Load() || c.scope.accepts(d, q.now) {
			continue
		}
		if cause, ok := c.scope.ejected(d, q.now); ok && cause != health.OutOfQuota && (cause.Uncertain() || !throttled) {
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
