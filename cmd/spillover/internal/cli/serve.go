package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	urfave "github.com/urfave/cli/v3"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
	"github.com/spillover-go/spillover/fleet/redis"
	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/spillover-go/spillover/statuspage"
)

func serveCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "serve",
		Usage: "run the reverse proxy",
		Description: "Clients use it as they use OpenAI or Azure OpenAI: with http://127.0.0.1:8080/v1, " +
			"http://127.0.0.1:8080/openai/v1 or http://127.0.0.1:8080 as base URL. " +
			"The configuration, the keys and the certificate are reloaded when their files change, and on SIGHUP. " +
			"SIGTERM and SIGINT end it once the responses in progress are complete; a second one ends it at once.",
		Flags: []urfave.Flag{
			configFlag(),
			&urfave.StringFlag{Name: "listen", Value: "127.0.0.1:8080", Usage: "the `ADDRESS` for callers, host:port or unix:/path; one that is not loopback needs -keys"},
			&urfave.StringFlag{Name: "keys", Usage: "the `FILE` with the keys that callers must present", TakesFile: true},
			&urfave.StringFlag{Name: "tls-cert", Usage: "the `FILE` with the certificate chain, in PEM", TakesFile: true},
			&urfave.StringFlag{Name: "tls-key", Usage: "the `FILE` with the certificate's private key, in PEM", TakesFile: true},
			&urfave.StringFlag{Name: "admin-listen", Usage: "an `ADDRESS` of its own for /metrics and /status; one that is not loopback needs -keys"},
			&urfave.BoolFlag{Name: "pass-credentials", Usage: "send callers' own credentials to backends that have none; not with -keys"},
			&urfave.Int64Flag{Name: "max-body", Value: 64, Usage: "the maximum size of a request body, in `MiB`"},
			&urfave.DurationFlag{Name: "client-timeout", Value: time.Minute, Usage: "how long a caller may take to send or to read the next piece"},
			&urfave.DurationFlag{Name: "drain-delay", Usage: "how long requests are still accepted after a signal, while /readyz answers 503"},
			&urfave.DurationFlag{Name: "shutdown-timeout", Value: 5 * time.Minute, Usage: "how long responses in progress may take after that"},
			&urfave.StringFlag{Name: "fleet", Usage: "the `URL` of a Redis that connects replicas, such as rediss://user:${REDIS_PASSWORD}@host:6380; ${NAME} is replaced by an environment variable",
				Sources: urfave.EnvVars("SPILLOVER_FLEET")},
			&urfave.StringFlag{Name: "access-log", Value: "info", Usage: "the level of the log record of each request: debug, info, or none"},
			logFlag(),
			logLevelFlag(),
		},
		Action: func(ctx context.Context, cmd *urfave.Command) error {
			s, err := newServer(ctx, cmd)
			if err != nil {
				return err
			}
			return s.run(ctx)
		},
	}
}

func keyCommand() *urfave.Command {
	return &urfave.Command{
		Name:        "key",
		Usage:       "print a new key for callers of serve, and its entry in the file of keys",
		ArgsUsage:   "NAME",
		Description: "The key itself is not stored anywhere: give it to the caller. Append the entry to the file of -keys.",
		Action: func(_ context.Context, cmd *urfave.Command) error {
			if cmd.Args().Len() != 1 {
				return usageError(cmd, errors.New("give the new key a name, by which log records identify it"))
			}
			key, sum := keys.New()
			name := cmd.Args().First()
			entry := fmt.Sprintf("  - name: %s\n    sha256: %s\n", name, sum)
			if _, err := keys.Parse([]byte("keys:\n" + entry)); err != nil {
				return wrong(fmt.Errorf("the name cannot be used: %w", err))
			}
			fmt.Fprintf(cmd.Root().Writer, "key: %s\n\nkeys:\n%s", key, entry)
			return nil
		},
	}
}

// Limits of the server that no flag changes.
const (
	maxHeader         = 64 << 10         // bytes of a request's header
	headerTimeout     = 20 * time.Second // until a request's header is complete
	idleTimeout       = 2 * time.Minute  // of a connection between requests
	reloadPeriod      = 2 * time.Second  // between two reads of a file
	maxIdleBackends   = 1000             // idle connections to backends
	cancelGrace       = time.Second      // for responses that were canceled
	telemetryShutdown = 5 * time.Second
)

