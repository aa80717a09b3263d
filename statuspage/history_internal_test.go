package statuspage

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// A page gets the samples after the last one that it has, also if the wall clock was set
// back between them.
func TestSamplesAreInOrderAfterTheWallClockWasSetBack(t *testing.T) {
	at := time.Now().Round(0)
	times := []time.Time{at, at.Add(5 * time.Second), at.Add(10*time.Second - time.Hour), at.Add(15*time.Second - time.Hour)}
	h := &history{times: times}
	for i, last := range times {
		var want []int64
		for _, later := range times[i+1:] {
			want = append(want, later.UnixMilli())
		}
		require.ElementsMatch(t, want, h.export(spillover.Status{}, last.UnixMilli()).Times)
	}
	require.Len(t, h.export(spillover.Status{}, 0).Times, 4)
}
