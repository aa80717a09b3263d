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

// A Server is a simulated Azure OpenAI resource or OpenAI endpoint. Its methods are
// safe for concurrent use, after Close as well. Inside a [testing/synctest] bubble, make
// the server in the bubble that uses it.
type Server struct {
	// URL is the address without a trailing slash. In memory it is
	// https://NAME.openai.azure.test for the dialect Azure,
	// https://NAME.services.ai.azure.test for AzureV1 and https://NAME.openai.test for
	// OpenAI: package spillover infers the dialect from these. A server that listens has
	// http(s)://127.0.0.1:PORT, from which no dialect can be inferred.
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

// New returns a server in memory. It is reached through [Server.RoundTrip],
// [Server.Client] or [Network], works in virtual time ([testing/synctest]) and
// need not be closed. New panics if the configuration is invalid.
func New(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		URL: "https://" + cfg.Name + domains[cfg.Dialect], Name: cfg.Name,
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

// NewServer returns a server that listens on 127.0.0.1 for HTTP/1.1. Call
// [Server.Close] when it is no longer needed. NewServer panics if the configuration is
// invalid or no port is free.
func NewServer(cfg Config) *Server { return New(cfg).serve(false) }

// NewTLSServer is [NewServer] with TLS, over HTTP/2 or HTTP/1.1. [Server.Client]
// trusts its certificate.
func NewTLSServer(cfg Config) *Server { return New(cfg).serve(true) }

func (s *Server) serve(tls bool) *Server {
	s.tls, s.addr = tls, "127.0.0.1:0"
	s.listen(true)
	s.addr = s.real.Listener.Addr().String()
	s.URL, s.client = s.real.URL, s.real.Client()
	return s
}

// listen starts or stops listening, on the same port every time. A server in memory
// ignores it.
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

// hangUp stops listening and closes all connections, which ends the requests on
// them.
func (s *Server) hangUp() {
	if s.real != nil {
		s.real.Listener.Close()
		s.real.CloseClientConnections()
		s.real.Close()
		s.busy.Lock()   // with HTTP/2, handlers outlive their connection
		s.busy.Unlock() //nolint:staticcheck // it only waits
		s.real = nil
		s.client.CloseIdleConnections() // so that the client does not reuse a closed one
	}
}

// Client returns an HTTP client for this server. It trusts the server's certificate,
// or reaches the server in memory.
func (s *Server) Client() *http.Client { return s.client }

// Close shuts the server down. Requests in flight end with an error, also those that
// wait because of a [KindSilent] fault. Later connections are refused. Close may be
// called more than once.
func (s *Server) Close() {
	s.net.Lock()
	defer s.net.Unlock()
	s.close.Do(func() { close(s.closed) })
	s.hangUp()
}
