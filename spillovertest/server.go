package spillovertest

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
)

// Server is a simulated Azure OpenAI resource or OpenAI endpoint. All its
// methods may be called at any time from any goroutine. Inside a
// testing/synctest bubble, make it in the bubble that uses it.
type Server struct {
	// URL is where it is: https://NAME.spillover.test in memory, or the
	// address it listens on. No trailing slash.
	URL string
	// Name is Config.Name.
	Name string

	dialect    Dialect
	keys       []string
	configured []Deployment
	script     atomic.Pointer[[]*scripted]
	closed     chan struct{}
	close      sync.Once

	mu          sync.Mutex // guards what follows
	rng         *rand.Rand
	deployments map[string]*deployment
	counts      Counts
	log         []*Request // a ring once it is full
	oldest      int        // in log

	client *http.Client
	tls    bool
	busy   sync.RWMutex     // held for reading by every handler that runs
	net    sync.Mutex       // guards the listening
	addr   string           // "": in memory
	real   *httptest.Server // nil: in memory, refusing or closed
}

// New returns a server that is reached in memory only, through RoundTrip,
// Client or Network. It works in virtual time (testing/synctest) and needs no
// Close.
func New(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		URL: "https://" + cfg.Name + ".spillover.test", Name: cfg.Name,
		dialect: cfg.Dialect, keys: slices.Clone(cfg.Keys), configured: slices.Clone(cfg.Deployments),
		closed: make(chan struct{}), rng: newRand(cfg.Seed), deployments: make(map[string]*deployment),
	}
	for _, d := range cfg.Deployments {
		s.deployments[d.Name] = newDeployment(d)
	}
	s.client = &http.Client{Transport: s}
	s.script.Store(new([]*scripted))
	return s
}

// NewServer returns a server that listens on 127.0.0.1, over HTTP/1.1. The
// caller should call Close when finished.
func NewServer(cfg Config) *Server { return New(cfg).serve(false) }

// NewTLSServer is NewServer with TLS, over HTTP/2 or HTTP/1.1. Client trusts
// its certificate.
func NewTLSServer(cfg Config) *Server { return New(cfg).serve(true) }

func (s *Server) serve(tls bool) *Server {
	s.tls, s.addr = tls, "127.0.0.1:0"
	s.listen(true)
	s.addr = s.real.Listener.Addr().String()
	s.URL, s.client = s.real.URL, s.real.Client()
	return s
}

// listen starts or stops listening, on the same port every time. In memory
// there is nothing to do.
func (s *Server) listen(up bool) {
	s.net.Lock()
	defer s.net.Unlock()
	switch {
	case s.addr == "" || isClosed(s.closed) || up == (s.real != nil):
	case up:
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			panic("spillovertest: cannot listen: " + err.Error())
		}
		s.real = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(s.handle)}, EnableHTTP2: true}
		if s.tls {
			s.real.StartTLS()
		} else {
			s.real.Start()
		}
	default:
		s.hangUp()
	}
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	s.busy.RLock()
	defer s.busy.RUnlock()
	s.ServeHTTP(w, r)
}

// hangUp breaks all connections, which ends the requests on them, and stops
// listening.
func (s *Server) hangUp() {
	if s.real != nil {
		s.real.Listener.Close()
		s.real.CloseClientConnections()
		s.real.Close()
		s.busy.Lock()   // with HTTP/2, handlers outlive their connection
		s.busy.Unlock() //nolint:staticcheck // waiting was all
		s.real = nil
		s.client.CloseIdleConnections() // or it would try one that is gone
	}
}

// Client returns a client for this server: one that trusts its certificate, or
// reaches it in memory.
func (s *Server) Client() *http.Client { return s.client }

// Close shuts the server down. Requests it has not yet answered, even silent
// ones, end in an error, and later ones are refused.
func (s *Server) Close() {
	s.net.Lock()
	defer s.net.Unlock()
	s.close.Do(func() { close(s.closed) })
	s.hangUp()
}
