package spillover_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

// listened is a Transport whose metrics, spans and log a Listener records. It always
// draws the same random number.
func listened(t testing.TB, cfg spillover.Config) (*telemetrytest.Listener, *spillover.Transport) {
	l := telemetrytest.New()
	tr := configured(t, withListener(l, cfg))
	tr.SetRandom(func() uint64 { return 1 << 63 })
	t.Cleanup(func() { runtime.KeepAlive(tr) }) // a collected Transport is observed no more
	return l, tr
}

// withListener is the configuration with a Listener in it.
func withListener(l *telemetrytest.Listener, cfg spillover.Config) spillover.Config {
	cfg.MeterProvider, cfg.TracerProvider, cfg.Logger = l.MeterProvider(), l.TracerProvider(), l.Logger()
	return cfg
}

func TestRequestsAreCountedByClass(t *testing.T) {
	n := newNet()
	l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a")}})
	req := newChat(t, chatPath)
	send(t, tr, req.WithContext(spillover.WithClass(req.Context(), spillover.Background)))
	ask(t, tr)
	require.Equal(t, map[string]float64{
		"class=background model=m outcome=served tier=1": 1, "class=interactive model=m outcome=served tier=1": 1,
	}, l.Metric("spillover.requests"))
}
