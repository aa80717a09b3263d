package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// An About is what a report says of its own making.
type About struct {
	Command string
	Trace   string
	Took    time.Duration
}

// Write puts the report at a path, and its charts beside it.
func (r *Results) Write(path string, about About) error {
	for name, c := range r.charts(about.Trace) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(c.svg()), 0o666); err != nil {
			return err
		}
	}
	return os.WriteFile(path, []byte(r.Markdown(about)), 0o666)
}

// Markdown is the report.
func (r *Results) Markdown(about About) string {
	w := &writer{}
	w.line("# What the laboratory measured\n")
	w.line("Written by `%s`, in %v. README.md describes the laboratory.\n", about.Command, about.Took.Round(time.Second))
	r.setting(w, about)
	w.line("## Goals\n")
	r.goals(w)
	r.strangeGoals(w)
	w.line("## Charts\n")
	for _, name := range []string{"waste-rho.svg", "waste-m.svg", "ptu.svg", "rejects.svg", "fault.svg", "trace.svg"} {
		if c, ok := r.charts(about.Trace)[name]; ok {
			w.line("![%s](%s)\n", c.title, name)
		}
	}
	r.details(w, about)
	return w.String()
}

// setting says what was run.
func (r *Results) setting(w *writer, about About) {
	w.line("%d runs in virtual time: %v of warm-up and %v measured, the median of %d seeds;", len(r.Figures), usualWarm, usualMeasure, r.Seeds)
	w.line("with 3 backends %v measured, with 50 %v and one seed; other limits and the trace with one seed.", at(3, 1, 1).Measure, at(50, 1, 1).Measure)
	w.line("ρ is the offered load divided by the capacity of the pool, B the number of backends (one PTU with 30 %% of the capacity), M the number of clients.")
	if about.Trace == "" {
		w.line("The trace was not there, so nothing was replayed.")
	}
	w.line("\nArrivals and sizes are equal for all policies. The randomness of the network and of the policies is not seeded, so figures vary a little from run to run.\n")
	w.line("| policy | what it is |\n|---|---|")
	for _, p := range Compared() {
		w.line("| %s | %s |", p.Name, p.About)
	}
	w.line("")
}

func (r *Results) goals(w *writer) {
	w.line("### Refusals that the load causes\n")
	w.line("B = 10, except for goals of all cells. Values that meet the goal are bold. Wasted attempts are the deployments' 429s per served request.")
	w.line("Ring, counted and shuffle have no tiers. They waste little below capacity because they leave the PTU half idle, so compare their waste together with their use of the PTU.\n")
	r.met(w, Goals(), Compared()[1:])
}

func (r *Results) strangeGoals(w *writer) {
	w.line("### Refusals and failures with other causes\n")
	w.line("B = 6, M = 1. Requests that fail at every deployment do not count. The oracle has none of these and no random refusals. The last rows are single events: how many of the requests are served, the minimum of %d times.\n", eventTimes)
	r.met(w, StrangeGoals(), careful()[1:])
}

// met is a table of goals: ours, whether they are met, and others.
func (r *Results) met(w *writer, goals []Goal, others []Policy) {
	policies := append([]Policy{Ours()}, others...)
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = p.Name
	}
	r.goalTable(w, goals, names, policies...)
}

// goalTable is the table of goals, with the figures of policies in columns of their own. The
// first is the policy whose goals they are.
func (r *Results) goalTable(w *writer, goals []Goal, columns []string, policies ...Policy) {
	header := append([]string{"figure", "goal", columns[0], "met"}, columns[1:]...)
	w.header(header, 1)
	met := 0
	for _, g := range goals {
		v := g.Of(r, policies[0].Name)
		row := []string{g.Figure, g.Want.text(g.Format), g.cellText(v), "no"}
		if g.Want.met(v) {
			row[3] = "yes"
			met++
		}
		for _, p := range policies[1:] {
			row = append(row, g.cellText(g.Of(r, p.Name)))
		}
		w.row(row)
	}
	w.line("\n%d of %d met.\n", met, len(goals))
}

