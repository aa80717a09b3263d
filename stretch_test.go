package spillover_test

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

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// spaced is the gap of the ramp-up after so many refusals in a row, whose round trips
// are as long as counts.
func spaced(refusals int) time.Duration {
	if refusals == 0 {
		return 0
	}
	return time.Duration(float64(longestTrip) / 2 * math.Exp(0.2*float64(refusals-1)))
}

// What callers are told is when this transport asks again: what is added to the
// hint is in it. Nobody is refused for that alone, as long as the tier can afford
// it.
func TestWhatIsAddedToTheHintIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(100*time.Millisecond, status(429, "{}", "retry-after-ms: 1000")))
		tr := balance(t, n, azure("a"))
		tr.SetRandom(func() uint64 { return math.MaxUint64 }) // draws 1: all of the gap
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
		for spillover.RetryBudgetOf(tr, "m", 0).Spend(health.LastResortCost) {
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"), "the tier can afford no more")
		n.On(host("a"), status(200, "{}"))
		spillover.RetryBudgetOf(tr, "m", 0).Earn(health.LastResortCost)
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
		n.On(host("a"), slow(50*time.Millisecond, status(429, "{}", "retry-after-ms: 20")))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		inTurn(t, tr, 100, 0)
		d := spillover.DeploymentOf(t, tr, "a")
		until, _, _ := d.Closed(time.Now())
		require.Equal(t, time.Now().Add(20*time.Millisecond), until)
		require.InDelta(t, 25*time.Millisecond, testnet.FirstGap(t, &d.State), float64(time.Microsecond), "half of the round trip")
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
			tr := configured(t, spillover.Config{
				Base: base, MaxWait: time.Duration(draw(4)) * time.Second,
				Backends: []spillover.Backend{azure("a"), azure("b"), azure("c", priority(2))},
			})
			tr.SetRandom(func() uint64 { mu.Lock(); defer mu.Unlock(); return random.Uint64() })
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
