package lab

import "time"

// on is a cell whose bus takes 5 ms, as one in the same region does.
func on(c Cell, change func(*Cell)) Cell {
	c.Bus.Delay = 5 * time.Millisecond
	change(&c)
	return c
}

func same(*Cell) {}

func long(c *Cell)      { c.Measure = 15 * time.Minute }
func reporting(c *Cell) { c.Utilization = true }

// buses are what a bus may do to notices.
var buses = []struct {
	Name   string
	Change func(*Cell)
}{
	{"no delay", func(c *Cell) { c.Bus.Delay = 0 }},
	{"5 ms", same},
	{"100 ms", func(c *Cell) { c.Bus.Delay = 100 * time.Millisecond }},
	{"1 s", func(c *Cell) { c.Bus.Delay = time.Second }},
	{"20 % lost", func(c *Cell) { c.Bus.Lost = 0.2 }},
	{"30 % twice, up to 500 ms out of order", func(c *Cell) { c.Bus.Twice, c.Bus.Disorder = 0.3, 500*time.Millisecond }},
}

// networked are the cells in which clients with and without a Fleet are compared.
func networked(m int) []Cell {
	var cells []Cell
	for _, b := range []int{3, 10} {
		for _, rho := range []float64{0.5, 0.9, 1.0, 1.2} {
			cells = append(cells, on(usual(b, m, rho), same))
		}
	}
	return cells
}

// carried are the cells in which buses are compared.
func carried() []Cell { return []Cell{usual(3, 64, 0.9), usual(3, 64, 1.2), usual(10, 64, 1.0)} }

// onEachBus are those on all buses.
func onEachBus() (cells []Cell) {
	for _, c := range carried() {
		for _, bus := range buses {
			cells = append(cells, on(c, bus.Change))
		}
	}
	return cells
}

// liars are what wrong senders may say.
func liars() (all []Liars) {
	for _, kind := range []string{"throttled", "ejected", "utilization"} {
		for _, senders := range []int{1, 2} {
			all = append(all, Liars{Senders: senders, Kind: kind})
			if senders == 1 || kind == "throttled" {
				all = append(all, Liars{Senders: senders, Kind: kind, All: true})
			}
		}
	}
	return all
}

func lying(c Cell, l Liars) Cell { return on(c, func(c *Cell) { c.Bus.Liars = l }) }

// lied are the cells with liars.
func lied() (cells []Cell) {
	for _, l := range liars() {
		cells = append(cells, lying(usual(10, 64, 1.0), l))
	}
	return cells
}

// faultOfMany is a fault of the PTU that 64 clients meet.
func faultOfMany(kind string) Cell {
	c := faulty(kind, true)
	c.M = 64
	return on(c, same)
}

// poisoned is a cell with requests that break their connections.
func poisoned() Cell {
	c := usual(10, 64, 0.6)
	c.Poison = 0.02
	return on(c, same)
}

// FleetGoals are the goals of clients that share a Fleet.
func FleetGoals() []Goal {
	all := append(append(networked(8), networked(64)...), onEachBus()...)
	w := func(b int, rho float64, change func(*Cell)) func(*Results, string) float64 {
		return in(on(usual(b, 64, rho), change), wasted)
	}
	return []Goal{
		{"wasted attempts, B = 3, M = 64, ρ = 0.9", atMost(0.18), "%.3f", w(3, 0.9, same)},
		{"… 900 s", atMost(0.16), "%.3f", w(3, 0.9, long)},
		{"… with the utilization header", atMost(0.05), "%.3f", w(3, 0.9, reporting)},
		{"… 20 % of the notices lost", atMost(0.23), "%.3f", w(3, 0.9, func(c *Cell) { c.Bus.Lost = 0.2 })},
		{"wasted attempts, B = 3, M = 64, ρ = 1.2", atMost(0.28), "%.3f", w(3, 1.2, same)},
		{"… 900 s", atMost(0.26), "%.3f", w(3, 1.2, long)},
		{"wasted attempts, B = 10, M = 64, ρ = 0.9", atMost(0.09), "%.3f", w(10, 0.9, same)},
		{"… ρ = 1.0", atMost(0.16), "%.3f", w(10, 1.0, same)},
		{"… ρ = 1.2", atMost(0.23), "%.3f", w(10, 1.2, same)},
		{"M = 8: wasted attempts more than without a fleet, most of 8 cells", atMost(0.01), "%.3f", moreThanAlone(networked(8), wasted)},
		{"goodput / without a fleet, least of all cells and buses", atLeast(0.985), "%.3f", leastOverAlone(all, tokens)},
		{"goodput / oracle's, one liar, most harmful of 6 lies", atLeast(0.98), "%.3f", leastShare(withLiars(1), tokens)},
		{"… two liars that agree, most harmful of 4 lies", atLeast(0.98), "%.3f", leastShare(withLiars(2), tokens)},
		{"PTU used / oracle's, one liar about the PTU, most harmful of 3 lies", atLeast(0.98), "%.3f", leastShare(withLiars(1)[:3], ptu)},
		{"requests that touch a PTU that answers 401, M = 64", atMost(40), "%.0f", in(faultOfMany("401"), touches)},
		{"callers with an error meanwhile", atMost(0), "%.4f", in(faultOfMany("401"), failed)},
		{"notices of an ejection, 2 % of the requests are poison", atMost(0), "%.0f", in(poisoned(), ejections)},
		{"notices per second of all clients, most of all cells and buses", atMost(12), "%.1f", mostOf(append(all, lied()...), notices)},
	}
}

