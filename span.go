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
	kind := opens{operation(c.Method, c.Operation), c.transport.models.label(c.table, c.model)}
	o := c.telemetry.opening(kind)
	c.ctx, c.span = c.telemetry.tracer.Start(c.Context(), o.name, o.options...)
	if kind.model == otherModels && c.span.IsRecording() {
		c.span.SetAttributes(keyModel.String(tame(c.model)))
	}
	c.told = c.span.IsRecording() || c.telemetry.listened(c.ctx)
}

// closeSpan ends the request's span.
func (c *call) closeSpan(outcome string, problem attribute.KeyValue) {
	if c.span.IsRecording() {
		attributes := []attribute.KeyValue{keyOutcome.String(outcome), keyAttempts.Int(c.sends)}
		if c.waited > 0 {
			attributes = append(attributes, keyWaited.Float64(c.waited.Seconds()))
		}
		if s := c.by; s != nil {
			attributes = append(attributes, s.d.backend.provider(), keyBackend.String(s.d.backend.name), keyStatus.Int(s.status))
			attributes = append(attributes, s.address()...)
			if in, out := s.input.Load(), s.output.Load(); in+out > 0 {
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
func (s *sending) openSpan(out *http.Request) *http.Request {
	c := s.call
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
	url := s.url.Scheme + "://" + s.url.Host + s.url.EscapedPath()
	attributes := append(s.address(), keyMethod.String(method), keyURL.String(url[:min(len(url), maxURL)]),
		keyBackend.String(s.d.backend.name), keyTier.Int(s.d.backend.priority), keyDeployment.String(tame(cmp.Or(s.d.name, c.model))))
	if c.sends > 0 {
		attributes = append(attributes, keyResend.Int(c.sends))
	}
	if method == "_OTHER" {
		method = "HTTP"
	}
	ctx, span := c.telemetry.tracer.Start(out.Context(), method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	s.span = span
	return out.WithContext(ctx)
}

const maxURL = 2 << 10

// closeSpan ends the attempt's span.
func (s *sending) closeSpan(problem attribute.KeyValue) {
	if s.span == nil {
		return
	}
	if s.status != 0 {
		s.span.SetAttributes(keyStatus.Int(s.status))
	}
	endSpan(s.span, problem)
	s.span = nil
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
func (s *sending) address() []attribute.KeyValue {
	port, err := strconv.Atoi(s.url.Port())
	switch {
	case err == nil:
	case s.url.Scheme == "http":
		port = 80
	default:
		port = 443
	}
	return []attribute.KeyValue{keyAddress.String(s.url.Hostname()), keyPort.Int(port)}
}
