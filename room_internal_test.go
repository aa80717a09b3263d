package spillover

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

func utilization(thousandths int) string {
	return fmt.Sprintf("Azure-Openai-Deployment-Utilization: %d.%d%%", thousandths/10, thousandths%10)
}

func headerOf(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

// gauged is a deployment of which headers were read at noon, one after the other.
func gauged(headers ...http.Header) *deployment {
	d := &deployment{record: new(record), backend: &backend{sharedState: new(sharedState), weight: 1}}
	d.drawWeight.Store(1)
	for _, h := range headers {
		d.ReportedLimits.Update(noon, noon, d.CountSent(0), wire.ReadLimits(h))
	}
	return d
}

// Which of two has more room, both as idle and as large as the other.
func TestRoomIsCompared(t *testing.T) {
	const limit, same = 10000, health.SameHeadroom * 10000
	left := func(tokens int) *deployment { return gauged(headerOf(testnet.LimitHeaders(limit, tokens)...)) }
	spent := left(5000)
	spent.CountSent(2000)
	small := gauged(headerOf(testnet.LimitHeaders(100, 90)...))
	for name, test := range map[string]struct {
		a, b   *deployment
		after  time.Duration
		better bool // a, and never b
	}{
		"more":                          {left(5000), left(1000), 0, true},
		"more than nothing":             {left(1000), left(-5000), 0, true},
		"hardly more":                   {left(5000 + same - 1), left(5000), 0, false},
		"just more":                     {left(5000 + same + 1), left(5000), 0, true},
		"what was sent since is gone":   {left(4000), spent, 0, true},
		"in proportion to the limit":    {small, left(5000), 0, true},
		"still trusted":                 {left(9000), left(1000), headroomAge, true},
		"too old":                       {left(9000), left(1000), 10 * headroomAge, false},
		"what was sent since, too":      {left(4000), spent, 10 * headroomAge, false},
		"one that tells nothing":        {left(9000), gauged(), 0, false},
		"one that tells nothing, again": {left(100), gauged(), 0, false},
		"neither tells anything":        {gauged(), gauged(), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.better, better(noon.Add(test.after), test.a, test.b))
			require.False(t, better(noon.Add(test.after), test.b, test.a))
		})
	}
}

// What is known to be wrong with a deployment comes before how much room it has.
func TestDeploymentThatHasJustFailedOrSpilledIsAvoided(t *testing.T) {
	roomy, full := gauged(headerOf(testnet.LimitHeaders(10000, 9000)...)), gauged(headerOf(testnet.LimitHeaders(10000, 1000)...))
	require.True(t, better(noon, roomy, full))
	roomy.SpilledUntil.Set(noon.Add(time.Second))
	require.False(t, better(noon, roomy, full))
	require.True(t, better(noon, full, roomy))
	full.PendingFailures.Add(1)
	require.False(t, better(noon, full, roomy))
	require.True(t, better(noon, roomy, full), "a failure comes first")
}

// A limit that changes makes the tier work out its sizes anew, and only that.
func TestMeasureResizes(t *testing.T) {
	tier := sized(size{weight: 1})
	d := tier.members[0]
	for _, step := range []struct {
		limit   any
		changes bool
	}{{1000, true}, {1000, false}, {-1, false}, {0, false}, {"", false}, {500, true}, {500, false}, {1000, true}} {
		before := tier.weights.Load()
		d.measure(noon, noon, d.CountSent(0), headerOf(testnet.LimitHeaders(step.limit, 1)...))
		require.Equal(t, step.changes, before != tier.weights.Load(), step.limit)
	}
}

