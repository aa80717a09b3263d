package health

import "time"

// A Cause is what an attempt failed of, when that was not a throttle.
type Cause int

const (
	NoFailure     Cause = iota
	ServerFailure       // a 5xx
	NoAnswer            // a broken connection, or no answer in time
	Blocked             // refused by what stands in front of the service
	Silent              // accepts requests and answers none
	Unreachable         // no connection
	Misconfigured       // the credential, the deployment or the operation is not accepted
	OutOfQuota          // the account has nothing left to spend
)

// NeedsChange reports whether a failure lasts until the configuration changes.
func (f Cause) NeedsChange() bool { return f == Misconfigured || f == OutOfQuota }

// Uncertain reports whether the request may have caused the failure. Such a
// failure counts only once another deployment has answered the same request.
func (f Cause) Uncertain() bool { return f == ServerFailure || f == NoAnswer || f == Blocked }

// Ejections says for each failure how many in a row are ignored, how long the
// next one ejects, and the longest time that doubling with each more leads to.
var Ejections = [...]struct {
	Ignored     int
	First, Most time.Duration
}{
	// Over HTTP/2 and idle connections a reset is ordinary, and a PTU with one
	// 500 in a hundred must not stand idle.
	ServerFailure: {1, time.Second, 10 * time.Second},
	NoAnswer:      {1, 2 * time.Second, 30 * time.Second},
	// A firewall refuses a prompt, not a caller: it takes three different
	// requests in a row to tell that it refuses everything.
	Blocked:       {2, 5 * time.Second, 30 * time.Second},
	Silent:        {0, 5 * time.Second, 30 * time.Second},
	Unreachable:   {0, 2 * time.Second, 30 * time.Second},
	Misconfigured: {0, 5 * time.Second, 30 * time.Second},
	OutOfQuota:    {0, 5 * time.Minute, 5 * time.Minute},
}

// ProbeClaim is how long one request alone may find out whether something that
// was ejected has recovered. A lost probe delays the next by no more.
const ProbeClaim = 10 * time.Second

// forgotten is after how long a failure does not count as one in a row.
const forgotten = 10 * time.Minute

// An Ejection is our own judgement that something fails, from the failures in a
// row (outlier ejection). It ends with one half-open probe, a real request,
// whose success clears it.
type Ejection struct {
	Streak int
	Cause  Cause
	Until  time.Time
	Since  time.Time // of the last failure counted
	Active bool      // ejected, until a probe succeeds
	Probe  uint64    // number of the probe under way, 0 when there is none
	Probes uint64    // probes so far
	Reason string
}

// Fail counts a failure that was seen at a time, of an attempt that was sent at
// another, and reports whether it did: attempts that were under way together
// count once. The time out varies with u, from 0 to 1, by a fifth either way.
func (e *Ejection) Fail(now, seen, sent time.Time, cause Cause, reason string, u float64) bool {
	if sent.Before(e.Since) || e.Active && sent.Equal(e.Since) {
		return false
	}
	if seen.Sub(e.Since) > forgotten {
		e.Streak = 0
	}
	e.Streak++
	e.Cause, e.Since, e.Reason, e.Probe = cause, seen, reason, 0
	rule := Ejections[cause]
	n := e.Streak - rule.Ignored
	if n <= 0 {
		return true
	}
	out := rule.Most
	if n < 16 {
		out = min(rule.First<<(n-1), rule.Most)
	}
	e.Until = now.Add(time.Duration(float64(out) * (0.8 + 0.4*u)))
	e.Active = true
	return true
}

// Pardon takes back a failure that turned out to be the request's own: it
// failed everywhere. was is the ejection before that failure, and then the one
// it made. What was ejected already stays ejected.
func (e *Ejection) Pardon(was, then Ejection) {
	switch {
	case *e == then && !was.Active:
		*e = was
	case *e == then:
		e.Streak = was.Streak
	case e.Streak > 0:
		// Others were counted since.
		if e.Streak--; e.Streak <= Ejections[e.Cause].Ignored {
			e.Until, e.Active, e.Probe = time.Time{}, false, 0
		}
	}
}

// silence ejects what has been silent since a time. One request asks again after
// half as long as that lasts, and so on.
func (e *Ejection) silence(now, since time.Time) {
	e.Streak++
	e.Cause, e.Reason, e.Since, e.Active, e.Probe = Silent, "silent", since, true, 0
	e.Until = now.Add(askAgain(now.Sub(since)))
}

func askAgain(silence time.Duration) time.Duration {
	rule := Ejections[Silent]
	return min(max(silence/2, rule.First), rule.Most)
}

// Succeed forgets every failure, unless the attempt is older than the last.
func (e *Ejection) Succeed(sent time.Time) {
	if !sent.Before(e.Since) {
		*e = Ejection{Probes: e.Probes}
	}
}

// Claim asks to be the one request that probes, which is granted where no probe
// is needed, too. The number, if there is one, is to be given back with release.
func (e *Ejection) Claim(now time.Time) (ok bool, probe uint64) {
	if !e.Active {
		return true, 0
	}
	if now.Before(e.Until) {
		return false, 0
	}
	next := ProbeClaim
	if e.Cause == Silent {
		next = askAgain(now.Sub(e.Since))
	}
	e.Probes++
	e.Until, e.Probe = now.Add(next), e.Probes
	return true, e.Probe
}

// Release gives back the place of a probe whose request told nothing. That a
// caller left a deployment that is silent tells nothing new: it stays as it is.
func (e *Ejection) Release(now time.Time, probe uint64) {
	if probe == 0 || probe != e.Probe {
		return
	}
	e.Probe = 0
	if e.Active && e.Cause != Silent && e.Until.After(now) {
		e.Until = now
	}
}
