package spillover

import "time"

// A throttle is the service's own word that a deployment is not to be asked,
// and what was learnt from how often it had to be said.
type throttle struct {
	until  time.Time // the service's word and what is added to it
	word   time.Time // the service's word alone
	since  time.Time // when it was said
	reason string
	pace   pacing
}

// A refusal is what an attempt was told by a throttled deployment.
type refusal struct {
	sent   time.Time
	trip   time.Duration // from then to the header
	hint   time.Duration
	chance bool // the load is not the reason: nothing is to be learnt
	reason string
}

// refuse takes a refusal in: its hint and, where requests are let in one by one,
// a share u, from 0 to 1, of the time between two: others have been told to come
// at the same moment. Attempts that were under way together teach once.
func (t *throttle) refuse(now time.Time, r refusal, u float64) {
	if !r.sent.After(t.since) || r.chance {
		t.mark(now, r.hint, 0, r.reason)
		return
	}
	extra := part(u, t.pace.current())
	t.mark(now, r.hint, extra, r.reason)
	t.since = now
	t.pace.refused(t.until, r.trip, r.hint)
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
	if sent.After(t.since) {
		t.until, t.word, t.since, t.reason = time.Time{}, time.Time{}, time.Time{}, ""
	}
}

// relent is what it says that an attempt was served that was sent although only
// what was learnt spoke against it.
func (t *throttle) relent() { t.pace.gap /= 2 }

// take asks for the place of the next request.
func (t *throttle) take(now time.Time) bool { return !now.Before(t.until) && t.pace.take(now) }

// closedUntil is when the next request may be sent.
func (t *throttle) closedUntil() time.Time { return later(t.until, t.pace.next) }

// calm reports whether nothing is left of it.
func (t *throttle) calm() bool { return t.until.IsZero() && !t.pace.active() }
