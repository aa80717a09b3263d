package telemetry

import (
	"cmp"
	"context"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/redact"
)

// A Request is one request that is recorded: Start, any number of attempts, Return,
// End. Nothing is computed while nobody listens.
type Request struct {
	Begun time.Time // when the request came: set before Start

	recorder     *Recorder
	span         trace.Span // nil before Start
	enabled      bool       // somebody listens
	streams      bool
	Background   bool // its class, or else interactive: set before Start
	firstContent time.Duration
	model        string
}

// Start starts the request's span, and returns the context with it: that of the
// other methods.
func (q *Request) Start(ctx context.Context, r *Recorder, operation, model string) context.Context {
	q.recorder, q.model = r, model
	ctx, q.span = r.startRequest(ctx, operation, model)
	q.enabled = q.span.IsRecording() || r.instruments.enabled(ctx)
	return ctx
}

// Started reports whether Start was called.
func (q *Request) Started() bool { return q.span != nil }

// Enabled reports whether what is handed over is recorded. Nothing depends on asking.
func (q *Request) Enabled() bool { return q.enabled }

// A Response is what a request is answered, when RoundTrip returns.
type Response struct {
	Outcome     string
	Synthesized bool // by spillover itself
	Status      int
	Streams     bool
	Deployment  *Deployment // that gave it; nil if there is nothing to read of it
	Waited      time.Duration
}

// Return records what is known of a request when RoundTrip returns, with a response
// or without.
func (q *Request) Return(ctx context.Context, p Response) {
	if !q.enabled {
		return
	}
	r := q.recorder
	q.firstContent, q.streams = time.Since(q.Begun), p.Streams
	if p.Waited > 0 {
		r.waits.Record(ctx, p.Waited.Seconds(), newLabels(q.withModel(q.class())...).record...)
	}
	switch d := p.Deployment; {
	case p.Synthesized:
		r.synthesized.Add(ctx, 1, newLabels(q.withModel(keyStatus.Int(p.Status))...).add...)
	case p.Outcome == outcomeServed && d != nil:
		if d.Name != "" && r.labels(d).model == otherModels {
			r.served.add(d.Model)
		}
		r.firstContent.Record(ctx, q.firstContent.Seconds(), r.labels(d).all.record...)
	}
}

// A RequestEnd is how a request ended, with its response body.
type RequestEnd struct {
	Outcome   string
	ErrorType string // "" without an error
	ErrorText string // more about it; safe to show, may be empty
	Attempts  int
	Waited    time.Duration

	// Of the attempt that gave the response. Deployment is nil where none did.
	Deployment    *Deployment
	URL           *url.URL
	Status        int
	Input, Output int64 // tokens
}

// End records a request that has ended and ends its span.
func (q *Request) End(ctx context.Context, e RequestEnd) {
	if q.enabled {
		q.count(ctx, e)
	}
	if q.span.IsRecording() {
		attributes := []attribute.KeyValue{q.class(), keyOutcome.String(e.Outcome), keyAttempts.Int(e.Attempts)}
		if e.Waited > 0 {
			attributes = append(attributes, keyWaited.Float64(e.Waited.Seconds()))
		}
		if d := e.Deployment; d != nil {
			attributes = append(attributes, keyProvider.String(d.Provider), keyBackend.String(d.Backend), keyStatus.Int(e.Status))
			attributes = append(attributes, serverAddress(e.URL)...)
			if e.Input+e.Output > 0 {
				attributes = append(attributes, keyInput.Int64(e.Input), keyOutput.Int64(e.Output))
			}
		}
		if q.streams {
			attributes = append(attributes, keyStream.Bool(true), keyFirstChunk.Float64(q.firstContent.Seconds()))
		}
		q.span.SetAttributes(attributes...)
	}
	endSpan(q.span, e.ErrorType, e.ErrorText)
}

