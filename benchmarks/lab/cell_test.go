package lab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// TestCell runs one cell with some policies, and prints what it measured.
func TestCell(t *testing.T) {
	if *cell == "" {
		t.Skip("only with -cell B,M,rho")
	}
	c := usual(10, 8, 0.9)
	_, err := fmt.Sscanf(*cell, "%d,%d,%g", &c.B, &c.M, &c.Rho)
	require.NoError(t, err)
	require.NoError(t, c.change(*with))
	c.Seed = *seed
	if *length > 0 {
		c.Measure = time.Duration(*length * float64(time.Second))
	}
	oracle := play(t, c, Oracle)
	fmt.Println(c)
	fmt.Printf("%-22s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s\n", "", "goodput", "/oracle", "ptu/orac",
		"used", "429s", "wasted", "visible", "errors", "p50 ms", "p99 ms", "uneven", "touched", "time s", "served", "recovery", "touches", "notice/s", "ejects")
	for _, p := range chosen(t) {
		began := time.Now()
		f := play(t, c, p)
		fmt.Printf("%-22s %8.3f %8.3f %8.3f %8d %8d %8.3f %8.3f %8.4f %8.0f %8.0f %8.3f %8.4f %8.2f %8.3f %8s %8d %8.2f %8d   %v\n", p.Name, f.Goodput, f.Tokens/oracle.Tokens, f.PTU/oracle.PTU,
			f.Used, f.Refused, f.Wasted, f.Visible, f.Errors, 1e3*f.AddedP50.Seconds(), 1e3*f.AddedP99.Seconds(), f.Uneven, f.Touched, f.Time.Seconds(), f.Served, text("%.0f s", recovery(f)), f.Touches, f.Notices, f.Ejections, time.Since(began).Round(time.Millisecond))
	}
}

// chosen are the policies of the flag.
func chosen(t *testing.T) []Policy {
	if *policy == "all" {
		return Policies()
	}
	var chosen []Policy
	for name := range strings.SplitSeq(*policy, ",") {
		p, ok := Find(name)
		require.True(t, ok, "no policy %q", name)
		chosen = append(chosen, p)
	}
	return chosen
}

// A difference is what -with can change, by a value or a usual one.
type difference struct {
	name  string
	apply func(c *Cell, value string) error
}

var differences = []difference{
	is("utilization", func(c *Cell) { c.Utilization = true }),
	is("short", func(c *Cell) { c.Short = true }),
	is("rejects-count", func(c *Cell) { c.CountRefused = true }),
	is("fixed", func(c *Cell) { c.Window = spillovertest.Fixed }),
	is("refilling", func(c *Cell) { c.Window = spillovertest.Refilling }),
	is("stale", func(c *Cell) { c.Stale = 10 * time.Second }),
	is("silent", func(c *Cell) { c.Silent = true }),
	is("waiting", func(c *Cell) { c.Patience = 30 * time.Second }),
	is("401", func(c *Cell) { c.fault("401") }),
	is("500", func(c *Cell) { c.fault("500") }),
	is("blackhole", func(c *Cell) { c.fault("black hole") }),
	is("slow", func(c *Cell) { c.fault("slow") }),
	is("ptu", func(c *Cell) { c.Fault.PTU = true }),
	is("rush", func(c *Cell) { *c = rush(c.Utilization) }),
	is("trace", func(c *Cell) { *c = replay(*trace, 10) }),
	number("chance", 0.2, func(c *Cell, p float64) { c.Chance.Share, c.Chance.Hint = p, 20*time.Millisecond }),
	lasting("hint", time.Second, func(c *Cell, d time.Duration) { c.Chance.Hint = d }),
	lasting("after", 5*time.Second, func(c *Cell, d time.Duration) { c.Chance.After = d }),
	is("ptu-alone", func(c *Cell) { c.Chance.PTU = true }),
	is("no-capacity", func(c *Cell) { c.Chance.NoCapacity = true }),
	lasting("refusals", 2*time.Second, func(c *Cell, d time.Duration) { c.Refusal = d }),
	number("neighbour", 0.5, func(c *Cell, share float64) { c.Neighbour.Share = share }),
	is("greedy", func(c *Cell) { c.Neighbour = Neighbour{Share: 1, Greedy: true} }),
	number("ptu-size", 0.75, func(c *Cell, size float64) { c.PTUSize = size }),
	number("poison", 0.01, func(c *Cell, share float64) { c.Poison = share }),
	number("late", 0.005, func(c *Cell, share float64) { c.Late = share }),
	is("resets", func(c *Cell) { c.Resets = true }),
	lasting("delay", 5*time.Millisecond, func(c *Cell, d time.Duration) { c.Bus.Delay = d }),
	number("lost", 0.2, func(c *Cell, share float64) { c.Bus.Lost = share }),
	number("twice", 0.3, func(c *Cell, share float64) { c.Bus.Twice = share }),
	lasting("disorder", 500*time.Millisecond, func(c *Cell, d time.Duration) { c.Bus.Disorder = d }),
	number("liars", 1, func(c *Cell, n float64) { c.Bus.Liars.Senders, c.Bus.Liars.Kind = int(n), "throttled" }),
	is("about-all", func(c *Cell) { c.Bus.Liars.All = true }),
	is("lie-ejected", func(c *Cell) { c.Bus.Liars.Kind = "ejected" }),
	is("lie-utilization", func(c *Cell) { c.Bus.Liars.Kind = "utilization" }),
	number("answers", 3, func(c *Cell, times float64) { c.Slower = times }),
	is("silence", func(c *Cell) { c.become(silent(c.M, c.Fault.PTU)) }),
	is("all-500", func(c *Cell) { c.become(outage("500")) }),
	is("all-reset", func(c *Cell) { c.become(outage("reset")) }),
}

