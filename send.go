package spillover

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
)

// attempt sends the request to a deployment. It returns neither a response nor
// an error if the request fails over.
func (c *call) attempt(a *attempt) (*http.Response, error) {
	d := a.deployment
	c.lastAttempt = a
	for _, p := range a.probes {
		c.recordTransition(p.of, d, a.sentAt, outcome{})
	}
	own, err := d.backend.credential(c.ctx)
	if err != nil {
		a.giveBack()
		o := outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, notSent: true, reason: "no token", detail: err.Error()}
		o = a.recordUnsent(o)
		return nil, c.applyOutcome(a, time.Now(), nil, err, o)
	}
	if d.backend.token != nil {
		a.sentAt = time.Now() // Token may have taken a while
	}
	ctx := a.begin()
	a.secret = own.secret
	// The backend may have been drained since it was chosen. From here on the request is in flight.
	if d.backend.drained.Load() {
		a.cancelUnsent()
		if !a.repeated {
			c.tried = slices.DeleteFunc(c.tried, func(t *deployment) bool { return t == d })
		}
		return nil, nil
	}
	out, err := c.attemptRequest(ctx, d, own, a)
	if err != nil {
		a.cancelUnsent()
		if errors.Is(err, replay.ErrOtherBody) {
			c.keepAnswer(d, nil, err, outcome{detail: c.redact(err.Error(), d.backend, own.secret)})
			return nil, nil
		}
		c.callerLeft()
		return nil, err
	}
	out = a.startSpan(out)
	c.sends++
	a.timeout.start(d.backend.headerTimeout, errHeaderTimeout)
	resp, o, err := c.send(a, out)
	if !a.timeout.stop() && err == nil {
		resp.Body.Close()
		err = a.timeout.cause
	}
	now := time.Now()
	a.answered(now, err == nil && o.verdict == served, err == nil)
	if err != nil {
		a.end()
		a.body.Settle(&c.body)
		o = a.classifyError(err)
		c.final = !o.connect && !c.repeatable()
		c.failures++
		o = a.recordFailed(o, err)
		return nil, c.applyOutcome(a, now, nil, err, o)
	}
	if o.verdict == served {
		a.usedTokens.CompareAndSwap(0, c.tokens) // unless its usage has been read
		a.recordServed(resp)
	} else {
		o = a.recordFailed(o, nil)
	}
	if o.verdict == served || o.verdict == rejected || o.final {
		a.body.Keep()
		c.answeredFrom, c.answeredBy = d, a
		return resp, c.applyOutcome(a, now, resp, nil, o)
	}
	a.body.Settle(&c.body)
	if !o.uncounted {
		c.failures++
	}
	if rejectsKey(o.status) && d.backend.keyFile != nil {
		c.refreshKey(d.backend, now)
	}
	err = c.applyOutcome(a, now, resp, nil, o)
	if rejectsKey(o.status) && d.backend.keyFile != nil && d.backend.currentKey().secret != a.key() {
		// The key has changed since: the deployment may be asked once more.
		again := func(t *deployment) bool { return t == d }
		c.tried, c.unsuitable = slices.DeleteFunc(c.tried, again), slices.DeleteFunc(c.unsuitable, again)
	}
	return nil, err
}

