package lab

import (
	"net/http"
	"time"
)

// Shuffle is LiteLLM's simple shuffle: of the deployments that do not cool down
// one at random in proportion to weight, without tiers. A 429 and any failure
// cool down for the Retry-After, else for 5 s. Three tries; when all cool down
// the caller is refused.
var Shuffle = Policy{
	Name: "shuffle", About: "weighted shuffle, cool-down by Retry-After (LiteLLM)",
	New: func(s Setup) http.RoundTripper { return &shuffle{s, newMarks(s), ptuWeight(s.Pool)} },
}

type shuffle struct {
	Setup
	*marks
	ptu int // its weight
}

func (p *shuffle) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	for range 3 {
		i, soonest := p.next()
		if i < 0 {
			drop(resp)
			return refuse(r, int(soonest.Seconds())+1), nil
		}
		drop(resp)
		resp, err = p.Pool[i].send(p.Net, r)
		if err == nil && resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		pause := 5 * time.Second
		if err == nil {
			pause = retryAfterSeconds(resp.Header, pause)
		}
		p.mark(i, pause)
	}
	return resp, err
}

// next is a deployment, or until when there is none.
func (p *shuffle) next() (int, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := p.open()
	sum := 0
	for _, i := range open {
		sum += p.weight(i)
	}
	if sum == 0 {
		return -1, p.soonest()
	}
	at := p.rng.IntN(sum)
	for _, i := range open {
		if at -= p.weight(i); at < 0 {
			return i, 0
		}
	}
	panic("lab: the weights have changed")
}

func (p *shuffle) weight(i int) int {
	if p.Pool[i].Tier == 1 {
		return p.ptu
	}
	return p.Pool[i].Weight
}
