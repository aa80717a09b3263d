package statuspage

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/wire"
)

// A state is what the page calls the condition of a deployment.
type state struct {
	ID   string
	Word string
	Due  string // what comes before the countdown; "" without one
}

// The states, in the order in which the page lists them.
var states = []state{
	{"available", "Available", ""},
	{"partial", "Partly available", "asked again in"},
	{"avoided", "Avoided", "for"},
	{"rate-limited", "Rate-limited", "asked again in"},
	{"ramping-up", "Ramping up", "next request in"},
	{"ejected", "Ejected", "probed in"},
	{"drained", "Drained", ""},
}

const (
	available = iota
	partial
	avoided
	rateLimited
	rampingUp
	ejected
	drained
)

// rampUpReason is the reason of a deployment that is ramping up.
const rampUpReason = "one at a time"

// outOfQuota reports whether a reason has the code of an account whose quota or credit is
// used up. That needs a person, while a rate limit ends by itself.
func outOfQuota(reason string) bool {
	_, code, _ := strings.Cut(reason, " ")
	return slices.Contains(wire.QuotaCodes, code)
}

// stateOf returns the state of a deployment, until when it lasts, and why it is in it.
func stateOf(b *spillover.BackendStatus, d *spillover.DeploymentStatus, now time.Time) (index int, until time.Time, why string) {
	switch {
	case b.Drained:
		return drained, time.Time{}, "No requests until it is resumed"
	case !d.Available && d.Reason == rampUpReason:
		return rampingUp, d.Until, "Requests are admitted one by one"
	case !d.Available && d.RateLimited && !outOfQuota(d.Reason):
		return rateLimited, d.Until, d.Reason
	case !d.Available:
		return ejected, d.Until, d.Reason
	case d.AvoidedUntil.After(now):
		return avoided, d.AvoidedUntil, "Another replica reports a problem"
	case len(d.Operations) > 0:
		for i, o := range d.Operations {
			if i > 0 {
				why += ", "
			}
			why += "not for " + cmp.Or(o.Name, "other operations") + " (" + o.Reason + ")"
			if until.IsZero() || o.Until.Before(until) {
				until = o.Until
			}
		}
		return partial, until, why
	}
	return available, time.Time{}, ""
}
