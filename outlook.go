package spillover

import (
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// An outlook is when the deployments of a model can be asked again.
type outlook struct {
	deployments int
	soonest     *deployment // nil when there is none
	at          time.Time   // when the soonest can be asked; not after now when it can
	throttled   bool        // the service itself closed at least one
	hopeless    bool        // all of them are out for quota or credentials
}

// look finds when the deployments of the request's route can be asked again, but
// for those that are drained and the unfit, who are no help to the request, and
// those that may or may not connect, which nobody knows. One that is open can be
// asked now.
func (c *call) lookAhead(now time.Time, unfit []*deployment) outlook {
	o := outlook{hopeless: true}
	for d := range c.route.all {
		o.deployments++
		if slices.Contains(unfit, d) || d.backend.drained.Load() {
			continue
		}
		until, _, throttled := c.scope.closed(d, now)
		if until.IsZero() && d.backend.Stuck(now) {
			continue
		}
		until = health.Later(until, now)
		o.throttled = o.throttled || throttled
		o.hopeless = o.hopeless && c.scope.hopeless(d, now)
		if o.soonest == nil || until.Before(o.at) {
			o.soonest, o.at = d, until
		}
	}
	return o
}
