package spillover

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// A call is one request in progress: attempts, until one is answered or none is
// left. The goroutine of RoundTrip owns it.
type call struct {
	request
	*activeConfig
	*pool
	every *route // all deployments of its model, whether it may use them or not; nil if there are none
	route *route
	scope scope

	options *options

	sends       int           // attempts that were sent
	failures    int           // of those, the ones that count toward MaxAttempts
	tried       []*deployment // in order, each once
	throttledBy []*deployment // of those, the ones that were rate-limited and may be asked once more
	unsuitable  []*deployment // of those, the ones that cannot take this request

	seeking         bool // for a stored object whose resource is unknown
	notFoundAtHome  bool // the object's own resource did not find it
	mayAskHomeAgain bool // and may find it a moment later
	askedAgain      bool
	fallenBack      bool           // to models for longer requests
	awaitedTiers    uint16         // for so many of the first tiers it waits next
	notFoundAnswer  fallbackAnswer // the response of that resource
	fallbackRoute   *route         // asked next if the object's own resource does not find it; nil if that is unknown
	affinity        affinity
	waited          time.Duration

	cancelWatch context.CancelCauseFunc // ends watchCancel; nil without a watch

	pendingFailures []provisionalFailure // not confirmed by another deployment's response yet

	final              bool           // the request must not be sent again: it may have been carried out
	throttled          bool           // an attempt was rate-limited
	maybeRequestsFault bool           // an attempt failed, and the request may be the cause
	triedKnownFailing  bool           // a deployment that is known to fail has failed again
	unanswered         bool           // the caller's deadline ended after more time than a response may take
	throttledAnswer    fallbackAnswer // of the last attempt that was rate-limited
	failedAnswer       fallbackAnswer // of the last attempt that failed otherwise
	errs               []error        // of the attempts without a response

	answeredFrom *deployment // that sent the response; nil for a generated one

	// What is recorded of it.
	ctx        context.Context // the caller's, with the request's span
	recorded   requestRecord
	answeredBy *attempt // the attempt that got the response; nil for a generated one and for an error

	// How RoundTrip ended.
	outcome        string
	errorType      string // "" without an error
	failedAttempts []failedAttempt

	lastAttempt   *attempt
	firstAttempt  attempt // in place, like the fields below, to save allocations
	answer        responseBody
	triedSpace    [4]*deployment
	answerHeaders [2]string
}

// A fallbackAnswer is a response that goes to the caller only if there is no
// better one.
type fallbackAnswer struct {
	*http.Response
	from *deployment
}

