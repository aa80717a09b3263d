// Package telemetry_test collects what a Transport records with OpenTelemetry's own SDK
// and its Prometheus exporter, and checks the dashboard and the alert rules against that.
package telemetry_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/fleet/redis"
	"github.com/spillover-go/spillover/spillovertest"
)

// A scene is a Transport over simulated deployments, a PTU and two regions,
// whose metrics, spans and log are collected.
type scene struct {
	*spillover.Transport
	ptu, east, west *spillovertest.Server
	redis           redisServer
	engine          *redis.Engine

	reader   *metric.ManualReader
	registry *prometheus.Registry
	spans    *tracetest.SpanRecorder
	history  history
	log      *bytes.Buffer // JSON, one record a line
}

func newScene(t *testing.T, change ...func(*spillover.Config)) *scene {
	latency := spillovertest.Latency{FirstToken: 300 * time.Millisecond, PerToken: 20 * time.Millisecond}
	server := func(name string, limit spillovertest.Limit) *spillovertest.Server {
		return spillovertest.New(spillovertest.Config{Name: name, Deployments: []spillovertest.Deployment{{Name: "gpt-4o", Limit: limit, Latency: latency}}})
	}
	s := &scene{
		ptu: server("ptu", spillovertest.PTU{TPM: 60_000}), east: server("east", nil), west: server("west", nil),
		reader: metric.NewManualReader(), registry: prometheus.NewRegistry(), spans: tracetest.NewSpanRecorder(), history: history{}, log: new(bytes.Buffer),
	}
	scraped, err := exporter.New(exporter.WithRegisterer(s.registry))
	require.NoError(t, err)
	meters, logger := metric.NewMeterProvider(metric.WithReader(s.reader), metric.WithReader(scraped)), slog.New(slog.NewJSONHandler(s.log, nil))
	s.engine = s.redis.newEngine(t, redis.Options{MeterProvider: meters, Logger: logger})
	models := []spillover.Model{{Name: "gpt-4o"}}
	cfg := spillover.Config{
		Base:  spillovertest.Network(s.ptu, s.east, s.west),
		Fleet: s.engine,
		Backends: []spillover.Backend{
			{Name: "ptu", URL: s.ptu.URL, Dialect: spillover.Azure, APIKey: "k", Models: models},
			{Name: "east", URL: s.east.URL, Dialect: spillover.Azure, APIKey: "k", Models: models, Priority: 2},
			{Name: "west", URL: s.west.URL, Dialect: spillover.Azure, APIKey: "k", Models: models, Priority: 2},
		},
		MeterProvider:  meters,
		TracerProvider: trace.NewTracerProvider(trace.WithSpanProcessor(s.spans)),
		Logger:         logger,
	}
	for _, f := range change {
		f(&cfg)
	}
	s.Transport, err = spillover.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// ask sends a streamed request for a model and reads the response to its end, if there
// is one.
func (s *scene) ask(ctx context.Context, t *testing.T, name string) {
	if resp, err := s.RoundTrip(request(ctx, t, name)); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		require.NoError(t, resp.Body.Close())
	}
}

// leak sends a streamed request for a model and does not read the response. Its body is
// closed when the test ends.
func (s *scene) leak(t *testing.T, name string) {
	resp, err := s.RoundTrip(request(t.Context(), t, name))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, resp.Body.Close()) })
}

func request(ctx context.Context, t *testing.T, name string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://any.openai.azure.com/openai/deployments/"+name+"/chat/completions?api-version=2024-10-21",
		strings.NewReader(`{"messages":[{"role":"user","content":"`+strings.Repeat("all work ", 200)+`"}],"stream":true,"stream_options":{"include_usage":true}}`))
	require.NoError(t, err)
	return req
}

// collect returns the metrics that the SDK has, by the names of the instruments.
func (s *scene) collect(t *testing.T) map[string]metricdata.Metrics {
	var all metricdata.ResourceMetrics
	require.NoError(t, s.reader.Collect(context.Background(), &all))
	found := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		require.Contains(t, []string{"github.com/spillover-go/spillover", "github.com/spillover-go/spillover/fleet/redis"}, scope.Scope.Name)
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// play sends a request for each model every two seconds, while Prometheus scrapes
// every 14.
func (s *scene) play(t *testing.T, lasts time.Duration, models ...string) {
	for step := time.Duration(0); step < lasts; step += 2 * time.Second {
		next := time.Now().Add(2 * time.Second)
		for _, m := range models {
			s.ask(t.Context(), t, m)
		}
		time.Sleep(time.Until(next))
		if step%(14*time.Second) == 0 {
			s.scrape(t, time.Now())
		}
	}
}
