package spillover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"
)

// A call is one RoundTrip: attempts, until one answers or none is left.
type call struct {
	request
	*setup
	transport *Transport
	route     *route

	sends    int           // attempts that were sent
	failures int           // of those, the ones that MaxAttempts bounds
	tried    []*deployment // each once, in order
	refusers []*deployment // of those, the ones that throttled and may be asked once more
	unfit    []*deployment // of those, the ones that did not take this very request

	seeking bool // it is about a stored object of which the backend is not known
	loyal   loyalty
	waited  time.Duration

	suspicions []suspicion // failures that were counted and that nobody's answer confirms yet

	final     bool    // nothing may be sent any more: it may have been received
	throttled bool    // an attempt was
	general   bool    // an attempt failed of something that may be the request's fault
	refusal   kept    // of the last attempt that was throttled
	failure   kept    // of the last that failed otherwise
	errs      []error // of those without an answer

	from string // the backend that gave the answer
	callRecord
	first  sending // here to save allocations, as are those below
	answer answerBody
	space  [4]*deployment
	about  [2]string
}

// A kept answer is one that is handed over only if nothing better comes.
type kept struct {
	*http.Response
	from string
}

// A suspicion is a failure that was counted, with what was known before and then.
type suspicion struct {
	health    *health
	was, then ejection
	d         *deployment
	outcome   outcome
}

// do finds the answer.
func (c *call) do() (*http.Response, error) {
	switch {
	case c.transport.closed.Load():
		return nil, fmt.Errorf("spillover: the transport is closed: %w", net.ErrClosed)
	case c.URL == nil:
		return nil, errors.New("spillover: the request has no URL")
	case c.URL.Opaque != "":
		return nil, errors.New("spillover: the request's URL is opaque")
	}
	if c.Response != nil && c.redirected() {
		c.openSpan()
		return c.follow()
	}
	err := c.read()
	if c.openSpan(); err != nil {
		return nil, err
	}
	c.tried = c.space[:0]
	c.loyal = newLoyalty(c.session(c.cfg.Session), c.model)
	if c.direct(); c.route == nil {
		return unknownModel(c.Request, c.model, c.table.models), nil
	}
	for {
		if err := context.Cause(c.Context()); err != nil {
			c.giveUp()
			return nil, err
		}
		now := time.Now()
		a, ok := c.next(now)
		if !ok {
			if resp, err := c.exhausted(now); resp != nil || err != nil {
				return resp, err
			}
			continue
		}
		if resp, err := c.attempt(a); resp != nil || err != nil {
			return resp, err
		}
	}
}

// direct finds the route: the deployments of the model, or of all backends
// where the request names none, or the one that has the object that the request
// is about. It stays nil for a model that nobody serves.
func (c *call) direct() {
	c.route = c.table.find(c.model)
	if c.route == nil && !stateless[c.op] && c.target.model == "" && !c.upgrades() {
		// What is not about a deployment may name any model.
		c.route, c.model = c.table.nameless, ""
	}
	if len(c.ids) == 0 || c.route == nil {
		return
	}
	now := time.Now()
	for _, id := range c.ids {
		home := c.transport.stored.find(now, id)
		if home == nil {
			continue
		}
		for _, r := range [...]*route{c.route, c.table.nameless} {
			if r = r.only(home); r != nil {
				c.route = r
				return
			}
		}
	}
	c.seeking, c.route = true, c.route.free()
}

