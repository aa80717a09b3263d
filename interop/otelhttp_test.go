package interop

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A watch is otelhttp in one place, and what it has seen.
type watch struct {
	spans   *tracetest.SpanRecorder
	metrics *sdkmetric.ManualReader
}

func newWatch() watch { return watch{tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()} }

func (w watch) over(base http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(base,
		otelhttp.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))),
		otelhttp.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.metrics))),
		otelhttp.WithPropagators(propagation.TraceContext{}))
}

// requireBodies checks how many request bodies were seen to their end, and how
// long they were in all.
func (w watch) requireBodies(t *testing.T, wantCount uint64, wantSum int64) {
	require.Eventually(t, func() bool {
		count, sum := uint64(0), int64(0)
		var all metricdata.ResourceMetrics
		if err := w.metrics.Collect(context.Background(), &all); err != nil {
			return false
		}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				if h, ok := m.Data.(metricdata.Histogram[int64]); ok && m.Name == "http.client.request.body.size" {
					for _, p := range h.DataPoints {
						count, sum = count+p.Count, sum+p.Sum
					}
				}
			}
		}
		return count == wantCount && sum == wantSum
	}, 20*time.Second, time.Millisecond)
}

func attr(s sdktrace.ReadOnlySpan, key attribute.Key) attribute.Value {
	for _, a := range s.Attributes() {
		if a.Key == key {
			return a.Value
		}
	}
	return attribute.Value{}
}

// otelhttp outside sees the call and inside each attempt, with the Transport's
// own spans between: for every SDK and operation, and no stream is held up.
func TestOtelHTTP(t *testing.T) {
	latency := spillovertest.Latency{FirstToken: 10 * time.Millisecond, PerToken: time.Millisecond}
	each(t, []place{inMemory, overHTTP2}, func(t *testing.T, _ adapter, o operation, place place) {
		outside, inside := newWatch(), newWatch()
		own := tracetest.NewSpanRecorder()
		p := newPool(t, place, latency, func(cfg *spillover.Config) {
			cfg.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(own))
			cfg.Base = inside.over(cfg.Base)
		})
		p.set(0, throttled("30", 1))
		start, at := time.Now(), []time.Duration{}
		text, err := o.call(t.Context(), setup{
			client: &http.Client{Transport: outside.over(p.asked)},
			piece:  func() { at = append(at, time.Since(start)) },
		})
		require.NoError(t, err)
		require.Equal(t, o.text, text)
		p.requireQuiet(t)

		calls, attempts := outside.spans.Ended(), inside.spans.Ended()
		require.Len(t, calls, 1)
		require.Len(t, attempts, 2)
		require.EqualValues(t, 200, attr(calls[0], "http.response.status_code").AsInt64())
		require.Len(t, own.Started(), 3) // the request, and its two attempts
		request := own.Started()[0]
		require.Equal(t, calls[0].SpanContext().SpanID(), request.Parent().SpanID())
		for i, status := range []int64{429, 200} {
			span := attempts[i]
			attempt := own.Started()[1+i]
			require.Equal(t, request.SpanContext().SpanID(), attempt.Parent().SpanID())
			require.Equal(t, attempt.SpanContext().SpanID(), span.Parent().SpanID())
			require.Equal(t, calls[0].SpanContext().TraceID(), span.SpanContext().TraceID())
			require.Equal(t, status, attr(span, "http.response.status_code").AsInt64())
			require.True(t, strings.HasPrefix(attr(span, "url.full").AsString(), p.servers[i].URL))
			// Each deployment is told its own attempt, not the other's, nor the call.
			sent := p.servers[i].Requests()[0]
			require.Contains(t, sent.Header.Get("Traceparent"), span.SpanContext().SpanID().String())
		}
		if o.streams && place.name == inMemory.name {
			ms := time.Millisecond
			require.Equal(t, []time.Duration{10 * ms, 11 * ms, 12 * ms, 13 * ms, 14 * ms}, at)
			require.Equal(t, 14*ms, calls[0].EndTime().Sub(calls[0].StartTime()), "a call lasts until its stream ends")
		}

		// HTTP/2 may close a body after the answer has ended.
		length := int64(len(p.servers[0].Requests()[0].Body) + len(p.servers[1].Requests()[0].Body))
		inside.requireBodies(t, 2, length)
		outside.requireBodies(t, 1, p.asked.seen[0].length)
	})
}
