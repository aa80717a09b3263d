package telemetry_test

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/spillover-go/spillover"
)

// newTransport returns a Transport and the handler that serves its metrics.
func newTransport(cfg spillover.Config) (*spillover.Transport, http.Handler, error) {
	exporter, err := prometheus.New()
	if err != nil {
		return nil, nil, err
	}
	cfg.MeterProvider = metric.NewMeterProvider(metric.WithReader(exporter))
	lb, err := spillover.New(cfg)
	return lb, promhttp.Handler(), err
}
