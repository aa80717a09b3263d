package spillover

import (
	"context"
	"math"
	"net/http"
)

type sessionKey struct{}

// WithSession puts the requests of a context into a session (session affinity):
// they go to one deployment while it is available and has at most a quarter
// more than its share of the requests in flight. This serves prompt caches. The
// choice needs no shared state: every process with the same configuration makes
// the same. An empty id means no session.
//
// Without it the id is that of [Config.Session], else the prompt_cache_key of
// the request's body.
func WithSession(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, sessionKey{}, id)
}

// session is the id of the request's session; "" when it is of none.
func (r *request) session(of func(*http.Request) string) string {
	if id, _ := r.Context().Value(sessionKey{}).(string); id != "" {
		return id
	}
	if of != nil {
		return of(r.Request)
	}
	return r.naming.PromptCacheKey
}

// A loyalty is a session as it is compared with deployments: its id and its
// model, hashed. 0 is none.
type affinity uint64

func newAffinity(session, model string) affinity {
	if session == "" {
		return 0
	}
	return affinity(max(1, stableHash(session+"\x00"+model)))
}

// pull is how much a session is drawn to a backend: by weighted rendezvous
// hashing the one with the most pull has it, and a backend that comes or goes
// moves no session but its own.
func (l affinity) score(b *backend) float64 {
	// splitmix64's finalizer: FNV alone leaves neighbours alike.
	x := uint64(l) ^ b.hash
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return -float64(b.weight) / math.Log(unit(x)+1.0/(1<<54))
}

// luck is what decides whether a PTU that is nearly full passes the session on:
// the same sessions each time, so that the others keep their caches.
func (l affinity) spillRoll() float64 { return unit(uint64(l) * 0x9e3779b97f4a7c15) }

// sessionBound is how much more than its share of the requests in flight a
// deployment may have for its sessions' sake: it keeps nearly all hits of
// prompt caches and bounds the load.
const sessionBound = 1.25

// chooseLoyal is the candidate that has most pull on the session, but for those
// that are too busy.
func (t *tier) chooseByAffinity(q *selection) *deployment {
	var busy, weight float64
	for _, d := range t.members {
		if q.candidate(d) {
			busy += float64(d.InFlight.Load())
			weight += float64(d.backend.weight)
		}
	}
	var best *deployment
	var most float64
	for _, d := range t.members {
		if !q.candidate(d) {
			continue
		}
		share := (busy + 1) * float64(d.backend.weight) / weight
		if float64(d.InFlight.Load()) >= math.Ceil(sessionBound*share) {
			continue
		}
		if pull := q.affinity.score(d.backend); best == nil || pull > most {
			best, most = d, pull
		}
	}
	return best
}
