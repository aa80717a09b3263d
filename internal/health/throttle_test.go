package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A throttleStep is what happens to a throttle at a time, and its state afterwards.
type throttleStep struct {
	at, sent float64       // seconds
	hint     time.Duration // of a refusal; 0 is a success
	u        float64
	chance   bool
	until    time.Duration // after noon; 0 when open
	taught   int           // refusals that taught something
}

func TestRefusalSteps(t *testing.T) {
	const second = time.Second
	for name, steps := range map[string][]throttleStep{
		"the first Retry-After is honoured exactly": {
			{at: 1, sent: 0.5, hint: 20 * time.Millisecond, u: 0.9, until: 1020 * time.Millisecond, taught: 1},
		},
		"repeated refusals lengthen the gap": {
			{at: 1, sent: 0.9, hint: second, u: 0.5, until: 2 * second, taught: 1},
			{at: 3, sent: 2.9, hint: second, u: 0.5, until: 4*second + spaced(1)/2, taught: 2},
			{at: 6, sent: 5.9, hint: second, u: 0.5, until: 7*second + spaced(2)/2, taught: 3},
		},
		"nothing more": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, taught: 1},
			{at: 3, sent: 2.9, hint: second, u: 0, until: 4 * second, taught: 2},
		},
		"all of the gap more": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, taught: 1},
			{at: 3, sent: 2.9, hint: second, u: 1, until: 4*second + spaced(1), taught: 2},
		},
		"those in flight together lengthen the gap once": {
			{at: 1, sent: 0.5, hint: 5 * second, until: 6 * second, taught: 1},
			{at: 1.1, sent: 0.6, hint: second, until: 6 * second, taught: 1},
			{at: 1.2, sent: 1, hint: second, until: 6 * second, taught: 1},
		},
		"and each Retry-After is honoured exactly": {
			{at: 1, sent: 0.5, hint: second, u: 0.5, until: 2 * second, taught: 1},
			{at: 1.1, sent: 0.6, hint: second, u: 0.5, until: 2100 * time.Millisecond, taught: 1},
		},
		"a refusal that the load has not caused changes no gap": {
			{at: 1, sent: 0.9, hint: second, u: 0.5, chance: true, until: 2 * second},
			{at: 3, sent: 2.9, hint: second, u: 0.5, chance: true, until: 4 * second},
		},
		"a shorter wait shortens nothing, and lengthens the gap": {
			{at: 1, sent: 0.9, hint: 9 * second, until: 10 * second, taught: 1},
			{at: 2, sent: 1.5, hint: second, u: 0.5, until: 10 * second, taught: 2},
		},
		"a success ends the cool-down of an earlier refusal": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, taught: 1},
			{at: 3, sent: 2.5, taught: 1},
		},
		"an older success ends nothing": {
			{at: 1, sent: 0.9, hint: 5 * second, until: 6 * second, taught: 1},
			{at: 2, sent: 0.5, until: 6 * second, taught: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h throttle
			for i, s := range steps {
				if s.hint > 0 {
					h.refuse(after(s.at), Refusal{Sent: after(s.sent), RoundTrip: time.Minute, Wait: s.hint, ByChance: s.chance, Reason: "429"}, s.u)
				} else {
					h.clear(after(s.sent))
				}
				var until time.Duration
				if !h.until.IsZero() {
					until = h.until.Sub(noon)
				}
				require.InDelta(t, s.until, until, 1, "step %d", i)
				require.Equal(t, spaced(s.taught), h.rampUp.gap, "step %d", i)
			}
		})
	}
}

// An attempt that is served although only the ramp-up closed the deployment halves the
// gap.
func TestServedLastResortHalvesTheGap(t *testing.T) {
	var h throttle
	h.refuse(after(1), Refusal{Sent: after(0.5), RoundTrip: time.Minute, Wait: time.Second, Reason: "429"}, 0)
	h.relax()
	require.Equal(t, firstGap/2, h.rampUp.gap)
}

func TestRefusalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h throttle
		now := noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 3*time.Second))
			sent := now.Add(-drawSpan(t, "took", 5*time.Second))
			was, gap := h, h.rampUp.current()
			if rapid.IntRange(0, 2).Draw(t, "success") == 0 {
				h.clear(sent)
				h.admit(now, false)
				continue
			}
			hint := drawSpan(t, "hint", 20*time.Second)
			u := rapid.Float64Range(0, 1).Draw(t, "u")
			h.refuse(now, Refusal{Sent: sent, RoundTrip: now.Sub(sent), Wait: hint, Reason: "429"}, u)
			require.False(t, h.until.Before(was.until), "never shortened")
			require.False(t, h.until.Before(now.Add(hint)), "at least as long as asked")
			require.False(t, h.until.After(Latest(was.until, now.Add(hint+gap))), "and no more than a gap longer")
			require.Equal(t, Latest(was.serviceUntil, now.Add(hint)), h.serviceUntil)
		}
	})
}

func TestThrottleSteps(t *testing.T) {
	var h throttle
	for i, s := range []struct {
		at, mark, lift float64 // what is marked is for so long; what is lifted was sent then
		until, since   float64
	}{
		{at: 1, mark: 10, until: 11, since: 1},
		{at: 2, mark: 5, until: 11, since: 1},  // shorter: the first wait stands
		{at: 3, mark: 8, until: 11, since: 1},  // and one that ends together with it
		{at: 4, mark: 20, until: 24, since: 4}, // longer
		{at: 5, lift: 3, until: 24, since: 4},  // a success, but sent before the refusal
		{at: 5, lift: 4, until: 24, since: 4},  // of the same moment: not after it began
		{at: 6, lift: 4.001, until: 0, since: 0},
		{at: 7, mark: 0.02, until: 7.02, since: 7}, // milliseconds are kept
		{at: 9, mark: 1, until: 10, since: 9},      // the old one is over
	} {
		if s.mark > 0 {
			h.extend(after(s.at), after(s.mark).Sub(noon), 0, "why")
		} else {
			h.clear(after(s.lift))
		}
		if s.until == 0 {
			require.Equal(t, throttle{}, h, "step %d", i)
			continue
		}
		require.Equal(t, throttle{until: after(s.until), serviceUntil: after(s.until), since: after(s.since), reason: "why"}, h, "step %d", i)
	}
}

func TestThrottleProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h throttle
		now := noon
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 5*time.Second))
			was := h
			if rapid.Bool().Draw(t, "mark") {
				d := drawSpan(t, "for", 20*time.Second)
				h.extend(now, d, 0, "why")
				require.False(t, h.until.Before(was.until), "never shortened")
				require.False(t, h.until.Before(now.Add(d)), "at least as long as asked")
				require.Equal(t, Latest(was.until, now.Add(d)), h.until, "and no longer")
				continue
			}
			sent := now.Add(-drawSpan(t, "sent before", 20*time.Second))
			h.clear(sent)
			if sent.After(was.since) {
				require.Equal(t, throttle{}, h)
			} else {
				require.Equal(t, was, h, "only what was sent after it began lifts it")
			}
		}
	})
}

func TestThrottleIsNeverShortened(t *testing.T) {
	now := time.Now()
	var mark throttle
	mark.extend(now, 30*time.Second, 0, "first")
	was := mark
	for _, d := range []time.Duration{0, -time.Hour, 5 * time.Second} {
		mark.extend(now.Add(time.Second), d, 0, "later")
		require.Equal(t, was, mark)
	}
}