func is(name string, change func(*Cell)) difference {
	return difference{name, func(c *Cell, value string) error {
		if value != "" {
			return fmt.Errorf("-with %s takes no value", name)
		}
		change(c)
		return nil
	}}
}

func number(name string, usual float64, change func(*Cell, float64)) difference {
	return valued(name, usual, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }, change)
}

func lasting(name string, usual time.Duration, change func(*Cell, time.Duration)) difference {
	return valued(name, usual, time.ParseDuration, change)
}

func valued[T any](name string, usual T, parse func(string) (T, error), change func(*Cell, T)) difference {
	return difference{name, func(c *Cell, value string) (err error) {
		v := usual
		if value != "" {
			if v, err = parse(value); err != nil {
				return fmt.Errorf("-with %s: %w", name, err)
			}
		}
		change(c, v)
		return nil
	}}
}

// change applies a list of differences: names, with =value where they take one.
func (c *Cell) change(list string) error {
	for item := range strings.SplitSeq(list, ",") {
		if item == "" {
			continue
		}
		name, value, _ := strings.Cut(item, "=")
		i := slices.IndexFunc(differences, func(d difference) bool { return d.name == name })
		if i < 0 {
			return fmt.Errorf("-with %q is none of %v", name, differenceNames())
		}
		if err := differences[i].apply(c, value); err != nil {
			return err
		}
	}
	return nil
}

// become takes the times of another cell, and what happens in it.
func (c *Cell) become(o Cell) {
	c.Warm, c.Measure, c.Leave, c.Fault = o.Warm, o.Measure, o.Leave, o.Fault
}

// fault makes the cell one with a fault, on a PAYG.
func (c *Cell) fault(kind string) { c.become(faulty(kind, c.Fault.PTU)) }

func differenceNames() (names []string) {
	for _, d := range differences {
		names = append(names, d.name)
	}
	return names
}

func TestDifferences(t *testing.T) {
	c := strange(1, 0.5, func(*Cell) {})
	require.NoError(t, c.change("chance=0.3,hint=6s,after,no-capacity,,neighbour,answers=15"))
	require.Equal(t, Chance{Share: 0.3, Hint: 6 * time.Second, After: 5 * time.Second, NoCapacity: true}, c.Chance)
	require.Equal(t, "B=6 M=1 ρ=0.5 no_capacity 30 % hint 6s after 5s neighbour 50 % answers ×15 seed 1", c.String())
	c = strange(8, 0.5, func(*Cell) {})
	require.NoError(t, c.change("ptu,silence"))
	require.Equal(t, silent(8, true), c)
	for _, bad := range []string{"chances", "chance=much", "hint=1", "greedy=2"} {
		require.Error(t, c.change(bad), bad)
	}
}
