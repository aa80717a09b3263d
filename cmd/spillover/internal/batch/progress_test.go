package batch_test

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

func TestProgressShowsRatesOfThisRun(t *testing.T) {
	var p batch.Progress
	begun := time.Unix(0, 0)
	c := batch.Counts{Total: 1000, Answered: 400, Before: 400, Tiers: map[int]int64{}}
	require.Equal(t, "0 failed, 0 in flight", p.Text(c, begun, 0))
	c.Answered, c.Failed, c.InFlight, c.InputTokens, c.OutputTokens = 450, 1, 7, 1000, 500
	c.Tiers = map[int]int64{1: 30, 2: 10}
	require.Equal(t, "1 failed, 7 in flight, 50 tokens/s, tier 1 75 %, tier 2 25 %, 5m30s left", p.Text(c, begun.Add(30*time.Second), 0))
	require.Equal(t, "450 of 1000 answered (45.0 %)", c.Done())

	// Only the last minute counts.
	for i := range 10 {
		p.Text(c, begun.Add(time.Duration(i+4)*10*time.Second), 0)
	}
	require.NotContains(t, p.Text(c, begun.Add(3*time.Minute), 0), "left")
	c.Answered += 10
	require.Contains(t, p.Text(c, begun.Add(4*time.Minute), 0), "54m0s left")
}

// What does not fit into a line would begin a new one each time.
func TestProgressFitsIntoItsRoom(t *testing.T) {
	begun := time.Unix(0, 0)
	c := batch.Counts{Total: 1000, Tiers: map[int]int64{1: 30, 2: 10}, Failed: 1, InFlight: 7, Waiting: 3}
	const all = "1 failed, 7 in flight, 3 waiting, 50 tokens/s, tier 1 75 %, tier 2 25 %, 4m0s left"
	for room, want := range map[int]string{
		0:            all,
		len(all):     all,
		len(all) - 1: "1 failed, 7 in flight, 3 waiting, 50 tokens/s, 4m0s left",
		50:           "1 failed, 7 in flight, 3 waiting, 4m0s left",
		40:           "1 failed, 7 in flight, 4m0s left",
		20:           "1 failed, 4m0s left",
		1:            "1 failed",
	} {
		var p batch.Progress
		c.Answered, c.InputTokens = 0, 0
		p.Text(c, begun, 0)
		c.Answered, c.InputTokens = 200, 3000
		require.Equal(t, want, p.Text(c, begun.Add(time.Minute), room))
	}
}

// A run that continues another one measures itself: its clock and its rates start anew.
func TestProgressOfAContinuedBatchOnASimulatedClock(t *testing.T) {
	in, out := writeInput(t, 400, hello), filepath.Join(t.TempDir(), "out")
	service := service(func(*http.Request, []byte) (int, string) {
		time.Sleep(time.Second)
		return 200, fine // 7 tokens
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 19500*time.Millisecond)
		defer cancel()
		for _, first := range []bool{true, false} {
			lb := transport(t, service)
			defer lb.Close()
			b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: lb, MaxInFlight: 4, Grace: time.Minute}.WithoutSync())
			require.NoError(t, err)
			var p batch.Progress
			p.Text(b.Counts(), time.Now(), 0)
			ended := make(chan error, 1)
			if !first {
				ctx = t.Context()
			}
			go func() { ended <- b.Run(ctx) }()
			time.Sleep(10*time.Second + time.Millisecond)
			synctest.Wait()
			c := b.Counts()
			text := p.Text(c, time.Now(), 0)
			if first {
				require.Equal(t, "40 of 400 answered (10.0 %)", c.Done())
				require.Equal(t, "0 failed, 4 in flight, 28 tokens/s, tier 1 100 %, 1m30s left", text)
				require.ErrorIs(t, <-ended, context.DeadlineExceeded)
			} else {
				require.EqualValues(t, 80, c.Before)
				require.Equal(t, "120 of 400 answered (30.0 %)", c.Done())
				require.Equal(t, "0 failed, 4 in flight, 28 tokens/s, tier 1 100 %, 1m10s left", text)
				require.NoError(t, <-ended)
				require.Contains(t, b.Counts().Summary(0), "400 of 400 answered (100.0 %), 0 failed; 80 of them in earlier runs\n")
				require.Contains(t, b.Counts().Summary(0), "960 input and 1280 output tokens")
			}
			b.Close()
		}
	})
}

func TestProgressOfNothing(t *testing.T) {
	var p batch.Progress
	var c batch.Counts
	require.Equal(t, "0 failed, 0 in flight", p.Text(c, time.Unix(0, 0), 0))
	require.Equal(t, "0 failed, 0 in flight", p.Text(c, time.Unix(0, 0), 0))
	require.Equal(t, "0 of 0 answered (100.0 %)", c.Done())
}

func TestSummary(t *testing.T) {
	c := batch.Counts{Total: 10, Answered: 10, Failed: 1, Before: 4, InputTokens: 5, OutputTokens: 6, Tiers: map[int]int64{1: 5, 2: 1}, Backends: map[string]int64{"ptu": 5, "payg": 1}}
	require.Equal(t, `10 of 10 answered (100.0 %), 1 failed; 4 of them in earlier runs
this run: 1.5s, 5 input and 6 output tokens, tier 1 83 %, tier 2 17 %
  payg: 1 response
  ptu: 5 responses`, c.Summary(1500*time.Millisecond))
}
