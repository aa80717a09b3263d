package spillover

import (
	"cmp"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/wire"
)

// Spans starts spans: one for a request, by OpenTelemetry's conventions for
// GenAI clients, and under it one for each attempt, by those for HTTP clients.
type spans struct {
	tracer   trace.Tracer
	provider attribute.KeyValue // as far as it is known before an attempt
	openings atomic.Pointer[map[opens]*opening]
	growing  sync.Mutex
}

// The attributes of spans alone.
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

// An opening is how the span of a request begins. Samplers want to know it
// then, so it is made once for each kind of request: an unsampled one is cheap.
type opening struct {
	name    string
	options []trace.SpanStartOption
}

type opens struct{ operation, model string }

func newSpans(tracer trace.Tracer, pool []*backend) spans {
	return spans{tracer: tracer, provider: pool[0].provider()}
}

func (s *spans) opening(o opens) *opening {
	known := s.openings.Load()
	if known != nil && (*known)[o] != nil {
		return (*known)[o]
	}
	s.growing.Lock()
	defer s.growing.Unlock()
	grown := map[opens]*opening{}
	if known = s.openings.Load(); known != nil {
		maps.Copy(grown, *known)
	}
	attributes := []attribute.KeyValue{keyOperation.String(o.operation), s.provider}
	name := o.operation
	if o.model != "" {
		name += " " + o.model
	}
	if o.model != "" && o.model != otherModels {
		attributes = append(attributes, keyModel.String(o.model))
	}
	grown[o] = &opening{name, []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...)}}
	s.openings.Store(&grown)
	return grown[o]
}

// operation is what the GenAI conventions call an operation; what they have no
// name for is called by the first segment of its path.
func operation(method, op string) string {
	root, rest := wire.CutSegment(op)
	switch {
	case method == http.MethodPost && (op == "chat/completions" || op == "responses"):
		return "chat"
	case op == "completions":
		return "text_completion"
	case method == http.MethodGet && root == "responses" && strings.Count(rest, "/") == 1:
		return "fetch_response"
	case method == http.MethodPost && root == "vector_stores" && strings.HasSuffix(rest, "/search"):
		return "retrieval"
	case root == "chat":
		return "chat_completions" // those that are stored
	case wire.IsCollection(root):
		return root
	}
	return "other"
}

// provider is what the GenAI conventions call whom a backend belongs to.
func (b *backend) provider() attribute.KeyValue {
	if b.dialect == OpenAI {
		return keyProvider.String("openai")
	}
	return keyProvider.String("azure.ai.openai")
}

// openSpan starts the request's span, once the request has been read.
func (c *call) openSpan() {
	kind := opens{operation(c.Method, c.Operation), c.pool.models.label(c.table, c.model)}
	o := c.telemetry.opening(kind)
	c.ctx, c.span = c.telemetry.tracer.Start(c.Context(), o.name, o.options...)
	if kind.model == otherModels && c.span.IsRecording() {
		c.span.SetAttributes(keyModel.String(sanitize(c.model)))
	}
	c.recording = c.span.IsRecording() || c.telemetry.listened(c.ctx)
}

// closeSpan ends the request's span.
func (c *call) closeSpan(outcome string, problem attribute.KeyValue) {
	if c.span.IsRecording() {
		attributes := []attribute.KeyValue{keyOutcome.String(outcome), keyAttempts.Int(c.sends)}
		if c.waited > 0 {
			attributes = append(attributes, keyWaited.Float64(c.waited.Seconds()))
		}
		if a := c.answeredBy; a != nil {
			attributes = append(attributes, a.deployment.backend.provider(), keyBackend.String(a.deployment.backend.name), keyStatus.Int(a.status))
			attributes = append(attributes, a.address()...)
			if in, out := a.input.Load(), a.output.Load(); in+out > 0 {
				attributes = append(attributes, keyInput.Int64(in), keyOutput.Int64(out))
			}
		}
		if c.streams {
			attributes = append(attributes, keyStream.Bool(true), keyFirstChunk.Float64(c.took.Seconds()))
		}
		c.span.SetAttributes(attributes...)
	}
	endSpan(c.span, problem)
}

// openSpan starts the attempt's span: what the base does with the request is
// beneath it. There is none beneath a request's that is not recorded.
func (a *attempt) openSpan(out *http.Request) *http.Request {
	c := a.call
	if !c.span.IsRecording() {
		return out
	}
	method := out.Method
	switch method {
	case "":
		method = http.MethodGet
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
	default:
		method = "_OTHER"
	}
	// Without the query: on realtime connections it may hold a key.
	url := a.url.Scheme + "://" + a.url.Host + a.url.EscapedPath()
	attributes := append(a.address(), keyMethod.String(method), keyURL.String(url[:min(len(url), maxURL)]),
		keyBackend.String(a.deployment.backend.name), keyTier.Int(a.deployment.backend.priority), keyDeployment.String(sanitize(cmp.Or(a.deployment.name, c.model))))
	if c.sends > 0 {
		attributes = append(attributes, keyResend.Int(c.sends))
	}
	if method == "_OTHER" {
		method = "HTTP"
	}
	ctx, span := c.telemetry.tracer.Start(out.Context(), method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	a.span = span
	return out.WithContext(ctx)
}

const maxURL = 2 << 10

// closeSpan ends the attempt's span.
func (a *attempt) closeSpan(problem attribute.KeyValue) {
	if a.span == nil {
		return
	}
	if a.status != 0 {
		a.span.SetAttributes(keyStatus.Int(a.status))
	}
	endSpan(a.span, problem)
	a.span = nil
}

// endSpan ends a span, with an error if there is a class of one.
func endSpan(span trace.Span, problem attribute.KeyValue) {
	if problem.Valid() {
		span.SetAttributes(problem)
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// address is the server that the attempt is sent to.
func (a *attempt) address() []attribute.KeyValue {
	port, err := strconv.Atoi(a.url.Port())
	switch {
	case err == nil:
	case a.url.Scheme == "http":
		port = 80
	default:
		port = 443
	}
	return []attribute.KeyValue{keyAddress.String(a.url.Hostname()), keyPort.Int(port)}
}
