package cost

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// A request is one kind of request to compare.
type request struct {
	name    string
	target  string
	dialect spillover.Dialect
	size    int  // of the body
	reads   bool // whether the base reads it
}

var kinds = []request{
	{"classic, 1 KiB", classic, spillover.Azure, 1 << 10, false},
	{"v1, 1 KiB", v1, spillover.AzureV1, 1 << 10, false},
	{"classic, 64 KiB", classic, spillover.Azure, 64 << 10, true},
	{"v1, 64 KiB", v1, spillover.AzureV1, 64 << 10, true},
}

// The candidates' names.
const (
	bare           = "bare base"
	cloned         = "clone and rewrite"
	underFailsafe  = "failsafe-go around it"
	underRetryable = "go-retryablehttp around it"
	ours3          = "spillover, 3 backends"
	ours10         = "spillover, 10 backends"
	ours1000       = "spillover, 1000 backends"
	inSession      = "the same, in a session"
)

func (k request) candidates(tb testing.TB) []candidate {
	b, with := base{k.reads}, requests(tb.Context(), k.target, k.size)
	of := func(backends int) func() { return do(balanced(tb, b, backends, k.dialect), with) }
	return []candidate{
		{bare, do(b, with)}, {cloned, do(rewriter{b}, with)},
		{underFailsafe, do(failsafe(b), with)}, {underRetryable, do(retryable(b), with)},
		{ours3, of(3)}, {ours10, of(10)}, {ours1000, of(1000)},
	}
}

// sessions are requests to 1000 idle backends, of a session and of none.
func (k request) sessions(tb testing.TB) []candidate {
	rt, b := balanced(tb, base{k.reads}, 1000, k.dialect), base{k.reads}
	session := spillover.WithSession(tb.Context(), "session")
	return []candidate{
		{cloned, do(rewriter{b}, requests(tb.Context(), k.target, k.size))},
		{ours1000, do(rt, requests(tb.Context(), k.target, k.size))},
		{inSession, do(rt, requests(session, k.target, k.size))},
	}
}

// One iteration is one round: each candidate's turn, once.
func BenchmarkRequests(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			c := newComparison(k.candidates(b)...)
			for b.Loop() {
				c.round()
			}
			report(b, c, map[string][2]string{
				"3/clone": {ours3, cloned}, "10/clone": {ours10, cloned}, "1000/3": {ours1000, ours3},
				"10/failsafe": {ours10, underFailsafe}, "10/retryable": {ours10, underRetryable},
			})
		})
	}
}

func BenchmarkSessions(b *testing.B) {
	c := newComparison(kinds[0].sessions(b)...)
	for b.Loop() {
		c.round()
	}
	report(b, c, map[string][2]string{"session/none": {inSession, ours1000}})
}

func report(b *testing.B, c *comparison, ratios map[string][2]string) {
	for unit, r := range ratios {
		b.ReportMetric(c.ratio(r[0], r[1]), unit)
		b.ReportMetric(c.processorRatio(r[0], r[1]), unit+"-cpu")
	}
	b.ReportMetric(0, "ns/op") // a round has no meaning of its own
	b.Log("\n" + c.table(cloned))
}

// The bounds leave room for a busy machine. Whoever makes the transport cheaper
// lowers them.
func TestCost(t *testing.T) {
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			guard(t, k.candidates(t), []bound{
				{ours3, cloned, 3.2}, {ours10, cloned, 3.2}, {ours1000, ours3, 1.6},
				{ours10, underFailsafe, 1.6}, {ours10, underRetryable, 1.6},
			})
		})
	}
	t.Run("session", func(t *testing.T) {
		guard(t, kinds[0].sessions(t), []bound{{inSession, ours1000, 2.0}})
	})
}

// A bound is how much a candidate may take at most, in terms of another.
type bound struct {
	of, to string
	most   float64
}

// guard measures until all bounds are kept, a few times at most: other programs can
// only make a measurement worse. They do so less to the time that processors take
// than to that of the clock.
func guard(t *testing.T, candidates []candidate, bounds []bound) {
	if raceDetector {
		t.Skip("the race detector costs more than what is measured")
	}
	const tries, rounds = 5, 5
	c := newComparison(candidates...)
	for range tries {
		c.forget()
		for range rounds {
			c.round()
		}
		t.Log("\n" + c.table(cloned))
		if !slices.ContainsFunc(bounds, func(b bound) bool { return c.processorRatio(b.of, b.to) > b.most }) {
			return
		}
	}
	for _, b := range bounds {
		require.LessOrEqual(t, c.processorRatio(b.of, b.to), b.most, "%s, compared with: %s", b.of, b.to)
	}
}
