package health

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A step is what happens to an ejection at a time, and its state afterwards.
type step struct {
	at, sent float64 // seconds; sent 0 means at the same moment
	do       string  // fail, pardon, succeed, claim, release
	want     bool    // what fail and claim tell
	until    float64 // 0 means that it is not out
	streak   int
	trial    bool
}

func runSteps(t *testing.T, cause Cause, steps []step) {
	var e ejection
	var probe uint64
	var counted [][2]ejection // before and after each failure that no pardon took back
	for i, s := range steps {
		now, sent := after(s.at), after(s.at)
		if s.sent != 0 {
			sent = after(s.sent)
		}
		switch s.do {
		case "fail":
			was := e
			require.Equal(t, s.want, e.fail(now, now, sent, cause, "why", 0.5), "step %d: counted", i)
			require.Equal(t, "why", e.reason)
			counted = append(counted, [2]ejection{was, e})
		case "claim":
			ok, number := e.claim(now)
			require.Equal(t, s.want, ok, "step %d: granted", i)
			if number != 0 {
				probe = number
			}
		case "pardon":
			last := len(counted) - 1
			e.pardon(counted[last][0], counted[last][1])
			counted = counted[:last]
		case "succeed":
			e.succeed(sent)
		case "release":
			e.release(now, probe)
		}
		var until time.Time
		if s.until != 0 {
			until = after(s.until)
		}
		require.Equal(t, until, e.until, "step %d: until", i)
		require.Equal(t, s.streak, e.streak, "step %d: streak", i)
		require.Equal(t, s.trial, e.active, "step %d: trial", i)
	}
}

