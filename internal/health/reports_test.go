package health

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOneReportAvoidsAndASecondSkips(t *testing.T) {
	var r Reports
	now := time.Now()
	require.False(t, r.Avoided(now, 1))
	r.Report(now, "a", ReportThrottled, 10*time.Second, 0)
	require.True(t, r.Avoided(now, 1))
	require.False(t, r.Skipped(now, 1))
	r.Report(now, "a", ReportThrottled, 20*time.Second, 0)
	require.False(t, r.Skipped(now, 1), "the same replica again")
	r.Report(now, "b", ReportThrottled, 5*time.Second, 0)
	require.True(t, r.Skipped(now, 1))
	require.False(t, r.Skipped(now.Add(5*time.Second), 1), "for as long as the second one says")
	require.True(t, r.Avoided(now.Add(20*time.Second-1), 1))
	require.False(t, r.Avoided(now.Add(20*time.Second), 1))
	require.Equal(t, now.Add(20*time.Second), r.Until(now))
	require.Zero(t, r.Until(now.Add(20*time.Second)))
}

func TestFewRequestsIgnoreReports(t *testing.T) {
	var throttled, ejected, drained Reports
	now := time.Now()
	throttled.Report(now, "a", ReportThrottled, time.Minute, 0)
	ejected.Report(now, "a", ReportEjected, time.Minute, 0)
	drained.Report(now, "a", ReportDrained, time.Minute, 0)
	for _, r := range []struct {
		roll                        float64
		throttled, ejected, drained bool
	}{{0, false, false, true}, {0.001, false, false, true}, {0.01, false, true, true}, {0.02, true, true, true}, {0.9, true, true, true}} {
		require.Equal(t, r.throttled, throttled.Avoided(now, r.roll))
		require.Equal(t, r.ejected, ejected.Avoided(now, r.roll))
		require.Equal(t, r.drained, drained.Avoided(now, r.roll))
	}
}

func TestReportsAreCapped(t *testing.T) {
	now := time.Now()
	for kind, most := range maxReport {
		var r Reports
		r.Report(now, "a", ReportKind(kind), 24*time.Hour, 0)
		require.True(t, r.Avoided(now.Add(most-1), 1))
		require.False(t, r.Avoided(now.Add(most), 1))
	}
	var r Reports
	r.Report(now, "a", ReportThrottled, 0, 0)
	r.Report(now, "a", ReportThrottled, -time.Second, 0)
	require.False(t, r.Avoided(now, 1))
}

func TestSuccessContradictsWhatWasHeardBefore(t *testing.T) {
	var r Reports
	now := time.Now()
	require.Nil(t, r.Contradict(now, now))
	r.Report(now, "a", ReportThrottled, time.Minute, 0)
	r.Report(now, "b", ReportEjected, time.Minute, 3)
	r.Report(now, "c", ReportDrained, time.Minute, 0)
	require.Equal(t, 3, r.Streak(now))
	require.Equal(t, []string{"a"}, r.Confirm(now, ReportThrottled))
	require.Empty(t, r.Contradict(now, now.Add(-time.Second)), "it was sent before the report was heard")
	require.True(t, r.Avoided(now, 1))
	require.ElementsMatch(t, []string{"a", "b"}, r.Contradict(now.Add(time.Second), now.Add(time.Second)))
	require.Zero(t, r.Streak(now))
	require.Nil(t, r.Confirm(now, ReportThrottled))
	require.True(t, r.Avoided(now, 1), "a drained deployment may be healthy")
	r.End(ReportDrained)
	require.False(t, r.Avoided(now, 1))
	new(Reports).End(ReportDrained)
}

// A replica that repeats itself cannot keep answers that are under way from showing that
// it is wrong.
func TestRepeatedEjectionIsContradictedByWhatWasSentAfterTheFirst(t *testing.T) {
	var r Reports
	now := time.Now()
	for i := range 10 {
		r.Report(now.Add(time.Duration(i)*time.Second), "a", ReportEjected, time.Minute, 1)
		r.Report(now.Add(time.Duration(i)*time.Second), "b", ReportThrottled, time.Minute, 0)
	}
	now = now.Add(10 * time.Second)
	require.Equal(t, []string{"a", "b"}, r.Contradict(now, now.Add(-5*time.Second)))
	require.False(t, r.Known(ReportEjected, now))
	require.True(t, r.Says(now, "b", ReportThrottled), "a rate limit may be new, although the earlier report was wrong")
	require.False(t, r.Says(now, "a", ReportEjected))
	r.Report(now, "a", ReportEjected, time.Minute, 1)
	require.Empty(t, r.Contradict(now, now.Add(-time.Second)), "this one is new")
}

// A replica that repeats a report faster than the service answers is contradicted by each
// success that was sent after the one before. Its last report stays.
func TestRepeatedReportIsContradictedAndStays(t *testing.T) {
	var r Reports
	now := time.Now()
	for range 30 {
		r.Report(now, "a", ReportThrottled, time.Minute, 0)
		now = now.Add(100 * time.Millisecond)
	}
	require.Empty(t, r.Contradict(now, now.Add(-time.Minute)), "sent before the first report")
	require.Equal(t, []string{"a"}, r.Contradict(now, now.Add(-2*time.Second)))
	require.Empty(t, r.Contradict(now, now.Add(-time.Second)), "requests that were in flight together count once")
	require.True(t, r.Avoided(now, 0.5))
	now = now.Add(time.Second)
	require.Equal(t, []string{"a"}, r.Contradict(now, now.Add(-500*time.Millisecond)))
	require.False(t, r.Avoided(now, 0.5), "sent after the last report")
}

func TestKnownReport(t *testing.T) {
	var r Reports
	now := time.Now()
	require.False(t, r.Known(ReportThrottled, now))
	r.Report(now, "a", ReportThrottled, 10*time.Second, 0)
	require.True(t, r.Known(ReportThrottled, now.Add(10*time.Second-1)))
	require.False(t, r.Known(ReportThrottled, now.Add(10*time.Second)))
	require.False(t, r.Known(ReportEjected, now))
}

// The state is that of a model that keeps every report.
func TestReportProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Reports
		now := time.Now()
		until := map[string]time.Time{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "pass")) * time.Millisecond)
			from := fmt.Sprint(rapid.IntRange(1, maxReporters).Draw(t, "from"))
			left := time.Duration(rapid.IntRange(1, 59_000).Draw(t, "left")) * time.Millisecond
			r.Report(now, from, ReportThrottled, left, 0)
			until[from] = Latest(until[from], now.Add(left))
			said := 0
			for _, at := range until {
				if at.After(now) {
					said++
				}
			}
			require.Equal(t, said >= 1, r.Avoided(now, 1))
			require.Equal(t, said >= 2, r.Skipped(now, 1))
		}
	})
}

func TestReportsOfAHealthyDeploymentCostNothing(t *testing.T) {
	var r Reports
	now := time.Now()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if r.Avoided(now, 0.5) || r.Contradict(now, now) != nil {
			panic("there is no report")
		}
	}))
}
