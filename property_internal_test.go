package spillover

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A member is a deployment as the oracle sees it.
type member struct {
	*deployment
	tried    bool
	closed   bool
	deferred bool // its probe is due, but waits for other requests
}

// drawRoute is a route in any state, seen at a moment; members are those of the
// tiers, best first.
func drawRoute(t *rapid.T, now time.Time, states bool) (r *route, members [][]member, tried []*deployment) {
	tiers := rapid.IntRange(1, 4).Draw(t, "tiers")
	var all []*deployment
	for p := range tiers {
		var tier []member
		weight := rapid.IntRange(1, 9)
		if rapid.Bool().Draw(t, "equal weights") {
			weight = rapid.Just(weight.Draw(t, "weight"))
		}
		for i := range rapid.IntRange(1, 5).Draw(t, "members") {
			d := &deployment{record: new(record), model: "m", backend: &backend{
				sharedState: new(sharedState),
				name:        fmt.Sprintf("p%d-%d", p, i), priority: 10 * (p + 1), weight: weight.Draw(t, "weight"),
			}}
			d.backend.hash = stableHash(d.backend.name)
			m := member{deployment: d}
			if states {
				// Each cause closes it until some moment about now, or not at all.
				shut := func(label string) time.Time {
					if !rapid.Bool().Draw(t, label) {
						return time.Time{}
					}
					until := now.Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, label)) * time.Second)
					m.closed = m.closed || until.After(now)
					return until
				}
				if until := shut("throttled until"); !until.IsZero() {
					d.Refuse(until.Add(-time.Minute), health.Refusal{Wait: time.Minute, ByChance: true, Reason: "429"}, 0)
				}
				out := func(h *health.State, until time.Time) {
					if !until.IsZero() {
						testnet.FailAt(h, until.Add(-2*time.Second), health.Unreachable, "no connection", 0.5)
						elsewhere := rapid.IntRange(0, 8).Draw(t, "requests elsewhere")
						for range elsewhere {
							h.PassOver()
						}
						m.deferred = m.deferred || elsewhere < 7
					}
				}
				out(&d.State, shut("out until"))
				out(&d.backend.State, shut("no connection until"))
				d.InFlight.Store(rapid.Int64Range(0, 20).Draw(t, "in flight"))
				if m.tried = rapid.IntRange(0, 3).Draw(t, "tried") == 0; m.tried {
					tried = append(tried, d)
				}
			}
			tier = append(tier, m)
			all = append(all, d)
		}
		members = append(members, tier)
	}
	return newRoute("m", rapid.Permutation(all).Draw(t, "order"), nil), members, tried
}

// candidates is the oracle: those of the first tier that has any. Those whose probe is
// deferred are asked only if there is no other in any tier.
func candidates(members [][]member) (found []*deployment) {
	for _, deferred := range []bool{false, true} {
		for _, tier := range members {
			for _, m := range tier {
				if !m.tried && !m.closed && (deferred || !m.deferred) {
					found = append(found, m.deployment)
				}
			}
			if found != nil {
				return found
			}
		}
	}
	return nil
}

// busiest is the one that has strictly more in flight by weight than every other.
func busiest(all []*deployment) *deployment {
	for _, d := range all {
		if !slices.ContainsFunc(all, func(other *deployment) bool { return other != d && !better(time.Now(), other, d) }) {
			return d
		}
	}
	return nil
}

func TestChooseProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now().Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free() // the budget has tests of its own
		source := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		want := candidates(members)
		avoid := busiest(want)
		seen := map[*deployment]bool{}
		for range 50 {
			_, d := r.choose(&selection{now: now, tried: tried, random: source.Uint64})
			if len(want) == 0 {
				require.Nil(t, d)
				continue
			}
			require.NotNil(t, d, "there is a candidate")
			require.Contains(t, want, d, "of the first tier that has one, neither tried nor closed")
			if len(want) > 1 {
				require.NotSame(t, avoid, d, "compared with itself")
			}
			seen[d] = true
		}
		if len(want) == 1 {
			require.Len(t, seen, 1)
		}
	})
}

// A Selector is shown the oracle's candidates, in the order of the route, and
// its word is taken.
func TestSelectorProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now().Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free() // the budget has tests of its own
		s := &counter{take: rapid.IntRange(-1, 5).Draw(t, "takes")}
		_, d := r.choose(&selection{now: now, tried: tried, selector: s, random: rand.Uint64})
		want := candidates(members)
		switch {
		case len(want) == 0:
			require.Nil(t, d)
		case len(want) == 1:
			require.Same(t, want[0], d)
			require.Empty(t, s.calls)
		default:
			require.Len(t, s.calls, 1)
			var shown, expected []string
			for _, c := range s.calls[0] {
				shown = append(shown, c.Backend)
			}
			for _, w := range want {
				expected = append(expected, w.backend.name)
			}
			require.ElementsMatch(t, expected, shown)
			require.Contains(t, want, d)
			if s.take >= 0 && s.take < len(shown) {
				require.Equal(t, shown[s.take], d.backend.name)
			}
		}
	})
}

// When idle the candidates share by weight, however many others are closed.
func TestShareProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now().Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free() // the budget has tests of its own
		for d := range r.all {
			d.InFlight.Store(0)
		}
		want := candidates(members)
		if len(want) == 0 {
			return
		}
		var sum float64
		for _, d := range want {
			sum += float64(d.backend.weight)
		}
		source := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		const draws = 2000
		got := map[*deployment]float64{}
		for range draws {
			got[r.chosen(&selection{now: now, tried: tried, random: source.Uint64})]++
		}
		for _, d := range want {
			share := float64(d.backend.weight) / sum
			// Eight standard deviations: less than one false alarm in 10^12.
			require.InDelta(t, draws*share, got[d], 8*math.Sqrt(draws*share*(1-share))+1e-9, "%s of %v", d.backend.name, want)
		}
	})
}

// The tiers of a route are its deployments, best first, none lost or doubled.
func TestRouteProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, members, _ := drawRoute(t, time.Now(), false)
		require.Len(t, r.tiers, len(members))
		last := 0
		for i, tier := range r.tiers {
			require.Greater(t, tier.priority, last)
			last = tier.priority
			var want []*deployment
			for _, m := range members[i] {
				want = append(want, m.deployment)
			}
			require.ElementsMatch(t, want, tier.members)
		}
	})
}

func drawSpan(t *rapid.T, label string, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, label))
}
