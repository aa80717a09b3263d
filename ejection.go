package spillover

import "time"

// A failure is what an attempt failed of, when that was not a throttle.
type failure int

const (
	noFailure     failure = iota
	serverFailure         // a 5xx
	noAnswer              // no connection, a broken one, or no header in time
	misconfigured         // the credential or the deployment is not accepted
	outOfQuota            // the account has nothing left to spend
)

// needsChange tells of a failure that waiting does not mend, but another
// configuration may.
func (f failure) needsChange() bool { return f == misconfigured || f == outOfQuota }

// ejections says for each failure how many in a row are forgiven, how long the
// next takes a deployment out, and where doubling that with each more ends.
var ejections = [...]struct {
	forgiven    int
	first, most time.Duration
}{
	// A PTU with one 500 in a hundred must not stand idle.
	serverFailure: {1, time.Second, 10 * time.Second},
	noAnswer:      {0, 2 * time.Second, 30 * time.Second},
	misconfigured: {0, 5 * time.Second, 30 * time.Second},
	outOfQuota:    {0, 5 * time.Minute, 5 * time.Minute},
}

// probeClaim is how long one request alone may find out whether something that
// was out is back. A probe that is lost delays the next by no more.
const probeClaim = 10 * time.Second

// forgotten is after how long a failure does not count as one in a row.
const forgotten = 10 * time.Minute

// An ejection is our own judgement that something fails, out of the failures
// in a row. It ends with one probe, a real request, whose success clears it.
type ejection struct {
	streak  int
	cause   failure
	until   time.Time
	since   time.Time // of the last failure counted
	trial   bool      // out, until a probe succeeds
	claimed bool      // a probe is under way
	reason  string
}

// fail counts a failure of an attempt that was sent at a time and reports
// whether it did: attempts that were under way together tell one thing only.
// The time out varies with u, from 0 to 1, by a fifth either way.
func (e *ejection) fail(now, sent time.Time, cause failure, reason string, u float64) bool {
	if e.trial && !sent.After(e.since) {
		return false
	}
	if now.Sub(e.since) > forgotten {
		e.streak = 0
	}
	e.streak++
	e.cause, e.since, e.reason, e.claimed = cause, now, reason, false
	rule := ejections[cause]
	n := e.streak - rule.forgiven
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
// it made. What was out already stays out.
func (e *ejection) pardon(was, then ejection) {
	switch {
	case *e == then && !was.trial:
		*e = was
	case *e == then:
		e.streak = was.streak
	case e.streak > 0:
		// Others were counted since.
		if e.streak--; e.streak <= ejections[e.cause].forgiven {
			e.until, e.trial = time.Time{}, false
		}
	}
}

// succeed forgets every failure, unless the attempt is older than the last.
func (e *ejection) succeed(sent time.Time) {
	if !sent.Before(e.since) {
		*e = ejection{}
	}
}

// claim asks to be the one request that probes. It is granted where no probe
// is needed, too.
func (e *ejection) claim(now time.Time) bool {
	if !e.trial {
		return true
	}
	if now.Before(e.until) {
		return false
	}
	e.until, e.claimed = now.Add(probeClaim), true
	return true
}

// release gives back a claim whose request told nothing.
func (e *ejection) release(now time.Time) {
	if e.trial && e.until.After(now) {
		e.until = now
	}
	e.claimed = false
}
