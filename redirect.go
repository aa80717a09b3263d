package spillover

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// redirected reports whether an http.Client made the request of a redirect to
// another host than the one that its caller named. No deployment was asked for.
func (c *call) redirected() bool {
	first := firstRequest(c.Request)
	return first.URL != nil && !strings.EqualFold(first.URL.Host, c.URL.Host)
}

// follow sends such a request where it says. It carries no credential. The one
// exception is a backend that redirects to itself: it gets its own credential.
// Other hosts have no say in what is requested with it. (On a redirect to
// another host an http.Client removes Authorization, but not api-key.)
//
// A drained backend gets no such request either, and one that is sent counts as
// in flight.
func (c *call) follow() (*http.Response, error) {
	b, itself := c.destination()
	header := withoutCredentials(c.Header)
	if b == nil && len(c.options.tags) > 0 {
		return noBackendWithTags(c.Request, "", c.options.tags), nil
	}
	if b == nil {
		c.sends++
		return checked(c.base, c.forward(c.ctx, header))
	}
	var own credential
	if itself {
		var err error
		if own, err = b.credential(c.ctx); err != nil {
			return nil, attemptError{b.name, c.redact(err.Error(), b), err}
		}
		header = b.header(header, own)
	}
	var d *deployment
	for each := range c.table.nameless.all {
		if each.backend == b {
			d = each
		}
	}
	a := c.place()
	a.call, a.deployment, a.sentAt = c, d, time.Now()
	a.inFlight = d.TakePlace() // a deployment without a model has no limit
	c.lastAttempt, c.answeredBy, c.answeredFrom = a, a, d
	a.secret = own.secret
	ctx := a.begin()
	if b.drained.Load() {
		a.cancelUnsent()
		c.answeredBy, c.answeredFrom = nil, nil
		return allDrained(c.Request), nil
	}
	a.url = *c.URL
	out := a.startSpan(c.forward(ctx, header))
	c.sends++
	resp, err := checked(c.base, out)
	c.connected(b)
	a.answered(time.Now(), false, err == nil)
	if err != nil {
		a.end()
		o := a.recordFailed(judgeError(err), err)
		if c.callerErr() != nil {
			return nil, err
		}
		d.failed.Add(1)
		return nil, &noAnswerError{c.model, []error{attemptError{b.name, o.detail, err}}}
	}
	d.served.Add(1)
	a.recordServed(resp)
	a.resp, a.status, a.mediaType = resp, resp.StatusCode, wire.MediaType(resp.Header)
	c.answer.attach(c.Context(), resp, a)
	return resp, nil
}

// forward is the caller's request with other headers.
func (c *call) forward(ctx context.Context, h http.Header) *http.Request {
	out := c.WithContext(ctx)
	out.Header = h
	if c.body.Present {
		out.Body = c.body.TakeOriginal()
	}
	return out
}

// destination is the backend that such a request goes to, or nil, and whether
// that backend has redirected to itself. Of several backends at one address it
// is the one that redirected, else one that is not drained.
func (c *call) destination() (b *backend, itself bool) {
	from := wire.Header(c.Response.Header, headerBackend) // only this package sets it
	for _, other := range c.table.backends {
		if !other.hasTags(c.options.tags) || other.scheme != c.URL.Scheme || !strings.EqualFold(withPort(other.scheme, other.host), withPort(c.URL.Scheme, c.URL.Host)) {
			continue
		}
		if other.name == from {
			return other, true
		}
		if b == nil || b.drained.Load() {
			b = other
		}
	}
	return b, false
}

// withPort is a host with its port.
func withPort(scheme, host string) string {
	if u := (&url.URL{Host: host}); u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[scheme])
	}
	return host
}
