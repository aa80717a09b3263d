package spillover

import (
	"fmt"
	"math"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// rewriter is the least that any balancer does: a clone with another host and key.
type rewriter struct{ base http.RoundTripper }

func (r rewriter) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "https", "eastus.openai.azure.com", ""
	out.Header.Set("Api-Key", "key")
	return r.base.RoundTrip(out)
}

const (
	classicURL = "https://api.example.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
	v1URL      = "https://api.example.com/v1/chat/completions"
)

// benchTransport has backends whose names for the model differ from the
// caller's, so that whatever can be rewritten is.
func benchTransport(tb testing.TB, backends int, d Dialect) *Transport {
	return benchWith(tb, Config{Base: testnet.Nop{}}, backends, d)
}

// benchFleet is a benchTransport with a Fleet, on which another replica has been heard.
func benchFleet(tb testing.TB, backends int) *Transport {
	f := new(LocalFleet)
	t := benchWith(tb, Config{Base: testnet.Nop{}, Fleet: f}, backends, Azure)
	tb.Cleanup(func() { t.Close() })
	for d := range t.table().find("gpt-4o").all {
		place := t.setup.Load().replica.placesOf(d)[placeDeployment]
		f.Publish([]byte(`{"v":1,"k":"throttled","p":"` + place + `","f":"0000beef","l":1}`))
		require.NotZero(tb, d.Reports.Until(time.Now().Add(-time.Second)))
		d.Reports.End(health.ReportThrottled)
	}
	return t
}

func benchWith(tb testing.TB, cfg Config, backends int, d Dialect) *Transport {
	for i := range backends {
		cfg.Backends = append(cfg.Backends, Backend{
			Name: fmt.Sprintf("b%d", i), URL: fmt.Sprintf("https://b%d.openai.azure.com", i), Dialect: d, APIKey: "key",
			Models: []Model{{Name: "gpt-4o", Deployment: "gpt-4o-east"}},
		})
	}
	t, err := New(cfg)
	require.NoError(tb, err)
	return t
}

func drive(b *testing.B, rt http.RoundTripper, request func() *http.Request) {
	b.ReportAllocs()
	for b.Loop() {
		resp, err := rt.RoundTrip(request())
		if err != nil || resp.StatusCode != 200 {
			b.Fatal(resp, err)
		}
		resp.Body.Close()
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	b.Run("base", func(b *testing.B) { drive(b, testnet.Nop{}, testnet.BenchRequest(classicURL, 1<<10)) })
	b.Run("clone", func(b *testing.B) { drive(b, rewriter{testnet.Nop{}}, testnet.BenchRequest(classicURL, 1<<10)) })
	for _, n := range []int{1, 3, 10, 100, 1000} {
		b.Run(fmt.Sprintf("classic/1KiB/%d", n), func(b *testing.B) {
			drive(b, benchTransport(b, n, Azure), testnet.BenchRequest(classicURL, 1<<10))
		})
	}
	b.Run("fleet/1KiB/10", func(b *testing.B) { drive(b, benchFleet(b, 10), testnet.BenchRequest(classicURL, 1<<10)) })
	for _, size := range []int{64, 256} {
		b.Run(fmt.Sprintf("classic/%dKiB/10", size), func(b *testing.B) {
			drive(b, benchTransport(b, 10, Azure), testnet.BenchRequest(classicURL, size<<10))
		})
	}
	for _, size := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("v1/%dKiB/10", size), func(b *testing.B) {
			drive(b, benchTransport(b, 10, AzureV1), testnet.BenchRequest(v1URL, size<<10))
		})
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{3, 10, 50, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t := benchTransport(b, n, Azure)
			r, now := t.table().find("gpt-4o"), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				r.choose(&selection{now: now, random: t.random})
			}
		})
		b.Run(fmt.Sprintf("fleet/%d", n), func(b *testing.B) {
			t := benchFleet(b, n)
			r, now := t.table().find("gpt-4o"), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				r.choose(&selection{now: now, random: t.random, heedsReports: true})
			}
		})
		b.Run(fmt.Sprintf("session/%d", n), func(b *testing.B) {
			t := benchTransport(b, n, Azure)
			r, now, session := t.table().find("gpt-4o"), time.Now(), affinity(0)
			b.ReportAllocs()
			for b.Loop() {
				session++
				r.choose(&selection{now: now, random: t.random, affinity: session})
			}
		})
		b.Run(fmt.Sprintf("deferred/%d", n), func(b *testing.B) {
			t := benchTransport(b, n, Azure)
			r, now := t.table().find("gpt-4o"), time.Now()
			deferProbes(r, now, n*9/10)
			now = now.Add(3 * time.Second)
			b.ReportAllocs()
			for b.Loop() {
				r.choose(&selection{now: now, random: t.random})
			}
		})
	}
}

