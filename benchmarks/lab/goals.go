package lab

import (
	"fmt"
	"math"
	"time"
)

// A Goal is a row of the table in GOALS.md.
type Goal struct {
	Figure string
	Want   limit
	Format string
	Of     func(r *Results, policy string) float64
}

// A limit is the value that a goal requires.
type limit struct {
	least bool
	value float64
}

func atLeast(v float64) limit { return limit{true, v} }
func atMost(v float64) limit  { return limit{false, v} }

func (l limit) met(v float64) bool {
	if l.least {
		return v >= l.value
	}
	return v <= l.value
}

func (l limit) text(format string) string {
	if l.least {
		return "≥ " + fmt.Sprintf(format, l.value)
	}
	return "≤ " + fmt.Sprintf(format, l.value)
}

// Goals are the goals of the policy for refusals that the load causes.
func Goals() []Goal {
	return []Goal{
		{"goodput / oracle's, least of all cells", atLeast(0.99), "%.3f", leastShare(grid(), tokens)},
		{"PTU used / oracle's, least of all cells", atLeast(0.995), "%.3f", leastShare(grid(), ptu)},
		{"wasted attempts, M = 8, ρ = 0.9", atMost(0.10), "%.3f", in(at(10, 8, 0.9), wasted)},
		{"… with the utilization header", atMost(0.04), "%.3f", in(telling(8, 0.9), wasted)},
		{"wasted attempts, M = 64, ρ = 0.9", atMost(0.15), "%.3f", in(at(10, 64, 0.9), wasted)},
		{"… with the utilization header", atMost(0.09), "%.3f", in(telling(64, 0.9), wasted)},
		{"wasted attempts, M = 1, ρ = 0.9", atMost(0.07), "%.3f", in(at(10, 1, 0.9), wasted)},
		{"… with the utilization header", atMost(0.03), "%.3f", in(telling(1, 0.9), wasted)},
		{"wasted attempts, M = 1, ρ = 1.2", atMost(0.18), "%.3f", in(at(10, 1, 1.2), wasted)},
		{"… with the utilization header", atMost(0.16), "%.3f", in(telling(1, 1.2), wasted)},
		{"added latency p99, M = 8, ρ = 1.0, in s", atMost(0.055), "%.3f", in(at(10, 8, 1.0), addedP99)},
		{"imbalance of PAYG, M = 8, ρ = 0.9", atMost(0.055), "%.3f", in(at(10, 8, 0.9), uneven)},
		{"callers with an error under a fault, most of six", atMost(0), "%.4f", mostOf(broken(), failed)},
		{"requests that touch a PAYG answering 401", atMost(0.012), "%.4f", in(faulty("401", false), touched)},
		{"back in use after a fault, in s, most of six", atMost(20), "%.0f", mostOf(broken(), recovery)},
		{"goodput where rejects count, M = 8", atLeast(0.80), "%.2f", in(vicious(8), goodput)},
		{"… M = 64", atLeast(0.65), "%.2f", in(vicious(64), goodput)},
		{"waiting 30 s, ρ ≤ 1: goodput / oracle's", atLeast(0.96), "%.3f", leastShare(patient(), tokens)},
		{"… wasted attempts", atMost(0.30), "%.3f", mostOf(patient(), wasted)},
		{"… wait p50, in s", atMost(0.6), "%.2f", mostOf(patient(), addedP50)},
		{"PTU worth 50 requests/s offered 100: used of 500", atLeast(490), "%.0f", in(rush(false), used)},
		{"… wasted", atMost(60), "%.0f", in(rush(false), refused)},
	}
}

// StrangeGoals are the goals for refusals and failures that the load does not cause.
func StrangeGoals() []Goal {
	const ms, s = time.Millisecond, time.Second
	goals := []Goal{
		{"refusals by chance, 20 %, hint 20 ms: served", atLeast(0.98), "%.3f", in(chance(1, 0.2, 20*ms), served)},
		{"… PTU used / oracle's", atLeast(0.80), "%.2f", shareIn(chance(1, 0.2, 20*ms), ptu)},
		{"… 30 %: served", atLeast(0.90), "%.3f", in(chance(1, 0.3, 20*ms), served)},
		{"… 20 %, hint 1 s: served", atLeast(0.90), "%.3f", in(chance(1, 0.2, s), served)},
		{"… by the PTU alone, 20 %, hint 20 ms: PTU used / oracle's", atLeast(0.60), "%.2f", shareIn(unlucky(0.2), ptu)},
		{"no_capacity, 20 %, hint 6 s after 5 s: served", atLeast(0.90), "%.3f", in(noCapacity(0.2, 5*s), served)},
		{"refusals take 2 s: served", atLeast(0.99), "%.3f", in(slowly(1, 2*s), served)},
		{"… 30 s: served", atLeast(0.95), "%.3f", in(slowly(1, 30*s), served)},
		{"1 % of the requests are poison: PTU used / oracle's", atLeast(0.98), "%.3f", shareIn(odd(1, Odd{Poison: 0.01}), ptu)},
		{"0.5 % of the requests are late: PTU used / oracle's", atLeast(0.98), "%.3f", shareIn(odd(1, Odd{Late: 0.005}), ptu)},
		{"one reset a minute, answers of 50 s: PTU used / oracle's", atLeast(0.98), "%.3f", shareIn(resetting(15), ptu)},
		{"the PTU is silent, no timeout: served during the fault", atLeast(0.80), "%.3f", in(silent(1, true), served)},
		{"greedy neighbour: served", atLeast(0.88), "%.3f", in(shared(1, 1), served)},
		{"… PTU used / oracle's", atLeast(0.80), "%.2f", shareIn(shared(1, 1), ptu)},
	}
	for _, e := range Events() {
		goals = append(goals, Goal{e.Name, atLeast(float64(e.Requests)), "%.0f", func(r *Results, policy string) float64 { return r.event(e, policy) }})
	}
	return goals
}

func in(c Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 { return r.value(c, policy, of) }
}

func shareIn(c Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 { return r.share(c, policy, of) }
}

func leastShare(cells []Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 {
		return least(cells, func(c Cell) float64 { return r.share(c, policy, of) })
	}
}

func mostOf(cells []Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 {
		return most(cells, func(c Cell) float64 { return r.value(c, policy, of) })
	}
}

// cellText is a value as the table shows it, bold where the goal is met.
func (g Goal) cellText(v float64) string {
	if g.Want.met(v) {
		return "**" + text(g.Format, v) + "**"
	}
	return text(g.Format, v)
}

// text is a value in a table.
func text(format string, v float64) string {
	switch {
	case math.IsNaN(v):
		return "–" // not run
	case math.IsInf(v, 1):
		return "never"
	}
	return fmt.Sprintf(format, v)
}
