package spillover

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A deployment is one (backend, model) pair: the unit that is chosen, throttled
// and measured.
type deployment struct {
	*record
	backend       *backend
	tier          *tier
	drawWeight    atomic.Int64 // its weight in a draw among its tier, see tier.reweigh
	weighedLimit  atomic.Int64 // the reported token limit that drawWeight is based on
	model         string       // the name that callers use; "" for requests without a model
	name          string       // the backend's name for it; "" if it is the caller's
	quotedName    string       // name as a JSON string
	rates         health.Rates // the configured limits
	contextTokens int64        // that a request may have; 0 if unknown
	maxInFlight   int64        // the configured limit; health.Deployment has the one in force
	labelCache    atomic.Pointer[deploymentLabels]
	lastURL       atomic.Pointer[knownURL]
	noticePlaces  atomic.Pointer[noticePlaces] // nil until they are needed
}

// A record is what is known of a deployment. It outlives the configuration.
type record struct {
	health.Deployment
	served, throttled, failed atomic.Uint64
	input, output             atomic.Int64            // tokens that responses reported
	failure                   atomic.Pointer[Failure] // the last one
	utilizationTold           health.Timestamp        // when a replica last told the others
	episode                   episode
	places                    placeQueue
}

// labels is how the deployment is called in what is recorded.
func (d *deployment) labels() *deploymentLabels {
	if l := d.labelCache.Load(); l != nil {
		return l
	}
	b := d.backend
	d.labelCache.CompareAndSwap(nil, &deploymentLabels{Backend: b.name, Tier: b.priority, Provider: b.provider(), Model: d.model, Name: d.name})
	return d.labelCache.Load()
}

// measure reads the limits that a response reports.
func (d *deployment) measure(now, sent time.Time, tokens int64, h http.Header) wire.Limits {
	limits := wire.ReadLimits(h)
	d.ReportedLimits.Update(now, sent, tokens, limits)
	if d.Limit.Load() != d.weighedLimit.Load() {
		d.tier.reweigh()
	}
	return limits
}

// headroom is what the service reported lately, else what is left of the
// configured limits.
func (d *deployment) headroom(now time.Time) health.Headroom {
	h := d.ReportedLimits.TokenHeadroom(now)
	if h.Trust == 0 && d.rates != (health.Rates{}) {
		return health.Headroom{Share: d.LocalLimits.Headroom(now, d.rates), Trust: 1}
	}
	return h
}

// unavailable reports until when and why a deployment is not chosen while there is another
// one: as a whole, or for every operation that was tried there.
func (d *deployment) unavailable(now time.Time) (until time.Time, reason string, throttled bool) {
	for _, h := range [...]*health.State{&d.State, &d.backend.State} {
		at, why, word := h.Unavailable(now)
		throttled = throttled || word && !at.IsZero()
		if at.After(until) {
			until, reason = at, why
		}
	}
	if !until.IsZero() {
		return until, reason, throttled
	}
	var closed uint64
	for i, h := range d.Operations {
		if at, why, _ := h.Unavailable(now); !at.IsZero() {
			if closed |= 1 << i; until.IsZero() || at.Before(until) {
				until, reason = at, why
			}
		}
	}
	if d.ServedOperations.Load()&^closed != 0 {
		return time.Time{}, "", false
	}
	return until, reason, false
}

// backendName is the name of the backend; "" without a deployment.
func (d *deployment) backendName() string {
	if d == nil {
		return ""
	}
	return d.backend.name
}

// asked reports whether any request was sent to the deployment.
func (s *record) asked() bool {
	return s.InFlight.Load() > 0 || s.served.Load()+s.throttled.Load()+s.failed.Load() > 0
}

// noticePlaces are what notices call a deployment: by its name at its host, with its
// credential, and its whole backend, also for being drained.
type noticePlaces struct {
	key   string // of the backend, which may change
	names [noticePlaceCount]string
}

// The indices of noticePlaces.
const (
	placeDeployment = iota
	placeCredential
	placeBackend
	placeDrain // of the backend, apart from what ends with its recovery
	noticePlaceCount
)
