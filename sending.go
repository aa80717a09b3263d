package spillover

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// A sending is what an attempt holds while it is under way: a place among the
// requests in flight, a context of its own with a time limit, and the body.
type sending struct {
	attempt
	attemptRecord
	call   *call
	ctx    context.Context
	cancel context.CancelCauseFunc
	url    url.URL
	body   *attemptBody // the latest; nil when there is none
	space  attemptBody  // of the first
	bearer string       // the token that it is sent with; "" for another credential
	ended  atomic.Bool
	cost   atomic.Int64 // tokens, as the answer told, or the estimate if it told none

	tokens int64         // sent to the deployment in all, with this request
	took   time.Duration // until an answer that comes whole began; 0 once that was learnt from
	streak int           // of the deployment's failures before this answer
	header http.Header   // of a stream

	timer *time.Timer
	cause error // of the end that the timer makes
	armed bool

	connect *time.Timer // of a probe
	waits   bool        // for an answer
}

func (s *sending) begin(c *call, a attempt) context.Context {
	s.call, s.attempt = c, a
	a.d.inFlight.Add(1)
	a.d.await(a.sent)
	s.waits = true
	s.tokens = a.d.spend(c.tokens)
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	return s.traced(s.ctx)
}

// How long a probe may take to connect: an ordinary request has the base's own
// time for that, but a probe's caller waits for what is likely dead. And how
// long a connection may be pending before others are spared it.
const (
	probeConnect   = time.Second
	pendingConnect = 500 * time.Millisecond
)

// traced watches the attempt connect, with a base that tells when it does. That
// costs something: it is done for probes, and where no answer has come of late.
func (s *sending) traced(ctx context.Context) context.Context {
	b := s.d.backend
	probe := s.isProbe()
	if !probe && b.answered.age(s.sent) < pendingConnect {
		return ctx
	}
	var bound *time.Timer
	if probe {
		bound = time.AfterFunc(time.Hour, func() { s.cancel(errConnectTimeout) })
		bound.Stop()
		s.connect = bound
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			b.connecting.setIfZero(time.Now().Add(pendingConnect))
			if bound != nil {
				bound.Reset(probeConnect)
			}
		},
		GotConn: func(httptrace.GotConnInfo) {
			b.connecting.set(time.Time{})
			if bound != nil {
				bound.Stop()
			}
		},
	})
}

// hear ends the wait for an answer, with one or without.
func (s *sending) hear(served, answered bool) {
	if !s.waits {
		return
	}
	s.waits = false
	now := time.Now()
	if !answered {
		s.d.gaveUp(s.call.Context().Err() != nil, now.Sub(s.sent))
		return
	}
	s.d.answered(now)
	if served {
		s.d.took(now.Sub(s.sent))
	}
	if s.d.unmute() {
		s.call.tell(&s.d.health, s.d, now, outcome{status: s.status})
		s.call.transport.opened.notify()
	}
}

// end gives back what the attempt holds, once.
func (s *sending) end() {
	if s.ended.CompareAndSwap(false, true) {
		s.d.inFlight.Add(-1)
		s.d.ledger.settle(s.entry, s.cost.Load(), true)
		s.cancel(nil)
		if s.connect != nil {
			s.connect.Stop()
		}
		if s.parted.Swap(true) {
			s.call.finish(s)
		}
	}
}

// undo ends an attempt of which nothing was sent.
func (s *sending) undo() {
	s.d.ledger.settle(s.entry, 0, false)
	s.entry = entry{}
	s.hear(false, false)
	s.end()
	s.release(time.Now())
}

// limit ends the attempt after a time, unless relax is called before; 0 does not.
func (s *sending) limit(d time.Duration, cause error) {
	if d <= 0 {
		return
	}
	if s.armed {
		s.relax()
	}
	s.armed = true
	if s.timer != nil && s.cause == cause {
		s.timer.Reset(d)
		return
	}
	s.cause = cause
	s.timer = time.AfterFunc(d, func() { s.cancel(cause) })
}

// relax ends a limit. It is false when that was too late.
func (s *sending) relax() bool {
	if !s.armed {
		return true
	}
	s.armed = false
	return s.timer.Stop()
}

// explain is why the attempt ended, if it was the attempt's own doing.
func (s *sending) explain(err error) error {
	cause := context.Cause(s.ctx)
	if errors.Is(cause, errConnectTimeout) || errors.Is(cause, errHeaderTimeout) || errors.Is(cause, errIdleTimeout) || errors.Is(cause, errSlowBody) {
		return cause
	}
	return err
}

// brokeOff counts an answer that the caller saw break off. It is the caller's
// own doing after its context has ended, or the body is closed.
func (s *sending) brokeOff() {
	if s.ended.Load() || s.call.Context().Err() != nil {
		return
	}
	s.fate.Store(endedBroken)
	s.blame(s.call.note(s.d, outcome{verdict: failed, cause: noAnswer, reason: "answer broke off"}))
}

// endedWith is what a stream says of its deployment that ended with an error
// event: to the caller it has been passed, as everything else.
func (s *sending) endedWith(event []byte) {
	name, data := readEvent(event)
	t, problem := judgeEvent(name, data)
	if t != failing {
		return
	}
	s.fate.Store(endedBroken)
	status, h := standsFor(s.header, problem)
	o := s.call.note(s.d, judge(status, h, problem, s.call.op, time.Now()), s.bearer)
	switch {
	case o.verdict == throttled:
		s.call.coolDown(s.call.throttleOf(s.d), s.d, time.Now(), refusal{sent: s.sent, trip: s.trip}, o)
	case o.verdict == failed && o.wait > 0:
		s.call.coolDown(&s.d.health, s.d, time.Now(), refusal{sent: s.sent, trip: s.trip}, o)
	case o.verdict == failed:
		s.blame(o)
	}
}

// blame counts a failure after the answer was the caller's. Those before it
// count on: that the answer began well was no success.
func (s *sending) blame(o outcome) {
	d, now := s.d, time.Now()
	d.failed.Add(1)
	h := s.call.failureOf(d, o)
	h.change(func() {
		if h.ejection.streak < s.streak {
			h.ejection.streak, h.ejection.since = s.streak, s.sent
		}
		h.ejection.fail(now, now, s.sent, o.cause, o.reason, unit(s.call.transport.random()))
	})
	s.call.tell(h, d, now, o)
}
