package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// guards are the short forms of the goals that are met: a cell or a few of those of the
// goal, one seed, and in most of them less time. Its limit has a margin to what the short
// form gives, at least twice the difference between three runs. Where the limit is looser
// than the goal, one seed varies more than a median, or the short cell has not settled.
func guards() []Goal {
	const ms, s = time.Millisecond, time.Second
	brief := func(c Cell) Cell {
		c.Warm, c.Measure = 60*s, 90*s
		return c
	}
	patiently := []Cell{brief(patient()[0]), brief(patient()[3])}
	var broken []Cell
	for _, kind := range kinds {
		broken = append(broken, briefly(faulty(kind, false)), briefly(faulty(kind, true)))
	}
	all := []Goal{
		{"PTU used / oracle's, least of all cells", atLeast(0.99), "%.3f", leastShare([]Cell{brief(at(3, 1, 0.5)), brief(at(10, 8, 0.9)), brief(at(3, 64, 1.5))}, ptu)},
		{"wasted attempts, M = 8, ρ = 0.9 … with the utilization header", atMost(0.04), "%.3f", in(brief(telling(8, 0.9)), wasted)},
		{"wasted attempts, M = 64, ρ = 0.9", atMost(0.25), "%.3f", in(brief(at(10, 64, 0.9)), wasted)},
		{"wasted attempts, M = 64, ρ = 0.9 … with the utilization header", atMost(0.11), "%.3f", in(brief(telling(64, 0.9)), wasted)},
		{"wasted attempts, M = 1, ρ = 0.9", atMost(0.08), "%.3f", in(brief(at(10, 1, 0.9)), wasted)},
		{"wasted attempts, M = 1, ρ = 0.9 … with the utilization header", atMost(0.03), "%.3f", in(brief(telling(1, 0.9)), wasted)},
		{"wasted attempts, M = 1, ρ = 1.2 … with the utilization header", atMost(0.24), "%.3f", in(brief(telling(1, 1.2)), wasted)},
		{"imbalance of PAYG, M = 8, ρ = 0.9", atMost(0.1), "%.3f", in(brief(at(10, 8, 0.9)), uneven)},
		{"callers with an error under a fault, most of six", atMost(0), "%.4f", mostOf(broken, failed)},
		{"back in use after a fault, in s, most of six", atMost(36), "%.0f", mostOf(broken, recovery)},
		{"goodput where rejects count, M = 8", atLeast(0.6), "%.2f", in(brief(vicious(8)), goodput)},
		{"goodput where rejects count, M = 8 … M = 64", atLeast(0.45), "%.2f", in(brief(vicious(64)), goodput)},
		{"waiting 30 s, ρ ≤ 1: goodput / oracle's", atLeast(0.95), "%.3f", leastShare(patiently, tokens)},
		{"PTU worth 50 requests/s offered 100: used of 500", atLeast(475), "%.0f", in(rush(false), used)},
		{"PTU worth 50 requests/s offered 100: used of 500 … wasted", atMost(60), "%.0f", in(rush(false), refused)},

		{"refusals by chance, 20 %, hint 20 ms: served", atLeast(0.98), "%.3f", in(chance(1, 0.2, 20*ms), served)},
		{"refusals by chance, 20 %, hint 20 ms: served … PTU used / oracle's", atLeast(0.6), "%.2f", shareIn(chance(1, 0.2, 20*ms), ptu)},
		{"refusals by chance, 20 %, hint 20 ms: served … 30 %: served", atLeast(0.93), "%.3f", in(chance(1, 0.3, 20*ms), served)},
		{"refusals by chance, 20 %, hint 20 ms: served … 20 %, hint 1 s: served", atLeast(0.9), "%.3f", in(chance(1, 0.2, s), served)},
		{"no_capacity, 20 %, hint 6 s after 5 s: served", atLeast(0.92), "%.3f", in(noCapacity(0.2, 5*s), served)},
		{"refusals take 2 s: served", atLeast(0.98), "%.3f", in(slowly(1, 2*s), served)},
		{"refusals take 2 s: served … 30 s: served", atLeast(0.85), "%.3f", in(slowly(1, 30*s), served)},
		{"1 % of the requests are poison: PTU used / oracle's", atLeast(0.98), "%.3f", shareIn(odd(1, Odd{Poison: 0.01}), ptu)},
		{"0.5 % of the requests are late: PTU used / oracle's", atLeast(0.98), "%.3f", shareIn(odd(1, Odd{Late: 0.005}), ptu)},
		{"one reset a minute, answers of 50 s: PTU used / oracle's", atLeast(0.98), "%.3f", shareIn(resetting(15), ptu)},
		{"the PTU is silent, no timeout: served during the fault", atLeast(0.55), "%.3f", in(silent(1, true), served)},
		{"greedy neighbour: served", atLeast(0.82), "%.3f", in(shared(1, 1), served)},
		{"greedy neighbour: served … PTU used / oracle's", atLeast(0.7), "%.2f", shareIn(shared(1, 1), ptu)},
	}
	// TestEvents asserts them; they need no statistics.
	for _, e := range Events() {
		all = append(all, Goal{e.Name, atLeast(float64(e.Requests)), "%.0f", func(r *Results, policy string) float64 { return r.event(e, policy) }})
	}
	return all
}

