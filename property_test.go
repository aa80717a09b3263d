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
		for i := range rapid.IntRange(1, 5).Draw(t, "members") {
			d := &deployment{state: new(state), model: "m", backend: &backend{
				link: new(link),
				name: fmt.Sprintf("p%d-%d", p, i), priority: 10 * (p + 1), weight: rapid.IntRange(1, 9).Draw(t, "weight"),
			}}
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
				d.change(func() { d.throttle.until, d.ejection.until = shut("throttled until"), shut("out until") })
				d.backend.change(func() { d.backend.ejection.until = shut("no connection until") })
				d.inFlight.Store(rapid.Int64Range(0, 20).Draw(t, "in flight"))
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
		now := start.Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free() // the budget has tests of its own
		source := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		want := candidates(members)
		avoid := busiest(want)
		seen := map[*deployment]bool{}
		for range 50 {
			_, d := r.choose(&query{now: now, tried: tried, random: source.Uint64})
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
		now := start.Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free() // the budget has tests of its own
		s := &counter{take: rapid.IntRange(-1, 5).Draw(t, "takes")}
		_, d := r.choose(&query{now: now, tried: tried, selector: s, random: rand.Uint64})
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
		now := start.Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free() // the budget has tests of its own
		for d := range r.all {
			d.inFlight.Store(0)
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
			got[r.chosen(&query{now: now, tried: tried, random: source.Uint64})]++
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
		r, members, _ := drawRoute(t, start, false)
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
		var h throttle
		now := noon
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 5*time.Second))
			was := h
			if rapid.Bool().Draw(t, "mark") {
				d := drawSpan(t, "for", 20*time.Second)
				h.mark(now, d, 0, "why")
				require.False(t, h.until.Before(was.until), "never shortened")
				require.False(t, h.until.Before(now.Add(d)), "at least as long as asked")
				require.Equal(t, later(was.until, now.Add(d)), h.until, "and no longer")
				continue
			}
			sent := now.Add(-drawSpan(t, "sent before", 20*time.Second))
			h.lift(sent)
			if sent.After(was.since) {
				require.Equal(t, throttle{}, h)
			} else {
				require.Equal(t, was, h, "only what was sent after it began lifts it")
			}
		}
	})
}

func TestEjectionProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e ejection
		var claimed time.Time // until when nobody else may probe
		var probe uint64
		now := noon
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 8*time.Second))
			was := e
			switch rapid.SampledFrom([]string{"fail", "fail", "claim", "claim", "release", "succeed"}).Draw(t, "do") {
			case "fail":
				cause := failure(rapid.IntRange(int(serverFailure), int(outOfQuota)).Draw(t, "cause"))
				sent := now.Add(-drawSpan(t, "took", 10*time.Second))
				u := rapid.Float64Range(0, 0.999).Draw(t, "u")
				if !e.fail(now, now, sent, cause, "why", u) {
					require.True(t, sent.Before(was.since) || was.trial && sent.Equal(was.since))
					require.Equal(t, was, e)
					continue
				}
				require.Equal(t, was.streak+1, e.streak)
				rule := ejections[cause]
				if n := e.streak - rule.ignored; n > 0 {
					nominal := float64(rule.most)
					if f := float64(rule.first) * math.Pow(2, float64(n-1)); f < nominal {
						nominal = f
					}
					out := float64(e.until.Sub(now))
					require.GreaterOrEqual(t, out, math.Floor(0.8*nominal))
					require.LessOrEqual(t, out, math.Ceil(1.2*nominal))
					require.True(t, e.trial)
					ok, _ := e.claim(now)
					require.False(t, ok, "out means out")
				} else {
					require.Equal(t, was.until, e.until, "forgiven")
					require.Equal(t, was.trial, e.trial)
				}
				claimed = time.Time{}
				if rapid.Bool().Draw(t, "pardoned") {
					e.pardon(was, e)
					require.Equal(t, was.streak, e.streak)
					require.Equal(t, was.trial, e.trial)
					if !was.trial {
						require.Equal(t, was, e, "the inverse of fail")
					}
				}
			case "claim":
				granted, number := e.claim(now)
				require.Equal(t, granted && was.trial, number != 0)
				switch {
				case !was.trial:
					require.True(t, granted, "nothing to probe")
					require.Equal(t, was, e)
				case granted:
					require.False(t, now.Before(was.until), "not before its time")
					require.False(t, now.Before(claimed), "one at a time")
					claimed, probe = e.until, number
					require.GreaterOrEqual(t, e.until.Sub(now), ejections[silent].first, "and lost ones expire")
					require.LessOrEqual(t, e.until.Sub(now), ejections[silent].most)
					again, _ := e.claim(e.until.Add(-1))
					require.False(t, again)
				default:
					require.True(t, now.Before(was.until))
					require.Equal(t, was, e)
				}
			case "release":
				stale := rapid.Bool().Draw(t, "stale")
				if e.release(now, probe+map[bool]uint64{true: 1000}[stale]); stale || was.probe != probe || probe == 0 {
					require.Equal(t, was, e, "it has not got the place")
				} else if claimed = (time.Time{}); e.trial && e.cause != silent {
					require.False(t, now.Before(e.until), "the place is free")
				}
				require.Equal(t, was.streak, e.streak)
			case "succeed":
				sent := now.Add(-drawSpan(t, "took", 10*time.Second))
				e.succeed(sent)
				if sent.Before(was.since) {
					require.Equal(t, was, e)
				} else {
					require.Equal(t, ejection{probes: was.probes}, e)
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
		var h health
		now := start.Add(drawSpan(t, "since start", time.Hour) - 30*time.Minute)
		var probe uint64
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 5*time.Second))
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0:
				h.change(func() { h.throttle.mark(now, drawSpan(t, "for", 9*time.Second), 0, "429") })
			case 1:
				h.change(func() { h.ejection.fail(now, now, now, noAnswer, "no answer", 0.5) })
			case 2:
				h.change(func() { h.throttle.lift(now); h.ejection.succeed(now) })
			case 3:
				open := h.open(now)
				ok, number := h.admit(now)
				require.True(t, !open || ok, "what is open admits")
				if require.True(t, ok || number == 0); number != 0 {
					probe = number
				}
			case 4:
				h.release(now, probe)
			}
			until, reason, throttled := h.closed(now)
			require.Equal(t, until.IsZero(), h.open(now))
			require.Equal(t, until.IsZero(), reason == "")
			require.True(t, !throttled || !until.IsZero())
			if !until.IsZero() {
				require.True(t, until.After(now))
				require.False(t, h.open(until.Add(-1)))
				require.True(t, h.open(until))
			}
		}
	})
}
