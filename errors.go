package spillover

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spillover-go/spillover/internal/redact"
)

// An attemptError is the error of one backend that gave no response.
type attemptError struct {
	backend string
	text    string // of err, safe to show
	err     error
}

func (e attemptError) Error() string { return e.backend + ": " + e.text }

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
	return b.String() + ": " + joinErrors(e.attempts)
}

// joinErrors returns the texts of errors in one line.
func joinErrors(errs []error) string {
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
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

// A silentError is the error of a request whose deadline passed before a
// deployment answered it. It names the deployment that had the request, and those
// that had failed it before. It unwraps to the context's error only.
type silentError struct {
	waiting string // such as "ptu has not answered for 30s"
	before  []error
	err     error
}

func (e *silentError) Error() string {
	before := ""
	if len(e.before) > 0 {
		before = "; no answer before: " + joinErrors(e.before)
	}
	return fmt.Sprintf("spillover: %s%s: %v", e.waiting, before, e.err)
}

func (e *silentError) Unwrap() error { return e.err }

// Timeout is true. It implements [net.Error].
func (e *silentError) Timeout() bool { return true }

// Temporary implements [net.Error].
func (e *silentError) Temporary() bool { return true }
