package spillover

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A gauge is what a deployment reported of itself in its last answers. It is
// read and written without a lock: a value that is a little older than its
// neighbour does no harm.
type gauge struct {
	limit     atomic.Int64 // tokens a minute; 0 when none was told
	remaining atomic.Int64
	sampled   moment       // when remaining was told
	since     atomic.Int64 // tokens sent since, by our own estimate
	full      atomic.Int64 // utilization of a PTU in thousandths
	reported  moment       // when that was told
}

const (
	roomTrust   = 10 * time.Second // e-folding of the trust in remaining
	roomFresh   = 20 * time.Second // a lack of room older than this is none
	fullFresh   = 10 * time.Second
	spillFrom   = 850 // thousandths: from here on requests are passed on, the more the fuller,
	spillAll    = 1000
	unknownRoom = 0.5
	sameRoom    = 0.05 // a smaller difference is none: comparing it herds
)

// read takes the limits from a header. They are live values: under pressure
// Azure lowers a limit for a time (Azure's quota page). Placeholders (-1, 0 of
// 0) are no values. It reports whether the limit changed.
func (g *gauge) read(now time.Time, h http.Header) (resized bool) {
	if limit, err := strconv.ParseInt(field(h, "X-Ratelimit-Limit-Tokens"), 10, 64); err == nil && limit > 0 {
		resized = g.limit.Swap(limit) != limit
		if left, err := strconv.ParseInt(field(h, "X-Ratelimit-Remaining-Tokens"), 10, 64); err == nil {
			g.remaining.Store(left)
			g.since.Store(0)
			g.sampled.set(now)
		}
	}
	// A percentage, which may exceed 100 (Azure's page on provisioned throughput).
	if text, ok := strings.CutSuffix(field(h, "Azure-Openai-Deployment-Utilization"), "%"); ok {
		if percent, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil && percent >= 0 {
			g.full.Store(int64(min(percent, 1e6) * 10))
			g.reported.set(now)
		}
	}
	return resized
}

// spend counts the tokens of a request that is sent.
func (g *gauge) spend(tokens int64) { g.since.Add(tokens) }

// spills tells whether a PTU that reported to be nearly full passes a request
// on, a little before it would refuse it. x is between 0 and 1, drawn once for
// the request.
func (g *gauge) spills(now time.Time, x float64) bool {
	if g.reported.age(now) > fullFresh {
		return false
	}
	return x < float64(g.full.Load()-spillFrom)/(spillAll-spillFrom)
}

// lacks tells whether what was reported leaves no room for so many tokens.
func (g *gauge) lacks(now time.Time, tokens int64) bool {
	age, limit := g.sampled.age(now), g.limit.Load()
	if limit <= 0 || age > roomFresh {
		return false
	}
	regained := int64(age.Minutes() * float64(limit))
	return min(limit, g.remaining.Load()+regained)-g.since.Load() < tokens
}

// room is the share of the limit that is thought to be free, less what was sent
// since. The older what was reported, the less it says.
func (g *gauge) room(now time.Time) float64 {
	age, limit := g.sampled.age(now), g.limit.Load()
	if limit <= 0 || age == math.MaxInt64 {
		return unknownRoom
	}
	share := float64(g.remaining.Load()) / float64(limit)
	trust := math.Exp(-float64(age) / float64(roomTrust))
	return unknownRoom + (share-unknownRoom)*trust - float64(g.since.Load())/float64(limit)
}
