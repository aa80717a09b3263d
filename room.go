package spillover

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A gauge is what a deployment reported of itself in its last answers. It is
// read and written without a lock: a value that is a little older than its
// neighbour does no harm.
type gauge struct {
	limit     atomic.Int64 // tokens a minute; 0 when none was told
	remaining atomic.Int64
	sampled   moment       // when the request was sent that was told
	sent      atomic.Int64 // tokens in all, by our own estimate
	covered   atomic.Int64 // of those, the ones that remaining knows of
	full      atomic.Int64 // utilization of a PTU in thousandths
	reported  moment       // when that was told
}

const (
	roomTrust = 10 * time.Second // e-folding of the trust in remaining
	roomFresh = 20 * time.Second // a lack of room older than this is none
	fullFresh = 10 * time.Second
	spillFrom = 850 // thousandths: from here on requests are passed on, the more the fuller,
	spillAll  = 1000
	sameRoom  = 0.05 // a smaller difference is none: comparing it herds
)

// read takes the limits from the header of an answer to a request that was sent
// at a time, when so many tokens had been sent. They are live values: under
// pressure Azure lowers a limit for a time (Azure's quota page). Placeholders
// (-1, 0 of 0) are no values.
func (g *gauge) read(now, sent time.Time, tokens int64, h http.Header) {
	if limit, ok := wire.TokenCount(h, "X-Ratelimit-Limit-Tokens"); ok && limit > 0 {
		g.limit.Store(min(limit, wire.MaxTokenCount))
		if left, ok := wire.TokenCount(h, "X-Ratelimit-Remaining-Tokens"); ok && tokens >= g.covered.Load() {
			g.remaining.Store(min(max(left, -wire.MaxTokenCount), wire.MaxTokenCount))
			g.covered.Store(tokens)
			g.sampled.set(sent)
		}
	}
	// A percentage, which may exceed 100 (Azure's page on provisioned throughput).
	if text, ok := strings.CutSuffix(wire.Header(h, "Azure-Openai-Deployment-Utilization"), "%"); ok {
		if percent, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil && percent >= 0 {
			g.full.Store(int64(min(percent, 1e6) * 10))
			g.reported.set(now)
		}
	}
}

// spend counts the tokens of a request that is sent, and tells their sum.
func (g *gauge) spend(tokens int64) int64 { return g.sent.Add(tokens) }

// left is what remains of the limit, less what was sent since that was told.
func (g *gauge) left() int64 { return g.remaining.Load() - (g.sent.Load() - g.covered.Load()) }

// hasRoom reports whether a PTU has said of late that it is far from full.
func (g *gauge) hasRoom(now time.Time) bool {
	return g.reported.age(now) <= fullFresh && g.full.Load() < spillFrom
}

// spills tells whether a PTU that reported to be nearly full passes a request
// on, a little before it would refuse it. x is between 0 and 1, drawn once for
// the request.
func (g *gauge) spills(now time.Time, x float64) bool {
	if g.reported.age(now) > fullFresh {
		return false
	}
	return x < float64(g.full.Load()-spillFrom)/(spillAll-spillFrom)
}

// passesOn tells whether a PTU passes a request on. One that is full passes all
// of them on but one at a time, which finds out whether it still is: to be refused
// costs less than to leave it idle for as long as a report is believed.
func (d *deployment) passesOn(now time.Time, x float64) bool {
	return d.spills(now, x) && (d.full.Load() < spillAll || d.awaiting.Load() > 0)
}

// lacks tells whether what was reported leaves no room for so many tokens.
func (g *gauge) lacks(now time.Time, tokens int64) bool {
	age, limit := g.sampled.age(now), g.limit.Load()
	if limit <= 0 || age > roomFresh {
		return false
	}
	regained := int64(age.Minutes() * float64(limit))
	return min(limit, g.left()+regained) < tokens
}

// room is the share of the limit that is thought to be free, and the trust in
// that: from 1, the older the less, to 0 for unknown.
func (g *gauge) room(now time.Time) (share, trust float64) {
	age, limit := g.sampled.age(now), g.limit.Load()
	if limit <= 0 || age == math.MaxInt64 {
		return 0, 0
	}
	return float64(g.left()) / float64(limit), math.Exp(-float64(age) / float64(roomTrust))
}

// room is what was reported of late, else what is left of configured limits.
func (d *deployment) room(now time.Time) (share, trust float64) {
	if share, trust = d.gauge.room(now); trust == 0 && d.rates != (rates{}) {
		return d.ledger.room(now, d.rates), 1
	}
	return share, trust
}

// roomier is how much more room one is thought to have than another. What is
// not known of one is thought to be as with both on average, each as far as it
// is trusted: with less it would not be asked, and so never be known.
func roomier(a, b *deployment, now time.Time) float64 {
	share, trust := a.room(now)
	share2, trust2 := b.room(now)
	if trust == 0 || trust2 == 0 {
		return 0
	}
	return (share - share2) * 2 * trust * trust2 / (trust + trust2)
}
