package lab

import (
	"flag"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var (
	full   = flag.Bool("full", false, "TestReport: run everything")
	out    = flag.String("out", "REPORT.md", "TestReport: where to write, the charts beside it")
	seeds  = flag.Int("seeds", 3, "TestReport: seeds per cell")
	trace  = flag.String("arrivals", "AzureLLMInferenceTrace_conv.csv", "arrivals to replay, if the file is there")
	goals  = flag.String("goals", "", "TestGoals: which ones, a regular expression")
	cell   = flag.String("cell", "", "TestCell: B,M,rho")
	with   = flag.String("with", "", "TestCell: what else is different, separated by commas: "+strings.Join(differenceNames(), " "))
	policy = flag.String("policy", "spillover", "TestCell: policies, separated by commas, or all")
	length = flag.Float64("seconds", 0, "TestCell: measured time instead of the usual")
	seed   = flag.Uint64("seed", 1, "TestCell: seed")
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // many small runs: time matters, memory does not
	os.Exit(m.Run())
}

// play runs a trial in virtual time.
func play(t *testing.T, c Cell, p Policy) (f Figures) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		f, err = Run(c, p)
		require.NoError(t, err)
	})
	return f
}

// playAll runs many, as many at a time as there are processors.
func playAll(t *testing.T, trials []Trial) map[Trial]Figures {
	figures := make(map[Trial]Figures, len(trials))
	var mu sync.Mutex
	t.Run("cells", func(t *testing.T) {
		for _, trial := range trials {
			p, ok := Find(trial.Policy)
			require.True(t, ok, trial.Policy)
			t.Run(trial.Cell.String()+" "+trial.Policy, func(t *testing.T) {
				t.Parallel()
				f := play(t, trial.Cell, p)
				mu.Lock()
				defer mu.Unlock()
				figures[trial] = f
			})
		}
	})
	return figures
}