// withLiars are the cells of so many liars, those about the PTU first.
func withLiars(senders int) (cells []Cell) {
	for _, all := range []bool{false, true} {
		for _, c := range lied() {
			if l := c.Bus.Liars; l.Senders == senders && l.All == all {
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// overAlone is a figure over that without a Fleet.
func (r *Results) overAlone(c Cell, policy string, of measure) float64 {
	return r.compared(c, policy, Ours().Name, func(f, alone Figures) float64 { return of(f) / of(alone) })
}

func leastOverAlone(cells []Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 {
		return least(cells, func(c Cell) float64 { return r.overAlone(c, policy, of) })
	}
}

func moreThanAlone(cells []Cell, of measure) func(*Results, string) float64 {
	return func(r *Results, policy string) float64 {
		return most(cells, func(c Cell) float64 {
			return r.compared(c, policy, Ours().Name, func(f, alone Figures) float64 { return of(f) - of(alone) })
		})
	}
}

// FleetMarkdown is the report on clients that share a Fleet.
func (r *Results) FleetMarkdown(about About) string {
	w := &writer{}
	fleet, alone := Replicas.Name, Ours().Name
	w.line("# A fleet of processes\n")
	w.line("What `Config.Fleet` changes, in the virtual time of the laboratory. Written by `%s`, in %v.\n", about.Command, about.Took.Round(time.Second))
	w.line("M processes have a Transport each. A bus connects them, with a delay of 5 ms in one direction unless stated otherwise. Each cell has %v of warm-up and %v measured unless stated otherwise; figures are the median of %d seeds, and vary by about 5 %% from run to run. The columns without a fleet are of the same cells.\n", usualWarm, usualMeasure, r.Seeds)
	w.line("## Goals\n")
	r.goalTable(w, FleetGoals(), []string{"with a fleet", "without"}, Replicas, Ours())
	w.line("%s", fleetFindings)

	w.line("## Load\n")
	w.header([]string{"cell", "wasted", "without", "goodput / without", "PTU / oracle's", "visible 429s", "without", "added p99, ms", "without", "notices/s"}, 1)
	cells := append(networked(8), networked(64)...)
	for _, c := range append(cells, on(usual(3, 64, 0.9), reporting), on(usual(3, 64, 1.2), reporting)) {
		w.row([]string{c.brief(),
			text("%.3f", r.value(c, fleet, wasted)), text("%.3f", r.value(c, alone, wasted)), text("%.3f", r.overAlone(c, fleet, tokens)), text("%.3f", r.share(c, fleet, ptu)),
			text("%.3f", r.value(c, fleet, visible)), text("%.3f", r.value(c, alone, visible)),
			text("%.0f", 1e3*r.value(c, fleet, addedP99)), text("%.0f", 1e3*r.value(c, alone, addedP99)), text("%.1f", r.value(c, fleet, notices)),
		})
	}

	w.line("\n## Buses\n")
	w.line("Wasted attempts, and the goodput over that without a fleet. A lost notice is lost for one process.\n")
	header := []string{"bus"}
	for _, c := range carried() {
		header = append(header, c.brief(), "goodput")
	}
	w.header(header, 1)
	for _, bus := range buses {
		row := []string{bus.Name}
		for _, c := range carried() {
			c = on(c, bus.Change)
			row = append(row, text("%.3f", r.value(c, fleet, wasted)), text("%.3f", r.overAlone(c, fleet, tokens)))
		}
		w.row(row)
	}

	w.line("\n## Liars\n")
	w.line("From %v on, each second, some senders say the same of the PTU or of all deployments: rate-limited for an hour, ejected for an hour, or used to 200 %%. B = 10, M = 64, ρ = 1.0.\n", lyingFrom)
	w.header([]string{"senders", "say", "goodput / oracle's", "PTU used / oracle's", "wasted", "notices/s"}, 2)
	for _, c := range lied() {
		l := c.Bus.Liars
		w.row([]string{text("%.0f", float64(l.Senders)), l.about() + " " + l.Kind,
			text("%.3f", r.share(c, fleet, tokens)), text("%.3f", r.share(c, fleet, ptu)), text("%.3f", r.value(c, fleet, wasted)), text("%.1f", r.value(c, fleet, notices))})
	}

	w.line("\n## Faults of the PTU\n")
	w.line("For 300 s, B = 10, M = 64, ρ = 0.6.\n")
	w.header([]string{"fault", "requests that touch it", "without", "back in use, s", "without", "notices of an ejection"}, 1)
	for _, kind := range kinds {
		c := faultOfMany(kind)
		w.row([]string{kind, text("%.0f", r.value(c, fleet, touches)), text("%.0f", r.value(c, alone, touches)),
			text("%.0f", r.value(c, fleet, recovery)), text("%.0f", r.value(c, alone, recovery)), text("%.0f", r.value(c, fleet, ejections))})
	}
	return w.String()
}

// fleetTrials are the trials of the report.
func fleetTrials(seeds int) []Trial {
	r := &Results{Seeds: seeds}
	r.FleetMarkdown(About{})
	return r.needed()
}

// fleetFindings explain the table of goals.
const fleetFindings = `Why goals are missed:

- **Overload** (ρ = 1.2): a notice orders and never refuses. When all deployments are reported to be rate-limited, each request is still sent to one of them, so each visible 429 costs at least one refused attempt. The goals would need requests that are refused because two others say so.
- **With the utilization header**: a process alone asks a full PTU one request at a time. Processes do not know what the others have in flight, so together they ask it more often. Most requests heed for a few seconds that another process has found it full. A liar must not be able to keep it idle, so not all do.
`
