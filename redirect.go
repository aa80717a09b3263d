package spillover

import (
	"net/http"
	"strings"
)

// redirected tells of a request that an http.Client made of a redirect to
// another host than the one its caller named. No deployment was asked for.
func (c *call) redirected() bool {
	first := c.Request
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return first.URL != nil && !strings.EqualFold(first.URL.Host, c.URL.Host)
}

// follow sends such a request where it says. A credential goes along only if
// the place is a backend, and then it is the backend's: an http.Client takes
// Authorization out of what it redirects to another host, but not api-key.
func (c *call) follow() (*http.Response, error) {
	out := c.WithContext(c.ctx)
	out.Header = c.Header.Clone()
	for name := range out.Header {
		if strings.EqualFold(name, keyHeader) || strings.EqualFold(name, authHeader) {
			delete(out.Header, name)
		}
	}
	for _, b := range c.table.backends {
		if b.scheme == out.URL.Scheme && strings.EqualFold(b.host, out.URL.Host) {
			bearer, err := b.bearer(c.ctx)
			if err != nil {
				return nil, attemptError{b.name, err}
			}
			out.Header, c.from = b.header(out.Header, bearer), b.name
			break
		}
	}
	if c.body.present {
		out.Body, c.body.own = c.body.own, nil
	}
	c.sends++
	return checked(c.base, out)
}
