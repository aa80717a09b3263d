package spillover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/wire"
)

// applyOutcome applies what an attempt means, to the deployment and to the
// call. Its error ends the call: the caller has left.
func (c *call) applyOutcome(a *attempt, now time.Time, resp *http.Response, err error, o outcome) error {
	d := a.deployment
	if o.verdict == served || o.verdict == rejected {
		d.served.Add(1)
		d.ServedOperation(int(c.scope.op))
		d.LastServed.Set(now)
		c.recover(a, now, resp)
		d.tier.budget.Earn(1 + a.cost)
		c.countFailures(now, d) // confirmed by this response
		if o.verdict == served && c.seeking {
			c.found(now, d.backend)
		}
		if o.verdict == served && c.route != nil && c.route.model == manyModels {
			c.table.promote(c.model)
		}
		c.discard()
		return nil
	}
	c.release(a, now)
	if left := c.callerErr(); err != nil && left != nil {
		c.callerLeft()
		return c.leftWhile(left, a, now, o.notSent)
	}
	if o.final {
		// No other deployment can show whether the request is the cause.
		d.failed.Add(1)
		c.callerLeft()
		return nil
	}
	switch o.verdict {
	case throttled:
		d.throttled.Add(1)
		c.coolDown(c.throttleOf(d), d, now, health.Refusal{Sent: a.sentAt, RoundTrip: a.roundTrip}, o)
		c.throttled = true
		if !a.repeated {
			c.throttledBy = append(c.throttledBy, d)
		}
	case failed:
		d.failed.Add(1)
		a.transient = o.transient
		c.blame(a, now, o)
	}
	if o.tooLarge {
		c.excludeLimits(d.Limit.Load())
	}
	if o.verdict != throttled && o.cause != health.OutOfQuota {
		c.unsuitable = append(c.unsuitable, d)
		// A deployment that is known to fail, or never got the request, shows nothing
		// about the request.
		c.maybeRequestsFault = c.maybeRequestsFault || !o.deploymentOnly && !o.connect && !a.probablyFails()
		c.triedKnownFailing = c.triedKnownFailing || a.knownToFail
	}
	c.keepAnswer(d, resp, err, o)
	return nil
}

// leftWhile is the error of a call whose caller has left. After a deadline it says
// what the call was waiting for, and which attempts had failed before.
// A deadline that left more time than a response may take is a failure in Status and in
// the log. It is not held against the deployment: all of them may be slow.
func (c *call) leftWhile(cause error, a *attempt, now time.Time, notSent bool) error {
	deadline := errors.Is(cause, context.DeadlineExceeded) || errors.Is(c.Context().Err(), context.DeadlineExceeded)
	if !deadline {
		return cause
	}
	d, waited := a.deployment, now.Sub(a.sentAt)
	what, reason := "has not answered", "no answer in time"
	if notSent {
		what, reason = "has no token", "no token"
	}
	waiting := fmt.Sprintf("%s %s for %v", d.backend.name, what, waited.Round(time.Millisecond))
	if d.Overdue(waited) {
		c.unanswered = true
		c.failedAttempts = append(c.failedAttempts, failedAttempt{d, d.keepFailure(Failure{Time: now, Reason: reason, Cause: waiting})})
	}
	return &silentError{waiting, c.errs, cause}
}

// refreshKeys reads the key files that requests have not looked at for a while.
func (c *call) refreshKeys() {
	for _, b := range c.table.keyFiles {
		if now := time.Now(); b.keyFile.due.Passed(now) {
			c.refreshKey(b, now)
		}
	}
}

// refreshKey reads the key file of a backend. If the key has changed it forgets the
// failures that the new one may repair. If the file cannot be read the last key
// stays in use.
func (c *call) refreshKey(b *backend, now time.Time) {
	f := b.keyFile
	if b.latest.Load() != b || !f.reading.TryLock() {
		return // the configuration in force reads it, or another request
	}
	f.due.Set(now.Add(keyFileInterval))
	key, log, err := f.read()
	changed := err == nil && key != b.currentKey().secret
	if changed {
		b.setKey(key)
	}
	f.reading.Unlock()
	switch {
	case log:
		c.recorder.KeyNotRead(b.name, b.priority, f.path, err)
	case changed:
		c.recorder.KeyChanged(b.name, b.priority)
		c.recordRepaired(c.ctx, c.table.forgetFailures(map[*backend]bool{b: true}))
		c.pool.opened.notify()
	}
}

// recordRepaired records that deployments are available whose failures were
// forgotten.
func (s *activeConfig) recordRepaired(ctx context.Context, amended []*deployment) {
	now := time.Now()
	for _, d := range amended {
		s.recordTransition(ctx, &d.State, d, now, outcome{})
		for _, h := range d.Operations {
			s.recordTransition(ctx, h, d, now, outcome{})
		}
	}
}

