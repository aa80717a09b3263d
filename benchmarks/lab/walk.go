package lab

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Walk is what a careful user would write: go from one deployment to the next,
// tier by tier and at random within one, until one serves the request; after a
// 429 leave the deployment alone for exactly as long as it asks, else for a
// second; remember nothing else. When none is left the caller gets the last
// failure, or a 429 with the soonest time.
var Walk = Policy{
	Name: "walk", About: "one after the other, obeys the hint, remembers nothing else",
	New: func(s Setup) http.RoundTripper { return &walk{s, newMarks(s)} },
}

type walk struct {
	Setup
	*marks
}

func (p *walk) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	for _, i := range p.order() {
		if p.closed(i) {
			continue
		}
		drop(resp)
		resp, err = p.Pool[i].send(p.Net, r)
		switch {
		case err == nil && resp.StatusCode == http.StatusOK, r.Context().Err() != nil:
			return resp, err
		case err == nil && resp.StatusCode == http.StatusTooManyRequests:
			p.mark(i, cmp.Or(retryAfter(resp.Header), time.Second))
			drop(resp)
			resp = nil
		}
	}
	if resp != nil || err != nil {
		return resp, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	soonest := max(0, p.soonest())
	resp = refuse(r, int((soonest+time.Second-1)/time.Second))
	resp.Header.Set("Retry-After-Ms", strconv.Itoa(int(soonest.Milliseconds())))
	return resp, nil
}

func (p *walk) closed(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.until[i])
}

// order is all deployments, the best tier first.
func (p *walk) order() []int {
	order := rand.Perm(len(p.Pool))
	slices.SortStableFunc(order, func(a, b int) int { return p.Pool[a].Tier - p.Pool[b].Tier })
	return order
}
