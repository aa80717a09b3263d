package spillover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A call is one RoundTrip: attempts, until one answers or none is left.
type call struct {
	request
	*activeConfig
	*pool
	route *route
	scope scope

	sends       int           // attempts that were sent
	failures    int           // of those, the ones that MaxAttempts bounds
	tried       []*deployment // each once, in order
	throttledBy []*deployment // of those, the ones that throttled and may be asked once more
	unsuitable  []*deployment // of those, the ones that did not take this very request

	seeking         bool // it is about a stored object of which the resource is not known
	notFoundAtHome  bool // where it is known: it said that it is not there
	mayAskHomeAgain bool // and may say otherwise if it is asked again
	askedAgain      bool
	notFoundAnswer  fallbackAnswer // what it said
	fallbackRoute   *route         // who is asked if the object is not there after all; nil where the resource is not known
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
	recorded   requestRecord
	answeredBy *attempt // whose answer it is; nil for one of our own and for a failure

	// How RoundTrip ended.
	outcome        string
	errorType      string          // "" without an error
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

// do finds the answer.
func (c *call) do() (*http.Response, error) {
	switch {
	case c.pool.closed.Load():
		return nil, fmt.Errorf("spillover: the transport is closed: %w", net.ErrClosed)
	case c.URL == nil:
		return nil, errors.New("spillover: the request has no URL")
	case c.URL.Opaque != "":
		return nil, errors.New("spillover: the request's URL is opaque")
	}
	if c.Response != nil && c.redirected() {
		c.startRecord()
		return c.follow()
	}
	c.watchCancel()
	err := c.read()
	if c.startRecord(); err != nil {
		return nil, err
	}
	c.tried = c.triedSpace[:0]
	c.affinity = newAffinity(c.session(c.cfg.Session), c.model)
	c.scope = scope{op: wire.OperationIndex(c.Operation), callers: &c.pool.callers}
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
	q := selection{scope: c.scope, now: now, tried: c.tried, tokens: c.tokens, affinity: c.affinity, selector: c.cfg.Selector, random: c.pool.random}
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
				c.recordTransition(&d.State, d, q.now, outcome{reason: "silent"})
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
	o := c.scope.outlook(c.route, now, c.unsuitable)
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

// errRequestCanceled is what net/http says of a request whose Cancel is closed.
var errRequestCanceled = errors.New("net/http: request canceled")

// leftErr is why the caller has left: its context has ended or it has closed
// Request.Cancel, as an http.Client does after its Timeout. What a base returns
// then says nothing of a deployment. It is nil while the caller waits.
func (c *call) callerErr() error {
	err := context.Cause(c.Context())
	if err == nil && canceled(c.Request) {
		err = errRequestCanceled
	}
	// An http.Client's Timeout is a deadline, whichever it ends first.
	if deadline, limited := c.Context().Deadline(); err == errRequestCanceled && limited && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return err
}

// heedCancel makes the request's context end when Request.Cancel is closed, until
// unheed, so that what heeds the one heeds the other. A base that heeds Cancel may
// still be sooner.
func (c *call) watchCancel() {
	if c.Cancel == nil {
		return
	}
	ctx, cancel := context.WithCancelCause(c.Context())
	c.unheedCancel = cancel
	c.Request = c.WithContext(ctx)
	go func(closed <-chan struct{}) {
		select {
		case <-closed:
			cancel(errRequestCanceled)
		case <-ctx.Done():
		}
	}(c.Cancel)
}

// abandon gives back what a panic, from which a server may recover, has left
// behind.
func (c *call) abandon() {
	if c.lastAttempt != nil {
		c.lastAttempt.abandon()
	}
	c.discard()
	c.stopWatchingCancel()
	c.recordPanic()
}

// unheed ends heedCancel.
func (c *call) stopWatchingCancel() {
	if c.unheedCancel != nil {
		c.unheedCancel(nil)
	}
}
