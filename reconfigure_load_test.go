package spillover_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// many is a pool of so many backends that serve three models each.
func many(backends int) (pool []spillover.Backend) {
	for i := range backends {
		pool = append(pool, azure(fmt.Sprint("backend", i), priority(1+i%3), serves("m", "n", "o")))
	}
	return pool
}

// What it costs grows with the number of deployments, and no faster.
func TestReconfigureCost(t *testing.T) {
	cost := func(backends int) float64 {
		tr := balance(t, newNet(), many(backends)...)
		cfg := spillover.ConfigOf(tr)
		cfg.Backends = many(backends)
		return testing.AllocsPerRun(3, func() { require.NoError(t, tr.Reconfigure(cfg)) }) / float64(backends)
	}
	require.LessOrEqual(t, cost(300), cost(10), "for each backend")
}

func BenchmarkReconfigure(b *testing.B) {
	for _, backends := range []int{3, 10, 100, 1000} {
		b.Run(fmt.Sprint(backends), func(b *testing.B) {
			tr := balance(b, testnet.Nop{}, many(backends)...)
			cfg := spillover.ConfigOf(tr)
			cfg.Backends = many(backends)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, tr.Reconfigure(cfg))
			}
		})
	}
}
