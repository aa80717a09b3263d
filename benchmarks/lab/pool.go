package lab

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

// A Backend is a deployment as a policy's configuration knows it.
type Backend struct {
	Name   string
	URL    string
	host   string
	Tier   int // 1: the PTU, 2: pay as you go
	Weight int // its size among those of the tier
	TPM    int
	RPM    int
}

// model is what all of them serve.
const model = "gpt"

// A site is a deployment as it is.
type site struct {
	Backend
	server *spillovertest.Server
	down   atomic.Bool // it serves nothing, which the oracle knows
	dark   atomic.Bool // nothing reaches it
	bad    bool        // it is one that the cell's fault is for

	usual []spillovertest.Fault // while the cell's fault does not last
}

// unit is a PAYG deployment of size 1, in tokens per minute, and sizes are in
// halves of it.
const unit = 300_000

var sizes = [...]int{1, 2, 4}

// shorter is by how much deployments are smaller for short requests, so that
// about as many come as of others.
const shorter = 10

// bucketDepth is the PTU's: the load of so much time at full capacity is 100 %.
const bucketDepth = 20 * time.Second

func (c Cell) bucket() time.Duration { return cmp.Or(c.Bucket, bucketDepth) }

// ptuShare is the PTU's of all that the pool sustains.
const ptuShare = 0.3

// The special row: requests all alike, and a PTU for half of them.
const (
	rushOffered  = 100 // requests a second
	rushPossible = 50
)

var rushed = job{prompt: 400, most: 100, output: 100}

// payg is the size of each deployment but the first, in tokens per minute.
func (c Cell) payg() []int {
	tpm := make([]int, c.B-1)
	for i := range tpm {
		tpm[i] = sizes[i%len(sizes)] * unit / 2
		if c.Short {
			tpm[i] /= shorter
		}
	}
	return tpm
}

// capacity is the requests a second that the pool sustains.
func (c Cell) capacity() float64 {
	each := c.shape().mean.payg
	rate := 0.0
	for _, tpm := range c.payg() {
		// Six requests for a thousand tokens: what binds first.
		rate += min(float64(tpm)/each, float64(tpm)*6/1000) / 60
	}
	return rate / (1 - ptuShare)
}

// limits are those of the PTU and of the others. A trace gets a pool that holds
// 1.2 times its load on average, a third of which is the PTU.
func (c Cell) limits(jobs []job) (ptu int, payg []int) {
	payg = c.payg()
	switch {
	case c.Rush:
		return int(rushPossible * 60 * rushed.cost().ptu), []int{100 * unit}
	case c.Trace != "":
		each, perMinute := mean(jobs), float64(len(jobs))/jobs[len(jobs)-1].at.Minutes()
		sum := 0
		for i := range payg {
			sum += sizes[i%len(sizes)]
		}
		for i := range payg {
			payg[i] = int(0.8 * each.payg * perMinute * float64(sizes[i%len(sizes)]) / float64(sum))
		}
		return int(0.4 * each.ptu * perMinute), payg
	}
	rate := ptuShare * c.capacity()
	if c.PTUSize > 0 {
		rate = c.PTUSize * c.Rho * c.capacity()
	}
	return int(rate * 60 * c.shape().mean.ptu), payg
}

// newPool makes the deployments, of which the first is the PTU.
func newPool(c Cell, jobs []job) []*site {
	rng := rand.New(rand.NewPCG(c.Seed, 3))
	ptu, payg := c.limits(jobs)
	full := spillovertest.PTU{TPM: ptu, Burst: c.bucket(), HideUtilization: !c.Utilization}
	pool := []*site{newSite(c, Backend{Name: "ptu", Tier: 1, Weight: 1, TPM: ptu}, full, rng)}
	for i, tpm := range payg {
		l := spillovertest.PAYG{
			TPM: tpm, RPM: max(6, tpm*6/1000), Window: c.Window,
			CountRefused: c.CountRefused, HideLimits: c.Silent, StaleLimits: c.Stale,
		}
		b := Backend{Name: "payg" + string(rune('a'+i%26)) + string(rune('a'+i/26)), Tier: 2, Weight: sizes[i%len(sizes)], TPM: tpm, RPM: l.RPM}
		pool = append(pool, newSite(c, b, l, rng))
	}
	for i, s := range pool {
		s.bad = c.Fault.Kind != "" && (c.Fault.All || i == 0 && c.Fault.PTU || i == 2 && !c.Fault.PTU)
	}
	return pool
}

