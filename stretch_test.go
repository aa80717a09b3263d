package spillover

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
)

// A saying is what a throttle is told at a moment, and what it is then.
type saying struct {
	at, sent float64       // seconds
	hint     time.Duration // of a refusal; 0 is a success
	u        float64
	chance   bool
	until    time.Duration // after noon; 0 when open
	taught   int           // refusals that taught something
}

// The trips here are so long that the first gap is half of the longest.
const firstGap = health.PaceLongestTrip / 2

// spaced is the gap after so many refusals in a row.
func spaced(refusals int) time.Duration {
	p := new(health.RampUp)
	for range refusals {
		p.Refused(noon, time.Minute, 0)
	}
	return p.Gap
}

func TestRefusalSteps(t *testing.T) {
	const second = time.Second
	for name, steps := range map[string][]saying{
		"the first refusal is believed to the letter": {
			{at: 1, sent: 0.5, hint: 20 * time.Millisecond, u: 0.9, until: 1020 * time.Millisecond, taught: 1},
		},
		"repeated ones teach": {
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
		"those under way together teach once": {
			{at: 1, sent: 0.5, hint: 5 * second, until: 6 * second, taught: 1},
			{at: 1.1, sent: 0.6, hint: second, until: 6 * second, taught: 1},
			{at: 1.2, sent: 1, hint: second, until: 6 * second, taught: 1},
		},
		"and are believed to the letter, too": {
			{at: 1, sent: 0.5, hint: second, u: 0.5, until: 2 * second, taught: 1},
			{at: 1.1, sent: 0.6, hint: second, u: 0.5, until: 2100 * time.Millisecond, taught: 1},
		},
		"a refusal that the load has not caused teaches nothing": {
			{at: 1, sent: 0.9, hint: second, u: 0.5, chance: true, until: 2 * second},
			{at: 3, sent: 2.9, hint: second, u: 0.5, chance: true, until: 4 * second},
		},
		"a shorter word shortens nothing, and teaches": {
			{at: 1, sent: 0.9, hint: 9 * second, until: 10 * second, taught: 1},
			{at: 2, sent: 1.5, hint: second, u: 0.5, until: 10 * second, taught: 2},
		},
		"a success lifts what it is newer than": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, taught: 1},
			{at: 3, sent: 2.5, taught: 1},
		},
		"an older one lifts nothing": {
			{at: 1, sent: 0.9, hint: 5 * second, until: 6 * second, taught: 1},
			{at: 2, sent: 0.5, until: 6 * second, taught: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h health.Throttle
			for i, s := range steps {
				if s.hint > 0 {
					h.Refuse(after(s.at), health.Refusal{Sent: after(s.sent), RoundTrip: time.Minute, Wait: s.hint, ByChance: s.chance, Reason: "429"}, s.u)
				} else {
					h.Clear(after(s.sent))
				}
				var until time.Duration
				if !h.Until.IsZero() {
					until = h.Until.Sub(noon)
				}
				require.InDelta(t, s.until, until, 1, "step %d", i)
				require.Equal(t, spaced(s.taught), h.RampUp.Gap, "step %d", i)
			}
		})
	}
}

// A success that was sent although only what was learnt spoke against it takes
// half of that back.
func TestThrottleRelents(t *testing.T) {
	var h health.Throttle
	h.Refuse(after(1), health.Refusal{Sent: after(0.5), RoundTrip: time.Minute, Wait: time.Second, Reason: "429"}, 0)
	h.Relax()
	require.Equal(t, firstGap/2, h.RampUp.Gap)
}

func TestRefusalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h health.Throttle
		now := noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 3*time.Second))
			sent := now.Add(-drawSpan(t, "took", 5*time.Second))
			was, gap := h, h.RampUp.Current()
			if rapid.IntRange(0, 2).Draw(t, "success") == 0 {
				h.Clear(sent)
				h.Admit(now)
				continue
			}
			hint := drawSpan(t, "hint", 20*time.Second)
			u := rapid.Float64Range(0, 1).Draw(t, "u")
			h.Refuse(now, health.Refusal{Sent: sent, RoundTrip: now.Sub(sent), Wait: hint, Reason: "429"}, u)
			require.False(t, h.Until.Before(was.Until), "never shortened")
			require.False(t, h.Until.Before(now.Add(hint)), "at least as long as asked")
			require.False(t, h.Until.After(health.Later(was.Until, now.Add(hint+gap))), "and no more than a gap longer")
			require.Equal(t, health.Later(was.ServiceUntil, now.Add(hint)), h.ServiceUntil)
		}
	})
}

