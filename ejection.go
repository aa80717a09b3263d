package spillover

import "time"

// A failure is what an attempt failed of, when that was not a throttle.
type failure int

const (
	noFailure     failure = iota
	serverFailure         // a 5xx
	noAnswer              // a broken connection, or no answer in time
	blocked               // refused by what stands in front of the service
	silent                // accepts requests and answers none
	unreachable           // no connection
	misconfigured         // the credential, the deployment or the operation is not accepted
	outOfQuota            // the account has nothing left to spend
)

// needsChange reports whether a failure lasts until the configuration changes.
func (f failure) needsChange() bool { return f == misconfigured || f == outOfQuota }

// uncertain reports whether the request may have caused the failure. Such a
// failure counts only once another deployment has answered the same request.
func (f failure) uncertain() bool { return f == serverFailure || f == noAnswer || f == blocked }

// ejections says for each failure how many in a row are ignored, how long the
// next one ejects, and the longest time that doubling with each more leads to.
var ejections = [...]struct {
	ignored     int
	first, most time.Duration
}{
	// Over HTTP/2 and idle connections a reset is ordinary, and a PTU with one
	// 500 in a hundred must not stand idle.
	serverFailure: {1, time.Second, 10 * time.Second},
	noAnswer:      {1, 2 * time.Second, 30 * time.Second},
	// A firewall refuses a prompt, not a caller: it takes three different
	// requests in a row to tell that it refuses everything.
	blocked:       {2, 5 * time.Second, 30 * time.Second},
	silent:        {0, 5 * time.Second, 30 * time.Second},
	unreachable:   {0, 2 * time.Second, 30 * time.Second},
	misconfigured: {0, 5 * time.Second, 30 * time.Second},
	outOfQuota:    {0, 5 * time.Minute, 5 * time.Minute},
}

// probeClaim is how long one request alone may find out whether something that
// was ejected has recovered. A lost probe delays the next by no more.
const probeClaim = 10 * time.Second

// forgotten is after how long a failure does not count as one in a row.
const forgotten = 10 * time.Minute

// An ejection is our own judgement that something fails, from the failures in a
// row (outlier ejection). It ends with one half-open probe, a real request,
// whose success clears it.
type ejection struct {
	streak int
	cause  failure
	until  time.Time
	since  time.Time // of the last failure counted
	trial  bool      // ejected, until a probe succeeds
	probe  uint64    // number of the probe under way, 0 when there is none
	probes uint64    // probes so far
	reason string
}

// fail counts a failure that was seen at a time, of an attempt that was sent at
// another, and reports whether it did: attempts that were under way together
// count once. The time out varies with u, from 0 to 1, by a fifth either way.
func (e *ejection) fail(now, seen, sent time.Time, cause failure, reason string, u float64) bool {
	if sent.Before(e.since) || e.trial && sent.Equal(e.since) {
		return false
	}
	if seen.Sub(e.since) > forgotten {
		e.streak = 0
	}
	e.streak++
	e.cause, e.since, e.reason, e.probe = cause, seen, reason, 0
	rule := ejections[cause]
	n := e.streak - rule.ignored
	if n <= 0 {
		return true
	}
	out := rule.most
	if n < 16 {
		out = min(rule.first<<(n-1), rule.most)
	}
	e.until = now.Add(time.Duration(float64(out) * (0.8 + 0.4*u)))
	e.trial = true
	return true
}

// pardon takes back a failure that turned out to be the request's own: it
// failed everywhere. was is the ejection before that failure, and then the one
// it made. What was ejected already stays ejected.
func (e *ejection) pardon(was, then ejection) {
	switch {
	case *e == then && !was.trial:
		*e = was
	case *e == then:
		e.streak = was.streak
	case e.streak > 0:
		// Others were counted since.
		if e.streak--; e.streak <= ejections[e.cause].ignored {
			e.until, e.trial, e.probe = time.Time{}, false, 0
		}
	}
}

// silence ejects what has been silent since a time. One request asks again after
// half as long as that lasts, and so on.
func (e *ejection) silence(now, since time.Time) {
	e.streak++
	e.cause, e.reason, e.since, e.trial, e.probe = silent, "silent", since, true, 0
	e.until = now.Add(askAgain(now.Sub(since)))
}

func askAgain(silence time.Duration) time.Duration {
	rule := ejections[silent]
	return min(max(silence/2, rule.first), rule.most)
}

// succeed forgets every failure, unless the attempt is older than the last.
func (e *ejection) succeed(sent time.Time) {
	if !sent.Before(e.since) {
		*e = ejection{probes: e.probes}
	}
}

// claim asks to be the one request that probes, which is granted where no probe
// is needed, too. The number, if there is one, is to be given back with release.
func (e *ejection) claim(now time.Time) (ok bool, probe uint64) {
	if !e.trial {
		return true, 0
	}
	if now.Before(e.until) {
		return false, 0
	}
	next := probeClaim
	if e.cause == silent {
		next = askAgain(now.Sub(e.since))
	}
	e.probes++
	e.until, e.probe = now.Add(next), e.probes
	return true, e.probe
}

// release gives back the place of a probe whose request told nothing. That a
// caller left a deployment that is silent tells nothing new: it stays as it is.
func (e *ejection) release(now time.Time, probe uint64) {
	if probe == 0 || probe != e.probe {
		return
	}
	e.probe = 0
	if e.trial && e.cause != silent && e.until.After(now) {
		e.until = now
	}
}
