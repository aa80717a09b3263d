package health

import "time"

// A Phase is what a deployment is in, or a backend as a whole.
type Phase int

const (
	Healthy     Phase = iota
	CoolingDown       // the service itself said to leave it alone
	Ejected           // it failed
	Probing           // one request finds out whether it is back
)

// A notice is what was told last.
type notice struct {
	Phase  Phase
	Since  time.Time // when it was well last
	Until  time.Time
	Reason string
}

// News is what is so, if it is not what was told last. That a cool-down lasts
// longer is none, another one after it ran out is. That one merely ran out is
// none either: whether it is over, the next request shows.
func (h *State) News(now time.Time) (_ notice, changed bool) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	t, e, last := &h.Throttle, &h.Ejection, h.told
	n := notice{Since: last.Since, Reason: last.Reason}
	switch {
	case e.Active && !(t.Until.After(now) && t.Until.After(e.Until)):
		n.Phase, n.Until, n.Reason = Ejected, e.Until, e.Reason
		if e.Probe != 0 {
			n.Phase = Probing
		}
	case !t.Until.IsZero():
		n.Phase, n.Until, n.Reason = CoolingDown, t.Until, t.Reason
	}
	if last.Phase == Healthy {
		n.Since = now
	}
	h.told = n
	return n, n.Phase != last.Phase || n.Phase == CoolingDown && !last.Until.After(t.Since)
}