func (q *Request) count(ctx context.Context, e RequestEnd) {
	r, took := q.recorder, time.Since(q.Begun).Seconds()
	if e.Deployment != nil && e.Outcome == outcomeServed {
		l := &r.labels(e.Deployment).request[q.classIndex()]
		r.requests.Add(ctx, 1, l.add...)
		r.duration.Record(ctx, took, l.record...)
		return
	}
	attributes := q.withModel(q.class(), keyOutcome.String(e.Outcome))
	if e.Deployment != nil {
		attributes = append(attributes, keyTier.Int(e.Deployment.Tier))
	}
	r.duration.Record(ctx, took, newLabels(attributes...).record...)
	if e.ErrorType != "" {
		attributes = append(attributes, keyErrorType.String(e.ErrorType))
	}
	r.requests.Add(ctx, 1, newLabels(attributes...).add...)
}

// class is the attribute of the request's class.
func (q *Request) class() attribute.KeyValue { return classes[q.classIndex()] }

func (q *Request) classIndex() int {
	if q.Background {
		return 1
	}
	return 0
}

// withModel adds the label of the request's model to attributes.
func (q *Request) withModel(attributes ...attribute.KeyValue) []attribute.KeyValue {
	return withModel(q.recorder.modelLabel(q.model), attributes...)
}

// An Attempt is the span of one attempt. The zero Attempt has none.
type Attempt struct {
	span trace.Span // nil when there is none, and once it has ended
}

// An AttemptStart is an attempt that is about to be sent.
type AttemptStart struct {
	Deployment *Deployment
	Method     string
	URL        *url.URL
	Resend     int       // attempts before it
	Began      time.Time // zero: now
}

// StartAttempt starts the attempt's span and returns the context with it. It is not
// ok when there is none, as the request's is not recorded.
func (q *Request) StartAttempt(ctx context.Context, a *Attempt, s AttemptStart) (_ context.Context, ok bool) {
	if !q.span.IsRecording() {
		return ctx, false
	}
	name, method := spanMethod(s.Method)
	d := s.Deployment
	attributes := append(serverAddress(s.URL), keyMethod.String(method), keyURL.String(fullURL(s.URL)),
		keyBackend.String(d.Backend), keyTier.Int(d.Tier), keyDeployment.String(redact.Sanitize(cmp.Or(d.Name, q.model))))
	if s.Resend > 0 {
		attributes = append(attributes, keyResend.Int(s.Resend))
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...)}
	if !s.Began.IsZero() {
		options = append(options, trace.WithTimestamp(s.Began))
	}
	ctx, a.span = q.recorder.tracer.Start(ctx, name, options...)
	return ctx, true
}

// An AttemptEnd is how an attempt ended.
type AttemptEnd struct {
	Deployment    *Deployment
	Outcome       string
	ErrorType     string // "" without an error
	ErrorText     string // more about it; safe to show, may be empty
	Status        int    // of the response's header; 0 without one
	Input, Output int64  // tokens
}

// EndAttempt records an attempt and ends its span. It is called once.
func (q *Request) EndAttempt(ctx context.Context, a *Attempt, e AttemptEnd) {
	if q.enabled {
		r, l := q.recorder, q.recorder.labels(e.Deployment)
		counted := l.served
		if e.Outcome != outcomeServed {
			counted = l.with(keyOutcome.String(e.Outcome), keyErrorType.String(e.ErrorType))
		}
		r.attempts.Add(ctx, 1, counted.add...)
		if e.Input > 0 {
			r.tokens.Add(ctx, e.Input, l.input.add...)
		}
		if e.Output > 0 {
			r.tokens.Add(ctx, e.Output, l.output.add...)
		}
	}
	a.end(e.Status, e.ErrorType, e.ErrorText)
}

// Abort ends the attempt's span, if there is one that has not ended yet, and counts
// nothing.
func (a *Attempt) Abort(status int, errorType string) { a.end(status, errorType, "") }

func (a *Attempt) end(status int, errorType, errorText string) {
	if a.span == nil {
		return
	}
	if status != 0 {
		a.span.SetAttributes(keyStatus.Int(status))
	}
	endSpan(a.span, errorType, errorText)
	a.span = nil
}
