package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// classesBucket is the depth of the PTU's bucket in the cells with classes: a quarter
// of the usual one, so that bursts fill it.
const classesBucket = 5 * time.Second

// mixed is a cell whose PTU has a size by the interactive load, with background
// requests for a share of the PTU.
func mixed(m int, size, background float64) Cell {
	c := sized(m, size)
	c.Bucket, c.Utilization, c.Background = classesBucket, true, background
	return c
}

// alone, classless and classful are the same cell without background requests, with
// those but no class, and with classes.
func (c Cell) alone() Cell {
	c.Mix = Mix{}
	return c
}

func (c Cell) classless() Cell {
	c.Mix = Mix{Background: c.Background, Apart: c.Apart}
	return c
}

func (c Cell) classful() Cell {
	c.Classes, c.Wait = true, time.Minute
	return c
}

// mixes are the cells of CLASSES.md: from a PTU for 0.4 of the interactive load to one
// for 2.5 times as much.
func mixes() []Cell {
	var cells []Cell
	for _, m := range []int{1, 8} {
		for _, size := range []float64{0.4, 0.6, 0.8, 1} {
			cells = append(cells, mixed(m, size, 0.4))
		}
		apart := mixed(m, 1/0.75, 0.4)
		apart.Apart = true
		cells = append(cells, mixed(m, 1/0.75, 0.4), apart, mixed(m, 2.5, 0.8))
	}
	return cells
}

// Measures of cells with classes.
var (
	spilled    measure = func(f Figures) float64 { return f.Spilled }
	ptuUse     measure = func(f Figures) float64 { return f.PTUUse }
	bgServed   measure = func(f Figures) float64 { return f.Background.Served }
	bgOnPTU    measure = func(f Figures) float64 { return f.Background.Served - f.Background.Spilled }
	bgAddedP50 measure = func(f Figures) float64 { return f.Background.AddedP50.Seconds() }
	addedMS    measure = func(f Figures) float64 { return 1e3 * f.AddedP99.Seconds() }
)

// What classes must reach: how much more interactive requests may spill and be delayed
// than alone, and how much of the PTU is used at an interactive load of 0.75.
const (
	mostExtraSpill = 0.02
	mostExtraDelay = 40 * time.Millisecond // at the 99th percentile: one refused attempt
	leastPTUUse    = 0.90
)

// ClassGoals are the goals of classes, for each number of processes.
func ClassGoals() []Goal {
	var goals []Goal
	for i, processes := range []string{"1 process", "8 processes"} {
		cells := mixes()
		cells = cells[i*len(cells)/2 : (i+1)*len(cells)/2]
		goals = append(goals, classGoals(processes, cells)...)
	}
	return goals
}

func classGoals(processes string, cells []Cell) []Goal {
	most := fmt.Sprintf("most of %d cells", len(cells))
	together := slices.DeleteFunc(slices.Clone(cells), func(c Cell) bool { return c.PTUSize != 1/0.75 || c.Apart })
	return []Goal{
		{processes + ": interactive requests that spill, more than alone, " + most, atMost(mostExtraSpill), "%.3f", moreWithClasses(cells, spilled)},
		{"… delay p99, more than alone, in ms, " + most, atMost(1e3 * mostExtraDelay.Seconds()), "%.0f", moreWithClasses(cells, addedMS)},
		{"… PTU used, interactive load 0.75", atLeast(leastPTUUse), "%.2f", func(r *Results, policy string) float64 {
			return least(together, func(c Cell) float64 { return r.value(c.classful(), policy, ptuUse) })
		}},
	}
}

// moreWithClasses is how much more a figure is with classes than without background
// requests, the most of some cells.
func moreWithClasses(cells []Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 {
		return most(cells, func(c Cell) float64 { return r.value(c.classful(), policy, of) - r.value(c.alone(), policy, of) })
	}
}

// mixTrials are the runs that a table of cells needs.
func mixTrials(cells []Cell, seeds int) []Trial {
	var trials []Trial
	for _, c := range cells {
		for c.Seed = 1; c.Seed <= uint64(seeds); c.Seed++ {
			for _, v := range []Cell{c.alone(), c.classless(), c.classful()} {
				if t := trial(v, Ours().Name); !slices.Contains(trials, t) {
					trials = append(trials, t)
				}
			}
		}
	}
	return trials
}

// classesTable is the table of CLASSES.md.
func classesTable(r *Results, cells []Cell) string {
	var w strings.Builder
	w.WriteString("| processes | interactive / PTU | background / PTU | interactive spills: alone | no classes | classes | PTU used: alone | no classes | classes | delay p99, ms: alone | no classes | classes | background on the PTU: no classes | classes | its median wait, s |\n" +
		"|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, c := range cells {
		at := func(c Cell, of measure) float64 { return r.value(c, Ours().Name, of) }
		a, n, k := c.alone(), c.classless(), c.classful()
		processes := fmt.Sprint(c.M)
		if c.Apart {
			processes += " + 1"
		}
		fmt.Fprintf(&w, "| %s | %.2f | %.2f | %.1f %% | %.1f %% | %.1f %% | %.2f | %.2f | %.2f | %.0f | %.0f | %.0f | %.2f | %.2f | %.0f |\n",
			processes, 1/c.PTUSize, c.Background, 100*at(a, spilled), 100*at(n, spilled), 100*at(k, spilled),
			at(a, ptuUse), at(n, ptuUse), at(k, ptuUse), at(a, addedMS), at(n, addedMS), at(k, addedMS),
			at(n, bgOnPTU), at(k, bgOnPTU), at(k, bgAddedP50))
	}
	return w.String()
}
