package health

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// limited is LocalLimits with the limits that it is asked about.
type limited struct {
	LocalLimits
	Rates
}

func (l *limited) lacks(now time.Time, tokens int64) bool {
	return l.LocalLimits.Exhausted(now, l.Rates, tokens)
}

func (l *limited) reserve(now time.Time, tokens int64, anyway bool) (Reservation, bool) {
	return l.LocalLimits.Reserve(now, l.Rates, tokens, anyway)
}

// filled has counted requests of so many tokens at noon.
func filled(rpm, tpm int64, tokens ...int64) *limited {
	l := &limited{Rates: Rates{RPM: rpm, TPM: tpm}}
	for _, n := range tokens {
		l.reserve(noon, n, true)
	}
	return l
}

func TestLocalLimitsAreExhausted(t *testing.T) {
	for name, test := range map[string]struct {
		l      *limited
		tokens int64
		lacks  bool
	}{
		"twice the limit is used":           {filled(0, 1000, 2000), 1, true},
		"half of it":                        {filled(0, 1000, 500), 500, false},
		"too little is left":                {filled(0, 1000, 500), 501, true},
		"10 requests of 6":                  {filled(6, 0, make([]int64, 10)...), 1, true},
		"5 of 6":                            {filled(6, 0, make([]int64, 5)...), 1, false},
		"6 of 6":                            {filled(6, 0, make([]int64, 6)...), 1, true},
		"either is enough":                  {filled(2, 1000, 1, 1), 1, true},
		"no limit":                          {filled(0, 0, 1e12), 1e12, false},
		"no limit of requests":              {filled(0, 1e6, make([]int64, 1000)...), 1, false},
		"99.5 % are used":                   {filled(0, 1000, 995), 5, false},
		"199 of 200 requests":               {filled(200, 0, make([]int64, 199)...), 1, false},
		"more than the whole limit":         {filled(0, 1000), 5000, false},
		"more than that, and others":        {filled(0, 1000, 1), 5000, true},
		"more than that, and all was given": {filled(0, 1000, 0), 5000, false},
	} {
		require.Equal(t, test.lacks, test.l.lacks(noon, test.tokens), name)
		_, ok := test.l.reserve(noon, test.tokens, false)
		require.Equal(t, !test.lacks, ok, name)
	}
}

func TestWindowBeginsWithItsFirstRequest(t *testing.T) {
	l := filled(1, 1000)
	begun := noon.Add(7 * time.Second) // by the first request, not by the clock
	e, ok := l.reserve(begun, 1000, false)
	require.True(t, ok)
	end := begun.Add(limitWindow)
	require.True(t, l.lacks(end.Add(-1), 1))
	require.False(t, l.lacks(end, 1))

	l.Settle(e, 1500, true)
	require.EqualValues(t, 1500, l.tokens, "over, and nothing was sent since: no harm")
	require.False(t, l.lacks(end, 1))
	f, ok := l.reserve(end.Add(time.Hour), 300, false)
	require.True(t, ok)
	l.Settle(e, 0, false)
	require.Equal(t, []int64{1, 300}, []int64{l.requests, l.tokens}, "what comes late says nothing of the next window")
	l.Settle(f, 200, true)
	requests, tokens := l.Counted()
	require.Equal(t, []int64{1, 200}, []int64{requests, tokens})
}

func TestReservationsAreSettled(t *testing.T) {
	l := filled(10, 1000, 100)
	e, _ := l.reserve(noon, 300, false)
	l.Settle(e, 0, true)
	require.Equal(t, []int64{2, 100}, []int64{l.requests, l.tokens}, "a failure: the request was sent")
	e, _ = l.reserve(noon, 300, false)
	l.Settle(e, 0, false)
	require.Equal(t, []int64{2, 100}, []int64{l.requests, l.tokens}, "not sent at all")
	e, ok := l.reserve(noon, 950, false)
	require.False(t, ok)
	l.Settle(e, 950, true)
	require.Equal(t, []int64{2, 100}, []int64{l.requests, l.tokens}, "nothing was reserved")
	_, ok = l.reserve(noon, 950, true)
	require.True(t, ok, "all the same")
}

