package lab

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"slices"
)

// Fallback is the stateless fall-back of gateways: the PTU, then the others in a
// random order, each once, until one answers with neither 429, 401 nor 5xx. It
// remembers nothing.
var Fallback = Policy{
	Name: "fallback", About: "stateless fall-back, each deployment once",
	New: func(s Setup) http.RoundTripper { return fallback{s} },
}

type fallback struct{ Setup }

func (p fallback) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	order := slices.Clone(p.Pool)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	slices.SortStableFunc(order, func(a, b Backend) int { return cmp.Compare(a.Tier, b.Tier) })
	for _, b := range order {
		drop(resp)
		resp, err = b.send(p.Net, r)
		if err == nil && resp.StatusCode == http.StatusOK {
			return resp, nil
		}
	}
	return resp, err
}
