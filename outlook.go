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
	reserved    bool        // the soonest is open, but reserved for interactive requests until then
	uncertain   bool        // it may be sooner or later
	hopeless    bool        // all of them are out for quota or credentials
	full        int         // that only lack a place for one more request
	opens       time.Time   // when the soonest of the others can be asked; zero if there is none
}

// temporary reports whether waiting helps at some deployment: it is rate-limited or
// full, or reserved.
func (o outlook) temporary() bool { return o.throttled || o.full > 0 || o.reserved }

// outlook is when the deployments of a route can be asked again. It leaves out
// those that are drained, those that cannot take this request (unsuitable), and
// those with a connection pending, as nobody knows whether they will connect.
func (s *scope) outlook(r *route, now time.Time, unsuitable []*deployment) outlook {
	o := outlook{hopeless: true}
	for d := range r.all {
		o.deployments++
		if slices.Contains(unsuitable, d) || d.backend.drained.Load() {
			continue
		}
		until, throttled := s.closed(d, now)
		if until.IsZero() && d.backend.Stuck(now) {
			continue
		}
		until = health.Latest(until, now)
		later, uncertain := s.reservedUntil(d, now)
		reserved := until.Equal(now) && !later.IsZero()
		until = health.Latest(until, later)
		o.throttled = o.throttled || throttled
		o.hopeless = o.hopeless && s.hopeless(d, now)
		switch {
		case !until.After(now) && d.Full():
			o.full++
			until = now.Add(d.NextPlace())
		case o.opens.IsZero() || until.Before(o.opens):
			o.opens = until
		}
		if o.soonest == nil || until.Before(o.at) {
			o.soonest, o.at, o.reserved, o.uncertain = d, until, reserved, reserved && uncertain
		}
	}
	return o
}
