package main

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// A usage is what one request took.
type usage struct {
	Clock, Processor time.Duration // elapsed, and of all threads of the process
	Allocs, Bytes    float64       // of the heap
	Writes           float64       // to connections
	FirstContent     time.Duration // of a stream
	Held             float64       // bytes of memory for each request in flight
}

// A candidate is one way to do a request.
type candidate struct {
	name string
	run  func(n int) (usage, error) // n requests, one after the other
}

// each is a candidate that calls a function for each request.
func each(name string, do func() error) candidate {
	return candidate{name, func(n int) (usage, error) { return measure(n, do) }}
}

func measure(n int, do func() error) (usage, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun, used := time.Now(), processorTime()
	for range n {
		if err := do(); err != nil {
			return usage{}, err
		}
	}
	clock, processor := time.Since(begun), processorTime()-used
	runtime.ReadMemStats(&after)
	return usage{
		Clock: clock / time.Duration(n), Processor: processor / time.Duration(n),
		Allocs: float64(after.Mallocs-before.Mallocs) / float64(n), Bytes: float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
	}, nil
}

// A comparison measures candidates in turn.
type comparison struct {
	candidates []candidate
	batches    []int     // requests of each in one turn
	samples    [][]usage // by candidate and round
}

// newComparison finds out how many requests fill a turn of each candidate, which also warms everything up.
func newComparison(turn time.Duration, candidates ...candidate) (*comparison, error) {
	c := &comparison{candidates: candidates, samples: make([][]usage, len(candidates))}
	for _, k := range candidates {
		batch := 1
		for {
			u, err := k.run(batch)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k.name, err)
			}
			took := min(u.Clock, u.Processor) * time.Duration(batch) // while other programs run, the clock goes on
			if took >= turn/2 {
				break
			}
			batch *= int(min(max(turn/max(took, 1), 2), 20)) // what a first request takes says little
		}
		c.batches = append(c.batches, batch)
	}
	return c, nil
}

// compare measures so many rounds.
func compare(s settings, candidates ...candidate) (*comparison, error) {
	c, err := newComparison(s.turn, candidates...)
	if err != nil {
		return nil, err
	}
	return c, c.rounds(s.rounds)
}

func (c *comparison) rounds(n int) error {
	for range n {
		if err := c.round(); err != nil {
			return err
		}
	}
	return nil
}

// round gives each candidate its turn. Every round begins with another one.
func (c *comparison) round() error {
	n, first := len(c.candidates), len(c.samples[0])
	for i := range n {
		i = (first + i) % n
		u, err := c.candidates[i].run(c.batches[i])
		if err != nil {
			return fmt.Errorf("%s: %w", c.candidates[i].name, err)
		}
		c.samples[i] = append(c.samples[i], u)
	}
	return nil
}

// of returns what a candidate took: the least time of all rounds, because other programs can only make it longer, and
// medians of what is counted.
func (c *comparison) of(name string) usage {
	all := c.samplesOf(name)
	return usage{
		Clock:        least(all, func(u usage) time.Duration { return u.Clock }),
		Processor:    least(all, func(u usage) time.Duration { return u.Processor }),
		Allocs:       median(all, func(u usage) float64 { return u.Allocs }),
		Bytes:        median(all, func(u usage) float64 { return u.Bytes }),
		Writes:       median(all, func(u usage) float64 { return u.Writes }),
		FirstContent: least(all, func(u usage) time.Duration { return u.FirstContent }),
		Held:         median(all, func(u usage) float64 { return u.Held }),
	}
}

// samplesOf are what a candidate took, by round.
func (c *comparison) samplesOf(name string) []usage {
	i := slices.IndexFunc(c.candidates, func(k candidate) bool { return k.name == name })
	if i < 0 {
		panic("no candidate " + name)
	}
	return c.samples[i]
}

func (c *comparison) names() []string {
	var all []string
	for _, k := range c.candidates {
		all = append(all, k.name)
	}
	return all
}

func least(all []usage, of func(usage) time.Duration) time.Duration {
	low := of(all[0])
	for _, u := range all {
		low = min(low, of(u))
	}
	return low
}

func median[T cmp.Ordered](all []usage, of func(usage) T) T {
	var values []T
	for _, u := range all {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// ratio is what one candidate takes by the clock, in terms of another.
func (c *comparison) ratio(of, to string) float64 {
	return float64(c.of(of).Clock) / float64(c.of(to).Clock)
}

// processorRatio is the same of the time of processors.
func (c *comparison) processorRatio(of, to string) float64 {
	return float64(c.of(of).Processor) / float64(c.of(to).Processor)
}

// pairedRatio is what one candidate takes of the time of processors, in terms of another: the median of the ratios of all
// rounds. What slows a processor down for a while slows down both of them in that round.
func (c *comparison) pairedRatio(of, to string) float64 {
	a, b := c.samplesOf(of), c.samplesOf(to)
	ratios := make([]float64, len(a))
	for i := range ratios {
		ratios[i] = float64(a[i].Processor) / float64(b[i].Processor)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}
