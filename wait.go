package spillover

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// wakeSpread is the time over which requests wake that wait for the same
// moment.
const wakeSpread = 200 * time.Millisecond

// leastWait is the shortest wait worth making. Without it a request that waits
// for its tier's retry budget would ask ever more often.
const leastWait = time.Millisecond

// waitForDeployment waits until the soonest deployment may be asked, if that is
// within MaxWait and the caller's deadline. There is no queue, as first come,
// first served would only build up a backlog: ramp-up decides how many are
// admitted when they wake. It is false if waiting is of no use, the caller has
// left, or the transport is closed.
func (c *call) waitForDeployment(now time.Time, o outlook) bool {
	if !c.canWait(now, o) {
		return false
	}
	opened := c.pool.opened.subscribe()
	defer c.pool.opened.unsubscribe()
	place := c.queue(o)
	o = c.scope.outlook(c.route, now, c.unsuitable) // nothing that opens after subscribe is missed
	d := min(max(o.at.Sub(now), 0), c.remainingWait(now))
	if place != nil {
		// Nobody knows when a place is given back: this is woken then.
		if d = c.remainingWait(now); !o.opens.IsZero() {
			d = min(max(o.opens.Sub(now), 0), d)
		}
	}
	d += time.Duration(unit(c.pool.random()) * float64(min(wakeSpread, c.remainingWait(now)-d)))
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
	c.trailWait(now)
	if c.pool.closed.Load() {
		return false
	}
	// Deployments that throttled it may be asked again, unsuitable ones may not.
	c.tried = slices.DeleteFunc(c.tried, func(d *deployment) bool { return !slices.Contains(c.unsuitable, d) })
	c.throttledBy, c.throttled = nil, false
	return true
}

// canWait reports whether waiting for the soonest deployment is of any use.
func (c *call) canWait(now time.Time, o outlook) bool {
	patience := c.remainingWait(now)
	return patience >= leastWait && o.soonest != nil && !o.hopeless && !c.maybeRequestsFault && c.mayResend() && (o.full > 0 || o.at.Sub(now) <= patience)
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
	left := c.cfg.MaxWait - c.waited
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
