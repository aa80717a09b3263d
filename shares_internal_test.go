package spillover

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/objects"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A size is what is known of how large a deployment is.
type size struct {
	weight     int
	tpm, limit int64 // configured, told
}

// sized is a tier of deployments of such sizes.
func sized(sizes ...size) *tier { return sizedRoute(sizes...).tiers[0] }

func sizedRoute(sizes ...size) *route {
	var all []*deployment
	for i, s := range sizes {
		d := &deployment{record: new(record), backend: &backend{sharedState: &sharedState{resource: new(objects.Resource)}, name: fmt.Sprint(i), priority: 1, weight: s.weight}, rates: health.Rates{TPM: s.tpm}}
		d.Limit.Store(s.limit)
		all = append(all, d)
	}
	return newRoute("m", all, nil)
}

// sharesOf is the sizes that a tier goes by.
func sharesOf(t *tier) (all []int64) {
	for _, d := range t.members {
		all = append(all, d.drawWeight.Load())
	}
	return all
}

func TestShares(t *testing.T) {
	for name, test := range map[string]struct {
		sizes          []size
		shares, bounds []int64 // no bounds: all are equal
	}{
		"one":                        {[]size{{weight: 7}}, []int64{7}, nil},
		"nothing is known":           {[]size{{weight: 1}, {weight: 1}}, []int64{1, 1}, nil},
		"weights":                    {[]size{{weight: 1}, {weight: 2}, {weight: 3}}, []int64{1, 2, 3}, []int64{1, 3, 6}},
		"equal weights":              {[]size{{weight: 5}, {weight: 5}}, []int64{5, 5}, nil},
		"a weight goes before all":   {[]size{{weight: 2, tpm: 10, limit: 10}, {weight: 1, tpm: 90, limit: 900}}, []int64{2, 1}, []int64{2, 3}},
		"configured limits":          {[]size{{1, 1000, 0}, {1, 3000, 0}}, []int64{1000, 3000}, []int64{1000, 4000}},
		"equal configured limits":    {[]size{{1, 1000, 0}, {1, 1000, 0}}, []int64{1000, 1000}, nil},
		"limits that were told":      {[]size{{1, 0, 500}, {1, 0, 2000}}, []int64{500, 2000}, []int64{500, 2500}},
		"configured goes before":     {[]size{{1, 1000, 4000}, {1, 0, 2000}}, []int64{1000, 2000}, []int64{1000, 3000}},
		"the unknown are the mean":   {[]size{{1, 1000, 0}, {weight: 1}, {1, 0, 3000}, {weight: 1}}, []int64{1000, 2000, 3000, 2000}, []int64{1000, 3000, 6000, 8000}},
		"one is known":               {[]size{{weight: 1}, {1, 0, 3000}}, []int64{3000, 3000}, nil},
		"the mean is one at least":   {[]size{{1, 0, 1}, {weight: 1}}, []int64{1, 1}, nil},
		"the largest of all weights": {[]size{{weight: maxWeight}, {weight: 1}}, []int64{maxWeight, 1}, []int64{maxWeight, maxWeight + 1}},
	} {
		t.Run(name, func(t *testing.T) {
			tier := sized(test.sizes...)
			require.Equal(t, test.shares, sharesOf(tier))
			require.Equal(t, test.bounds, tier.weights.Load().bounds)
		})
	}
}

// A new limit changes the sizes: under pressure Azure lowers limits for hours.
func TestSharesFollowTheLimits(t *testing.T) {
	tier := sized(size{weight: 1}, size{weight: 1})
	for _, step := range []struct {
		of, limit int
		want      []int64
	}{{0, 1000, []int64{1000, 1000}}, {1, 3000, []int64{1000, 3000}}, {0, 3000, []int64{3000, 3000}}, {1, -1, []int64{3000, 3000}}, {1, 500, []int64{3000, 500}}} {
		tier.members[step.of].measure(noon, noon, 0, headerOf(testnet.LimitHeaders(step.limit, 1)...))
		require.Equal(t, step.want, sharesOf(tier))
		require.Equal(t, step.want[0] == step.want[1], tier.weights.Load().bounds == nil)
	}
}

// Each member has exactly its part of the random numbers.
func TestSharesIndex(t *testing.T) {
	for _, sizes := range [][]size{
		{{weight: 1}}, {{weight: 1}, {weight: 1}, {weight: 1}}, {{weight: 3}, {weight: 1}, {weight: 2}}, {{1, 7, 0}, {1, 0, 1}, {weight: 1}},
	} {
		tier := sized(sizes...)
		s, total := tier.weights.Load(), uint64(0)
		for _, n := range sharesOf(tier) {
			total += uint64(n)
		}
		got := make([]int64, len(sizes))
		for i := range total {
			got[s.index(math.MaxUint64/total*i+math.MaxUint64/total/2, len(sizes))]++
		}
		require.Equal(t, sharesOf(tier), got)
		require.Equal(t, 0, s.index(0, len(sizes)))
		require.Equal(t, len(sizes)-1, s.index(math.MaxUint64, len(sizes)))
	}
}

func TestSharesProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var sizes []size
		weighted := rapid.Bool().Draw(t, "weighted")
		for range rapid.IntRange(1, 8).Draw(t, "members") {
			s := size{weight: 1}
			if weighted {
				s.weight = rapid.IntRange(1, 9).Draw(t, "weight")
			}
			s.tpm = rapid.SampledFrom([]int64{0, 0, 1000, 5000}).Draw(t, "tpm")
			s.limit = rapid.SampledFrom([]int64{0, 0, 30, 2000, 9000}).Draw(t, "limit")
			sizes = append(sizes, s)
		}
		tier := sized(sizes...)
		all := sharesOf(tier)
		var sum int64
		bounds := tier.weights.Load().bounds
		for i, n := range all {
			require.Positive(t, n)
			if sum += n; bounds != nil {
				require.Equal(t, sum, bounds[i])
			}
		}
		// Draws follow the sizes, be they of all or of those that are left.
		but := tier.members[rapid.IntRange(0, len(all)-1).Draw(t, "but")]
		if rapid.Bool().Draw(t, "all") || len(all) == 1 {
			but = nil
		} else {
			sum -= but.drawWeight.Load()
		}
		source := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		const draws = 2000
		got := map[*deployment]float64{}
		q := &selection{now: noon, random: source.Uint64}
		for range draws {
			got[tier.draw(q, tier.weights.Load(), but)]++
		}
		require.Zero(t, got[nil])
		for _, d := range tier.members {
			if d == but {
				require.Zero(t, got[d])
				continue
			}
			share := float64(d.drawWeight.Load()) / float64(sum)
			// Eight standard deviations: less than one false alarm in 10^12.
			require.InDelta(t, draws*share, got[d], 8*math.Sqrt(draws*share*(1-share))+1e-9)
		}
	})
}

// Limits take the place of weights: configured, or reported in answers.
func TestLoadFollowsTheLimits(t *testing.T) {
	t.Parallel()
	const requests = 1500
	configured := func(tpm int) func(*Backend) {
		return func(b *Backend) { b.Models = []Model{{Name: "m", TPM: tpm}} }
	}
	for name, test := range map[string]struct {
		backends []Backend
		told     [2]int64
		want     float64 // of a
	}{
		"configured":                     {[]Backend{azure("a", configured(80e6)), azure("b", configured(20e6))}, [2]int64{}, 0.8},
		"told":                           {[]Backend{azure("a"), azure("b")}, [2]int64{80e6, 20e6}, 0.8},
		"configured goes before told":    {[]Backend{azure("a", configured(80e6)), azure("b", configured(20e6))}, [2]int64{20e6, 80e6}, 0.8},
		"a weight goes before them":      {[]Backend{azure("a", weight(1), configured(80e6)), azure("b", weight(3), configured(20e6))}, [2]int64{}, 0.25},
		"one alone tells: the other too": {[]Backend{azure("a"), azure("b")}, [2]int64{80e6, 0}, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			tr := dealt(balance(t, n, test.backends...))
			for i, name := range []string{"a", "b"} {
				if limit := test.told[i]; limit > 0 {
					answer := testnet.LimitHeaders(limit, limit)
					n.On(host(name), status(200, "{}", answer...))
					DeploymentOf(t, tr, name).measure(time.Now(), time.Now(), DeploymentOf(t, tr, name).CountSent(0), headerOf(answer...))
				}
			}
			for range requests {
				ask(t, tr)
			}
			require.InDelta(t, test.want*requests, n.Sends(host("a")), 0.05*requests)
		})
	}
}

// A route that a request has to itself, as the one to a stored object, leaves
// the sizes as they are.
func TestSharesOfARouteOfOneRequest(t *testing.T) {
	for name, sizes := range map[string][]size{
		"the mean":   {{1, 1000, 0}, {weight: 1}, {1, 3000, 0}},
		"of weights": {{1, 0, 9000}, {weight: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			r := sizedRoute(sizes...)
			tier := r.tiers[0]
			want := sharesOf(tier)
			for _, d := range tier.members {
				only := r.atResource(d.backend.resource)
				require.Same(t, d, only.chosen(&selection{now: noon, random: rand.Uint64}))
				require.Equal(t, want, sharesOf(tier))
			}
			r.free()
			require.Equal(t, want, sharesOf(tier))
		})
	}
}

// However many answers tell of changed limits at once, the sizes are those of
// the last.
func TestSharesOfManyAtOnce(t *testing.T) {
	for range 300 {
		tier := sized(size{weight: 1}, size{weight: 1}, size{weight: 1}, size{weight: 1})
		var all sync.WaitGroup
		for i, d := range tier.members {
			all.Go(func() { d.measure(noon, noon, 0, headerOf(testnet.LimitHeaders(1000*(i+1), 1)...)) })
		}
		all.Wait()
		require.Equal(t, []int64{1000, 2000, 3000, 4000}, sharesOf(tier))
		require.Equal(t, []int64{1000, 3000, 6000, 10000}, tier.weights.Load().bounds)
	}
}
