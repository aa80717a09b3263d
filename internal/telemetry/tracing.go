package telemetry

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/redact"
)

// Attributes of spans only.
const (
	keyOperation  = attribute.Key("gen_ai.operation.name")
	keyProvider   = attribute.Key("gen_ai.provider.name")
	keyStream     = attribute.Key("gen_ai.request.stream")
	keyFirstChunk = attribute.Key("gen_ai.response.time_to_first_chunk")
	keyInput      = attribute.Key("gen_ai.usage.input_tokens")
	keyOutput     = attribute.Key("gen_ai.usage.output_tokens")
	keyAddress    = attribute.Key("server.address")
	keyPort       = attribute.Key("server.port")
	keyMethod     = attribute.Key("http.request.method")
	keyResend     = attribute.Key("http.request.resend_count")
	keyURL        = attribute.Key("url.full")
	keyAttempts   = attribute.Key("spillover.attempts")
	keyWaited     = attribute.Key("spillover.wait_time")
)

// tracing starts spans: one for a request, by OpenTelemetry's conventions for
// GenAI clients, with a child for each attempt, by those for HTTP clients.
type tracing struct {
	tracer   trace.Tracer
	provider attribute.KeyValue

	// In a program that sets no provider, OpenTelemetry's global one records nothing,
	// but allocates three times for each span. noop is that provider, once this is
	// known: no spans are started while it is the global one. A provider that is set
	// later is another value, and the tracer delegates to it.
	global bool
	noop   atomic.Pointer[trace.TracerProvider]

	starts  atomic.Pointer[map[spanKind]*spanStart]
	growing sync.Mutex
}

type spanKind struct{ operation, model string }

// A spanStart is the name and the attributes that a request's span starts with.
// Samplers see them, so they are needed even if the span is dropped: they are made
// once for each kind of request. Operations and model labels are bounded in number.
type spanStart struct {
	name    string
	options []trace.SpanStartOption
}

func (t *tracing) init(tracers trace.TracerProvider, provider string) {
	if t.global = tracers == nil; t.global {
		tracers = otel.GetTracerProvider()
	}
	t.tracer, t.provider = tracers.Tracer(Scope), keyProvider.String(provider)
}

// noSpan records nothing.
var noSpan = trace.SpanFromContext(context.Background())

// isNoop reports whether the tracer is that of a global provider which is known to
// record nothing. The provider is for learnNoop, and nil if it is not the global one.
func (t *tracing) isNoop() (provider trace.TracerProvider, noop bool) {
	if !t.global {
		return nil, false
	}
	provider = otel.GetTracerProvider()
	known := t.noop.Load()
	return provider, known != nil && *known == provider
}

// learnNoop remembers a global provider that records nothing. Its span is not
// recorded and has no span context but its parent's, whereas one that is sampled out
// has its own. This is learnt from a request's span, because a span just to find out
// would be exported where there is an SDK. Providers of other kinds than pointers
// are not remembered: to compare them may panic.
func (t *tracing) learnNoop(parent context.Context, provider trace.TracerProvider, span trace.Span) {
	if provider != nil && !span.IsRecording() && span.SpanContext().Equal(trace.SpanContextFromContext(parent)) &&
		reflect.TypeOf(provider).Kind() == reflect.Pointer {
		noop := provider // its own variable: the parameter would be allocated with each call
		t.noop.Store(&noop)
	}
}

// startRequest starts the span of a request.
func (r *Recorder) startRequest(ctx context.Context, operation, model string) (context.Context, trace.Span) {
	provider, noop := r.isNoop()
	if noop {
		return ctx, noSpan
	}
	kind := spanKind{operation, r.modelLabel(model)}
	start := r.spanStart(kind)
	spanned, span := r.tracer.Start(ctx, start.name, start.options...)
	r.learnNoop(ctx, provider, span)
	if kind.model == otherModels && span.IsRecording() {
		span.SetAttributes(keyModel.String(redact.Sanitize(model)))
	}
	return spanned, span
}

func (t *tracing) spanStart(kind spanKind) *spanStart {
	known := t.starts.Load()
	if known != nil && (*known)[kind] != nil {
		return (*known)[kind]
	}
	t.growing.Lock()
	defer t.growing.Unlock()
	grown := map[spanKind]*spanStart{}
	if known = t.starts.Load(); known != nil {
		maps.Copy(grown, *known)
	}
	attributes := []attribute.KeyValue{keyOperation.String(kind.operation), t.provider}
	name := kind.operation
	if kind.model != "" {
		name += " " + kind.model
	}
	if kind.model != "" && kind.model != otherModels {
		attributes = append(attributes, keyModel.String(kind.model))
	}
	grown[kind] = &spanStart{name, []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...)}}
	t.starts.Store(&grown)
	return grown[kind]
}

// endSpan ends a span, with an error if there is the type of one. As the semantic
// conventions advise, the text of the error is the description of the span's status
// (https://opentelemetry.io/docs/specs/semconv/general/recording-errors/).
func endSpan(span trace.Span, errorType, errorText string) {
	if errorType != "" {
		span.SetAttributes(keyErrorType.String(errorType))
		span.SetStatus(codes.Error, errorText)
	}
	span.End()
}

// spanMethod is an HTTP method in the name of a span and as its attribute.
func spanMethod(method string) (name, attribute string) {
	switch method {
	case "":
		return http.MethodGet, http.MethodGet
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method, method
	}
	return "HTTP", "_OTHER"
}

const maxURL = 2 << 10

// fullURL is a URL without its query, in which a realtime connection may have a key.
func fullURL(u *url.URL) string {
	full := u.Scheme + "://" + u.Host + u.EscapedPath()
	return full[:min(len(full), maxURL)]
}

// serverAddress is the host and the port of a URL.
func serverAddress(u *url.URL) []attribute.KeyValue {
	port, err := strconv.Atoi(u.Port())
	switch {
	case err == nil:
	case u.Scheme == "http":
		port = 80
	default:
		port = 443
	}
	return []attribute.KeyValue{keyAddress.String(u.Hostname()), keyPort.Int(port)}
}
