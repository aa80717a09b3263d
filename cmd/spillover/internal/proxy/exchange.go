package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

// An exchange is one request and its response: the ResponseWriter of the handlers, with a
// deadline for each write, and what is recorded.
type exchange struct {
	http.ResponseWriter
	proxy      *Proxy
	request    *http.Request
	controller *http.ResponseController
	begun      time.Time
	id         string // X-Request-Id

	key       *keys.Key // that the caller has presented; nil without keys
	presented string    // the caller's credential, if it is a valid key
	held      holding   // of its body
	trail     spillover.Trail
	quiet     bool // it is not recorded

	counted bool    // in inFlight
	socket  *socket // nil if it is no WebSocket

	status     int    // of the response; 0 until it is written
	code       string // of the error that the proxy has generated, "" for none
	bytes      int64
	upstreamID string // X-Request-Id of the service
	backend    string // that has answered, if the response's header does not say so
	left       bool   // the caller has left before there was a response
	err        error  // why no deployment has answered

	// The transport may read the body in the background, even after the end.
	tooSlow atomic.Bool // the body has not arrived in time
	reading sync.Mutex  // guards ended, and deadlines that a Read of the body sets
	ended   bool        // the server has taken back its ResponseWriter
}

const (
	headerRequestID  = "X-Request-Id"
	headerUpstreamID = "X-Upstream-Request-Id"

	maxDrained   = 256 << 10 // bytes; as net/http has it for HTTP/1.1
	drainTimeout = time.Second
)

func (p *Proxy) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	e := &exchange{ResponseWriter: w, proxy: p, request: r, controller: http.NewResponseController(w), begun: time.Now()}
	e.held.of = &p.bodies
	if e.id = r.Header.Get(headerRequestID); !validID(e.id) || len(r.Header[headerRequestID]) > 1 {
		e.id = rand.Text()
	}
	if r.ProtoMajor < 2 { // with HTTP/2 it would end a request whose deployment takes long
		e.allowWrite()
		if r.Body != nil && r.Body != http.NoBody {
			// The server reads a body that the handler leaves before it writes the response.
			_ = e.controller.SetReadDeadline(time.Now().Add(p.options.ClientTimeout))
		}
	}
	return e
}

// validID reports whether a caller's X-Request-Id is kept. Others are replaced.
func validID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return id != "" && len(id) <= 128
}

// Unwrap is for [http.ResponseController].
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (e *exchange) WriteHeader(status int) {
	if e.request.ProtoMajor < 2 {
		e.allowWrite()
	}
	if status >= 200 && e.status == 0 || status == http.StatusSwitchingProtocols {
		e.setHeaders(status)
	}
	e.ResponseWriter.WriteHeader(status)
}

// setHeaders sets what every response has. A service's own request id has another name
// then.
func (e *exchange) setHeaders(status int) {
	e.status = status
	h := e.Header()
	if id := h.Get(headerRequestID); id != "" && id != e.id {
		e.upstreamID = id
		h.Set(headerUpstreamID, id)
	}
	h.Set(headerRequestID, e.id)
	switch {
	case status == http.StatusSwitchingProtocols:
	case e.proxy.draining.Load():
		h.Set("Connection", "close") // with HTTP/2 it announces the end of the connection
	case e.request.ProtoMajor >= 2:
		delete(h, "Connection") // that of a problem: only HTTP/1.1 needs the rest of a body
	}
}

// Write implements [http.ResponseWriter].
func (e *exchange) Write(p []byte) (int, error) {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	e.allowWrite()
	n, err := e.ResponseWriter.Write(p)
	e.bytes += int64(n)
	return n, err
}

// FlushError is for [http.ResponseController].
func (e *exchange) FlushError() error {
	e.allowWrite()
	err := e.controller.Flush()
	if e.request.ProtoMajor >= 2 {
		// There the deadline ends the stream even if nothing is being written.
		_ = e.controller.SetWriteDeadline(time.Time{})
	}
	return err
}

// allowWrite gives the caller time to read what is written next. Otherwise one that reads
// nothing would hold its place, and a deployment's, for as long as it likes.
func (e *exchange) allowWrite() {
	// A ResponseWriter of a test may not support it.
	_ = e.controller.SetWriteDeadline(time.Now().Add(e.proxy.options.ClientTimeout))
}

// Hijack implements [http.Hijacker]. The connection is one that the end of the proxy closes.
func (e *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := e.controller.Hijack()
	if err != nil {
		return nil, nil, err
	}
	handshakeSent := e.status != 0
	if !handshakeSent {
		e.setHeaders(http.StatusSwitchingProtocols)
	}
	_ = conn.SetDeadline(time.Time{})
	e.socket = e.proxy.sockets.track(conn, e.proxy.options.ClientTimeout, handshakeSent)
	rw.Writer.Reset(e.socket)
	return e.socket, rw, nil
}

