package health

import (
	"math"
	"sync/atomic"
	"time"
)

// A Latency is how long a deployment takes as a rule until its answer begins:
// a mean of the logarithms of what good answers took, so that one long answer
// among many says little, and the newer the more they count. Failures are no
// answers: however fast, they are no merit. Its zero value knows nothing.
type Latency struct {
	log atomic.Uint64 // bits of a float64; 0 for unknown
	at  Timestamp     // when it was measured last
}

const (
	LatencyFolding = 30 * time.Second // e-folding of what an earlier answer counts,
	LatencyLeast   = 1.0 / 16         // and what the newest counts at least
	latencyFresh   = 20 * time.Second // what was measured earlier may have changed
	slowBy         = math.Ln2         // twice as long as another
	FirstTokenCost = 20               // tokens that are written in the time that the first takes
)

func (l *Latency) Observe(now time.Time, took float64) {
	x := math.Log(max(took, 2))
	if old, known := l.Value(); known {
		x = old + max(LatencyLeast, 1-math.Exp(-float64(l.at.Age(now))/float64(LatencyFolding)))*(x-old)
	}
	l.log.Store(math.Float64bits(x))
	l.at.Set(now)
}

func (l *Latency) Value() (log float64, known bool) {
	bits := l.log.Load()
	return math.Float64frombits(bits), bits != 0
}

// Latencies are those of streams, until their first content, and of answers
// that come whole, by the length of their output: the two do not compare.
type latencies struct{ Stream, Whole Latency }

// Slow reports whether a deployment takes more than twice as long as another, in
// nanoseconds or nanoseconds a token. A measurement that is not fresh is repeated
// with one request at a time.
func (s *Deployment) Slow(other *Deployment, now time.Time) bool {
	return s.slower(&s.Stream, &other.Stream, now) || s.slower(&s.Whole, &other.Whole, now)
}

func (s *Deployment) slower(own, its *Latency, now time.Time) bool {
	x, known := own.Value()
	y, othersKnown := its.Value()
	return known && othersKnown && x-y > slowBy && (own.at.Age(now) < latencyFresh || s.InFlight.Load() > 0)
}
