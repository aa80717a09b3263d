package spillover

import (
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/telemetry"
)

// utilizationAge is for how long metrics show the utilization that a PTU reported:
// long enough for a scrape to see it.
const utilizationAge = time.Minute

// observe makes metrics show the state of the deployments, until the recorder's
// Unobserve. inForce is the configuration in force, nil if there is none any more.
func (s *activeConfig) observe(inForce func() *activeConfig) error {
	recorder := s.recorder
	return recorder.Observe(func(yield func(telemetry.Observation) bool) {
		// The deployments of an earlier configuration are read no more.
		if s := inForce(); s != nil && s.recorder == recorder {
			s.table.observe(time.Now(), yield)
		}
	}, func() *telemetry.Notices {
		if s := inForce(); s != nil && s.recorder == recorder && s.replica != nil {
			r := s.replica
			return &telemetry.Notices{Sent: int64(r.sent.Load()), Received: int64(r.received.Load()), Ignored: int64(r.ignored.Load())}
		}
		return nil
	})
}

// observe yields the state of the deployments: of those of configured models, and of
// others that were asked. What was never asked may not exist.
func (t *table) observe(now time.Time, yield func(telemetry.Observation) bool) {
	for _, r := range t.all() {
		_, configured := slices.BinarySearch(t.models, r.model)
		configured = configured && r != t.otherModels
		for d := range r.all {
			if !configured && !d.asked() {
				continue
			}
			until, _, _ := d.unavailable(now)
			o := telemetry.Observation{
				Deployment: d.labels(), Available: until.IsZero() && !d.backend.drained.Load(), InFlight: d.InFlight.Load(),
				Utilization: float64(d.Utilization.Load()) / 1000, Utilized: d.UtilizationAt.Age(now) <= utilizationAge,
			}
			if !yield(o) {
				return
			}
		}
	}
}
