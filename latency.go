package spillover

import (
	"math"
	"sync/atomic"
	"time"
)

// A latency is how long a deployment takes as a rule until its answer begins:
// a mean of the logarithms of what good answers took, so that one long answer
// among many says little, and the newer the more they count. Failures are no
// answers: however fast, they are no merit. Its zero value knows nothing.
type latency struct {
	log atomic.Uint64 // bits of a float64; 0 for unknown
	at  moment        // when it was measured last
}

const (
	latencyFolding = 30 * time.Second // e-folding of what an earlier answer counts,
	latencyLeast   = 1.0 / 16         // and what the newest counts at least
	latencyFresh   = 20 * time.Second // what was measured earlier may have changed
	slowBy         = math.Ln2         // twice as long as another
	firstToken     = 20               // tokens that are written in the time that the first takes
)

func (l *latency) observe(now time.Time, took float64) {
	x := math.Log(max(took, 2))
	if old, known := l.value(); known {
		x = old + max(latencyLeast, 1-math.Exp(-float64(l.at.age(now))/float64(latencyFolding)))*(x-old)
	}
	l.log.Store(math.Float64bits(x))
	l.at.set(now)
}

func (l *latency) value() (log float64, known bool) {
	bits := l.log.Load()
	return math.Float64frombits(bits), bits != 0
}

// Latencies are those of streams, until their first content, and of answers
// that come whole, by the length of their output: the two do not compare.
type latencies struct{ stream, whole latency }

// slow tells whether a deployment takes more than twice as long as another, in
// nanoseconds or nanoseconds a token. Where that was measured a while ago it may
// find out anew, with one request at a time.
func (d *deployment) slow(other *deployment, now time.Time) bool {
	return d.slower(&d.stream, &other.stream, now) || d.slower(&d.whole, &other.whole, now)
}

func (d *deployment) slower(own, its *latency, now time.Time) bool {
	x, known := own.value()
	y, comparable := its.value()
	return known && comparable && x-y > slowBy && (own.at.age(now) < latencyFresh || d.inFlight.Load() > 0)
}
