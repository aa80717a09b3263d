package lab

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

// A Cell is one experiment. Equal cells have equal deployments, arrivals and
// sizes, whatever the policy.
type Cell struct {
	B    int     // backends: one PTU, the others pay as you go
	M    int     // clients that know nothing of each other
	Rho  float64 // offered load over what can be sustained
	Seed uint64

	Warm, Measure time.Duration

	Limits
	Short    bool          // short prompts, so that requests bind and not tokens
	Patience time.Duration // for how long a throttled caller waits and asks again
	Fault    Fault

	Trace string  // path of the arrivals, instead of drawn ones
	Speed float64 // of the trace
	Rush  bool    // the special row: a PTU worth 50 requests a second offered 100

	free bool // asking takes no time and counts nowhere
}

// Limits are how the deployments limit, and what they tell of it.
type Limits struct {
	Window       spillovertest.Window // of pay as you go
	CountRefused bool
	Utilization  bool          // the PTU tells its own
	Silent       bool          // no x-ratelimit-* headers
	Stale        time.Duration // for how long these stay the same
	Spurious     float64       // share of requests refused for no reason
}

// A Fault is what one deployment does for a while.
type Fault struct {
	Kind     string // "500", "401", "black hole", "slow"; "": none
	PTU      bool   // or else a PAYG of middle size
	From, To time.Duration
}

// The usual length of a cell.
const (
	usualWarm    = 90 * time.Second
	usualMeasure = 240 * time.Second
)

// usual is a cell of the grid.
func usual(b, m int, rho float64) Cell {
	return Cell{
		B: b, M: m, Rho: rho, Seed: 1, Warm: usualWarm, Measure: usualMeasure,
		Limits: Limits{Window: spillovertest.Sliding},
	}
}

// faulty is a cell with a fault of five minutes.
func faulty(kind string, ptu bool) Cell {
	c := usual(10, 8, 0.6)
	c.Warm, c.Measure = 30*time.Second, 480*time.Second
	c.Fault = Fault{kind, ptu, 90 * time.Second, 390 * time.Second}
	return c
}

// replay is a cell that plays a trace from its first request to its last.
func replay(path string, speed float64) Cell {
	c := usual(5, 8, 0)
	c.Warm, c.Measure, c.Trace, c.Speed = 0, time.Hour, path, speed
	return c
}

// rush is the special row of the goals. A PTU takes 20 s of overload to fill.
func rush(utilization bool) Cell {
	c := usual(2, 1, 0)
	c.Warm, c.Measure, c.Rush, c.Utilization = 30*time.Second, 10*time.Second, true, utilization
	return c
}

// String names the cell by what is unusual in it.
func (c Cell) String() string {
	name := []string{fmt.Sprintf("B=%d M=%d", c.B, c.M)}
	add := func(is bool, format string, args ...any) {
		if is {
			name = append(name, fmt.Sprintf(format, args...))
		}
	}
	add(c.Rho > 0, "ρ=%g", c.Rho)
	add(c.Trace != "", "trace ×%g", c.Speed)
	add(c.Rush, "rush")
	add(c.Short, "short")
	add(c.Window == spillovertest.Fixed, "fixed minute")
	add(c.Window == spillovertest.Refilling, "refilling")
	add(c.CountRefused, "rejects count")
	add(c.Utilization, "utilization")
	add(c.Silent, "no headers")
	add(c.Stale > 0, "headers %v old", c.Stale)
	add(c.Spurious > 0, "%g %% spurious", 100*c.Spurious)
	add(c.Patience > 0, "waiting %v", c.Patience)
	add(c.Fault.Kind != "" && c.Fault.PTU, "%s on the PTU", c.Fault.Kind)
	add(c.Fault.Kind != "" && !c.Fault.PTU, "%s on a PAYG", c.Fault.Kind)
	return strings.Join(append(name, fmt.Sprintf("seed %d", c.Seed)), " ")
}

// measured tells whether a request that comes at a time counts.
func (c Cell) measured(at time.Duration) bool { return at >= c.Warm && at < c.Warm+c.Measure }

func (c Cell) shape() shape {
	if c.Short {
		return shorts
	}
	return chats
}

// load draws the cell's requests.
func (c Cell) load() ([]job, error) {
	jobs, err := c.arrivals()
	rng := rand.New(rand.NewPCG(c.Seed, 2))
	for i := range jobs {
		jobs[i].client = rng.IntN(c.M)
	}
	return jobs, err
}

func (c Cell) arrivals() ([]job, error) {
	switch {
	case c.Rush:
		return even(rushed, rushOffered, c.Warm+c.Measure), nil
	case c.Trace != "":
		jobs, err := readTrace(c.Trace)
		return faster(jobs, c.Speed), err
	}
	rng := rand.New(rand.NewPCG(c.Seed, 1))
	return poisson(rng, c.shape(), c.Rho*c.capacity(), c.Warm+c.Measure), nil
}
