package health

import (
	"math"
	"sync/atomic"
	"time"
)

// Latency is how long a deployment usually takes until its response begins: an
// exponentially weighted moving average (EWMA) of logarithms, so that a single slow
// response counts little, and newer ones count more. Only successful responses count: a
// fast failure is no sign of a fast deployment. The zero value knows nothing.
type Latency struct {
	logMean    atomic.Uint64 // bits of a float64; 0 for unknown
	observedAt Timestamp     // when it was last measured
}

const (
	latencyDecay     = 30 * time.Second // an earlier response counts exp(-age/latencyDecay),
	minLatencyWeight = 1.0 / 16         // and the newest one at least this
	latencyFresh     = 20 * time.Second // an older measurement is repeated
	slowLogRatio     = math.Ln2         // log of the ratio from which a deployment is slow: 2
	FirstTokenCost   = 20               // output tokens that take as long as the first one
)

// Observe records that a successful response took so long.
func (l *Latency) Observe(now time.Time, took float64) {
	x := math.Log(max(took, 2))
	if old, known := l.Value(); known {
		x = old + max(minLatencyWeight, 1-math.Exp(-float64(l.observedAt.Age(now))/float64(latencyDecay)))*(x-old)
	}
	l.logMean.Store(math.Float64bits(x))
	l.observedAt.Set(now)
}

// Value returns the logarithm of the mean.
func (l *Latency) Value() (log float64, known bool) {
	bits := l.logMean.Load()
	return math.Float64frombits(bits), bits != 0
}

// latencies are those of streams, until the first content (first token), and of
// responses that arrive as a whole, per output token: the two are not comparable.
type latencies struct{ Stream, Whole Latency }

// Slow reports whether a deployment takes more than twice as long as another, in
// nanoseconds or nanoseconds per token. A measurement that is not fresh is repeated
// with one request at a time.
func (s *Deployment) Slow(other *Deployment, now time.Time) bool {
	return s.slower(&s.Stream, &other.Stream, now) || s.slower(&s.Whole, &other.Whole, now)
}

// slower compares two latencies.
func (s *Deployment) slower(own, its *Latency, now time.Time) bool {
	x, known := own.Value()
	y, measured := its.Value()
	return known && measured && x-y > slowLogRatio && (own.observedAt.Age(now) < latencyFresh || s.InFlight.Load() > 0)
}