func TestConcurrentReservationsFillTheLimitExactly(t *testing.T) {
	l := filled(100, 0)
	var all sync.WaitGroup
	got := make([]bool, 1000)
	for i := range got {
		all.Go(func() { _, got[i] = l.reserve(noon, 1, false) })
	}
	all.Wait()
	admitted := 0
	for _, ok := range got {
		if ok {
			admitted++
		}
	}
	require.Equal(t, 100, admitted)
}

// In any order of events: a window counts what its requests reserved, and in the end
// what they used.
func TestLocalLimitsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type pending struct {
			Reservation
			window int
			tokens int64
		}
		l := &limited{Rates: Rates{RPM: int64(rapid.IntRange(0, 8).Draw(t, "rpm")), TPM: int64(rapid.IntRange(0, 1000).Draw(t, "tpm"))}}
		if l.RPM == 0 && l.TPM == 0 {
			l.RPM = 1
		}
		now, opened, window := noon, time.Time{}, 0
		var requests, tokens int64 // in the window
		var open []pending
		settle := func(i int) {
			p := open[i]
			open = append(open[:i], open[i+1:]...)
			cost, sent := rapid.Int64Range(0, 600).Draw(t, "cost"), rapid.Bool().Draw(t, "sent")
			if !sent {
				cost = 0
			}
			l.Settle(p.Reservation, cost, sent)
			if p.window == window {
				tokens += cost - p.tokens
				if !sent {
					requests--
				}
			}
		}
		check := func() {
			require.Equal(t, []int64{requests, tokens}, []int64{l.requests, l.tokens})
			require.GreaterOrEqual(t, min(l.requests, l.tokens), int64(0))
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 15*time.Second))
			if len(open) > 0 && rapid.Bool().Draw(t, "settle") {
				settle(rapid.IntRange(0, len(open)-1).Draw(t, "which"))
				check()
				continue
			}
			n, anyway := rapid.Int64Range(0, 500).Draw(t, "tokens"), rapid.IntRange(0, 4).Draw(t, "anyway") == 0
			if over := now.Sub(opened) >= limitWindow; over || anyway || !l.lacks(now, n) {
				if over {
					opened, requests, tokens = now, 0, 0
					window++
				}
				e, ok := l.reserve(now, n, anyway)
				require.True(t, ok)
				open = append(open, pending{e, window, n})
				requests, tokens = requests+1, tokens+n
				require.True(t, anyway || l.RPM == 0 || requests <= l.RPM, "never more than the limit unless it must be")
			} else {
				_, ok := l.reserve(now, n, false)
				require.False(t, ok)
			}
			check()
		}
		for len(open) > 0 {
			settle(0)
		}
		check()
	})
}

func TestHeadroomOfLocalLimits(t *testing.T) {
	for name, test := range map[string]struct {
		Rates
		tokens []int64
		after  time.Duration
		want   float64
	}{
		"nothing sent":      {Rates{RPM: 60, TPM: 10000}, nil, 0, 1},
		"half of tokens":    {Rates{RPM: 60, TPM: 10000}, []int64{5000}, 0, 0.5},
		"half of requests":  {Rates{RPM: 60, TPM: 10000}, make([]int64, 30), 0, 0.5},
		"the lesser counts": {Rates{RPM: 60, TPM: 10000}, append(make([]int64, 29), 6000), 0, 0.4},
		"requests alone":    {Rates{RPM: 10, TPM: 0}, []int64{1e6}, 0, 0.9},
		"more than all":     {Rates{RPM: 0, TPM: 1000}, []int64{3000}, 0, -2},
		"another minute":    {Rates{RPM: 60, TPM: 10000}, []int64{5000}, limitWindow, 1},
	} {
		l := filled(test.RPM, test.TPM, test.tokens...)
		require.InDelta(t, test.want, l.Headroom(noon.Add(test.after), test.Rates), 1e-9, name)
	}
}