// deferProbes makes some deployments of a route fail, so that their probes are due, and
// deferred, three seconds later.
func deferProbes(r *route, now time.Time, failed int) {
	for d := range r.all {
		if failed--; failed < 0 {
			return
		}
		d.backend.Fail(now, health.FailedAttempt{Sent: now, Seen: now, Cause: health.Unreachable}, 0.5)
	}
}

// A request counts for a bounded number of deferred probes, so many failed deployments do
// not make it expensive.
func TestDeferredProbesAreCountedInBounds(t *testing.T) {
	r, now := benchTransport(t, 200, Azure).table().find("gpt-4o"), time.Now()
	deferProbes(r, now, 199)
	now = now.Add(3 * time.Second)
	for due := 0; due < 199; due += maxPassedOver {
		for range 7 {
			q := &selection{now: now, random: func() uint64 { return 0 }}
			_, d := r.choose(q)
			require.NotNil(t, d)
			require.LessOrEqual(t, len(q.passedOver), maxPassedOver)
			q.passOver(d)
		}
		deferred := 0
		for d := range r.all {
			if d.backend.ProbeDeferred(now) {
				deferred++
			} else if d.backend.NeedsProbe() {
				d.backend.Succeed(now, now, false) // its probe
			}
		}
		require.Equal(t, max(199-due-maxPassedOver, 0), deferred, "all get their turn")
	}
}

// What a Transport adds in allocations is fixed, whatever else the machine does.
func TestAllocations(t *testing.T) {
	count := func(rt http.RoundTripper, request func() *http.Request) float64 {
		return testing.AllocsPerRun(200, func() {
			resp, err := rt.RoundTrip(request())
			require.NoError(t, err)
			resp.Body.Close()
		})
	}
	classic, v1 := testnet.BenchRequest(classicURL, 1<<10), testnet.BenchRequest(v1URL, 1<<10)
	require.LessOrEqual(t, count(benchFleet(t, 10), classic), count(benchTransport(t, 10, Azure), classic)+PoolsForget, "a Fleet costs nothing while all is healthy")
	bare := count(testnet.Nop{}, classic)
	require.LessOrEqual(t, count(benchTransport(t, 10, Azure), classic)-bare, 12.0+PoolsForget)
	// The same with another name of the model in the body.
	require.LessOrEqual(t, count(benchTransport(t, 10, AzureV1), v1)-bare, 12.0+PoolsForget)

	if PoolsForget == 0 { // the race detector takes memory of its own
		size := func(rt http.RoundTripper) (least uint64) {
			least = math.MaxUint64
			for range 10 { // other goroutines take memory now and then
				const runs = 100
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range runs {
					resp, err := rt.RoundTrip(classic())
					require.NoError(t, err)
					resp.Body.Close()
				}
				runtime.ReadMemStats(&after)
				least = min(least, (after.TotalAlloc-before.TotalAlloc)/runs)
			}
			return least
		}
		require.LessOrEqual(t, size(benchTransport(t, 10, Azure))-size(testnet.Nop{}), uint64(4600), "bytes")
	}

	r := benchTransport(t, 10, Azure).table().find("gpt-4o")
	now := time.Now()
	require.Zero(t, testing.AllocsPerRun(100, func() { r.choose(&selection{now: now, random: func() uint64 { return 1 << 63 }}) }), "choosing")
}
