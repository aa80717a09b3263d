package cost

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A candidate is one way to do a request.
type candidate struct {
	name string
	run  func()
}

// A comparison measures candidates in turn.
type comparison struct {
	candidates []candidate
	batches    []int // runs of each in one turn
	// What one run took, by candidate and round: by the clock, and of the processors.
	clock, processor [][]time.Duration
}

// turn is about how long a candidate has in one round: long enough for its garbage
// to be collected several times.
const turn = 40 * time.Millisecond

// newComparison finds out how many runs fill a turn of each, which also warms
// everything up.
func newComparison(candidates ...candidate) *comparison {
	c := &comparison{candidates: candidates}
	for _, k := range candidates {
		batch := 1
		for {
			begun := processorTime()
			for range batch {
				k.run()
			}
			if processorTime()-begun >= turn {
				break
			}
			batch *= 2
		}
		c.batches = append(c.batches, batch)
	}
	c.forget()
	return c
}

// forget drops what was measured.
func (c *comparison) forget() {
	c.clock, c.processor = make([][]time.Duration, len(c.candidates)), make([][]time.Duration, len(c.candidates))
}

// round gives each candidate its turn. Every round begins with another one.
func (c *comparison) round() {
	n, first := len(c.candidates), len(c.clock[0])
	for i := range n {
		i = (first + i) % n
		runs := time.Duration(c.batches[i])
		begun, used := time.Now(), processorTime()
		for range runs {
			c.candidates[i].run()
		}
		c.processor[i] = append(c.processor[i], (processorTime()-used)/runs)
		c.clock[i] = append(c.clock[i], time.Since(begun)/runs)
	}
}

func (c *comparison) index(name string) int {
	i := slices.IndexFunc(c.candidates, func(c candidate) bool { return c.name == name })
	if i < 0 {
		panic("no candidate " + name)
	}
	return i
}

// ratio is what one candidate takes by the clock in terms of another.
func (c *comparison) ratio(of, to string) float64 {
	return ratio(c.clock[c.index(of)], c.clock[c.index(to)])
}

// processorRatio is what one candidate takes of the processors in terms of another.
func (c *comparison) processorRatio(of, to string) float64 {
	return ratio(c.processor[c.index(of)], c.processor[c.index(to)])
}

// table has the medians, by the clock and of the processors, each beside its ratio
// to the reference.
func (c *comparison) table(reference string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %-28s %12s %6s %16s %6s\n", "", "clock", "ratio", "processor time", "ratio")
	for i, k := range c.candidates {
		fmt.Fprintf(&b, "  %-28s %9.2f µs %6.2f %13.2f µs %6.2f\n", k.name, micros(median(c.clock[i])), c.ratio(k.name, reference),
			micros(median(c.processor[i])), c.processorRatio(k.name, reference))
	}
	return b.String()
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

// ratio is that of two medians.
func ratio(of, to []time.Duration) float64 { return float64(median(of)) / float64(median(to)) }