// found records where the objects are that the request searched for.
func (c *call) found(now time.Time, b *backend) {
	for _, id := range c.ids {
		if !id.Uncertain {
			c.pool.stored.Put(now, id, b.resource)
		}
	}
}

// excludeLimits skips the deployments whose limit is not larger than one that
// was too small for the request.
func (c *call) excludeLimits(limit int64) {
	for d := range c.route.all {
		if l := d.Limit.Load(); l > 0 && l <= limit && !slices.Contains(c.tried, d) {
			c.tried, c.unsuitable = append(c.tried, d), append(c.unsuitable, d)
		}
	}
}

// throttleOf is what a rate limit is held against: the deployment, or the
// caller if the caller's own credential was limited.
func (c *call) throttleOf(d *deployment) *health.State {
	if c.scope.caller != noCredential && d.backend.usesCallerCredential() {
		return c.scope.callers.Change(health.CallerKey{Deployment: &d.Deployment, Caller: c.scope.caller, Part: 0})
	}
	return &d.State
}

// failureOf is what a failure is held against: the backend if there was no
// connection, the deployment if its account is out of quota, else one operation
// of the deployment. A failure of a caller's own credential is held against
// that caller only.
func (c *call) failureOf(d *deployment, o outcome) *health.State {
	switch {
	case o.connect:
		return &d.backend.State
	case o.cause == health.OutOfQuota && d.backend.usesCallerCredential():
		return c.scope.callers.Change(health.CallerKey{Deployment: &d.Deployment, Caller: c.scope.caller, Part: 0})
	case o.cause == health.OutOfQuota:
		return &d.State
	case o.cause == health.Misconfigured && !o.notSent && d.backend.usesCallerCredential():
		return c.scope.callers.Change(health.CallerKey{Deployment: &d.Deployment, Caller: c.scope.caller, Part: 1 + int(c.scope.op)})
	}
	return d.ChangeOperation(int(c.scope.op))
}

// coolDown leaves a deployment alone for the time that it asked for, within
// MaxCooldown.
func (c *call) coolDown(h *health.State, d *deployment, now time.Time, r health.Refusal, o outcome) {
	r.Wait, r.Reason = o.wait, o.reason
	r.ByChance = o.byChance || d.HasCapacity(now)
	if r.Wait <= 0 {
		r.Wait = c.cfg.DefaultCooldown
	}
	r.Wait = min(r.Wait, c.cfg.MaxCooldown)
	if taught := h.Refuse(now, r, unit(c.pool.random())); taught && h == &d.State {
		c.replica.tellThrottled(d, now, r.Sent, r.Wait)
	}
	c.recordTransition(h, d, now, o)
}

// blame holds a failure against what failed. A failure that the request may
// have caused counts only once another deployment has answered the request.
func (c *call) blame(a *attempt, now time.Time, o outcome) {
	d := a.deployment
	h := c.failureOf(d, o)
	if o.wait > 0 || o.cause.Uncertain() && !a.probablyFails() {
		c.deferFailure(provisionalFailure{health: h, d: d, outcome: o, sent: a.sentAt, seen: now, key: a.key()})
		return
	}
	c.countNow(h, d, a, now, o)
	if o.cause == health.OutOfQuota {
		for other := range c.route.all {
			if other != d && other.backend.sharesAccount(d.backend) && !slices.Contains(c.tried, other) {
				c.countNow(&other.State, other, a, now, o)
				c.tried = append(c.tried, other)
			}
		}
	}
}

// deferFailure keeps a failure until another deployment has answered, or all
// have failed. Several failures of one request count once, as the latest: the request
// may be the cause of all of them.
func (c *call) deferFailure(s provisionalFailure) {
	for i, earlier := range c.pendingFailures {
		if earlier.health == s.health && !earlier.counted {
			c.pendingFailures[i] = s
			return
		}
	}
	s.d.PendingFailures.Add(1)
	c.pendingFailures = append(c.pendingFailures, s)
}

// countNow counts a failure at once.
func (c *call) countNow(h *health.State, d *deployment, a *attempt, now time.Time, o outcome) {
	s := provisionalFailure{health: h, d: d, outcome: o, sent: a.sentAt, seen: now, key: a.key(), counted: true}
	if !s.count(c, now) {
		return
	}
	if !o.cause.Uncertain() {
		c.replica.tellEjected(h, d, now, a.sentAt, o)
	}
	// A request cannot cause that an account is out of quota, nor that there is no
	// token: this is never taken back.
	if o.notSent || o.cause == health.OutOfQuota && !d.backend.usesCallerCredential() {
		c.recordTransition(h, d, now, o)
		return
	}
	c.pendingFailures = append(c.pendingFailures, s)
}

// count counts a failure and reports whether it did.
func (s *provisionalFailure) count(c *call, now time.Time) (counted bool) {
	f := health.FailedAttempt{Sent: s.sent, Seen: s.seen, Cause: s.outcome.cause, Reason: s.outcome.reason,
		Earlier: s.d.Reports.Streak(now), Outdated: func() bool { return s.d.backend.reconfigured(s.key) }}
	s.undo, counted = s.health.Fail(now, f, unit(c.pool.random()))
	return counted
}

