package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// placeholderHost is the host of forwarded requests. The transport replaces it by that of
// the chosen backend. Names under invalid exist nowhere (RFC 6761).
const placeholderHost = "spillover.invalid"

// newForward makes the reverse proxy.
func (p *Proxy) newForward() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:      p.transport,
		Rewrite:        p.rewrite,
		ModifyResponse: p.modifyResponse,
		ErrorHandler:   p.handleError,
		FlushInterval:  -1,
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
}

// rewrite makes the request for the transport. Hop-by-hop headers have been removed.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	out, e := pr.Out, exchangeOf(pr.In.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "https", placeholderHost, ""
	out.URL.RawQuery = p.cleanQuery(out.URL.RawQuery, e)
	out.RequestURI = "" // it repeats the caller's URL
	out.URL.Fragment, out.URL.RawFragment, out.URL.User = "", "", nil
	p.cleanHeader(out.Header, e)
	out.Trailer = nil // no operation of the services has request trailers
}

// hostHeaders are headers of responses that a client applies to the host that it asked,
// which is the proxy.
var hostHeaders = []string{"Set-Cookie", "Alt-Svc", "Strict-Transport-Security"}

// modifyResponse makes a service's response one of the proxy.
func (p *Proxy) modifyResponse(resp *http.Response) error {
	for _, name := range hostHeaders {
		delete(resp.Header, name)
	}
	for name := range resp.Header {
		if strings.HasPrefix(name, "Access-Control-") { // which pages may read a response is the operator's decision
			delete(resp.Header, name)
		}
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "text/event-stream" {
		resp.Header.Set("X-Accel-Buffering", "no") // nginx in front would collect events
		if resp.Request.Method != http.MethodHead {
			// With a length, a client that has all bytes of a truncated stream would not
			// notice the error at its end.
			delete(resp.Header, "Content-Length")
			resp.ContentLength = -1
		}
	}
	e := exchangeOf(resp.Request.Context())
	for _, name := range locationHeaders {
		if resp.Header[name] != nil {
			p.rewriteLocation(e, resp, name)
		}
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// ReverseProxy writes its header to the connection.
		if id := resp.Header.Get(headerRequestID); id != "" {
			e.upstreamID = id
			resp.Header.Set(headerUpstreamID, id)
			delete(resp.Header, headerRequestID)
		}
	}
	return nil
}

// locationHeaders are headers of responses with a URL of the service.
var locationHeaders = []string{"Location", "Content-Location", "Operation-Location", "Azure-Asyncoperation"}

// rewriteLocation replaces a URL of the backend by that of the proxy: a caller has no
// credential for the backend, and must not send it that for the proxy. A URL of another host is left
// alone, such as one with a signature for a storage account.
func (p *Proxy) rewriteLocation(e *exchange, resp *http.Response, name string) {
	u, err := url.Parse(resp.Header.Get(name))
	base := p.backendURL(resp.Header.Get("X-Spillover-Backend"))
	if err != nil || base == nil {
		delete(resp.Header, name)
		return
	}
	if u.Host != "" && hostOf(u, base.Scheme) != hostOf(base, "") {
		return
	}
	path, below := strings.CutPrefix(u.EscapedPath(), strings.TrimSuffix(base.EscapedPath(), "/"))
	if !below || !beginsWithOneOf(path, roots) || hasDotSegments(u.Path) {
		delete(resp.Header, name) // it is nothing that the proxy could be asked for
		return
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	if name != "Location" && name != "Content-Location" { // clients take those as absolute
		path = e.origin() + path
	}
	resp.Header.Set(name, path)
}

// hostOf is the host of a URL with its port. scheme is that of a URL that has none.
func hostOf(u *url.URL, scheme string) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[strings.ToLower(cmp.Or(u.Scheme, scheme))]
	}
	return net.JoinHostPort(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), port)
}

// origin is the scheme and the host under which the caller knows the proxy. Another proxy
// in front, which ends TLS, says so. A caller that says so itself gets what it asked for.
func (e *exchange) origin() string {
	scheme := "http"
	forwarded, _, _ := strings.Cut(e.request.Header.Get("X-Forwarded-Proto"), ",")
	if e.request.TLS != nil || strings.EqualFold(forwarded, "https") {
		scheme = "https"
	}
	return scheme + "://" + e.request.Host
}

// backendURL is the URL of a backend, without what the dialect adds to it; nil if it is
// unknown.
func (p *Proxy) backendURL(name string) *url.URL {
	for _, tier := range p.transport.Status().Tiers {
		for _, b := range tier.Backends {
			if b.Name != name {
				continue
			}
			u, err := url.Parse(b.URL)
			if err != nil {
				return nil
			}
			for _, suffix := range []string{"/openai/v1", "/openai", "/v1"} {
				if path, ok := strings.CutSuffix(strings.TrimSuffix(u.Path, "/"), suffix); ok {
					u.Path, u.RawPath = path, ""
					break
				}
			}
			return u
		}
	}
	return nil
}

// handleError answers a request to which no backend has responded.
func (p *Proxy) handleError(w http.ResponseWriter, out *http.Request, err error) {
	e := exchangeOf(out.Context())
	if e.tooSlow.Load() { // net/http ends the context, as if the caller had left
		tooSlow().write(w)
		return
	}
	if bad, ok := p.bodyProblem(err); ok && !gone(e.request.Context()) {
		bad.write(w)
		return
	}
	cause := context.Cause(e.request.Context())
	if gone(e.request.Context()) && !errors.Is(cause, ErrShutdown) {
		e.left = true
		panic(http.ErrAbortHandler) // nobody reads a response
	}
	answer := noAnswer(e)
	var timeout net.Error
	switch {
	case errors.Is(cause, ErrShutdown):
		answer = &problem{status: http.StatusServiceUnavailable, kind: "server_error", code: "shutting_down", message: "The proxy shuts down."}
	case errors.As(err, &timeout) && timeout.Timeout():
		answer.status, answer.code = http.StatusGatewayTimeout, "timeout"
		answer.message = "No deployment has answered in time. The log of the proxy has the causes, with the request id " + e.id + "."
	}
	e.err = err
	answer.write(w)
}

// noAnswer is the response to a request that no deployment has answered.
func noAnswer(e *exchange) *problem {
	return &problem{status: http.StatusBadGateway, kind: "server_error", code: "no_answer",
		message: "No deployment has answered. The log of the proxy has the causes, with the request id " + e.id + "."}
}

// gone reports whether a context has ended.
func gone(ctx context.Context) bool { return ctx.Err() != nil }

// Buffers are the buffers with which ReverseProxy copies responses.
type buffers struct{ pool sync.Pool }

// Get implements [httputil.BufferPool].
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, 32<<10)
}

// Put implements [httputil.BufferPool].
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
