package spillover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A call is one RoundTrip: attempts, until one answers or none is left.
type call struct {
	request
	*activeConfig
	transport *Transport
	route     *route
	scope     scope

	sends       int           // attempts that were sent
	failures    int           // of those, the ones that MaxAttempts bounds
	tried       []*deployment // each once, in order
	throttledBy []*deployment // of those, the ones that throttled and may be asked once more
	unsuitable  []*deployment // of those, the ones that did not take this very request

	seeking         bool   // it is about a stored object of which the resource is not known
	fallbackRoute   *route // where it is known: who is asked if the object is not there after all; else nil
	notFoundAtHome  bool   // its home said that it is not there
	mayAskHomeAgain bool   // and may say otherwise if it is asked again
	askedAgain      bool
	notFoundAnswer  fallbackAnswer // what it said
	affinity        affinity
	waited          time.Duration

	unheedCancel context.CancelCauseFunc // of heedCancel; nil when there is nothing to heed

	pendingFailures []provisionalFailure // failures that no other deployment's answer confirms yet

	final              bool           // nothing may be sent any more: it may have been received
	throttled          bool           // an attempt was
	maybeRequestsFault bool           // an attempt failed of something that may be the request's fault
	triedKnownFailing  bool           // one was known to fail, and did
	throttledAnswer    fallbackAnswer // of the last attempt that was throttled
	failedAnswer       fallbackAnswer // of the last that failed otherwise
	errs               []error        // of those without an answer

	answeredFrom string // the backend that gave the answer

	// What is recorded of it.
	ctx        context.Context // the caller's, with the request's span
	span       trace.Span      // nil until the request has been read
	recording  bool            // somebody listens
	begun      time.Time
	answeredBy *attempt // whose answer it is; nil for one of our own and for a failure

	// How RoundTrip ended, and how long it took: to the first content.
	outcome        string
	errorType      attribute.KeyValue // the class of an error; else not valid
	took           time.Duration
	streams        bool
	failedAttempts []failedAttempt // attempts that failed

	lastAttempt   *attempt // the last attempt
	firstAttempt  attempt  // here to save allocations, as are those below
	answer        responseBody
	triedSpace    [4]*deployment
	answerHeaders [2]string
}

// A kept answer is one that is handed over only if nothing better comes.
type fallbackAnswer struct {
	*http.Response
	from string
}

