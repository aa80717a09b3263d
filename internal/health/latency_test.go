package health

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestLatencyIsRecent(t *testing.T) {
	var l Latency
	_, known := l.Value()
	require.False(t, known)
	l.Observe(noon, 1e9)
	x, known := l.Value()
	require.True(t, known)
	require.InDelta(t, math.Log(1e9), x, 1e-9, "the first is believed")
	l.Observe(noon, 100e9)
	x, _ = l.Value()
	require.InDelta(t, math.Log(1e9)+minLatencyWeight*math.Log(100), x, 1e-9, "another one at once changes little")
	l.Observe(noon.Add(10*latencyDecay), 5e9)
	x, _ = l.Value()
	require.InDelta(t, math.Log(5e9), x, 1e-3, "what is old counts for nothing")
	for _, odd := range []float64{0, -1, 1} {
		l.Observe(noon.Add(20*latencyDecay), odd)
		x, known = l.Value()
		require.True(t, known && !math.IsInf(x, 0) && !math.IsNaN(x), odd)
	}
}

// The mean is between the smallest and the largest value.
func TestLatencyProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Latency
		now, least, most := noon, math.Inf(1), math.Inf(-1)
		for range rapid.IntRange(1, 40).Draw(t, "answers") {
			now = now.Add(drawSpan(t, "later", time.Minute))
			took := rapid.Float64Range(2, 1e12).Draw(t, "took")
			least, most = min(least, math.Log(took)), max(most, math.Log(took))
			l.Observe(now, took)
			x, known := l.Value()
			require.True(t, known)
			require.True(t, least-1e-9 <= x && x <= most+1e-9, "%v of %v to %v", x, least, most)
		}
	})
}

func TestDeploymentIsSlowIfItTakesTwiceAsLong(t *testing.T) {
	measured := func(stream, whole float64) *Deployment {
		d := new(Deployment)
		if stream > 0 {
			d.Stream.Observe(noon, stream)
		}
		if whole > 0 {
			d.Whole.Observe(noon, whole)
		}
		return d
	}
	for name, test := range map[string]struct {
		d, other *Deployment
		slow     bool
	}{
		"more than twice":        {measured(2.1e9, 0), measured(1e9, 0), true},
		"less than twice":        {measured(1.9e9, 0), measured(1e9, 0), false},
		"whole responses":        {measured(1e9, 3e8), measured(1e9, 1e8), true},
		"faster":                 {measured(1e9, 0), measured(5e9, 0), false},
		"not measured":           {measured(0, 0), measured(1e9, 1e9), false},
		"the other not measured": {measured(1e9, 1e9), measured(0, 0), false},
		"not comparable":         {measured(9e9, 0), measured(0, 1e9), false},
	} {
		require.Equal(t, test.slow, test.d.Slow(test.other, noon), name)
	}
	d, other := measured(9e9, 0), measured(1e9, 0)
	later := noon.Add(latencyFresh)
	require.True(t, d.Slow(other, later.Add(-1)))
	require.False(t, d.Slow(other, later), "to be measured again")
	d.InFlight.Store(1)
	require.True(t, d.Slow(other, later), "by one request at a time")
}
