package health

import "time"

// Phase is the phase that a deployment, one of its operations, or a whole backend is in.
type Phase int

const (
	Healthy     Phase = iota
	CoolingDown       // throttled: the service asked for a wait
	Ejected           // failures took it out (circuit open)
	Probing           // a half-open probe is under way
)

// Transition is the phase that is entered, and why.
type Transition struct {
	Phase  Phase
	Since  time.Time // when the last healthy phase ended
	Until  time.Time // the end of a cool-down or ejection
	Reason string    // of Healthy and Probing: why it was closed
}

// Transition returns the current phase, and whether it is to be reported: it is if it
// differs from the phase that was returned last. A cool-down that becomes longer is not
// reported again; a new one after the last has ended is. The end of a cool-down is
// reported with the first request that succeeds after it.
func (h *State) Transition(now time.Time) (_ Transition, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, e, last := &h.throttle, &h.ejection, h.lastReported
	to := Transition{Since: last.Since, Reason: last.Reason}
	switch {
	case e.active && !(t.until.After(now) && t.until.After(e.until)):
		to.Phase, to.Until, to.Reason = Ejected, e.until, e.reason
		if e.probe != 0 {
			to.Phase = Probing
		}
	case !t.until.IsZero():
		to.Phase, to.Until, to.Reason = CoolingDown, t.until, t.reason
	}
	if last.Phase == Healthy {
		to.Since = now
	}
	h.lastReported = to
	return to, to.Phase != last.Phase || to.Phase == CoolingDown && !last.Until.After(t.since)
}
