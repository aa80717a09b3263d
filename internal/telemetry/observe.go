package telemetry

import (
	"context"
	"fmt"
	"iter"

	"go.opentelemetry.io/otel/metric"
)

// An Observation is the state of a deployment when metrics are collected.
type Observation struct {
	Deployment  *Deployment
	Available   bool
	InFlight    int64
	Utilization float64
	Utilized    bool // Utilization was reported lately
}

// Notices are how many notices a replica has exchanged with the others of its fleet.
type Notices struct{ Sent, Received, Ignored int64 }

// Observe reads the state of the deployments, and the notices of a replica, whenever
// metrics are collected, until Unobserve. notices returns nil without a fleet. What the
// functions refer to is not collected as garbage until then.
func (r *Recorder) Observe(deployments iter.Seq[Observation], notices func() *Notices) (err error) {
	r.registration, err = r.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		r.observe(o, deployments)
		if n := notices(); n != nil {
			o.ObserveInt64(r.notices, n.Sent, sentNotices)
			o.ObserveInt64(r.notices, n.Received, receivedNotices)
			o.ObserveInt64(r.notices, n.Ignored, ignoredNotices)
		}
		return nil
	}, r.available, r.inFlight, r.utilization, r.notices)
	if err != nil {
		return fmt.Errorf("spillover: MeterProvider: %w", err)
	}
	return nil
}

var (
	sentNotices     = metric.WithAttributes(keyNotice.String("sent"))
	receivedNotices = metric.WithAttributes(keyNotice.String("received"))
	ignoredNotices  = metric.WithAttributes(keyNotice.String("ignored"))
)

// Unobserve ends Observe.
func (r *Recorder) Unobserve() { _ = r.registration.Unregister() }

// observe adds deployments up that have the same labels: together they are
// available while any of them is.
func (r *Recorder) observe(o metric.Observer, deployments iter.Seq[Observation]) {
	type name struct{ backend, model string }
	type sum struct {
		option              metric.ObserveOption
		available, inFlight int64
	}
	sums := map[name]*sum{}
	for s := range deployments {
		l := r.labels(s.Deployment)
		n := name{s.Deployment.Backend, l.model}
		if sums[n] == nil {
			sums[n] = &sum{option: l.all.observe}
		}
		if s.Available {
			sums[n].available = 1
		}
		sums[n].inFlight += s.InFlight
		if s.Utilized {
			o.ObserveFloat64(r.utilization, s.Utilization, l.all.observe)
		}
	}
	for _, s := range sums {
		o.ObserveInt64(r.available, s.available, s.option)
		o.ObserveInt64(r.inFlight, s.inFlight, s.option)
	}
}