// A provisionalFailure is a failure that the request itself may have caused. It
// counts once another deployment answers the request. A failure that the
// response attributes to the deployment, such as a wrong credential, counts at
// once and is taken back if every deployment fails the request.
type provisionalFailure struct {
	health     *health.State
	d          *deployment
	outcome    outcome
	sent, seen time.Time
	key        string // the attempt was sent with it
	counted    bool
	undo       health.Undo // takes back what was counted
}

// interrupted counts a response that was interrupted. It does not count if the
// caller has left or closed the body.
func (a *attempt) interrupted(err error) {
	if a.ended.Load() || a.call.callerErr() != nil {
		return
	}
	a.bodyEnd.Store(endInterrupted)
	a.failLate(a.recordLate(outcome{verdict: failed, cause: health.NoAnswer, reason: "answer broke off", detail: err.Error()}))
}

// failedInStream counts an error in a stream that the caller already has.
func (a *attempt) failedInStream(problem []byte) {
	status, h := wire.StreamErrorStatus(a.header, problem)
	o := a.recordLate(judge(status, h, problem, a.call.Operation, time.Now()))
	switch {
	case o.verdict == throttled:
		a.call.coolDown(a.call.throttleOf(a.deployment), a.deployment, time.Now(), health.Refusal{Sent: a.sentAt, RoundTrip: a.roundTrip}, o)
	case o.verdict == failed && o.wait > 0:
		a.call.coolDown(&a.deployment.State, a.deployment, time.Now(), health.Refusal{Sent: a.sentAt, RoundTrip: a.roundTrip}, o)
	case o.verdict == failed:
		a.failLate(o)
	}
}

// failLate counts a failure of a response that had begun well, see
// [health.State.FailLate].
func (a *attempt) failLate(o outcome) {
	d, now := a.deployment, time.Now()
	d.failed.Add(1)
	h := a.call.failureOf(d, o)
	h.FailLate(now, health.FailedAttempt{Sent: a.sentAt, Seen: now, Cause: o.cause, Reason: o.reason}, a.before, unit(a.call.pool.random()))
	a.call.recordTransition(h, d, now, o)
}

// recover applies a success to everything that may have been held against the
// deployment.
func (c *call) recover(a *attempt, now time.Time, resp *http.Response) {
	d := a.deployment
	opened, ejected := false, false
	for _, h := range c.scope.healths(d) {
		if h == nil || !h.Troubled() {
			continue
		}
		if c.replica != nil {
			failures, _ := h.Failures()
			ejected = ejected || failures > 0
		}
		opened = h.Succeed(now, a.sentAt, a.lastResort) || opened
		c.recordTransition(h, d, now, a.successOf(resp))
	}
	c.replica.tellRecovered(d, now, a.sentAt, opened, ejected)
	if opened {
		c.pool.opened.notify()
	}
}

// readToEnd records that the response was read to its end.
func (a *attempt) readToEnd() {
	a.bodyEnd.Store(endComplete)
	a.deployment.Operation(int(a.call.scope.op)).ReadToEnd()
}

// pardonFailures drops the failures of a request that no deployment has
// answered: the request is taken for their cause.
func (c *call) pardonFailures() {
	opened := false
	for s := range c.resolved {
		if s.counted {
			now := time.Now()
			opened = s.health.Pardon(now, s.undo) || opened
			c.recordTransition(s.health, s.d, now, s.outcome)
		}
	}
	if opened {
		c.pool.opened.notify()
	}
}

// countFailures counts the failures of a request, but not those of the deployment
// that has answered it in the end. If no deployment has (by is nil), the request may
// be the cause after all, so the time that a failure asked for is not obeyed.
func (c *call) countFailures(now time.Time, by *deployment) {
	for s := range c.resolved {
		switch {
		case s.counted:
		case s.d == by:
			continue
		case s.outcome.wait > 0 && by != nil:
			c.coolDown(&s.d.State, s.d, s.seen, health.Refusal{Sent: s.sent}, s.outcome)
			continue
		default:
			if s.count(c, now) && by != nil {
				c.replica.tellEjected(s.health, s.d, now, s.sent, s.outcome)
			}
		}
		c.recordTransition(s.health, s.d, now, s.outcome)
	}
}

// resolved yields and removes every pending failure. Each is removed first,
// because handling it may panic in the program's logger.
func (c *call) resolved(yield func(provisionalFailure) bool) {
	for len(c.pendingFailures) > 0 {
		s := c.pendingFailures[0]
		if c.pendingFailures = c.pendingFailures[1:]; !s.counted {
			s.d.PendingFailures.Add(-1)
		}
		if !yield(s) {
			return
		}
	}
}
