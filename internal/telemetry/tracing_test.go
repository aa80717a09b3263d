package telemetry

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

// countingProvider records nothing, and counts the spans that it is asked for.
type countingProvider struct {
	tracenoop.TracerProvider
	started *int
	context trace.SpanContext // of its spans; that of the parent if there is none
}

func (p countingProvider) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return countingTracer{p: p}
}

type countingTracer struct {
	tracenoop.Tracer
	p countingProvider
}

func (c countingTracer) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	*c.p.started++
	if c.p.context.IsValid() {
		ctx = trace.ContextWithSpanContext(ctx, c.p.context)
	}
	return c.Tracer.Start(ctx, name, o...)
}

func request(ctx context.Context, r *Recorder) context.Context {
	q := Request{Begun: time.Now()}
	spanned := q.Start(ctx, r, "chat", "m")
	q.End(spanned, RequestEnd{Outcome: "served"})
	return spanned
}

func spanContext(id byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{id}})
}

// setGlobal sets the global provider until the end of the test.
func setGlobal(t *testing.T, p trace.TracerProvider) {
	otel.SetTracerProvider(p)
	t.Cleanup(func() { otel.SetTracerProvider(tracenoop.NewTracerProvider()) })
}

func TestNoopGlobalProviderIsAskedForOneSpan(t *testing.T) {
	started := 0
	setGlobal(t, &countingProvider{started: &started})
	r := globally(t)
	parent := trace.ContextWithSpanContext(t.Context(), spanContext(1))
	for _, ctx := range []context.Context{parent, t.Context(), parent} {
		spanned := request(ctx, r)
		require.Equal(t, trace.SpanContextFromContext(ctx), trace.SpanContextFromContext(spanned), "the caller's span is passed on")
	}
	require.Equal(t, 1, started)
}

func TestCallersSpanIsNotEndedUnderANoopGlobalProvider(t *testing.T) {
	started := 0
	setGlobal(t, &countingProvider{started: &started})
	r := globally(t)
	request(t.Context(), r)
	l := telemetrytest.New()
	ctx, outer := l.TracerProvider().Tracer(Scope).Start(t.Context(), "the caller's")
	require.Equal(t, outer, trace.SpanFromContext(request(ctx, r)))
	require.Empty(t, l.Spans[0].Ended)
	require.Empty(t, l.Spans[0].More)
}

func TestGlobalProviderWhoseSpansAreSampledOutIsAskedEachTime(t *testing.T) {
	started := 0
	setGlobal(t, &countingProvider{started: &started, context: spanContext(2)})
	r := globally(t)
	for range 3 {
		require.Equal(t, spanContext(2), trace.SpanContextFromContext(request(t.Context(), r)))
	}
	require.Equal(t, 3, started)
}

// Values of a type that is not a pointer may panic when they are compared.
func TestGlobalProviderThatIsNoPointerIsAskedEachTime(t *testing.T) {
	started := 0
	setGlobal(t, countingProvider{started: &started})
	r := globally(t)
	for range 3 {
		request(t.Context(), r)
	}
	require.Equal(t, 3, started)
}

func TestExplicitTracerProviderIsAskedEachTime(t *testing.T) {
	started := 0
	_, r := listened(t, func(o *Options) { o.TracerProvider = &countingProvider{started: &started} })
	for range 3 {
		request(t.Context(), r)
	}
	require.Equal(t, 3, started)
}

// OpenTelemetry's own global provider can be replaced once in a process, so this test
// has one to itself.
func TestGlobalProviderThatIsSetLaterGetsSpans(t *testing.T) {
	const variable = "SPILLOVER_TEST_GLOBAL_PROVIDER"
	if os.Getenv(variable) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), variable+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	r := globally(t)
	ctx := t.Context()
	require.NotEqual(t, ctx, request(ctx, r), "the first span shows that nobody records it")
	require.Equal(t, ctx, request(ctx, r))
	require.Zero(t, testing.AllocsPerRun(100, func() { request(ctx, r) }))

	l := telemetrytest.New()
	otel.SetTracerProvider(l.TracerProvider())
	request(ctx, r)
	require.Len(t, l.EndedSpans(t), 1)
	require.Equal(t, "chat other", l.Spans[0].Name)
}
