package spillover

import (
	"context"
	"math"
	"net/http"

	"github.com/spillover-go/spillover/internal/wire"
)

// WithSession puts the requests of a context into a session (session affinity):
// they go to one deployment while it is available and has at most a quarter
// more than its share of the requests in flight. This serves prompt caches. The
// choice needs no shared state: every process with the same configuration makes
// the same. An empty id means no session.
//
// Without it the id is that of [Config.Session], else the prompt_cache_key of
// the request's body, else the session in a header of a coding agent, such as
// session_id, else [Config.PromptAffinity] decides.
func WithSession(ctx context.Context, id string) context.Context {
	return withOptions(ctx, func(o *options) { o.session = id })
}

// agentHeaders are headers with the id of a conversation, in order of precedence, by
// their canonical names. Those who send them:
//
//   - session-id, and session_id in earlier versions: OpenAI Codex
//     (codex-rs/codex-api/src/requests/headers.rs in openai/codex)
//   - X-Claude-Code-Session-Id: Claude Code, where a gateway translates its requests
//     (https://code.claude.com/docs/en/llm-gateway-protocol)
//   - X-Session-Affinity and X-Session-Id: opencode
//     (packages/opencode/src/session/llm/request.ts in its repository), and clients of
//     OpenRouter
//   - X-Opencode-Session: clients of opencode's own service
//
// One that a proxy sets for each request only spreads requests as if there was no
// session. One that is always the same is bounded by sessionBound.
var agentHeaders = [...]string{
	"Session-Id", "Session_id", "X-Claude-Code-Session-Id", "X-Session-Affinity", "X-Session-Id", "X-Opencode-Session",
}

// agentSession is the session that a coding agent names in a header, or "".
func agentSession(h http.Header) string {
	for _, name := range &agentHeaders {
		if id := wire.Header(h, name); id != "" {
			return id
		}
	}
	return ""
}

// An affinity is a session and its model as a hash that is compared with
// backends. 0 is no session.
type affinity uint64

func newAffinity(session, model string) affinity {
	if session == "" {
		return 0
	}
	return affinity(max(1, stableHash(session+"\x00"+model)))
}

// score ranks the backends for a session (weighted rendezvous hashing): the
// highest score has it. A backend that comes or goes moves only its own
// sessions.
func (l affinity) score(b *backend) float64 {
	return -float64(b.weight) / math.Log(unit(l.hash(b.hash))+1.0/(1<<54))
}

// hash mixes the session with the hash of a backend. Of equal weights the higher
// hash has the higher score.
func (l affinity) hash(backend uint64) uint64 {
	// splitmix64's finalizer: FNV alone gives similar ids similar hashes.
	x := uint64(l) ^ backend
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// spillRoll decides whether a PTU that is nearly full passes the session on. It
// is always the same for a session, so that the other sessions keep their
// caches.
func (l affinity) spillRoll() float64 { return unit(uint64(l) * 0x9e3779b97f4a7c15) }

// sessionBound is how many times its share of the requests in flight a
// deployment may have because of sessions. It keeps nearly all prompt cache
// hits and bounds the load (consistent hashing with bounded loads).
const sessionBound = 1.25

// chooseByAffinity is the candidate with the highest score for the session, of
// those that are not too busy.
func (t *tier) chooseByAffinity(q *selection) *deployment {
	if home := t.home(q.affinity); home != nil && home.InFlight.Load() == 0 && q.candidate(home) {
		return home // one that is idle is never too busy: nothing else needs to be looked at
	}
	score := q.affinity.score
	if t.hashes != nil {
		score = func(b *backend) float64 { return unit(q.affinity.hash(b.hash)) }
	}
	var busy, weight float64
	best := highest{}
	for _, d := range t.members {
		if q.candidate(d) {
			busy += float64(d.InFlight.Load())
			weight += float64(d.backend.weight)
			best.note(d, score(d.backend))
		}
	}
	tooBusy := func(d *deployment) bool {
		share := (busy + 1) * float64(d.backend.weight) / weight
		return float64(d.InFlight.Load()) >= math.Ceil(sessionBound*share)
	}
	if best.deployment == nil || !tooBusy(best.deployment) {
		return best.deployment
	}
	best = highest{}
	for _, d := range t.members {
		if q.candidate(d) && !tooBusy(d) {
			best.note(d, score(d.backend))
		}
	}
	return best.deployment
}

// A highest is the deployment with the highest score so far.
type highest struct {
	deployment *deployment
	score      float64
}

func (h *highest) note(d *deployment, score float64) {
	if h.deployment == nil || score > h.score {
		*h = highest{d, score}
	}
}

// home is the member with the highest score for a session, whether it is a candidate
// or not; nil where the weights differ, as it would take long to find.
func (t *tier) home(l affinity) *deployment {
	if t.hashes == nil {
		return nil
	}
	best := 0
	var most uint64
	for i, backend := range t.hashes {
		if h := l.hash(backend) >> 11; h > most { // the bits that unit takes
			best, most = i, h
		}
	}
	return t.members[best]
}

// hashesOf are those of the members' backends, if all have the same weight.
func hashesOf(members []*deployment) []uint64 {
	hashes := make([]uint64, len(members))
	for i, d := range members {
		if hashes[i] = d.backend.hash; d.backend.weight != members[0].backend.weight {
			return nil
		}
	}
	return hashes
}
