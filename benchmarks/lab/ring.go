package lab

import (
	"errors"
	"net/http"
	"time"
)

// Ring is aoai-blaster: a ring in which each endpoint stands as often as it
// weighs, shuffled once, without tiers; the next that is available. A 429 cools
// down for its Retry-After, else for 15 s, and the request is queued again, five
// times in all. While all cool down it blocks, here for a minute at most. A 401
// takes the endpoint out for ever and is the caller's; a timeout cools down for
// a second, doubled each time, and the fifth in a row takes it out for ever. A
// 5xx escapes.
var Ring = Policy{
	Name: "ring", About: "weighted ring with cool-down (aoai-blaster)",
	New: func(s Setup) http.RoundTripper {
		p := &ring{Setup: s, marks: newMarks(s), streak: make([]int, len(s.Pool)), dead: make([]bool, len(s.Pool))}
		for i, b := range s.Pool {
			weight := b.Weight
			if b.Tier == 1 {
				weight = ptuWeight(s.Pool)
			}
			for range weight {
				p.order = append(p.order, i)
			}
		}
		p.rng.Shuffle(len(p.order), func(i, j int) { p.order[i], p.order[j] = p.order[j], p.order[i] })
		return p
	},
}

// ptuWeight is the PTU's where all are in one tier: its share of what the pool
// sustains, in the unit of the others' weights.
func ptuWeight(pool []Backend) int {
	sum := 0
	for _, b := range pool {
		if b.Tier != 1 {
			sum += b.Weight
		}
	}
	return max(1, int(float64(sum)*ptuShare/(1-ptuShare)+0.5))
}

type ring struct {
	Setup
	*marks
	order  []int
	at     int
	streak []int
	dead   []bool
}

var errDead = errors.New("lab: all endpoints are disabled")

func (p *ring) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline := time.Now().Add(time.Minute)
	for tries := 1; ; {
		i, soonest := p.next()
		if i < 0 && soonest < 0 {
			return nil, errDead
		}
		if i < 0 {
			if time.Now().Add(soonest).After(deadline) {
				return refuse(r, int(soonest.Seconds())+1), nil
			}
			time.Sleep(soonest)
			continue
		}
		resp, err := p.Pool[i].send(p.Net, r)
		p.learn(i, resp, err)
		if err == nil && resp.StatusCode != http.StatusTooManyRequests || tries == 5 {
			return resp, err
		}
		drop(resp)
		tries++
	}
}

// next is an endpoint, or until when there is none; negative: for ever.
func (p *ring) next() (int, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	soonest := time.Duration(-1)
	for range p.order {
		i := p.order[p.at]
		p.at = (p.at + 1) % len(p.order)
		if p.dead[i] {
			continue
		}
		wait := p.until[i].Sub(now)
		if wait <= 0 {
			return i, 0
		}
		if soonest < 0 || wait < soonest {
			soonest = wait
		}
	}
	return -1, soonest
}

func (p *ring) learn(i int, resp *http.Response, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cool := func(d time.Duration) {
		if until := time.Now().Add(d); until.After(p.until[i]) {
			p.until[i] = until
		}
	}
	switch {
	case err != nil:
		p.streak[i]++
		cool(time.Second << (p.streak[i] - 1))
		p.dead[i] = p.dead[i] || p.streak[i] == 5
	case resp.StatusCode == http.StatusTooManyRequests:
		cool(retryAfterSeconds(resp.Header, 15*time.Second))
	case resp.StatusCode == http.StatusUnauthorized:
		p.dead[i] = true
	case resp.StatusCode == http.StatusOK:
		p.streak[i] = 0
	}
}
