package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/wire"
)

// A background request leaves the slot of a ramp-up to an interactive one.
func TestBackgroundNeverTakesTheLastSlotOfARampUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p rampUp
		now := noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 3*time.Second))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				p.refused(now.Add(drawSpan(t, "hint", 5*time.Second)), drawSpan(t, "trip", 200*time.Millisecond), time.Second)
			case 1:
				p.admit(now)
			default:
				was := p
				if !p.admitSpare(now) {
					require.Equal(t, was, p)
					continue
				}
				require.True(t, was.admit(now), "only where an interactive one is admitted")
				one := p
				require.True(t, one.admit(now), "which still is")
				if p.active() {
					require.False(t, p.admitSpare(now), "and one at a time")
				}
			}
		}
	})
}

// After a cool-down the first slot is for interactive requests.
func TestInteractiveGoesFirstAfterACoolDown(t *testing.T) {
	var h State
	h.Refuse(noon, Refusal{Sent: noon.Add(-time.Millisecond), RoundTrip: time.Second, Wait: time.Second}, 0)
	end := noon.Add(time.Second)
	require.True(t, h.Open(end))
	require.False(t, h.HasSpareSlot(end))
	require.True(t, h.SpareSlotAt().After(end))
	ok, _ := h.Admit(end, true)
	require.False(t, ok)
	ok, _ = h.Admit(end, false)
	require.True(t, ok)

	later := h.SpareSlotAt()
	require.True(t, h.HasSpareSlot(later))
	ok, _ = h.Admit(later, true)
	require.True(t, ok)
	require.True(t, h.Open(later), "one is left")
}

// However the reports come, they admit no more background requests than they grant, and
// none from half of the utilization on.
func TestReportsBoundBackgroundRequests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Deployment
		now, granted := noon, 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", creditFor/100))
			if rapid.Bool().Draw(t, "report") {
				own := rapid.Bool().Draw(t, "background")
				u := rapid.Int64Range(0, 1200).Draw(t, "utilization")
				d.Update(now, now, 0, wire.Limits{HasUtilization: true, Utilization: u})
				d.CreditBackground(now, own)
				switch {
				case u >= backgroundBelow:
					granted = 0
				case own:
					granted = min(granted+creditMost, creditMost)
				default:
					granted = min(granted+1, creditMost)
				}
				continue
			}
			if d.UtilizationAt.IsZero() {
				continue
			}
			for !d.Reserves(now, Rates{}) {
				require.True(t, d.TakeBackground(now, false))
				granted--
			}
			require.GreaterOrEqual(t, granted, 0)
			require.False(t, d.TakeBackground(now, false))
		}
	})
}

// A reserved deployment takes one background request in each period.
func TestMinimumRateOfBackgroundRequests(t *testing.T) {
	var d Deployment
	taken := 0
	for now := noon; now.Before(noon.Add(10 * backgroundEvery)); now = now.Add(time.Second) {
		require.Equal(t, d.BackgroundDue(now), !d.BackgroundDueAt(now).After(now))
		due := d.BackgroundDue(now)
		require.Equal(t, due, d.TakeBackground(now, true))
		if due {
			taken++
		}
		require.Equal(t, now.Add(backgroundEvery-now.Sub(noon)%backgroundEvery), d.BackgroundDueAt(now))
	}
	require.Equal(t, 10, taken)
}

// A fifth of a configured limit is kept, although more requests are within the limit.
func TestShareOfAConfiguredLimitIsReserved(t *testing.T) {
	most := Rates{RPM: 10}
	for sent := range 10 {
		var d Deployment
		for range sent {
			_, ok := d.LocalLimits.Reserve(noon, most, 1, false)
			require.True(t, ok)
		}
		if sent != 8 { // exactly a fifth is left
			require.Equal(t, sent > 8, d.Reserves(noon, most), sent)
		}
		require.False(t, d.LocalLimits.Exhausted(noon, most, 1))
	}
}
