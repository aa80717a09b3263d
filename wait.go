package spillover

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// wakeSpread is the time over which requests wake that wait for the same
// moment.
const wakeSpread = 200 * time.Millisecond

// leastWait is the shortest wait worth making. Without it a request that waits
// for its tier's retry budget would ask ever more often.
const leastWait = time.Millisecond

// waitForDeployment waits until the soonest deployment may be asked, if that is
// within the time that the request may wait and the caller's deadline. There is no
// queue, as first come, first served would only build up a backlog: ramp-up decides
// how many are admitted when they wake. It is false if waiting is of no use, the
// caller has left, or the transport is closed.
func (c *call) waitForDeployment(now time.Time, o outlook) bool {
	if !c.canWait(now, o) {
		return false
	}
	opened := c.pool.opened.subscribe()
	defer c.pool.opened.unsubscribe()
	place := c.queue(o)
	o = c.scope.outlook(c.route, now, c.unsuitable) // nothing that opens after subscribe is missed
	return c.pause(now, opened, place, o, c.remainingWait(now), "")
}

// errClosed is the error of requests to a closed Transport.
var errClosed = fmt.Errorf("spillover: the transport is closed: %w", net.ErrClosed)

// endClosed is the result of a request whose Transport was closed in the meantime, as
// nothing new is sent: that of its attempts, or 429 if it would have to wait.
func (c *call) endClosed(now time.Time) (*http.Response, error) {
	o := c.scope.outlook(c.route, now, c.unsuitable)
	if c.sends == 0 && (o.soonest == nil || !o.temporary() || o.full == 0 && !o.at.After(now)) {
		c.discard()
		return nil, errClosed
	}
	return c.exhausted(now)
}

// waitsForTier is why a request waits that a lower tier could take.
const waitsForTier = "for its tier"

// pause waits for a deployment, or until something opens. It is false if the caller
// has left or the transport is closed.
func (c *call) pause(now time.Time, opened, place <-chan struct{}, o outlook, most time.Duration, why string) bool {
	d := min(max(o.at.Sub(now), 0), most)
	if place != nil {
		// Nobody knows when a place is given back: this is woken then.
		if d = most; !o.opens.IsZero() {
			d = min(max(o.opens.Sub(now), 0), d)
		}
	}
	if next := min(c.pollAfter(), most); o.uncertain && (d <= 0 || d > next) {
		d = next // nothing announces it
	}
	d += time.Duration(unit(c.pool.random()) * float64(min(wakeSpread, most-d)))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-opened:
	case <-place:
	case <-c.Context().Done():
	case <-c.pool.done:
	}
	c.waited += time.Since(now)
	if t := c.options.trail; t != nil {
		t.addWait(now, why)
	}
	if c.pool.closed.Load() {
		return false
	}
	// Deployments that throttled it may be asked again, unsuitable ones may not.
	c.tried = slices.DeleteFunc(c.tried, func(d *deployment) bool { return !slices.Contains(c.unsuitable, d) })
	c.throttledBy, c.throttled = nil, false
	return true
}

// A request that waits for what nothing announces, such as a report of lower
// utilization, looks again after 1/pollShare of the time that it has waited, between
// minPoll and maxPoll. So a thousand requests look some thousand times a second.
const (
	pollShare = 8
	minPoll   = 100 * time.Millisecond
	maxPoll   = time.Second
)

func (c *call) pollAfter() time.Duration { return min(max(c.waited/pollShare, minPoll), maxPoll) }

// prefersToWait reports whether the request waits for a higher tier than the one
// that can take it now. If so, waitForTier comes next.
func (c *call) prefersToWait(now time.Time, t *tier) bool {
	patience := c.tierPatience()
	if patience < leastWait {
		return false
	}
	higher := slices.Index(c.route.tiers, t)
	_, _, ok := c.dueWithin(now, c.route.tiers[:higher], patience)
	if ok {
		c.awaitedTiers = uint16(min(higher, math.MaxUint16))
	}
	return ok
}

// waitForTier waits until a higher tier than the one that can take the request may be
// asked.
func (c *call) waitForTier(now time.Time) {
	higher := c.route.tiers[:c.awaitedTiers]
	c.awaitedTiers = 0
	opened := c.pool.opened.subscribe()
	defer c.pool.opened.unsubscribe()
	patience := c.tierPatience()
	if at, polls, ok := c.dueWithin(now, higher, patience); ok {
		c.pause(now, opened, nil, outlook{at: at, uncertain: polls}, patience, waitsForTier)
	}
}

