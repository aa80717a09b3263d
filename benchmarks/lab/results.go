package lab

import (
	"math"
	"slices"
)

// A Trial is a cell to be run with a policy.
type Trial struct {
	Cell   Cell
	Policy string
}

// trial is that of a policy; the oracle's is the same in all cells that differ
// in nothing that it notices, and those of policies without a Fleet on each bus.
func trial(c Cell, policy string) Trial {
	if policy != Replicas.Name {
		c.Bus = Bus{}
	}
	if policy == Oracle.Name {
		c = c.forOracle()
	}
	return Trial{c, policy}
}

// Results are what was measured.
type Results struct {
	Seeds   int
	Figures map[Trial]Figures
	Events  map[EventTrial]int // requests served
	Chats   map[Chatting]Warmth

	missing []Trial // those that a figure was asked for
}

// An EventTrial is a single event that is played with a policy.
type EventTrial struct{ Event, Policy string }

// event is how many requests were served; not a number when there was no run.
func (r *Results) event(e Event, policy string) float64 {
	if n, ok := r.Events[EventTrial{e.Name, policy}]; ok {
		return float64(n)
	}
	return math.NaN()
}

// A measure is one figure of a run.
type measure func(Figures) float64

var (
	tokens   measure = func(f Figures) float64 { return f.Tokens }
	ptu      measure = func(f Figures) float64 { return f.PTU }
	goodput  measure = func(f Figures) float64 { return f.Goodput }
	wasted   measure = func(f Figures) float64 { return f.Wasted }
	served   measure = func(f Figures) float64 { return f.Served }
	visible  measure = func(f Figures) float64 { return f.Visible }
	failed   measure = func(f Figures) float64 { return f.Errors }
	touched  measure = func(f Figures) float64 { return f.Touched }
	uneven   measure = func(f Figures) float64 { return f.Uneven }
	used     measure = func(f Figures) float64 { return float64(f.Used) }
	refused  measure = func(f Figures) float64 { return float64(f.Refused) }
	addedP50 measure = func(f Figures) float64 { return f.AddedP50.Seconds() }
	addedP99 measure = func(f Figures) float64 { return f.AddedP99.Seconds() }
	recovery measure = func(f Figures) float64 {
		if f.Recovery == never {
			return math.Inf(1)
		}
		return f.Recovery.Seconds()
	}
	touches   measure = func(f Figures) float64 { return float64(f.Touches) }
	ejections measure = func(f Figures) float64 { return float64(f.Ejections) }
	notices   measure = func(f Figures) float64 { return f.Notices }
	duration  measure = func(f Figures) float64 { return f.Time.Seconds() }
)

// value is the median over the seeds; not a number when there was no run.
func (r *Results) value(c Cell, policy string, of measure) float64 {
	return r.median(c, policy, func(f, _ Figures) float64 { return of(f) })
}

// share is value over the oracle's.
func (r *Results) share(c Cell, policy string, of measure) float64 {
	return r.median(c, policy, func(f, oracle Figures) float64 { return of(f) / of(oracle) })
}

func (r *Results) median(c Cell, policy string, of func(f, oracle Figures) float64) float64 {
	return r.compared(c, policy, Oracle.Name, of)
}

// compared is the median of what two policies make of a cell.
func (r *Results) compared(c Cell, policy, with string, of func(f, with Figures) float64) float64 {
	var values []float64
	for c.Seed = 1; c.Seed <= uint64(r.Seeds); c.Seed++ {
		f, ok := r.Figures[trial(c, policy)]
		if !ok {
			r.missing = append(r.missing, trial(c, policy), trial(c, with))
		} else {
			values = append(values, of(f, r.Figures[trial(c, with)]))
		}
	}
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 0 {
		return (values[mid-1] + values[mid]) / 2
	}
	return values[mid]
}

// least and most are the worst of several cells; not a number without any.
func least(cells []Cell, of func(Cell) float64) float64 {
	return worst(cells, of, func(a, b float64) bool { return a < b })
}

func most(cells []Cell, of func(Cell) float64) float64 {
	return worst(cells, of, func(a, b float64) bool { return a > b })
}

func worst(cells []Cell, of func(Cell) float64, worse func(a, b float64) bool) float64 {
	bad := math.NaN()
	for _, c := range cells {
		if v := of(c); math.IsNaN(bad) || worse(v, bad) {
			bad = v
		}
	}
	return bad
}

// needs are the trials that goals are about, each once.
func needs(goals []Goal, policies []Policy, seeds int) []Trial {
	r := &Results{Seeds: seeds}
	for _, g := range goals {
		for _, p := range policies {
			g.Of(r, p.Name)
		}
	}
	return r.needed()
}

// needed are the trials that figures were asked for and that are missing, each once.
func (r *Results) needed() []Trial {
	seen := map[Trial]bool{}
	return slices.DeleteFunc(r.missing, func(t Trial) bool {
		again := seen[t]
		seen[t] = true
		return again
	})
}
