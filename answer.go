package spillover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// The headers that every answer carries, real or not.
const (
	headerBackend     = "X-Spillover-Backend"
	headerAttempts    = "X-Spillover-Attempts"
	headerSynthesized = "X-Spillover-Synthesized"
	headerPrefix      = "X-Spillover-" // of them all
)

// An apiError is the body of a synthesized answer, as OpenAI's reference has it.
type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// synthesize makes an answer that no service gave.
func synthesize(in *http.Request, status int, e apiError) *http.Response {
	body, _ := json.Marshal(map[string]apiError{"error": e}) // strings always marshal
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}, headerSynthesized: {"true"}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       in,
	}
}

// unknownModel answers for a model that no backend serves.
func unknownModel(in *http.Request, model string, known []string) *http.Response {
	const most = 50
	list := strings.Join(known[:min(len(known), most)], ", ")
	if len(known) > most {
		list += fmt.Sprintf(" and %d more", len(known)-most)
	}
	param := "model"
	return synthesize(in, http.StatusNotFound, apiError{
		Message: fmt.Sprintf("No backend serves the model %s. There are: %s.", shortened(model), list),
		Type:    "invalid_request_error", Param: &param, Code: "model_not_found",
	})
}

// brief is a caller's text within bounds, and without what could forge a line of
// a log.
func shortened(s string) string {
	const most = 100
	if len(s) > most {
		return sanitize(s[:most]) + "…"
	}
	return sanitize(s)
}

// An outlook is when the deployments of a model can be asked again.
type outlook struct {
	deployments int
	soonest     *deployment // nil when there is none
	at          time.Time   // when the soonest can be asked; not after now when it can
	throttled   bool        // the service itself closed at least one
	hopeless    bool        // all of them are out for quota or credentials
}

// look finds when the deployments of the request's route can be asked again, but
// for those that are drained and the unfit, who are no help to the request, and
// those that may or may not connect, which nobody knows. One that is open can be
// asked now.
func (c *call) lookAhead(now time.Time, unfit []*deployment) outlook {
	o := outlook{hopeless: true}
	for d := range c.route.all {
		o.deployments++
		if slices.Contains(unfit, d) || d.backend.drained.Load() {
			continue
		}
		until, _, throttled := c.scope.closed(d, now)
		if until.IsZero() && d.backend.Stuck(now) {
			continue
		}
		until = health.Later(until, now)
		o.throttled = o.throttled || throttled
		o.hopeless = o.hopeless && c.scope.hopeless(d, now)
		if o.soonest == nil || until.Before(o.at) {
			o.soonest, o.at = d, until
		}
	}
	return o
}

// unavailable answers that all deployments are throttled, with the time that is
// left until the soonest can be asked again.
func unavailable(in *http.Request, model string, o outlook, now time.Time) *http.Response {
	wait := max(o.at.Sub(now), time.Millisecond)
	seconds := int64((wait + time.Second - 1) / time.Second)
	of := ""
	if model != "" {
		of = " of " + shortened(model)
	}
	e := apiError{
		Message: fmt.Sprintf("All %d deployments%s are unavailable; the soonest is %s in %.2fs. Please retry after %d seconds.",
			o.deployments, of, o.soonest.backend.name, wait.Seconds(), seconds),
		Type: "rate_limit_error", Code: "rate_limit_exceeded",
	}
	if o.hopeless {
		e = apiError{
			Message: fmt.Sprintf("All %d deployments%s are out of quota or refuse their credentials. Waiting does not mend that.", o.deployments, of),
			Type:    "insufficient_quota", Code: "insufficient_quota",
		}
	}
	resp := synthesize(in, http.StatusTooManyRequests, e)
	resp.Header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	resp.Header.Set("Retry-After-Ms", strconv.FormatInt(int64((wait+time.Millisecond-1)/time.Millisecond), 10))
	if o.hopeless {
		resp.Header.Set(headerShouldRetry, "false")
	}
	return resp
}

// allDrained answers that what could take the request is out by hand. How long
// that lasts nobody knows.
func allDrained(in *http.Request) *http.Response {
	return synthesize(in, http.StatusServiceUnavailable, apiError{
		Message: "Every backend that could take the request is drained.", Type: "server_error", Code: "drained",
	})
}

// An attemptError is why one backend gave no answer.
type attemptError struct {
	backend string
	err     error
}

func (e attemptError) Error() string { return e.backend + ": " + presentable(e.err.Error()) }
func (e attemptError) Unwrap() error { return e.err }

// A noAnswerError is that of a request that no backend answered. It unwraps to
// the error of each attempt.
type noAnswerError struct {
	model    string
	attempts []error
}

func (e *noAnswerError) Unwrap() []error { return e.attempts }

func (e *noAnswerError) Error() string {
	var b strings.Builder
	b.WriteString("spillover: no answer")
	if e.model != "" {
		b.WriteString(" for " + shortened(e.model))
	}
	for i, err := range e.attempts {
		b.WriteString([]string{": ", "; "}[min(i, 1)] + err.Error())
	}
	return b.String()
}

// Timeout reports whether every attempt timed out, as [net.Error] has it.
func (e *noAnswerError) Timeout() bool {
	for _, err := range e.attempts {
		var t net.Error
		if !errors.As(err, &t) || !t.Timeout() {
			return false
		}
	}
	return len(e.attempts) > 0
}

// Temporary completes [net.Error]; nothing in net/http asks for it.
func (e *noAnswerError) Temporary() bool { return e.Timeout() }

// A silentError is that of a request whose caller's deadline ended while a
// deployment had it. It unwraps to the context's.
type silentError struct {
	backend string
	waited  time.Duration
	err     error
}

func (e *silentError) Error() string {
	return fmt.Sprintf("spillover: %s has not answered for %v: %v", e.backend, e.waited.Round(time.Millisecond), e.err)
}

func (e *silentError) Unwrap() error { return e.err }

// Timeout reports true, as [net.Error] has it.
func (e *silentError) Timeout() bool { return true }

// Temporary completes [net.Error].
func (e *silentError) Temporary() bool { return true }
