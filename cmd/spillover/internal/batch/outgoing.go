package batch

import (
	"bytes"
	"cmp"
	"context"
	"io"
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
	giveUp   context.CancelFunc
	inFlight *atomic.Int64 // of the batch, as is waiting
	waiting  *atomic.Int64

	mu      sync.Mutex
	sent    bool // to a deployment that has not refused or failed it
	denied  bool // the last deployment has denied it, which may be the answer
	stopped bool
}

// denialTime is how long a request that was denied may take to leave the transport. If it
// takes longer, it waits for another deployment.
const denialTime = 100 * time.Millisecond

type outgoingKey struct{}

// stop gives the request up unless it was sent.
func (o *outgoing) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped = true; !o.sent {
		o.leave()
	}
}

// leave makes the request leave the transport.
func (o *outgoing) leave() {
	if o.denied {
		time.AfterFunc(denialTime, o.giveUp)
		return
	}
	o.giveUp()
}

// send reports whether the request may be sent.
func (o *outgoing) send() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.sent && !o.stopped {
		o.sent, o.denied = true, false
		o.waiting.Add(-1)
		o.inFlight.Add(1)
	}
	return o.sent
}

// refused is called when the deployment has not answered the request, or has denied it.
func (o *outgoing) refused(denied bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsend()
	if o.denied = denied; o.stopped {
		o.leave()
	}
}

func (o *outgoing) unsend() {
	if o.sent {
		o.sent = false
		o.inFlight.Add(-1)
		o.waiting.Add(1)
	}
}

// end is called when the request has left the transport.
func (o *outgoing) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsend()
	o.waiting.Add(-1)
	o.stopped = true
	o.giveUp()
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
	switch {
	case err != nil || isTransient(resp.StatusCode) || resp.StatusCode == http.StatusUnauthorized:
		o.refused(false)
	case isDenial(resp.StatusCode):
		// The transport may ask another deployment, or return this response.
		resp.Body = inMemory(resp.Body) // it may be given up before the body is read
		o.refused(true)
	}
	return resp, err
}

// inMemory reads a body as far as it is of use.
func inMemory(body io.ReadCloser) io.ReadCloser {
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxResponseSize+1))
	return io.NopCloser(io.MultiReader(bytes.NewReader(text), failing{err}))
}

// A failing reader has an error, or none and no text.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, cmp.Or(f.err, io.EOF) }

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
// was sent. end must be called when the request has left the transport.
func (b *Batch) outgoing(running, sending context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(spillover.WithClass(sending, spillover.Background))
	o := &outgoing{giveUp: cancel, inFlight: &b.inFlight, waiting: &b.waiting}
	o.waiting.Add(1)
	unregister := context.AfterFunc(running, o.stop)
	return context.WithValue(ctx, outgoingKey{}, o), func() { unregister(); o.end() }
}