// One has 5000 tokens left and one 1000, and both have been seen once. (The
// requests that remain are not compared: in benchmarks/lab that changes nothing.)
func TestDeploymentWithMoreHeadroomIsPreferred(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		a, b     int // tokens that remain of 10000
		inFlight int64
		later    time.Duration
		want, by float64 // to a, of 400
	}{
		"more room":                         {a: 5000, b: 1000, want: 400},
		"more room although it is busier":   {a: 5000, b: 1000, inFlight: 9, want: 400},
		"less room":                         {a: 1000, b: 5000, want: 0},
		"equal: by requests in flight":      {a: 5000, b: 5000, inFlight: 1, want: 0},
		"about equal: by those, too":        {a: 5000 + health.SameHeadroom*10000 - 1, b: 5000, inFlight: 1, want: 0},
		"older than the trust":              {a: 5000, b: 1000, later: 10 * headroomAge, want: 200, by: 60},
		"older: by requests in flight then": {a: 5000, b: 1000, inFlight: 1, later: 10 * headroomAge, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				tr := seeded(balance(t, n, azure("a"), azure("b")))
				for name, remaining := range map[string]int{"a": test.a, "b": test.b} {
					d := DeploymentOf(t, tr, name)
					d.measure(time.Now(), time.Now(), d.CountSent(0), headerOf(testnet.LimitHeaders(10000, remaining)...))
					if test.later == 0 { // it goes on telling that
						n.On(host(name), status(200, "{}", testnet.LimitHeaders(10000, remaining)...))
					}
				}
				time.Sleep(test.later)
				DeploymentOf(t, tr, "a").InFlight.Store(test.inFlight)
				for range 400 {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
				}
				require.InDelta(t, test.want, n.Sends(host("a")), test.by)
			})
		})
	}
}

// One that is known to lack the room is not asked as long as another can take
// the request, of its tier or a lower one; and all the same when none can.
func TestRoomIsSeenBeforeAsking(t *testing.T) {
	for name, lower := range map[string]int{"of its tier": 1, "of a lower tier": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				spent := testnet.LimitHeaders(1000, 0)
				n.On(host("a"), status(200, "{}", spent...))
				tr := balance(t, n, azure("a"), azure("b", priority(lower)))
				DeploymentOf(t, tr, "a").measure(time.Now(), time.Now(), DeploymentOf(t, tr, "a").CountSent(0), headerOf(spent...))
				for range 100 {
					resp, _ := ask(t, tr)
					require.Equal(t, "b", servedBy(resp))
					require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
				}
				coolFor(DeploymentOf(t, tr, "b"), time.Hour)
				for range 10 {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode, "only the service's own word refuses a request")
					require.Equal(t, "a", servedBy(resp))
				}
				DeploymentOf(t, tr, "b").measure(time.Now(), time.Now(), DeploymentOf(t, tr, "b").CountSent(0), headerOf(spent...))
				endCooldown(DeploymentOf(t, tr, "b"))
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode, "where all lack it")

				time.Sleep(headroomFresh + 1)
				n.On(host("a"), status(200, "{}"))
				for range 1000 {
					if resp, _ = ask(t, tr); servedBy(resp) == "a" {
						return
					}
				}
				require.Fail(t, "home again when that is too long ago")
			})
		})
	}
}

// A large request goes where it fits, a small one stays.
func TestRoomIsSeenBySize(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	fits := testnet.ChatTokens(t)
	d := DeploymentOf(t, tr, "a")
	d.measure(time.Now(), time.Now(), d.CountSent(0), headerOf(testnet.LimitHeaders(1000000, fits)...))
	req := with(t, `POST /openai/deployments/m/chat/completions?api-version=1 {"model":"m","max_tokens":5000}`)
	resp, _ := send(t, tr, req)
	require.Equal(t, "b", servedBy(resp))
	d.measure(time.Now(), time.Now(), d.CountSent(0), headerOf(testnet.LimitHeaders(1000000, fits)...))
	resp, _ = ask(t, tr)
	require.Equal(t, "a", servedBy(resp))
}

