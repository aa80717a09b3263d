package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/spillover-go/spillover/internal/connections"
	"github.com/spillover-go/spillover/statuspage"
)

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

func serveCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "serve",
		Usage: "run the reverse proxy",
		Description: "Clients use it as they use OpenAI or Azure OpenAI: with http://127.0.0.1:8080/v1, " +
			"http://127.0.0.1:8080/openai/v1 or http://127.0.0.1:8080 as base URL. " +
			"The configuration, the keys and the certificate are reloaded when their files change, and on SIGHUP. " +
			"SIGTERM and SIGINT end it once the responses in progress are complete; a second one ends it at once.",
		Flags: serveFlags(),
		Action: func(ctx context.Context, cmd *urfave.Command) error {
			o, err := readServeOptions(cmd)
			if err != nil {
				return err
			}
			s, err := newServer(ctx, o)
			if err != nil {
				return err
			}
			return s.run(ctx)
		},
	}
}

// A server is the running proxy, with what it reads from files.
type server struct {
	serveOptions
	transport *spillover.Transport
	proxy     *proxy.Proxy
	page      *statuspage.Page
	engine    *redis.Engine // nil without a fleet
	metrics   *metric.MeterProvider
	base      *http.Transport

	listener, adminListener net.Listener // adminListener may be nil

	reloading   sync.Mutex       // guards the following field, and reloads
	config      spillover.Config // in force
	certificate atomic.Pointer[tls.Certificate]
}

// newServer makes a server that listens already. Everything that is wrong is reported before.
func newServer(ctx context.Context, o serveOptions) (_ *server, err error) {
	s := &server{serveOptions: o}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var wrongs []error
	cfg, err := loadConfigFile(s.configPath)
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
	s.listener, err = s.listen(ctx, "listen", s.address)
	wrongs = append(wrongs, err)
	if s.adminAddress != "" {
		s.adminListener, err = s.listen(ctx, "admin-listen", s.adminAddress)
		wrongs = append(wrongs, err)
	}
	if err = errors.Join(wrongs...); err != nil {
		return nil, wrong(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	generated := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spillover_serve_errors_total", Help: "Error responses that serve generated itself, by their code."}, []string{"code"})
	registry.MustRegister(generated)
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	s.metrics = metric.NewMeterProvider(metric.WithReader(exporter))
	if err = s.openFleet(); err != nil {
		return nil, wrong(err)
	}
	s.base = connections.NewTransport()
	s.base.MaxIdleConns, s.base.MaxIdleConnsPerHost = maxIdleBackends, maxIdleBackends
	s.config = cfg
	if s.transport, err = spillover.New(s.complete(cfg)); err != nil {
		return nil, wrong(err)
	}
	s.page = statuspage.New(s.transport)
	options := s.callers
	options.Transport, options.StatusPage, options.Logger = s.transport, s.page, s.log
	options.CountError = func(code string) { generated.WithLabelValues(code).Inc() }
	options.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	options.AdminElsewhere = s.adminListener != nil
	options.AdminNeedsKey = s.adminListener != nil && !isLocal(s.adminListener.Addr())
	s.proxy = proxy.New(options)
	if set != nil {
		s.proxy.SetKeys(set)
	}
	return s, nil
}

// openFleet connects to the Redis of fleetURL, in which variables are replaced.
func (s *server) openFleet() (err error) {
	if s.fleetURL == "" {
		return nil
	}
	var missing []string
	address := os.Expand(s.fleetURL, func(name string) string {
		value, ok := os.LookupEnv(name)
		if !ok {
			missing = append(missing, name)
		}
		return value
	})
	if missing != nil {
		return fmt.Errorf("-fleet: not set: %s", strings.Join(missing, ", "))
	}
	if s.engine, err = redis.Open(address, redis.Options{Logger: s.log, MeterProvider: s.metrics}); err != nil {
		return fmt.Errorf("-fleet: %w", err)
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
