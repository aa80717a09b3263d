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

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/replay"

	"github.com/spillover-go/spillover/internal/health"
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
	body   *replay.Attempt // the latest; nil when there is none
	space  replay.Attempt  // of the first
	bearer string          // the token that it is sent with; "" for another credential
	ended  atomic.Bool
	cost   atomic.Int64 // tokens, as the answer told, or the estimate if it told none

	tokens int64           // sent to the deployment in all, with this request
	took   time.Duration   // until an answer that comes whole began; 0 once that was learnt from
	before health.Progress // of the operation, before this answer
	header http.Header     // of a stream

	limits timeLimit

	connect *time.Timer  // of a probe
	waits   bool         // for an answer
	conn    atomic.Int32 // how far a base got that tells when it connects
	resp    *http.Response
}

// How far a base got with an attempt. With one that does not tell, or is not
// asked to, that is not known.
const (
	connWanted int32 = iota + 1 // it has asked for a connection and has none yet
	connMade                    // it had one, so that something may have been sent
)

func (s *sending) begin(c *call, a attempt) context.Context {
	s.call, s.attempt = c, a
	a.d.InFlight.Add(1)
	a.d.RequestSent(a.sent)
	s.waits = true
	s.tokens = a.d.CountSent(c.tokens)
	s.ctx, s.cancel = context.WithCancelCause(c.ctx)
	return s.traced(s.ctx)
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
func (s *sending) traced(ctx context.Context) context.Context {
	b := s.d.backend
	probe := s.isProbe()
	if !probe && b.Answered.Age(s.sent) < pendingConnect && s.call.repeatable() {
		return ctx
	}
	limit := time.Duration(0)
	if lost := b.LostProbes.Load(); probe && lost <= probeDoublings {
		limit = probeConnect << lost
		s.connect = time.AfterFunc(time.Hour, func() {
			b.LostProbes.CompareAndSwap(lost, lost+1)
			s.cancel(errConnectTimeout)
		})
		s.connect.Stop()
	}
	var wanted health.Timestamp
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			now := time.Now()
			b.Connecting.SetIfZero(now.Add(pendingConnect))
			s.conn.CompareAndSwap(0, connWanted)
			wanted.Set(now)
			if s.connect != nil {
				s.connect.Reset(limit)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			s.call.connected(b)
			s.conn.Store(connMade)
			if s.connect != nil {
				s.connect.Stop()
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
func (s *sending) hear(served, answered bool) {
	if !s.waits {
		return
	}
	s.waits = false
	now := time.Now()
	if !answered {
		s.d.RequestAbandoned(s.call.leftErr() != nil, now.Sub(s.sent))
		return
	}
	s.d.ResponseReceived(now)
	if served {
		s.d.ObserveWait(now.Sub(s.sent))
	}
	if s.d.HeardAgain() {
		s.call.tell(&s.d.State, s.d, now, outcome{status: s.status})
		s.call.transport.opened.notify()
	}
}

// judgeError reads why there was no answer, with what the base told of its
// connection: a proxy's refusal, say, is an error like any other.
func (s *sending) judgeError(err error) outcome {
	if s.body != nil && s.body.Failed.Load() {
		return outcome{verdict: declined, reason: "request body"} // which is the caller's
	}
	o := judgeError(err)
	switch {
	case s.conn.Load() == connWanted && s.status == 0:
		o.connect, o.cause, o.reason = true, health.Unreachable, "no connection"
	case s.conn.Load() == connMade && o.connect && !unconnected(err) && !refusedCertificate(err), s.status != 0 && o.connect:
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
func (s *sending) end() {
	if s.ended.CompareAndSwap(false, true) {
		s.d.InFlight.Add(-1)
		s.d.Ledger.Settle(s.entry, s.cost.Load(), true)
		s.cancel(nil)
		if s.connect != nil {
			s.connect.Stop()
		}
		s.limits.stop()
		if s.parted.Swap(true) {
			s.call.finish(s)
		}
	}
}

// undo ends an attempt of which nothing was sent.
func (s *sending) undo() {
	s.d.Ledger.Settle(s.entry, 0, false)
	s.entry = health.Reservation{}
	s.hear(false, false)
	s.end()
	s.call.release(&s.attempt, time.Now())
}

// abandon ends an attempt that a panic has cut short, and which a server may
// recover from: of Base, Token or another function that the program supplies.
func (s *sending) abandon() {
	if s.cancel == nil {
		s.d.Ledger.Settle(s.entry, 0, false) // it had not begun
	} else {
		if s.resp != nil {
			s.resp.Body.Close()
		}
		if s.body != nil {
			s.body.Close()
			s.body.Keep() // by nobody
		}
		s.call.connected(s.d.backend)
		s.end()
		s.closeSpan(errorType(0, "panic"))
	}
	s.hear(false, false)
	s.call.release(&s.attempt, time.Now())
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
func (s *sending) limit(d time.Duration, cause error) (now time.Time) {
	if d <= 0 {
		return time.Time{}
	}
	l := &s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	now = time.Now()
	l.until, l.cause = now.Add(d), cause
	switch {
	case l.timer == nil:
		l.timer = time.AfterFunc(d, s.expire)
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

func (s *sending) expire() {
	l := &s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fires = (time.Time{}); l.until.IsZero() || s.ended.Load() {
		return
	}
	if left := time.Until(l.until); left > 0 {
		l.timer.Reset(left)
		l.fires = l.until
		return
	}
	l.over = true
	s.cancel(l.cause)
}

// relax ends a limit. It is false when that was too late.
func (s *sending) relax() bool {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.limits.until = time.Time{}
	return !s.limits.over
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
	if s.ended.Load() || s.call.leftErr() != nil {
		return
	}
	s.fate.Store(endedBroken)
	s.blame(s.call.note(s.d, outcome{verdict: failed, cause: health.NoAnswer, reason: "answer broke off"}))
}

// failedWith is what an error says of the deployment that came in a stream which
// is already the caller's: it has been passed, as everything else.
func (s *sending) failedWith(problem []byte) {
	status, h := wire.StreamErrorStatus(s.header, problem)
	o := s.call.note(s.d, judge(status, h, problem, s.call.Operation, time.Now()), s.bearer)
	switch {
	case o.verdict == throttled:
		s.call.coolDown(s.call.throttleOf(s.d), s.d, time.Now(), health.Refusal{Sent: s.sent, RoundTrip: s.trip}, o)
	case o.verdict == failed && o.wait > 0:
		s.call.coolDown(&s.d.State, s.d, time.Now(), health.Refusal{Sent: s.sent, RoundTrip: s.trip}, o)
	case o.verdict == failed:
		s.blame(o)
	}
}

// blame counts a failure after the answer was the caller's. Those before it
// count on, unless another answer ended well meanwhile: that this one began well
// was no success.
func (s *sending) blame(o outcome) {
	d, now := s.d, time.Now()
	d.failed.Add(1)
	h := s.call.failureOf(d, o)
	h.FailLate(now, health.FailedAttempt{Sent: s.sent, Seen: now, Cause: o.cause, Reason: o.reason}, s.before, unit(s.call.transport.random()))
	s.call.tell(h, d, now, o)
}