func TestEjectionSteps(t *testing.T) {
	for _, test := range []struct {
		name  string
		cause Cause
		steps []step
	}{
		{"one 5xx is tolerated, the next ones eject for 1, 2, 4, 8, 10, 10 s", ServerFailure, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "fail", want: true, streak: 2, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 3, until: 5, trial: true},
			{at: 5, do: "fail", want: true, streak: 4, until: 9, trial: true},
			{at: 9, do: "fail", want: true, streak: 5, until: 17, trial: true},
			{at: 17, do: "fail", want: true, streak: 6, until: 27, trial: true},
			{at: 27, do: "fail", want: true, streak: 7, until: 37, trial: true},
		}},
		{"no answer: one is tolerated, then 2, 4, 8, 16, 30, 30 s", NoAnswer, []step{
			{at: 0.5, do: "fail", want: true, streak: 1},
			{at: 1, do: "fail", want: true, streak: 2, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 3, until: 7, trial: true},
			{at: 7, do: "fail", want: true, streak: 4, until: 15, trial: true},
			{at: 15, do: "fail", want: true, streak: 5, until: 31, trial: true},
			{at: 31, do: "fail", want: true, streak: 6, until: 61, trial: true},
			{at: 61, do: "fail", want: true, streak: 7, until: 91, trial: true},
		}},
		{"no connection: 2, 4, 8, 16, 30, 30 s", Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 2, until: 7, trial: true},
			{at: 7, do: "fail", want: true, streak: 3, until: 15, trial: true},
			{at: 15, do: "fail", want: true, streak: 4, until: 31, trial: true},
			{at: 31, do: "fail", want: true, streak: 5, until: 61, trial: true},
			{at: 61, do: "fail", want: true, streak: 6, until: 91, trial: true},
		}},
		{"a firewall: two are tolerated", Blocked, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "fail", want: true, streak: 2},
			{at: 3, do: "fail", want: true, streak: 3, until: 8, trial: true},
		}},
		{"attempts that were under way together count once, before it is ejected, too", ServerFailure, []step{
			{at: 10, sent: 1, do: "fail", want: true, streak: 1},
			{at: 11, sent: 2, do: "fail", streak: 1},
			{at: 12, sent: 9.9, do: "fail", streak: 1},
			{at: 13, sent: 10.1, do: "fail", want: true, streak: 2, until: 14, trial: true},
		}},
		{"misconfigured: 5, 10, 20, 30 s", Misconfigured, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 6, trial: true},
			{at: 6, do: "fail", want: true, streak: 2, until: 16, trial: true},
			{at: 16, do: "fail", want: true, streak: 3, until: 36, trial: true},
			{at: 36, do: "fail", want: true, streak: 4, until: 66, trial: true},
		}},
		{"out of quota: five minutes each", OutOfQuota, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 301, trial: true},
			{at: 301, do: "fail", want: true, streak: 2, until: 601, trial: true},
		}},
		{"a success in between forgets", ServerFailure, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "succeed"},
			{at: 3, do: "fail", want: true, streak: 1},
		}},
		{"a success that was sent before the failure says nothing", Misconfigured, []step{
			{at: 10, do: "fail", want: true, streak: 1, until: 15, trial: true},
			{at: 11, sent: 9, do: "succeed", streak: 1, until: 15, trial: true},
			{at: 12, sent: 10, do: "succeed"},
		}},
		{"attempts that were under way together count once", Unreachable, []step{
			{at: 10, sent: 1, do: "fail", want: true, streak: 1, until: 12, trial: true},
			{at: 11, sent: 2, do: "fail", streak: 1, until: 12, trial: true},
			{at: 12, sent: 10, do: "fail", streak: 1, until: 12, trial: true},
			{at: 13, sent: 12, do: "fail", want: true, streak: 2, until: 17, trial: true},
		}},
		{"one probe at a time", Unreachable, []step{
			{at: 1, do: "claim", want: true}, // nothing to probe
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 2.9, do: "claim", streak: 1, until: 3, trial: true},
			{at: 3, do: "claim", want: true, streak: 1, until: 13, trial: true},
			{at: 3, do: "claim", streak: 1, until: 13, trial: true},
			{at: 12.9, do: "claim", streak: 1, until: 13, trial: true},
			{at: 13, do: "claim", want: true, streak: 1, until: 23, trial: true}, // the first is lost
			{at: 14, do: "release", streak: 1, until: 14, trial: true},
			{at: 14, do: "claim", want: true, streak: 1, until: 24, trial: true},
			{at: 15, sent: 14, do: "succeed"},
			{at: 15, do: "claim", want: true},
			{at: 15, do: "release"},
		}},
		{"a probe that fails doubles", Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 3, do: "claim", want: true, streak: 1, until: 13, trial: true},
			{at: 4, do: "release", streak: 1, until: 4, trial: true},
			{at: 4, sent: 3, do: "fail", want: true, streak: 2, until: 8, trial: true},
		}},
		{"releasing late takes nothing back", Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 9, do: "release", streak: 1, until: 3, trial: true},
		}},
		{"pardon takes the last one back", ServerFailure, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "fail", want: true, streak: 2, until: 3, trial: true},
			{at: 2, do: "pardon", streak: 1},
			{at: 3, do: "fail", want: true, streak: 2, until: 4, trial: true},
			{at: 3, do: "pardon", streak: 1},
			{at: 3, do: "pardon"},
		}},
		{"pardon where none is tolerated", Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 1, do: "pardon"},
		}},
		{"what was ejected before stays ejected, and its next ejection is not longer", Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 2, until: 7, trial: true},
			{at: 3, do: "pardon", streak: 1, until: 7, trial: true},
			{at: 7, do: "fail", want: true, streak: 2, until: 11, trial: true},
		}},
	} {
		t.Run(test.name, func(t *testing.T) { runSteps(t, test.cause, test.steps) })
	}
}

