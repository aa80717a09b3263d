package spillover

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// learn draws the conclusions from an attempt, for the deployment and for the
// call. Its error ends the call: the caller has left.
func (c *call) learn(a attempt, resp *http.Response, err error, o outcome) error {
	d, now := a.d, time.Now()
	if o.verdict == served || o.verdict == answered {
		d.served.Add(1)
		troubled := d.troubled.Load()
		d.recover(now, a.sent)
		if troubled {
			c.tell(&d.health, d, now, wellBy(resp))
		}
		d.tier.budget.earn()
		c.confirm(now) // another one answered: the blame stands
		if o.verdict == served && c.seeking {
			c.found(now, d.backend)
		}
		c.discard()
		return nil
	}
	a.release(now)
	if err != nil && c.Context().Err() != nil {
		c.giveUp()
		return context.Cause(c.Context())
	}
	if o.final {
		// Nobody else can tell whether the deployment or the request is to blame.
		d.failed.Add(1)
		if o.wait > 0 {
			c.coolDown(a, now, o)
		}
		c.giveUp()
		return nil
	}
	switch o.verdict {
	case throttled:
		d.throttled.Add(1)
		c.coolDown(a, now, o)
		c.throttled = true
		if !a.again {
			c.refusers = append(c.refusers, d)
		}
	case failed:
		d.failed.Add(1)
		c.blame(a, now, o)
	}
	if o.large {
		c.leaveOut(d.limit.Load())
	}
	if o.verdict != throttled && o.cause != outOfQuota {
		c.unfit = append(c.unfit, d)
		c.general = c.general || !o.own
	}
	c.put(d, resp, err, o.verdict == throttled)
	return nil
}

// found remembers where the objects are that the request asked around for.
func (c *call) found(now time.Time, b *backend) {
	for _, id := range c.ids {
		c.transport.stored.put(now, id, b.link)
	}
}

// leaveOut passes over the deployments that are known to have no larger limit
// than one that was too small for the request.
func (c *call) leaveOut(limit int64) {
	for d := range c.route.all {
		if l := d.limit.Load(); l > 0 && l <= limit && !slices.Contains(c.tried, d) {
			c.tried, c.unfit = append(c.tried, d), append(c.unfit, d)
		}
	}
}

// coolDown leaves a deployment alone for as long as it asked, within reason.
func (c *call) coolDown(a attempt, now time.Time, o outcome) {
	wait := o.wait
	if wait <= 0 {
		wait = c.cfg.DefaultCooldown
	}
	wait = min(wait, c.cfg.MaxCooldown)
	a.d.change(func() { a.d.throttle.refuse(now, a.sent, wait, o.reason, unit(c.transport.random())) })
	c.tell(&a.d.health, a.d, now, o)
}

// blame counts a failure against what failed: the deployment, the backend if
// there was no connection, or all that the account has if it is out of quota.
func (c *call) blame(a attempt, now time.Time, o outcome) {
	suspect := func(h *health, d *deployment) {
		s, counted := suspicion{health: h, d: d, outcome: o}, false
		h.change(func() {
			if o.cause.needsChange() && d.backend.outdated() {
				return
			}
			s.was = h.ejection
			counted = h.ejection.fail(now, a.sent, o.cause, o.reason, unit(c.transport.random()))
			s.then = h.ejection
		})
		// That a backend's own account has spent everything is no request's fault,
		// nor that there is no token.
		switch own := o.unsent || o.cause == outOfQuota && !d.backend.anonymous(); {
		case counted && own:
			c.tell(h, d, now, o)
		case counted:
			c.suspicions = append(c.suspicions, s)
		}
	}
	switch {
	case o.wait > 0:
		c.coolDown(a, now, o)
	case o.connect:
		suspect(&a.d.backend.health, a.d)
	case o.cause == outOfQuota:
		for d := range c.route.all {
			if d == a.d {
				suspect(&d.health, d)
			} else if d.backend.sharesAccount(a.d.backend) && !slices.Contains(c.tried, d) {
				suspect(&d.health, d)
				c.tried = append(c.tried, d)
			}
		}
	default:
		suspect(&a.d.health, a.d)
	}
}

// unit maps a random number to 0 ≤ u < 1.
func unit(r uint64) float64 { return float64(r>>11) / (1 << 53) }

// put keeps what an attempt brought, in case nothing better comes.
func (c *call) put(d *deployment, resp *http.Response, err error, refusal bool) {
	if resp == nil {
		c.errs = append(c.errs, attemptError{d.backend.name, err})
		return
	}
	slot := &c.failure
	if refusal {
		slot = &c.refusal
	}
	if c.seeking && resp.StatusCode == http.StatusNotFound && slot.Response != nil && slot.StatusCode != http.StatusNotFound {
		// Where something failed it may well be: "not found" would be misleading.
		resp.Body.Close()
		return
	}
	slot.discard()
	*slot = kept{resp, d.backend.name}
}
