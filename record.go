package spillover

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/wire"
)

// A callRecord is what is recorded of a request.
type callRecord struct {
	ctx   context.Context // the caller's, with the request's span
	span  trace.Span      // nil until the request has been read
	told  bool            // somebody listens
	begun time.Time
	by    *sending // whose answer it is; nil for one of our own and for a failure

	// How RoundTrip ended, and how long it took: to the first content.
	outcome string
	problem attribute.KeyValue // the class of an error; else not valid
	took    time.Duration
	streams bool
	lapses  []lapse // attempts that failed
}

// An attemptRecord is what is recorded of an attempt.
type attemptRecord struct {
	span          trace.Span   // nil when there is none, and once it has ended
	status        int          // of the answer's header
	input, output atomic.Int64 // tokens
	fate          atomic.Int32 // of an answer that is read by the caller
	parted        atomic.Bool  // either the answer has ended or RoundTrip has returned
}

// The fates of an answer that is read by the caller. It has none while it is
// read, nor when the caller leaves it.
const (
	endedWhole int32 = iota + 1
	endedBroken
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
		c.unheed()
		return // it was none
	}
	c.outcome, c.problem = c.result(resp, err)
	c.warn(resp)
	s := behind(resp)
	if s == nil && resp != nil && resp.Body == http.NoBody {
		s = c.by // which has ended with it
	}
	if c.told {
		c.took = time.Since(c.begun)
		c.streams = s != nil && wire.IsStream(resp.Header)
		c.countAnswer(resp, s)
	}
	if s == nil || s.parted.Swap(true) {
		c.finish(s)
	}
}

// countAnswer records what is known when an answer, if any, is handed over.
func (c *call) countAnswer(resp *http.Response, s *sending) {
	t := c.telemetry
	if c.waited > 0 {
		t.waits.Record(c.ctx, c.waited.Seconds(), newLabels(c.ofModel()...).record...)
	}
	switch {
	case c.outcome == outcomeSynthesized:
		t.synthesized.Add(c.ctx, 1, newLabels(c.ofModel(keyStatus.Int(resp.StatusCode))...).add...)
	case c.outcome == served.String() && s != nil:
		if s.d.name != "" && c.identify(s.d).model == otherModels {
			c.transport.models.meet(s.d.model)
		}
		t.firstContent.Record(c.ctx, c.took.Seconds(), c.identify(s.d).all.record...)
	}
}

// result is how RoundTrip ended.
func (c *call) result(resp *http.Response, err error) (outcome string, problem attribute.KeyValue) {
	switch {
	case err != nil && c.leftErr() != nil:
		return outcomeCanceled, c.leaving()
	case err != nil:
		if _, ok := err.(*noAnswerError); ok {
			return failed.String(), errorType(0, "no answer")
		}
		return failed.String(), errorType(0, "_OTHER")
	case c.from == "" && wire.Header(resp.Header, headerSynthesized) != "":
		return outcomeSynthesized, errorType(resp.StatusCode, "")
	case resp.StatusCode < 400:
		return served.String(), attribute.KeyValue{}
	case leaves(resp.StatusCode):
		return failed.String(), errorType(resp.StatusCode, "")
	}
	return answered.String(), errorType(resp.StatusCode, "")
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
func behind(resp *http.Response) *sending {
	if resp == nil {
		return nil
	}
	switch b := resp.Body.(type) {
	case *answerBody:
		return b.send
	case upgradedBody:
		return b.send
	}
	return nil
}

// finish records a request that has ended with its answer.
func (c *call) finish(s *sending) {
	defer c.unheed()
	outcome, problem := c.outcome, c.problem
	if s != nil && outcome == served.String() {
		switch fate := s.fate.Load(); {
		case fate == endedBroken:
			outcome, problem = outcomeBroken, errorType(0, "answer broke off")
		case fate != endedWhole && c.leftErr() != nil:
			outcome, problem = outcomeCanceled, c.leaving()
		}
		s.record(outcome, problem)
	}
	if c.told {
		c.count(outcome, problem)
	}
	c.closeSpan(outcome, problem)
}

// count records a request in the metrics of requests.
func (c *call) count(outcome string, problem attribute.KeyValue) {
	t, took := c.telemetry, time.Since(c.begun).Seconds()
	if c.by != nil && outcome == served.String() {
		l := c.identify(c.by.d).request
		t.requests.Add(c.ctx, 1, l.add...)
		t.duration.Record(c.ctx, took, l.record...)
		return
	}
	attributes := c.ofModel(keyOutcome.String(outcome))
	if c.by != nil {
		attributes = append(attributes, keyTier.Int(c.by.d.backend.priority))
	}
	t.duration.Record(c.ctx, took, newLabels(attributes...).record...)
	if problem.Valid() {
		attributes = append(attributes, problem)
	}
	t.requests.Add(c.ctx, 1, newLabels(attributes...).add...)
}

// judged records an attempt that did not serve the request. The outcome that it
// gives back can be shown.
func (s *sending) judged(o outcome, err error) outcome {
	if err != nil && s.call.leftErr() != nil {
		s.record(outcomeCanceled, s.call.leaving())
		s.log(outcomeCanceled, outcome{})
		return o
	}
	o = s.call.note(s.d, o, s.bearer)
	s.record(o.verdict.String(), errorType(o.status, o.reason))
	s.log(o.verdict.String(), o)
	return o
}

// record records an attempt, once.
func (s *sending) record(outcome string, problem attribute.KeyValue) {
	c := s.call
	c.countAttempt(s.d, outcome, problem)
	if c.told {
		t, id := c.telemetry, c.identify(s.d)
		if n := s.input.Load(); n > 0 {
			t.tokens.Add(c.ctx, n, id.input.add...)
		}
		if n := s.output.Load(); n > 0 {
			t.tokens.Add(c.ctx, n, id.output.add...)
		}
	}
	s.closeSpan(problem)
}

func (c *call) countAttempt(d *deployment, outcome string, problem attribute.KeyValue) {
	if !c.told {
		return
	}
	t, id := c.telemetry, c.identify(d)
	if outcome == served.String() {
		t.attempts.Add(c.ctx, 1, id.served.add...)
		return
	}
	t.attempts.Add(c.ctx, 1, id.with(keyOutcome.String(outcome), problem).add...)
}

func (c *call) identify(d *deployment) *identity { return c.transport.identify(c.table, d) }

// ofModel are attributes with that of the request's model.
func (c *call) ofModel(more ...attribute.KeyValue) []attribute.KeyValue {
	return ofModel(c.transport.models.label(c.table, c.model), more...)
}