// What callers are told is when this transport asks again: what is added to the
// hint is in it. Nobody is refused for that alone, as long as the tier can afford
// it.
func TestWhatIsAddedToTheHintIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), slow(100*time.Millisecond, status(429, "{}", "retry-after-ms: 1000")))
		tr := balance(t, n, azure("a"))
		tr.random = func() uint64 { return math.MaxUint64 } // draws 1: all of the gap
		for i := range 5 {
			want := time.Second + spaced(i)
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.InDelta(t, want.Milliseconds(), intOf(t, resp.Header.Get("Retry-After-Ms")), 1)
			require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			require.InDelta(t, want, time.Until(statusOf(t, tr, "a").Until), float64(time.Millisecond))
			time.Sleep(time.Second - time.Millisecond)
			resp, _ = ask(t, tr)
			require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"), "the service's own word stands")
			time.Sleep(time.Millisecond)
		}
		for tierOf(tr, 0).Spend(health.LastResortCost) {
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"), "the tier can afford no more")
		n.on(host("a"), status(200, "{}"))
		tierOf(tr, 0).Earn(health.LastResortCost)
		for range 5 {
			resp, _ = ask(t, tr)
			require.Equal(t, 200, resp.StatusCode, "what is served costs nothing")
		}
	})
}

func intOf(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

// A crowd that is refused together is one refusal: a PTU that is full for 20 ms
// is asked again after 20 ms.
func TestACrowdIsRefusedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), slow(50*time.Millisecond, status(429, "{}", "retry-after-ms: 20")))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		inTurn(t, tr, 100, 0)
		d := deploymentOf(t, tr, "a")
		require.Equal(t, 25*time.Millisecond, d.Throttle.RampUp.Gap, "half of the round trip")
		require.Equal(t, time.Now().Add(20*time.Millisecond), d.Throttle.Until)
	})
}

// Nothing is sent to a deployment between a refusal and the end of what it
// asked for, whatever else is under way.
func TestRefusedIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
			draw := func(n int) int { mu.Lock(); defer mu.Unlock(); return random.IntN(n) }
			refusals := rapid.IntRange(0, 100).Draw(rt, "percent refused")

			type span struct{ from, to time.Time }
			marks := map[string][]span{}
			early := 0
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				now, host := time.Now(), req.URL.Host
				mu.Lock()
				for _, m := range marks[host] {
					if now.After(m.from) && now.Before(m.to) { // at the very moment it may be on its way already
						early++
					}
				}
				mu.Unlock()
				time.Sleep(time.Duration(draw(300)) * time.Millisecond)
				if draw(100) >= refusals {
					return status(200, "{}")(req)
				}
				hint := 1 + draw(5000)
				mu.Lock()
				now = time.Now()
				marks[host] = append(marks[host], span{now, now.Add(time.Duration(hint) * time.Millisecond)})
				mu.Unlock()
				return status(429, "{}", "retry-after-ms: "+strconv.Itoa(hint))(req)
			})
			tr := configured(t, Config{
				Base: base, MaxWait: time.Duration(draw(4)) * time.Second,
				Backends: []Backend{azure("a"), azure("b"), azure("c", priority(2))},
			})
			tr.random = func() uint64 { mu.Lock(); defer mu.Unlock(); return random.Uint64() }
			var all sync.WaitGroup
			for range rapid.IntRange(1, 60).Draw(rt, "requests") {
				all.Go(func() {
					if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
						resp.Body.Close()
					}
				})
				time.Sleep(time.Duration(draw(400)) * time.Millisecond)
			}
			all.Wait()
			require.Zero(rt, early, "sent before the mark")
		})
	})
}
