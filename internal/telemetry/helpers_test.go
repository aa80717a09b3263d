package telemetry

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

// listened is a Recorder whose output a Listener records, for the configured model m.
func listened(t testing.TB, change ...func(*Options)) (*telemetrytest.Listener, *Recorder) {
	l := telemetrytest.New()
	o := Options{Logger: l.Logger(), MeterProvider: l.MeterProvider(), TracerProvider: l.TracerProvider(), Provider: "openai", Models: []string{"m"}}
	for _, f := range change {
		f(&o)
	}
	r, err := New(o, nil)
	require.NoError(t, err)
	return l, r
}

// globally is a Recorder at the global tracer provider, without metrics and log.
func globally(t testing.TB) *Recorder {
	r, err := New(Options{MeterProvider: metricnoop.NewMeterProvider()}, nil)
	require.NoError(t, err)
	return r
}

func deployment() *Deployment {
	return &Deployment{Backend: "first", Tier: 1, Provider: "azure.ai.openai", Model: "m", Name: "deployed"}
}

var endpoint = &url.URL{Scheme: "https", Host: "first.example", Path: "/openai/v1/chat/completions", RawQuery: "api-key=secret"}

// roundTrip records a request for a model that a deployment has served.
func roundTrip(t testing.TB, r *Recorder, d *Deployment, model string) {
	q := Request{Begun: time.Now()}
	ctx := q.Start(t.Context(), r, "chat", model)
	var a Attempt
	q.StartAttempt(ctx, &a, AttemptStart{Deployment: d, Method: "POST", URL: endpoint})
	q.Return(ctx, Response{Outcome: "served", Status: 200, Deployment: d})
	q.EndAttempt(ctx, &a, AttemptEnd{Deployment: d, Outcome: "served", Status: 200})
	q.End(ctx, RequestEnd{Outcome: "served", Attempts: 1, Deployment: d, URL: endpoint, Status: 200})
}

func noNotices() *Notices { return nil }
