package spillover

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/redact"
	"github.com/spillover-go/spillover/internal/telemetry"
	"github.com/spillover-go/spillover/internal/wire"
)

// What is recorded of requests, attempts and deployments passes through this file:
// it turns the package's types into the plain values that internal/telemetry takes.
// No decision depends on it.

// A bodyEnd is how the body of a response ended that the caller reads.
type bodyEnd struct {
	complete bool
	cause    string // of an interruption; safe to show, may be empty
}

// The ends of most bodies.
var endComplete, endInterrupted = &bodyEnd{complete: true}, &bodyEnd{}

// The outcomes of requests and attempts, beside the verdicts.
const (
	outcomeSynthesized = "synthesized" // the response was generated here
	outcomeCanceled    = "canceled"    // the caller's context ended
	outcomeBroken      = "broken"      // the response broke off while the caller read it
)

// startRecord starts the request's span, once the request has been read.
func (c *call) startRecord() {
	c.ctx = c.recorded.Start(c.Context(), c.recorder, spanOperation(c.Method, c.Operation), c.model)
}

// spanOperation is the attribute gen_ai.operation.name. An operation without a name
// in the GenAI conventions has the first segment of its path.
func spanOperation(method, op string) string {
	root, rest := wire.CutSegment(op)
	switch {
	case method == http.MethodPost && (op == "chat/completions" || op == "responses"):
		return "chat"
	case op == "completions":
		return "text_completion"
	case fetchesResponse(method, op):
		return "fetch_response"
	case method == http.MethodPost && root == "vector_stores" && strings.HasSuffix(rest, "/search"):
		return "retrieval"
	case root == "chat":
		return "chat_completions" // stored ones
	case wire.IsCollection(root):
		return root
	}
	return "other"
}

// recordReturn records a request whose RoundTrip returns. One whose response is
// still to be read ends with that.
func (c *call) recordReturn(resp *http.Response, err error) {
	if !c.recorded.Started() {
		c.stopWatchingCancel()
		return // it could not be read as a request
	}
	c.outcome, c.errorType = c.result(resp, err)
	c.trailReturn(resp, err)
	failures := c.causes(resp)
	c.warn(failures)
	a := attemptOf(resp)
	if a == nil && resp != nil && resp.Body == http.NoBody {
		a = c.answeredBy // which has ended with it
	}
	if c.recorded.Enabled() {
		r := telemetry.Response{Outcome: c.outcome, Synthesized: c.outcome == outcomeSynthesized, Waited: c.waited}
		if resp != nil {
			r.Status = resp.StatusCode
		}
		if a != nil {
			r.Deployment, r.Streams = a.deployment.labels(), a.mediaType == wire.EventStream
		}
		c.recorded.Return(c.ctx, r)
	}
	if a == nil || a.detached.Swap(true) {
		c.recordEnd(a, c.describe(err, failures))
	}
}

// result is how RoundTrip ended.
func (c *call) result(resp *http.Response, err error) (outcome, errorType string) {
	switch {
	case err != nil && c.callerErr() != nil:
		return outcomeCanceled, c.cancelType()
	case err != nil:
		if _, ok := err.(*noAnswerError); ok {
			return failed.String(), telemetry.ErrorType(0, "no answer")
		}
		return failed.String(), telemetry.ErrorType(0, "")
	case c.answeredFrom == nil && wire.Header(resp.Header, headerSynthesized) != "":
		return outcomeSynthesized, telemetry.ErrorType(resp.StatusCode, "")
	case resp.StatusCode < 400:
		return served.String(), ""
	case failsOver(resp.StatusCode):
		return failed.String(), telemetry.ErrorType(resp.StatusCode, "")
	}
	return rejected.String(), telemetry.ErrorType(resp.StatusCode, "")
}

// cancelType is the error type of a request whose caller has left.
func (c *call) cancelType() string {
	// An http.Client with a Timeout closes Request.Cancel and ends the context, in
	// either order.
	deadline, limited := c.Context().Deadline()
	if limited && !time.Now().Before(deadline) || errors.Is(c.Context().Err(), context.DeadlineExceeded) {
		return telemetry.ErrorType(0, "timeout")
	}
	return telemetry.ErrorType(0, "canceled")
}

// attemptOf is the attempt whose response is still to be read.
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

