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

var (
	errLeft   = errors.New("the batch ends")
	errDenied = errors.New("access is denied, or a deployment is missing")
)

// ask sends a request until there is an answer. When running ends, it gives the request up
// unless it was sent, and otherwise when sending ends. Its only error means that there is
// no answer.
func (b *Batch) ask(running, sending context.Context, r *request) (answer, error) {
	if r.invalid != nil {
		return newAnswer(r, nil, r.invalid), nil
	}
	flow := b.flows.of(r.model)
	var deadline time.Time // from the first try on
	var failing failures
	var t *try
	for {
		if err := acquire(running, flow, deadline, t != nil); errors.Is(err, context.DeadlineExceeded) && running.Err() == nil {
			return t.expired(r, b.options.GiveUpAfter), nil
		} else if err != nil {
			return answer{}, errLeft
		}
		begun := time.Now()
		if t == nil {
			deadline = begun.Add(b.options.GiveUpAfter)
		}
		t = b.send(running, sending, r)
		if running.Err() != nil && !t.final(context.Cause(running)) {
			flow.release(begun, resultLeft, 0)
			return answer{}, errLeft
		}
		if t.result == resultAnswered && t.waited > b.options.TierWait+waitedLong {
			t.result = resultWaited
		}
		flow.release(begun, t.result, t.pause)
		wait := time.Duration(0)
		switch t.result {
		case resultAnswered, resultWaited:
			b.sent.Add(1)
			if resp := t.response; resp != nil && flow.allDenied(resp.StatusCode, &b.flows.allowed) {
				b.stopRun(fmt.Errorf("%w: the last %d requests for %s were answered %d %s: %s", errDenied, maxDenied,
					cmp.Or(r.model, "no model"), resp.StatusCode, http.StatusText(resp.StatusCode), messageOf(resp.Body)))
			}
			return t.answer(r), nil
		case resultLeft:
			b.stopRun(t.err)
			return answer{}, errLeft
		case resultFailed:
			wait = failing.next(b.sent.Load(), t.retryAfter)
			if wait < 0 {
				return t.answer(r), nil
			}
		case resultRefused:
			wait = t.pause
		}
		if time.Now().Add(wait).After(deadline) {
			return t.expired(r, b.options.GiveUpAfter), nil
		}
		if t.result == resultFailed && pause(running, wait) != nil {
			return answer{}, errLeft
		}
	}
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

// final reports whether a try is an answer, although the batch ends.
func (t *try) final(why error) bool {
	if errors.Is(why, errDenied) && t.response != nil && isDenial(t.response.StatusCode) {
		return false // this one was not wrong either
	}
	return t.result == resultAnswered
}

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
	ctx, end := b.outgoing(running, sending)
	defer end()
	ctx, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
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
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
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
		t.result, t.err = resultLeft, &tryError{err: fmt.Errorf("%d %s: %s", status, http.StatusText(status), messageOf(body))}
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

// messageOf is the message in the body of an error, or its beginning.
func messageOf(body []byte) string {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		return e.Error.Message
	}
	return string(body[:min(len(body), 200)])
}
