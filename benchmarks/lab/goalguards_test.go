package lab

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

// A guard requires that a goal that is met stays met. It is the goal itself, with three
// seeds as in the reports, unless guardChanges has an entry for it.
type guard struct {
	name  string // the whole name of the goal
	goal  Goal
	want  limit
	of    func(r *Results, policy string) float64
	seeds int
	why   string // how it differs from the goal
}

// A guardChange is how a guard differs from its goal: in its limit, or in the cells, to
// save time. The zero values are those of the goal.
type guardChange struct {
	want  limit
	of    func(r *Results, policy string) float64
	seeds int
	why   string
}

// guardChanges are by the whole name of the goal. Where a limit is looser, the figure is so
// near to the goal that some runs miss it: three seeds vary by a few percent.
func guardChanges() map[string]guardChange {
	short := func(c Cell) Cell {
		c.Measure = 120 * time.Second
		return c
	}
	lie := func(of measure, liars ...Liars) func(*Results, string) float64 {
		var cells []Cell
		for _, l := range liars {
			cells = append(cells, short(lying(usual(10, 64, 1.0), l)))
		}
		return leastShare(cells, of)
	}
	net := func(b, m int, rho float64) Cell { return on(usual(b, m, rho), same) }
	busiest := []Cell{net(10, 8, 1.2), net(10, 64, 1.2), net(10, 64, 1.0)}
	const liars = ", 120 s and one seed: most of the time that the laboratory takes is for liars"
	varies := func(want limit, runs string) guardChange { return guardChange{want: want, why: "measured: " + runs} }
	return map[string]guardChange{
		"goodput / oracle's, least of all cells":  {want: atLeast(0.985), of: leastShare([]Cell{at(3, 1, 0.5), at(10, 8, 0.9), at(10, 8, 1.2), at(3, 64, 1.5)}, tokens), why: "4 of 45 cells; measured: 0.988, 0.993"},
		"PTU used / oracle's, least of all cells": {of: leastShare([]Cell{at(3, 1, 0.5), at(10, 8, 0.9), at(3, 64, 1.5)}, ptu), why: "3 of 45 cells"},

		"M = 8: wasted attempts more than without a fleet, most of 8 cells": {of: moreThanAlone([]Cell{net(3, 8, 0.9), net(10, 8, 0.9), net(10, 8, 1.2)}, wasted), want: atMost(0.02), why: "3 of 8 cells; measured: -0.032 to -0.001"},
		"goodput / oracle's, one liar, most harmful of 6 lies": {
			of: lie(tokens, Liars{Senders: 1, Kind: "ejected", All: true}, Liars{Senders: 1, Kind: "utilization"}), want: atLeast(0.97), seeds: 1, why: "2 of 6 lies" + liars + "; measured: 0.991 to 1.008"},
		"goodput / oracle's, one liar, most harmful of 6 lies … two liars that agree, most harmful of 4 lies": {
			of: lie(tokens, Liars{Senders: 2, Kind: "throttled", All: true}), want: atLeast(0.96), seeds: 1, why: "1 of 4 lies" + liars + "; measured: 0.985 to 1.012"},
		"PTU used / oracle's, one liar about the PTU, most harmful of 3 lies": {
			of: lie(ptu, Liars{Senders: 1, Kind: "throttled"}, Liars{Senders: 1, Kind: "utilization"}), seeds: 1, why: "2 of 3 lies" + liars},
		"notices per second of all clients, most of all cells and buses": {of: mostOf(busiest, notices), want: atMost(13), why: "the 3 of 44 cells with the most; measured: 10.4 to 11.6"},

		"refusals take 2 s: served … 30 s: served": {seeds: 31, why: "31 seeds, as 23 of 100 runs are below the bound"},

		"wasted attempts, M = 8, ρ = 0.9":                                    varies(atMost(0.11), "0.097, 0.098, 0.101, 0.103"),
		"requests that touch a PAYG answering 401":                           varies(atMost(0.014), "0.0116, 0.0121, 0.0132, 0.0136"),
		"wasted attempts, B = 3, M = 64, ρ = 1.2":                            varies(atMost(0.32), "0.25, 0.264, 0.298"),
		"wasted attempts, M = 64, ρ = 0.9":                                   varies(atMost(0.165), "0.145, 0.148, 0.148, 0.150, 0.153"),
		"wasted attempts, M = 1, ρ = 1.2 … with the utilization header":      varies(atMost(0.18), "0.136, 0.149, 0.150, 0.154"),
		"imbalance of PAYG, M = 8, ρ = 0.9":                                  varies(atMost(0.065), "0.039 to 0.053, in 13 runs"),
		"goodput where rejects count, M = 8":                                 varies(atLeast(0.74), "0.79, 0.79, 0.80, 0.80, 0.81, 0.83, 0.84"),
		"goodput where rejects count, M = 8 … M = 64":                        varies(atLeast(0.60), "0.64, 0.66, 0.66, 0.66, 0.66, 0.67"),
		"refusals by chance, 20 %, hint 20 ms: served … PTU used / oracle's": varies(atLeast(0.72), "0.77, 0.78, 0.79, 0.81, 0.82, 0.85"),
		"greedy neighbour: served":                                           varies(atLeast(0.85), "0.874 to 0.899, in 12 runs"),
		"greedy neighbour: served … PTU used / oracle's":                     varies(atLeast(0.75), "0.79, 0.80, 0.80, 0.82, 0.83, 0.83, 0.84"),

		// These compare two runs, in the cell with the largest difference. Without classes, 0.23 and 0.19 more spill.
		"1 process: interactive requests that spill, more than alone, most of 7 cells":                                                        varies(atMost(0.07), "0.006 to 0.040"),
		"1 process: interactive requests that spill, more than alone, most of 7 cells … delay p99, more than alone, in ms, most of 7 cells":   varies(atMost(60), "0 to 3"),
		"8 processes: interactive requests that spill, more than alone, most of 7 cells":                                                      varies(atMost(0.07), "0.007 to 0.037"),
		"8 processes: interactive requests that spill, more than alone, most of 7 cells … delay p99, more than alone, in ms, most of 7 cells": varies(atMost(60), "1 to 26"),
		"8 processes: interactive requests that spill, more than alone, most of 7 cells … PTU used, interactive load 0.75":                    varies(atLeast(0.88), "0.91, 0.92, 0.92, 0.92"),
	}
}

