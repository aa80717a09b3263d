package spillover

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// RetryClient returns an HTTP client for SDKs that never retry, such as
// github.com/sashabaranov/go-openai. It sends requests by base: a [Transport],
// or one that is wrapped, as in otelhttp.NewTransport(lb); nil means
// [http.DefaultTransport]. When every deployment is rate-limited it waits as
// long as the transport's 429 says and asks again, at most maxRetries times;
// less than 1 means never. After other retryable results (408, 5xx, no
// deployment answered) it backs off for half a second and then twice as long each time, at
// most 8 s, and only if the request creates nothing at the service.
//
// It does not wait if that is of no use: for longer than two minutes, beyond
// the deadline of the request's context, or if the response has X-Should-Retry:
// false. Then it returns the last response.
//
// Do not use it under SDKs that retry by themselves: the numbers of retries
// multiply.
func RetryClient(base http.RoundTripper, maxRetries int) *http.Client {
	if base == nil {
		base = http.DefaultTransport
	}
	return &http.Client{Transport: &retrier{base, max(0, maxRetries)}}
}

// The longest wait, and the shortest and longest backoff after responses that
// name no time.
const (
	maxRetryWait   = 2 * time.Minute
	firstRetryWait = 500 * time.Millisecond
	mostRetryWait  = 8 * time.Second
)

type retrier struct {
	base       http.RoundTripper
	maxRetries int
}

// CloseIdleConnections closes the idle connections of the base, if it can.
func (r *retrier) CloseIdleConnections() {
	if c, ok := r.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (r *retrier) RoundTrip(in *http.Request) (*http.Response, error) {
	w := waiter{request: newRequest(in)}
	w.request.readPath()
	defer w.request.body.Close()
	if err := w.read(); err != nil {
		return nil, err
	}
	b := &w.request.body
	out := in.WithContext(in.Context())
	if b.Present && !b.CanRepeat() {
		out.Body = b.TakeOriginal()
		return r.handOver(in)(r.base.RoundTrip(out))
	}
	again := &retryablehttp.Request{Request: out}
	if b.Present {
		// SetBody asks for a body to find its length, which is known.
		body := func() (io.Reader, error) { return http.NoBody, nil }
		if err := again.SetBody(retryablehttp.ReaderFunc(func() (io.Reader, error) { return body() })); err != nil {
			return nil, err
		}
		body = func() (io.Reader, error) { return b.Next(in.Context()) }
		out.ContentLength, out.GetBody = b.Length, func() (io.ReadCloser, error) { return b.Next(in.Context()) }
	}
	client := retryablehttp.Client{
		HTTPClient: &http.Client{
			// Only RoundTrip is passed on: go-retryablehttp closes all idle
			// connections after each request that it gives up.
			Transport:     struct{ http.RoundTripper }{r.base},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		RetryMax:   r.maxRetries,
		CheckRetry: w.check,
		Backoff:    w.sleep,
		ErrorHandler: func(resp *http.Response, err error, _ int) (*http.Response, error) {
			if resp != nil {
				return resp, nil // not both, as the package's own handler does
			}
			return nil, err
		},
	}
	return r.handOver(in)(client.Do(again))
}

// handOver makes a response one to the caller's own request.
func (r *retrier) handOver(in *http.Request) func(*http.Response, error) (*http.Response, error) {
	return func(resp *http.Response, err error) (*http.Response, error) {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // the caller's client wraps it again
		}
		if err != nil {
			return nil, err // go-retryablehttp returns an answer as well when a body cannot be had again
		}
		resp.Request = in
		return resp, nil
	}
}

// A waiter decides for one request whether to wait, and for how long.
type waiter struct {
	request request
	retries int
	wait    time.Duration
}

// read reads the request as far as it shows whether it may be sent again: a
// request of the Responses API may run in the background.
func (w *waiter) read() error {
	r := &w.request
	if err := r.body.Prepare(r.GetBody, r.ContentLength); err != nil || !w.responses() {
		return err
	}
	return r.scan()
}

func (w *waiter) responses() bool { return strings.HasPrefix(w.request.Operation, "responses") }

// repeatable reports whether the request may be sent again although it may have
// been carried out.
func (w *waiter) repeatable() bool {
	r := &w.request
	return r.repeatable() && (!w.responses() || !r.scanned || r.naming.Complete)
}

// sleep waits before the next retry. The wait ends early if the caller leaves.
// It is done here because go-retryablehttp only knows the request's context.
func (w *waiter) sleep(time.Duration, time.Duration, int, *http.Response) time.Duration {
	timer := time.NewTimer(w.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.request.Context().Done():
	case <-w.request.Cancel:
	}
	return 0
}

func (w *waiter) check(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil || canceled(w.request.Request) {
		return false, err
	}
	var ok bool
	if w.wait, ok = w.after(resp, err); !ok || w.wait > maxRetryWait {
		return false, err
	}
	// Jitter: requests that were refused together must not come back together.
	w.wait += time.Duration(rand.Int64N(int64(min(w.wait/4+50*time.Millisecond, time.Second))))
	if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < w.wait {
		return false, err
	}
	w.retries++
	return true, nil
}

// after is the time to wait after a result, and whether to retry at all.
func (w *waiter) after(resp *http.Response, err error) (time.Duration, bool) {
	backoff := min(firstRetryWait<<min(w.retries, 10), mostRetryWait)
	if err != nil {
		var unanswered *noAnswerError
		return backoff, errors.As(err, &unanswered) && w.repeatable()
	}
	if resp.Header.Get(headerShouldRetry) == "false" {
		return 0, false
	}
	status := resp.StatusCode
	if status != http.StatusTooManyRequests && !(w.repeatable() && (status == http.StatusRequestTimeout || status >= 500)) {
		return 0, false
	}
	if wait := retryAfter(status, resp.Header, nil, time.Now()); wait > 0 {
		backoff = wait
	}
	return backoff, true
}
