package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTransitionIsReportedOnce(t *testing.T) {
	var h State
	now := time.Now()
	at := now.Add
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
	h.throttle.extend(at(2*time.Second), 4*time.Second, 0, "429")
	_, changed = h.Transition(at(2 * time.Second))
	require.False(t, changed, "a longer cool-down is the same one")
	_, changed = h.Transition(at(7 * time.Second))
	require.False(t, changed, "nor is its end a change")
	refuse(8*time.Second, time.Second)
	report(8*time.Second, Transition{CoolingDown, at(time.Second), h.throttle.until, "429"})
	h.Succeed(at(20*time.Second), at(20*time.Second), false)
	report(20*time.Second, Transition{Healthy, at(time.Second), time.Time{}, "429"})

	fail(30 * time.Second)
	until := h.ejection.until
	report(30*time.Second, Transition{Ejected, at(30 * time.Second), until, "401"})
	ok, probe := h.Admit(until, false)
	require.True(t, ok)
	require.NotZero(t, probe)
	to, changed := h.Transition(until)
	require.True(t, changed)
	require.Equal(t, Probing, to.Phase)
	require.Equal(t, "401", to.Reason)
	require.False(t, h.Release(until, probe), "the ramp-up goes on")
	report(until.Sub(now), Transition{Ejected, at(30 * time.Second), until, "401"})
	h.Succeed(until.Add(time.Second), until, false)
	report(until.Add(time.Second).Sub(now), Transition{Healthy, at(30 * time.Second), time.Time{}, "401"})
}

func TestCoolDownThatEndsAfterAnEjectionIsReported(t *testing.T) {
	var h State
	failed(&h, 1, Unreachable)
	to, _ := h.Transition(after(1))
	require.Equal(t, Ejected, to.Phase)
	h.Refuse(after(2), Refusal{Wait: time.Minute, ByChance: true, Reason: "429"}, 0)
	to, changed := h.Transition(after(2))
	require.True(t, changed)
	require.Equal(t, Transition{CoolingDown, after(1), after(62), "429"}, to)
}

func TestCausesThatNeedAChangeAndThoseThatTheRequestMayHave(t *testing.T) {
	var change, uncertain []Cause
	for c := NoFailure; c <= OutOfQuota; c++ {
		if c.NeedsChange() {
			change = append(change, c)
		}
		if c.Uncertain() {
			uncertain = append(uncertain, c)
		}
	}
	require.Equal(t, []Cause{Misconfigured, OutOfQuota}, change)
	require.Equal(t, []Cause{ServerFailure, NoAnswer, Blocked}, uncertain)
}

// failed counts a failure that was sent and seen at a time.
func failed(h *State, at float64, cause Cause) (Undo, bool) {
	return h.Fail(after(at), FailedAttempt{Sent: after(at), Seen: after(at), Cause: cause, Reason: "why"}, 0.5)
}

func TestFailureOfAReplacedConfigurationIsNotCounted(t *testing.T) {
	outdated := true
	f := FailedAttempt{Sent: after(1), Seen: after(1), Cause: Misconfigured, Reason: "401", Outdated: func() bool { return outdated }}
	var h State
	_, counted := h.Fail(after(1), f, 0.5)
	require.False(t, counted)
	require.False(t, h.Troubled())
	outdated = false
	_, counted = h.Fail(after(1), f, 0.5)
	require.True(t, counted)
	h.Reconfigured()
	require.False(t, h.Troubled(), "a new configuration may have repaired it")

	f.Cause, outdated = Unreachable, true
	_, counted = h.Fail(after(2), f, 0.5)
	require.True(t, counted, "the configuration is not the cause")
	h.Reconfigured()
	require.True(t, h.Troubled())
	require.False(t, h.NeedsChange(after(2)))
}

func TestPardonedFailureReopensTheDeployment(t *testing.T) {
	var h State
	undo, counted := failed(&h, 1, Unreachable)
	require.True(t, counted)
	require.False(t, h.Open(after(2)))
	require.True(t, h.Pardon(after(2), undo))
	require.True(t, h.Open(after(2)))
	require.False(t, h.Pardon(after(2), undo), "it was open")
}

// A response that breaks off was no success: the failures before it count again.
func TestLateFailureContinuesTheFailuresBeforeIt(t *testing.T) {
	late := FailedAttempt{Sent: after(3), Seen: after(5), Cause: ServerFailure, Reason: "broke off"}
	for _, readToEnd := range []bool{false, true} {
		var h State
		failed(&h, 1, ServerFailure)
		failed(&h, 2, ServerFailure)
		before := h.Progress()
		h.Succeed(after(4), after(3), false)
		if readToEnd {
			h.ReadToEnd()
		}
		h.FailLate(after(5), late, before, 0.5)
		n, reason := h.Failures()
		require.Equal(t, "broke off", reason)
		require.Equal(t, map[bool]int{false: 3, true: 1}[readToEnd], n, "another response was read to its end: %v", readToEnd)
		require.Equal(t, readToEnd, h.Open(after(5)))
	}
	var none *State
	none.ReadToEnd()
	require.Equal(t, Progress{}, none.Progress())
}

func TestServedLastResortHalvesTheRampUp(t *testing.T) {
	for _, lastResort := range []bool{false, true} {
		var h State
		h.Refuse(after(1), Refusal{Sent: after(1), RoundTrip: time.Minute, Wait: time.Second, Reason: "429"}, 0)
		h.Refuse(after(3), Refusal{Sent: after(3), RoundTrip: time.Minute, Wait: time.Second, Reason: "429"}, 1)
		asked, only := h.OnlyLearned(after(3))
		require.Equal(t, after(4), asked)
		require.False(t, only, "the service itself asks for a wait")
		_, only = h.OnlyLearned(after(4))
		require.True(t, only)
		require.False(t, h.Open(after(4)), "a gap is added to what the service asks for")
		gap := h.throttle.rampUp.gap
		require.False(t, h.Succeed(after(4), after(4), lastResort), "the gap has not passed yet")
		if lastResort {
			gap /= 2
		}
		require.Equal(t, gap, h.throttle.rampUp.gap)
		require.True(t, h.Troubled(), "the ramp-up goes on")
	}
}

func TestConnectionThatIsMadeClearsTheEjection(t *testing.T) {
	var h State
	failed(&h, 1, Unreachable)
	h.Reached(after(0.5))
	require.True(t, h.Troubled(), "an older one")
	h.Reached(after(2))
	require.False(t, h.Troubled())
}

func TestEjectedReportsTheCauseInForce(t *testing.T) {
	var h State
	_, ejected, _ := h.Ejected(noon)
	require.False(t, ejected || h.NeedsChange(noon))
	failed(&h, 1, OutOfQuota)
	h.Refuse(after(1), Refusal{Wait: time.Second, ByChance: true, Reason: "429"}, 0)
	cause, ejected, throttled := h.Ejected(after(1))
	require.Equal(t, OutOfQuota, cause)
	require.True(t, ejected && throttled && h.NeedsChange(after(1)))
	_, ejected, throttled = h.Ejected(after(2))
	require.True(t, ejected && !throttled)
	_, _, service := h.Closed(after(2))
	require.True(t, service, "out of quota is what the service itself reports")
	until := after(301)
	_, ejected, _ = h.Ejected(until)
	require.False(t, ejected || h.NeedsChange(until))
}
