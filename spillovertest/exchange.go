package spillovertest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// An exchange is one request and the progress of its answer. Servers in memory and on
// a network use it in the same way: awaitHeader, then event until an error, then
// finish. It waits inside these calls and so needs no goroutine.
type exchange struct {
	answer
	server     *Server
	deployment *deployment // nil if none or unknown
	demand     demand
	admitted   bool
	record     *Request // nil if the connection was refused
	due        time.Time
	timer      *time.Timer
	left       chan struct{} // closed when the client closes the body; may be nil

	written  atomic.Int64 // tokens
	complete atomic.Bool  // the last event was sent
	once     sync.Once
}

// What can end an exchange early, besides the error of its context.
var (
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset")
	errCut     = errors.New("connection cut")
	errLeft    = errors.New("body closed")
	errClosed  = errors.New("server closed")
)

// begin receives a request whose body has been read.
func (s *Server) begin(r *http.Request, uri string, body []byte, left chan struct{}) *exchange {
	c := s.parse(r, body)
	f := s.fault(r, body, c)
	now := time.Now()
	x := &exchange{server: s, demand: c.demand, left: left}
	if f == nil || f.Kind != KindRefuse {
		x.record = &Request{
			Time: now, Method: r.Method, URL: uri, Host: r.Host, Proto: r.Proto,
			Header: r.Header.Clone(), Body: body, Deployment: c.deployment,
		}
		x.deployment = s.arrived(c, x.record)
	}
	x.answer, x.admitted = s.answer(now, c, f, x.deployment)
	x.due = now.Add(x.wait)
	return x
}

// awaitHeader waits until the answer's status and header are due.
func (x *exchange) awaitHeader(ctx context.Context) error {
	if err := x.await(ctx); err != nil {
		return err
	}
	if x.status == 0 {
		return x.ended(ctx)
	}
	x.server.answered(x.record, x.status)
	return nil
}

// event waits for the next piece of the body. Its error is io.EOF at the end of a
// complete answer.
func (x *exchange) event(ctx context.Context) (event, error) {
	e, ok := x.next()
	if !ok {
		return event{}, x.ended(ctx)
	}
	x.due = x.due.Add(e.wait)
	if err := x.await(ctx); err != nil {
		return event{}, err
	}
	x.written.Add(int64(e.tokens))
	if e.last {
		x.complete.Store(true)
	}
	return e, nil
}

// ended returns the error that follows the last event.
func (x *exchange) ended(ctx context.Context) error {
	switch x.end {
	case endCut:
		return errCut
	case endReset:
		return errReset
	case endRefuse:
		return errRefused
	case endSilence:
		return x.pause(ctx, nil)
	}
	return io.EOF
}

// await waits until the exchange is due.
func (x *exchange) await(ctx context.Context) error {
	d := time.Until(x.due)
	if d <= 0 {
		return x.gone(ctx)
	}
	if x.timer == nil {
		x.timer = time.NewTimer(d)
	} else {
		x.timer.Reset(d)
	}
	defer x.timer.Stop()
	return x.pause(ctx, x.timer.C)
}

// pause waits for c, or until the exchange is canceled.
func (x *exchange) pause(ctx context.Context, c <-chan time.Time) error {
	select {
	case <-c:
	case <-ctx.Done():
	case <-x.left:
	case <-x.server.closed:
	}
	return x.gone(ctx)
}

// gone returns the error of a canceled exchange, or nil.
func (x *exchange) gone(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case isClosed(x.left):
		return errLeft
	case isClosed(x.server.closed):
		return errClosed
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// finish counts the exchange, once.
func (x *exchange) finish() {
	x.once.Do(func() {
		if x.record != nil {
			x.server.finished(x)
		}
	})
}

// statusText returns the text of a status as the server of net/http writes it.
func statusText(code int) string {
	if text := http.StatusText(code); text != "" {
		return text
	}
	return "status code " + itoa(code)
}
