package lab

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestGuard is the short form of the report: the regression guard. Its bounds
// leave a margin to what was measured last, as one seed and 90 seconds vary.
// Whoever makes the policy better tightens them.
// The goals have guards of their own, in guards and fleetGuards.
func TestGuard(t *testing.T) {
	calm, busy := guarded(0.9), guarded(1.2)
	fault := faulty("401", true)
	fault.Measure, fault.Fault.To = 180*time.Second, 120*time.Second
	slow := faulty("slow", false)
	slow.Measure, slow.Fault.To = 180*time.Second, 190*time.Second
	told, counting := calm, calm
	told.Utilization = true
	counting.Short, counting.CountRefused = true, true
	ours := Ours().Name
	lucky, poison := chance(1, 0.2, 20*time.Millisecond), odd(1, Odd{Poison: 0.01})
	trials := []Trial{{fault, ours}, {slow, ours}, {rush(false), ours}, {told, ours}, {counting, ours}}
	for _, c := range []Cell{lucky, unlucky(0.2), poison} {
		for _, p := range []Policy{Ours(), Walk, Oracle} {
			trials = append(trials, trial(c, p.Name))
		}
	}
	for _, c := range []Cell{busy, calm} {
		for _, p := range Compared() {
			trials = append(trials, trial(c, p.Name))
		}
	}
	r := &Results{Seeds: 1, Figures: playAll(t, trials)}
	if t.Failed() {
		return
	}
	t.Logf("told %.3f  counting %.3f  recovery %.0f s  rush %.0f, %.0f", r.value(told, ours, wasted), r.value(counting, ours, goodput),
		r.value(fault, ours, recovery), r.value(rush(false), ours, used), r.value(rush(false), ours, refused))
	for _, p := range Compared() {
		for _, c := range []Cell{calm, busy} {
			t.Logf("ρ=%g %-10s goodput %.3f  PTU %.3f  wasted %.3f  p99 %.3f s", c.Rho, p.Name,
				r.share(c, p.Name, tokens), r.share(c, p.Name, ptu), r.value(c, p.Name, wasted), r.value(c, p.Name, addedP99))
		}
	}

	for _, p := range []string{ours, "walk"} {
		t.Logf("%-10s chance: served %.3f  PTU %.2f; by the PTU alone %.2f  poison: PTU %.3f", p,
			r.value(lucky, p, served), r.share(lucky, p, ptu), r.share(unlucky(0.2), p, ptu), r.share(poison, p, ptu))
	}

	// Ours.
	for _, c := range []Cell{calm, busy} {
		require.GreaterOrEqual(t, r.share(c, ours, tokens), 0.97)
		require.GreaterOrEqual(t, r.share(c, ours, ptu), 0.99)
	}
	require.LessOrEqual(t, r.value(calm, ours, wasted), 0.14)
	require.LessOrEqual(t, r.value(told, ours, wasted), 0.05)
	require.LessOrEqual(t, r.value(busy, ours, wasted), 0.65)
	require.LessOrEqual(t, r.value(calm, ours, addedP99), 0.060)
	require.GreaterOrEqual(t, r.value(counting, ours, goodput), 0.60)
	require.Zero(t, r.value(fault, ours, failed))
	require.LessOrEqual(t, r.value(fault, ours, recovery), 20.)
	require.LessOrEqual(t, r.value(slow, ours, touched), 0.02)
	require.GreaterOrEqual(t, r.value(rush(false), ours, used), 480.)
	require.LessOrEqual(t, r.value(rush(false), ours, refused), 40.)
	require.GreaterOrEqual(t, r.value(lucky, ours, served), 0.98)
	require.GreaterOrEqual(t, r.share(lucky, ours, ptu), 0.6)
	require.GreaterOrEqual(t, r.share(unlucky(0.2), ours, ptu), 0.3)
	require.GreaterOrEqual(t, r.share(poison, ours, ptu), 0.98)

	// The model: others do in it what they are known to do.
	require.Zero(t, r.value(busy, "oracle", wasted))
	require.InDelta(t, 0.28, r.value(calm, "random", wasted), 0.15)
	require.InDelta(t, 0.95, r.value(calm, "fallback", wasted), 0.3)
	require.InDelta(t, 0.08, r.value(calm, "counted", wasted), 0.08)
	require.Less(t, r.share(calm, "counted", ptu), 0.97)
	require.Greater(t, r.value(busy, "ring", wasted), 0.8)
	require.GreaterOrEqual(t, r.value(lucky, "walk", served), 0.99)
	require.InDelta(t, 1, r.share(lucky, "walk", ptu), 0.1)
	require.InDelta(t, 0.78, r.share(unlucky(0.2), "walk", ptu), 0.08)
	require.InDelta(t, 1, r.share(poison, "walk", ptu), 0.02)
}

func guarded(rho float64) Cell {
	c := usual(10, 8, rho)
	c.Warm, c.Measure = 60*time.Second, 90*time.Second
	return c
}