const guardSeeds = 3

// guardsOf are the guards of the goals that a report calls met.
func guardsOf(t *testing.T, goals []Goal, files ...string) (guards []guard) {
	t.Helper()
	met := map[string]bool{}
	for _, file := range files {
		maps.Copy(met, metGoals(t, goals, file))
	}
	require.NotEmpty(t, met)
	changes := guardChanges()
	for i, name := range wholeNames(goals) {
		if !met[name] {
			continue
		}
		g := guard{name: name, goal: goals[i], want: goals[i].Want, of: goals[i].Of, seeds: guardSeeds}
		if c, ok := changes[name]; ok {
			g.why = c.why
			if c.want != (limit{}) {
				g.want = c.want
			}
			if c.of != nil {
				g.of = c.of
			}
			if c.seeds != 0 {
				g.seeds = c.seeds
			}
		}
		guards = append(guards, g)
	}
	return guards
}

var goalRow = regexp.MustCompile(`(?m)^\| ([^|]+) \| ([≥≤] [^|]+) \| (.+) \|$`)

// metGoals are the goals that a report calls met. Those of the report must be those of the
// code.
func metGoals(t *testing.T, goals []Goal, file string) map[string]bool {
	t.Helper()
	var known []string
	for i, name := range wholeNames(goals) {
		known = append(known, name+" "+goals[i].Want.text(goals[i].Format))
	}
	report, err := os.ReadFile(file)
	require.NoError(t, err)
	var rows []Goal
	var limits []string
	var yes []bool
	for _, m := range goalRow.FindAllStringSubmatch(string(report), -1) {
		rows = append(rows, Goal{Figure: m[1]})
		limits = append(limits, m[2])
		yes = append(yes, slices.Contains(strings.Split(m[3], " | "), "yes"))
	}
	require.NotEmpty(t, rows, file)
	met := map[string]bool{}
	for i, name := range wholeNames(rows) {
		require.Contains(t, known, name+" "+limits[i], "%s is of other goals than the code", file)
		if yes[i] {
			met[name] = true
		}
	}
	return met
}

func policyGuards(t *testing.T) []guard {
	return guardsOf(t, append(Goals(), StrangeGoals()...), "GOALS.md", "REPORT.md")
}

