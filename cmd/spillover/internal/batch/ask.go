package batch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// How a request is tried again after a 5xx or without a response. The transport has
// tried every deployment by then.
const (
	// maxFailures is how often a request fails, while others are answered, until the
	// request is assumed to be the cause.
	maxFailures = 5
	// maxFailing is how long a request is tried that fails while none is answered.
	maxFailing = 30 * time.Minute
	// firstBackoff is the pause after the first failure. It doubles up to maxBackoff.
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	// minPause is the pause after a refusal that names none.
	minPause = time.Second
	// waitedLong is how much longer than for its tier a request may wait in the
	// transport until there are enough of them.
	waitedLong = 2 * time.Second
)

// ask sends a request until there is an answer, and returns the answers that are final
// then: other ones may have waited for this one, or this one waits. When running ends, it
// gives the request up unless it was sent, and otherwise when sending ends.
func (b *Batch) ask(running, sending context.Context, r *request) []answer {
	if r.invalid != nil {
		return []answer{newAnswer(r, nil, r.invalid)}
	}
	flow := b.flows.of(r.model)
	var deadline time.Time // from the first try on
	var failing failures
	var t *try
	for {
		if err := acquire(running, flow, deadline, t != nil); errors.Is(err, context.DeadlineExceeded) && running.Err() == nil {
			return []answer{t.expired(r, b.options.GiveUpAfter)}
		} else if err != nil {
			return nil
		}
		begun := time.Now()
		if t == nil {
			deadline = begun.Add(b.options.GiveUpAfter)
		}
		t = b.send(running, sending, r)
		if running.Err() != nil && t.result != resultAnswered {
			flow.release(begun, resultLeft, 0)
			return nil
		}
		if t.result == resultAnswered && t.waited > b.options.TierWait+waitedLong {
			t.result = resultWaited
		}
		flow.release(begun, t.result, t.pause)
		wait := time.Duration(0)
		switch t.result {
		case resultAnswered, resultWaited:
			b.answered.Add(1)
			return b.settle(flow, r, t)
		case resultLeft:
			b.stopRun(t.err)
			return nil
		case resultFailed:
			wait = failing.next(b.answered.Load(), t.retryAfter)
			if wait < 0 {
				return []answer{t.answer(r)}
			}
		case resultRefused:
			wait = t.pause
		}
		if time.Now().Add(wait).After(deadline) {
			return []answer{t.expired(r, b.options.GiveUpAfter)}
		}
		if t.result == resultFailed && pause(running, wait) != nil {
			return nil
		}
	}
}

// settle returns the answers that are final with that to r. It ends the batch if every
// request is denied.
func (b *Batch) settle(f *flow, r *request, t *try) []answer {
	if t.response == nil {
		return []answer{t.answer(r)}
	}
	status := t.response.StatusCode
	final, denied := f.settle(t.answer(r), isDenial(status), &b.flows.allowed)
	if denied {
		b.stopRun(fmt.Errorf("access is denied, or a deployment is missing: the last %d requests for %s were answered %s",
			maxDenied, cmp.Or(redact.Brief(r.model), "no model"), describe(status, t.response.Body)))
	}
	return final
}