// recordEnd records a request that has ended with its response. text is what its span
// says of an error.
func (c *call) recordEnd(a *attempt, text string) {
	defer c.stopWatchingCancel()
	outcome, errorType := c.outcome, c.errorType
	if a != nil && outcome == served.String() {
		switch end := a.bodyEnd.Load(); {
		case end != nil && !end.complete:
			outcome, errorType, text = outcomeBroken, telemetry.ErrorType(0, "answer broke off"), end.cause
		case end == nil && c.callerErr() != nil:
			outcome, errorType = outcomeCanceled, c.cancelType()
		}
		a.recordEnd(outcome, errorType, text)
	}
	e := telemetry.RequestEnd{Outcome: outcome, ErrorType: errorType, ErrorText: text, Attempts: c.sends, Waited: c.waited}
	if by := c.answeredBy; by != nil {
		e.Deployment, e.URL, e.Status = by.deployment.labels(), &by.url, by.status
		e.Input, e.Output = by.input.Load(), by.output.Load()
	}
	c.recorded.End(c.ctx, e)
}

// recordPanic records a request that a panic has cut short.
func (c *call) recordPanic() {
	if c.recorded.Started() {
		c.outcome, c.errorType = failed.String(), telemetry.ErrorType(0, "panic")
		c.recordEnd(nil, "")
	}
}

// startSpan starts the attempt's span: what the base does with the request is
// beneath it.
func (a *attempt) startSpan(out *http.Request) *http.Request {
	c := a.call
	ctx, ok := c.recorded.StartAttempt(out.Context(), &a.recorded, telemetry.AttemptStart{
		Deployment: a.deployment.labels(), Method: out.Method, URL: &a.url, Resend: c.sends,
	})
	if !ok {
		return out
	}
	return out.WithContext(ctx)
}

// consider keeps what the request considers now, for the next step of its trail.
func (c *call) consider(q *selection, chosen *deployment) {
	if t := c.options.trail; t != nil {
		t.next = TrailStep{}
		t.next.Candidates, t.next.More = q.candidates(c.route, c.every, c.options.tags, chosen)
	}
}

// trail adds the attempt to the request's trail, once its outcome is known.
func (a *attempt) trail(outcome string, o outcome) {
	t := a.call.options.trail
	if t == nil {
		return
	}
	d := a.deployment
	s := t.step(a.sentAt, TrailSend)
	s.markChosen(d) // where none was open, it was not chosen before
	switch {
	case a.isProbe():
		s.Why = "half-open probe"
	case a.lastResort:
		s.Why = resortLearned.String()
	case a.knownToFail:
		s.Why = resortEjected.String()
	case a.secondInTier:
		s.Why = "once more in the same tier"
	case a.repeated:
		s.Why = "sent there again"
	}
	s.Attempt = &TrailAttempt{
		Backend: d.backend.name, Deployment: redact.Brief(d.name), Outcome: outcome, Status: o.status, Reason: o.reason,
		TookMS: time.Since(a.sentAt).Milliseconds(),
	}
	if o.verdict != rejected { // its text may quote the request
		s.Attempt.Cause = o.detail
	}
	t.add(s)
}

// trailReturn completes the trail.
func (c *call) trailReturn(resp *http.Response, err error) {
	t := c.options.trail
	if t == nil {
		return
	}
	t.Outcome, t.Backend = c.outcome, c.answeredFrom.backendName()
	switch {
	case err != nil:
		t.Error = redact.Text(err.Error(), callersSecrets(c.Request)...)
		if a := c.lastAttempt; a != nil {
			t.Error = c.redact(err.Error(), a.deployment.backend, a.secret)
		}
	case c.outcome == outcomeSynthesized:
		t.Status = resp.StatusCode
		t.add(t.step(time.Now(), TrailReply))
	default:
		t.Status = resp.StatusCode
	}
}

// recordFailed records an attempt that did not serve the request. The cause of the
// outcome that it returns is safe to show.
func (a *attempt) recordFailed(o outcome, err error) outcome {
	if err != nil && a.call.callerErr() != nil {
		a.recordEnd(outcomeCanceled, a.call.cancelType(), "")
		a.log(outcomeCanceled, outcome{})
		a.trail(outcomeCanceled, outcome{})
		return o
	}
	o = a.call.recordFailure(a.deployment, o, a.secret)
	a.recordEnd(o.verdict.String(), telemetry.ErrorType(o.status, o.reason), o.safeText())
	a.log(o.verdict.String(), o)
	a.trail(o.verdict.String(), o)
	return o
}

