package lab

import (
	"cmp"
	"slices"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

var (
	rhos    = []float64{0.5, 0.9, 1.0, 1.2, 1.5}
	clients = []int{1, 8, 64}
	speeds  = []float64{1, 10, 60}
	kinds   = []string{"401", "500", "black hole"} // of faults after which nothing is served
)

// at is a cell of the grid. Three backends take few requests, so they are
// watched for longer, and fifty for less long.
func at(b, m int, rho float64) Cell {
	c := usual(b, m, rho)
	switch b {
	case 3:
		c.Measure = 15 * time.Minute
	case 50:
		c.Measure = 2 * time.Minute
	}
	return c
}

// grid is the cells of which the goals speak as a whole.
func grid() []Cell {
	var cells []Cell
	for _, b := range []int{3, 10, 50} {
		for _, m := range clients {
			for _, rho := range rhos {
				cells = append(cells, at(b, m, rho))
			}
		}
	}
	return cells
}

// telling is a cell whose PTU tells its utilization.
func telling(m int, rho float64) Cell {
	c := at(10, m, rho)
	c.Utilization = true
	return c
}

// vicious is a cell of short requests whose refusals count as well: retries
// alone can keep its windows full.
func vicious(m int) Cell {
	c := at(10, m, 0.9)
	c.Short, c.CountRefused = true, true
	return c
}

// patient are the cells of callers who wait.
func patient() []Cell {
	var cells []Cell
	for _, m := range []int{1, 8} {
		for _, rho := range []float64{0.9, 1.0} {
			c := at(10, m, rho)
			c.Patience = 30 * time.Second
			cells = append(cells, c)
		}
	}
	return cells
}

// broken are the cells in which a deployment serves nothing for five minutes.
func broken() []Cell {
	var cells []Cell
	for _, kind := range kinds {
		cells = append(cells, faulty(kind, false), faulty(kind, true))
	}
	return cells
}

// ablated are the cells in which variants of ours are compared.
func ablated() []Cell {
	var cells []Cell
	for _, m := range clients {
		cells = append(cells, at(10, m, 0.9), at(10, m, 1.2), telling(m, 0.9), vicious(m))
	}
	return cells
}

// sensitive are the variants of limits, by name.
func sensitive() []Cell {
	var cells []Cell
	for _, change := range []func(*Cell){
		func(*Cell) {},
		func(c *Cell) { c.Window = spillovertest.Fixed },
		func(c *Cell) { c.Window = spillovertest.Refilling },
		func(c *Cell) { c.CountRefused = true },
		func(c *Cell) { c.Stale = 10 * time.Second },
		func(c *Cell) { c.Silent = true },
		func(c *Cell) { c.Chance = Chance{Share: 0.05, Hint: time.Second} },
		func(c *Cell) { c.Short = true },
	} {
		c := at(10, 8, 0.9)
		change(&c)
		cells = append(cells, c)
	}
	return cells
}

// stranges are the cells in which refusals and failures are not of the load's
// making.
func stranges() []Cell {
	const ms, s = time.Millisecond, time.Second
	var cells []Cell
	add := func(c ...Cell) { cells = append(cells, c...) }
	for _, hint := range []time.Duration{20 * ms, s, 6 * s} {
		for _, share := range []float64{0.05, 0.1, 0.2, 0.3} {
			add(chance(1, share, hint))
		}
	}
	add(chance(8, 0.2, 20*ms), chance(8, 0.2, s), unlucky(0.1), unlucky(0.2), noCapacity(0.2, 5*s), noCapacity(0.05, 20*s))
	for _, m := range []int{1, 8} {
		add(slowly(m, 2*s), slowly(m, 30*s), shared(m, 0.5), shared(m, 1), sized(m, 0.5), sized(m, 0.75), sized(m, 1))
		add(odd(m, Odd{Poison: 0.001}), odd(m, Odd{Poison: 0.01}), odd(m, Odd{Late: 0.005}))
	}
	add(resetting(0.3), resetting(3), resetting(15))
	return cells
}

// faults of which all or none can know.
func outages() []Cell {
	return []Cell{silent(1, true), silent(8, false), outage("500"), outage("reset")}
}

// careful are the policies that are compared in those: the others have no tiers,
// or no memory.
func careful() []Policy { return []Policy{Ours(), Walk, Random, Shuffle, Oracle} }

// Plan is all that the report needs, the longest first. Most cells are run with
// every policy and several seeds; the largest have one seed.
func Plan(seeds int, tracePath string) []Trial {
	var trials []Trial
	seen := map[Trial]bool{}
	add := func(cells []Cell, seeds int, policies []Policy) {
		for _, c := range cells {
			for c.Seed = 1; c.Seed <= uint64(seeds); c.Seed++ {
				for _, p := range policies {
					if t := trial(c, p.Name); !seen[t] {
						seen[t] = true
						trials = append(trials, t)
					}
				}
			}
		}
	}
	all := Compared()
	for _, c := range grid() {
		n := seeds
		if c.B == 50 {
			n = 1
		}
		add([]Cell{c}, n, all)
	}
	for _, m := range clients {
		for _, rho := range rhos {
			add([]Cell{telling(m, rho)}, seeds, []Policy{Ours(), Oracle})
		}
	}
	add([]Cell{vicious(1), vicious(8), vicious(64)}, seeds, all)
	add(ablated(), seeds, Variants())
	add(patient(), seeds, all)
	add(append(broken(), faulty("slow", false), faulty("slow", true)), seeds, all)
	add(sensitive(), 1, all)
	add(append(stranges(), outages()...), seeds, careful())
	add([]Cell{rush(false), rush(true)}, seeds, all)
	if tracePath != "" {
		for _, speed := range speeds {
			add([]Cell{replay(tracePath, speed)}, 1, all)
		}
	}
	slices.SortStableFunc(trials, func(a, b Trial) int { return cmp.Compare(b.Cell.work(), a.Cell.work()) })
	return trials
}

// Compared are the policies of the report, ours first and the oracle last.
func Compared() []Policy {
	return append(append([]Policy{Ours()}, Others()...), Oracle)
}

// work is about how many requests a cell has.
func (c Cell) work() float64 {
	if c.Rush || c.Trace != "" {
		return 20_000
	}
	return c.Rho * c.capacity() * (c.Warm + c.Measure).Seconds()
}
