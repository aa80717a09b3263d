package spillover

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/spillover-go/spillover/internal/wire"
)

// The fates of an answer that is read by the caller. It has none while it is
// read, nor when the caller leaves it.
const (
	endComplete int32 = iota + 1
	endInterrupted
)

// What becomes of requests and attempts, beside the verdicts.
const (
	outcomeSynthesized = "synthesized" // the answer was made here
	outcomeCanceled    = "canceled"    // the caller's context ended
	outcomeBroken      = "broken"      // the answer was the caller's and broke off
)

func (v verdict) String() string {
	return [...]string{"served", "rejected", "throttled", "declined", "failed"}[v]
}

// conclude records a request whose RoundTrip returns. One whose answer is still
// to be read ends with that.
func (c *call) conclude(resp *http.Response, err error) {
	if c.span == nil {
		c.stopWatchingCancel()
		return // it was none
	}
	c.outcome, c.errorType = c.result(resp, err)
	c.warn(resp)
	a := attemptOf(resp)
	if a == nil && resp != nil && resp.Body == http.NoBody {
		a = c.answeredBy // which has ended with it
	}
	if c.recording {
		c.took = time.Since(c.begun)
		c.streams = a != nil && a.mediaType == wire.EventStream
		c.countAnswer(resp, a)
	}
	if a == nil || a.detached.Swap(true) {
		c.finish(a)
	}
}

// countAnswer records what is known when an answer, if any, is handed over.
func (c *call) countAnswer(resp *http.Response, a *attempt) {
	t := c.telemetry
	if c.waited > 0 {
		t.waits.Record(c.ctx, c.waited.Seconds(), newLabels(c.ofModel()...).record...)
	}
	switch {
	case c.outcome == outcomeSynthesized:
		t.synthesized.Add(c.ctx, 1, newLabels(c.ofModel(keyStatus.Int(resp.StatusCode))...).add...)
	case c.outcome == served.String() && a != nil:
		if a.deployment.name != "" && c.identify(a.deployment).model == otherModels {
			c.pool.models.meet(a.deployment.model)
		}
		t.firstContent.Record(c.ctx, c.took.Seconds(), c.identify(a.deployment).all.record...)
	}
}

// result is how RoundTrip ended.
func (c *call) result(resp *http.Response, err error) (outcome string, problem attribute.KeyValue) {
	switch {
	case err != nil && c.callerErr() != nil:
		return outcomeCanceled, c.leaving()
	case err != nil:
		if _, ok := err.(*noAnswerError); ok {
			return failed.String(), errorType(0, "no answer")
		}
		return failed.String(), errorType(0, "_OTHER")
	case c.answeredFrom == "" && wire.Header(resp.Header, headerSynthesized) != "":
		return outcomeSynthesized, errorType(resp.StatusCode, "")
	case resp.StatusCode < 400:
		return served.String(), attribute.KeyValue{}
	case failsOver(resp.StatusCode):
		return failed.String(), errorType(resp.StatusCode, "")
	}
	return rejected.String(), errorType(resp.StatusCode, "")
}

// leaving is why the caller left.
func (c *call) leaving() attribute.KeyValue {
	// An http.Client with a Timeout closes Request.Cancel and ends the context, in
	// either order.
	deadline, limited := c.Context().Deadline()
	if limited && !time.Now().Before(deadline) || errors.Is(c.Context().Err(), context.DeadlineExceeded) {
		return errorType(0, "timeout")
	}
	return errorType(0, "canceled")
}

// behind is the attempt whose answer is still to be read.
func attemptOf(resp *http.Response) *attempt {
	if resp == nil {
		return nil
	}
	switch b := resp.Body.(type) {
	case *responseBody:
		return b.attempt
	case upgradedBody:
		return b.attempt
	}
	return nil
}

// finish records a request that has ended with its answer.
func (c *call) finish(a *attempt) {
	defer c.stopWatchingCancel()
	outcome, problem := c.outcome, c.errorType
	if a != nil && outcome == served.String() {
		switch fate := a.endState.Load(); {
		case fate == endInterrupted:
			outcome, problem = outcomeBroken, errorType(0, "answer broke off")
		case fate != endComplete && c.callerErr() != nil:
			outcome, problem = outcomeCanceled, c.leaving()
		}
		a.record(outcome, problem)
	}
	if c.recording {
		c.count(outcome, problem)
	}
	c.closeSpan(outcome, problem)
}

// count records a request in the metrics of requests.
func (c *call) count(outcome string, problem attribute.KeyValue) {
	t, took := c.telemetry, time.Since(c.begun).Seconds()
	if c.answeredBy != nil && outcome == served.String() {
		l := c.identify(c.answeredBy.deployment).request
		t.requests.Add(c.ctx, 1, l.add...)
		t.duration.Record(c.ctx, took, l.record...)
		return
	}
	attributes := c.ofModel(keyOutcome.String(outcome))
	if c.answeredBy != nil {
		attributes = append(attributes, keyTier.Int(c.answeredBy.deployment.backend.priority))
	}
	t.duration.Record(c.ctx, took, newLabels(attributes...).record...)
	if problem.Valid() {
		attributes = append(attributes, problem)
	}
	t.requests.Add(c.ctx, 1, newLabels(attributes...).add...)
}

// judged records an attempt that did not serve the request. The outcome that it
// gives back can be shown.
func (a *attempt) judged(o outcome, err error) outcome {
	if err != nil && a.call.callerErr() != nil {
		a.record(outcomeCanceled, a.call.leaving())
		a.log(outcomeCanceled, outcome{})
		return o
	}
	o = a.call.recordFailure(a.deployment, o, a.bearerToken)
	a.record(o.verdict.String(), errorType(o.status, o.reason))
	a.log(o.verdict.String(), o)
	return o
}

// record records an attempt, once.
func (a *attempt) record(outcome string, problem attribute.KeyValue) {
	c := a.call
	c.countAttempt(a.deployment, outcome, problem)
	if c.recording {
		t, id := c.telemetry, c.identify(a.deployment)
		if n := a.input.Load(); n > 0 {
			t.tokens.Add(c.ctx, n, id.input.add...)
		}
		if n := a.output.Load(); n > 0 {
			t.tokens.Add(c.ctx, n, id.output.add...)
		}
	}
	a.closeSpan(problem)
}

func (c *call) countAttempt(d *deployment, outcome string, problem attribute.KeyValue) {
	if !c.recording {
		return
	}
	t, id := c.telemetry, c.identify(d)
	if outcome == served.String() {
		t.attempts.Add(c.ctx, 1, id.served.add...)
		return
	}
	t.attempts.Add(c.ctx, 1, id.with(keyOutcome.String(outcome), problem).add...)
}

func (c *call) identify(d *deployment) *identity { return c.pool.identify(c.table, d) }

// ofModel are attributes with that of the request's model.
func (c *call) ofModel(more ...attribute.KeyValue) []attribute.KeyValue {
	return ofModel(c.pool.models.label(c.table, c.model), more...)
}
