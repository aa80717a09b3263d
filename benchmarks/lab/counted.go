package lab

import (
	"net/http"
	"time"
)

// Counted is azure-switchboard: of two endpoints drawn at random the one with
// the lower share of its tokens or requests per minute, as this process has
// counted them since the minute began; without tiers. Sent counts the prompt's
// characters over four, the answer corrects it to its usage. A 429 and a failed
// connection cool down for 10 s, whatever was said. Two tries, and the second
// may go where the first went; when all cool down, all are candidates.
var Counted = Policy{
	Name: "counted", About: "two choices by counted TPM and RPM, 10 s (azure-switchboard)",
	New: func(s Setup) http.RoundTripper {
		n := len(s.Pool)
		return &counted{Setup: s, marks: newMarks(s), tokens: make([]int, n), requests: make([]int, n)}
	},
}

type counted struct {
	Setup
	*marks
	tokens, requests []int // of this minute
	ends             time.Time
}

func (p *counted) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	estimate := int(r.ContentLength) / 4
	for range 2 {
		drop(resp)
		i := p.choose(estimate)
		resp, err = p.Pool[i].send(p.Net, r)
		switch {
		case err != nil || resp.StatusCode == http.StatusTooManyRequests:
			p.mark(i, 10*time.Second)
		case resp.StatusCode == http.StatusOK:
			p.correct(i, outputOf(r))
			return resp, nil
		}
	}
	return resp, err
}

// outputOf is the completion tokens of the usage that the answer will tell. It
// would be known a few seconds later.
func outputOf(r *http.Request) int { return tripOf(r.Context()).output }

func (p *counted) choose(estimate int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); !now.Before(p.ends) {
		clear(p.tokens)
		clear(p.requests)
		p.ends = now.Add(time.Minute)
	}
	var healthy []int
	for _, i := range p.open() {
		if p.used(i) < 1 {
			healthy = append(healthy, i)
		}
	}
	if len(healthy) == 0 {
		for i := range p.Pool {
			healthy = append(healthy, i)
		}
	}
	p.rng.Shuffle(len(healthy), func(i, j int) { healthy[i], healthy[j] = healthy[j], healthy[i] })
	best := healthy[0]
	if len(healthy) > 1 && p.used(healthy[1]) < p.used(best) {
		best = healthy[1]
	}
	p.tokens[best] += estimate
	p.requests[best]++
	return best
}

// used is the share of an endpoint's limits. The caller holds mu.
func (p *counted) used(i int) float64 {
	share := float64(p.tokens[i]) / float64(p.Pool[i].TPM)
	if rpm := p.Pool[i].RPM; rpm > 0 {
		share = max(share, float64(p.requests[i])/float64(rpm))
	}
	return share + p.rng.Float64()/100
}

func (p *counted) correct(i, output int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens[i] += output
}
