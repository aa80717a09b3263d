package batch_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// The heap of a batch does not grow with the number of its lines, except by a bit for
// each.
func TestMemoryIsFlat(t *testing.T) {
	lines := 50_000
	if os.Getenv("SPILLOVER_SOAK") != "" {
		lines = 1_000_000
	}
	if testing.Short() {
		lines = 10_000
	}
	in, out := writeInput(t, lines, hello), filepath.Join(t.TempDir(), "out")
	b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine)), MaxInFlight: 100}.WithoutSync())
	require.NoError(t, err)
	defer b.Close()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	run := make(chan error, 1)
	go func() { run <- b.Run(t.Context()) }()
	var early, late uint64
	for running := true; running; {
		select {
		case err := <-run:
			require.NoError(t, err)
			running = false
		case <-time.After(20 * time.Millisecond):
		}
		switch done := b.Counts().Answered; {
		case done < int64(lines)/100:
		case done < int64(lines)/5:
			early = max(early, heap())
		default:
			late = max(late, heap())
		}
	}
	require.EqualValues(t, lines, b.Counts().Answered)
	t.Logf("%d lines: heap %d KiB early, %d KiB late", lines, early>>10, late>>10)
	require.NotZero(t, early)
	require.Less(t, late, early+8<<20)
	require.Less(t, late, uint64(64<<20))
}

func BenchmarkBatch(b *testing.B) {
	in := writeInput(b, b.N, hello)
	lb := transport(b, answering(200, fine))
	b.ResetTimer()
	c, err := run(b, batch.Options{Input: in, Output: filepath.Join(b.TempDir(), "out"), Transport: lb, MaxInFlight: 100})
	require.NoError(b, err)
	require.EqualValues(b, b.N, c.Answered)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkBatchSynced is BenchmarkBatch on a real disk, with its syncs.
func BenchmarkBatchSynced(b *testing.B) {
	in := writeInput(b, b.N, hello)
	lb := transport(b, answering(200, fine))
	b.ResetTimer()
	one, err := batch.Open(b.Context(), batch.Options{Input: in, Output: filepath.Join(b.TempDir(), "out"), Transport: lb, MaxInFlight: 100})
	require.NoError(b, err)
	defer one.Close()
	require.NoError(b, one.Run(b.Context()))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

func BenchmarkScan(b *testing.B) {
	in := writeInput(b, b.N, hello)
	b.ResetTimer()
	one, err := batch.Open(b.Context(), batch.Options{Input: in, Output: filepath.Join(b.TempDir(), "out"), Transport: transport(b, answering(200, fine))}.WithoutSync())
	require.NoError(b, err)
	one.Close()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