// A server is the running proxy, with what it reads from files.
type server struct {
	log       *slog.Logger
	transport *spillover.Transport
	proxy     *proxy.Proxy
	page      *statuspage.Page
	engine    *redis.Engine // nil without a fleet
	metrics   *metric.MeterProvider
	base      *http.Transport

	configPath, keysPath  string
	certPath, certKeyPath string
	passCredentials       bool
	drainDelay            time.Duration
	shutdownTimeout       time.Duration

	listener, adminListener net.Listener // adminListener may be nil

	reloading   sync.Mutex       // guards the following field, and reloads
	config      spillover.Config // in force
	certificate atomic.Pointer[tls.Certificate]
}

// newServer makes a server that listens already. Everything that is wrong is reported before.
func newServer(ctx context.Context, cmd *urfave.Command) (_ *server, err error) {
	log, err := newLogger(cmd)
	if err != nil {
		return nil, err
	}
	s := &server{
		log: log, configPath: cmd.String("config"), keysPath: cmd.String("keys"),
		certPath: cmd.String("tls-cert"), certKeyPath: cmd.String("tls-key"), passCredentials: cmd.Bool("pass-credentials"),
		drainDelay: cmd.Duration("drain-delay"), shutdownTimeout: cmd.Duration("shutdown-timeout"),
	}
	options, err := s.proxyOptions(cmd)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var wrongs []error
	cfg, err := loadConfig(cmd)
	if err == nil {
		err = s.checkCredentials(cfg)
	}
	wrongs = append(wrongs, err)
	var set *keys.Set
	if s.keysPath != "" {
		set, err = keys.Load(s.keysPath)
		wrongs = append(wrongs, err)
	}
	if s.certPath != "" {
		wrongs = append(wrongs, s.loadCertificate())
	}
	s.listener, err = s.listen(ctx, "listen", cmd.String("listen"))
	wrongs = append(wrongs, err)
	if admin := cmd.String("admin-listen"); admin != "" {
		s.adminListener, err = s.listen(ctx, "admin-listen", admin)
		wrongs = append(wrongs, err)
	}
	if err = errors.Join(wrongs...); err != nil {
		return nil, wrong(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	s.metrics = metric.NewMeterProvider(metric.WithReader(exporter))
	if err = s.openFleet(cmd.String("fleet")); err != nil {
		return nil, wrong(err)
	}
	s.base = http.DefaultTransport.(*http.Transport).Clone()
	s.base.MaxIdleConns, s.base.MaxIdleConnsPerHost = maxIdleBackends, maxIdleBackends
	s.config = cfg
	if s.transport, err = spillover.New(s.complete(cfg)); err != nil {
		return nil, wrong(err)
	}
	s.page = statuspage.New(s.transport)
	options.Transport, options.StatusPage = s.transport, s.page
	options.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	options.AdminElsewhere = s.adminListener != nil
	options.AdminNeedsKey = s.adminListener != nil && !isLocal(s.adminListener.Addr())
	s.proxy = proxy.New(options)
	if set != nil {
		s.proxy.SetKeys(set)
	}
	return s, nil
}

// proxyOptions are those that flags say, without what New makes of files.
func (s *server) proxyOptions(cmd *urfave.Command) (o proxy.Options, err error) {
	o = proxy.Options{Logger: s.log, MaxBody: cmd.Int64("max-body") << 20, ClientTimeout: cmd.Duration("client-timeout"), PassCredentials: s.passCredentials}
	switch level := cmd.String("access-log"); level {
	case "info":
		o.AccessLevel = slog.LevelInfo
	case "debug":
		o.AccessLevel = slog.LevelDebug
	case "none":
		o.NoAccessLog = true
	default:
		return o, usageError(cmd, fmt.Errorf("access-log: %q is not debug, info or none", level))
	}
	var errs []error
	if o.MaxBody <= 0 || o.MaxBody>>20 != cmd.Int64("max-body") {
		errs = append(errs, errors.New("max-body must be at least 1"))
	}
	if o.ClientTimeout <= 0 {
		errs = append(errs, errors.New("client-timeout must be more than 0"))
	}
	if s.drainDelay < 0 || s.shutdownTimeout < 0 {
		errs = append(errs, errors.New("drain-delay and shutdown-timeout must not be negative"))
	}
	if (s.certPath == "") != (s.certKeyPath == "") {
		errs = append(errs, errors.New("tls-cert and tls-key need each other"))
	}
	if s.passCredentials && s.keysPath != "" {
		errs = append(errs, errors.New("pass-credentials and keys exclude each other: a caller's key must not reach a backend"))
	}
	if cmd.Args().Present() {
		errs = append(errs, fmt.Errorf("unexpected argument %q", cmd.Args().First()))
	}
	if err := errors.Join(errs...); err != nil {
		return o, usageError(cmd, err)
	}
	return o, nil
}

// listen opens an address. One that other hosts can reach needs keys.
func (s *server) listen(ctx context.Context, flag, address string) (net.Listener, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if !isLocal(l.Addr()) && s.keysPath == "" {
		_ = l.Close()
		return nil, fmt.Errorf("%s: %s is not a loopback address: other hosts could use the backends' credentials. Set -keys", flag, address)
	}
	return l, nil
}

// isLocal reports whether only this host can reach an address.
func isLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

// openFleet connects to the Redis of a URL, in which variables are replaced.
func (s *server) openFleet(address string) (err error) {
	if address == "" {
		return nil
	}
	var missing []string
	address = os.Expand(address, func(name string) string {
		value, ok := os.LookupEnv(name)
		if !ok {
			missing = append(missing, name)
		}
		return value
	})
	if missing != nil {
		return fmt.Errorf("fleet: not set: %s", strings.Join(missing, ", "))
	}
	if s.engine, err = redis.Open(address, redis.Options{Logger: s.log, MeterProvider: s.metrics}); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	return nil
}

// complete is a configuration of a file with what a file cannot say.
func (s *server) complete(cfg spillover.Config) spillover.Config {
	cfg.Base, cfg.Logger, cfg.MeterProvider = s.base, s.log, s.metrics
	if s.engine != nil {
		cfg.Fleet = s.engine
	}
	return cfg
}

// gatewayKeys are the headers of a backend that are a credential, as the transport knows them.
var gatewayKeys = map[string]bool{"Ocp-Apim-Subscription-Key": true, "X-Api-Key": true, "X-Functions-Key": true, "X-Goog-Api-Key": true}

func hasCredential(b spillover.Backend) bool {
	for name, value := range b.Headers {
		if gatewayKeys[http.CanonicalHeaderKey(name)] && value != "" {
			return true
		}
	}
	return b.APIKey != "" || b.APIKeyFile != "" || b.Auth != "" || b.Token != nil
}

// checkCredentials returns an error for each backend to which callers' credentials would
// be sent although that is not wanted.
func (s *server) checkCredentials(cfg spillover.Config) error {
	had := map[string]bool{}
	for _, b := range s.config.Backends {
		had[b.URL] = had[b.URL] || hasCredential(b)
	}
	var errs []error
	for i, b := range cfg.Backends {
		what := "has no credential: set api_key, api_key_file or auth. Callers' own credentials are sent to it only with -pass-credentials"
		switch {
		case hasCredential(b):
			continue
		case s.passCredentials && !had[b.URL]:
			continue
		case s.passCredentials:
			what = "has lost its credential: callers' own would be sent to it. Restart to confirm"
		}
		name := b.Name
		if name == "" {
			name = fmt.Sprint(i)
		}
		errs = append(errs, fmt.Errorf("%s: backends[%q] %s", s.configPath, name, what))
	}
	return errors.Join(errs...)
}

// run serves until ctx ends, and then until responses in progress have ended.
func (s *server) run(ctx context.Context) error {
	defer s.close()
	requests, cancelRequests := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelRequests(nil)
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	s.watch(watching)

	callers := s.newHTTPServer(requests, s.proxy)
	servers := []*http.Server{callers}
	failed := make(chan error, 2)
	s.serve(callers, s.listener, "listening", failed)
	if s.adminListener != nil {
		admin := s.newHTTPServer(requests, s.proxy.AdminHandler())
		servers = append(servers, admin)
		s.serve(admin, s.adminListener, "listening for administration", failed)
	}
	select {
	case err := <-failed:
		for _, server := range servers {
			_ = server.Close()
		}
		return err
	case <-ctx.Done():
	}
	s.proxy.Drain()
	s.log.Info("shutting down", "drain_delay", s.drainDelay.String(), "shutdown_timeout", s.shutdownTimeout.String())
	select {
	case <-time.After(s.drainDelay):
	case err := <-failed:
		return err
	}
	s.shutdown(callers, cancelRequests)
	if len(servers) > 1 {
		_ = servers[1].Close()
	}
	s.log.Info("stopped")
	return nil
}

// shutdown ends the listener, waits for requests and WebSockets, and cancels those that are
// left.
func (s *server) shutdown(callers *http.Server, cancelRequests context.CancelCauseFunc) {
	until, cancel := context.WithTimeout(context.Background(), s.shutdownTimeout)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { s.proxy.CloseSockets(until) })
	var err error
	both.Go(func() { err = callers.Shutdown(until) })
	both.Wait()
	if err == nil {
		return
	}
	s.log.Warn("requests in progress are canceled", "after", s.shutdownTimeout.String())
	cancelRequests(proxy.ErrShutdown)
	within, cancel := context.WithTimeout(context.Background(), cancelGrace)
	defer cancel()
	if callers.Shutdown(within) != nil {
		_ = callers.Close()
	}
}

// newHTTPServer makes a server for HTTP/1.1 and HTTP/2, with and without TLS.
func (s *server) newHTTPServer(requests context.Context, h http.Handler) *http.Server {
	server := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	server.Protocols.SetHTTP1(true)
	if s.certPath == "" {
		server.Protocols.SetUnencryptedHTTP2(true)
		return server
	}
	server.Protocols.SetHTTP2(true)
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.certificate.Load(), nil
	}}
	return server
}

