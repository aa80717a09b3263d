package spillover

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/replay"
)

// newAttempt takes the places that a deployment has for one more request. It
// returns nil if there is none. anyway sends the request although a configured
// limit is used up.
func (c *call) newAttempt(d *deployment, now time.Time, anyway bool) *attempt {
	spare := c.scope.background && !c.scope.reserves(d, now)
	if d.Full() || c.scope.background && !d.TakeBackground(now, !spare) || !d.TakePlace() {
		return nil
	}
	reserved, ok := d.LocalLimits.Reserve(now, d.rates, c.tokens, anyway)
	if !ok {
		d.givePlace()
		return nil
	}
	a := c.place()
	a.deployment, a.sentAt, a.reserved, a.inFlight = d, now, reserved, true
	for _, h := range c.scope.healths(d) {
		if h == nil {
			continue
		}
		ok, number := h.Admit(now, spare)
		if !ok {
			c.release(a, now)
			a.giveBack()
			return nil
		}
		if number != 0 {
			a.probes = append(a.probes, probe{h, number})
		}
	}
	a.call = c
	return a
}

// place returns memory for the next attempt. Each attempt has its own, as a
// base may still hold on to the one before.
func (c *call) place() *attempt {
	if c.firstAttempt.call != nil {
		return new(attempt)
	}
	c.firstAttempt.probes = nil // left by an attempt that got no place
	return &c.firstAttempt
}

// key returns the key that the attempt is sent with; "" if it has another
// credential, or none.
func (a *attempt) key() string {
	if a.deployment.backend.token != nil {
		return ""
	}
	return a.secret
}

// isProbe reports whether the attempt is a half-open probe of anything.
func (a *attempt) isProbe() bool { return len(a.probes) > 0 }

// probablyFails reports whether the deployment is known to fail.
func (a *attempt) probablyFails() bool { return a.knownToFail || a.isProbe() }

// release gives the places of probes back after an attempt without a result.
func (c *call) release(a *attempt, now time.Time) {
	opened := false
	for _, p := range a.probes {
		opened = p.of.Release(now, p.number) || opened
	}
	if opened {
		c.pool.opened.notify()
	}
}

// A probe is the one request that finds out whether something has recovered
// (half-open).
type probe struct {
	of     *health.State
	number uint64
}

// An attempt is one send of a request to one deployment. It lives until the
// response has ended, after RoundTrip has returned.
type attempt struct {
	call       *call // nil until the attempt has its places
	deployment *deployment

	// Why it is made, and what it has reserved.
	sentAt       time.Time
	cost         int64 // in the tier's retry budget, which gets it back if it is served
	repeated     bool  // the request was sent there before
	lastResort   bool  // although what was learned from refusals closes the deployment
	knownToFail  bool  // although the deployment is ejected
	secondInTier bool  // see secondAttempt
	transient    bool  // it has failed in a way that another attempt may not
	awaiting     bool  // a response
	inFlight     bool  // it has its place among the requests in flight
	spilled      bool  // Azure itself served it from a standard deployment, as the PTU was full
	reserved     health.Reservation
	probes       []probe // usually none

	// What is recorded of it.
	recorded      attemptRecord
	status        int                     // of the response
	input, output atomic.Int64            // tokens
	bodyEnd       atomic.Pointer[bodyEnd] // how the response ended that the caller reads; nil while it is read, and when the caller closes it early
	detached      atomic.Bool             // the response has ended, or RoundTrip has returned: the second of them records the request
	ended         atomic.Bool             // everything it held was given back

	// What it holds while it is in flight.
	ctx        context.Context
	cancel     context.CancelCauseFunc
	url        url.URL
	text       bytes.Reader    // the body, if it is in memory
	body       *replay.Attempt // otherwise the latest body; nil without one
	secret     string          // the key or token it is sent with; "" for the caller's credential
	usedTokens atomic.Int64    // as reported in the response, or the estimate

	roundTrip time.Duration   // until the response's header
	tokens    int64           // the sum sent to the deployment, including this request
	wholeWait time.Duration   // until a response that is not a stream began; 0 once it was recorded
	before    health.Progress // of the operation, before this response
	header    http.Header     // of a stream
	mediaType string          // of the response

	timeout    timeout
	connection connectionTrace
	resp       *http.Response
}

// begin counts the attempt as sent and gives it a context of its own.
func (a *attempt) begin() context.Context {
	a.deployment.RequestSent(a.sentAt)
	a.awaiting = true
	a.tokens = a.deployment.CountSent(a.call.tokens)
	a.ctx, a.cancel = context.WithCancelCause(a.call.ctx)
	a.timeout.cancel = a.cancel
	return a.watchConnection()
}

