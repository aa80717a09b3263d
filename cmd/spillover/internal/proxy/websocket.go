package proxy

import (
	"net/http"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"
)

// isResponsesSocket reports whether a request opens a WebSocket for the Responses API,
// whose model is in the first frame.
func isResponsesSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && wire.ParsePath(r.URL.EscapedPath()).Operation == "responses"
}

func (p *Proxy) serveResponsesSocket(e *exchange, out *http.Request) { p.forward.ServeHTTP(e, out) }