func fleetGuards(t *testing.T) []guard   { return guardsOf(t, FleetGoals(), "FLEET.md") }
func classGuards(t *testing.T) []guard   { return guardsOf(t, ClassGoals(), "CLASSES.md") }
func sessionGuards(t *testing.T) []guard { return guardsOf(t, SessionGoals(), "SESSIONS.md") }

// The goals that are met stay met.
func TestGuardsOfGoals(t *testing.T) {
	skipWithRaceDetector(t)
	requireMet(t, policyGuards(t), Ours(), &Results{Events: playEvents(t, []Policy{Ours()})})
}

func TestGuardsOfFleetGoals(t *testing.T) {
	skipWithRaceDetector(t)
	requireMet(t, fleetGuards(t), Replicas, &Results{})
}

func TestGuardsOfClassGoals(t *testing.T) {
	skipWithRaceDetector(t)
	requireMet(t, classGuards(t), Ours(), &Results{})
}

func skipWithRaceDetector(t *testing.T) {
	if raceDetector {
		t.Skip("it takes minutes with the race detector, which finds nothing in these that it does not find in TestGuard")
	}
}

// requireMet adds to the results what the guards need, and requires that they are met.
func requireMet(t *testing.T, guards []guard, p Policy, r *Results) {
	t.Helper()
	var trials []Trial
	for _, g := range guards {
		for _, trial := range needs([]Goal{{Of: g.of}}, []Policy{p}, g.seeds) {
			if !slices.Contains(trials, trial) {
				trials = append(trials, trial)
			}
		}
	}
	if r.Figures = playAll(t, trials); t.Failed() {
		return
	}
	for _, g := range guards {
		r.Seeds = g.seeds
		v := g.of(r, p.Name)
		t.Logf("%9s  %-7s %s", g.want.text(g.goal.Format), text(g.goal.Format, v), g.name)
		if !g.want.met(v) {
			t.Errorf("%s: "+g.goal.Format+", and must be %s", g.name, v, g.want.text(g.goal.Format))
		}
	}
}

// Each goal that a report calls met has a guard, and GUARDS.md shows how they differ.
func TestGoalsThatAreMetHaveAGuard(t *testing.T) {
	changes := guardChanges()
	var w strings.Builder
	same, total := 0, 0
	for _, of := range []struct {
		title  string
		guards []guard
	}{
		{"One policy ([REPORT.md](REPORT.md), [GOALS.md](GOALS.md)): `TestGuardsOfGoals`", policyGuards(t)},
		{"Processes with a Fleet ([FLEET.md](FLEET.md)): `TestGuardsOfFleetGoals`", fleetGuards(t)},
		{"Request classes ([CLASSES.md](CLASSES.md)): `TestGuardsOfClassGoals`", classGuards(t)},
		{"Sessions ([SESSIONS.md](SESSIONS.md)): `TestSessions`", sessionGuards(t)},
	} {
		fmt.Fprintf(&w, "\n## %s\n\n| goal | bound | guard | looser by | how the guard differs |\n|---|---:|---:|---:|---|\n", of.title)
		for _, g := range of.guards {
			total++
			if _, ok := changes[g.name]; ok {
				require.NotEmpty(t, g.why, g.name)
				delete(changes, g.name)
			} else {
				same++
			}
			fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", g.name, g.goal.Want.text(g.goal.Format), g.want.text(g.goal.Format), g.looserBy(t), g.why)
		}
	}
	require.Empty(t, changes, "these are of no goal that is met")
	doctest.Section(t, "GUARDS.md", "guards", fmt.Sprintf("%d of %d guards are the goal itself, with the median of %d seeds as in the reports.\n", same, total, guardSeeds)+w.String()+"\n")
}

// looserBy is the difference between the limits of a guard and its goal.
func (g guard) looserBy(t *testing.T) string {
	require.Equal(t, g.goal.Want.least, g.want.least, g.name)
	d := g.want.value - g.goal.Want.value
	if g.want.least {
		d = -d
	}
	require.GreaterOrEqual(t, d, 0., "%s: a guard that is stricter than its goal", g.name)
	if d == 0 {
		return "0"
	}
	return fmt.Sprintf(g.goal.Format+" (%.0f %%)", d, 100*d/g.goal.Want.value)
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
