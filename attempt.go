package spillover

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// An attempt is one send to one deployment.
type attempt struct {
	d                   *deployment
	sent                time.Time
	again               bool // it was sent there before
	probe, backendProbe bool // it holds the place of the one request that probes
}

func newAttempt(d *deployment, now time.Time) (a attempt, ok bool) {
	a = attempt{d: d, sent: now}
	if ok, a.backendProbe = d.backend.admit(now); !ok {
		return a, false
	}
	if ok, a.probe = d.admit(now); !ok {
		a.release(now)
	}
	return a, ok
}

// release gives the places for probes back when nothing was learnt.
func (a attempt) release(now time.Time) {
	if a.probe {
		a.d.release(now)
	}
	if a.backendProbe {
		a.d.backend.release(now)
	}
}

// attempt sends the request to a deployment. With neither an answer nor an
// error the request is to move on.
func (c *call) attempt(a attempt) (*http.Response, error) {
	d := a.d
	bearer, err := d.backend.bearer(c.Context())
	if err != nil {
		return nil, c.learn(a, nil, err, outcome{verdict: failed, cause: misconfigured, own: true, reason: "no token"})
	}
	// Each attempt has its own: a base may still hold the one of the last.
	s := &c.first
	if c.sends > 0 {
		s = new(sending)
	}
	ctx := s.begin(c.Context(), d)
	out, err := c.attemptRequest(ctx, d, bearer, &s.body)
	if err != nil {
		s.end()
		a.release(time.Now())
		c.giveUp()
		return nil, err
	}
	c.sends++
	resp, err := c.send(s, out)
	if err != nil {
		s.end()
		s.body.settle(&c.body)
		o := judgeError(err)
		c.final = !o.connect && !c.repeatable()
		c.failures++
		return nil, c.learn(a, nil, err, o)
	}
	if !d.backend.untroubled() {
		d.backend.change(func() { d.backend.ejection.succeed(a.sent) })
	}
	c.from = d.backend.name

	o := outcome{verdict: served}
	if resp.StatusCode < 400 {
		c.answer.hand(c.Context(), resp, s)
	} else {
		text := detach(c.Context(), resp, s)
		o = judge(resp.StatusCode, resp.Header, text, c.op, time.Now())
		if (o.verdict == failed || o.verdict == declined) && !o.own && !c.repeatable() {
			o.verdict = answered // it may have been carried out
		}
	}
	if o.verdict == served || o.verdict == answered {
		s.body.keep()
		return resp, c.learn(a, resp, nil, o)
	}
	s.body.settle(&c.body)
	if o.verdict != throttled && o.cause != outOfQuota {
		c.failures++
	}
	return nil, c.learn(a, resp, nil, o)
}

// A sending is what an attempt holds while it is under way: a place among the
// requests in flight, a context of its own, and the body.
type sending struct {
	d      *deployment
	cancel context.CancelCauseFunc
	body   attemptBody
	ended  atomic.Bool
}

func (s *sending) begin(ctx context.Context, d *deployment) context.Context {
	s.d = d
	d.inFlight.Add(1)
	ctx, s.cancel = context.WithCancelCause(ctx)
	return ctx
}

// end gives back what the attempt holds, once.
func (s *sending) end() {
	if s.ended.CompareAndSwap(false, true) {
		s.d.inFlight.Add(-1)
		s.cancel(nil)
	}
}

// send gives the request to the base, within the backend's time.
func (c *call) send(s *sending, out *http.Request) (*http.Response, error) {
	timeout := s.d.backend.headerTimeout
	if timeout <= 0 {
		return checked(c.transport.base, out)
	}
	timer := time.AfterFunc(timeout, func() { s.cancel(errHeaderTimeout) })
	resp, err := checked(c.transport.base, out)
	if !timer.Stop() {
		if err == nil {
			resp.Body.Close()
		}
		return nil, errHeaderTimeout
	}
	return resp, err
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
	return resp, nil
}

// learn draws the conclusions from an attempt, for the deployment and for the
// call. Its error ends the call: the caller has left.
func (c *call) learn(a attempt, resp *http.Response, err error, o outcome) error {
	d, now := a.d, time.Now()
	if o.verdict == served || o.verdict == answered {
		d.served.Add(1)
		d.change(func() {
			d.throttle.lift(a.sent)
			d.ejection.succeed(a.sent)
		})
		c.suspicions = nil // another one answered: the blame stands
		c.discard()
		return nil
	}
	a.release(now)
	if err != nil && c.Context().Err() != nil {
		c.giveUp()
		return context.Cause(c.Context())
	}
	switch o.verdict {
	case throttled:
		d.throttled.Add(1)
		c.coolDown(d, now, o)
		c.throttled = true
		if !a.again {
			c.refusers = append(c.refusers, d)
		}
	case failed:
		d.failed.Add(1)
		c.blame(a, now, o)
	}
	if o.verdict != throttled && o.cause != outOfQuota {
		c.unfit = append(c.unfit, d)
		c.general = c.general || !o.own
	}
	c.put(d, resp, err, o.verdict == throttled)
	return nil
}

// coolDown leaves a deployment alone for as long as it asked, within reason.
func (c *call) coolDown(d *deployment, now time.Time, o outcome) {
	wait := o.wait
	if wait <= 0 {
		wait = c.transport.cfg.DefaultCooldown
	}
	d.change(func() { d.throttle.mark(now, min(wait, c.transport.cfg.MaxCooldown), o.reason) })
}

// blame counts a failure against what failed: the deployment, the backend if
// there was no connection, or all that the account has if it is out of quota.
func (c *call) blame(a attempt, now time.Time, o outcome) {
	suspect := func(h *health) {
		h.change(func() {
			s := suspicion{health: h, was: h.ejection}
			counted := h.ejection.fail(now, a.sent, o.cause, o.reason, unit(c.transport.random()))
			s.then = h.ejection
			// That a backend's own account has spent everything is no request's fault.
			if counted && (o.cause != outOfQuota || a.d.backend.anonymous()) {
				c.suspicions = append(c.suspicions, s)
			}
		})
	}
	switch {
	case o.wait > 0:
		c.coolDown(a.d, now, o)
	case o.connect:
		suspect(&a.d.backend.health)
	case o.cause == outOfQuota:
		for d := range c.route.all {
			if d == a.d {
				suspect(&d.health)
			} else if d.backend.sharesAccount(a.d.backend) && !slices.Contains(c.tried, d) {
				suspect(&d.health)
				c.tried = append(c.tried, d)
			}
		}
	default:
		suspect(&a.d.health)
	}
}

// unit maps a random number to 0 ≤ u < 1.
func unit(r uint64) float64 { return float64(r>>11) / (1 << 53) }

// put keeps what an attempt brought, in case nothing better comes.
func (c *call) put(d *deployment, resp *http.Response, err error, refusal bool) {
	if resp == nil {
		c.errs = append(c.errs, attemptError{d.backend.name, err})
		return
	}
	slot := &c.failure
	if refusal {
		slot = &c.refusal
	}
	slot.discard()
	*slot = kept{resp, d.backend.name}
}
