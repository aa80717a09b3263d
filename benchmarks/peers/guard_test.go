package main

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

// The tests start the service as a process, as the command does.
func TestMain(m *testing.M) {
	if playRole() {
		return
	}
	os.Exit(m.Run())
}

func startService(t *testing.T) serviceAddresses {
	var a serviceAddresses
	p, err := itself(t.Context(), &a, roleService)
	require.NoError(t, err)
	t.Cleanup(p.stop)
	return a
}

// A bound is how much a candidate may take at most, in terms of another.
type bound struct {
	of, to string
	most   float64
}

// guarded measures until all bounds are kept, a few times at most: other programs can only make a measurement worse. They
// do so less to the time that processors take than to that of the clock, and least to the ratio within a round, in which
// the candidates follow each other within milliseconds.
func guarded(t *testing.T, measured func(s settings) (*comparison, error), bounds ...bound) {
	if raceDetector {
		t.Skip("the race detector costs more than what is measured")
	}
	const tries = 5
	s := thorough
	s.rounds = 15
	exceeded := func(c *comparison) bool {
		return slices.ContainsFunc(bounds, func(b bound) bool { return c.pairedRatio(b.of, b.to) > b.most })
	}
	var c *comparison
	for range tries {
		var err error
		c, err = measured(s)
		require.NoError(t, err)
		if !exceeded(c) {
			break
		}
	}
	for _, b := range bounds {
		t.Logf("%s takes %.2f times the processor time of %s, at most %.2f", b.of, c.pairedRatio(b.of, b.to), b.to, b.most)
		require.LessOrEqual(t, c.pairedRatio(b.of, b.to), b.most, "%s, compared with: %s", b.of, b.to)
	}
}

// The bounds are about one and a half times what was measured. Whoever makes the transport cheaper lowers them.
func TestRatiosOfTime(t *testing.T) {
	t.Run("1 KiB", func(t *testing.T) {
		guarded(t, func(s settings) (*comparison, error) {
			return inMemory(t.Context(), s, 1<<10, 10, peerNamed(cloned), peerNamed("failsafe-go"), peerNamed("go-retryablehttp"), peerNamed(ours), peerNamed(oursNamed))
		}, bound{ours, cloned, 4.5}, bound{oursNamed, cloned, 4.8}, bound{ours, "failsafe-go", 1.8}, bound{ours, "go-retryablehttp", 1.8})
	})
	t.Run("1000 backends", func(t *testing.T) {
		guarded(t, func(s settings) (*comparison, error) { return growingPool(t.Context(), s, 1000) },
			bound{ours, cloned, 6.5}, bound{inSession, ours, 1.6})
	})
	t.Run("1000 requests in flight", func(t *testing.T) {
		guarded(t, func(s settings) (*comparison, error) { return inFlight(t.Context(), s, 1000) }, bound{ours, cloned, 6})
	})
	for _, k := range []struct {
		name   string
		events int
		most   float64
	}{{"10 events", 10, 1.7}, {"250 events", 250, 1.3}, {"2000 events", 2000, 1.25}} {
		t.Run(k.name, func(t *testing.T) {
			guarded(t, func(s settings) (*comparison, error) { return streams(t.Context(), s, k.events, bare, ours) }, bound{ours, bare, k.most})
		})
	}
}

// What is added in allocations and bytes does not depend on the machine, as long as no collection of garbage empties the
// pools.
func TestAllocationsOfPeers(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	s := quick
	s.turn, s.rounds = 5*time.Millisecond, 9
	for _, k := range []struct {
		size   int
		name   string
		allocs float64
		bytes  float64
	}{
		{1 << 10, ours, 20, 4800}, {1 << 10, oursNamed, 20, 5952}, {64 << 10, ours, 20, 3952},
	} {
		c, err := inMemory(t.Context(), s, k.size, 10, peerNamed(bare), peerNamed(k.name))
		require.NoError(t, err)
		u := added(c, k.name)
		t.Logf("%s, %d bytes: %.2f allocations, %.0f bytes", k.name, k.size, u.Allocs, u.Bytes)
		require.InDelta(t, k.allocs, u.Allocs, 0.1, "%s, %d bytes", k.name, k.size)
		require.InEpsilon(t, k.bytes, u.Bytes, 0.01, "%s, %d bytes", k.name, k.size)
		runtime.GC()
	}
	// A stream costs no allocation for an event.
	short, err := streams(t.Context(), s, 10, bare, ours)
	require.NoError(t, err)
	long, err := streams(t.Context(), s, 1000, bare, ours)
	require.NoError(t, err)
	require.Less(t, added(long, ours).Allocs-added(short, ours).Allocs, 50.0)
}

// A small request takes as many writes to the connection as it does without a Transport in front.
func TestWritesToConnections(t *testing.T) {
	for _, at := range startService(t).endpoints() {
		s := quick
		s.turn, s.rounds = 10*time.Millisecond, 7
		c, err := loopback(t.Context(), s, at, 1<<10)
		require.NoError(t, err)
		delta := 0.05
		if at.http2 {
			delta = 0.5 // frames of flow control are combined with others or not
		}
		for _, name := range []string{ours, oursNamed} {
			require.InDelta(t, c.of(bare).Writes, c.of(name).Writes, delta, "%s over %s", name, at.name)
		}
	}
}

// All deployments get the same share of a burst, within a few requests.
func TestBurstIsSpreadEvenly(t *testing.T) {
	s := quick
	spreads, err := bursts(t.Context(), s, nil, serviceAddresses{})
	require.NoError(t, err)
	i := slices.IndexFunc(spreads, func(s spread) bool { return s.name == ours })
	require.InDelta(t, 1.0/3, spreads[i].average, 0.001)
	require.Less(t, spreads[i].high-spreads[i].low, 0.05)
}

// The command measures everything and writes the report with its charts.
func TestCommandWritesReport(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run(t.Context(), []string{"-quick", "-bifrost=false", "-out", dir}, io.Discard))
	text, err := os.ReadFile(dir + "/REPORT.md")
	require.NoError(t, err)
	for _, title := range []string{"Summary", "Size of the body", "Over loopback", "Streams", "Number of backends", "Requests in flight", "Idle deployments", "azure-switchboard"} {
		require.Contains(t, string(text), title)
	}
	for _, name := range []string{"sizes", "events", "backends", "inflight", "memory"} {
		svg, err := os.ReadFile(dir + "/" + name + ".svg")
		require.NoError(t, err)
		require.Contains(t, string(svg), ours)
		require.Contains(t, string(text), "("+name+".svg)")
	}
	require.Error(t, run(t.Context(), []string{"-unknown"}, io.Discard))
}

// A candidate that fails stops the comparison.
func TestFailedRequestIsAnError(t *testing.T) {
	refusing := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{Status: "429 Too Many Requests", StatusCode: http.StatusTooManyRequests, Body: http.NoBody}, nil
	})
	_, err := newComparison(time.Millisecond, each("refused", func() error { return send(refusing, requests(t.Context(), classic, 64)()) }))
	require.ErrorContains(t, err, "refused: status 429")
}

// docs/cost.md shows the summary of the report.
func TestCostInDocs(t *testing.T) {
	report, err := os.ReadFile("REPORT.md")
	require.NoError(t, err)
	summary, err := summaryOf(string(report))
	require.NoError(t, err)
	doctest.Section(t, "../../docs/cost.md", "peers", summary)
}
