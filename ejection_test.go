package spillover

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// after is a moment of a step table, given in seconds.
func after(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// A step is what happens to an ejection at a moment, and what it is then.
type step struct {
	at, sent float64 // seconds; sent 0 means at the same moment
	do       string  // fail, pardon, succeed, claim, release
	want     bool    // what fail and claim tell
	until    float64 // 0 means that it is not out
	streak   int
	trial    bool
}

func runSteps(t *testing.T, cause health.Cause, steps []step) {
	var e health.Ejection
	var probe uint64
	var counted [][2]health.Ejection // before and after each failure that no pardon took back
	for i, s := range steps {
		now, sent := after(s.at), after(s.at)
		if s.sent != 0 {
			sent = after(s.sent)
		}
		switch s.do {
		case "fail":
			was := e
			require.Equal(t, s.want, e.Fail(now, now, sent, cause, "why", 0.5), "step %d: counted", i)
			require.Equal(t, "why", e.Reason)
			counted = append(counted, [2]health.Ejection{was, e})
		case "claim":
			ok, number := e.Claim(now)
			require.Equal(t, s.want, ok, "step %d: granted", i)
			if number != 0 {
				probe = number
			}
		case "pardon":
			last := len(counted) - 1
			e.Pardon(counted[last][0], counted[last][1])
			counted = counted[:last]
		case "succeed":
			e.Succeed(sent)
		case "release":
			e.Release(now, probe)
		}
		var until time.Time
		if s.until != 0 {
			until = after(s.until)
		}
		require.Equal(t, until, e.Until, "step %d: until", i)
		require.Equal(t, s.streak, e.Streak, "step %d: streak", i)
		require.Equal(t, s.trial, e.Active, "step %d: trial", i)
	}
}

func TestEjectionSteps(t *testing.T) {
	for _, test := range []struct {
		name  string
		cause health.Cause
		steps []step
	}{
		{"a 5xx is forgiven, the next ones are out for 1, 2, 4, 8, 10, 10 s", health.ServerFailure, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "fail", want: true, streak: 2, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 3, until: 5, trial: true},
			{at: 5, do: "fail", want: true, streak: 4, until: 9, trial: true},
			{at: 9, do: "fail", want: true, streak: 5, until: 17, trial: true},
			{at: 17, do: "fail", want: true, streak: 6, until: 27, trial: true},
			{at: 27, do: "fail", want: true, streak: 7, until: 37, trial: true},
		}},
		{"no answer: one is ignored, then 2, 4, 8, 16, 30, 30 s", health.NoAnswer, []step{
			{at: 0.5, do: "fail", want: true, streak: 1},
			{at: 1, do: "fail", want: true, streak: 2, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 3, until: 7, trial: true},
			{at: 7, do: "fail", want: true, streak: 4, until: 15, trial: true},
			{at: 15, do: "fail", want: true, streak: 5, until: 31, trial: true},
			{at: 31, do: "fail", want: true, streak: 6, until: 61, trial: true},
			{at: 61, do: "fail", want: true, streak: 7, until: 91, trial: true},
		}},
		{"no connection: 2, 4, 8, 16, 30, 30 s", health.Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 2, until: 7, trial: true},
			{at: 7, do: "fail", want: true, streak: 3, until: 15, trial: true},
			{at: 15, do: "fail", want: true, streak: 4, until: 31, trial: true},
			{at: 31, do: "fail", want: true, streak: 5, until: 61, trial: true},
			{at: 61, do: "fail", want: true, streak: 6, until: 91, trial: true},
		}},
		{"a firewall's word: two are ignored", health.Blocked, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "fail", want: true, streak: 2},
			{at: 3, do: "fail", want: true, streak: 3, until: 8, trial: true},
		}},
		{"attempts that were under way together count once, before it is ejected, too", health.ServerFailure, []step{
			{at: 10, sent: 1, do: "fail", want: true, streak: 1},
			{at: 11, sent: 2, do: "fail", streak: 1},
			{at: 12, sent: 9.9, do: "fail", streak: 1},
			{at: 13, sent: 10.1, do: "fail", want: true, streak: 2, until: 14, trial: true},
		}},
		{"misconfigured: 5, 10, 20, 30 s", health.Misconfigured, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 6, trial: true},
			{at: 6, do: "fail", want: true, streak: 2, until: 16, trial: true},
			{at: 16, do: "fail", want: true, streak: 3, until: 36, trial: true},
			{at: 36, do: "fail", want: true, streak: 4, until: 66, trial: true},
		}},
		{"out of quota: five minutes each", health.OutOfQuota, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 301, trial: true},
			{at: 301, do: "fail", want: true, streak: 2, until: 601, trial: true},
		}},
		{"a success in between forgets", health.ServerFailure, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "succeed"},
			{at: 3, do: "fail", want: true, streak: 1},
		}},
		{"a success that was sent before the failure says nothing", health.Misconfigured, []step{
			{at: 10, do: "fail", want: true, streak: 1, until: 15, trial: true},
			{at: 11, sent: 9, do: "succeed", streak: 1, until: 15, trial: true},
			{at: 12, sent: 10, do: "succeed"},
		}},
		{"attempts that were under way together count once", health.Unreachable, []step{
			{at: 10, sent: 1, do: "fail", want: true, streak: 1, until: 12, trial: true},
			{at: 11, sent: 2, do: "fail", streak: 1, until: 12, trial: true},
			{at: 12, sent: 10, do: "fail", streak: 1, until: 12, trial: true},
			{at: 13, sent: 12, do: "fail", want: true, streak: 2, until: 17, trial: true},
		}},
		{"one probe at a time", health.Unreachable, []step{
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
		{"a probe that fails doubles", health.Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 3, do: "claim", want: true, streak: 1, until: 13, trial: true},
			{at: 4, do: "release", streak: 1, until: 4, trial: true},
			{at: 4, sent: 3, do: "fail", want: true, streak: 2, until: 8, trial: true},
		}},
		{"releasing late takes nothing back", health.Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 9, do: "release", streak: 1, until: 3, trial: true},
		}},
		{"pardon takes the last one back", health.ServerFailure, []step{
			{at: 1, do: "fail", want: true, streak: 1},
			{at: 2, do: "fail", want: true, streak: 2, until: 3, trial: true},
			{at: 2, do: "pardon", streak: 1},
			{at: 3, do: "fail", want: true, streak: 2, until: 4, trial: true},
			{at: 3, do: "pardon", streak: 1},
			{at: 3, do: "pardon"},
		}},
		{"pardon without any forgiven", health.Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 1, do: "pardon"},
		}},
		{"what was out already stays out, and its next time is not longer", health.Unreachable, []step{
			{at: 1, do: "fail", want: true, streak: 1, until: 3, trial: true},
			{at: 3, do: "fail", want: true, streak: 2, until: 7, trial: true},
			{at: 3, do: "pardon", streak: 1, until: 7, trial: true},
			{at: 7, do: "fail", want: true, streak: 2, until: 11, trial: true},
		}},
	} {
		t.Run(test.name, func(t *testing.T) { runSteps(t, test.cause, test.steps) })
	}
}

