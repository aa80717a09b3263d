package spillover

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/replay"

	"github.com/spillover-go/spillover/internal/health"
)

// An attempt is one send to one deployment.
type attempt struct {
	d      *deployment
	sent   time.Time
	trip   time.Duration // until the header of the answer
	again  bool          // it was sent there before
	cost   int64         // in the budget of its tier, which gets it back if it is served
	resort bool          // although what was learnt from refusals closes the deployment
	known  bool          // although the deployment is known to fail
	entry  health.Reservation

	// What the attempt has the place of the one probe of, by its number.
	probed healths
	probes [len(healths{})]uint64
}

// newAttempt takes the places that a deployment has for one more request; it is
// not ok when there is none. anyway sends the request although a configured
// limit is spent.
func (c *call) newAttempt(d *deployment, now time.Time, anyway bool) (a attempt, ok bool) {
	a = attempt{d: d, sent: now}
	if a.entry, ok = d.Ledger.Reserve(now, d.rates, c.tokens, anyway); !ok {
		return a, false
	}
	all := c.scope.healths(d)
	for i, h := range all {
		if h == nil {
			continue
		}
		if ok, a.probes[i] = h.Admit(now); !ok {
			c.release(&a, now)
			d.Ledger.Settle(a.entry, 0, false)
			return a, false
		}
		if a.probes[i] != 0 {
			a.probed[i] = h
		}
	}
	return a, true
}

// isProbe reports whether the attempt finds out whether something has recovered.
func (a *attempt) isProbe() bool { return a.probed != healths{} }

// suspected reports whether the deployment is known to fail.
func (a *attempt) suspected() bool { return a.known || a.isProbe() }

// release gives the places for probes back when nothing was learnt.
func (c *call) release(a *attempt, now time.Time) {
	opened := false
	for i, h := range a.probed {
		if h != nil {
			opened = h.Release(now, a.probes[i]) || opened
		}
	}
	if opened {
		c.transport.opened.notify()
	}
}

// attempt sends the request to a deployment. With neither an answer nor an
// error the request is to move on.
func (c *call) attempt(a attempt) (*http.Response, error) {
	d := a.d
	// Each attempt has its own: a base may still hold the one of the last.
	s := &c.first
	if s.call != nil {
		s = new(sending)
	}
	s.call, s.attempt, c.latest = c, a, s
	for _, h := range a.probed {
		if h != nil {
			c.tell(h, d, a.sent, outcome{})
		}
	}
	bearer, err := d.backend.bearer(c.ctx)
	if err != nil {
		d.Ledger.Settle(a.entry, 0, false)
		s.entry = health.Reservation{}
		o := outcome{verdict: failed, cause: health.Misconfigured, own: true, unsent: true, reason: "no token", detail: err.Error()}
		o = c.note(d, o)
		c.countAttempt(d, failed.String(), errorType(0, o.reason))
		return nil, c.learn(a, nil, err, o)
	}
	a.sent = time.Now() // a token may take its time
	ctx := s.begin(c, a)
	s.bearer = bearer
	// It may have been drained since it was chosen: from here on it is in flight.
	if d.backend.drained.Load() {
		s.undo()
		c.tried = slices.DeleteFunc(c.tried, func(t *deployment) bool { return t == d })
		return nil, nil
	}
	out, err := c.attemptRequest(ctx, d, bearer, s)
	if err != nil {
		s.undo()
		if errors.Is(err, replay.ErrOtherBody) {
			c.put(d, nil, err, false)
			return nil, nil
		}
		c.giveUp()
		return nil, err
	}
	out = s.openSpan(out)
	c.sends++
	s.limit(d.backend.headerTimeout, errHeaderTimeout)
	resp, o, err := c.send(s, out)
	if !s.relax() && err == nil {
		resp.Body.Close()
		err = s.limits.cause
	}
	a.trip = s.trip
	s.hear(err == nil && o.verdict == served, err == nil)
	if err != nil {
		s.end()
		s.body.Settle(&c.body)
		o = s.judgeError(err)
		c.final = !o.connect && !c.repeatable()
		c.failures++
		o = s.judged(o, err)
		return nil, c.learn(a, nil, err, o)
	}
	if o.verdict == served {
		s.cost.CompareAndSwap(0, c.tokens) // unless its usage was read already
		s.log(served.String(), wellBy(resp))
	} else {
		o = s.judged(o, nil)
	}
	if o.verdict == served || o.verdict == answered || o.final {
		s.body.Keep()
		c.from, c.by = d.backend.name, s
		return resp, c.learn(a, resp, nil, o)
	}
	s.body.Settle(&c.body)
	if !o.free {
		c.failures++
	}
	return nil, c.learn(a, resp, nil, o)
}

