package health

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// ReportedLimits are the limits that a deployment reported in the headers of its last
// responses. They are read and written without a lock: it does not matter if one value
// is a little older than the next.
type ReportedLimits struct {
	Limit         atomic.Int64 // tokens a minute; 0 when none was reported
	remaining     atomic.Int64
	reportedAt    Timestamp    // when the request was sent whose response reported remaining
	sent          atomic.Int64 // tokens sent in all, by our own estimate
	sentAtReport  atomic.Int64 // the part of sent that remaining includes
	Utilization   atomic.Int64 // utilization of a PTU in thousandths
	UtilizationAt Timestamp    // when it was reported

	heard atomic.Pointer[heardUtilization] // the last that another replica told
}

// heardUtilization is what another replica told of a PTU.
type heardUtilization struct {
	at          time.Time // when the service reported it
	utilization int64
	from        string
}

// HearUtilization records the utilization that a PTU reported to another replica at a
// time. An own report that is newer has precedence.
func (g *ReportedLimits) HearUtilization(at time.Time, utilization int64, from string) {
	if !g.UtilizationAt.Passed(at) {
		return
	}
	g.heard.Store(&heardUtilization{at, utilization, from})
	g.Utilization.Store(utilization)
	g.UtilizationAt.Set(at)
}

// heardFull reports whether another replica has told lately that a PTU is full. The older
// that is, the fewer requests count it; x is between 0 and 1, drawn once for the request.
// So who lies each second cannot keep a PTU idle.
func (g *ReportedLimits) heardFull(now time.Time, x float64) bool {
	h := g.heard.Load()
	return h != nil && h.utilization >= spillAll && now.Sub(h.at) < fraction(x, heardFullFor)
}

// heardFullFor is for how long any request counts that another replica says so.
const heardFullFor = 3 * time.Second

// heardFor is for how long after another replica's report an own one can show that it was
// wrong.
const heardFor = time.Second

// Exaggerated returns the replica that told of more than a utilization, less than a
// second before an own request was sent; "" if none did.
func (g *ReportedLimits) Exaggerated(sent time.Time, most int64) (from string) {
	h := g.heard.Load()
	if h == nil || h.utilization <= most || sent.Before(h.at) || sent.Sub(h.at) > heardFor {
		return ""
	}
	g.heard.CompareAndSwap(h, nil)
	return h.from
}

const (
	headroomDecay    = 10 * time.Second // trust in remaining is exp(-age/headroomDecay)
	shortageFresh    = 20 * time.Second // an older report of too few remaining tokens is ignored
	utilizationFresh = 10 * time.Second // an older report of utilization is ignored
	spillFrom        = 850              // thousandths: above it, part of the requests go to the next tier early;
	spillAll         = 1000             // from here on, all but one at a time
	SameHeadroom     = 0.05             // a smaller difference is ignored: to follow it makes clients herd
)

// Update stores the limits that a response reported to a request that was sent at a
// time, when so many tokens had been sent. They are live values: under pressure
// Azure lowers a limit for a time (Azure's quota page).
func (g *ReportedLimits) Update(now, sent time.Time, tokens int64, l wire.Limits) {
	if l.Tokens > 0 {
		g.Limit.Store(l.Tokens)
		if l.HasRemaining && tokens >= g.sentAtReport.Load() {
			g.remaining.Store(l.Remaining)
			g.sentAtReport.Store(tokens)
			g.reportedAt.Set(sent)
		}
	}
	if l.HasUtilization {
		g.Utilization.Store(l.Utilization)
		g.UtilizationAt.Set(now)
	}
}

// CountSent counts the tokens of a request that is sent, and returns the sum.
func (g *ReportedLimits) CountSent(tokens int64) int64 { return g.sent.Add(tokens) }

// unspent is what remains of the limit, less what was sent since the report.
func (g *ReportedLimits) unspent() int64 {
	return g.remaining.Load() - (g.sent.Load() - g.sentAtReport.Load())
}

// HasCapacity reports whether a PTU has recently reported a utilization below spillFrom.
func (g *ReportedLimits) HasCapacity(now time.Time) bool {
	return g.UtilizationAt.Age(now) <= utilizationFresh && g.Utilization.Load() < spillFrom
}

// Spills reports whether a PTU that reported to be nearly full passes a request on
// early, before it would refuse it. x is between 0 and 1, drawn once for the request.
// The share is (utilization-spillFrom) / (spillAll-spillFrom).
func (g *ReportedLimits) Spills(now time.Time, x float64) bool {
	if g.UtilizationAt.Age(now) > utilizationFresh {
		return false
	}
	return x < float64(g.Utilization.Load()-spillFrom)/(spillAll-spillFrom)
}

// LacksHeadroom reports whether too few tokens remain for a request, by the last report
// and with what the limit has regained since.
func (g *ReportedLimits) LacksHeadroom(now time.Time, tokens int64) bool {
	remaining, limit := g.remainingNow(now)
	return limit > 0 && remaining < tokens
}

// remainingNow returns what remains of the limit by the last report, and with what the
// limit has regained since. The limit is 0 if that is not known.
func (g *ReportedLimits) remainingNow(now time.Time) (remaining, limit int64) {
	age, limit := g.reportedAt.Age(now), g.Limit.Load()
	if limit <= 0 || age > shortageFresh {
		return 0, 0
	}
	regained := int64(age.Minutes() * float64(limit))
	return min(limit, g.unspent()+regained), limit
}

// Headroom is the share of the limit that is thought to be free, and the trust in it:
// 1 for a new report, less with age, 0 for unknown.
type Headroom struct{ Share, Trust float64 }

// TokenHeadroom returns the headroom by the last report.
func (g *ReportedLimits) TokenHeadroom(now time.Time) Headroom {
	age, limit := g.reportedAt.Age(now), g.Limit.Load()
	if limit <= 0 || age == math.MaxInt64 {
		return Headroom{}
	}
	return Headroom{float64(g.unspent()) / float64(limit), math.Exp(-float64(age) / float64(headroomDecay))}
}

// More returns how much more headroom a is thought to have than b, weighted by the
// harmonic mean of the trust in both. An unknown headroom counts as equal: if it
// counted as less, the deployment would get no requests and stay unknown.
func (a Headroom) More(b Headroom) float64 {
	if a.Trust == 0 || b.Trust == 0 {
		return 0
	}
	return (a.Share - b.Share) * 2 * a.Trust * b.Trust / (a.Trust + b.Trust)
}