// A suspicion is a failure that may be the request's own fault: it counts once
// another deployment answers the request. What is a deployment's own fault by
// its word counts at once, and is taken back when it turns out otherwise: then
// there is what was known before and after.
type provisionalFailure struct {
	health     *health.State
	d          *deployment
	outcome    outcome
	sent, seen time.Time
	counted    bool
	undo       health.Undo // of what was counted
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
	c.watchCancel()
	err := c.read()
	if c.openSpan(); err != nil {
		return nil, err
	}
	c.tried = c.triedSpace[:0]
	c.affinity = newAffinity(c.session(c.cfg.Session), c.model)
	c.scope = scope{op: wire.OperationIndex(c.Operation), callers: &c.transport.callers}
	if c.table.callerCredentials {
		c.scope.caller = callerOf(c.Request)
	}
	if c.findRoute(); c.route == nil {
		return unknownModel(c.Request, c.model, c.table.models), nil
	}
	for {
		if err := c.callerErr(); err != nil {
			c.callerLeft()
			return nil, err
		}
		now := time.Now()
		a := c.next(now)
		if a == nil && c.searchElsewhere() {
			continue
		}
		if a == nil {
			a = c.lastResort(now)
		}
		if a == nil {
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

// query is what the next deployment is chosen for.
func (c *call) selection(now time.Time) selection {
	q := selection{scope: c.scope, now: now, tried: c.tried, tokens: c.tokens, affinity: c.affinity, selector: c.cfg.Selector, random: c.transport.random}
	if c.failures > 0 {
		q.attemptsLeft = c.cfg.MaxAttempts - c.failures
	}
	return q
}

// may reports whether the request may be sent once more at all.
func (c *call) mayResend() bool {
	return !c.final && c.body.CanSend() && c.failures < c.cfg.MaxAttempts
}

// next chooses the deployment for the next attempt.
func (c *call) next(now time.Time) *attempt {
	if !c.mayResend() {
		return nil
	}
	q := c.selection(now)
	for {
		t, d := c.choose(&q)
		if d == nil {
			break
		}
		if a := c.newAttempt(d, now, q.ignoreHeadroom); a != nil {
			a.cost = t.payForRetry(&q, d)
			c.tried = append(c.tried, d)
			return a
		}
	}
	// One that throttled this very request may be open again by now.
	for i, d := range c.throttledBy {
		if c.scope.accepts(d, now) && (c.seeking || d.tier.budget.Has(health.AttemptCost)) {
			if a := c.newAttempt(d, now, true); a != nil {
				if !c.seeking {
					d.tier.budget.Spend(health.AttemptCost)
				}
				c.throttledBy = slices.Delete(c.throttledBy, i, i+1)
				a.repeated = true
				return a
			}
		}
	}
	return nil
}

// choose is the route's choice. What seems silent is passed over while there is
// another: it is ejected if another one has answered meanwhile, and this request
// finds that out if that is not known.
func (c *call) choose(q *selection) (*tier, *deployment) {
	t, chosen := c.route.choose(q)
	for _, d := range q.silent {
		switch {
		case d.SeemsSilent(q.now) && d.outdone(c.route, q.now):
			if d.EjectSilent(q.now) {
				c.tell(&d.State, d, q.now, outcome{reason: "silent"})
			}
		case chosen != nil && d.NextComparison.Passed(q.now) && !d.outdone(c.route, q.now):
			d.NextComparison.Set(q.now.Add(health.ComparisonInterval))
		default:
			q.includeSilent = true
		}
	}
	if q.includeSilent {
		t, chosen = c.route.choose(q)
	}
	q.silent = nil
	return t, chosen
}

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
	throttled := c.lookAhead(now, nil).throttled
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
	if !c.canWait(now, c.lookAhead(now, c.unsuitable)) {
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
		passed, ok := c.scope.wordPassed(d, q.now)
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

// exhausted is the answer when no deployment is left to ask; none when the
// request has waited and there may be one again.
func (c *call) exhausted(now time.Time) (*http.Response, error) {
	// Where MaxAttempts ended it and some could have been asked, those that were
	// may be bad: if nothing counted, a tier of so many would keep callers from the
	// next for ever.
	if c.failures < c.cfg.MaxAttempts || c.final || c.askedAll(now) {
		c.pardonFailures()
	} else {
		c.countFailures(now, false)
	}
	if c.notFoundAnswer.Response != nil {
		// Nobody else has it either, so it is its home that knows.
		resp, from := c.notFoundAnswer.Response, c.notFoundAnswer.from
		c.notFoundAnswer = fallbackAnswer{}
		c.discard()
		c.answeredFrom = from
		return resp, nil
	}
	o := c.lookAhead(now, c.unsuitable)
	// What fails for reasons of its own says nothing of the others: where one
	// of those is merely throttled, waiting helps.
	if !c.maybeRequestsFault && (c.throttled || o.throttled) && o.soonest != nil && c.body.CanSend() {
		if c.cfg.MaxWait > 0 && c.waitForDeployment(now, o) {
			return nil, nil
		}
		c.discard()
		c.answeredFrom = ""
		return unavailable(c.Request, c.model, o, time.Now()), nil
	}
	last, other := c.failedAnswer, c.throttledAnswer
	if last.Response == nil {
		last, other = other, last
	}
	// Not found, but maybe where nobody was asked, or answered.
	missing := c.seeking && last.Response != nil && notFoundStatus(last.StatusCode)
	switch {
	case len(c.errs) > 0 && (last.Response == nil || missing):
		c.discard()
		return nil, &noAnswerError{c.model, c.errs}
	case last.Response == nil, missing && c.skippedDrained():
		c.discard()
		return allDrained(c.Request), nil
	}
	other.discard()
	c.answeredFrom = last.from
	return last.Response, nil
}

// askedAll tells whether the request failed everywhere, as far as anything could
// be asked.
func (c *call) askedAll(now time.Time) bool {
	for d := range c.route.all {
		if !slices.Contains(c.tried, d) && c.scope.accepts(d, now) {
			return false
		}
	}
	return true
}

// spared tells whether one was not asked as it is drained.
func (c *call) skippedDrained() bool {
	for d := range c.route.all {
		if d.backend.drained.Load() && !slices.Contains(c.tried, d) {
			return true
		}
	}
	return false
}

// giveUp ends a call whose caller left.
func (c *call) callerLeft() {
	c.pardonFailures()
	c.discard()
}

// forget drops what a request seemed to say against deployments that nobody
// answered: it is taken for the cause itself.
func (c *call) pardonFailures() {
	opened := false
	for s := range c.resolved {
		if s.counted {
			now := time.Now()
			opened = s.health.Pardon(now, s.undo) || opened
			c.tell(s.health, s.d, now, s.outcome)
		}
	}
	if opened {
		c.transport.opened.notify()
	}
}

// confirm counts what a request said against deployments. Where no other one has
// answered it the request may be the cause after all: then the time that a failure
// came with is not obeyed.
func (c *call) countFailures(now time.Time, answered bool) {
	for s := range c.resolved {
		switch {
		case s.counted:
		case s.outcome.wait > 0 && answered:
			c.coolDown(&s.d.State, s.d, s.seen, health.Refusal{Sent: s.sent}, s.outcome)
			continue
		default:
			s.count(c, now)
		}
		c.tell(s.health, s.d, now, s.outcome)
	}
}

// resolved is every suspicion, which is none any more: what is told of it may
// panic.
func (c *call) resolved(yield func(provisionalFailure) bool) {
	for len(c.pendingFailures) > 0 {
		s := c.pendingFailures[0]
		if c.pendingFailures = c.pendingFailures[1:]; !s.counted {
			s.d.PendingFailures.Add(-1)
		}
		if !yield(s) {
			return
		}
	}
}

// discard closes the answers that are not handed over.
func (c *call) discard() {
	c.failedAnswer.discard()
	c.throttledAnswer.discard()
	c.notFoundAnswer.discard()
}

func (k *fallbackAnswer) discard() {
	if k.Response != nil {
		k.Body.Close()
		k.Response = nil
	}
}
