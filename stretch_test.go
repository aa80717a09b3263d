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
)

// taught is a stretch after one more refusal, and calmed after one success, as
// the policy has them.
func taught(stretch time.Duration) time.Duration {
	return min(max(stretch*3/2, leastStretch), longestEvery)
}

func calmed(stretch time.Duration) time.Duration {
	if stretch -= stretch / 15; stretch < forgetStretch {
		return 0
	}
	return stretch
}

// A saying is what a throttle is told at a moment, and what it is then.
type saying struct {
	at, sent float64       // seconds
	hint     time.Duration // of a refusal; 0 is a success
	u        float64
	until    time.Duration // after noon; 0 when open
	stretch  time.Duration
}

func TestStretchSteps(t *testing.T) {
	const (
		second = time.Second
		least  = leastStretch
	)
	for name, steps := range map[string][]saying{
		"the first refusal is believed to the letter": {
			{at: 1, sent: 0.9, hint: 20 * time.Millisecond, u: 0.9, until: 1020 * time.Millisecond, stretch: least},
		},
		"repeated ones teach": {
			{at: 1, sent: 0.9, hint: second, u: 0.5, until: 2 * second, stretch: least},
			{at: 3, sent: 2.9, hint: second, u: 0.5, until: 4*second + least, stretch: taught(least)},
			{at: 6, sent: 5.9, hint: second, u: 0.5, until: 7*second + taught(least), stretch: taught(taught(least))},
		},
		"half less": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, stretch: least},
			{at: 3, sent: 2.9, hint: second, u: 0, until: 4*second + least/2, stretch: taught(least)},
		},
		"half more": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, stretch: least},
			{at: 3, sent: 2.9, hint: second, u: 1, until: 4*second + least*3/2, stretch: taught(least)},
		},
		"those under way together teach once": {
			{at: 1, sent: 0.5, hint: 5 * second, until: 6 * second, stretch: least},
			{at: 1.1, sent: 0.6, hint: second, until: 6 * second, stretch: least},
			{at: 1.2, sent: 1, hint: second, until: 6 * second, stretch: least},
		},
		"and are believed to the letter, too": {
			{at: 1, sent: 0.5, hint: second, u: 0.5, until: 2 * second, stretch: least},
			{at: 1.1, sent: 0.6, hint: second, u: 0.5, until: 2100 * time.Millisecond, stretch: least},
		},
		"a shorter word shortens nothing, and teaches": {
			{at: 1, sent: 0.9, hint: 9 * second, until: 10 * second, stretch: least},
			{at: 2, sent: 1.5, hint: second, u: 0.5, until: 10 * second, stretch: taught(least)},
		},
		"a success lifts what it is newer than": {
			{at: 1, sent: 0.9, hint: second, until: 2 * second, stretch: least},
			{at: 3, sent: 2.5, stretch: calmed(least)},
		},
		"an older one only calms": {
			{at: 1, sent: 0.9, hint: 5 * second, until: 6 * second, stretch: least},
			{at: 2, sent: 0.5, until: 6 * second, stretch: calmed(least)},
			{at: 3, sent: 0.5, until: 6 * second, stretch: calmed(calmed(least))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h throttle
			for i, s := range steps {
				if s.hint > 0 {
					h.refuse(after(s.at), refusal{sent: after(s.sent), hint: s.hint, reason: "429"}, s.u)
				} else {
					h.lift(after(s.sent))
				}
				var until time.Duration
				if !h.until.IsZero() {
					until = h.until.Sub(noon)
				}
				require.Equal(t, [2]time.Duration{s.until, s.stretch}, [2]time.Duration{until, h.stretch}, "step %d: until, stretch", i)
			}
		})
	}
}

func TestStretchBounds(t *testing.T) {
	var h throttle
	now := noon
	for range 100 {
		now = now.Add(2 * longestEvery)
		h.refuse(now, refusal{sent: now.Add(-time.Second), hint: time.Second, reason: "429"}, 1)
	}
	require.Equal(t, longestEvery, h.stretch)
	require.Equal(t, now.Add(time.Second+longestEvery*3/2), h.until)
	successes := 0
	for ; h.stretch > 0; successes++ {
		h.lift(now.Add(time.Second))
	}
	require.Less(t, successes, 300, "it comes to an end")
	h.refuse(now, refusal{sent: now, hint: time.Second, reason: "429"}, 1)
	require.Equal(t, now.Add(time.Second), h.until, "to the letter again after a calm")
}

func TestStretchProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h throttle
		now, want := noon, time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(drawSpan(t, "later", 3*time.Second))
			sent := now.Add(-drawSpan(t, "took", 5*time.Second))
			was := h
			if rapid.IntRange(0, 2).Draw(t, "success") == 0 {
				h.lift(sent)
				want = calmed(want)
			} else {
				hint := drawSpan(t, "hint", 20*time.Second)
				u := rapid.Float64Range(0, 1).Draw(t, "u")
				h.refuse(now, refusal{sent: sent, hint: hint, reason: "429"}, u)
				if sent.After(was.since) {
					want = taught(want)
				}
				require.False(t, h.until.Before(was.until), "never shortened")
				require.False(t, h.until.Before(now.Add(hint)), "at least as long as asked")
				require.False(t, h.until.After(later(was.until, now.Add(hint+max(was.stretch*3/2, 0)))), "and no more than the stretch longer")
			}
			require.Equal(t, want, h.stretch)
		}
	})
}

// What callers are told is when this transport asks again: the stretch is in it.
// Nobody is refused for the stretch alone, as long as the tier can afford that.
func TestStretchIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, "{}", "retry-after-ms: 1000"))
		tr := steady(balance(t, n, azure("a"))) // draws 0: half of the stretch
		stretch := time.Duration(0)
		for range 5 {
			want := time.Second + stretch/2
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, strconv.Itoa(int(math.Ceil(want.Seconds()*1000))), resp.Header.Get("Retry-After-Ms"))
			require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			require.Equal(t, want, time.Until(statusOf(t, tr, "a").Until))
			time.Sleep(time.Second - time.Millisecond)
			resp, _ = ask(t, tr)
			require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"), "the service's own word stands")
			time.Sleep(time.Millisecond)
			stretch = taught(stretch)
		}
		for tierOf(tr, 0).spend(lastResortCost) {
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"), "the tier can afford no more")
		n.on(host("a"), status(200, "{}"))
		tierOf(tr, 0).earn(lastResortCost)
		for range 5 {
			resp, _ = ask(t, tr)
			require.Equal(t, 200, resp.StatusCode, "what is served costs nothing")
		}
	})
}

// A crowd that is refused together is one refusal: a PTU that is full for 20 ms
// is asked again after 20 ms.
func TestStretchOfACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), slow(50*time.Millisecond, status(429, "{}", "retry-after-ms: 20")))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		inTurn(t, tr, 100, 0)
		d := deploymentOf(t, tr, "a")
		require.Equal(t, leastStretch, d.throttle.stretch)
		require.Equal(t, time.Now().Add(20*time.Millisecond), d.throttle.until)
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