// send gives the request to the base and reads of the answer what it takes to
// judge it: all of an error, the beginning of a stream.
func (c *call) send(s *sending, out *http.Request) (*http.Response, outcome, error) {
	resp, err := checked(c.base, out)
	b := s.d.backend
	c.connected(b)
	if err != nil {
		return nil, outcome{}, s.explain(err)
	}
	now := time.Now()
	s.resp = resp
	s.status, s.trip = resp.StatusCode, now.Sub(s.sent)
	b.Answered.Set(now)
	s.d.measure(now, s.sent, s.tokens, resp.Header)
	if b.Troubled() {
		b.Reached(s.sent)
		c.tell(&b.State, s.d, now, wellBy(resp))
	}
	var o outcome
	var held []byte
	switch {
	case resp.StatusCode >= 400:
		text, known := c.detach(resp, s)
		o = judge(resp.StatusCode, resp.Header, wire.Decompress(resp.Header, text, errorBodyLimit), c.Operation, time.Now())
		if o.verdict == answered && !known && c.repeatable() {
			// What it refuses the request for is not known, and may be this
			// deployment's alone.
			o.verdict = declined
		}
		return resp, c.reconsider(s.d, o), nil
	case c.streamed(resp):
		h, err := c.commit(resp, s)
		if err != nil {
			resp.Body.Close()
			return nil, h.judged, err
		}
		if !h.plain {
			if o = h.judged; o.verdict == served && h.begun && !wire.SpilledByAzure(resp.Header) {
				s.d.Stream.Observe(time.Now(), float64(time.Since(s.sent)))
			}
			c.handOver(resp, s, h)
			return resp, c.reconsider(s.d, o), nil
		}
		held = h.held
	case b.headerTimeout > 0 && c.stateless() && resp.StatusCode < 300 && resp.Body != http.NoBody:
		// The answer has not begun before its body has.
		held = make([]byte, 512)
		n, err := io.ReadAtLeast(resp.Body, held, 1)
		if held = held[:n]; err != nil && err != io.EOF {
			resp.Body.Close()
			return nil, outcome{}, s.explain(err)
		}
	}
	if !wire.SpilledByAzure(resp.Header) {
		s.took = now.Sub(s.sent)
	}
	c.handOver(resp, s, &hold{held: held, plain: true, begun: true})
	return resp, c.reconsider(s.d, o), nil
}

// reconsider is what an outcome means for this request in particular.
func (c *call) reconsider(d *deployment, o outcome) outcome {
	switch {
	case c.seeking && o.status == http.StatusNotFound && !o.lacks, o.elsewhere, c.misses(o):
		// What it asks for may be at another backend.
		c.miss(o)
		o.verdict, o.cause, o.own, o.free, o.wait = declined, health.NoFailure, true, true, 0
	case o.status == http.StatusNotFound && o.cause == health.Misconfigured && !o.lacks && c.Target.Dialect == Azure && d.backend.dialect == Azure && d.backend.apiVersion == "":
		// The api-version is the caller's own, and may be what is not found.
		o.verdict, o.cause = declined, health.NoFailure
	case (o.verdict == failed || o.verdict == declined) && !o.own && !c.repeatable():
		o.final = true
	}
	return o
}

// handOver makes an answer one that is learnt from while the caller reads it.
func (c *call) handOver(resp *http.Response, s *sending, h *hold) {
	if wire.SpilledByAzure(resp.Header) {
		s.d.SpilledByAzure(time.Now())
	}
	if resp.Body == http.NoBody {
		// There is nothing to read, and so nothing that its caller must close.
		s.readWhole()
		s.cost.Store(c.tokens)
		s.end()
		return
	}
	b := &c.answer
	if b.send != nil {
		b = new(answerBody) // an earlier attempt's has it
	}
	b.held = h.held
	b.begun = h.begun || c.repeatable()
	if resp.StatusCode != http.StatusSwitchingProtocols { // a WebSocket is silent, and ends, as it likes
		b.idle, b.silent = s.d.backend.idleTimeout, errIdleTimeout
		b.blames = h.judged.verdict == served // and once
	}
	if !h.plain {
		s.header = resp.Header
		b.events = new(wire.EventReader)
	}
	s.before = s.d.Operation(c.scope.op).Progress()
	b.learnFrom(resp, &c.request)
	if resp.StatusCode/100 == 2 && c.tellsIDs() {
		wire.HeaderIDs(resp.Header, func(id string) { c.transport.stored.Learn(time.Now(), wire.ObjectID{ID: id}, s.d.backend.home) })
	}
	b.hand(c.Context(), resp, s)
}

// checked holds a base to the contract: an answer or an error, and an answer
// has a header and a body.
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
	if _, ok := base.(*http.Transport); !ok { // which has them so
		wire.CanonicalizeHeader(resp.Header)
	}
	// What this package says of an answer no service can say.
	for name := range resp.Header {
		if len(name) >= len(headerPrefix) && strings.EqualFold(name[:len(headerPrefix)], headerPrefix) {
			delete(resp.Header, name)
		}
	}
	return resp, nil
}
