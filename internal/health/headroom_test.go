package health

import (
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/wire"
)

func TestReportedLimitsAreRead(t *testing.T) {
	const unknown = math.MaxInt64
	for name, test := range map[string]struct {
		headers []http.Header
		fits    int64 // the largest request that does
	}{
		"nothing":                {nil, unknown},
		"half":                   {[]http.Header{reportsTokens(10000, 5000)}, 5000},
		"all":                    {[]http.Header{reportsTokens(10000, 10000)}, 10000},
		"more than all":          {[]http.Header{reportsTokens(10000, 20000)}, 10000},
		"none":                   {[]http.Header{reportsTokens(10000, 0)}, 0},
		"overdrawn":              {[]http.Header{reportsTokens(333000, -27689)}, -27689},
		"overdrawn by one":       {[]http.Header{reportsTokens(1000, -1)}, -1},
		"placeholders -1":        {[]http.Header{reportsTokens(-1, -1)}, unknown},
		"placeholders 0 of 0":    {[]http.Header{reportsTokens(0, 0)}, unknown},
		"empty":                  {[]http.Header{reportsTokens("", "")}, unknown},
		"words":                  {[]http.Header{reportsTokens("many", "some")}, unknown},
		"no integers":            {[]http.Header{reportsTokens("1e4", "5000.5")}, unknown},
		"too long":               {[]http.Header{reportsTokens("99999999999999999999", "99999999999999999999")}, unknown},
		"a limit alone":          {[]http.Header{header("X-Ratelimit-Limit-Tokens: 10000")}, unknown},
		"what remains alone":     {[]http.Header{header("X-Ratelimit-Remaining-Tokens: 0")}, unknown},
		"the last report counts": {[]http.Header{reportsTokens(10000, 5000), reportsTokens(20000, 4000)}, 4000},
		"placeholders say nothing of what was told before": {
			[]http.Header{reportsTokens(10000, 5000), reportsTokens(-1, -1), reportsTokens(0, 0), {}}, 5000,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := reported(test.headers...)
			require.False(t, d.LacksHeadroom(noon, test.fits))
			if test.fits != unknown {
				require.True(t, d.LacksHeadroom(noon, test.fits+1))
			}
		})
	}
}

// What is sent counts until the service reports what remains.
func TestSentTokensReduceTheHeadroom(t *testing.T) {
	d := reported(reportsTokens(1000, 500))
	d.CountSent(300)
	require.False(t, d.LacksHeadroom(noon, 200))
	require.True(t, d.LacksHeadroom(noon, 201))
	d.ReportedLimits.Update(noon, noon, d.sent.Load(), wire.ReadLimits(reportsTokens(1000, 450)))
	require.False(t, d.LacksHeadroom(noon, 450))
}

// Responses may arrive in another order than their requests were sent.
func TestReportOnAnEarlierRequestDoesNotReplaceALaterOne(t *testing.T) {
	var d Deployment
	first, second := d.CountSent(100), d.CountSent(100)
	d.Update(noon, noon, second, wire.ReadLimits(reportsTokens(1000, 300)))
	d.Update(noon, noon, first, wire.ReadLimits(reportsTokens(1000, 900)))
	require.False(t, d.LacksHeadroom(noon, 300))
	require.True(t, d.LacksHeadroom(noon, 301))
}

func TestReportedLimitsExpire(t *testing.T) {
	const limit = 60000 // a thousand a second
	g := reported(reportsTokens(limit, 0))
	require.True(t, g.LacksHeadroom(noon, 1))
	require.False(t, g.LacksHeadroom(after(3), 3000), "regained")
	require.True(t, g.LacksHeadroom(after(3), 3001))
	require.True(t, g.LacksHeadroom(noon.Add(shortageFresh), 2*limit), "more than the limit never fits")
	require.False(t, g.LacksHeadroom(noon.Add(shortageFresh+1), 2*limit), "too old to say so")
}

// Extreme values in a header do not overflow.
func TestLargestReportedLimitsDoNotOverflow(t *testing.T) {
	for _, remaining := range []int64{math.MaxInt64, math.MaxInt64 - 1, 1 << 62} {
		g := reported(reportsTokens(int64(math.MaxInt64), remaining))
		for _, age := range []time.Duration{0, 1, time.Second, shortageFresh} {
			require.False(t, g.LacksHeadroom(noon.Add(age), 1000), "%d after %v", remaining, age)
		}
	}
	g := reported(reportsTokens(int64(math.MaxInt64), int64(math.MinInt64)))
	g.CountSent(1000)
	require.True(t, g.LacksHeadroom(noon, 1000))
}

func TestHeadroomProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, remaining := rapid.Int64().Draw(t, "limit"), rapid.Int64().Draw(t, "remaining")
		g := reported(reportsTokens(limit, remaining))
		now := noon.Add(drawSpan(t, "age", time.Hour))
		tokens := rapid.Int64Range(1, 1<<40).Draw(t, "tokens")
		// With nothing sent there is never less room later, while the report is fresh or not.
		require.True(t, g.LacksHeadroom(now, tokens) || !g.LacksHeadroom(now.Add(drawSpan(t, "later", time.Hour)), tokens))
	})
}

// The share of requests that a PTU passes on, over many draws.
func TestShareOfRequestsThatSpillEarly(t *testing.T) {
	const half = (spillFrom + spillAll) / 2
	for text, want := range map[string]float64{
		"85%": 0, "92.5%": 0.5, "100%": 1, // the policy's own
		"0%": 0, "1.6%": 0, "84.9%": 0, "89.3%": 0.28667, "99.9%": 0.99333, "112.5%": 1, "1e9%": 1, "1e999%": 0, "Inf%": 1, "95 %": 0.66667,
		"": 0, "%": 0, "99": 0, "-99%": 0, "NaN%": 0, "full%": 0,
	} {
		g := reported(header("Azure-Openai-Deployment-Utilization: " + text))
		const draws = 10000
		spilled := 0
		for i := range draws {
			if g.Spills(noon, float64(i)/draws) {
				spilled++
			}
		}
		require.InDelta(t, want, float64(spilled)/draws, 0.001, "%q", text)
	}
	g := reported(reportsUtilization(half))
	require.True(t, g.Spills(noon, 0.49))
	require.False(t, g.Spills(noon, 0.51))

	g = reported(reportsUtilization(spillAll), reportsUtilization(half))
	require.False(t, g.Spills(noon, 0.51), "the last report counts")
	g = reported(reportsUtilization(spillAll), http.Header{}, header("Azure-Openai-Deployment-Utilization: "))
	require.True(t, g.Spills(noon, 0.99), "one that says nothing changes nothing")
	require.True(t, g.Spills(noon.Add(utilizationFresh), 0.99))
	require.False(t, g.Spills(noon.Add(utilizationFresh+1), 0), "too old")
}

func TestHeadroomIsComparedByTrust(t *testing.T) {
	d := reported(reportsTokens(1000, 500))
	d.CountSent(100)
	h := d.TokenHeadroom(noon)
	require.Equal(t, Headroom{0.4, 1}, h)
	old := d.TokenHeadroom(noon.Add(headroomDecay))
	require.Equal(t, 0.4, old.Share)
	require.InDelta(t, math.Exp(-1), old.Trust, 1e-9)
	require.Equal(t, Headroom{}, new(Deployment).TokenHeadroom(noon))

	require.InDelta(t, 0.5, Headroom{0.9, 1}.More(Headroom{0.4, 1}), 1e-9)
	require.InDelta(t, -0.5, Headroom{0.4, 1}.More(Headroom{0.9, 1}), 1e-9)
	require.InDelta(t, 0.5*2*0.5/1.5, Headroom{0.9, 1}.More(Headroom{0.4, 0.5}), 1e-9)
	require.Zero(t, Headroom{0.9, 1}.More(Headroom{}), "what is unknown counts as equal")
	require.Zero(t, Headroom{}.More(Headroom{0.9, 1}))
}

func TestDeploymentHasCapacityBelowTheEarlySpill(t *testing.T) {
	require.False(t, new(Deployment).HasCapacity(noon), "nothing was reported")
	require.False(t, reported(reportsUtilization(spillFrom)).HasCapacity(noon))
	d := reported(reportsUtilization(spillFrom - 1))
	require.True(t, d.HasCapacity(noon.Add(utilizationFresh)))
	require.False(t, d.HasCapacity(noon.Add(utilizationFresh+1)))
}

// Where another replica has just found a PTU full, fewer requests ask it again.
func TestHeardFullPTUIsAskedLater(t *testing.T) {
	var d Deployment
	d.HearUtilization(noon, spillAll, "a")
	require.True(t, d.PassesOn(noon, 0.5), "nothing is in flight here")
	require.True(t, d.PassesOn(noon.Add(heardFullFor/2-1), 0.5))
	require.False(t, d.PassesOn(noon.Add(heardFullFor/2), 0.5))
	require.False(t, d.PassesOn(noon.Add(heardFullFor/3), 0.1), "some requests are sent at once")
	d.HearUtilization(noon.Add(-time.Second), spillAll-1, "b")
	require.EqualValues(t, spillAll, d.Utilization.Load(), "it is older")
}
