package health

import "time"

// Cause is why an attempt failed, if it was not rate-limited.
type Cause int

const (
	NoFailure     Cause = iota
	ServerFailure       // a 5xx
	NoAnswer            // a broken connection, or no answer in time
	Blocked             // refused by a gateway or firewall in front of the service
	Silent              // accepts requests and answers none of them
	Unreachable         // no connection
	Misconfigured       // the credential, the deployment or the operation is not accepted
	OutOfQuota          // the account has nothing left to spend
)

// NeedsChange reports whether a failure lasts until the configuration or the account
// changes.
func (f Cause) NeedsChange() bool { return f == Misconfigured || f == OutOfQuota }

// Uncertain reports whether the request may have caused the failure. Such a failure
// counts only once another deployment has answered the same request.
func (f Cause) Uncertain() bool { return f == ServerFailure || f == NoAnswer || f == Blocked }

// ejectionRules has a rule for each cause: how many failures in a row are tolerated,
// for how long the next one ejects, and the longest ejection. Each further failure
// doubles the time:
//
//	min(first * 2^(streak-tolerated-1), longest) * (1 ± ejectionSpread)
var ejectionRules = [...]struct {
	tolerated      int
	first, longest time.Duration
}{
	// Resets are ordinary over HTTP/2 and on idle connections, and a PTU that answers
	// one request in a hundred with a 500 must not stand idle.
	ServerFailure: {1, time.Second, 10 * time.Second},
	NoAnswer:      {1, 2 * time.Second, 30 * time.Second},
	// A firewall refuses a prompt, not a caller: only three different requests in a row
	// show that it refuses everything.
	Blocked:       {2, 5 * time.Second, 30 * time.Second},
	Silent:        {0, 5 * time.Second, 30 * time.Second},
	Unreachable:   {0, 2 * time.Second, 30 * time.Second},
	Misconfigured: {0, 5 * time.Second, 30 * time.Second},
	OutOfQuota:    {0, 5 * time.Minute, 5 * time.Minute},
}

const (
	// ejectionSpread is the random part of an ejection, either way: clients that saw
	// the same failure do not probe at the same time.
	ejectionSpread = 0.2
	// probeSpacing is how many requests go elsewhere between a failure and the next
	// half-open probe: a probe that fails costs its caller time, so at most one request
	// in eight pays for it.
	probeSpacing = 7
	// maxProbeDelay is the time since the last failure after which a probe waits for no
	// more requests: with little traffic a deployment that has recovered is used again.
	maxProbeDelay = 30 * time.Second
	// probeClaim is how long a half-open probe keeps other requests away. A probe that
	// never ends delays the next one by no more.
	probeClaim = 10 * time.Second
	// streakExpiry is the time between two failures after which the second one is the
	// first in a row.
	streakExpiry = 10 * time.Minute
	// maxDoublings keeps the shift of the doubling from overflowing; every rule reaches
	// its longest ejection earlier.
	maxDoublings = 15
	// silentProbeShare is the share of the silence so far after which a silent
	// deployment is probed again.
	silentProbeShare = 2
)

// ejection is the judgement that something fails, from the failures in a row (outlier
// ejection). It ends with one half-open probe, which is a real request: its success
// clears the ejection.
type ejection struct {
	streak int
	cause  Cause
	until  time.Time
	since  time.Time // of the last failure counted
	active bool      // ejected until a probe succeeds
	probe  uint64    // number of the probe under way; 0 when there is none
	probes uint64    // probes so far
	passed int       // requests that went elsewhere since the last failure, up to probeSpacing
	reason string
}

// fail counts a failure that was seen at a time, of an attempt that was sent at
// another, and reports whether it did: attempts that were in flight together count
// once. The length of the ejection varies with u, from 0 to 1, by ejectionSpread.
func (e *ejection) fail(now, seen, sent time.Time, cause Cause, reason string, u float64) bool {
	if sent.Before(e.since) || e.active && sent.Equal(e.since) {
		return false
	}
	if seen.Sub(e.since) > streakExpiry {
		e.streak = 0
	}
	e.streak++
	e.cause, e.since, e.reason, e.probe, e.passed = cause, seen, reason, 0, 0
	rule := ejectionRules[cause]
	n := e.streak - rule.tolerated
	if n <= 0 {
		return true
	}
	out := rule.longest
	if n <= maxDoublings {
		out = min(rule.first<<(n-1), rule.longest)
	}
	e.until = now.Add(time.Duration(float64(out) * ((1 - ejectionSpread) + 2*ejectionSpread*u)))
	e.active = true
	return true
}

// pardon takes back a failure that the request itself caused: it failed at every
// deployment. was is the ejection before that failure, and then the ejection after it.
// What was ejected before stays ejected.
func (e *ejection) pardon(was, then ejection) {
	then.passed = e.passed
	switch {
	case *e == then && !was.active:
		*e = was
	case *e == then:
		e.streak = was.streak
	case e.streak > 0:
		// Other failures were counted since.
		if e.streak--; e.streak <= ejectionRules[e.cause].tolerated {
			e.until, e.active, e.probe = time.Time{}, false, 0
		}
	}
}

// ejectSilent ejects what has been silent since a time. A probe follows after half of
// the time that the silence has lasted, and so on.
func (e *ejection) ejectSilent(now, since time.Time) {
	e.streak++
	e.cause, e.reason, e.since, e.active, e.probe, e.passed = Silent, "silent", since, true, 0, 0
	e.until = now.Add(silentProbeDelay(now.Sub(since)))
}

// silentProbeDelay returns the time until the next probe of a silent deployment.
func silentProbeDelay(silence time.Duration) time.Duration {
	rule := ejectionRules[Silent]
	return min(max(silence/silentProbeShare, rule.first), rule.longest)
}

// deferredUntil is until when the next probe waits while other deployments serve
// requests. It is zero if the probe waits for nothing but the end of the ejection.
func (e *ejection) deferredUntil() time.Time {
	if !e.active || e.passed >= probeSpacing {
		return time.Time{}
	}
	return e.since.Add(maxProbeDelay)
}

// succeed forgets all failures, unless the attempt was sent before the last of them.
func (e *ejection) succeed(sent time.Time) {
	if !sent.Before(e.since) {
		*e = ejection{probes: e.probes}
	}
}

// claim asks for the place of the half-open probe. It is granted as well where no probe
// is needed; then the number is 0. A number must be given to release if the probe ends
// without a result.
func (e *ejection) claim(now time.Time) (ok bool, probe uint64) {
	if !e.active {
		return true, 0
	}
	if now.Before(e.until) {
		return false, 0
	}
	next := probeClaim
	if e.cause == Silent {
		next = silentProbeDelay(now.Sub(e.since))
	}
	e.probes++
	e.until, e.probe = now.Add(next), e.probes
	return true, e.probe
}

// release gives back the place of a probe that ended without a result. A silent
// deployment stays closed: a caller that leaves it shows nothing new.
func (e *ejection) release(now time.Time, probe uint64) {
	if probe == 0 || probe != e.probe {
		return
	}
	e.probe = 0
	if e.active && e.cause != Silent && e.until.After(now) {
		e.until = now
	}
}
