package batch_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

func TestProgressShowsRatesOfThisRun(t *testing.T) {
	var p batch.Progress
	begun := time.Unix(0, 0)
	c := batch.Counts{Total: 1000, Answered: 400, Before: 400, Tiers: map[int]int64{}}
	require.Equal(t, "0 failed, 0 in flight", p.Text(c, begun))
	c.Answered, c.Failed, c.InFlight, c.InputTokens, c.OutputTokens = 450, 1, 7, 1000, 500
	c.Tiers = map[int]int64{1: 30, 2: 10}
	require.Equal(t, "1 failed, 7 in flight, 50 tokens/s, tier 1 75 %, tier 2 25 %, 5m30s left", p.Text(c, begun.Add(30*time.Second)))
	require.Equal(t, "450 of 1000 answered (45.0 %)", c.Done())

	// Only the last minute counts.
	for i := range 10 {
		p.Text(c, begun.Add(time.Duration(i+4)*10*time.Second))
	}
	require.NotContains(t, p.Text(c, begun.Add(3*time.Minute)), "left")
	c.Answered += 10
	require.Contains(t, p.Text(c, begun.Add(4*time.Minute)), "54m0s left")
}

func TestProgressOfNothing(t *testing.T) {
	var p batch.Progress
	var c batch.Counts
	require.Equal(t, "0 failed, 0 in flight", p.Text(c, time.Unix(0, 0)))
	require.Equal(t, "0 failed, 0 in flight", p.Text(c, time.Unix(0, 0)))
	require.Equal(t, "0 of 0 answered (100.0 %)", c.Done())
}

func TestSummary(t *testing.T) {
	c := batch.Counts{Total: 10, Answered: 10, Failed: 1, Before: 4, InputTokens: 5, OutputTokens: 6, Tiers: map[int]int64{1: 5, 2: 1}, Backends: map[string]int64{"ptu": 5, "payg": 1}}
	require.Equal(t, `10 of 10 answered (100.0 %), 1 failed; 4 of them in earlier runs
this run: 1.5s, 5 input and 6 output tokens, tier 1 83 %, tier 2 17 %
  payg: 1 responses
  ptu: 5 responses`, c.Summary(1500*time.Millisecond))
}
