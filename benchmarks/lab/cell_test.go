package lab

import (
	"fmt"
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
	for name := range strings.SplitSeq(*with, ",") {
		if name != "" {
			change, ok := differences[name]
			require.True(t, ok, "-with %q is none of %v", name, differenceNames())
			change(&c)
		}
	}
	c.Seed = *seed
	if *length > 0 {
		c.Measure = time.Duration(*length * float64(time.Second))
	}
	oracle := play(t, c, Oracle)
	fmt.Println(c)
	fmt.Printf("%-22s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s\n", "", "goodput", "/oracle", "ptu/orac",
		"used", "429s", "wasted", "visible", "errors", "p50 ms", "p99 ms", "uneven", "touched", "time s", "recovery")
	for _, p := range chosen(t) {
		began := time.Now()
		f := play(t, c, p)
		fmt.Printf("%-22s %8.3f %8.3f %8.3f %8d %8d %8.3f %8.3f %8.4f %8.0f %8.0f %8.3f %8.4f %8.2f %8s   %v\n", p.Name, f.Goodput, f.Tokens/oracle.Tokens, f.PTU/oracle.PTU,
			f.Used, f.Refused, f.Wasted, f.Visible, f.Errors, 1e3*f.AddedP50.Seconds(), 1e3*f.AddedP99.Seconds(), f.Uneven, f.Touched, f.Time.Seconds(), text("%.0f s", recovery(f)), time.Since(began).Round(time.Millisecond))
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

// differences are what -with can change.
var differences = map[string]func(*Cell){
	"utilization":   func(c *Cell) { c.Utilization = true },
	"short":         func(c *Cell) { c.Short = true },
	"rejects-count": func(c *Cell) { c.CountRefused = true },
	"fixed":         func(c *Cell) { c.Window = spillovertest.Fixed },
	"refilling":     func(c *Cell) { c.Window = spillovertest.Refilling },
	"stale":         func(c *Cell) { c.Stale = 10 * time.Second },
	"silent":        func(c *Cell) { c.Silent = true },
	"spurious":      func(c *Cell) { c.Spurious = 0.05 },
	"waiting":       func(c *Cell) { c.Patience = 30 * time.Second },
	"401":           func(c *Cell) { c.fault("401") },
	"500":           func(c *Cell) { c.fault("500") },
	"blackhole":     func(c *Cell) { c.fault("black hole") },
	"slow":          func(c *Cell) { c.fault("slow") },
	"ptu":           func(c *Cell) { c.Fault.PTU = true },
	"rush":          func(c *Cell) { *c = rush(c.Utilization) },
	"trace":         func(c *Cell) { *c = replay(*trace, 10) },
}

// fault makes the cell one with a fault, on a PAYG.
func (c *Cell) fault(kind string) {
	f := faulty(kind, c.Fault.PTU)
	c.Warm, c.Measure, c.Fault = f.Warm, f.Measure, f.Fault
}

func differenceNames() []string {
	return []string{"utilization", "short", "rejects-count", "fixed", "refilling", "stale", "silent", "spurious", "waiting",
		"401", "500", "blackhole", "slow", "ptu", "rush", "trace"}
}