// serve starts a server.
func (s *server) serve(server *http.Server, l net.Listener, message string, failed chan<- error) {
	scheme := "http"
	if server.TLSConfig != nil {
		scheme = "https"
	}
	s.log.Info(message, "address", l.Addr().String(), "scheme", scheme)
	go func() {
		var err error
		if server.TLSConfig != nil {
			err = server.ServeTLS(l, "", "")
		} else {
			err = server.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
}

// watch reloads the files when they change, and on SIGHUP, until ctx ends.
func (s *server) watch(ctx context.Context) {
	files := []watchedFile{{"configuration", s.configPath, s.readConfig, s.reloadConfig}}
	if s.keysPath != "" {
		files = append(files, watchedFile{"keys", s.keysPath, func() ([]byte, error) { return keys.Read(s.keysPath) }, s.reloadKeys})
	}
	if s.certPath != "" {
		files = append(files, watchedFile{"certificate", s.certPath, s.readCertificate, s.loadCertificate})
	}
	for _, f := range files {
		initial, _ := f.read() // an error is reported by the Watcher
		known := sha256.Sum256(initial)
		w := configfile.Watcher{
			Period: reloadPeriod,
			Read:   f.read,
			Apply: func(text []byte) error {
				quiet := sha256.Sum256(text) == known // the Watcher applies what was read at the start once more
				known = [sha256.Size]byte{}
				return s.reload(f, quiet)
			},
			Report: func(err error) { s.notReloaded(f, err) },
		}
		go func() { _ = w.Run(ctx, nil) }() // it ends with ctx
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				for _, f := range files {
					if err := s.reload(f, false); err != nil {
						s.notReloaded(f, err)
					}
				}
			}
		}
	}()
}

