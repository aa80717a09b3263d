package health

import "time"

// throttle is the cool-down that a service asked for (Retry-After), and the ramp-up
// after it, which is learnt from repeated refusals.
type throttle struct {
	until        time.Time // what the service asked for, and what is added to it
	serviceUntil time.Time // only what the service asked for
	since        time.Time // when it was refused
	reason       string
	rampUp       rampUp
}

// Refusal is the answer of a throttled deployment to an attempt.
type Refusal struct {
	Sent      time.Time
	RoundTrip time.Duration // from Sent to the header
	Wait      time.Duration
	ByChance  bool // not caused by the load: it does not lengthen the ramp-up
	Reason    string
}

// refuse records a refusal. The cool-down is the wait that it asks for and, during
// ramp-up, a share u, from 0 to 1, of the gap, because other clients were told to come
// back at the same time. Attempts that were in flight together lengthen the ramp-up
// once.
func (t *throttle) refuse(now time.Time, r Refusal, u float64) (taught bool) {
	if !r.Sent.After(t.since) || r.ByChance {
		t.extend(now, r.Wait, 0, r.Reason)
		return false
	}
	extra := fraction(u, t.rampUp.current())
	t.extend(now, r.Wait, extra, r.Reason)
	t.since = now
	t.rampUp.refused(t.until, r.RoundTrip, r.Wait)
	return true
}

// extend closes the deployment for as long as the service asks for, and an extra time.
// A shorter wait does not shorten an earlier one.
func (t *throttle) extend(now time.Time, hint, extra time.Duration, reason string) {
	t.serviceUntil = Latest(t.serviceUntil, now.Add(hint))
	if until := now.Add(hint + extra); until.After(t.until) {
		t.until, t.since, t.reason = until, now, reason
	}
}

// clear ends the cool-down after the success of an attempt that was sent after the
// refusal.
func (t *throttle) clear(sent time.Time) {
	if sent.After(t.since) {
		t.until, t.serviceUntil, t.since, t.reason = time.Time{}, time.Time{}, time.Time{}, ""
	}
}

// relaxation divides the gap of the ramp-up after a served last resort.
const relaxation = 2

// relax halves the gap of the ramp-up, after an attempt was served that was sent while
// only the ramp-up closed the deployment.
func (t *throttle) relax() { t.rampUp.gap /= relaxation }

// admit asks for the place of the next request, or for one that leaves a place to the
// next request (spare).
func (t *throttle) admit(now time.Time, spare bool) bool {
	switch {
	case now.Before(t.until):
		return false
	case spare:
		return t.rampUp.admitSpare(now)
	}
	return t.rampUp.admit(now)
}

// closedUntil returns when the next request may be sent.
func (t *throttle) closedUntil() time.Time { return Latest(t.until, t.rampUp.next) }

// calm reports whether there is neither a cool-down nor a ramp-up.
func (t *throttle) calm() bool { return t.until.IsZero() && !t.rampUp.active() }
