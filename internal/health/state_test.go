package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is read without a lock equals what is read with it.
func TestStateIsReadWithoutALock(t *testing.T) {
	var h State
	base := time.Now()
	in := base.Add
	require.False(t, h.Troubled())
	require.True(t, h.Open(base))

	h.Refuse(base, Refusal{Wait: time.Second, ByChance: true, Reason: "429"}, 0)
	h.change(func() { h.ejection.fail(base, base, base, Unreachable, "no answer", 0.5) })
	for _, s := range []struct {
		at        time.Duration
		reason    string
		throttled bool
	}{
		{0, "no answer", true}, // the later of the two is the reason; one of them is the service's own
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
	require.True(t, h.Troubled(), "a probe is due")

	h.Refuse(base, Refusal{Wait: time.Minute, ByChance: true, Reason: "429"}, 0)
	until, reason, _ := h.Closed(base)
	require.Equal(t, in(time.Minute), until)
	require.Equal(t, "429", reason)

	h.change(func() { h.throttle, h.ejection = throttle{}, ejection{} })
	require.False(t, h.Troubled())

	// The time that timestamps count from is a time as well.
	h.change(func() { h.throttle.until = clockStart })
	require.True(t, h.Troubled())
}

// After any sequence of events, what is read without a lock equals what is read with it.
func TestStateProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h State
		now := clockStart.Add(drawSpan(t, "since start", time.Hour) - 30*time.Minute)
		var probe uint64
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 5*time.Second))
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0:
				h.change(func() { h.throttle.extend(now, drawSpan(t, "for", 9*time.Second), 0, "429") })
			case 1:
				h.change(func() { h.ejection.fail(now, now, now, NoAnswer, "no answer", 0.5) })
			case 2:
				h.change(func() { h.throttle.clear(now); h.ejection.succeed(now) })
			case 3:
				open := h.Open(now)
				ok, number := h.Admit(now, false)
				require.True(t, !open || ok, "what is open admits")
				if require.True(t, ok || number == 0); number != 0 {
					probe = number
				}
			case 4:
				h.Release(now, probe)
			}
			until, reason, throttled := h.Closed(now)
			require.Equal(t, until.IsZero(), h.Open(now))
			require.Equal(t, until.IsZero(), reason == "")
			require.True(t, !throttled || !until.IsZero())
			if !until.IsZero() {
				require.True(t, until.After(now))
				require.False(t, h.Open(until.Add(-1)))
				require.True(t, h.Open(until))
			}
		}
	})
}
