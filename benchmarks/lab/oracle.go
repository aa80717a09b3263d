package lab

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Oracle knows every limit at every moment and takes no time: the PTU first,
// then the others from the one with the most free headroom. It does so by asking
// in a world where that is free, see Cell.forOracle. It is greedy, so that a
// policy can beat it by a little.
var Oracle = Policy{
	Name: "oracle", About: "central, omniscient, without delay",
	New:        func(s Setup) http.RoundTripper { return &oracle{s} },
	Omniscient: true,
}

type oracle struct{ Setup }

func (p *oracle) RoundTrip(r *http.Request) (*http.Response, error) {
	soonest := time.Hour
	ask := func(s *site) *http.Response {
		if s.down.Load() {
			return nil
		}
		resp, err := s.send(p.Net, r)
		switch {
		case err != nil:
			return nil
		case resp.StatusCode == http.StatusOK:
			return resp
		case resp.StatusCode == http.StatusTooManyRequests:
			soonest = min(soonest, retryAfter(resp.Header))
		}
		drop(resp)
		return nil
	}
	if resp := ask(p.sites[0]); resp != nil {
		return resp, nil
	}
	for _, s := range p.byHeadroom() {
		if resp := ask(s); resp != nil {
			return resp, nil
		}
	}
	resp := refuse(r, 0)
	resp.Header.Set("Retry-After-Ms", strconv.Itoa(int(soonest.Milliseconds())))
	return resp, nil
}

// byHeadroom is the others, from the least used on.
func (p *oracle) byHeadroom() []*site {
	used := make(map[*site]float64, len(p.sites))
	for _, s := range p.sites {
		used[s] = s.server.Stats().Utilization
	}
	return slices.SortedFunc(slices.Values(p.sites[1:]), func(a, b *site) int { return cmp.Compare(used[a], used[b]) })
}