// fleetGuards are those of the goals of a fleet.
func fleetGuards() []Goal {
	w := func(b int, rho float64, change func(*Cell)) func(*Results, string) float64 {
		return in(two(b, 64, rho, change), wasted)
	}
	eight := []Cell{two(3, 8, 0.9, same), two(10, 8, 0.9, same)}
	all := append([]Cell{two(3, 64, 0.9, same), two(3, 64, 0.9, buses[3].Change), two(10, 64, 0.9, same)}, eight...)
	lie := func(of measure, liars ...Liars) func(*Results, string) float64 {
		var cells []Cell
		for _, l := range liars {
			cells = append(cells, two(10, 64, 1.0, func(c *Cell) { c.Bus.Liars = l }))
		}
		return leastShare(cells, of)
	}
	rejecting := briefly(faultOfMany("401"))
	poison := poisoned()
	poison.Measure = 120 * time.Second
	return []Goal{
		{"wasted attempts, B = 3, M = 64, ρ = 0.9", atMost(0.25), "%.3f", w(3, 0.9, same)},
		{"wasted attempts, B = 3, M = 64, ρ = 0.9 … 900 s", atMost(0.16), "%.3f", w(3, 0.9, long)},
		{"wasted attempts, B = 3, M = 64, ρ = 0.9 … 20 % of the notices lost", atMost(0.28), "%.3f", w(3, 0.9, func(c *Cell) { c.Bus.Lost = 0.2 })},
		{"wasted attempts, B = 10, M = 64, ρ = 0.9", atMost(0.09), "%.3f", w(10, 0.9, same)},
		{"wasted attempts, B = 10, M = 64, ρ = 0.9 … ρ = 1.0", atMost(0.2), "%.3f", w(10, 1.0, same)},
		{"M = 8: wasted attempts more than without a fleet, most of 8 cells", atMost(0.01), "%.3f", moreThanAlone(eight, wasted)},
		{"goodput / without a fleet, least of all cells and buses", atLeast(0.95), "%.3f", leastOverAlone(all, tokens)},
		{"goodput / oracle's, one liar, most harmful of 6 lies", atLeast(0.95), "%.3f", lie(tokens, Liars{Senders: 1, Kind: "ejected", All: true}, Liars{Senders: 1, Kind: "utilization"})},
		{"goodput / oracle's, one liar, most harmful of 6 lies … two liars that agree, most harmful of 4 lies", atLeast(0.93), "%.3f", lie(tokens, Liars{Senders: 2, Kind: "throttled", All: true})},
		{"PTU used / oracle's, one liar about the PTU, most harmful of 3 lies", atLeast(0.95), "%.3f", lie(ptu, Liars{Senders: 1, Kind: "throttled"}, Liars{Senders: 1, Kind: "utilization"})},
		{"requests that touch a PTU that answers 401, M = 64", atMost(40), "%.0f", in(rejecting, touches)},
		{"callers with an error meanwhile", atMost(0), "%.4f", in(rejecting, failed)},
		{"notices of an ejection, 2 % of the requests are poison", atMost(0), "%.0f", in(poison, ejections)},
		{"notices per second of all clients, most of all cells and buses", atMost(12), "%.1f", mostOf(append(all, rejecting, poison), notices)},
	}
}

