package spillover

import (
	"net/http"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/connections"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/objects"
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
			s.ownTransport = connections.NewTransport()
		}
		s.base = s.ownTransport
	}
	s.recorder, err = newRecorder(recorderOptions{
		Logger: cfg.Logger, MeterProvider: cfg.MeterProvider, TracerProvider: cfg.TracerProvider,
		Provider: backends[0].provider(), Models: s.table.models,
	}, old.recorder)
	return s, err
}
