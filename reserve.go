package spillover

import (
	"context"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// WithClass sets the class of the requests of a context. Without it the class is that
// of [Config.Class], else Interactive. An unknown value counts as Interactive.
//
// Background requests use the capacity that interactive requests leave. They skip a
// PTU that reports 50 % utilization or more, and a deployment with less than a fifth
// of its reported or configured limit left. While a deployment ramps up after a
// cool-down, interactive requests go first. If all deployments are reserved in this
// way, a background request waits up to [Config.BackgroundWait] and is answered 429
// then. It does not starve: a deployment that could take an interactive request takes
// at least one background request every 30 s.
//
// Only POST requests are held back: the others cost no tokens.
func WithClass(ctx context.Context, c Class) context.Context {
	return withOptions(ctx, func(o *options) { o.class, o.hasClass = c.known(), true })
}

// reserves reports whether a deployment keeps what it can take for interactive
// requests. It is false for an interactive request.
func (s *scope) reserves(d *deployment, now time.Time) bool {
	if !s.background {
		return false
	}
	for _, h := range s.healths(d) {
		if h != nil && !h.HasSpareSlot(now) {
			return true
		}
	}
	return d.Reserves(now, d.rates)
}

// admits reports whether a deployment is open, and not reserved for more urgent
// requests.
func (s *scope) admits(d *deployment, now time.Time) bool {
	return s.accepts(d, now) && !s.reserves(d, now)
}

// retryReserved is after how long a background request may ask a deployment again
// that is reserved, if nothing says when that ends. It is as long as a report of
// utilization counts.
const retryReserved = 10 * time.Second

// reservedUntil is until when a deployment is reserved; zero if it is not. It is
// uncertain if a report may end that sooner or later.
func (s *scope) reservedUntil(d *deployment, now time.Time) (until time.Time, uncertain bool) {
	if !s.reserves(d, now) {
		return time.Time{}, false
	}
	for _, h := range s.healths(d) {
		if h != nil {
			until = health.Latest(until, h.SpareSlotAt())
		}
	}
	if uncertain = d.Reserves(now, d.rates); uncertain {
		until = health.Latest(until, now.Add(retryReserved))
	}
	if due := d.BackgroundDueAt(now); due.Before(until) {
		until = due
	}
	return until, uncertain
}
