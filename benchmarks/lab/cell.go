package lab

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
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
	Leave    time.Duration // after which callers leave, 0: never
	Fault    Fault
	Odd
	Mix
	Bus Bus // of policies with a Fleet

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
	Refusal      time.Duration // that a refusal takes, instead of the usual
	Chance       Chance
	Neighbour    Neighbour
	PTUSize      float64       // the PTU's capacity over the offered load; 0: the usual share of the pool
	Bucket       time.Duration // the PTU's, see bucketDepth; 0: the usual
	Slower       float64       // answers take so many times the usual; 0: once
}

// A Chance is refusals that have nothing to do with the load. What the
// deployments report is as always: they have room.
type Chance struct {
	Share float64       // of the attempts; 0: none
	Hint  time.Duration // retry-after-ms
	After time.Duration // that a refusal takes, instead of the usual
	PTU   bool          // the PTU alone
	// NoCapacity words it as the service does when the region is short. Otherwise
	// the text is the one of a refusal by the limit, so that only the figures can
	// tell the two apart.
	NoCapacity bool
}

// A Neighbour is somebody else with the same quotas, at each deployment some 60
// s of two minutes.
type Neighbour struct {
	Share  float64 // of each quota; 0: none
	Greedy bool    // refused, he waits as long as he is told and asks again, up to 20 times
}

// Odd are the requests that go wrong wherever they are sent, which do not count,
// and the connections that break by themselves.
type Odd struct {
	Poison float64 // share of the requests that are reset after 100 ms
	Late   float64 // share of the requests that take 30 s more than a HeaderTimeout of 60 s
	Resets bool    // one request a minute to the PTU is reset after a second
}

// A Mix is background requests beside the load, which is interactive then. Figures are
// of the interactive requests but for Figures.Background.
type Mix struct {
	Background float64       // load over the PTU's capacity; 0: none
	Apart      bool          // background requests come from one more client, which has no others
	Classes    bool          // the policy is told the class of each request
	Wait       time.Duration // for how long a background request may wait, if it is told
}

// A Fault is what one deployment, or all of them, do for a while.
type Fault struct {
	Kind     string // "500", "401", "black hole", "slow", "silent", "reset"; "": none
	PTU      bool   // or else a PAYG of middle size
	All      bool   // or else one
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
	c.Fault = Fault{Kind: kind, PTU: ptu, From: 90 * time.Second, To: 390 * time.Second}
	return c
}

// strange is a cell of those in which refusals and failures are not of the load's
// making: few deployments, which sustain more than is offered.
func strange(m int, rho float64, change func(*Cell)) Cell {
	c := usual(6, m, rho)
	change(&c)
	return c
}

// chance is a cell of refusals that come by chance, from all deployments.
func chance(m int, share float64, hint time.Duration) Cell {
	return strange(m, 0.4, func(c *Cell) { c.Chance = Chance{Share: share, Hint: hint} })
}

// unlucky is such a cell in which only the PTU refuses, which could serve all.
func unlucky(share float64) Cell {
	c := chance(1, share, 20*time.Millisecond)
	c.PTUSize, c.Chance.PTU = 1, true
	return c
}

// noCapacity is a cell of a region that is short, which a refusal takes its time to say.
func noCapacity(share float64, after time.Duration) Cell {
	c := chance(1, share, 6*time.Second)
	c.Chance.After, c.Chance.NoCapacity = after, true
	return c
}

// slowly is a cell of limits that take their time to refuse.
func slowly(m int, takes time.Duration) Cell {
	return strange(m, 0.9, func(c *Cell) { c.Refusal = takes })
}

// shared is a cell with a neighbour, who is greedy where he wants everything: then
// the two together want a little more than there is.
func shared(m int, share float64) Cell {
	return strange(m, 0.53, func(c *Cell) { c.Neighbour = Neighbour{Share: share, Greedy: share == 1} })
}

// sized is a cell whose PTU has a size by the load.
func sized(m int, size float64) Cell {
	return strange(m, 0.5, func(c *Cell) { c.PTUSize = size })
}

// odd is a cell with requests or connections that go wrong by themselves.
func odd(m int, odd Odd) Cell {
	return strange(m, 0.5, func(c *Cell) { c.Odd = odd })
}

// resetting is a cell in which a connection breaks now and then, and answers take
// some multiple of the usual three seconds.
func resetting(slower float64) Cell {
	c := odd(1, Odd{Resets: true})
	c.Slower = slower
	return c
}