// next chooses the deployment for the next attempt.
func (c *call) next(now time.Time) (attempt, bool) {
	if c.final || !c.body.sendable() || c.failures >= c.cfg.MaxAttempts {
		return attempt{}, false
	}
	q := query{now: now, tokens: c.tokens, loyal: c.loyal, selector: c.cfg.Selector, random: c.transport.random}
	for {
		q.tried = c.tried
		d := c.route.choose(&q)
		if d == nil {
			break
		}
		if a, ok := c.newAttempt(d, now, q.eager); ok {
			c.tried = append(c.tried, d)
			return a, true
		}
	}
	// Growth after an ejection is gradual, but it refuses nobody.
	for _, t := range c.route.tiers {
		if d := t.leastAbove(now, c.tried); d != nil && c.affords(d) {
			if a, ok := c.newAttempt(d, now, true); ok {
				c.tried = append(c.tried, d)
				return a, true
			}
		}
	}
	// One that throttled this very request may be open again by now.
	for i, d := range c.refusers {
		if !d.accepts(now) || !c.affords(d) {
			continue
		}
		if a, ok := c.newAttempt(d, now, true); ok {
			c.refusers = slices.Delete(c.refusers, i, i+1)
			a.again = true
			return a, true
		}
	}
	// Only the service's own word makes the transport refuse a request. Where
	// nothing but failures speaks against all, the one due first is asked.
	if len(c.tried) == 0 {
		if o := c.route.look(now, nil); !o.throttled && o.soonest != nil {
			c.tried = append(c.tried, o.soonest)
			e, _ := o.soonest.ledger.reserve(now, o.soonest.rates, c.tokens, true)
			return attempt{d: o.soonest, sent: now, entry: e}, true
		}
	}
	return attempt{}, false
}

// affords tells whether an attempt is the first of its tier, and else spends one.
func (c *call) affords(d *deployment) bool {
	again := slices.ContainsFunc(c.tried, func(t *deployment) bool { return t.tier == d.tier })
	return !again || c.seeking || d.tier.budget.spend()
}

// exhausted is the answer when no deployment is left to ask; none when the
// request has waited and there may be one again.
func (c *call) exhausted(now time.Time) (*http.Response, error) {
	// Where MaxAttempts ended it and some were not asked, those that were may be
	// bad: pardoned, a tier of so many would keep callers from the next for ever.
	if c.failures < c.cfg.MaxAttempts || c.final || c.askedAll() {
		c.pardon()
	} else {
		c.confirm(now)
	}
	o := c.route.look(now, c.unfit)
	// What fails for reasons of its own says nothing of the others: where one
	// of those is merely throttled, waiting helps.
	if !c.general && (c.throttled || o.throttled) && o.soonest != nil && c.body.sendable() {
		if c.cfg.MaxWait > 0 && c.wait(now, o) {
			return nil, nil
		}
		c.discard()
		c.from = ""
		return unavailable(c.Request, c.model, o, time.Now()), nil
	}
	last, other := c.failure, c.refusal
	if last.Response == nil {
		last, other = other, last
	}
	// Not found, but maybe where nobody was asked, or answered.
	missing := c.seeking && last.Response != nil && last.StatusCode == http.StatusNotFound
	switch {
	case len(c.errs) > 0 && (last.Response == nil || missing):
		c.discard()
		return nil, &noAnswerError{c.model, c.errs}
	case last.Response == nil, missing && c.spared():
		c.discard()
		return allDrained(c.Request), nil
	}
	other.discard()
	c.from = last.from
	return last.Response, nil
}

// askedAll tells whether the request failed everywhere.
func (c *call) askedAll() bool {
	for d := range c.route.all {
		if !slices.Contains(c.tried, d) && !d.backend.drained.Load() {
			return false
		}
	}
	return true
}

// spared tells whether one was not asked as it is drained.
func (c *call) spared() bool {
	for d := range c.route.all {
		if d.backend.drained.Load() && !slices.Contains(c.tried, d) {
			return true
		}
	}
	return false
}

// giveUp ends a call whose caller left.
func (c *call) giveUp() {
	c.pardon()
	c.discard()
}

// pardon takes back what was counted against deployments by a request that
// nobody answered: it is the suspect itself.
func (c *call) pardon() {
	for _, s := range c.suspicions {
		s.health.change(func() { s.health.ejection.pardon(s.was, s.then) })
		c.tell(s.health, s.d, time.Now(), s.outcome)
	}
	c.suspicions = nil
}

// confirm tells what was counted against deployments, and stays.
func (c *call) confirm(now time.Time) {
	for _, s := range c.suspicions {
		c.tell(s.health, s.d, now, s.outcome)
	}
	c.suspicions = nil
}

// discard closes the answers that are not handed over.
func (c *call) discard() {
	c.failure.discard()
	c.refusal.discard()
}

func (k *kept) discard() {
	if k.Response != nil {
		k.Body.Close()
		k.Response = nil
	}
}