// A tolerated 5xx before a failure of another cause: pardoned, the second failure
// leaves nothing behind.
func TestEjectionPardonOfAnotherCause(t *testing.T) {
	var e ejection
	e.fail(after(1), after(1), after(1), ServerFailure, "500", 0.5)
	was := e
	e.fail(after(2), after(2), after(2), Unreachable, "refused", 0.5)
	require.True(t, e.active)
	e.pardon(was, e)
	require.Equal(t, was, e)
}

// Two requests that fail at every deployment are both pardoned, in any order.
func TestEjectionPardonsInAnyOrder(t *testing.T) {
	for _, first := range []int{0, 1} {
		var e ejection
		var s [2][2]ejection
		for i := range s {
			s[i][0] = e
			require.True(t, e.fail(after(1+float64(i)), after(1+float64(i)), after(1+float64(i)), ServerFailure, "500", 0.5))
			s[i][1] = e
		}
		require.True(t, e.active)
		for _, i := range []int{first, 1 - first} {
			e.pardon(s[i][0], s[i][1])
			require.False(t, e.active)
		}
		require.Zero(t, e.streak)
	}

	// After a success there is nothing left to pardon.
	var e ejection
	e.fail(after(1), after(1), after(1), NoAnswer, "", 0.5)
	then := e
	e.succeed(after(2))
	e.pardon(ejection{}, then)
	require.Equal(t, ejection{}, e)
}

// Many failures in a row neither overflow nor exceed the longest ejection.
// After a long time without a request the next failure is the first in a row.
func TestFailuresThatAreFarApartAreNotInARow(t *testing.T) {
	var e ejection
	later := noon.Add(streakExpiry)
	require.True(t, e.fail(noon, noon, noon, ServerFailure, "", 0.5))
	require.True(t, e.fail(later, later, later, ServerFailure, "", 0.5))
	require.True(t, e.active, "the second within the time")

	e = ejection{}
	require.True(t, e.fail(noon, noon, noon, ServerFailure, "", 0.5))
	later = later.Add(1)
	require.True(t, e.fail(later, later, later, ServerFailure, "", 0.5))
	require.False(t, e.active)
	require.Equal(t, 1, e.streak)
}

func TestEjectionOfALongTrouble(t *testing.T) {
	for cause := ServerFailure; cause <= OutOfQuota; cause++ {
		var e ejection
		now := noon
		for range 200 {
			now = now.Add(time.Minute)
			require.True(t, e.fail(now, now, now, cause, "", 0.5))
			require.LessOrEqual(t, e.until.Sub(now), ejectionRules[cause].longest)
		}
		require.Equal(t, ejectionRules[cause].longest, e.until.Sub(now))
	}
}

func TestEjectionProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e ejection
		var claimed time.Time // until when nobody else may probe
		var probe uint64
		now := noon
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 8*time.Second))
			was := e
			switch rapid.SampledFrom([]string{"fail", "fail", "claim", "claim", "release", "succeed"}).Draw(t, "do") {
			case "fail":
				cause := Cause(rapid.IntRange(int(ServerFailure), int(OutOfQuota)).Draw(t, "cause"))
				sent := now.Add(-drawSpan(t, "took", 10*time.Second))
				u := rapid.Float64Range(0, 0.999).Draw(t, "u")
				if !e.fail(now, now, sent, cause, "why", u) {
					require.True(t, sent.Before(was.since) || was.active && sent.Equal(was.since))
					require.Equal(t, was, e)
					continue
				}
				require.Equal(t, was.streak+1, e.streak)
				rule := ejectionRules[cause]
				if n := e.streak - rule.tolerated; n > 0 {
					nominal := float64(rule.longest)
					if f := float64(rule.first) * math.Pow(2, float64(n-1)); f < nominal {
						nominal = f
					}
					out := float64(e.until.Sub(now))
					require.GreaterOrEqual(t, out, math.Floor(0.8*nominal))
					require.LessOrEqual(t, out, math.Ceil(1.2*nominal))
					require.True(t, e.active)
					ok, _ := e.claim(now)
					require.False(t, ok, "ejected")
				} else {
					require.Equal(t, was.until, e.until, "tolerated")
					require.Equal(t, was.active, e.active)
				}
				claimed = time.Time{}
				if rapid.Bool().Draw(t, "pardoned") {
					e.pardon(was, e)
					require.Equal(t, was.streak, e.streak)
					require.Equal(t, was.active, e.active)
					if !was.active {
						require.Equal(t, was, e, "the inverse of fail")
					}
				}
			case "claim":
				granted, number := e.claim(now)
				require.Equal(t, granted && was.active, number != 0)
				switch {
				case !was.active:
					require.True(t, granted, "nothing to probe")
					require.Equal(t, was, e)
				case granted:
					require.False(t, now.Before(was.until), "not before its time")
					require.False(t, now.Before(claimed), "one at a time")
					claimed, probe = e.until, number
					require.GreaterOrEqual(t, e.until.Sub(now), ejectionRules[Silent].first, "and lost ones expire")
					require.LessOrEqual(t, e.until.Sub(now), ejectionRules[Silent].longest)
					again, _ := e.claim(e.until.Add(-1))
					require.False(t, again)
				default:
					require.True(t, now.Before(was.until))
					require.Equal(t, was, e)
				}
			case "release":
				stale := rapid.Bool().Draw(t, "stale")
				if e.release(now, probe+map[bool]uint64{true: 1000}[stale]); stale || was.probe != probe || probe == 0 {
					require.Equal(t, was, e, "it has not got the place")
				} else if claimed = (time.Time{}); e.active && e.cause != Silent {
					require.False(t, now.Before(e.until), "the place is free")
				}
				require.Equal(t, was.streak, e.streak)
			case "succeed":
				sent := now.Add(-drawSpan(t, "took", 10*time.Second))
				e.succeed(sent)
				if sent.Before(was.since) {
					require.Equal(t, was, e)
				} else {
					require.Equal(t, ejection{probes: was.probes}, e)
					claimed = time.Time{}
				}
			}
		}
	})
}

func TestProbeIsDeferredUntilRequestsWentElsewhere(t *testing.T) {
	now := noon
	for cause := ServerFailure; cause <= OutOfQuota; cause++ {
		if cause == Silent {
			continue
		}
		var h State
		require.False(t, h.ProbeDeferred(now), "it is healthy")
		for i := range ejectionRules[cause].tolerated {
			at := now.Add(time.Duration(i))
			h.Fail(at, FailedAttempt{Sent: at, Seen: at, Cause: cause}, 0.5)
			require.False(t, h.ProbeDeferred(at), "the failure is tolerated")
		}
		failed := now.Add(time.Second)
		_, _ = h.Fail(failed, FailedAttempt{Sent: failed, Seen: failed, Cause: cause}, 0.5)
		for range probeSpacing {
			require.True(t, h.ProbeDeferred(failed.Add(maxProbeDelay-1)))
			require.False(t, h.ProbeDeferred(failed.Add(maxProbeDelay)), "with little traffic")
			require.WithinDuration(t, failed.Add(maxProbeDelay), h.ProbeFrom(), 0)
			h.PassOver()
		}
		require.False(t, h.ProbeDeferred(failed))

		again := failed.Add(time.Second)
		_, counted := h.Fail(again, FailedAttempt{Sent: again, Seen: again, Cause: cause}, 0.5)
		require.True(t, counted)
		require.True(t, h.ProbeDeferred(again), "the probe has failed")
		h.Succeed(again, again, false)
		require.False(t, h.ProbeDeferred(again), "the probe has succeeded")

		h = State{}
		undo, _ := h.Fail(failed, FailedAttempt{Sent: failed, Seen: failed, Cause: cause}, 0.5)
		h.PassOver()
		h.Pardon(failed, undo)
		require.Equal(t, ejection{}, h.ejection, "a pardon takes all of it back")
	}
}
