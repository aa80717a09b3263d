package spillover

import "time"

// A throttle is the service's own word that a deployment is not to be asked.
type throttle struct {
	until  time.Time
	since  time.Time // when it was said
	reason string
}

// mark leaves the deployment alone for d. A later, shorter word does not
// shorten an earlier one.
func (t *throttle) mark(now time.Time, d time.Duration, reason string) {
	if until := now.Add(d); until.After(t.until) {
		*t = throttle{until, now, reason}
	}
}

// lift ends the throttle on the success of a request that was sent after it
// began: the answer is newer than the word.
func (t *throttle) lift(sent time.Time) {
	if sent.After(t.since) {
		*t = throttle{}
	}
}