// A PTU that is nearly full passes some on a little early, and has them back
// when it has room, or has not told for a while.
func TestEarlySpill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := seeded(balance(t, n, azure("ptu"), azure("b", priority(2))))
		d := DeploymentOf(t, tr, "ptu")
		share := func(thousandths int) int {
			n.Seen = nil
			n.On(host("ptu"), status(200, "{}", utilization(thousandths)))
			d.measure(time.Now(), time.Now(), d.CountSent(0), headerOf(utilization(thousandths)))
			for range 1000 {
				resp, _ := ask(t, tr)
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"), "none is refused for it")
			}
			return n.Sends(host("ptu"))
		}
		require.Equal(t, 1000, share(nearlyFull))
		require.InDelta(t, 500, share((nearlyFull+utilizationFull)/2), 100)
		d.RequestSent(time.Now()) // one request finds out whether it still is
		require.Zero(t, share(utilizationFull))
		require.Zero(t, share(2*utilizationFull))

		coolFor(DeploymentOf(t, tr, "b"), time.Second)
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "ptu", servedBy(resp), "nobody else: asked all the same")
		time.Sleep(time.Second)
		resp, _ = ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		d.RequestAbandoned(false, 0)
		time.Sleep(utilizationFresh)
		n.On(host("ptu"), status(200, "{}", utilization(100)))
		for range 100 {
			resp, _ = ask(t, tr)
			require.Equal(t, "ptu", servedBy(resp), "home again")
		}
	})
}

// Of sessions the same ones are passed on each time: the others keep their caches.
func TestEarlySpillOfSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		const half = (nearlyFull + utilizationFull) / 2
		n.On(host("ptu"), status(200, "{}", utilization(half)))
		tr := balance(t, n, azure("ptu"), azure("b", priority(2)))
		DeploymentOf(t, tr, "ptu").measure(time.Now(), time.Now(), DeploymentOf(t, tr, "ptu").CountSent(0), headerOf(utilization(half)))
		spilled := 0
		for i := range 200 {
			var by []string
			for range 5 {
				req := newChat(t, chatPath)
				resp, _ := send(t, tr, req.WithContext(WithSession(t.Context(), fmt.Sprint("session ", i))))
				by = append(by, servedBy(resp))
			}
			require.Len(t, slices.Compact(by), 1)
			if by[0] == "b" {
				spilled++
			}
		}
		require.InDelta(t, 100, spilled, 40)
	})
}

// A tier is never inverted: a lower one is asked only when all above it were
// tried, are closed, or are known to have no room while it has.
func TestTiersAreKeptProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now().Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free()
		full := map[*deployment]bool{}
		for i := range members {
			for _, m := range members[i] {
				at, stale := now, rapid.Bool().Draw(t, "stale")
				if stale {
					at = now.Add(-max(headroomFresh, utilizationFresh) - 1)
				}
				switch rapid.IntRange(0, 3).Draw(t, "reports") {
				case 0:
					m.ReportedLimits.Update(at, at, m.CountSent(0), wire.ReadLimits(headerOf(testnet.LimitHeaders(1000, rapid.IntRange(-50, 99).Draw(t, "remaining"))...)))
					full[m.deployment] = !stale
				case 1:
					m.ReportedLimits.Update(at, at, m.CountSent(0), wire.ReadLimits(headerOf(utilization(utilizationFull))))
					m.RequestSent(now) // finds out whether it still is
					full[m.deployment] = !stale
				case 2:
					m.ReportedLimits.Update(at, at, m.CountSent(0), wire.ReadLimits(headerOf(append(testnet.LimitHeaders(1000, 100), utilization(nearlyFull))...)))
				}
			}
		}
		open := func(withRoom, probes bool) []*deployment {
			for _, tier := range members {
				var found []*deployment
				for _, m := range tier {
					if !m.tried && !m.closed && !(withRoom && full[m.deployment]) && (probes || !m.deferred) {
						found = append(found, m.deployment)
					}
				}
				if found != nil {
					return found
				}
			}
			return nil
		}
		want := open(true, false)
		if want == nil {
			want = open(true, true)
		}
		if want == nil {
			want = open(false, true)
		}
		source := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for i := range 20 {
			q := &selection{now: now, tried: tried, tokens: 100, random: source.Uint64}
			if i%2 == 0 {
				q.affinity = affinity(source.Uint64() | 1)
			}
			_, d := r.choose(q)
			if want == nil {
				require.Nil(t, d)
				continue
			}
			require.Contains(t, want, d)
		}
	})
}