// A forgiven 5xx before a failure of another kind: taken back, that one leaves
// nothing behind.
func TestEjectionPardonOfAnotherCause(t *testing.T) {
	var e health.Ejection
	e.Fail(after(1), after(1), after(1), health.ServerFailure, "500", 0.5)
	was := e
	e.Fail(after(2), after(2), after(2), health.Unreachable, "refused", 0.5)
	require.True(t, e.Active)
	e.Pardon(was, e)
	require.Equal(t, was, e)
}

// Two requests that fail everywhere are both taken back, in whatever order.
func TestEjectionPardonsInAnyOrder(t *testing.T) {
	for _, first := range []int{0, 1} {
		var e health.Ejection
		var s [2][2]health.Ejection
		for i := range s {
			s[i][0] = e
			require.True(t, e.Fail(after(1+float64(i)), after(1+float64(i)), after(1+float64(i)), health.ServerFailure, "500", 0.5))
			s[i][1] = e
		}
		require.True(t, e.Active)
		for _, i := range []int{first, 1 - first} {
			e.Pardon(s[i][0], s[i][1])
			require.False(t, e.Active)
		}
		require.Zero(t, e.Streak)
	}

	// A success meanwhile has forgotten all there is to take back.
	var e health.Ejection
	e.Fail(after(1), after(1), after(1), health.NoAnswer, "", 0.5)
	then := e
	e.Succeed(after(2))
	e.Pardon(health.Ejection{}, then)
	require.Equal(t, health.Ejection{}, e)
}

