package batch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// The heap of a batch does not grow with the number of its lines, except by a bit for
// each. With SPILLOVER_SOAK there are a million lines, and answers are synced to disk.
func TestMemoryIsFlat(t *testing.T) {
	lines := 50_000
	soak := os.Getenv("SPILLOVER_SOAK") != ""
	if soak {
		lines = 1_000_000
	}
	if testing.Short() {
		lines = 10_000
	}
	in, out := writeInput(t, lines, hello), filepath.Join(t.TempDir(), "out")
	o := batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine)), MaxInFlight: 100}
	if !soak {
		o = o.WithoutSync()
	}
	begun := time.Now()
	b, err := batch.Open(t.Context(), o)
	require.NoError(t, err)
	defer b.Close()
	heap := func() float64 { // MiB
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	run := make(chan error, 1)
	go func() { run <- b.Run(t.Context()) }()
	type measurement struct {
		lines int64
		heap  float64 // the most since the one before
	}
	var found []measurement
	most := 0.0
	for _, share := range []int64{10, 50, 100} { // percent
		for running := true; running && b.Counts().Answered < int64(lines)*share/100; {
			select {
			case err := <-run:
				require.NoError(t, err)
				running = false
			case <-time.After(20 * time.Millisecond):
				most = max(most, heap())
			}
		}
		most = max(most, heap())
		found = append(found, measurement{int64(lines) * share / 100, most})
		most = 0
	}
	took := time.Since(begun)
	require.EqualValues(t, lines, b.Counts().Answered)
	t.Logf("%d lines in %v, MiB: %v", lines, took, found)
	early, late := found[0].heap, max(found[1].heap, found[2].heap)
	require.Less(t, late, early+8)
	require.Less(t, late, 64.0)
	if !soak {
		return
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# Memory of a batch\n\nWritten by `%s` in cmd/spillover. A million requests of %d bytes, at most 100 in flight, each answer on disk.\n\n", soakCommand, len(hello))
	text.WriteString("| lines | heap, at most MiB since the row before |\n|---|---|\n")
	for _, m := range found {
		fmt.Fprintf(&text, "| %d answered | %.1f |\n", m.lines, m.heap)
	}
	fmt.Fprintf(&text, "\n| time | |\n|---|---|\n| all lines, seconds | %.0f |\n| lines per second | %.0f |\n", took.Seconds(), float64(lines)/took.Seconds())
	if os.Getenv("SPILLOVER_SOAK") == "write" {
		require.NoError(t, os.WriteFile("MEMORY.md", []byte(text.String()), 0o666))
	}
}

// soakCommand writes MEMORY.md.
const soakCommand = "SPILLOVER_SOAK=write go test -run '^TestMemoryIsFlat$' ./internal/batch"

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