// newSite makes a deployment that is a little faster or slower than others.
func newSite(c Cell, b Backend, l spillovertest.Limit, rng *rand.Rand) *site {
	factor := (0.8 + 0.5*rng.Float64()) * cmp.Or(c.Slower, 1)
	scaled := func(d time.Duration) time.Duration { return time.Duration(factor * float64(d)) }
	s := &site{Backend: b, server: spillovertest.New(spillovertest.Config{
		Name: b.Name, Seed: rng.Uint64(),
		Deployments: []spillovertest.Deployment{{
			Name: model, Limit: l, Batch: longest,
			Latency: spillovertest.Latency{
				FirstToken: scaled(250 * time.Millisecond), PerPromptToken: scaled(150 * time.Microsecond),
				PerToken: scaled(15 * time.Millisecond), Jitter: 0.2, Refusal: c.refusal(),
			},
		}},
	})}
	s.URL = s.server.URL
	u, err := url.Parse(s.URL)
	if err != nil {
		panic(err)
	}
	s.host = u.Host
	s.usual = c.Chance.faults(s)
	s.server.Set(s.usual...)
	return s
}

// refusalTime is what the service takes to refuse, or to fail.
const refusalTime = 5 * time.Millisecond

func (c Cell) refusal() time.Duration {
	if c.free {
		return 0
	}
	return cmp.Or(c.Refusal, refusalTime)
}

// sustains is the requests a second that a deployment sustains: of a PAYG six for
// a thousand tokens, if that is less.
func (b Backend) sustains(s shape) float64 {
	if b.Tier == 1 {
		return float64(b.TPM) / 60 / s.mean.ptu
	}
	return min(float64(b.TPM)/s.mean.payg, float64(b.RPM)) / 60
}

// faults refuse a share of a deployment's attempts, whatever its limit says.
func (c Chance) faults(s *site) []spillovertest.Fault {
	if c.Share == 0 || c.PTU && s.Tier != 1 {
		return nil
	}
	seconds := int((c.Hint + time.Second - 1) / time.Second)
	return []spillovertest.Fault{{
		Match:  func(*http.Request) bool { return rand.Float64() < c.Share },
		Status: http.StatusTooManyRequests, Delay: cmp.Or(c.After, refusalTime), Limits: true,
		Header: http.Header{"Retry-After-Ms": {strconv.Itoa(int(c.Hint.Milliseconds()))}, "Retry-After": {strconv.Itoa(seconds)}},
		Body:   c.body(s.Tier, seconds),
	}}
}

// body is the service's words: for a region that is short, or a full PTU or PAYG.
func (c Chance) body(tier, seconds int) string {
	switch {
	case c.NoCapacity:
		return fmt.Sprintf(`{"error":{"message":"The system is currently experiencing high demand and cannot process your request. Your request exceeds the maximum usage size allowed during peak load. Please retry after %d seconds.","type":"too_many_requests","param":null,"code":"no_capacity"}}`, seconds)
	case tier == 1:
		return `{"error":{"message":"Requests have exceeded the throughput limit on your Provisioned-Managed deployment. If you continue to exceed your limit, consider increasing the number of provisioned throughput units deployed.","type":"too_many_requests","param":null,"code":"rate_limit_reached"}}`
	}
	return fmt.Sprintf(`{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after %d seconds."}}`, seconds)
}
