package batch

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/connections"
)

// An outgoing is a request in the transport, which either waits there for a deployment or
// has been sent to one. When the batch ends, one that waits is given up, since nobody has
// seen it. One that was sent may be answered.
type outgoing struct {
	cancel   context.CancelCauseFunc
	timeout  time.Duration // for a deployment to answer
	inFlight *atomic.Int64 // of the batch, as is waiting
	waiting  *atomic.Int64

	mu      sync.Mutex
	sent    bool // to a deployment that has not refused, denied or failed it
	stopped bool
	timer   *time.Timer // of timeout; nil until it is sent

	unregister func() bool // of stop
}

type outgoingKey struct{}

// stop gives the request up unless it was sent.
func (o *outgoing) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped = true; !o.sent {
		o.cancel(nil)
	}
}

// send reports whether the request may be sent.
func (o *outgoing) send() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.sent && !o.stopped {
		o.sent = true
		o.waiting.Add(-1)
		o.inFlight.Add(1)
		o.timer = time.AfterFunc(o.timeout, func() { o.cancel(context.DeadlineExceeded) })
	}
	return o.sent
}

// refused is called when the deployment has refused, denied or failed the request.
func (o *outgoing) refused() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unsend(); o.stopped {
		o.cancel(nil)
	}
}

func (o *outgoing) unsend() {
	if o.sent {
		o.sent = false
		o.inFlight.Add(-1)
		o.waiting.Add(1)
		o.timer.Stop()
	}
}

// responded is called when the transport has returned a response, whose body has the
// timeout, too.
func (o *outgoing) responded() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil && !o.sent {
		o.timer.Reset(o.timeout)
	}
}

// end is called when the request has left the transport.
func (o *outgoing) end() {
	o.unregister()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsend()
	o.waiting.Add(-1)
	o.stopped = true
	if o.timer != nil {
		o.timer.Stop()
	}
	o.cancel(nil)
}

// A base tells a request's outgoing when it is sent.
type base struct{ http.RoundTripper }

// newBase is what sends requests. nil means the Transport's default, with as many idle
// connections as requests can be in flight.
func newBase(to http.RoundTripper) http.RoundTripper {
	if to == nil {
		t := connections.NewTransport()
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, DefaultMaxInFlight
		to = t
	}
	return base{to}
}

func (b base) RoundTrip(r *http.Request) (*http.Response, error) {
	o, ok := r.Context().Value(outgoingKey{}).(*outgoing)
	if !ok {
		return b.RoundTripper.RoundTrip(r)
	}
	if !o.send() {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, context.Canceled
	}
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil || isTransient(resp.StatusCode) || resp.StatusCode == http.StatusUnauthorized || isDenial(resp.StatusCode) {
		o.refused() // the transport may ask another deployment
	}
	return resp, err
}

// isTransient reports whether a response with this status is no answer, since another
// try may have one.
func isTransient(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return true
	}
	return status >= 500
}

// outgoing makes the context of a request that is given up when running ends, unless it
// was sent. Its end must be called when the request has left the transport.
func (b *Batch) outgoing(running, sending context.Context) (context.Context, *outgoing) {
	ctx, cancel := context.WithCancelCause(spillover.WithClass(sending, spillover.Background))
	o := &outgoing{cancel: cancel, timeout: b.options.Timeout, inFlight: &b.inFlight, waiting: &b.waiting}
	o.waiting.Add(1)
	o.unregister = context.AfterFunc(running, o.stop)
	return context.WithValue(ctx, outgoingKey{}, o), o
}
