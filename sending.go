package spillover

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/replay"

	"github.com/spillover-go/spillover/internal/health"
)

// A sending is an attempt: one send of a request to one deployment.
type attempt struct {
	call       *call // nil until the attempt has its places
	deployment *deployment

	// Why it is made, and what it has taken.
	sentAt      time.Time
	repeated    bool  // it was sent there before
	cost        int64 // in the budget of its tier, which gets it back if it is served
	lastResort  bool  // although what was learned from refusals closes the deployment
	knownToFail bool  // although the deployment is known to fail
	reserved    health.Reservation
	probed      healths // of what it is the one probe, and with which number
	probes      [len(healths{})]uint64

	// What is recorded of it.
	span          trace.Span   // nil when there is none, and once it has ended
	status        int          // of the answer's header
	input, output atomic.Int64 // tokens
	endState      atomic.Int32 // of an answer that is read by the caller
	detached      atomic.Bool  // either the answer has ended or RoundTrip has returned

	// What it holds while it is in flight.
	ctx         context.Context
	cancel      context.CancelCauseFunc
	url         url.URL
	body        *replay.Attempt // the latest; nil when there is none
	firstBody   replay.Attempt  // of the first
	bearerToken string          // the token that it is sent with; "" for another credential
	ended       atomic.Bool
	usedTokens  atomic.Int64 // tokens, as the answer reported, or the estimate

	roundTrip time.Duration   // until the header of the answer
	tokens    int64           // sent to the deployment in all, with this request
	wholeWait time.Duration   // until an answer that comes whole began; 0 once that was learnt from
	before    health.Progress // of the operation, before this answer
	header    http.Header     // of a stream

	limits timeLimit

	connect  *time.Timer  // of a probe
	awaiting bool         // for an answer
	conn     atomic.Int32 // how far a base got that tells when it connects
	resp     *http.Response
}

// How far a base got with an attempt. With one that does not tell, or is not
// asked to, that is not known.
const (
	connWanted int32 = iota + 1 // it has asked for a connection and has none yet
	connMade                    // it had one, so that something may have been sent
)

// begin counts the attempt as in flight. The context is its own.
func (a *attempt) begin() context.Context {
	a.deployment.InFlight.Add(1)
	a.deployment.RequestSent(a.sentAt)
	a.awaiting = true
	a.tokens = a.deployment.CountSent(a.call.tokens)
	a.ctx, a.cancel = context.WithCancelCause(a.call.ctx)
	return a.traceConnection(a.ctx)
}

// How long a probe may take to connect: an ordinary request has the base's own
// time for that, but a probe's caller waits for what is likely dead. Each probe
// that is lost to it doubles the time of the next, up to about the half minute
// that net/http gives itself; from then on it is the base's own. And how long a
// connection may be pending before others are spared it.
const (
	probeConnect   = time.Second
	probeDoublings = 4
	pendingConnect = 500 * time.Millisecond
)

// traced watches the attempt connect, with a base that tells when it does. That
// costs something: it is done for probes, where no answer has come of late, and
// for what may be sent again only if nothing was sent.
func (a *attempt) traceConnection(ctx context.Context) context.Context {
	b := a.deployment.backend
	probe := a.isProbe()
	if !probe && b.Answered.Age(a.sentAt) < pendingConnect && a.call.repeatable() {
		return ctx
	}
	limit := time.Duration(0)
	if lost := b.LostProbes.Load(); probe && lost <= probeDoublings {
		limit = probeConnect << lost
		a.connect = time.AfterFunc(time.Hour, func() {
			b.LostProbes.CompareAndSwap(lost, lost+1)
			a.cancel(errConnectTimeout)
		})
		a.connect.Stop()
	}
	var wanted health.Timestamp
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			now := time.Now()
			b.Connecting.SetIfZero(now.Add(pendingConnect))
			a.conn.CompareAndSwap(0, connWanted)
			wanted.Set(now)
			if a.connect != nil {
				a.connect.Reset(limit)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			a.call.connected(b)
			a.conn.Store(connMade)
			if a.connect != nil {
				a.connect.Stop()
			}
			if !info.Reused && wanted.Age(time.Now()) <= probeConnect {
				b.LostProbes.Store(0)
			}
		},
	})
}

// connected ends what speaks against a backend with a connection pending.
func (c *call) connected(b *backend) {
	if b.Connecting.IsZero() {
		return
	}
	stuck := b.Stuck(time.Now())
	if b.Connecting.Set(time.Time{}); stuck {
		c.transport.opened.notify()
	}
}