// details are the figures behind the goals.
func (r *Results) details(w *writer, about About) {
	w.line("## Details\n")
	for _, b := range []int{3, 10, 50} {
		cells := slices.DeleteFunc(grid(), func(c Cell) bool { return c.B != b })
		name := func(c Cell) string { return fmt.Sprintf("M=%d ρ=%g", c.M, c.Rho) }
		title := func(s string) string { return fmt.Sprintf("%s, B = %d", s, b) }
		r.table(w, title("Wasted attempts"), cells, name, "%.3f", r.of(wasted))
		r.table(w, title("Goodput over the oracle's"), cells, name, "%.3f", r.over(tokens))
		r.table(w, title("PTU used over the oracle's"), cells, name, "%.3f", r.over(ptu))
		r.table(w, title("Callers with a 429"), cells, name, "%.3f", r.of(visible))
		r.table(w, title("Added latency p99, s"), cells, name, "%.3f", r.of(addedP99))
		r.table(w, title("Imbalance of PAYG"), cells, name, "%.3f", r.of(uneven))
	}
	var tell []Cell
	for _, m := range clients {
		for _, rho := range rhos {
			tell = append(tell, telling(m, rho))
		}
	}
	r.table(w, "Wasted attempts with the utilization header", tell, unusual, "%.3f", r.of(wasted))
	strange := func(title, format string, of func(Cell, string) float64) {
		w.table(title, careful(), stranges(), unusual, format, of)
	}
	strange("Other causes: requests served", "%.3f", r.of(served))
	strange("Other causes: PTU used over the oracle's", "%.2f", r.over(ptu))
	strange("Other causes: wasted attempts", "%.2f", r.of(wasted))
	w.table("Silent, or all out: requests served during the fault", careful(), outages(), unusual, "%.3f", r.of(served))
	w.table("Silent, or all out: back in use after, s", careful(), outages(), unusual, "%.0f", r.of(recovery))
	r.ablation(w, "Variants of ours: wasted attempts", "%.3f", r.of(wasted))
	r.ablation(w, "Variants of ours: goodput", "%.3f", r.of(goodput))
	r.table(w, "Other limits: wasted attempts", sensitive(), unusual, "%.3f", r.of(wasted))
	r.table(w, "Other limits: goodput over the oracle's", sensitive(), unusual, "%.3f", r.over(tokens))
	r.table(w, "Rejects count: goodput", []Cell{vicious(1), vicious(8), vicious(64)}, unusual, "%.3f", r.of(goodput))
	r.table(w, "Rejects count: wasted attempts", []Cell{vicious(1), vicious(8), vicious(64)}, unusual, "%.2f", r.of(wasted))
	r.table(w, "Waiting: goodput over the oracle's", patient(), unusual, "%.3f", r.over(tokens))
	r.table(w, "Waiting: wasted attempts", patient(), unusual, "%.3f", r.of(wasted))
	r.table(w, "Waiting: wait p50, s", patient(), unusual, "%.2f", r.of(addedP50))
	faults := append(broken(), faulty("slow", false), faulty("slow", true))
	r.table(w, "Faults: callers with an error", faults, unusual, "%.4f", r.of(failed))
	r.table(w, "Faults: requests that touch the deployment", faults, unusual, "%.4f", r.of(touched))
	r.table(w, "Faults: back in use after, s", faults, unusual, "%.0f", r.of(recovery))
	r.table(w, "Faults: time of a request, s on average", faults, unusual, "%.2f", r.of(duration))
	rushes := []Cell{rush(false), rush(true)}
	r.table(w, "A PTU worth 50 requests a second offered 100: used of 500", rushes, unusual, "%.0f", r.of(used))
	r.table(w, "A PTU worth 50 requests a second offered 100: wasted", rushes, unusual, "%.0f", r.of(refused))
	if about.Trace == "" {
		return
	}
	var replays []Cell
	for _, speed := range speeds {
		replays = append(replays, replay(about.Trace, speed))
	}
	r.table(w, "The trace: wasted attempts", replays, unusual, "%.3f", r.of(wasted))
	r.table(w, "The trace: goodput over the oracle's", replays, unusual, "%.3f", r.over(tokens))
	r.table(w, "The trace: PTU used over the oracle's", replays, unusual, "%.3f", r.over(ptu))
	r.table(w, "The trace: callers with a 429", replays, unusual, "%.3f", r.of(visible))
}

// unusual names a cell by what is unusual in it.
func unusual(c Cell) string {
	c.Seed = 1
	return strings.TrimSuffix(c.String(), " seed 1")
}

func (r *Results) of(m measure) func(Cell, string) float64 {
	return func(c Cell, policy string) float64 { return r.value(c, policy, m) }
}

func (r *Results) over(m measure) func(Cell, string) float64 {
	return func(c Cell, policy string) float64 { return r.share(c, policy, m) }
}

// table has a row for each cell and a column for each policy.
func (r *Results) table(w *writer, title string, cells []Cell, name func(Cell) string, format string, of func(Cell, string) float64) {
	w.table(title, Compared(), cells, name, format, of)
}

// ablation compares the variants of ours.
func (r *Results) ablation(w *writer, title, format string, of func(Cell, string) float64) {
	w.table(title, Variants(), ablated(), unusual, format, of)
}

func (w *writer) table(title string, policies []Policy, cells []Cell, name func(Cell) string, format string, of func(Cell, string) float64) {
	w.line("### %s\n", title)
	header := []string{""}
	for _, p := range policies {
		header = append(header, p.Name)
	}
	w.header(header, 1)
	for _, c := range cells {
		row := []string{name(c)}
		for _, p := range policies {
			row = append(row, text(format, of(c, p.Name)))
		}
		w.row(row)
	}
	w.line("")
}

// A writer writes Markdown.
type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) row(cells []string) { w.line("%s", "| "+strings.Join(cells, " | ")+" |") }

// header begins a table, whose columns are numbers but for the first few.
func (w *writer) header(cells []string, words int) {
	w.row(cells)
	rule := make([]string, len(cells))
	for i := range rule {
		rule[i] = "---:"
		if i < words {
			rule[i] = "---"
		}
	}
	w.row(rule)
}
