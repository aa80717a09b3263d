package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever exchanges take and give back: all of them never hold more than the limit, a key
// that holds nothing always finds room, and nothing is left at the end.
func TestBodyMemoryIsBoundedAndShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &bodyMemory{limit: rapid.Int64Range(1, 1000).Draw(t, "limit"), byKey: map[string]int64{}}
		keyed := rapid.Bool().Draw(t, "keyed")
		var all []*holding
		for range 8 {
			h := &holding{of: m}
			if keyed {
				h.key = rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
			}
			all = append(all, h)
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			h := rapid.SampledFrom(all).Draw(t, "holding")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				h.release()
				require.Zero(t, h.bytes)
			case 1:
				h.end()
				require.True(t, h.take(1), "what is read after the end is not held")
				require.Zero(t, h.bytes)
			default:
				n, before := rapid.Int64Range(0, 300).Draw(t, "bytes"), m.held
				fits := h.fits(n)
				if took := h.take(n); !h.ended {
					require.Equal(t, fits, took)
					require.Equal(t, took && n > 0, m.held > before)
				}
			}
			var sum int64
			byKey := map[string]int64{}
			for _, h := range all {
				sum += h.bytes
				byKey[h.key] += h.bytes
			}
			require.Equal(t, sum, m.held)
			require.LessOrEqual(t, m.held, m.limit)
			for key, n := range m.byKey {
				require.Equal(t, byKey[key], n)
				require.LessOrEqual(t, n, m.limit/2)
				if free := m.limit - m.held; free > 1 {
					require.True(t, m.fits("new", free/2), "a key that holds nothing")
				}
			}
			if keyed && len(m.byKey) == 1 {
				require.LessOrEqual(t, m.held, m.limit/2)
			}
		}
		for _, h := range all {
			h.end()
		}
		require.Zero(t, m.held)
		require.Empty(t, m.byKey)
	})
}
