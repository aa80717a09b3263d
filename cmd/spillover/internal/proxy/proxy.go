/*
Package proxy is the reverse proxy of "spillover serve": an http.Handler before a
spillover.Transport.

It knows who may send requests and as what, which parts of a request must not reach a
backend, how long slow callers may take, and how the proxy ends. It does not know command
lines, listeners or files.
*/
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

// Options configure a [Proxy]. Only Transport is required.
type Options struct {
	// Transport sends the requests.
	Transport *spillover.Transport

	// PassCredentials is whether callers' own credentials are sent to backends that have
	// none. It is for a proxy without keys.
	PassCredentials bool

	// MaxBody is the maximum size of a request body, in bytes. 0 means 64 MiB.
	MaxBody int64

	// MaxBodyMemory bounds the bytes of request bodies, and of messages to WebSockets of
	// the Responses API, that are held at a time for all callers together. A request is
	// refused with a 503 if there is no room for its body. A key may hold as much as is
	// free, so one key alone at most half. It should be at least twice MaxBody. 0 means no
	// limit.
	MaxBodyMemory int64

	// ClientTimeout is how long a caller may take to send a piece of its body, or to read
	// a piece of the response. 0 means 1 min.
	ClientTimeout time.Duration

	// MinUploadRate is the rate, in bytes per second, at which a caller must send a body on
	// average. Time that the proxy does not wait for the caller is not counted, and
	// ClientTimeout is granted in addition. 0 means 8 KiB per second.
	MinUploadRate int64

	// AdminElsewhere is whether metrics and the status have a listener of their own, so
	// that ServeHTTP does not serve them.
	AdminElsewhere bool

	// AdminNeedsKey is whether AdminHandler demands a key with admin rights.
	AdminNeedsKey bool

	// CountError is called with the code of each error response that the proxy generates.
	// The codes are a few constants. nil means that they are not counted.
	CountError func(code string)

	// Metrics serves the metrics. nil means that there are none.
	Metrics http.Handler

	// StatusPage serves the status of the Transport at /status and below. nil means that
	// there is none.
	StatusPage http.Handler

	// Logger receives a record for each request, at AccessLevel, and warnings. nil means
	// no logging.
	Logger      *slog.Logger
	AccessLevel slog.Level

	// NoAccessLog is whether requests are not recorded.
	NoAccessLog bool
}

const (
	defaultMaxBody       = 64 << 20
	defaultClientTimeout = time.Minute
	defaultMinUploadRate = 8 << 10
)

// A Proxy is the handler for callers' requests. Its methods are safe for concurrent use.
type Proxy struct {
	options     Options
	transport   *spillover.Transport
	keys        atomic.Pointer[keys.Set] // nil without keys
	forward     *httputil.ReverseProxy
	crossOrigin *http.CrossOriginProtection
	admin       http.Handler
	log         *slog.Logger
	sockets     sockets
	bodies      bodyMemory
	inFlight    inFlight
	draining    atomic.Bool
}

// New makes a Proxy that demands no keys, until SetKeys.
func New(o Options) *Proxy {
	if o.MaxBody == 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.ClientTimeout == 0 {
		o.ClientTimeout = defaultClientTimeout
	}
	if o.MinUploadRate == 0 {
		o.MinUploadRate = defaultMinUploadRate
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{options: o, transport: o.Transport, log: o.Logger, crossOrigin: http.NewCrossOriginProtection()}
	p.bodies = bodyMemory{limit: o.MaxBodyMemory, byKey: map[string]int64{}}
	p.inFlight.byKey = map[string]int{}
	p.forward = p.newForward()
	p.admin = p.newAdmin()
	return p
}

// SetKeys sets the keys that callers must present from now on. Requests in flight go on.
func (p *Proxy) SetKeys(set *keys.Set) { p.keys.Store(set) }

// Drain makes /readyz answer 503, so that load balancers send no more requests. Requests
// are served as before, and each response ends its connection.
func (p *Proxy) Drain() { p.draining.Store(true) }

// ServeHTTP serves one request of a caller.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := p.newExchange(w, r)
	defer e.end()
	defer e.reset()
	p.serve(e, r)
	e.drain()
}

func (p *Proxy) serve(e *exchange, r *http.Request) {
	if p.serveHealth(e, r) {
		return
	}
	if isAdminPath(r.URL.Path) && !p.options.AdminElsewhere {
		if p.admit(e, r) && p.admitAdmin(e, r) {
			p.admin.ServeHTTP(e, r)
		}
		return
	}
	if problem := p.checkTarget(r); problem != nil {
		problem.write(e)
		return
	}
	if !p.admit(e, r) {
		return
	}
	if e.counted = p.inFlight.begin(e.key); !e.counted {
		tooMany(e.key).write(e)
		return
	}
	out, problem := p.prepare(e, r)
	switch {
	case problem != nil:
		problem.write(e)
	case p.serveModels(e, out):
	case isResponsesSocket(out):
		p.serveResponsesSocket(e, out)
	default:
		p.forward.ServeHTTP(e, out)
	}
}

// AdminHandler serves the metrics and the status on a listener of their own.
func (p *Proxy) AdminHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := p.newExchange(w, r)
		defer e.end()
		switch {
		case p.serveHealth(e, r):
		case !isAdminPath(r.URL.Path):
			problem := notFound(r)
			problem.message = "There is nothing at this path. This address has /metrics, /status/, /healthz and /readyz."
			problem.write(e)
		case p.options.AdminNeedsKey && !(p.admit(e, r) && p.admitAdmin(e, r)):
		case !p.options.AdminNeedsKey && !p.fromThisHost(e, r):
		default:
			p.admin.ServeHTTP(e, r)
		}
	})
}

// serveHealth serves the paths that are open to all, for load balancers.
func (p *Proxy) serveHealth(e *exchange, r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz":
		e.quiet = true
		writeText(e, http.StatusOK, "ok\n")
	case "/readyz":
		e.quiet = true
		if p.draining.Load() {
			writeText(e, http.StatusServiceUnavailable, "shutting down\n")
		} else {
			writeText(e, http.StatusOK, "ok\n")
		}
	default:
		return false
	}
	return true
}

func isAdminPath(path string) bool {
	return path == "/metrics" || path == "/status" || strings.HasPrefix(path, "/status/")
}

// newAdmin serves the paths of isAdminPath.
func (p *Proxy) newAdmin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { notFound(r).write(w) })
	add := func(path string, h http.Handler) {
		mux.Handle("GET "+path, h)
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { methodNotAllowed("GET, HEAD").write(w) })
	}
	if p.options.Metrics != nil {
		add("/metrics", p.options.Metrics)
	}
	if page := p.options.StatusPage; page != nil {
		add("/status", page)
		add("/status/", page)
	}
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // a caller that has left
}

// CloseSockets waits for the end of all WebSockets until ctx ends. Those that are left get
// a close frame with the status 1001, and a second to answer it; their backends have another
// second. New ones are closed at once.
func (p *Proxy) CloseSockets(ctx context.Context) { p.sockets.close(ctx) }

// ErrShutdown is the cause of a context that ends because the proxy does.
var ErrShutdown = errors.New("the proxy shuts down")