// recordUnsent records an attempt that failed before it was sent.
func (a *attempt) recordUnsent(o outcome) outcome {
	c, b := a.call, a.deployment.backend
	if c.callerErr() != nil {
		a.recordEnd(outcomeCanceled, c.cancelType(), "")
		a.trail(outcomeCanceled, outcome{})
		return o
	}
	o = c.recordFailure(a.deployment, o)
	c.recorded.StartAttempt(c.ctx, &a.recorded, telemetry.AttemptStart{
		Deployment: a.deployment.labels(), Method: c.Method, URL: &url.URL{Scheme: b.scheme, Host: b.host, Path: b.base}, Resend: c.sends, Began: a.sentAt,
	})
	a.recordEnd(o.verdict.String(), telemetry.ErrorType(0, o.reason), o.safeText())
	a.trail(o.verdict.String(), o)
	return o
}

// recordServed logs an attempt that serves the request. It is counted when its
// response has ended.
func (a *attempt) recordServed(resp *http.Response) {
	a.call.recorder.Served(a.call.ctx, a.deployment.labels(), &a.deployment.record.episode, telemetry.ResponseInfo{Status: resp.StatusCode})
	if a.call.recorder.LogsAttempts(a.call.ctx) {
		a.log(served.String(), a.successOf(resp))
	}
	a.trail(served.String(), outcome{status: resp.StatusCode})
}

// successOf is what is recorded of a response that is no error.
func (a *attempt) successOf(resp *http.Response) outcome {
	return outcome{status: resp.StatusCode, requestID: a.call.safeID(wire.RequestID(resp.Header), a.deployment.backend, a.secret)}
}

// recordLate keeps why a response failed while the caller was reading it. The cause of
// the outcome that it returns is safe to show.
func (a *attempt) recordLate(o outcome) outcome {
	o = a.call.recordFailure(a.deployment, o, a.secret)
	a.bodyEnd.Store(&bodyEnd{cause: o.safeText()})
	return o
}

// recordEnd records the end of an attempt, once.
func (a *attempt) recordEnd(outcome, errorType, errorText string) {
	a.call.recorded.EndAttempt(a.call.ctx, &a.recorded, telemetry.AttemptEnd{
		Deployment: a.deployment.labels(), Outcome: outcome, ErrorType: errorType, ErrorText: errorText, Status: a.status, Input: a.input.Load(), Output: a.output.Load(),
	})
}

// recordPanic ends the attempt's span, if it has not ended yet.
func (a *attempt) recordPanic() { a.recorded.Abort(a.status, telemetry.ErrorType(0, "panic")) }

// log writes the log record of an attempt.
func (a *attempt) log(outcome string, o outcome) {
	c := a.call
	if !c.recorder.LogsAttempts(c.ctx) {
		return
	}
	r := telemetry.AttemptRecord{Deployment: a.deployment.labels(), Number: c.sends, Outcome: outcome, Took: time.Since(a.sentAt), Response: o.info(), Cause: o.safeText()}
	c.recorder.LogAttempt(c.ctx, r)
}

func (o outcome) info() telemetry.ResponseInfo {
	return telemetry.ResponseInfo{Status: o.status, RequestID: o.requestID, Reason: o.reason}
}

// A failedAttempt is the failure of one of a request's attempts.
type failedAttempt struct {
	d *deployment
	*Failure
}

// recordFailure keeps why an attempt failed, for Status and for the warning if the
// request fails. The reason and the request ID of the outcome that it returns, and its
// cause unless the request itself was wrong, are safe to show. secrets must not be in
// them, beside the credentials that are known here.
func (c *call) recordFailure(d *deployment, o outcome, secrets ...string) outcome {
	o.reason = c.redact(o.reason, d.backend, secrets...) // it may quote the service, too
	o.requestID = c.safeID(o.requestID, d.backend, secrets...)
	misspelt := o.verdict == rejected && strings.Contains(strings.ToLower(o.reason), "apiversion")
	if o.verdict == served || o.verdict == rejected && !misspelt {
		return o
	}
	o.detail = c.redact(o.detail, d.backend, secrets...)
	if o.callersBody || o.elsewhere {
		return o
	}
	f := d.keepFailure(Failure{Time: time.Now(), Status: o.status, Reason: o.reason, Cause: o.detail})
	// A request that is too large for the deployment is not a failure.
	missing := o.status == http.StatusNotFound
	if misspelt || o.verdict == failed || o.verdict == declined && (!o.deploymentOnly || missing) {
		c.failedAttempts = append(c.failedAttempts, failedAttempt{d, f})
	}
	return o
}

// keepFailure keeps the last failure of a deployment and its backend, for Status.
func (d *deployment) keepFailure(f Failure) *Failure {
	d.failure.Store(&f)
	d.backend.sharedState.failure.Store(&f)
	return &f
}

// redact is a text about an attempt as it may be shown: without what looks like a
// credential, those of the backend and the caller, and more.
func (c *call) redact(text string, b *backend, more ...string) string {
	if text == "" {
		return ""
	}
	return redact.Text(text, c.secrets(b, more...)...)
}

