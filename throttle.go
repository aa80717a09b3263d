package spillover

import "time"

// A throttle is the service's own word that a deployment is not to be asked,
// and what was learnt from how often it had to be said.
type throttle struct {
	until  time.Time // the service's word and what is added to it
	word   time.Time // the service's word alone
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

// The least stretch, and what part of it a success takes. What is left below
// forgetStretch is none. The most is the mean time between two successes: to
// wait much longer than it takes to be served once teaches nothing, and lets
// chance refusals close a deployment.
const (
	stretchLoss   = 15
	leastStretch  = 100 * time.Millisecond
	forgetStretch = time.Millisecond
)

// A refusal is what an attempt was told by a throttled deployment.
type refusal struct {
	sent   time.Time
	trip   time.Duration // from then to the header
	hint   time.Duration
	every  time.Duration // mean time between two successes of the deployment; 0 when unknown
	reason string
}

// refuse takes a refusal in: its hint, and a stretch that varies with u, from 0
// to 1, by half either way. Attempts that were under way together are told one
// thing only: they teach once.
func (t *throttle) refuse(now time.Time, r refusal, u float64) {
	teaches := r.sent.After(t.since)
	if teaches {
		t.before, t.stretch = t.stretch, min(max(t.stretch*3/2, leastStretch), mostEvery(r.every))
		t.since = now
	}
	t.mark(now, r.hint, time.Duration(float64(min(t.before, t.stretch))*(0.5+u)), r.reason)
	if teaches {
		t.pace.refused(t.until, r.trip, r.every)
	}
}

// mark leaves the deployment alone for as long as the service says, and an extra
// time. A later, shorter word does not shorten an earlier one.
func (t *throttle) mark(now time.Time, hint, extra time.Duration, reason string) {
	t.word = later(t.word, now.Add(hint))
	if until := now.Add(hint + extra); until.After(t.until) {
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
		t.until, t.word, t.since, t.reason = time.Time{}, time.Time{}, time.Time{}, ""
	}
}

// relent is what it says that an attempt was served that was sent although only
// what was learnt spoke against it.
func (t *throttle) relent() {
	t.stretch /= 2
	t.pace.gap /= 2
}

// take asks for the place of the next request.
func (t *throttle) take(now time.Time) bool { return !now.Before(t.until) && t.pace.take(now) }

// closedUntil is when the next request may be sent.
func (t *throttle) closedUntil() time.Time { return later(t.until, t.pace.next) }

// calm reports whether nothing is left of it.
func (t *throttle) calm() bool { return t.until.IsZero() && t.stretch == 0 && !t.pace.active() }