// acquire waits for a place of a flow. A request that has been tried before waits until
// the deadline only.
func acquire(ctx context.Context, f *flow, deadline time.Time, again bool) error {
	if again {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	return f.acquire(ctx, again)
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Failures are those of one request.
type failures struct {
	counted int
	all     int
	since   time.Time
	others  int64 // requests that had been answered at the last one
}

// next counts a failure, and returns how long to wait. It is negative if the request is
// not tried again.
func (f *failures) next(answered int64, retryAfter time.Duration) time.Duration {
	now := time.Now()
	if f.all == 0 {
		f.since = now
	}
	if f.all == 0 || answered > f.others {
		f.counted++
	}
	f.others = answered
	f.all++
	if f.counted >= maxFailures || now.Sub(f.since) > maxFailing {
		return -1
	}
	wait := min(firstBackoff<<min(f.all-1, 10), maxBackoff)
	wait = wait/2 + rand.N(wait/2+1)
	return max(wait, min(retryAfter, maxBackoff))
}

// A try is what one send of a request has led to.
type try struct {
	result     result
	response   *responseObject // nil without a response
	backend    string
	err        *tryError     // nil with a response that is an answer
	pause      time.Duration // of a refusal
	waited     time.Duration // before it was sent
	retryAfter time.Duration // of a failure; 0 if the response names none
}

// A tryError is why there is no usable response.
type tryError struct {
	code string
	err  error
}

func (e *tryError) Error() string { return e.err.Error() }
func (e *tryError) Unwrap() error { return e.err }

// answer is that of a request which is not tried again.
func (t *try) answer(r *request) answer {
	if t.response == nil {
		return newAnswer(r, nil, &lineError{Code: t.err.code, Message: t.err.Error()})
	}
	a := newAnswer(r, t.response, nil)
	a.backend = t.backend
	if !a.failed {
		a.tokens = usageOf(t.response.Body)
	}
	return a
}

// expired is the answer of a request that has been tried for too long.
func (t *try) expired(r *request, after time.Duration) answer {
	last := "the last try had no response"
	switch {
	case t.response != nil:
		last = fmt.Sprintf("the last response was a %d", t.response.StatusCode)
	case t.err != nil:
		last = "the last error: " + t.err.Error()
	}
	return newAnswer(r, nil, &lineError{Code: codeExpired, Message: fmt.Sprintf("not answered in %v; %s", after, last)})
}

func tooLongRequest(line int64, most int) *request {
	return &request{line: line, invalid: &lineError{codeLineTooLong,
		fmt.Sprintf("line %d: longer than %d bytes", line, most), line, ""}}
}

// baseURL is where requests seem to go. The transport replaces it.
const baseURL = "http://spillover.invalid"

// send sends a request once.
func (b *Batch) send(running, sending context.Context, r *request) *try {
	ctx, out := b.outgoing(running, sending)
	defer out.end()
	target := baseURL + r.path
	if r.query != "" {
		target += "?" + r.query
	}
	in, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(r.body))
	if err != nil { // a query that cannot be sent
		return &try{result: resultAnswered, err: &tryError{codeInvalidURL, err}}
	}
	in.Header.Set("Content-Type", "application/json")
	in.Header.Set("Accept", "application/json")
	resp, err := b.options.Transport.RoundTrip(in)
	if err != nil {
		return failedTry(ctx, err)
	}
	defer resp.Body.Close()
	out.responded()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseSize+1))
	switch {
	case err != nil:
		return failedTry(ctx, err)
	case len(body) > maxResponseSize:
		return &try{result: resultAnswered, err: &tryError{codeInvalidResponse, fmt.Errorf("the response is longer than %d bytes", maxResponseSize)}}
	}
	return judge(resp, body)
}

func failedTry(ctx context.Context, err error) *try {
	code := codeRequestFailed
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		code = codeTimeout
	}
	return &try{result: resultFailed, err: &tryError{code, err}}
}

// judge decides what a response means.
func judge(resp *http.Response, body []byte) *try {
	id := resp.Header.Get("X-Request-Id")
	if id == "" {
		id = resp.Header.Get("Apim-Request-Id")
	}
	t := &try{
		response: &responseObject{resp.StatusCode, id, body}, backend: resp.Header.Get("X-Spillover-Backend"),
		retryAfter: retryAfter(resp.Header),
	}
	if ms, err := strconv.ParseInt(resp.Header.Get("X-Spillover-Waited-Ms"), 10, 64); err == nil {
		t.waited = time.Duration(ms) * time.Millisecond
	}
	local := resp.Header.Get("X-Spillover-Synthesized") == "true"
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized,
		status == http.StatusTooManyRequests && resp.Header.Get("X-Should-Retry") == "false":
		// Another try would be of no use, neither for this request nor for others.
		t.result, t.err = resultLeft, &tryError{err: errors.New(describe(status, body))}
	case status == http.StatusTooManyRequests && local:
		t.result, t.pause = resultRefused, t.retryAfter
		if t.pause <= 0 {
			t.pause = minPause
		}
	case isTransient(status):
		// A 429 of a service itself is here if the request exceeds the whole limit of a
		// deployment. The transport replaces all others.
		t.result = resultFailed
	case status < 300 && !json.Valid(body):
		t.result, t.response = resultFailed, nil
		t.err = &tryError{codeInvalidResponse, fmt.Errorf("the body of a %d is not JSON", status)}
	}
	return t
}

// retryAfter is the wait that a response names.
func retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.ParseInt(h.Get("Retry-After-Ms"), 10, 64); err == nil && ms > 0 && ms < int64(maxHint/time.Millisecond) {
		return time.Duration(ms) * time.Millisecond
	}
	if s, err := strconv.ParseInt(h.Get("Retry-After"), 10, 64); err == nil && s > 0 && s < int64(maxHint/time.Second) {
		return time.Duration(s) * time.Second
	}
	return 0
}

// maxHint is the longest wait that is believed: Config.MaxCooldown is at most as long.
const maxHint = 91 * 24 * time.Hour

// describe is an error response as it may be shown: its status, and the message in its
// body or the beginning of that.
func describe(status int, body []byte) string {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	message := string(body)
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		message = e.Error.Message
	}
	return fmt.Sprintf("%d %s: %s", status, http.StatusText(status), redact.Text(message))
}