// safeID is the service's ID of a request, or "" if it contains a credential.
func (c *call) safeID(id string, b *backend, more ...string) string {
	if id != "" && redact.Contains(id, c.secrets(b, more...)...) {
		return ""
	}
	return id
}

// secrets are the credentials of a backend and of the caller, and more.
func (c *call) secrets(b *backend, more ...string) []string {
	secrets := append(slices.Clone(more), b.currentKey().secret)
	for _, value := range b.headers {
		secrets = append(secrets, value)
	}
	return append(secrets, callersSecrets(c.Request)...)
}

// causes are the failures for which a request has failed: none if it was served, was
// wrong itself, or only met rate limits.
func (c *call) causes(resp *http.Response) []failedAttempt {
	switch by := c.answeredBy; {
	case c.outcome == served.String() || c.outcome == outcomeCanceled && !c.unanswered:
		return nil
	case c.outcome == outcomeCanceled:
		return c.failedAttempts
	case c.outcome == outcomeSynthesized && wire.Header(resp.Header, headerShouldRetry) == "":
		return c.failedAttempts // none if all are rate-limited: more quota helps, and nothing is wrong
	case c.outcome == outcomeSynthesized:
		return c.permanentFailures(time.Now())
	case by != nil && !slices.ContainsFunc(c.failedAttempts, func(f failedAttempt) bool { return f.d == by.deployment }):
		return nil // a client error
	}
	return c.failedAttempts
}

// warn warns of a request that has failed, for each reason once a minute.
func (c *call) warn(failures []failedAttempt) {
	if len(failures) == 0 || !c.recorder.LogsWarnings(c.ctx) {
		return
	}
	var plain []telemetry.Failure
	for _, f := range failures {
		plain = append(plain, telemetry.Failure{Backend: f.d.backend.name, Status: f.Status, Reason: f.Reason, Cause: f.Cause, CallersCredential: f.d.backend.usesCallerCredential()})
	}
	c.recorder.WarnOfFailures(c.ctx, time.Now(), c.model, plain)
}

// describe is what the request's span says of its failure, beside the error type. It
// is safe to show.
func (c *call) describe(err error, failures []failedAttempt) string {
	if !c.recorded.Enabled() {
		return ""
	}
	var silent *silentError
	switch {
	case c.outcome == outcomeCanceled && errors.As(err, &silent), c.outcome == failed.String() && err != nil:
		return redact.Text(err.Error(), callersSecrets(c.Request)...)
	}
	var texts []string
	for _, f := range failures {
		texts = append(texts, f.d.backend.name+": "+cmp.Or(f.Cause, f.Reason))
	}
	return redact.Text(strings.Join(texts, "; "))
}

// permanentFailures is why the request's deployments are ejected, of those that do not
// recover by waiting.
func (c *call) permanentFailures(now time.Time) (failures []failedAttempt) {
	for d := range c.route.all {
		if f := d.failure.Load(); f != nil && c.scope.hopeless(d, now) {
			failures = append(failures, failedAttempt{d, f})
		}
	}
	return failures
}

var phases = [...]telemetry.Phase{
	health.Healthy: telemetry.Healthy, health.CoolingDown: telemetry.Cooling, health.Ejected: telemetry.Ejected, health.Probing: telemetry.Probing,
}

// recordTransition records a change of what is known of a deployment, or of its
// backend, if there is one, with the outcome that made it. No lock is held.
func (s *activeConfig) recordTransition(ctx context.Context, h *health.State, d *deployment, now time.Time, o outcome) {
	if h.Private {
		return
	}
	to, changed := h.Transition(now)
	if !changed {
		return
	}
	r := telemetry.Transition{
		Deployment: d.labels(), Episode: &d.record.episode, WholeBackend: h == &d.backend.State,
		Phase: phases[to.Phase], Since: to.Since, Until: to.Until, Reason: to.Reason, Response: o.info(), Cause: o.detail,
	}
	if r.WholeBackend {
		r.Episode = &d.backend.sharedState.episode
	}
	for i, one := range d.Operations {
		if one == h {
			r.Part = 1 + i
		}
		// A deployment that has never served any other operation is as good as closed.
		if one == h && d.ServedOperations.Load()&^(1<<i) != 0 {
			name := wire.OperationName(i)
			r.Operation = &name
		}
	}
	s.recorder.Transition(ctx, now, r)
}

func (c *call) recordTransition(h *health.State, d *deployment, now time.Time, o outcome) {
	c.activeConfig.recordTransition(c.ctx, h, d, now, o)
}