// watchConnection watches the attempt connect. That has a cost: it is done for
// probes, where no answer has come for a while, and for a request that may only
// be sent again if nothing was sent.
func (a *attempt) watchConnection() context.Context {
	b := a.deployment.backend
	if !a.isProbe() && b.Answered.Age(a.sentAt) < pendingConnect && a.call.repeatable() {
		return a.ctx
	}
	return a.connection.watch(a.ctx, &b.Connection, a.isProbe(), a.cancel, func() { a.call.connected(b) })
}

// connected records that a backend has a connection again.
func (c *call) connected(b *backend) {
	if b.Connecting.IsZero() {
		return
	}
	stuck := b.Stuck(time.Now())
	if b.Connecting.Set(time.Time{}); stuck {
		c.pool.opened.notify()
	}
}

// answered ends the wait for a response, with a response or without.
func (a *attempt) answered(now time.Time, served, answered bool) {
	if !a.awaiting {
		return
	}
	a.awaiting = false
	if !answered {
		a.deployment.RequestAbandoned(a.call.callerErr() != nil, now.Sub(a.sentAt))
		return
	}
	a.deployment.ResponseReceived(now)
	if served {
		a.deployment.ObserveWait(now.Sub(a.sentAt))
	}
	if a.deployment.HeardAgain() {
		a.call.recordTransition(&a.deployment.State, a.deployment, now, outcome{status: a.status})
		a.call.pool.opened.notify()
	}
}

// classifyError is the outcome of an attempt without a response. It takes into
// account what the base reported of its connection, as the error alone may be
// ambiguous.
func (a *attempt) classifyError(err error) outcome {
	if a.body != nil && a.body.ReadFailed.Load() {
		return outcome{verdict: declined, reason: "request body", detail: err.Error(), callersBody: true}
	}
	o := judgeError(err)
	switch {
	case a.connection.state.Load() == connectionRequested && a.status == 0:
		o.connect, o.cause, o.reason, o.transient = true, health.Unreachable, "no connection", false
	case a.connection.state.Load() == connectionMade && o.connect && !unconnected(err) && !refusedCertificate(err), a.status != 0 && o.connect:
		o.connect, o.cause, o.reason = false, health.NoAnswer, "no answer"
	}
	return o
}

// refusedCertificate reports whether a server has refused the client's
// certificate. In TLS 1.3 that happens after the client's side of the
// handshake. No request has been read.
func refusedCertificate(err error) bool {
	return opOf(err) == "remote error" && strings.Contains(err.Error(), "certificate")
}

// end gives back what the attempt holds, once.
func (a *attempt) end() {
	if a.ended.CompareAndSwap(false, true) {
		a.deployment.LocalLimits.Settle(a.reserved, a.usedTokens.Load(), true)
		a.cancel(nil)
		a.connection.close()
		a.timeout.close()
		a.leave()
		if a.detached.Swap(true) {
			a.call.recordEnd(a, a.call.describe(nil, a.call.causes(nil)))
		}
	}
}

// leave gives back the attempt's place among the requests in flight.
func (a *attempt) leave() {
	if !a.inFlight {
		return
	}
	a.inFlight = false
	if d := a.deployment; a.resp != nil && d.MaxInFlight.Load() > 0 {
		now := time.Now()
		d.Held.Observe(now, float64(now.Sub(a.sentAt)))
	}
	a.deployment.givePlace()
}

// giveBack returns what an attempt has reserved that has not begun.
func (a *attempt) giveBack() {
	a.unreserve()
	a.leave()
}

// unreserve returns what was reserved of configured limits, as nothing was sent.
func (a *attempt) unreserve() {
	a.deployment.LocalLimits.Settle(a.reserved, 0, false)
	a.reserved = health.Reservation{}
}

// cancelUnsent ends an attempt that was not sent.
func (a *attempt) cancelUnsent() {
	a.unreserve()
	a.answered(time.Now(), false, false)
	a.end()
	a.call.release(a, time.Now())
}

// abandon ends an attempt that was cut short by a panic in Base, Token or
// another function of the program.
func (a *attempt) abandon() {
	if a.cancel == nil {
		a.giveBack() // it has not begun
	} else {
		if a.resp != nil {
			a.resp.Body.Close()
		}
		if a.body != nil {
			a.body.Close()
			a.body.Keep()
		}
		a.call.connected(a.deployment.backend)
		a.end()
		a.recordPanic()
	}
	a.answered(time.Now(), false, false)
	a.call.release(a, time.Now())
}

// timeoutCause is why the attempt ended, if one of its own timeouts has ended
// it.
func (a *attempt) timeoutCause(err error) error {
	cause := context.Cause(a.ctx)
	if errors.Is(cause, errConnectTimeout) || errors.Is(cause, errHeaderTimeout) || errors.Is(cause, errIdleTimeout) || errors.Is(cause, errSlowBody) {
		return cause
	}
	return err
}
