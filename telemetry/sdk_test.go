package telemetry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A documented metric is a row of a table in docs/telemetry.md.
type documented struct {
	name, kind, unit, meaning string
	attributes                []string
}

func table(t *testing.T, name string) (all []documented) {
	text, err := os.ReadFile("../docs/telemetry.md")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "<!-- "+name+": begin -->\n")
	lines, _, _ := strings.Cut(rest, "<!-- "+name+": end -->")
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n")[2:] {
		cells := strings.Split(line, " | ")
		require.Len(t, cells, 6)
		d := documented{name: strings.Trim(cells[0], "|` "), kind: cells[1], unit: strings.Trim(cells[2], "`"), meaning: cells[4]}
		for _, a := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1) {
			d.attributes = append(d.attributes, a[1])
		}
		all = append(all, d)
	}
	return all
}

// The SDK has the documented metrics and no others.
func TestEveryInstrumentIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(c *spillover.Config) { c.MaxWait = 3 * time.Second })
		everything(t, s)
		have := s.collect(t)
		docs := slices.Concat(table(t, "metrics"), table(t, "metrics of the engine"))
		require.Len(t, have, len(docs))
		for _, d := range docs {
			m, ok := have[d.name]
			require.True(t, ok, d.name)
			require.Equal(t, d.unit, m.Unit, d.name)
			require.Equal(t, d.meaning, m.Description, d.name)
			kind, sets := points(m.Data)
			require.Equal(t, d.kind, kind, d.name)
			require.NotEmpty(t, sets, d.name)
			used := map[string]bool{}
			for _, set := range sets {
				for _, kv := range set.ToSlice() {
					require.Contains(t, d.attributes, string(kv.Key), d.name)
					used[string(kv.Key)] = true
				}
			}
			for _, a := range d.attributes {
				require.True(t, used[a], "%s never has %s", d.name, a)
			}
		}
	})
}

func points(data metricdata.Aggregation) (kind string, sets []attribute.Set) {
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		kind = "counter"
		if !d.IsMonotonic {
			kind = "up-down counter"
		}
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	case metricdata.Gauge[int64]:
		kind = "gauge"
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	case metricdata.Gauge[float64]:
		kind = "gauge"
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
		}
	case metricdata.Histogram[float64]:
		kind = "histogram"
		for _, p := range d.DataPoints {
			sets = append(sets, p.Attributes)
			if p.Bounds[0] != 0.01 || p.Bounds[len(p.Bounds)-1] != 327.68 {
				return "histogram with other bounds", nil
			}
		}
	}
	return kind, sets
}

// Every attempt is a child of its request, and the base's context carries the
// attempt's span.
func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside oteltrace.SpanContext
		s := newScene(t, func(c *spillover.Config) {
			base := c.Base
			c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
				inside = oteltrace.SpanContextFromContext(req.Context())
				return base.RoundTrip(req)
			})
		})
		s.ptu.Set(spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"2"}}, Times: 1})
		s.ask(t.Context(), t, "gpt-4o")

		ended := s.spans.Ended()
		require.Len(t, ended, 3)
		require.Len(t, s.spans.Started(), 3)
		first, second, request := ended[0], ended[1], ended[2]
		require.Equal(t, "chat gpt-4o", request.Name())
		require.Equal(t, codes.Unset, request.Status().Code)
		require.Equal(t, codes.Error, first.Status().Code)
		for _, a := range []trace.ReadOnlySpan{first, second} {
			require.Equal(t, "POST", a.Name())
			require.Equal(t, oteltrace.SpanKindClient, a.SpanKind())
			require.Equal(t, request.SpanContext().SpanID(), a.Parent().SpanID())
			require.Zero(t, a.DroppedAttributes())
		}
		require.Equal(t, second.SpanContext().SpanID(), inside.SpanID())
		at := attribute.NewSet(request.Attributes()...)
		input, ok := at.Value("gen_ai.usage.input_tokens")
		require.True(t, ok)
		require.NotZero(t, input.AsInt64())
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// All spans of a request end, however the request ends.
func TestSpansEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(c *spillover.Config) {
			c.MaxWait = 3 * time.Second
			c.Backends[2].APIKey = ""
			c.Backends[2].Token = func(context.Context) (string, error) { return "", errors.New("no token") }
		})
		everything(t, s)
		for _, f := range []spillovertest.Fault{{Kind: spillovertest.KindStall, After: 1}, {Kind: spillovertest.KindSilent}, {Kind: spillovertest.KindReset}} {
			for _, server := range []*spillovertest.Server{s.ptu, s.east} {
				server.Set(f)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			s.ask(ctx, t, "gpt-4o")
			cancel()
		}
		synctest.Wait()
		require.Len(t, s.spans.Ended(), len(s.spans.Started()))
	})
}

var globalProviders sync.Once

// A program may set the global providers after it made its Transports.
func TestGlobalProviders(t *testing.T) {
	first := false
	if globalProviders.Do(func() { first = true }); !first {
		t.Skip("they are set once in a process")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(c *spillover.Config) { c.MeterProvider, c.TracerProvider = nil, nil })
		s.ask(t.Context(), t, "gpt-4o")
		s.reader, s.spans = metric.NewManualReader(), tracetest.NewSpanRecorder()
		otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(s.reader)))
		otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(s.spans)))
		s.ask(t.Context(), t, "gpt-4o")
		require.Len(t, s.spans.Ended(), 2)
		have := s.collect(t)
		require.Contains(t, have, "spillover.requests")
		require.Contains(t, have, "spillover.deployment.available")
		require.NoError(t, s.Close())
		require.NotContains(t, s.collect(t), "spillover.deployment.available", "until Close")
	})
}

// The values of several Transports with the same deployments are added.
func TestTwoTransports(t *testing.T) {
	var cfg spillover.Config
	s := newScene(t, func(c *spillover.Config) { cfg = *c })
	another, err := spillover.New(cfg)
	require.NoError(t, err)
	defer another.Close()
	available := s.collect(t)["spillover.deployment.available"].Data.(metricdata.Sum[int64])
	require.Len(t, available.DataPoints, 3)
	for _, p := range available.DataPoints {
		require.EqualValues(t, 2, p.Value)
	}
}

// The files that docs/telemetry.md names exist.
func TestFiles(t *testing.T) {
	text, err := os.ReadFile("../docs/telemetry.md")
	require.NoError(t, err)
	for _, name := range regexp.MustCompile("`telemetry/([a-z.]+)`").FindAllStringSubmatch(string(text), -1) {
		_, err := os.Stat(name[1])
		require.NoError(t, err)
	}
}

// The cost of a request with the SDK: metrics, and spans that are sampled or
// not.
func BenchmarkRoundTrip(b *testing.B) {
	for name, sampler := range map[string]trace.Sampler{"spans": trace.AlwaysSample(), "no spans": trace.NeverSample()} {
		b.Run(name, func(b *testing.B) {
			lb, err := spillover.New(spillover.Config{
				Base: roundTripper(func(req *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody, Request: req}, nil
				}),
				Backends:       []spillover.Backend{{URL: "https://a.openai.azure.com", APIKey: "k", Models: []spillover.Model{{Name: "gpt-4o"}}}},
				MeterProvider:  metric.NewMeterProvider(metric.WithReader(metric.NewManualReader())),
				TracerProvider: trace.NewTracerProvider(trace.WithSampler(sampler)),
			})
			require.NoError(b, err)
			req, err := http.NewRequest(http.MethodGet, "https://any.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", nil)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := lb.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