// allowRead gives the caller until a time to send the next piece of its body, without a limit
// if that is zero. With the first piece, the server may ask for the body, which is a write.
func (e *exchange) allowRead(until time.Time, first bool) {
	e.reading.Lock()
	defer e.reading.Unlock()
	if e.ended {
		return
	}
	_ = e.controller.SetReadDeadline(until)
	if first && e.request.ProtoMajor < 2 {
		e.allowWrite()
	}
}

// drain reads a little of what is left of a body when the request was refused before its end.
// net/http does that with HTTP/1.1. With HTTP/2 it resets the stream after the response, and
// curl before 8 then fails and shows no response.
func (e *exchange) drain() {
	if e.request.ProtoMajor < 2 || e.status < 400 || e.request.Body == nil {
		return
	}
	_ = e.controller.SetReadDeadline(time.Now().Add(drainTimeout))
	_, _ = io.CopyN(io.Discard, e.request.Body, maxDrained) // the caller may have left
}

// reset resets the connection of a response that breaks off, which is a panic. With HTTP/1.1
// net/http leaves out the last chunk, and with HTTP/2 it resets the stream. HTTP/1.0 has no
// chunks: there the end of the connection would complete the response.
func (e *exchange) reset() {
	cause := recover()
	if cause == nil {
		return
	}
	if !e.request.ProtoAtLeast(1, 1) && e.status != 0 {
		if conn, _, err := e.controller.Hijack(); err == nil {
			if outer, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS, which would end properly
				conn = outer.NetConn()
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
	panic(cause)
}

// end records the exchange.
func (e *exchange) end() {
	if e.socket != nil {
		defer e.proxy.sockets.forget(e.socket) // a shutdown waits for the record, too
	}
	e.held.end()
	if e.counted {
		e.proxy.inFlight.end(e.key)
	}
	if e.code != "" && e.proxy.options.CountError != nil {
		e.proxy.options.CountError(e.code)
	}
	e.reading.Lock()
	e.ended = true
	e.reading.Unlock()
	// net/http may read the rest of the body now, for as long as the caller may take, and
	// writes the response after that.
	_ = e.controller.SetWriteDeadline(time.Now().Add(2 * e.proxy.options.ClientTimeout))
	log, level := e.proxy.log, e.proxy.options.AccessLevel
	ctx := context.WithoutCancel(e.request.Context())
	if e.err != nil {
		log.WarnContext(ctx, "no deployment has answered", "request_id", e.id, "error", e.err.Error())
	}
	if e.quiet || e.proxy.options.NoAccessLog || !log.Enabled(ctx, level) {
		return
	}
	r := e.request
	attrs := make([]slog.Attr, 0, 13)
	attrs = append(attrs,
		slog.String("request_id", e.id),
		slog.String("method", shorten(r.Method, 16)),
		slog.String("path", e.loggedPath()),
		slog.Int("status", e.loggedStatus()),
		slog.Int64("duration_ms", time.Since(e.begun).Milliseconds()),
		slog.Int64("bytes", e.bytes),
	)
	for _, a := range [...]slog.Attr{
		slog.String("code", e.code), slog.String("remote", e.loggedRemote()), slog.String("model", e.trail.Model), slog.String("class", e.trail.Class),
		slog.String("backend", cmp.Or(e.backend, e.Header().Get("X-Spillover-Backend"))), slog.String("upstream_request_id", shorten(e.upstreamID, 128)),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if e.key != nil {
		attrs = append(attrs, slog.String("key", e.key.Name))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}

// statusLeft stands in records for a response that nobody waits for, as in nginx.
const statusLeft = 499

func (e *exchange) loggedStatus() int {
	if e.left && e.status == 0 {
		return statusLeft
	}
	return e.status
}

// unknown reports whether the caller has presented no valid key although one is required.
func (e *exchange) unknown() bool { return e.key == nil && e.proxy.keys.Load() != nil }

// loggedRemote is the address of an unknown caller. Others are known by the name of their key.
func (e *exchange) loggedRemote() string {
	if !e.unknown() {
		return ""
	}
	host, _, _ := net.SplitHostPort(e.request.RemoteAddr) // a socket of the file system has none
	return host
}

// loggedPath is the path, without what may be a key. That of an unknown caller is cut.
func (e *exchange) loggedPath() string {
	path := e.request.URL.Path
	switch {
	case e.presented != "" && containsKey(path, e.presented):
		return "(contains the caller's key)"
	case e.unknown() && path != "/metrics" && path != "/status" && path != "/status/status.json":
		for _, root := range append([]string{"/status/"}, roots...) {
			if strings.HasPrefix(path, root) {
				return root + "…"
			}
		}
		return "/…"
	}
	return shorten(path, 256)
}

func shorten(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
