package spillover

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/objects"
	"github.com/spillover-go/spillover/internal/replay"
)

// A pool is what requests share whatever configuration they began with.
type pool struct {
	stored  objects.Store
	callers health.Callers
	opened  notifier // wakes waiting requests when a deployment becomes available
	random  func() uint64
	closed  atomic.Bool
	done    chan struct{} // closed with it
}

// An activeConfig is a configuration in force. A request ends with the one that
// it began with.
type activeConfig struct {
	cfg          Config // without its backends, so it holds no key
	base         http.RoundTripper
	ownTransport *http.Transport // base, if the configuration has none
	table        *table
	recorder     *recorder
	replica      *replica // nil without a Fleet

	fields []string // that Defaults set in bodies; a field's index is its bit
	paths  knownPaths

	knownModel func(name []byte) string // table.knownModel
}

// newActiveConfig puts a normalized Config into force. What is known of
// deployments that the old configuration has as well is kept.
func newActiveConfig(cfg Config, old *activeConfig) (s *activeConfig, err error) {
	var backends []*backend
	for _, b := range cfg.Backends {
		n := newBackend(b)
		if was := old.table.same(n); was != nil {
			n.sharedState = was.sharedState
		}
		backends = append(backends, n)
	}
	assignResources(backends, old.table.backends)
	cfg.Backends = nil
	s = &activeConfig{fields: presetNames(backends), cfg: cfg, base: cfg.Base, table: newTable(backends, cfg.Fallbacks, old.table)}
	s.knownModel = s.table.knownModel
	if s.base == nil {
		if s.ownTransport = old.ownTransport; s.ownTransport == nil {
			s.ownTransport = ownBase()
		}
		s.base = s.ownTransport
	}
	s.recorder, err = newRecorder(recorderOptions{
		Logger: cfg.Logger, MeterProvider: cfg.MeterProvider, TracerProvider: cfg.TracerProvider,
		Provider: backends[0].provider(), Models: s.table.models,
	}, old.recorder)
	return s, err
}

// ownBase is a clone of [http.DefaultTransport]. If a program has replaced that
// by another type, as instrumentation does, it has net/http's own settings. A
// pool sends everything to a few hosts, so as many idle connections are kept
// for one host as for all.
func ownBase() *http.Transport {
	// The settings of net/http's DefaultTransport.
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2: true, MaxIdleConns: 100, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: time.Second,
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		base = t.Clone()
	}
	if base.OnProxyConnectResponse == nil {
		base.OnProxyConnectResponse = refusedByProxy
	}
	if base.MaxIdleConnsPerHost == 0 {
		base.MaxIdleConnsPerHost = base.MaxIdleConns
	}
	if base.WriteBufferSize == 0 {
		base.WriteBufferSize = replay.MaxKept + 4<<10 // a body that is sent from memory, and a header
	}
	return base
}

// refusedByProxy is the error of a connection that a proxy refuses. net/http has only
// the text of the status for it, which does not show that nothing was sent.
func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: fmt.Errorf("the proxy answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
}