// Many failures in a row neither overflow nor go beyond the most.
func TestEjectionOfALongTrouble(t *testing.T) {
	for cause := health.ServerFailure; cause <= health.OutOfQuota; cause++ {
		var e health.Ejection
		now := noon
		for range 200 {
			now = now.Add(time.Minute)
			require.True(t, e.Fail(now, now, now, cause, "", 0.5))
			require.LessOrEqual(t, e.Until.Sub(now), health.Ejections[cause].Most)
		}
		require.Equal(t, health.Ejections[cause].Most, e.Until.Sub(now))
	}
}

func TestThrottleSteps(t *testing.T) {
	var h health.Throttle
	for i, s := range []struct {
		at, mark, lift float64 // what is marked is for so long; what is lifted was sent then
		until, since   float64
	}{
		{at: 1, mark: 10, until: 11, since: 1},
		{at: 2, mark: 5, until: 11, since: 1},  // shorter: the first word stands
		{at: 3, mark: 8, until: 11, since: 1},  // and one that ends together with it
		{at: 4, mark: 20, until: 24, since: 4}, // longer
		{at: 5, lift: 3, until: 24, since: 4},  // a success, but older than the word
		{at: 5, lift: 4, until: 24, since: 4},  // of the same moment: not after it began
		{at: 6, lift: 4.001, until: 0, since: 0},
		{at: 7, mark: 0.02, until: 7.02, since: 7}, // milliseconds are kept
		{at: 9, mark: 1, until: 10, since: 9},      // the old one is over
	} {
		if s.mark > 0 {
			h.Extend(after(s.at), after(s.mark).Sub(noon), 0, "why")
		} else {
			h.Clear(after(s.lift))
		}
		if s.until == 0 {
			require.Equal(t, health.Throttle{}, h, "step %d", i)
			continue
		}
		require.Equal(t, health.Throttle{Until: after(s.until), ServiceUntil: after(s.until), Since: after(s.since), Reason: "why"}, h, "step %d", i)
	}
}

// What the gate tells without a lock is what the state under the lock tells.
func TestGate(t *testing.T) {
	var h health.State
	base := time.Now()
	in := base.Add
	require.False(t, h.Troubled())
	require.True(t, h.Open(base))

	h.Refuse(base, health.Refusal{Wait: time.Second, ByChance: true, Reason: "429"}, 0)
	h.Change(func() { h.Ejection.Fail(base, base, base, health.Unreachable, "no answer", 0.5) })
	for _, s := range []struct {
		at        time.Duration
		reason    string
		throttled bool
	}{
		{0, "no answer", true}, // the later of the two is the reason; one of them is the service's word
		{time.Second - 1, "no answer", true},
		{time.Second, "no answer", false},
		{2*time.Second - 1, "no answer", false},
		{2 * time.Second, "", false},
	} {
		until, reason, throttled := h.Closed(in(s.at))
		require.Equal(t, s.reason, reason, s.at)
		require.Equal(t, s.throttled, throttled, s.at)
		require.Equal(t, s.reason == "", until.IsZero(), s.at)
		require.Equal(t, s.reason == "", h.Open(in(s.at)), s.at)
	}
	require.True(t, h.Troubled(), "it is on trial")

	h.Refuse(base, health.Refusal{Wait: time.Minute, ByChance: true, Reason: "429"}, 0)
	until, reason, _ := h.Closed(base)
	require.Equal(t, in(time.Minute), until)
	require.Equal(t, "429", reason)

	h.Change(func() { h.Throttle, h.Ejection = health.Throttle{}, health.Ejection{} })
	require.False(t, h.Troubled())

	// The gate of the very moment that gates count from is one, too.
	h.Change(func() { h.Throttle.Until = health.Start })
	require.True(t, h.Troubled())
}