// hear ends the wait for an answer, with one or without.
func (a *attempt) answered(served, answered bool) {
	if !a.awaiting {
		return
	}
	a.awaiting = false
	now := time.Now()
	if !answered {
		a.deployment.RequestAbandoned(a.call.callerErr() != nil, now.Sub(a.sentAt))
		return
	}
	a.deployment.ResponseReceived(now)
	if served {
		a.deployment.ObserveWait(now.Sub(a.sentAt))
	}
	if a.deployment.HeardAgain() {
		a.call.tell(&a.deployment.State, a.deployment, now, outcome{status: a.status})
		a.call.transport.opened.notify()
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
	case a.conn.Load() == connWanted && a.status == 0:
		o.connect, o.cause, o.reason = true, health.Unreachable, "no connection"
	case a.conn.Load() == connMade && o.connect && !unconnected(err) && !refusedCertificate(err), a.status != 0 && o.connect:
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
		a.deployment.Ledger.Settle(a.reserved, a.usedTokens.Load(), true)
		a.cancel(nil)
		if a.connect != nil {
			a.connect.Stop()
		}
		a.limits.stop()
		if a.detached.Swap(true) {
			a.call.finish(a)
		}
	}
}

// giveBack returns what was reserved of configured limits: nothing was sent.
func (a *attempt) giveBack() {
	a.deployment.Ledger.Settle(a.reserved, 0, false)
	a.reserved = health.Reservation{}
}

// undo ends an attempt of which nothing was sent.
func (a *attempt) cancelUnsent() {
	a.giveBack()
	a.answered(false, false)
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
		a.closeSpan(errorType(0, "panic"))
	}
	a.answered(false, false)
	a.call.release(a, time.Now())
}

// A timeLimit ends an attempt that takes too long. It is set and lifted with
// each read of a stream: so its timer is left to run, and looks when it fires
// whether there is still a limit.
type timeLimit struct {
	mu    sync.Mutex
	timer *time.Timer
	fires time.Time // when the timer does; zero when it does not
	until time.Time // zero: there is no limit
	cause error     // of the end that it makes
	over  bool      // it made that end
}

// limit ends the attempt after a time, unless relax is called before; 0 does not.
func (a *attempt) startTimeout(d time.Duration, cause error) (now time.Time) {
	if d <= 0 {
		return time.Time{}
	}
	l := &a.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	now = time.Now()
	l.until, l.cause = now.Add(d), cause
	switch {
	case l.timer == nil:
		l.timer = time.AfterFunc(d, a.expire)
	case l.fires.IsZero() || l.fires.After(l.until):
		l.timer.Reset(d)
	default:
		return now // it fires before, and looks
	}
	l.fires = l.until
	return now
}

// stop spares a timer whose attempt has ended its turn.
func (l *timeLimit) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (a *attempt) expire() {
	l := &a.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fires = (time.Time{}); l.until.IsZero() || a.ended.Load() {
		return
	}
	if left := time.Until(l.until); left > 0 {
		l.timer.Reset(left)
		l.fires = l.until
		return
	}
	l.over = true
	a.cancel(l.cause)
}

// relax ends a limit. It is false when that was too late.
func (a *attempt) stopTimeout() bool {
	a.limits.mu.Lock()
	defer a.limits.mu.Unlock()
	a.limits.until = time.Time{}
	return !a.limits.over
}

// explain is why the attempt ended, if it was the attempt's own doing.
func (a *attempt) timeoutCause(err error) error {
	cause := context.Cause(a.ctx)
	if errors.Is(cause, errConnectTimeout) || errors.Is(cause, errHeaderTimeout) || errors.Is(cause, errIdleTimeout) || errors.Is(cause, errSlowBody) {
		return cause
	}
	return err
}

// brokeOff counts an answer that the caller saw break off. It is the caller's
// own doing after its context has ended, or the body is closed.
func (a *attempt) interrupted() {
	if a.ended.Load() || a.call.callerErr() != nil {
		return
	}
	a.endState.Store(endInterrupted)
	a.failLate(a.call.recordFailure(a.deployment, outcome{verdict: failed, cause: health.NoAnswer, reason: "answer broke off"}))
}

// failedWith is what an error says of the deployment that came in a stream which
// is already the caller's: it has been passed, as everything else.
func (a *attempt) failedInStream(problem []byte) {
	status, h := wire.StreamErrorStatus(a.header, problem)
	o := a.call.recordFailure(a.deployment, judge(status, h, problem, a.call.Operation, time.Now()), a.bearerToken)
	switch {
	case o.verdict == throttled:
		a.call.coolDown(a.call.throttleOf(a.deployment), a.deployment, time.Now(), health.Refusal{Sent: a.sentAt, RoundTrip: a.roundTrip}, o)
	case o.verdict == failed && o.wait > 0:
		a.call.coolDown(&a.deployment.State, a.deployment, time.Now(), health.Refusal{Sent: a.sentAt, RoundTrip: a.roundTrip}, o)
	case o.verdict == failed:
		a.failLate(o)
	}
}

// blame counts a failure after the answer was the caller's. Those before it
// count on, unless another answer ended well meanwhile: that this one began well
// was no success.
func (a *attempt) failLate(o outcome) {
	d, now := a.deployment, time.Now()
	d.failed.Add(1)
	h := a.call.failureOf(d, o)
	h.FailLate(now, health.FailedAttempt{Sent: a.sentAt, Seen: now, Cause: o.cause, Reason: o.reason}, a.before, unit(a.call.transport.random()))
	a.call.tell(h, d, now, o)
}
