package spillover

import (
	"math"
	"sync/atomic"
	"time"
)

// A latency is how long a deployment takes as a rule until its answer begins:
// the mean of its last good answers' logarithms, so that one long answer among
// many says little. Failures are not counted: however fast, they are no merit.
// The zero value knows nothing.
type latency struct {
	log atomic.Uint64 // of nanoseconds, as the bits of a float64; 0 for unknown
	at  moment        // when it was measured last
}

const (
	latencyLeast = 1.0 / 16
	latencySpan  = 30 * time.Second
	latencyFresh = 20 * time.Second // what was measured before may have changed
)

func (l *latency) observe(now time.Time, took float64) {
	x := math.Log(took)
	if old := math.Float64frombits(l.log.Load()); old != 0 {
		w := max(latencyLeast, 1-math.Exp(-float64(l.at.age(now))/float64(latencySpan)))
		x = old + w*(x-old)
	}
	l.log.Store(math.Float64bits(x))
	l.at.set(now)
}

// latencies are those of streams, until their first content, and of answers
// that come whole.
type latencies [2]latency

const (
	streams = iota
	wholes
)

// slower tells whether one is slow beside another. Where that was measured long
// ago it may find out anew, with one request at a time.
func (d *deployment) slower(other *deployment, now time.Time) bool {
	for kind := range d.latencies {
		a, b := &d.latencies[kind], &other.latencies[kind]
		mine, its := math.Float64frombits(a.log.Load()), math.Float64frombits(b.log.Load())
		if mine != 0 && its != 0 && mine-its > math.Ln2 && (a.at.age(now) < latencyFresh || d.inFlight.Load() > 0) {
			return true
		}
	}
	return false
}
