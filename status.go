package spillover

import (
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A Status is a snapshot of what a Transport knows of its deployments. It is a
// copy and holds no credential. As JSON it has names in snake_case; times that
// are zero, failures that did not happen, and empty texts and lists are left out,
// while availability and counts are always there.
type Status struct {
	Fleet *FleetStatus `json:"fleet,omitempty"` // nil without [Config.Fleet]
	Tiers []TierStatus `json:"tiers"`           // in order of priority
}

// A FleetStatus is what a Transport knows of the other replicas of its Fleet.
type FleetStatus struct {
	Name     string          `json:"name"`     // of this replica: random, new in each process
	Replicas []ReplicaStatus `json:"replicas"` // the others that were heard in the last ten minutes, by name

	Sent     uint64 `json:"sent"`     // notices that this replica has published
	Received uint64 `json:"received"` // notices of others that were applied
	Ignored  uint64 `json:"ignored"`  // notices that could not be read, were too many, or of a replica that is not believed
}

// A ReplicaStatus is the state of another replica. One that has nothing to tell is not
// heard.
type ReplicaStatus struct {
	Name    string    `json:"name"`              // random, new in each process
	Heard   time.Time `json:"heard"`             // when it was last heard
	Ignored bool      `json:"ignored,omitempty"` // for a while, as its reports were wrong
}

// A TierStatus is the state of one tier: of the backends with the same Priority.
type TierStatus struct {
	Priority int             `json:"priority"`
	Backends []BackendStatus `json:"backends"` // in the order of the configuration
}

// A BackendStatus is the state of one backend. Its Name and Weight are those in force,
// with their defaults.
type BackendStatus struct {
	Name        string             `json:"name"`
	URL         string             `json:"url"` // scheme, host and base path
	Weight      int                `json:"weight"`
	Available   bool               `json:"available"`             // false while it is drained, or ejected because it cannot be connected to
	Drained     bool               `json:"drained,omitempty"`     // by [Transport.Drain] or [Backend.Drained]
	Until       time.Time          `json:"until,omitzero"`        // when an unavailable backend is probed; zero if it is available or drained
	Reason      string             `json:"reason,omitempty"`      // why it is unavailable, such as "no connection"
	LastFailure Failure            `json:"last_failure,omitzero"` // of any of its deployments; it is kept after they recover
	Deployments []DeploymentStatus `json:"deployments,omitempty"` // the configured ones, and others that were requested
}

// A DeploymentStatus is the state of one deployment: a model of a backend.
type DeploymentStatus struct {
	Model     string    `json:"model,omitempty"`  // the name that callers use; "" for requests without a model, "*" for unconfigured models beyond the first thousand
	Name      string    `json:"name,omitempty"`   // the backend's name for it
	Available bool      `json:"available"`        // whether it may be chosen; includes the backend's state
	Until     time.Time `json:"until,omitzero"`   // when an unavailable deployment is asked again; zero if it is available or drained. It is in the past while the half-open probe waits until more requests were sent elsewhere
	Reason    string    `json:"reason,omitempty"` // why it is unavailable, such as "429 rate_limit_reached"

	// RateLimited reports that it is unavailable because the service asked to wait
	// (429, a 5xx with Retry-After), or is out of quota, or because it is ramping up
	// afterwards. An unavailable deployment that is neither RateLimited nor drained is
	// ejected.
	RateLimited bool `json:"rate_limited,omitempty"`

	// Operations are skipped here while others are served, such as "responses" in a
	// region without the Responses API.
	Operations []OperationStatus `json:"operations,omitempty"`

	InFlight  int    `json:"in_flight"` // requests whose response has not ended
	Served    uint64 `json:"served"`    // responses that went to the caller, including errors in the request itself (400)
	Throttled uint64 `json:"throttled"` // attempts that were rate-limited (429)
	Failed    uint64 `json:"failed"`    // attempts that failed for other reasons, and responses that were interrupted

	LastFailure Failure `json:"last_failure,omitzero"` // of an attempt, including 429s; it is kept after the deployment recovers

	// AvoidedUntil is until when another replica of the Fleet reports that it is
	// rate-limited, fails or is drained; zero if none does. It may be chosen
	// meanwhile, if there is no other.
	AvoidedUntil time.Time `json:"avoided_until,omitzero"`

	// Utilization is the share of its capacity in use that a PTU last reported, to this
	// replica or to another one of the Fleet: 1 means full, and it can exceed 1. It is 0
	// if UtilizationAt is zero.
	Utilization   float64   `json:"utilization,omitempty"`
	UtilizationAt time.Time `json:"utilization_at,omitzero"` // when Utilization was reported; zero if it never was

	// InputTokens are as reported in the usage of responses. A stream of chat
	// completions reports its usage only if the request sets
	// stream_options.include_usage; other streams of chat completions count as 0.
	InputTokens int64 `json:"input_tokens"`
	// OutputTokens are reported as InputTokens are.
	OutputTokens int64 `json:"output_tokens"`
}

// An OperationStatus is the state of one operation of a deployment that failed
// there.
type OperationStatus struct {
	Name   string    `json:"name"`             // such as "chat/completions"; "" for an operation unknown to this package
	Until  time.Time `json:"until,omitzero"`   // when it is asked again
	Reason string    `json:"reason,omitempty"` // such as "404 NotFound"
}

// Status returns, for every tier, backend and deployment, whether it is
// available, and if not until when and why.
func (t *Transport) Status() Status {
	now := time.Now()
	setup := t.setup.Load()
	table := setup.table
	byBackend := map[*backend][]DeploymentStatus{}
	for _, r := range table.all() {
		for d := range r.all {
			until, reason, limited := d.unavailable(now)
			if d.backend.drained.Load() {
				until, reason, limited = time.Time{}, drainedReason, false
			}
			s := DeploymentStatus{
				Model: d.model, Name: d.name, Available: reason == "", Until: until, Reason: reason, RateLimited: limited,
				InFlight: int(d.InFlight.Load()), Served: d.served.Load(), Throttled: d.throttled.Load(), Failed: d.failed.Load(),
				LastFailure: lastFailure(d.failure.Load()), AvoidedUntil: d.Reports.Until(now), InputTokens: d.input.Load(), OutputTokens: d.output.Load(),
				Utilization: float64(d.Utilization.Load()) / 1000, UtilizationAt: d.UtilizationAt.Time(),
			}
			for i, h := range d.Operations {
				if until, reason, _ := h.Unavailable(now); !until.IsZero() && s.Available {
					s.Operations = append(s.Operations, OperationStatus{wire.OperationName(i), until, reason})
				}
			}
			if d.asked() || r != table.nameless && r != table.otherModels {
				byBackend[d.backend] = append(byBackend[d.backend], s)
			}
		}
	}
	s := Status{Fleet: fleetStatus(setup.replica, now)}
	for _, t := range table.nameless.tiers {
		tier := TierStatus{Priority: t.priority}
		for _, d := range t.members {
			b := d.backend
			until, reason, _ := b.Unavailable(now)
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

// lastFailure is what Status has of a failure, if there was one.
func lastFailure(f *Failure) Failure {
	if f == nil {
		return Failure{}
	}
	return *f
}

// fleetStatus is what Status shows of the fleet.
func fleetStatus(r *replica, now time.Time) *FleetStatus {
	if r == nil {
		return nil
	}
	s := &FleetStatus{Name: r.name, Sent: r.sent.Load(), Received: r.received.Load(), Ignored: r.ignored.Load(), Replicas: []ReplicaStatus{}}
	for _, k := range r.trust.Known(now, replicaSeen) {
		s.Replicas = append(s.Replicas, ReplicaStatus(k))
	}
	slices.SortFunc(s.Replicas, func(a, b ReplicaStatus) int { return strings.Compare(a.Name, b.Name) })
	return s
}
