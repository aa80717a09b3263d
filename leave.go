package spillover

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// errRequestCanceled is what net/http says of a request whose Cancel is closed.
var errRequestCanceled = errors.New("net/http: request canceled")

// canceled tells whether a request's Cancel is closed.
func canceled(req *http.Request) bool {
	select {
	case <-req.Cancel:
		return true
	default:
		return false
	}
}

// leftErr is why the caller has left: its context has ended or it has closed
// Request.Cancel, as an http.Client does after its Timeout. What a base returns
// then says nothing of a deployment. It is nil while the caller waits.
func (c *call) callerErr() error {
	err := context.Cause(c.Context())
	if err == nil && canceled(c.Request) {
		err = errRequestCanceled
	}
	// An http.Client's Timeout is a deadline, whichever it ends first.
	if deadline, limited := c.Context().Deadline(); err == errRequestCanceled && limited && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return err
}

// heedCancel makes the request's context end when Request.Cancel is closed, until
// unheed, so that what heeds the one heeds the other. A base that heeds Cancel may
// still be sooner.
func (c *call) watchCancel() {
	if c.Cancel == nil {
		return
	}
	ctx, cancel := context.WithCancelCause(c.Context())
	c.unheedCancel = cancel
	c.Request = c.WithContext(ctx)
	go func(closed <-chan struct{}) {
		select {
		case <-closed:
			cancel(errRequestCanceled)
		case <-ctx.Done():
		}
	}(c.Cancel)
}

// abandon gives back what a panic, from which a server may recover, has left
// behind.
func (c *call) abandon() {
	if c.lastAttempt != nil {
		c.lastAttempt.abandon()
	}
	c.discard()
	c.stopWatchingCancel()
	if c.span != nil {
		c.outcome, c.errorType = failed.String(), errorType(0, "panic")
		c.finish(nil)
	}
}

// unheed ends heedCancel.
func (c *call) stopWatchingCancel() {
	if c.unheedCancel != nil {
		c.unheedCancel(nil)
	}
}
