package spillover

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// wakeSpread is over what time those wake up who wait for the same moment.
const wakeSpread = 200 * time.Millisecond

// leastWait is what is worth waiting for. A request that waits until its tiers
// can afford another attempt would else ask ever sooner towards the end.
const leastWait = time.Millisecond

// wait lets the request wait until the soonest deployment may be asked, if that
// is within MaxWait and the caller's own deadline. Waiting is no queue: first
// come, first served would only build a standing one. How many are let in when
// they wake is the pacing's to say. It is false when there is no use in waiting,
// or the caller has left, or the transport is closed.
func (c *call) waitForDeployment(now time.Time, o outlook) bool {
	if !c.canWait(now, o) {
		return false
	}
	opened := c.pool.opened.subscribe()
	defer c.pool.opened.unsubscribe()
	o = c.scope.outlook(c.route, now, c.unsuitable) // as it is from now on
	d := min(max(o.at.Sub(now), 0), c.remainingWait(now))
	d += time.Duration(unit(c.pool.random()) * float64(min(wakeSpread, c.remainingWait(now)-d)))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-opened:
	case <-c.Context().Done():
	case <-c.pool.done:
	}
	c.waited += time.Since(now)
	if c.pool.closed.Load() {
		return false
	}
	// Who throttled it may be asked again; who cannot take it may not.
	c.tried = slices.DeleteFunc(c.tried, func(d *deployment) bool { return !slices.Contains(c.unsuitable, d) })
	c.throttledBy, c.throttled = nil, false
	return true
}

// canWait reports whether there is any use in waiting for the soonest.
func (c *call) canWait(now time.Time, o outlook) bool {
	patience := c.remainingWait(now)
	return patience >= leastWait && o.soonest != nil && !o.hopeless && !c.maybeRequestsFault && c.mayResend() && o.at.Sub(now) <= patience
}

// patience is how long the request may still wait.
func (c *call) remainingWait(now time.Time) time.Duration {
	left := c.cfg.MaxWait - c.waited
	if deadline, limited := c.Context().Deadline(); limited {
		left = min(left, deadline.Sub(now)-1)
	}
	return left
}

// tellWaited puts the time that a request waited on its answer.
func setWaitedHeader(resp *http.Response, waited time.Duration) {
	if waited > 0 {
		resp.Header[headerWaited] = []string{strconv.FormatInt(waited.Milliseconds(), 10)}
	}
}
