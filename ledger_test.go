package spillover

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

// A large max_tokens counts before the answer.
func TestEstimateIncludesMaxTokens(t *testing.T) {
	for _, test := range []struct{ length, most, want int64 }{
		{4000, 500, 1500}, {4000, 0, 1000 + wire.DefaultOutputTokens}, {0, 7, 7}, {-1, 100, 100}, {-1, 0, wire.DefaultOutputTokens}, {3, -5, wire.DefaultOutputTokens},
		{math.MaxInt64, math.MaxInt32, math.MaxInt64/4 + math.MaxInt32},
	} {
		require.Equal(t, test.want, wire.EstimateTokens(test.length, test.most), test)
	}
}
