package spillover

import (
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// lastResort is an attempt although something speaks against each deployment, as
// long as that is no word of the service's own: nobody is refused for our own
// caution alone. First comes one that is open, if the request would be told to
// wait only because others took its attempts up, and just one; then the one that
// only what was learnt from earlier refusals closes, if its tier can afford that,
// or one that has a connection pending, if the request cannot wait; then any that
// failed, whatever it failed of if no other one is throttled.
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
		return nil // one is enough
	}
	if d := c.leastBusyEjected(&q, throttled); d != nil {
		a := c.attemptAnyway(d, now)
		a.knownToFail = true
		return a
	}
	return nil
}

// anyway is an attempt that takes no place of those that a deployment has for
// requests: something speaks against it.
func (c *call) attemptAnyway(d *deployment, now time.Time) *attempt {
	a := c.place()
	a.call, a.deployment, a.sentAt = c, d, now
	a.reserved, _ = d.Ledger.Reserve(now, d.rates, c.tokens, true)
	c.tried = append(c.tried, d)
	return a
}

// cautioned is the deployment of a tier whose own word has passed the longest,
// of those that nothing but what was learnt closes.
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

// suspect is one of those that only failures close, by two random choices. Where
// others are throttled those alone count whose failures the requests may have
// caused: it is better to be told when to come back than to wait for an answer
// of what is known to be silent, or to be refused once more.
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
