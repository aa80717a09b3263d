package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTransitionIsReportedOnce(t *testing.T) {
	var h State
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	report := func(d time.Duration, want Transition) {
		t.Helper()
		got, changed := h.Transition(at(d))
		require.True(t, changed)
		require.Equal(t, want, got)
		_, changed = h.Transition(at(d))
		require.False(t, changed)
	}
	refuse := func(d, wait time.Duration) {
		h.Refuse(at(d), Refusal{Sent: at(d), Wait: wait, Reason: "429"}, 0.5)
	}
	fail := func(d time.Duration) {
		h.Fail(at(d), FailedAttempt{Sent: at(d), Seen: at(d), Cause: Misconfigured, Reason: "401"}, 0.5)
	}
	_, changed := h.Transition(now)
	require.False(t, changed, "it was healthy all the time")

	refuse(time.Second, 2*time.Second)
	report(time.Second, Transition{CoolingDown, at(time.Second), at(3 * time.Second), "429"})
	h.Throttle.Extend(at(2*time.Second), 4*time.Second, 0, "429")
	_, changed = h.Transition(at(2 * time.Second))
	require.False(t, changed, "a longer cool-down is the same one")
	_, changed = h.Transition(at(7 * time.Second))
	require.False(t, changed, "nor is its end a change")
	refuse(8*time.Second, time.Second)
	report(8*time.Second, Transition{CoolingDown, at(time.Second), h.Throttle.Until, "429"})
	h.Succeed(at(20*time.Second), at(20*time.Second), false)
	report(20*time.Second, Transition{Healthy, at(time.Second), time.Time{}, "429"})

	fail(30 * time.Second)
	until := h.Ejection.Until
	report(30*time.Second, Transition{Ejected, at(30 * time.Second), until, "401"})
	ok, probe := h.Admit(until)
	require.True(t, ok)
	require.NotZero(t, probe)
	to, changed := h.Transition(until)
	require.True(t, changed)
	require.Equal(t, Probing, to.Phase)
	require.Equal(t, "401", to.Reason)
	h.Succeed(until.Add(time.Second), until, false)
	report(until.Add(time.Second).Sub(now), Transition{Healthy, at(30 * time.Second), time.Time{}, "401"})
}
