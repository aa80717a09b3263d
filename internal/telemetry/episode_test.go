package telemetry

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A deployment at its limit cools down again and again. One record says so, and one
// that it is over, when it has served for a while without a cool-down.
func TestRepeatedCooldownsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := listened(t)
		d, e := deployment(), new(Episode)
		cool := func(wait time.Duration) {
			r.Transition(t.Context(), time.Now(), Transition{Deployment: d, Episode: e, Phase: Cooling, Since: time.Now(), Until: time.Now().Add(wait), Reason: "429", Response: ResponseInfo{Status: 429}})
		}
		serve := func(after time.Duration, first bool) {
			time.Sleep(after)
			if first {
				r.Transition(t.Context(), time.Now(), Transition{Deployment: d, Episode: e, Phase: Healthy, Since: time.Now(), Reason: "429", Response: ResponseInfo{Status: 200}})
			}
			r.Served(t.Context(), d, e, ResponseInfo{Status: 200})
		}
		const first = "backend:first,tier:1,model:m,deployment:deployed,"
		serve(0, false)
		for i := range 73 {
			cool(500 * time.Millisecond)
			if i == 0 {
				require.Equal(t, []string{"INFO,deployment cooling," + first + "until:500ms,wait_ms:500,reason:429,status:429"}, l.Log())
			}
			serve(800*time.Millisecond, true)
		}
		serve(29*time.Second, false)
		require.Empty(t, l.Log())
		serve(time.Second, false)
		serve(time.Second, false)
		require.Equal(t, []string{"INFO,deployment back," + first + "lasted_ms:88400,reason:429,cooldowns:73,cooling_ms:36500,status:200"}, l.Log())
		require.Equal(t, 73, l.Counts["spillover.cooldown.duration{backend=first deployment=deployed model=m state=cooling tier=1 type=429}"])

		cool(time.Second)
		serve(time.Minute, true)
		require.Equal(t, []string{
			"INFO,deployment cooling," + first + "until:1s,wait_ms:1000,reason:429,status:429",
			"INFO,deployment back," + first + "lasted_ms:0,reason:429,cooldowns:1,cooling_ms:1000,status:200",
		}, l.Log(), "the first response comes late")
	})
}

// An ejection that repeats warns once a minute for each reason, with how often it
// happened; so do the probes between.
func TestRepeatedEjectionsWarnOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := listened(t)
		d, e := deployment(), new(Episode)
		var seen []string
		for i := range 40 { // 2 minutes
			reason := []string{"500", "502"}[i/2%2]
			for _, tr := range []Transition{{Phase: Ejected, Reason: reason}, {Phase: Probing, Reason: reason}} {
				tr.Deployment, tr.Episode, tr.Until, tr.Response = d, e, time.Now().Add(3*time.Second), ResponseInfo{Status: 500}
				r.Transition(t.Context(), time.Now(), tr)
			}
			for _, record := range l.Log() {
				message, rest, _ := strings.Cut(record, ",backend")
				_, rest, _ = strings.Cut(rest, "reason:")
				seen = append(seen, fmt.Sprintf("%ds %s %s", i*3, message, rest))
			}
			time.Sleep(3 * time.Second)
		}
		require.Equal(t, []string{
			"0s WARN,deployment out 500,status:500", "0s INFO,deployment probing 500,status:500",
			"6s WARN,deployment out 502,status:500", "6s INFO,deployment probing 502,status:500",
			"60s WARN,deployment out 500,ejections:10,status:500", "60s INFO,deployment probing 500,status:500",
			"66s WARN,deployment out 502,ejections:10,status:500", "66s INFO,deployment probing 502,status:500",
		}, seen)
		require.Equal(t, 40, l.Counts["spillover.cooldown.duration{backend=first deployment=deployed model=m state=out tier=1 type=500}"])
	})
}

// After a new configuration a failure is news again.
func TestEjectionAfterANewConfigurationWarns(t *testing.T) {
	l, r := listened(t)
	d, e, now := deployment(), new(Episode), time.Now()
	for range 2 {
		r.Transition(t.Context(), now, Transition{Deployment: d, Episode: e, Phase: Ejected, Reason: "401", Response: ResponseInfo{Status: 401}})
		r.Transition(t.Context(), now, Transition{Deployment: d, Episode: e, Phase: Healthy, Reason: "401"})
		records := l.Log()
		require.Len(t, records, 2)
		require.Contains(t, records[0], "WARN,deployment out")
		require.Contains(t, records[1], "INFO,deployment back")
	}
}

// Whatever happens, a reader of the log at INFO is not left with a wrong last state: a
// deployment that has served for a while is "back", and one that stays out was said to be.
func TestLastRecordIsTheStateProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l, r := listened(t)
		d, e, now := deployment(), new(Episode), time.Now()
		transition := func(p Phase, reason string) {
			status := map[Phase]int{Cooling: 429, Ejected: 500, Probing: 500, Healthy: 200}[p]
			r.Transition(t.Context(), now, Transition{Deployment: d, Episode: e, Phase: p, Reason: reason, Since: now, Until: now.Add(5 * time.Second), Response: ResponseInfo{Status: status}})
		}
		last := ""
		var cooled time.Time // when the last cool-down that was logged ended
		warned := map[string]time.Time{}
		for range rapid.IntRange(1, 40).Draw(rt, "episodes") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(rt, "later")))
			if rapid.Bool().Draw(rt, "ejected") {
				reason := rapid.SampledFrom([]string{"500", "502"}).Draw(rt, "reason")
				transition(Ejected, reason)
				for _, record := range l.Log() {
					require.Contains(rt, record, "WARN,deployment out")
					require.True(rt, warned[reason].IsZero() || now.Sub(warned[reason]) >= warningPeriod)
					last, warned[reason] = "out", now
				}
				transition(Probing, reason)
				transition(Healthy, reason)
			} else {
				transition(Cooling, "429")
				now = now.Add(6 * time.Second)
				transition(Healthy, "429")
			}
			for _, record := range l.Log() {
				message, _, _ := strings.Cut(strings.TrimPrefix(record, "INFO,deployment "), ",")
				// A new series of cool-downs may begin before a response has shown that the last
				// one is over.
				again := message == "cooling" && now.Sub(cooled) >= calmPeriod
				require.True(rt, message != last || again, "%s twice", message)
				if last = message; message == "cooling" {
					cooled = now
				}
			}
		}
		// The end of the cool-downs becomes due in real time.
		if e.backDue.Load() {
			e.cooling.ends = time.Now().Add(-calmPeriod)
			r.Served(t.Context(), d, e, ResponseInfo{Status: 200})
			if records := l.Log(); len(records) > 0 {
				last = "back"
			}
		}
		require.Contains(rt, []string{"back", ""}, last)
	})
}
