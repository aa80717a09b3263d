package spillover

import (
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A Status is what a Transport knows of its deployments at one moment. It is a
// copy, and holds no credential.
type Status struct {
	Tiers []TierStatus // best first
}

// A TierStatus is the backends of one priority.
type TierStatus struct {
	Priority int
	Backends []BackendStatus // in the order of the configuration
}

// A BackendStatus is one backend.
type BackendStatus struct {
	Name        string
	URL         string // scheme, host and base path
	Weight      int
	Available   bool               // whether it can be connected to and is not drained
	Drained     bool               // whether it is out by hand, see [Transport.Drain]
	Until       time.Time          // if not available: when it is probed; else, and when drained, the zero time
	Reason      string             // if not available: why, such as "no connection"
	LastFailure Failure            // of any of its deployments, even if all is well since
	Deployments []DeploymentStatus // those of the configuration, and those that were asked for
}

// A DeploymentStatus is one deployment: a model of a backend.
type DeploymentStatus struct {
	Model     string    // what callers ask for; "" for requests that name none, "*" for those beyond the first thousand that are not configured
	Name      string    // what the backend calls it
	Available bool      // whether it may be chosen, its backend's state included
	Until     time.Time // if not: when it is asked again; else, and when drained, the zero time
	Reason    string    // if not: why, such as "429 rate_limit_reached"

	// Operations are those that are skipped here while others are served, such as
	// "responses" in a region without the Responses API.
	Operations []OperationStatus

	InFlight  int    // requests whose answer has not ended
	Served    uint64 // answers that went to the caller, those to its own mistakes (400) included
	Throttled uint64 // attempts that were refused with a 429
	Failed    uint64 // attempts that failed otherwise, and answers that broke off

	LastFailure Failure // of an attempt, refusals included, even if all is well since

	InputTokens, OutputTokens int64 // as answers told in their usage
}

// An OperationStatus is one operation of a deployment that failed there.
type OperationStatus struct {
	Name   string    // such as "chat/completions"; "" for one that this package does not know
	Until  time.Time // when it is asked again
	Reason string    // such as "404 NotFound"
}

const drainedReason = "drained"

// Status tells, for every tier, backend and deployment, whether it is
// available, and if not until when and why.
func (t *Transport) Status() Status {
	now := time.Now()
	table := t.setup.Load().table
	byBackend := map[*backend][]DeploymentStatus{}
	for _, r := range table.all() {
		for d := range r.all {
			until, reason, _ := d.closed(now)
			if d.backend.drained.Load() {
				until, reason = time.Time{}, drainedReason
			}
			s := DeploymentStatus{
				Model: d.model, Name: d.name, Available: reason == "", Until: until, Reason: reason,
				InFlight: int(d.InFlight.Load()), Served: d.served.Load(), Throttled: d.throttled.Load(), Failed: d.failed.Load(),
				LastFailure: lastFailure(d.failure.Load()), InputTokens: d.input.Load(), OutputTokens: d.output.Load(),
			}
			for i, h := range d.Operations {
				if until, reason, _ := h.Closed(now); !until.IsZero() && s.Available {
					s.Operations = append(s.Operations, OperationStatus{wire.OperationName(i), until, reason})
				}
			}
			if d.asked() || r != table.nameless && r != table.otherModels {
				byBackend[d.backend] = append(byBackend[d.backend], s)
			}
		}
	}
	var s Status
	for _, t := range table.nameless.tiers {
		tier := TierStatus{Priority: t.priority}
		for _, d := range t.members {
			b := d.backend
			until, reason, _ := b.Closed(now)
			if b.drained.Load() {
				until, reason = time.Time{}, drainedReason
			}
			tier.Backends = append(tier.Backends, BackendStatus{
				Name: b.name, URL: b.scheme + "://" + b.host + b.base, Weight: b.weight,
				Available: reason == "", Drained: b.drained.Load(), Until: until, Reason: reason, LastFailure: lastFailure(b.failure.Load()), Deployments: byBackend[b],
			})
		}
		s.Tiers = append(s.Tiers, tier)
	}
	return s
}
