package health

import "time"

// A Throttle is the service's own word that a deployment is not to be asked,
// and what was learnt from how often it had to be said.
type Throttle struct {
	Until        time.Time // the service's word and what is added to it
	ServiceUntil time.Time // the service's word alone
	Since        time.Time // when it was said
	Reason       string
	RampUp       RampUp
}

// A Refusal is what an attempt was told by a throttled deployment.
type Refusal struct {
	Sent      time.Time
	RoundTrip time.Duration // from then to the header
	Wait      time.Duration
	ByChance  bool // the load is not the reason: nothing is to be learnt
	Reason    string
}

// Refuse takes a refusal in: its hint and, where requests are let in one by one,
// a share u, from 0 to 1, of the time between two: others have been told to come
// at the same moment. Attempts that were under way together teach once.
func (t *Throttle) Refuse(now time.Time, r Refusal, u float64) {
	if !r.Sent.After(t.Since) || r.ByChance {
		t.Extend(now, r.Wait, 0, r.Reason)
		return
	}
	extra := part(u, t.RampUp.Current())
	t.Extend(now, r.Wait, extra, r.Reason)
	t.Since = now
	t.RampUp.Refused(t.Until, r.RoundTrip, r.Wait)
}

// Extend leaves the deployment alone for as long as the service says, and an extra
// time. A later, shorter word does not shorten an earlier one.
func (t *Throttle) Extend(now time.Time, hint, extra time.Duration, reason string) {
	t.ServiceUntil = Later(t.ServiceUntil, now.Add(hint))
	if until := now.Add(hint + extra); until.After(t.Until) {
		t.Until, t.Since, t.Reason = until, now, reason
	}
}

// Clear is what the success of an attempt says. One that was sent after the word
// is newer than it.
func (t *Throttle) Clear(sent time.Time) {
	if sent.After(t.Since) {
		t.Until, t.ServiceUntil, t.Since, t.Reason = time.Time{}, time.Time{}, time.Time{}, ""
	}
}

// Relax is what it says that an attempt was served that was sent although only
// what was learnt spoke against it.
func (t *Throttle) Relax() { t.RampUp.Gap /= 2 }

// Admit asks for the place of the next request.
func (t *Throttle) Admit(now time.Time) bool { return !now.Before(t.Until) && t.RampUp.Admit(now) }

// closedUntil is when the next request may be sent.
func (t *Throttle) closedUntil() time.Time { return Later(t.Until, t.RampUp.Next) }

// calm reports whether nothing is left of it.
func (t *Throttle) calm() bool { return t.Until.IsZero() && !t.RampUp.Active() }
