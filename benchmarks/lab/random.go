package lab

import (
	"net/http"
	"time"
)

// Random is openai-priority-loadbalancer: of the backends of the best tier that
// are not marked any one, at random. A 429 or a 5xx marks for its Retry-After,
// else for 10 s, and the next is asked at once until all are marked. Every other
// answer is handed over, and a failed connection is the caller's error.
var Random = Policy{
	Name: "random", About: "random in the best tier, with marks (openai-priority-loadbalancer)",
	New: func(s Setup) http.RoundTripper { return &random{s, newMarks(s)} },
}

type random struct {
	Setup
	*marks
}

func (p *random) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		i, soonest := p.next()
		if i < 0 {
			return refuse(r, int(soonest.Seconds())+1), nil
		}
		resp, err := p.Pool[i].send(p.Net, r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
			return resp, nil
		}
		p.mark(i, retryAfterSeconds(resp.Header, 10*time.Second))
		drop(resp)
	}
}

// next is a backend, or until when there is none.
func (p *random) next() (int, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best []int
	for _, i := range p.open() {
		switch {
		case len(best) == 0 || p.Pool[i].Tier < p.Pool[best[0]].Tier:
			best = []int{i}
		case p.Pool[i].Tier == p.Pool[best[0]].Tier:
			best = append(best, i)
		}
	}
	if len(best) == 0 {
		return -1, p.soonest()
	}
	return best[p.rng.IntN(len(best))], 0
}
