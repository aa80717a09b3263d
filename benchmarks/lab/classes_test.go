package lab

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var classes = flag.Bool("classes", false, "TestClasses: run all of its cells, and write CLASSES.md")

// TestClassesGuard requires, in a short cell, what is no goal. TestGuardsOfClassGoals
// requires the goals.
func TestClassesGuard(t *testing.T) {
	c := mixed(1, 1/0.75, 0.4)
	c.Warm, c.Measure = 30*time.Second, 90*time.Second
	r := &Results{Seeds: 1, Figures: playAll(t, mixTrials([]Cell{c}, 1))}
	if t.Failed() {
		return
	}
	ours := Ours().Name
	t.Log("\n" + classesTable(r, []Cell{c}))
	require.Greater(t, r.value(c.classless(), ours, spilled), r.value(c.alone(), ours, spilled)+0.05, "there is something to win")
	require.Greater(t, r.value(c.classless(), ours, spilled), r.value(c.classful(), ours, spilled)+0.05, "classes win it")
	require.InDelta(t, 1, r.value(c.classful(), ours, bgServed), 0.01)
}

// TestClasses measures what classes do for interactive requests.
func TestClasses(t *testing.T) {
	if !*classes {
		t.Skip("only with -classes")
	}
	cells := mixes()
	r := &Results{Seeds: *seeds, Figures: playAll(t, mixTrials(cells, *seeds))}
	if t.Failed() {
		return
	}
	table := classesTable(r, cells)
	t.Log("\n" + table)
	w := &writer{}
	r.goalTable(w, ClassGoals(), []string{"with classes"}, Ours())
	text := strings.NewReplacer("GOALS\n", w.String(), "TABLE\n", table).Replace(fmt.Sprintf(classesText, *seeds))
	require.NoError(t, os.WriteFile("CLASSES.md", []byte(text), 0o644))
}

const classesText = `# Request classes

What ` + "`spillover.WithClass`" + ` does for interactive requests: a PTU with a bucket of 5 s that reports its utilization, five pay-as-you-go deployments below it, and background requests beside the interactive ones, both with bursts. *Interactive / PTU* is the interactive load over the capacity of the PTU, and so for the background load. Each process has a Transport of its own, which shares nothing with the others. Where it says *+ 1*, the background requests come from a process of their own, such as a batch job, which knows only the responses to those. Background requests may wait for a minute (` + "`BackgroundWait`" + `). Figures are medians of %d seeds over 240 s.

- *alone* is without background requests, *no classes* with those but no class, *classes* with ` + "`WithClass`" + `.
- *Spills* is the share of the interactive requests that the PTU does not serve.
- *Delay p99* is the 99th percentile of the time from the call to the send that succeeded, of interactive requests: refused attempts before it.
- *Background on the PTU* is the share of the background requests that the PTU serves. The others spill after their wait.

TABLE

The delay includes the background requests of the minimum rate, one in 30 s at each deployment and process.

## Goals

GOALS
The delay of one refused attempt is 40 ms.

` + "`nice go test -run TestClasses -classes`" + ` writes this.
`
