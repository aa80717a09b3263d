package lab

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReport makes the whole report.
func TestReport(t *testing.T) {
	if !*full {
		t.Skip("only with -full")
	}
	began := time.Now()
	about := About{Command: "go test -run TestReport -timeout 60m -full -out " + *out, Trace: *trace}
	if _, err := os.Stat(about.Trace); err != nil {
		about.Trace = ""
	}
	trials := Plan(*seeds, about.Trace)
	r := &Results{Seeds: *seeds, Figures: playAll(t, trials), Events: playEvents(t, careful()[:len(careful())-1])}
	require.False(t, t.Failed())
	about.Took = time.Since(began)
	require.NoError(t, r.Write(*out, about))
	t.Logf("%d runs in %v", len(trials), about.Took)
}

// TestGoals runs what the goals need with the policies of -policy, and prints them.
func TestGoals(t *testing.T) {
	if *goals == "" {
		t.Skip("only with -goals REGEXP")
	}
	wanted, policies := regexp.MustCompile(*goals), chosen(t)
	all := slices.DeleteFunc(append(Goals(), StrangeGoals()...), func(g Goal) bool { return !wanted.MatchString(g.Figure) })
	r := &Results{Seeds: *seeds, Figures: playAll(t, needs(all, policies, *seeds)), Events: playEvents(t, policies)}
	for _, g := range all {
		row := fmt.Sprintf("%-75s %9s", g.Figure, g.Want.text(g.Format))
		for _, p := range policies {
			v := g.Of(r, p.Name)
			row += fmt.Sprintf("  %9s %-3s", text(g.Format, v), map[bool]string{false: "no"}[g.Want.met(v)])
		}
		fmt.Println(row)
	}
}

// A report can be written of whatever there is.
func TestReportOfLittle(t *testing.T) {
	c := at(10, 8, 0.9)
	r := &Results{Seeds: 2, Figures: map[Trial]Figures{}}
	for seed, wasted := range []float64{0.02, 0.10} {
		c.Seed = uint64(seed) + 1
		r.Figures[trial(c, "spillover")] = Figures{Wasted: wasted, Tokens: 99, PTU: 50}
		r.Figures[trial(c, "oracle")] = Figures{Tokens: 100, PTU: 50}
	}
	path := filepath.Join(t.TempDir(), "REPORT.md")
	require.NoError(t, r.Write(path, About{Command: "go test", Took: time.Minute}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), "| wasted attempts, M = 8, ρ = 0.9 | ≤ 0.100 | **0.060** | yes | – |")
	require.Contains(t, string(text), "| M=8 ρ=0.9 | 0.990 | – |")
	charts, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.svg"))
	require.NoError(t, err)
	require.Len(t, charts, 5)
	for _, chart := range charts {
		svg, err := os.ReadFile(chart)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(svg), "<svg "))
		require.NotContains(t, string(svg), "NaN")
	}
}

func TestPlan(t *testing.T) {
	trials := Plan(3, "trace.csv")
	planned := map[Trial]bool{}
	for i, trial := range trials {
		require.False(t, planned[trial], "%v twice", trial)
		planned[trial] = true
		if i > 0 {
			require.LessOrEqual(t, trial.Cell.work(), trials[i-1].Cell.work())
		}
	}
	// Every goal of ours has its runs.
	r := &Results{Seeds: 3, Figures: map[Trial]Figures{}}
	for _, trial := range trials {
		r.Figures[trial] = Figures{Tokens: 1, PTU: 1}
	}
	r.Events = map[EventTrial]int{}
	for _, e := range Events() {
		r.Events[EventTrial{e.Name, "spillover"}] = 1
	}
	for _, g := range append(Goals(), StrangeGoals()...) {
		require.False(t, math.IsNaN(g.Of(r, "spillover")), g.Figure)
	}
}

func TestGoalText(t *testing.T) {
	g := Goal{Want: atMost(20), Format: "%.0f"}
	require.Equal(t, "≤ 20", g.Want.text(g.Format))
	require.Equal(t, "**20**", g.cellText(20))
	require.Equal(t, "21", g.cellText(21))
	require.Equal(t, "never", g.cellText(math.Inf(1)))
	require.Equal(t, "–", g.cellText(math.NaN()))
	require.True(t, atLeast(0.99).met(0.99))
}