// silent is a cell with a deployment that accepts requests and says nothing, for
// as long as callers wait; nobody has configured a timeout.
func silent(m int, ptu bool) Cell {
	return strange(m, 0.5, func(c *Cell) {
		c.Warm, c.Measure, c.Leave = 30*time.Second, 270*time.Second, 120*time.Second
		c.Fault = Fault{Kind: "silent", PTU: ptu, From: 60 * time.Second, To: 180 * time.Second}
	})
}

// outage is a cell in which nothing works for 20 s.
func outage(kind string) Cell {
	return strange(1, 0.5, func(c *Cell) {
		c.Warm, c.Measure = 30*time.Second, 180*time.Second
		c.Fault = Fault{Kind: kind, All: true, From: 90 * time.Second, To: 110 * time.Second}
	})
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
	add(c.Refusal > 0, "refusals take %v", c.Refusal)
	add(c.Chance.Share > 0 && !c.Chance.NoCapacity, "chance %g %% hint %v", 100*c.Chance.Share, c.Chance.Hint)
	add(c.Chance.Share > 0 && c.Chance.NoCapacity, "no_capacity %g %% hint %v", 100*c.Chance.Share, c.Chance.Hint)
	add(c.Chance.After > 0, "after %v", c.Chance.After)
	add(c.Chance.PTU, "PTU alone")
	add(c.Neighbour.Share > 0 && !c.Neighbour.Greedy, "neighbour %g %%", 100*c.Neighbour.Share)
	add(c.Neighbour.Share > 0 && c.Neighbour.Greedy, "greedy neighbour %g %%", 100*c.Neighbour.Share)
	add(c.PTUSize > 0, "PTU %g of load", c.PTUSize)
	add(c.Bucket > 0, "bucket %v", c.Bucket)
	add(c.Background > 0, "background %g of the PTU", c.Background)
	add(c.Apart, "apart")
	add(c.Classes, "classes wait %v", c.Wait)
	add(c.Poison > 0, "poison %g %%", 100*c.Poison)
	add(c.Late > 0, "late %g %%", 100*c.Late)
	add(c.Resets, "reset/min")
	add(c.Slower > 0, "answers ×%g", c.Slower)
	add(c.Patience > 0, "waiting %v", c.Patience)
	add(c.Fault.All, "all %s for %v", c.Fault.Kind, c.Fault.To-c.Fault.From)
	add(c.Fault.Kind != "" && !c.Fault.All && c.Fault.PTU, "%s on the PTU", c.Fault.Kind)
	add(c.Fault.Kind != "" && !c.Fault.All && !c.Fault.PTU, "%s on a PAYG", c.Fault.Kind)
	add(c.Bus.Delay > 0, "bus %v", c.Bus.Delay)
	add(c.Bus.Lost > 0, "%g %% lost", 100*c.Bus.Lost)
	add(c.Bus.Twice > 0, "%g %% twice", 100*c.Bus.Twice)
	add(c.Bus.Disorder > 0, "disorder %v", c.Bus.Disorder)
	if l := c.Bus.Liars; l.Senders > 0 {
		add(true, "%d liars: %s %s", l.Senders, l.about(), l.Kind)
	}
	add(c.Leave > 0, "callers leave after %v", c.Leave)
	return strings.Join(append(name, fmt.Sprintf("seed %d", c.Seed)), " ")
}

// brief names the cell without its seed and its bus.
func (c Cell) brief() string {
	c.Bus, c.Seed = Bus{}, 0
	return strings.TrimSuffix(c.String(), " seed 0")
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
	rng = rand.New(rand.NewPCG(c.Seed, 4))
	for i := range jobs {
		jobs[i].poison = rng.Float64() < c.Poison
		jobs[i].late = rng.Float64() < c.Late
	}
	if c.Background > 0 {
		jobs = append(jobs, c.background()...)
		slices.SortStableFunc(jobs, func(a, b job) int { return cmp.Compare(a.at, b.at) })
	}
	return jobs, err
}

// background draws the background requests.
func (c Cell) background() []job {
	rng := rand.New(rand.NewPCG(c.Seed, 5))
	jobs := poisson(rng, c.shape(), c.Background*c.PTUSize*c.Rho*c.capacity(), c.Warm+c.Measure)
	for i := range jobs {
		jobs[i].client, jobs[i].background = rng.IntN(c.M), true
		if c.Apart {
			jobs[i].client = c.M
		}
	}
	return jobs
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