// two is a cell of a fleet, measured for two minutes.
func two(b, m int, rho float64, change func(*Cell)) Cell {
	c := usual(b, m, rho)
	c.Measure = 120 * time.Second
	return on(c, change)
}

// briefly is a cell with a fault of a minute.
func briefly(c Cell) Cell {
	c.Measure = 180 * time.Second
	c.Fault.To = c.Fault.From + 60*time.Second
	return c
}

// The goals that are met stay met.
func TestGuardsOfGoals(t *testing.T) { requireMet(t, guards(), Ours()) }

func TestGuardsOfFleetGoals(t *testing.T) { requireMet(t, fleetGuards(), Replicas) }

func requireMet(t *testing.T, goals []Goal, p Policy) {
	if raceDetector {
		t.Skip("it takes minutes with the race detector, which finds nothing in these that it does not find in TestGuard")
	}
	r := &Results{Seeds: 1, Figures: playAll(t, needs(goals, []Policy{p}, 1)), Events: map[EventTrial]int{}}
	if t.Failed() {
		return
	}
	for _, e := range Events() {
		r.Events[EventTrial{e.Name, p.Name}] = e.Requests // what TestEvents requires
	}
	for _, g := range goals {
		v := g.Of(r, p.Name)
		t.Logf("%9s  %-7s %s", g.Want.text(g.Format), text(g.Format, v), g.Figure)
		if !g.Want.met(v) {
			t.Errorf("%s: "+g.Format+", and must be %s", g.Figure, v, g.Want.text(g.Format))
		}
	}
}

// Each goal that a report calls met has a guard, and no guard is without a goal.
func TestGoalsThatAreMetHaveAGuard(t *testing.T) {
	row := regexp.MustCompile(`(?m)^\| ([^|]+) \| ([≥≤] [^|]+) \| (.+) \|$`)
	for _, of := range []struct {
		files  []string
		goals  []Goal
		guards []Goal
	}{
		{[]string{"GOALS.md", "REPORT.md"}, append(Goals(), StrangeGoals()...), guards()},
		{[]string{"FLEET.md"}, FleetGoals(), fleetGuards()},
	} {
		guarded := wholeNames(of.guards)
		var known []string
		for i, name := range wholeNames(of.goals) {
			known = append(known, name+" "+of.goals[i].Want.text(of.goals[i].Format))
		}
		met := map[string]bool{}
		for _, file := range of.files {
			report, err := os.ReadFile(file)
			require.NoError(t, err)
			var rows []Goal
			var limits []string
			var yes []bool
			for _, m := range row.FindAllStringSubmatch(string(report), -1) {
				rows = append(rows, Goal{Figure: m[1]})
				limits = append(limits, m[2])
				yes = append(yes, slices.Contains(strings.Split(m[3], " | "), "yes"))
			}
			require.NotEmpty(t, rows, file)
			for i, name := range wholeNames(rows) {
				require.Contains(t, known, name+" "+limits[i], "%s is of other goals than the code", file)
				if yes[i] {
					met[name] = true
				}
			}
		}
		require.NotEmpty(t, met)
		for name := range met {
			require.Contains(t, guarded, name, "this goal is met, and nothing guards it")
		}
		for _, name := range guarded {
			require.True(t, met[name], "%s is guarded, but not met", name)
		}
	}
}

// wholeNames are the names of rows. One that begins with … continues the last that does not.
func wholeNames(rows []Goal) (names []string) {
	var last string
	for _, g := range rows {
		name := g.Figure
		if strings.HasPrefix(name, "…") {
			name = last + " " + name
		} else {
			last = name
		}
		names = append(names, name)
	}
	return names
}
