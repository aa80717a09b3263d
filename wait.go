package spillover

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// headerWaited tells on an answer for how long the request waited, in milliseconds.
const headerWaited = "X-Spillover-Waited-Ms"

// wakeSpread is over what time those wake up who wait for the same moment.
const wakeSpread = 200 * time.Millisecond

// wait lets the request wait until the soonest deployment may be asked, if that
// is within MaxWait and the caller's own deadline. Waiting is no queue: first
// come, first served would only build a standing one. How many are let in when
// they wake is the pacing's to say. It is false when there is no use in waiting,
// or the caller has left, or the transport is closed.
func (c *call) wait(now time.Time, o outlook) bool {
	if o.hopeless || c.general || c.final || c.failures >= c.cfg.MaxAttempts || !c.body.sendable() {
		return false
	}
	left := c.cfg.MaxWait - c.waited
	if deadline, limited := c.Context().Deadline(); limited {
		left = min(left, deadline.Sub(now)-1)
	}
	d := max(o.at.Sub(now), 0)
	if d > left {
		return false
	}
	d += time.Duration(unit(c.transport.random()) * float64(min(wakeSpread, left-d)))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.Context().Done():
	case <-c.transport.done:
	}
	c.waited += time.Since(now)
	if c.transport.closed.Load() {
		return false
	}
	// Who throttled it may be asked again; who cannot take it may not.
	c.tried = slices.DeleteFunc(c.tried, func(d *deployment) bool { return !slices.Contains(c.unfit, d) })
	c.refusers, c.throttled = nil, false
	return true
}

// tellWaited puts the time that a request waited on its answer.
func tellWaited(resp *http.Response, waited time.Duration) {
	if waited > 0 {
		resp.Header[headerWaited] = []string{strconv.FormatInt(waited.Milliseconds(), 10)}
	}
}
