package spillover

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// errRequestCanceled is net/http's error for a request whose Cancel is closed.
var errRequestCanceled = errors.New("net/http: request canceled")

// canceled reports whether a request's Cancel channel is closed.
func canceled(req *http.Request) bool {
	select {
	case <-req.Cancel:
		return true
	default:
		return false
	}
}

// callerErr is why the caller of a request has left: its context has ended, or its
// Cancel is closed, as an http.Client does after its Timeout. It is nil while the caller
// waits.
func callerErr(req *http.Request) error {
	err := context.Cause(req.Context())
	if err == nil && canceled(req) {
		err = errRequestCanceled
	}
	// An http.Client's Timeout is a deadline, whether it ends the context or Cancel first.
	if deadline, limited := req.Context().Deadline(); err == errRequestCanceled && limited && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return err
}

// watchCancel is a request whose context ends when its Cancel is closed. So a base that
// only knows contexts obeys Cancel as well. stop ends the watch; it is nil if the request
// has no Cancel.
func watchCancel(req *http.Request) (watched *http.Request, stop context.CancelCauseFunc) {
	if req.Cancel == nil {
		return req, nil
	}
	ctx, cancel := context.WithCancelCause(req.Context()) // the result, in a goroutine, would be allocated for each request
	go func() {
		select {
		case <-req.Cancel:
			cancel(errRequestCanceled)
		case <-ctx.Done():
		}
	}()
	return req.WithContext(ctx), cancel
}
