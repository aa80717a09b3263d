package spillover

import (
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// candidates are all deployments of a model, with why the request skips them. every
// is the whole route of the model, of which the request may use only a part.
func (q *selection) candidates(usable, every *route, tags []string, chosen *deployment) (found []TrailCandidate, more int) {
	allowed := map[*deployment]bool{}
	for d := range usable.all {
		allowed[d] = true
	}
	add := func(d *deployment) {
		if len(found) >= maxTrailCandidates {
			more++
			return
		}
		c := TrailCandidate{Backend: d.backend.name, Model: redact.Brief(d.model), Deployment: redact.Brief(d.name), Priority: d.backend.priority, Chosen: d == chosen}
		switch {
		case c.Chosen:
		case allowed[d]:
			c.Skipped, c.Until = q.whySkipped(d, chosen)
		case !d.backend.hasTags(tags):
			c.Skipped = "tags"
		default:
			c.Skipped = "other resource"
		}
		found = append(found, c)
	}
	for _, t := range usable.tiers {
		q.healthyOnly = t.retryBudgetSpent(q)
		for _, d := range t.members {
			add(d)
		}
	}
	if every == nil {
		return found, more
	}
	for d := range every.all {
		if !allowed[d] {
			add(d)
		}
	}
	return found, more
}

// whySkipped is why a deployment could not be chosen, and until when.
func (q *selection) whySkipped(d, chosen *deployment) (why string, until time.Time) {
	switch q.skips(d) {
	case skipSilent:
		return "silent", time.Time{}
	case skipClosed:
		return q.whyClosed(d, q.now)
	case skipTried:
		return "already tried", time.Time{}
	case skipFull:
		return "full", time.Time{}
	case skipTroubled:
		return "retry budget spent", time.Time{}
	case skipUtilization:
		return "utilization", time.Time{}
	case skipHeadroom:
		return "no headroom", time.Time{}
	case skipProbe:
		return "probe deferred", q.probeDeferredUntil(d)
	case skipReported:
		return "reported by another replica", d.Reports.Until(q.now)
	case skipLocalLimit:
		return "configured limit", time.Time{}
	case skipReserved:
		until, _ = q.reservedUntil(d, q.now)
		return "reserved for interactive requests", until
	}
	if chosen != nil && d.tier == chosen.tier && d.Slow(&chosen.Deployment, q.now) {
		return "slow", time.Time{}
	}
	return "", time.Time{}
}

// whyClosed is what closes a deployment to the request, and until when.
func (s *scope) whyClosed(d *deployment, now time.Time) (why string, until time.Time) {
	if d.backend.drained.Load() {
		return drainedReason, time.Time{}
	}
	for _, h := range s.healths(d) {
		if h == nil {
			continue
		}
		if at, reason, throttled := h.Closed(now); at.After(until) {
			why, until = "ejected: "+reason, at
			if throttled {
				why = "cooling: " + reason
			}
		}
	}
	if until.IsZero() {
		why = "connecting"
	}
	return why, until
}
