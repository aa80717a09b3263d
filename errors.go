package spillover

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// An attemptError is the error of one backend that gave no response.
type attemptError struct {
	backend string
	err     error
}

func (e attemptError) Error() string { return e.backend + ": " + redact.Text(e.err.Error()) }

func (e attemptError) Unwrap() error { return e.err }

// A noAnswerError is the error of a request that no backend answered. It
// unwraps to the error of each attempt.
type noAnswerError struct {
	model    string
	attempts []error
}

func (e *noAnswerError) Unwrap() []error { return e.attempts }

func (e *noAnswerError) Error() string {
	var b strings.Builder
	b.WriteString("spillover: no answer")
	if e.model != "" {
		b.WriteString(" for " + redact.Brief(e.model))
	}
	for i, err := range e.attempts {
		b.WriteString([]string{": ", "; "}[min(i, 1)] + err.Error())
	}
	return b.String()
}

// Timeout reports whether every attempt timed out. It implements [net.Error].
func (e *noAnswerError) Timeout() bool {
	for _, err := range e.attempts {
		var t net.Error
		if !errors.As(err, &t) || !t.Timeout() {
			return false
		}
	}
	return len(e.attempts) > 0
}

// Temporary implements [net.Error]. Nothing in net/http uses it.
func (e *noAnswerError) Temporary() bool { return e.Timeout() }

// A silentError is the error of a request whose deadline passed while a
// deployment had it. It unwraps to the context's error.
type silentError struct {
	backend string
	waited  time.Duration
	err     error
}

func (e *silentError) Error() string {
	return fmt.Sprintf("spillover: %s has not answered for %v: %v", e.backend, e.waited.Round(time.Millisecond), e.err)
}

func (e *silentError) Unwrap() error { return e.err }

// Timeout is true. It implements [net.Error].
func (e *silentError) Timeout() bool { return true }

// Temporary implements [net.Error].
func (e *silentError) Temporary() bool { return true }
