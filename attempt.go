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

// newAttempt takes the places that a deployment has for one more request. It is
// nil when there is none. anyway sends the request although a configured limit is
// used up.
func (c *call) newAttempt(d *deployment, now time.Time, anyway bool) *attempt {
	reserved, ok := d.LocalLimits.Reserve(now, d.rates, c.tokens, anyway)
	if !ok {
		return nil
	}
	a := c.place()
	a.deployment, a.sentAt, a.reserved = d, now, reserved
	for _, h := range c.scope.healths(d) {
		if h == nil {
			continue
		}
		ok, number := h.Admit(now)
		if !ok {
			c.release(a, now)
			d.LocalLimits.Settle(reserved, 0, false)
			return nil
		}
		if number != 0 {
			a.probes = append(a.probes, probe{h, number})
		}
	}
	a.call = c
	return a
}

// place is where the next attempt is kept. Each has its own, as a base may still
// hold the one before.
func (c *call) place() *attempt {
	if c.firstAttempt.call != nil {
		return new(attempt)
	}
	c.firstAttempt.probes = nil // of one that had no place
	return &c.firstAttempt
}

// isProbe reports whether the attempt finds out whether something has recovered.
func (a *attempt) isProbe() bool { return len(a.probes) > 0 }

// suspected reports whether the deployment is known to fail.
func (a *attempt) probablyFails() bool { return a.knownToFail || a.isProbe() }

// release gives the places for probes back when nothing was learnt.
func (c *call) release(a *attempt, now time.Time) {
	opened := false
	for _, p := range a.probes {
		opened = p.of.Release(now, p.number) || opened
	}
	if opened {
		c.pool.opened.notify()
	}
}

// A probe is the one request that finds out whether something has recovered.
type probe struct {
	of     *health.State
	number uint64
}

// An attempt is one send of a request to one deployment.
type attempt struct {
	call       *call // nil until the attempt has its places
	deployment *deployment

	// Why it is made, and what it has taken.
	sentAt      time.Time
	cost        int64 // in the budget of its tier, which gets it back if it is served
	repeated    bool  // it was sent there before
	lastResort  bool  // although what was learned from refusals closes the deployment
	knownToFail bool  // although the deployment is known to fail
	awaiting    bool  // an answer
	spilled     bool  // Azure took the answer from a full PTU to a standard deployment
	reserved    health.Reservation
	probes      []probe // that the attempt is, mostly none

	// What is recorded of it.
	recorded      attemptRecord
	status        int          // of the answer's header
	input, output atomic.Int64 // tokens
	endState      atomic.Int32 // of an answer that is read by the caller
	detached      atomic.Bool  // either the answer has ended or RoundTrip has returned
	ended         atomic.Bool  // what it holds was given back

	// What it holds while it is in flight.
	ctx         context.Context
	cancel      context.CancelCauseFunc
	url         url.URL
	text        bytes.Reader    // the body, where it is in memory
	body        *replay.Attempt // else the latest; nil when there is none
	bearerToken string          // the token that it is sent with; "" for another credential
	usedTokens  atomic.Int64    // tokens, as the answer reported, or the estimate

	roundTrip time.Duration   // until the header of the answer
	tokens    int64           // sent to the deployment in all, with this request
	wholeWait time.Duration   // until an answer that comes whole began; 0 once that was learnt from
	before    health.Progress // of the operation, before this answer
	header    http.Header     // of a stream
	mediaType string          // of the answer

	timeout    timeout
	connection connectionTrace
	resp       *http.Response
}

// begin counts the attempt as in flight. The context is its own.
func (a *attempt) begin() context.Context {
	a.deployment.InFlight.Add(1)
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

// hear ends the wait for an answer, with one or without.
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

// judgeError reads why there was no answer, with what the base told of its
// connection: a proxy's refusal, say, is an error like any other.
func (a *attempt) classifyError(err error) outcome {
	if a.body != nil && a.body.Failed.Load() {
		return outcome{verdict: declined, reason: "request body"} // which is the caller's
	}
	o := judgeError(err)
	switch {
	case a.connection.state.Load() == connectionRequested && a.status == 0:
		o.connect, o.cause, o.reason = true, health.Unreachable, "no connection"
	case a.connection.state.Load() == connectionMade && o.connect && !unconnected(err) && !refusedCertificate(err), a.status != 0 && o.connect:
		o.connect, o.cause, o.reason = false, health.NoAnswer, "no answer"
	}
	return o
}

// refusedCertificate tells of an alert with which a server ends the handshake
// after the client has: in TLS 1.3 it reads the client's certificate then. It has
// read no request.
func refusedCertificate(err error) bool {
	return opOf(err) == "remote error" && strings.Contains(err.Error(), "certificate")
}

// end gives back what the attempt holds, once.
func (a *attempt) end() {
	if a.ended.CompareAndSwap(false, true) {
		a.deployment.InFlight.Add(-1)
		a.deployment.LocalLimits.Settle(a.reserved, a.usedTokens.Load(), true)
		a.cancel(nil)
		a.connection.close()
		a.timeout.close()
		if a.detached.Swap(true) {
			a.call.recordEnd(a)
		}
	}
}

// giveBack returns what was reserved of configured limits: nothing was sent.
func (a *attempt) giveBack() {
	a.deployment.LocalLimits.Settle(a.reserved, 0, false)
	a.reserved = health.Reservation{}
}

// undo ends an attempt of which nothing was sent.
func (a *attempt) cancelUnsent() {
	a.giveBack()
	a.answered(time.Now(), false, false)
	a.end()
	a.call.release(a, time.Now())
}

// abandon ends an attempt that a panic has cut short, and which a server may
// recover from: of Base, Token or another function that the program supplies.
func (a *attempt) abandon() {
	if a.cancel == nil {
		a.giveBack() // it had not begun
	} else {
		if a.resp != nil {
			a.resp.Body.Close()
		}
		if a.body != nil {
			a.body.Close()
			a.body.Keep() // by nobody
		}
		a.call.connected(a.deployment.backend)
		a.end()
		a.recordPanic()
	}
	a.answered(time.Now(), false, false)
	a.call.release(a, time.Now())
}

// explain is why the attempt ended, if it was the attempt's own doing.
func (a *attempt) timeoutCause(err error) error {
	cause := context.Cause(a.ctx)
	if errors.Is(cause, errConnectTimeout) || errors.Is(cause, errHeaderTimeout) || errors.Is(cause, errIdleTimeout) || errors.Is(cause, errSlowBody) {
		return cause
	}
	return err
}
