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
)

// A member is a deployment as the oracle sees it.
type member struct {
	*deployment
	tried  bool
	closed bool
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
				d.Change(func() { d.Throttle.Until, d.Ejection.Until = shut("throttled until"), shut("out until") })
				d.backend.Change(func() { d.backend.Ejection.Until = shut("no connection until") })
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

// candidates is the oracle: those of the first tier that has any.
func candidates(members [][]member) (found []*deployment) {
	for _, tier := range members {
		for _, m := range tier {
			if !m.tried && !m.closed {
				found = append(found, m.deployment)
			}
		}
		if found != nil {
			return found
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
		now := health.Start.Add(time.Hour)
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
		now := health.Start.Add(time.Hour)
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
		now := health.Start.Add(time.Hour)
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
		r, members, _ := drawRoute(t, health.Start, false)
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

func TestThrottleProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h health.Throttle
		now := noon
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 5*time.Second))
			was := h
			if rapid.Bool().Draw(t, "mark") {
				d := drawSpan(t, "for", 20*time.Second)
				h.Extend(now, d, 0, "why")
				require.False(t, h.Until.Before(was.Until), "never shortened")
				require.False(t, h.Until.Before(now.Add(d)), "at least as long as asked")
				require.Equal(t, health.Later(was.Until, now.Add(d)), h.Until, "and no longer")
				continue
			}
			sent := now.Add(-drawSpan(t, "sent before", 20*time.Second))
			h.Clear(sent)
			if sent.After(was.Since) {
				require.Equal(t, health.Throttle{}, h)
			} else {
				require.Equal(t, was, h, "only what was sent after it began lifts it")
			}
		}
	})
}

func TestEjectionProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e health.Ejection
		var claimed time.Time // until when nobody else may probe
		var probe uint64
		now := noon
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 8*time.Second))
			was := e
			switch rapid.SampledFrom([]string{"fail", "fail", "claim", "claim", "release", "succeed"}).Draw(t, "do") {
			case "fail":
				cause := health.Cause(rapid.IntRange(int(health.ServerFailure), int(health.OutOfQuota)).Draw(t, "cause"))
				sent := now.Add(-drawSpan(t, "took", 10*time.Second))
				u := rapid.Float64Range(0, 0.999).Draw(t, "u")
				if !e.Fail(now, now, sent, cause, "why", u) {
					require.True(t, sent.Before(was.Since) || was.Active && sent.Equal(was.Since))
					require.Equal(t, was, e)
					continue
				}
				require.Equal(t, was.Streak+1, e.Streak)
				rule := health.Ejections[cause]
				if n := e.Streak - rule.Ignored; n > 0 {
					nominal := float64(rule.Most)
					if f := float64(rule.First) * math.Pow(2, float64(n-1)); f < nominal {
						nominal = f
					}
					out := float64(e.Until.Sub(now))
					require.GreaterOrEqual(t, out, math.Floor(0.8*nominal))
					require.LessOrEqual(t, out, math.Ceil(1.2*nominal))
					require.True(t, e.Active)
					ok, _ := e.Claim(now)
					require.False(t, ok, "out means out")
				} else {
					require.Equal(t, was.Until, e.Until, "forgiven")
					require.Equal(t, was.Active, e.Active)
				}
				claimed = time.Time{}
				if rapid.Bool().Draw(t, "pardoned") {
					e.Pardon(was, e)
					require.Equal(t, was.Streak, e.Streak)
					require.Equal(t, was.Active, e.Active)
					if !was.Active {
						require.Equal(t, was, e, "the inverse of fail")
					}
				}
			case "claim":
				granted, number := e.Claim(now)
				require.Equal(t, granted && was.Active, number != 0)
				switch {
				case !was.Active:
					require.True(t, granted, "nothing to probe")
					require.Equal(t, was, e)
				case granted:
					require.False(t, now.Before(was.Until), "not before its time")
					require.False(t, now.Before(claimed), "one at a time")
					claimed, probe = e.Until, number
					require.GreaterOrEqual(t, e.Until.Sub(now), health.Ejections[health.Silent].First, "and lost ones expire")
					require.LessOrEqual(t, e.Until.Sub(now), health.Ejections[health.Silent].Most)
					again, _ := e.Claim(e.Until.Add(-1))
					require.False(t, again)
				default:
					require.True(t, now.Before(was.Until))
					require.Equal(t, was, e)
				}
			case "release":
				stale := rapid.Bool().Draw(t, "stale")
				if e.Release(now, probe+map[bool]uint64{true: 1000}[stale]); stale || was.Probe != probe || probe == 0 {
					require.Equal(t, was, e, "it has not got the place")
				} else if claimed = (time.Time{}); e.Active && e.Cause != health.Silent {
					require.False(t, now.Before(e.Until), "the place is free")
				}
				require.Equal(t, was.Streak, e.Streak)
			case "succeed":
				sent := now.Add(-drawSpan(t, "took", 10*time.Second))
				e.Succeed(sent)
				if sent.Before(was.Since) {
					require.Equal(t, was, e)
				} else {
					require.Equal(t, health.Ejection{Probes: was.Probes}, e)
					claimed = time.Time{}
				}
			}
		}
	})
}

// Whatever happens, the gate says without a lock what is said under it.
func TestGateProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h health.State
		now := health.Start.Add(drawSpan(t, "since start", time.Hour) - 30*time.Minute)
		var probe uint64
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 5*time.Second))
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0:
				h.Change(func() { h.Throttle.Extend(now, drawSpan(t, "for", 9*time.Second), 0, "429") })
			case 1:
				h.Change(func() { h.Ejection.Fail(now, now, now, health.NoAnswer, "no answer", 0.5) })
			case 2:
				h.Change(func() { h.Throttle.Clear(now); h.Ejection.Succeed(now) })
			case 3:
				open := h.Open(now)
				ok, number := h.Admit(now)
				require.True(t, !open || ok, "what is open admits")
				if require.True(t, ok || number == 0); number != 0 {
					probe = number
				}
			case 4:
				h.Release(now, probe)
			}
			until, reason, throttled := h.Closed(now)
			require.Equal(t, until.IsZero(), h.Open(now))
			require.Equal(t, until.IsZero(), reason == "")
			require.True(t, !throttled || !until.IsZero())
			if !until.IsZero() {
				require.True(t, until.After(now))
				require.False(t, h.Open(until.Add(-1)))
				require.True(t, h.Open(until))
			}
		}
	})
}
