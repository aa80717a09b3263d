package spillovertest

import (
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
)

// ServeHTTP answers a request over the network. [NewServer] uses it. Use it directly
// to serve under a path prefix, or in an HTTP server of your own.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client left
	}
	ctx := r.Context()
	x := s.begin(r, r.RequestURI, body, nil)
	defer x.finish()
	switch err := x.awaitHeader(ctx); err {
	case nil:
	case errReset, errRefused:
		x.finish() // first: the client may look at the counts at once
		reset(w)
	default:
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h["Date"], h["Content-Type"] = nil, nil // only those of the answer
	maps.Copy(h, x.answer.header)
	w.WriteHeader(x.status)
	flush := http.NewResponseController(w).Flush
	if x.length < 0 || x.end != endEOF {
		_ = flush()
	}
	for {
		e, err := x.event(ctx)
		if err == io.EOF {
			return
		}
		if e.last || err != nil {
			x.finish() // as above
		}
		if err != nil {
			panic(http.ErrAbortHandler) // breaks the connection off
		}
		if _, err := w.Write(e.data); err != nil {
			return
		}
		if x.length < 0 || x.end != endEOF {
			_ = flush()
		}
	}
}

// reset drops the connection with a TCP reset where it can, or as abruptly as
// HTTP/2 allows.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		raw := conn
		if t, ok := conn.(*tls.Conn); ok {
			raw = t.NetConn()
		}
		if t, ok := raw.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // unsent data is discarded: RST, not FIN
		}
		_ = raw.Close()
	}
	panic(http.ErrAbortHandler)
}

func itoa(n int) string { return strconv.Itoa(n) }
