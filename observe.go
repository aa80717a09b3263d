package spillover

import (
	"context"
	"fmt"
	"time"
	"weak"

	"go.opentelemetry.io/otel/metric"
)

// utilizationTold is for how long metrics have the utilization that a PTU told:
// long enough for a scrape to see it.
const utilizationTold = time.Minute

// observe has the state of the deployments read whenever metrics are collected,
// until unobserve. It does not keep a Transport alive that nobody closed.
func (t *telemetry) observe(of *Transport) (err error) {
	transport := weak.Make(of)
	t.observed, err = t.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		if of := transport.Value(); of != nil {
			if s := of.setup.Load(); s.telemetry == t {
				of.read(s, time.Now(), o)
			}
		}
		return nil
	}, t.available, t.inFlight, t.utilization)
	if err != nil {
		return fmt.Errorf("spillover: MeterProvider: %w", err)
	}
	return nil
}

func (t *telemetry) unobserve() { _ = t.observed.Unregister() }

// read tells the state of the deployments. Those that have the same name in
// metrics count as one, which is available while any of them is.
func (t *Transport) read(s *activeConfig, now time.Time, o metric.Observer) {
	type name struct {
		backend *backend
		model   string
	}
	type sum struct {
		option              metric.ObserveOption
		available, inFlight int64
	}
	sums := map[name]*sum{}
	for _, r := range s.table.all() {
		for d := range r.all {
			if r == s.table.nameless && !d.asked() {
				continue
			}
			id := t.identify(s.table, d)
			n := name{d.backend, id.model}
			if sums[n] == nil {
				sums[n] = &sum{option: id.all.option}
			}
			if until, _, _ := d.closed(now); until.IsZero() && !d.backend.drained.Load() {
				sums[n].available = 1
			}
			sums[n].inFlight += d.InFlight.Load()
			if d.UtilizationAt.Age(now) <= utilizationTold {
				o.ObserveFloat64(s.utilization, float64(d.Utilization.Load())/1000, id.all.option)
			}
		}
	}
	for _, n := range sums {
		o.ObserveInt64(s.available, n.available, n.option)
		o.ObserveInt64(s.inFlight, n.inFlight, n.option)
	}
}