// do runs the loop: choose, send and judge until there is a response for the
// caller.
func (c *call) do() (*http.Response, error) {
	c.options = contextOptions(c.Context())
	if t := c.options.trail; t != nil {
		*t = Trail{}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.options = c.options.withRules(&c.cfg, c.Request)
	c.recorded.Background = c.options.class == Background
	if c.Response != nil && c.redirected() {
		c.startRecord()
		return c.follow()
	}
	c.Request, c.cancelWatch = watchCancel(c.Request)
	err := c.read()
	if c.startRecord(); err != nil {
		return nil, err
	}
	c.refreshKeys()
	if reply := c.findDeployments(); reply != nil {
		return reply, nil
	}
	defer c.leaveQueues()
	for {
		if err := c.callerErr(); err != nil {
			c.callerLeft()
			return nil, err
		}
		now := time.Now()
		if c.pool.closed.Load() {
			return c.endClosed(now)
		}
		a := c.next(now)
		if a == nil && c.awaitedTiers > 0 {
			c.waitForTier(now)
			continue
		}
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
		c.leaveQueues()
		if resp, err := c.attempt(a); resp != nil || err != nil {
			return resp, err
		}
	}
}

// session is the id of the request's session, or "".
func (c *call) session() string {
	switch {
	case c.options.session != "":
		return c.options.session
	case c.cfg.Session != nil:
		return c.cfg.Session(c.Request)
	case c.naming.PromptCacheKey != "":
		return c.naming.PromptCacheKey
	}
	if id := agentSession(c.Header); id != "" {
		return id
	}
	if hash := c.naming.PromptHash; hash != 0 {
		return "prompt " + strconv.FormatUint(uint64(hash), 16)
	}
	return ""
}

// check is the error of a request that cannot be sent at all.
func (c *call) check() error {
	switch {
	case c.pool.closed.Load():
		return errClosed
	case c.URL == nil:
		return errors.New("spillover: the request has no URL")
	case c.URL.Opaque != "":
		return errors.New("spillover: the request's URL is opaque")
	}
	return nil
}

// findDeployments finds out, once the request has been read, which deployments may
// take it. If there are none it returns the response.
func (c *call) findDeployments() *http.Response {
	c.tried = c.triedSpace[:0]
	c.affinity = newAffinity(c.session(), c.model)
	c.scope = scope{op: uint16(c.operationIndex()), background: c.isBackground(), callers: &c.pool.callers}
	if c.table.callerCredentials {
		c.scope.caller = callerOf(c.Request)
	}
	if t := c.options.trail; t != nil {
		t.begin(c.model, c.options.tags, c.options.class, c.affinity != 0, c.tokens)
	}
	if c.findRoute(); c.route == nil {
		return c.noRoute()
	}
	c.skipTooLong()
	return nil
}

// isBackground reports whether interactive requests go before the request.
func (c *call) isBackground() bool {
	return c.options.class == Background && c.Method == http.MethodPost
}

// noRoute is the response to a request that no backend may take.
func (c *call) noRoute() *http.Response {
	if len(c.options.tags) > 0 && c.every != nil {
		return noBackendWithTags(c.Request, c.model, c.options.tags)
	}
	return unknownModel(c.Request, c.model, c.table.models)
}

// selection is what the next deployment is chosen for.
func (c *call) selection(now time.Time) selection {
	q := selection{scope: c.scope, now: now, tried: c.tried, tokens: c.tokens, affinity: c.affinity, selector: c.cfg.Selector, random: c.pool.random,
		heedsReports: c.replica != nil, throttled: c.throttled, seeking: c.seeking}
	if c.failures > 0 {
		q.attemptsLeft = c.cfg.MaxAttempts - c.failures
	}
	return q
}

// mayResend reports whether the request may be sent once more.
func (c *call) mayResend() bool {
	return !c.final && c.body.CanSend() && c.failures < c.cfg.MaxAttempts
}

// next takes a deployment for the next attempt.
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
		if a := c.secondAttempt(&q, t); a != nil {
			return a
		}
		if !q.minimumRate && c.prefersToWait(now, t) {
			c.consider(&q, nil)
			return nil
		}
		if a := c.newAttempt(d, now, q.ignoreHeadroom); a != nil {
			c.consider(&q, d)
			if c.lastAttempt == nil {
				q.passOver(d)
			}
			a.cost = t.payForRetry(&q, d)
			c.tried = append(c.tried, d)
			return a
		}
		q.noPlace = append(q.noPlace, d)
	}
	c.consider(&q, nil)
	// A deployment that was rate-limited for this request may be open again.
	for i, d := range c.throttledBy {
		if c.scope.admits(d, now) && (c.seeking || d.tier.budget.Has(health.AttemptCost)) {
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

// secondAttempt is one more attempt at the deployment that was asked last, if the next
// one is in a lower tier, which usually costs more. It is made once per request, after
// its first failure, and only if that is transient and nothing else is held against the
// deployment. The retry budget of the tier pays for it, and it leaves an attempt for
// each tier below.
//
// It is made at once. A 5xx or a reset comes from one of many servers behind a
// deployment, and the next attempt usually reaches another one: a pause would not
// change that, and the next tier could have answered in the meantime.
func (c *call) secondAttempt(q *selection, next *tier) *attempt {
	last := c.lastAttempt
	if last == nil || !last.transient || c.failures > 1 || c.seeking {
		return nil
	}
	d := last.deployment
	again := *q
	again.tried, again.healthyOnly = nil, true
	own := c.route.position(d.tier)
	switch {
	case own < 0 || c.route.position(next) <= own: // not in a lower tier
		return nil
	case again.skips(d) != notSkipped || d.PendingFailures.Load() > 1: // another request has failed there, too
		return nil
	case q.attemptsLeft <= c.route.openBelow(own+1, q) || !d.tier.budget.Spend(health.AttemptCost):
		return nil
	}
	a := c.newAttempt(d, q.now, q.ignoreHeadroom)
	if a == nil {
		d.tier.budget.Earn(health.AttemptCost)
		return nil
	}
	c.consider(q, d)
	a.repeated, a.secondInTier, a.cost = true, true, health.AttemptCost
	return a
}

// choose asks the route. A deployment that seems silent is skipped while there
// is another one. It is ejected if another deployment has responded in the
// meantime. If that is not known, this request is sent elsewhere to find out.
func (c *call) choose(q *selection) (*tier, *deployment) {
	t, chosen := c.route.choose(q)
	for _, d := range q.silent {
		switch {
		case d.SeemsSilent(q.now) && d.outdone(c.route, q.now):
			if !c.options.explain && d.EjectSilent(q.now) {
				c.recordTransition(&d.State, d, q.now, outcome{reason: "silent"})
			}
		case chosen != nil && chosen.model == d.model && d.NextComparison.Passed(q.now) && !d.outdone(c.route, q.now):
			if !c.options.explain {
				d.NextComparison.Set(q.now.Add(health.ComparisonInterval))
			}
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

// exhausted is the response when no deployment is left to ask. It returns
// neither a response nor an error after a wait, when there may be a deployment
// again.
func (c *call) exhausted(now time.Time) (*http.Response, error) {
	// If MaxAttempts has ended it, and not every deployment was asked, the failures
	// count. Otherwise a tier of as many bad deployments would keep callers from the
	// next tier forever.
	if c.failures < c.cfg.MaxAttempts || c.final || c.askedAll(now) {
		c.pardonFailures()
	} else {
		c.countFailures(now, nil)
	}
	if c.notFoundAnswer.Response != nil {
		// Nobody else has it either: the object's own resource has the best answer.
		resp, from := c.notFoundAnswer.Response, c.notFoundAnswer.from
		c.notFoundAnswer = fallbackAnswer{}
		c.discard()
		c.answeredFrom = from
		return resp, nil
	}
	o := c.scope.outlook(c.route, now, c.unsuitable)
	// A failure of one deployment says nothing about the others: if one of those is
	// only rate-limited, waiting helps.
	if !c.maybeRequestsFault && (c.throttled || o.temporary()) && o.soonest != nil && c.body.CanSend() {
		if c.waitForDeployment(now, o) {
			return nil, nil
		}
		c.discard()
		c.answeredFrom = nil
		return unavailable(c.Request, c.model, o, time.Now()), nil
	}
	last, other := c.failedAnswer, c.throttledAnswer
	if last.Response == nil {
		last, other = other, last
	}
	// Not found, but the object may be where nobody was asked or has answered.
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

// tooLong excludes the deployments of a model that is too small for the request. goesOn
// is whether the request goes on nevertheless: it falls back to another model, or
// has fallen back to this one and may fit into its own (ownMayFit), which is only
// unavailable now.
func (c *call) tooLong(d *deployment) (goesOn, ownMayFit bool) {
	if !c.body.CanSend() || c.final {
		return false, false
	}
	if d.model != c.model {
		for own := range c.route.all {
			ownMayFit = ownMayFit || own.model == c.model
		}
	}
	switch longer := c.route.longer; {
	case ownMayFit:
		c.route = c.route.and(longer)
	case longer != nil:
		c.route, c.fallenBack = longer, true
	case !c.fallenBack:
		return false, false
	}
	left := false
	for other := range c.route.all {
		switch {
		case slices.Contains(c.tried, other):
		case other.model == d.model:
			c.tried, c.unsuitable = append(c.tried, other), append(c.unsuitable, other)
		default:
			left = true
		}
	}
	return left || ownMayFit, ownMayFit
}

// askedAll reports whether the request failed at every deployment that could be
// asked.
func (c *call) askedAll(now time.Time) bool {
	for d := range c.route.all {
		if !slices.Contains(c.tried, d) && c.scope.accepts(d, now) {
			return false
		}
	}
	return true
}

// skippedDrained reports whether a deployment was not asked because it is
// drained.
func (c *call) skippedDrained() bool {
	for d := range c.route.all {
		if d.backend.drained.Load() && !slices.Contains(c.tried, d) {
			return true
		}
	}
	return false
}

// callerLeft ends a call whose caller has left.
func (c *call) callerLeft() {
	c.pardonFailures()
	c.discard()
}

// discard closes the responses that are not returned.
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

// callerErr is why the caller has left, see [callerErr]. An error of the base shows
// nothing about a deployment then.
func (c *call) callerErr() error { return callerErr(c.Request) }

// abandon gives back what a panic has left behind. A server may recover from
// it.
func (c *call) abandon() {
	if c.lastAttempt != nil {
		c.lastAttempt.abandon()
	}
	c.discard()
	c.stopWatchingCancel()
	c.recordPanic()
}

// stopWatchingCancel ends watchCancel.
func (c *call) stopWatchingCancel() {
	if c.cancelWatch != nil {
		c.cancelWatch(nil)
	}
}