// tierPatience is how long the request may still wait for its tier. It leaves half of
// the time until a deadline to the deployment of a lower tier. After a failure the
// request does not wait.
func (c *call) tierPatience() time.Duration {
	most := c.cfg.TierWait
	if c.scope.background {
		most = max(most, c.cfg.BackgroundWait)
	}
	if most == 0 || c.failures > 0 || c.pool.closed.Load() || !c.mayResend() {
		return 0
	}
	if deadline, limited := c.Context().Deadline(); limited {
		most = min(most, deadline.Sub(c.recorded.Begun)/2)
	}
	return most - c.waited
}

// dueWithin is when a deployment of some tiers may be asked, if one opens by itself and
// within the patience. If polls is set, one may open sooner, as nothing announces it.
func (c *call) dueWithin(now time.Time, tiers []*tier, patience time.Duration) (at time.Time, polls, ok bool) {
	for _, t := range tiers {
		for _, d := range t.members {
			until, uncertain, due := c.opensByItself(d, now)
			if !due || until.Sub(now) > patience {
				continue
			}
			if polls = polls || uncertain && !until.After(now); !ok || until.Before(at) {
				at, ok = until, true
			}
		}
	}
	return at, polls, ok
}

// opensByItself is when a deployment that cannot take the request now may be asked: at
// the end of a cool-down, or for a background request at that of a reserve, before
// which it is uncertain. It is not due if it is drained, ejected or silent, or cannot
// take this request.
func (c *call) opensByItself(d *deployment, now time.Time) (at time.Time, uncertain, due bool) {
	if slices.Contains(c.unsuitable, d) || d.backend.drained.Load() || d.backend.Stuck(now) || d.MaybeSilent(now) || c.scope.hopeless(d, now) || c.scope.probeDeferred(d, now, false) {
		return time.Time{}, false, false
	}
	at, throttled := c.scope.closed(d, now)
	switch {
	case !throttled && (!c.scope.background || !at.IsZero()):
		return time.Time{}, false, false
	case !c.scope.background:
		return at, false, true
	}
	at = health.Latest(at, now)
	later, uncertain := c.scope.reservedUntil(d, now)
	if uncertain || later.IsZero() {
		return at, true, true
	}
	return health.Latest(at, later), false, true
}

// canWait reports whether waiting for the soonest deployment is of any use.
func (c *call) canWait(now time.Time, o outlook) bool {
	patience := c.remainingWait(now)
	return patience >= leastWait && o.soonest != nil && !o.hopeless && !c.maybeRequestsFault && c.mayResend() && (o.full > 0 || o.uncertain || o.at.Sub(now) <= patience)
}

// queue puts the request into the queues of full deployments, until leaveQueues. It
// returns what wakes the request; nil if no deployment is full.
func (c *call) queue(o outlook) <-chan struct{} {
	c.leaveQueues()
	if o.full == 0 {
		return nil
	}
	both := *c.options
	both.waiting = c.scope.wait(c.route, func(d *deployment) bool { return slices.Contains(c.unsuitable, d) }, c.waited > 0)
	c.options = &both
	return both.waiting.woken
}

// leaveQueues ends queue.
func (c *call) leaveQueues() {
	if w := c.options.waiting; w != nil {
		both := *c.options
		both.waiting = nil
		c.options = &both
		w.leave()
	}
}

// remainingWait is how long the request may still wait.
func (c *call) remainingWait(now time.Time) time.Duration {
	left := c.cfg.MaxWait
	if c.scope.background {
		left = max(left, c.cfg.BackgroundWait)
	}
	left -= c.waited
	if deadline, limited := c.Context().Deadline(); limited {
		left = min(left, deadline.Sub(now)-1)
	}
	return left
}

// setWaitedHeader reports the wait of a request in its response.
func setWaitedHeader(resp *http.Response, waited time.Duration) {
	if waited > 0 {
		resp.Header[headerWaited] = []string{strconv.FormatInt(waited.Milliseconds(), 10)}
	}
}
