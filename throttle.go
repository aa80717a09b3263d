package spillover

import (
	"sync/atomic"
	"time"
)

// A throttle is the service's own word that a deployment is not to be asked,
// and what was learnt from how often it had to be said.
type throttle struct {
	until  time.Time
	since  time.Time // when it was said
	reason string

	// stretch is an extra time on top of the next hint. The first refusal after
	// a calm is believed to the letter; repeated ones teach that many want what
	// becomes free: each makes it half as long again, each success a fifteenth
	// shorter.
	stretch time.Duration
	before  time.Duration // the stretch before the last refusal that taught
	pace    pacing
}

// The bounds of stretch, and what part of it a success takes. What is left below
// forgetStretch is none.
const (
	stretchLoss   = 15
	leastStretch  = 100 * time.Millisecond
	mostStretch   = time.Minute
	forgetStretch = time.Millisecond
)

// refuse is what an attempt was told that was sent at a time: the hint, and a
// stretch that varies with u, from 0 to 1, by half either way. Attempts that
// were under way together are told one thing only: they teach once.
func (t *throttle) refuse(now, sent time.Time, hint time.Duration, reason string, u float64) {
	if sent.After(t.since) {
		t.before, t.stretch = t.stretch, min(max(t.stretch*3/2, leastStretch), mostStretch)
		t.pace.refused(now, sent)
		t.since = now
	}
	t.mark(now, hint+time.Duration(float64(min(t.before, t.stretch))*(0.5+u)), reason)
	t.pace.grown = t.until // quiet is what follows the mark
}

// mark leaves the deployment alone for d. A later, shorter word does not
// shorten an earlier one.
func (t *throttle) mark(now time.Time, d time.Duration, reason string) {
	if until := now.Add(d); until.After(t.until) {
		t.until, t.since, t.reason = until, now, reason
	}
}

// lift is what the success of an attempt says. One that was sent after the word
// is newer than it.
func (t *throttle) lift(sent time.Time) {
	if t.stretch -= t.stretch / stretchLoss; t.stretch < forgetStretch {
		t.stretch = 0
	}
	if sent.After(t.since) {
		t.until, t.since, t.reason = time.Time{}, time.Time{}, ""
	}
}

// take asks for the place of the next request.
func (t *throttle) take(now time.Time, wanted *atomic.Bool) bool {
	return !now.Before(t.until) && t.pace.take(now, wanted)
}

// closedUntil is when the next request may be sent.
func (t *throttle) closedUntil() time.Time { return later(t.until, t.pace.next) }

// calm tells that nothing is left of it.
func (t *throttle) calm() bool { return t.until.IsZero() && t.stretch == 0 && t.pace.last.IsZero() }
