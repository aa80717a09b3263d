package spillover

import (
	"context"
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// A Trail is how a request was routed: which deployments were considered, why each
// was skipped, what was sent, and what came back. It can be marshaled as JSON. Its
// size is bounded, and it has neither credentials nor anything of a body.
type Trail struct {
	Model   string      `json:"model,omitempty"`            // what the caller asked for
	Tags    []string    `json:"tags,omitempty"`             // that a backend must have, at most 64
	Class   string      `json:"class,omitempty"`            // interactive or background
	Session bool        `json:"session,omitempty"`          // whether session affinity applies
	Tokens  int64       `json:"estimated_tokens,omitempty"` // what the request is expected to cost
	Steps   []TrailStep `json:"steps,omitempty"`            // in order, at most 64
	More    int         `json:"more_steps,omitempty"`       // steps beyond those

	Outcome string `json:"outcome,omitempty"` // as in metrics, such as served; see docs/telemetry.md
	Status  int    `json:"status,omitempty"`  // of the response; 0 without one
	Backend string `json:"backend,omitempty"` // that gave the response; "" if none did
	Error   string `json:"error,omitempty"`   // of RoundTrip, at most 256 bytes of printable ASCII

	next TrailStep // with the candidates that were considered last
}

// A TrailStep is one decision about a request.
type TrailStep struct {
	Time   time.Time `json:"time"`          // when it was made; of a send, when the request was sent
	Action string    `json:"action"`        // send, wait or reply; see the constants Trail…
	Why    string    `json:"why,omitempty"` // what is special about it, such as "half-open probe"

	// Candidates are the deployments that were considered, tier by tier, at most 64.
	Candidates []TrailCandidate `json:"candidates,omitempty"`
	More       int              `json:"more_candidates,omitempty"` // beyond those

	Attempt  *TrailAttempt `json:"attempt,omitempty"`   // of [TrailSend]
	WaitedMS int64         `json:"waited_ms,omitempty"` // of [TrailWait], in milliseconds
}

// What a step of a [Trail] is.
const (
	TrailSend  = "send"  // the request was sent to a deployment
	TrailWait  = "wait"  // it waited for a deployment
	TrailReply = "reply" // no deployment could take it: the response or the error is generated here
)

// A TrailCandidate is a deployment that was considered.
type TrailCandidate struct {
	Backend    string    `json:"backend"`              // its name
	Model      string    `json:"model,omitempty"`      // that callers ask for; "" for requests without a model
	Deployment string    `json:"deployment,omitempty"` // the backend's name for the model
	Priority   int       `json:"priority"`             // the tier, from 1
	Skipped    string    `json:"skipped,omitempty"`    // why it could not be chosen; "" if it could. A last resort has both this and Chosen
	Until      time.Time `json:"until,omitzero"`       // when what closes it ends; zero if nothing does, or nobody knows
	Chosen     bool      `json:"chosen,omitempty"`     // whether the request is sent to it
}

// A TrailAttempt is one send to a deployment.
type TrailAttempt struct {
	Backend    string `json:"backend"`              // its name
	Deployment string `json:"deployment,omitempty"` // the backend's name for the model
	Outcome    string `json:"outcome"`              // as in metrics: served, rejected, throttled, declined, failed or canceled
	Status     int    `json:"status,omitempty"`     // of the response; 0 without one
	Reason     string `json:"reason,omitempty"`     // short, such as "429 rate_limit_exceeded"
	Cause      string `json:"cause,omitempty"`      // as [Failure] has it
	TookMS     int64  `json:"took_ms"`              // until the outcome was known, in milliseconds
}

const (
	maxTrailSteps      = 64
	maxTrailCandidates = 64
)

// WithTrail fills t when a request with the context has been sent: after RoundTrip,
// t has how that request was routed. A later request with the same context replaces
// it, such as a retry by an SDK. Requests that run at the same time need a Trail
// each. A response that breaks off after RoundTrip has returned is not in it.
// [Transport.Explain] makes a Trail without sending.
func WithTrail(ctx context.Context, t *Trail) context.Context {
	return withOptions(ctx, func(o *options) { o.trail = t })
}

// begin starts the trail of a request, once the request has been read.
func (t *Trail) begin(model string, tags []string, class Class, session bool, tokens int64) {
	*t = Trail{Model: redact.Brief(model), Class: class.String(), Session: session, Tokens: tokens}
	for _, tag := range tags[:min(len(tags), maxTags)] {
		t.Tags = append(t.Tags, redact.Brief(tag))
	}
}

// step is a new step with the candidates that were considered last.
func (t *Trail) step(now time.Time, action string) TrailStep {
	s := t.next
	t.next = TrailStep{}
	s.Time, s.Action = now, action
	return s
}

// add adds a step.
func (t *Trail) add(s TrailStep) {
	if len(t.Steps) >= maxTrailSteps {
		t.More++
		return
	}
	t.Steps = append(t.Steps, s)
}

// addWait adds a wait that has just ended.
func (t *Trail) addWait(from time.Time, why string) {
	s := t.step(from, TrailWait)
	s.Why, s.WaitedMS = why, time.Since(from).Milliseconds()
	if n := len(t.Steps); n > 0 && t.More == 0 && t.Steps[n-1].Action == TrailWait && t.Steps[n-1].Why == why {
		last := &t.Steps[n-1] // the same wait: it has only looked again
		last.WaitedMS += s.WaitedMS
		last.Candidates, last.More = s.Candidates, s.More
		return
	}
	t.add(s)
}

// markChosen marks a deployment that the request is sent to.
func (s *TrailStep) markChosen(d *deployment) {
	for i := range s.Candidates {
		if c := &s.Candidates[i]; c.Backend == d.backend.name && c.Model == redact.Brief(d.model) {
			c.Chosen = true
		}
	}
}