// rejectsKey reports whether a status may mean that the key is not valid any more.
func rejectsKey(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// send passes the request to the base transport. Of the response it reads what
// is needed to judge it: all of an error, the beginning of a stream.
func (c *call) send(a *attempt, out *http.Request) (*http.Response, outcome, error) {
	resp, err := checked(c.base, out)
	b := a.deployment.backend
	c.connected(b)
	if err != nil {
		return nil, outcome{}, a.timeoutCause(err)
	}
	now := time.Now()
	a.resp = resp
	a.status, a.roundTrip = resp.StatusCode, now.Sub(a.sentAt)
	b.Answered.Set(now)
	limits := a.deployment.measure(now, a.sentAt, a.tokens, resp.Header)
	c.replica.tellUtilization(a.deployment, now, a.sentAt, limits)
	a.deployment.CreditBackground(now, c.scope.background)
	a.mediaType, a.spilled = wire.MediaType(resp.Header), wire.SpilledByAzure(resp.Header)
	if b.Troubled() {
		b.Reached(a.sentAt)
		c.replica.tellRecovered(a.deployment, now, a.sentAt, b.Open(now), true)
		c.recordTransition(&b.State, a.deployment, now, a.successOf(resp))
	}
	var held []byte
	switch {
	case resp.StatusCode >= 400:
		text, known := c.readErrorBody(resp, a)
		o := judge(resp.StatusCode, resp.Header, wire.Decompress(resp.Header, text, errorBodyLimit), c.Operation, time.Now())
		if o.verdict == rejected && !known && c.repeatable() {
			// Why it refuses the request is unknown. The cause may be this deployment,
			// but is not a reason for another model.
			o.verdict = declined
			c.route = c.route.keep(func(d *deployment) bool { return d.model == a.deployment.model })
		}
		o.transient = o.transient && known // an error that takes long may take as long again
		return resp, c.adjustOutcome(a.deployment, o), nil
	case c.streamed(a, resp):
		h, err := c.holdStream(resp, a)
		if err != nil {
			resp.Body.Close()
			return nil, h.failure, err
		}
		if !h.notEvents {
			o := h.failure
			if o.verdict == served && h.hasContent && !a.spilled {
				a.deployment.Stream.Observe(time.Now(), float64(time.Since(a.sentAt)))
			}
			c.deliver(resp, a, h)
			return resp, c.adjustOutcome(a.deployment, o), nil
		}
		held = h.held
	case b.headerTimeout > 0 && c.stateless() && resp.StatusCode < 300 && resp.Body != http.NoBody:
		// HeaderTimeout ends with the first byte of the body.
		held = make([]byte, 512)
		n, err := io.ReadAtLeast(resp.Body, held, 1)
		if held = held[:n]; err != nil && err != io.EOF {
			resp.Body.Close()
			return nil, outcome{}, a.timeoutCause(err)
		}
	}
	if !a.spilled {
		a.wholeWait = now.Sub(a.sentAt)
	}
	c.deliver(resp, a, &streamHold{held: held, notEvents: true, hasContent: true})
	return resp, outcome{}, nil
}

// adjustOutcome is what an outcome means for this request in particular.
func (c *call) adjustOutcome(d *deployment, o outcome) outcome {
	if o.contextLength {
		if goesOn, ownMayFit := c.tooLong(d); goesOn {
			o.verdict, o.cause, o.deploymentOnly, o.uncounted, o.wait = declined, health.NoFailure, true, true, 0
			o.notForCaller = ownMayFit
			return o
		}
	}
	switch {
	case c.seeking && o.status == http.StatusNotFound && !o.noDeployment, o.otherResource, c.saysNotFound(o):
		// The object may be at another backend.
		c.notFound(o)
		o.verdict, o.cause, o.deploymentOnly, o.uncounted, o.elsewhere, o.wait = declined, health.NoFailure, true, true, true, 0
	case o.verdict == rejected && !o.filtered && c.repeatable() && slices.Contains(d.backend.failsOverOn, o.status):
		o.verdict, o.cause, o.deploymentOnly, o.wait = declined, health.NoFailure, true, 0
	case o.status == http.StatusNotFound && o.cause == health.Misconfigured && !o.noDeployment && d.backend.apiVersion == "" &&
		wire.SpecOf(c.Target.Dialect).APIVersion == wire.RequiredAPIVersion && d.backend.dialect.APIVersion == wire.RequiredAPIVersion:
		// The caller's own api-version may be what is not found.
		o.verdict, o.cause = declined, health.NoFailure
	case (o.verdict == failed || o.verdict == declined) && !o.deploymentOnly && !c.repeatable():
		o.final = true
	}
	return o
}

// deliver prepares a response for the caller: its body is inspected while the
// caller reads it.
func (c *call) deliver(resp *http.Response, a *attempt, h *streamHold) {
	if a.spilled {
		a.deployment.SpilledByAzure(time.Now())
	}
	if resp.Body == http.NoBody {
		// There is nothing to read, so the caller need not close it.
		a.readToEnd()
		a.usedTokens.Store(c.tokens)
		a.end()
		return
	}
	b := &c.answer
	if b.attempt != nil {
		b = new(responseBody) // an earlier attempt has the other one
	}
	b.held = h.held
	b.hasContent = h.hasContent || c.repeatable()
	if resp.StatusCode != http.StatusSwitchingProtocols { // a WebSocket may be silent, and ends at any time
		b.idle, b.idleError = a.deployment.backend.idleTimeout, errIdleTimeout
		b.countsFailure = h.failure.verdict == served // once
	}
	switch {
	case !h.notEvents:
		a.header = resp.Header
		b.events = &judgedEvents{endUnknown: h.guessed}
	case a.mediaType == wire.EventStream && resp.StatusCode == http.StatusOK && fetchesResponse(c.Method, c.Operation) && wire.CanDecompress(resp.Header):
		b.events = &judgedEvents{stored: true}
	}
	a.before = a.deployment.Operation(int(c.scope.op)).Progress()
	b.inspect(resp, a.mediaType, &c.request)
	if resp.StatusCode/100 == 2 && c.answersIDs() {
		wire.HeaderIDs(resp.Header, func(id string) {
			c.pool.stored.Learn(time.Now(), wire.ObjectID{ID: id}, a.deployment.backend.resource)
		})
	}
	b.attach(c.Context(), resp, a)
}

// checked sends a request with the base and holds the base to its contract: a
// response or an error, and a response with a header and a body.
func checked(base http.RoundTripper, out *http.Request) (*http.Response, error) {
	resp, err := base.RoundTrip(out)
	if resp == nil && err == nil {
		return nil, fmt.Errorf("spillover: the base %T returned neither an answer nor an error", base)
	}
	if resp != nil && resp.Body == nil {
		resp.Body = http.NoBody
	}
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, err
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	_, canonical := base.(*http.Transport)
	for name, values := range resp.Header {
		if len(name) >= len(headerPrefix) && strings.EqualFold(name[:len(headerPrefix)], headerPrefix) {
			delete(resp.Header, name) // only this package may set it
		} else if !canonical {
			wire.CanonicalizeHeader(resp.Header, name, values)
		}
	}
	return resp, nil
}

// keepAnswer keeps the result of an attempt in case there is no better one.
func (c *call) keepAnswer(d *deployment, resp *http.Response, err error, o outcome) {
	if resp == nil {
		c.errs = append(c.errs, attemptError{d.backend.name, o.detail, err})
		return
	}
	if o.notForCaller {
		resp.Body.Close()
		return
	}
	slot := &c.failedAnswer
	if o.verdict == throttled {
		slot = &c.throttledAnswer
	}
	if c.seeking && notFoundStatus(resp.StatusCode) && slot.Response != nil && !notFoundStatus(slot.StatusCode) {
		// The object may be where an attempt failed: "not found" would be misleading.
		resp.Body.Close()
		return
	}
	slot.discard()
	*slot = fallbackAnswer{resp, d}
}

// readErrorBody reads an error response into memory, which frees its connection
// at once: several SDKs never close an error response. It returns the
// beginning, and whether that is enough to judge the response. What follows, or
// arrives too late, remains in the response's body.
func (c *call) readErrorBody(resp *http.Response, a *attempt) (text []byte, known bool) {
	a.timeout.stop()
	body := readAhead(resp.Body)
	late := time.NewTimer(errorBodyWait)
	defer late.Stop()
	select {
	case <-body.done:
	case <-late.C:
	case <-a.ctx.Done():
	}
	text, whole, err := body.soFar()
	if whole && err == io.EOF {
		body.Close()
		a.end()
		resp.Body = io.NopCloser(bytes.NewReader(text))
		return text, true
	}
	resp.Body = body
	b := &responseBody{idle: cmp.Or(a.deployment.backend.idleTimeout, errorBodySilence), idleError: errSlowBody, hasContent: true}
	b.attach(c.Context(), resp, a)
	return text, whole && err == nil || json.Valid(wire.Decompress(resp.Header, text, errorBodyLimit))
}

// attemptRequest is the request as it is sent to a deployment. It is a clone of
// the caller's, so that nothing of an earlier attempt remains.
func (r *request) attemptRequest(ctx context.Context, d *deployment, own credential, a *attempt) (*http.Request, error) {
	b := d.backend
	name := d.name
	if name == "" {
		name = r.model
	}
	if err := r.body.WaitIdle(ctx); err != nil {
		return nil, err
	}
	change, err := r.edits(d, name)
	if err != nil {
		return nil, err
	}
	out := r.WithContext(ctx)
	a.url = r.urlFor(d, name)
	out.URL = &a.url
	out.Host = b.host
	out.Header = b.header(r.Header, own)
	if !r.body.Present {
		return out, nil
	}
	out.ContentLength, out.GetBody = r.body.EditedLength(change), nil
	if text, ok := r.body.InMemory(change); ok {
		a.text.Reset(text)
		out.Body = io.NopCloser(&a.text)
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
		return out, nil
	}
	first := new(replay.Attempt)
	if err := r.body.Open(first, change); err != nil {
		return nil, err
	}
	a.body = first
	out.Body = a.body
	if r.body.CanRepeat() {
		// net/http repeats a request by itself if a dead connection has not taken it.
		out.GetBody = func() (io.ReadCloser, error) {
			a.body.Settle(&r.body)
			if err := r.body.WaitIdle(ctx); err != nil {
				return nil, err
			}
			next := new(replay.Attempt)
			if err := r.body.Open(next, change); err != nil {
				return nil, err
			}
			a.body = next
			return next, nil
		}
	}
	return out, nil
}

// holdStream holds an event stream until it can be passed to the caller.
func (c *call) holdStream(resp *http.Response, a *attempt) (*streamHold, error) {
	h := &streamHold{
		resp: resp, operation: c.Operation, requested: c.naming.Stream, repeatable: c.repeatable(),
		whole: c.cfg.HoldStreams && c.repeatable(), timeout: &a.timeout, idleTimeout: a.deployment.backend.idleTimeout,
	}
	if err := h.read(); err != nil {
		return h, a.timeoutCause(err)
	}
	return h, nil
}

// streamed reports whether a response is, or may be, a stream of events that is
// judged. Streams of every operation that leaves nothing behind at the service
// are. Some gateways do not set the media type of a stream.
func (c *call) streamed(a *attempt, resp *http.Response) bool {
	if resp.StatusCode != http.StatusOK || !c.stateless() {
		return false
	}
	streamed := false
	switch a.mediaType {
	case wire.EventStream:
		streamed = true
	case "", "text/plain", "application/octet-stream":
		// Only if the request asked for a stream, or may have done so.
		streamed = resp.Body != http.NoBody && (c.naming.Stream || !c.naming.Complete)
	case "application/json":
		streamed = resp.Body != http.NoBody && c.naming.Stream // an error instead of the stream
	}
	return streamed && wire.CanDecompress(resp.Header)
}
