package health

import "time"

// A Phase is what a deployment is in, one operation of it, or a whole backend.
type Phase int

const (
	Healthy     Phase = iota
	CoolingDown       // rate-limited: the service itself said for how long
	Ejected           // it failed
	Probing           // ejected, and one request finds out whether it has recovered
)

// A Transition is a change of phase, or a new cool-down.
type Transition struct {
	Phase  Phase
	Since  time.Time // when it was healthy last
	Until  time.Time // the end of a cool-down or ejection
	Reason string    // of Healthy and Probing: what it was closed for
}

// Transition reports the phase, and whether it has changed since the last call. A
// longer cool-down is no change; a new one after the last has run out is. That a
// cool-down runs out is no change either: the next request shows whether it is over.
func (h *State) Transition(now time.Time) (_ Transition, changed bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	t, e, last := &h.Throttle, &h.Ejection, h.lastReported
	to := Transition{Since: last.Since, Reason: last.Reason}
	switch {
	case e.Active && !(t.Until.After(now) && t.Until.After(e.Until)):
		to.Phase, to.Until, to.Reason = Ejected, e.Until, e.Reason
		if e.Probe != 0 {
			to.Phase = Probing
		}
	case !t.Until.IsZero():
		to.Phase, to.Until, to.Reason = CoolingDown, t.Until, t.Reason
	}
	if last.Phase == Healthy {
		to.Since = now
	}
	h.lastReported = to
	return to, to.Phase != last.Phase || to.Phase == CoolingDown && !last.Until.After(t.Since)
}