// A watchedFile is a file that is reloaded.
type watchedFile struct {
	what, path string
	read       func() ([]byte, error)
	apply      func() error
}

func (s *server) reload(f watchedFile, quiet bool) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := f.apply(); err != nil {
		return err
	}
	if !quiet {
		s.log.Info(f.what+" reloaded", "path", f.path)
	}
	return nil
}

func (s *server) notReloaded(f watchedFile, err error) {
	s.log.Warn(f.what+" not loaded: the previous one stays in force", "path", f.path, "error", err.Error())
}

func (s *server) readConfig() ([]byte, error) {
	return configfile.Read(s.configPath, configfile.MaxSize)
}

func (s *server) reloadConfig() error {
	cfg, err := spillover.Load(s.configPath)
	if err == nil {
		err = s.checkCredentials(cfg)
	}
	if err == nil {
		err = s.transport.Reconfigure(s.complete(cfg))
	}
	if err == nil {
		s.config = cfg
	}
	return err
}

func (s *server) reloadKeys() error {
	set, err := keys.Load(s.keysPath)
	if err == nil {
		s.proxy.SetKeys(set)
	}
	return err
}

// readCertificate returns what changes when the certificate or its key does.
func (s *server) readCertificate() ([]byte, error) {
	var sums []byte
	for _, path := range []string{s.certPath, s.certKeyPath} {
		text, err := configfile.Read(path, configfile.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		sum := sha256.Sum256(text)
		sums = append(sums, sum[:]...)
	}
	return sums, nil
}

func (s *server) loadCertificate() error {
	certificate, err := tls.LoadX509KeyPair(s.certPath, s.certKeyPath)
	if err != nil {
		return fmt.Errorf("tls-cert, tls-key: %w", err)
	}
	s.certificate.Store(&certificate)
	return nil
}

// close releases what newServer has opened.
func (s *server) close() {
	for _, l := range []net.Listener{s.listener, s.adminListener} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.page != nil {
		_ = s.page.Close()
	}
	if s.transport != nil {
		_ = s.transport.Close()
	}
	if s.engine != nil {
		_ = s.engine.Close()
	}
	if s.base != nil {
		s.base.CloseIdleConnections()
	}
	if s.metrics != nil {
		ctx, cancel := context.WithTimeout(context.Background(), telemetryShutdown)
		defer cancel()
		_ = s.metrics.Shutdown(ctx)
	}
}
