package health

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A ReportedLimits is what a deployment reported of itself in its last answers. It is
// read and written without a lock: a value that is a little older than its
// neighbour does no harm.
type ReportedLimits struct {
	Limit         atomic.Int64 // tokens a minute; 0 when none was told
	remaining     atomic.Int64
	sampled       Timestamp    // when the request was sent that was told
	Sent          atomic.Int64 // tokens in all, by our own estimate
	covered       atomic.Int64 // of those, the ones that remaining knows of
	Utilization   atomic.Int64 // utilization of a PTU in thousandths
	UtilizationAt Timestamp    // when that was told
}

const (
	HeadroomTrust    = 10 * time.Second // e-folding of the trust in remaining
	HeadroomFresh    = 20 * time.Second // a lack of room older than this is none
	UtilizationFresh = 10 * time.Second
	SpillFrom        = 850 // thousandths: from here on requests are passed on, the more the fuller,
	SpillAll         = 1000
	SameHeadroom     = 0.05 // a smaller difference is none: comparing it herds
)

// Update takes the limits that an answer reported to a request that was sent at a
// time, when so many tokens had been sent. They are live values: under pressure
// Azure lowers a limit for a time (Azure's quota page).
func (g *ReportedLimits) Update(now, sent time.Time, tokens int64, l wire.Limits) {
	if l.Tokens > 0 {
		g.Limit.Store(l.Tokens)
		if l.HasRemaining && tokens >= g.covered.Load() {
			g.remaining.Store(l.Remaining)
			g.covered.Store(tokens)
			g.sampled.Set(sent)
		}
	}
	if l.HasUtilization {
		g.Utilization.Store(l.Utilization)
		g.UtilizationAt.Set(now)
	}
}

// CountSent counts the tokens of a request that is sent, and tells their sum.
func (g *ReportedLimits) CountSent(tokens int64) int64 { return g.Sent.Add(tokens) }

// left is what remains of the limit, less what was sent since that was told.
func (g *ReportedLimits) left() int64 { return g.remaining.Load() - (g.Sent.Load() - g.covered.Load()) }

// HasCapacity reports whether a PTU has said of late that it is far from full.
func (g *ReportedLimits) HasCapacity(now time.Time) bool {
	return g.UtilizationAt.Age(now) <= UtilizationFresh && g.Utilization.Load() < SpillFrom
}

// Spills tells whether a PTU that reported to be nearly full passes a request
// on, a little before it would refuse it. x is between 0 and 1, drawn once for
// the request.
func (g *ReportedLimits) Spills(now time.Time, x float64) bool {
	if g.UtilizationAt.Age(now) > UtilizationFresh {
		return false
	}
	return x < float64(g.Utilization.Load()-SpillFrom)/(SpillAll-SpillFrom)
}

// LacksHeadroom tells whether what was reported leaves no room for so many tokens.
func (g *ReportedLimits) LacksHeadroom(now time.Time, tokens int64) bool {
	age, limit := g.sampled.Age(now), g.Limit.Load()
	if limit <= 0 || age > HeadroomFresh {
		return false
	}
	regained := int64(age.Minutes() * float64(limit))
	return min(limit, g.left()+regained) < tokens
}

// A Headroom is the share of the limit that is thought to be free, and the trust
// in that: 1 for what was just reported, less with age, 0 for unknown.
type Headroom struct{ Share, Trust float64 }

func (g *ReportedLimits) TokenHeadroom(now time.Time) Headroom {
	age, limit := g.sampled.Age(now), g.Limit.Load()
	if limit <= 0 || age == math.MaxInt64 {
		return Headroom{}
	}
	return Headroom{float64(g.left()) / float64(limit), math.Exp(-float64(age) / float64(HeadroomTrust))}
}

// More reports how much more headroom one is thought to have than another. What is
// unknown is taken for the average of both, as far as each is trusted: with less
// it would not be asked, and so never be known.
func (a Headroom) More(b Headroom) float64 {
	if a.Trust == 0 || b.Trust == 0 {
		return 0
	}
	return (a.Share - b.Share) * 2 * a.Trust * b.Trust / (a.Trust + b.Trust)
}
