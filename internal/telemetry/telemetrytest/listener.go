// Package telemetrytest has a Listener, which records the metrics, spans and log
// records of tests. It stands in for OpenTelemetry's SDK, which the module does not
// depend on.
package telemetrytest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const scope = "github.com/spillover-go/spillover"

// A Listener records all that is sent to it.
type Listener struct {
	Declared  map[string]string // unit and description by the instruments' names
	Measured  map[string]float64
	Counts    map[string]int
	Callbacks map[int]metric.Callback
	Spans     []*Span
	Refuses   string // the instrument, or "callback", that cannot be made

	mu      sync.Mutex
	ids     int
	records bytes.Buffer
}

// New makes a Listener.
func New() *Listener {
	return &Listener{Declared: map[string]string{}, Measured: map[string]float64{}, Counts: map[string]int{}, Callbacks: map[int]metric.Callback{}}
}

// MeterProvider records metrics.
func (l *Listener) MeterProvider() metric.MeterProvider { return meterProvider{l: l} }

// TracerProvider records spans.
func (l *Listener) TracerProvider() trace.TracerProvider { return tracerProvider{l: l} }

// DroppingTracerProvider records spans too, but as a sampler that drops them: the
// spans are not recorded.
func (l *Listener) DroppingTracerProvider() trace.TracerProvider {
	return tracerProvider{l: l, drops: true}
}

// Logger records the log of the level INFO and above.
func (l *Listener) Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(&l.records, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch {
		case a.Key == slog.TimeKey:
			return slog.Attr{}
		case a.Value.Kind() == slog.KindDuration:
			return slog.String(a.Key, a.Value.Duration().String())
		case a.Value.Kind() == slog.KindTime:
			return slog.String(a.Key, time.Until(a.Value.Time()).String())
		}
		return a
	}}))
}

// LoggerAt is Logger, for another level.
func (l *Listener) LoggerAt(level slog.Level) *slog.Logger {
	return slog.New(levelHandler{l.Logger().Handler(), level})
}

type levelHandler struct {
	slog.Handler
	level slog.Level
}

func (h levelHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Log returns the records since its last call, without quotes and braces. Times are
// written as the time until then.
func (l *Listener) Log() (records []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.records.String()) {
		line = strings.NewReplacer(`"level":`, "", `"msg":`, "").Replace(line)
		records = append(records, strings.NewReplacer(`"`, "", "{", "", "}", "", "\n", "").Replace(line))
	}
	l.records.Reset()
	return records
}

// Metric returns the sums of an instrument by its attributes: sorted key=value pairs,
// each key without its namespace. Observed instruments are collected first.
func (l *Listener) Metric(name string) map[string]float64 {
	if strings.HasPrefix(name, "spillover.deployment.") {
		l.Collect()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]float64{}
	for key, value := range l.Measured {
		if instrument, attributes, _ := strings.Cut(key, "{"); instrument == name {
			found[strings.TrimSuffix(attributes, "}")] = value
		}
	}
	return found
}

// Collect calls the registered callbacks.
func (l *Listener) Collect() {
	l.mu.Lock()
	for key := range l.Measured {
		if strings.HasPrefix(key, "spillover.deployment.") {
			delete(l.Measured, key)
		}
	}
	callbacks := slices.Collect(maps.Values(l.Callbacks))
	l.mu.Unlock()
	for _, f := range callbacks {
		if err := f(context.Background(), observer{l: l}); err != nil {
			panic(err)
		}
	}
}

func (l *Listener) add(name string, value float64, set attribute.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pairs []string
	for _, kv := range set.ToSlice() {
		pairs = append(pairs, fmt.Sprintf("%s=%s", ShortKey(kv.Key), kv.Value.String()))
	}
	slices.Sort(pairs)
	key := name + "{" + strings.Join(pairs, " ") + "}"
	l.Measured[key] += value
	l.Counts[key]++
}

// ShortKey is a key without its namespace.
func ShortKey(k attribute.Key) string {
	s := string(k)
	return s[strings.LastIndexByte(s, '.')+1:]
}

type (
	meterProvider struct {
		metricnoop.MeterProvider
		l *Listener
	}
	meter struct {
		metricnoop.Meter
		l *Listener
	}
	counter struct {
		metricnoop.Int64Counter
		name string
		l    *Listener
	}
	histogram struct {
		metricnoop.Float64Histogram
		name string
		l    *Listener
	}
	upDownCounter struct {
		metricnoop.Int64ObservableUpDownCounter
		name string
	}
	observedCounter struct {
		metricnoop.Int64ObservableCounter
		name string
	}
	gauge struct {
		metricnoop.Float64ObservableGauge
		name string
	}
	observer struct {
		metricnoop.Observer
		l *Listener
	}
	registration struct {
		metricnoop.Registration
		l  *Listener
		id int
	}
)

func (p meterProvider) Meter(name string, _ ...metric.MeterOption) metric.Meter {
	if name != scope {
		panic(name)
	}
	return meter{l: p.l}
}

func (m meter) declare(name, unit, description string) error {
	if m.l.Refuses == name {
		return fmt.Errorf("no %s", name)
	}
	m.l.Declared[name] = unit + " " + description
	return nil
}

func (m meter) Int64Counter(name string, options ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	c := metric.NewInt64CounterConfig(options...)
	return counter{name: name, l: m.l}, m.declare(name, c.Unit(), c.Description())
}

func (m meter) Float64Histogram(name string, options ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	c := metric.NewFloat64HistogramConfig(options...)
	return histogram{name: name, l: m.l}, m.declare(name, c.Unit(), c.Description())
}

func (m meter) Int64ObservableUpDownCounter(name string, options ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	c := metric.NewInt64ObservableUpDownCounterConfig(options...)
	return upDownCounter{name: name}, m.declare(name, c.Unit(), c.Description())
}

func (m meter) Int64ObservableCounter(name string, options ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	c := metric.NewInt64ObservableCounterConfig(options...)
	return observedCounter{name: name}, m.declare(name, c.Unit(), c.Description())
}

func (m meter) Float64ObservableGauge(name string, options ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	c := metric.NewFloat64ObservableGaugeConfig(options...)
	return gauge{name: name}, m.declare(name, c.Unit(), c.Description())
}

func (m meter) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	if m.l.Refuses == "callback" {
		return nil, fmt.Errorf("no callback")
	}
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	m.l.ids++
	m.l.Callbacks[m.l.ids] = f
	return registration{l: m.l, id: m.l.ids}, nil
}

func (r registration) Unregister() error {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	delete(r.l.Callbacks, r.id)
	return nil
}

func (counter) Enabled(context.Context) bool   { return true }
func (histogram) Enabled(context.Context) bool { return true }

func (c counter) Add(_ context.Context, n int64, options ...metric.AddOption) {
	c.l.add(c.name, float64(n), metric.NewAddConfig(options).Attributes())
}

func (h histogram) Record(_ context.Context, v float64, options ...metric.RecordOption) {
	h.l.add(h.name, v, metric.NewRecordConfig(options).Attributes())
}

func (o observer) ObserveInt64(i metric.Int64Observable, v int64, options ...metric.ObserveOption) {
	name := ""
	switch i := i.(type) {
	case upDownCounter:
		name = i.name
	case observedCounter:
		name = i.name
	}
	o.l.add(name, float64(v), metric.NewObserveConfig(options).Attributes())
}

func (o observer) ObserveFloat64(f metric.Float64Observable, v float64, options ...metric.ObserveOption) {
	o.l.add(f.(gauge).name, v, metric.NewObserveConfig(options).Attributes())
}

// A Span is a span that was started, and may have ended.
type Span struct {
	tracenoop.Span
	Name        string
	Kind        trace.SpanKind
	Parent      *Span
	First, More []attribute.KeyValue // from the start on, and set later
	Status      codes.Code
	Description string // of the status
	Began       time.Time
	Ended       []time.Time

	l       *Listener
	dropped bool
}

type (
	tracerProvider struct {
		tracenoop.TracerProvider
		l     *Listener
		drops bool
	}
	tracer struct {
		tracenoop.Tracer
		p tracerProvider
	}
)

func (p tracerProvider) Tracer(name string, _ ...trace.TracerOption) trace.Tracer {
	if name != scope {
		panic(name)
	}
	return tracer{p: p}
}

func (t tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	c, l := trace.NewSpanStartConfig(options...), t.p.l
	s := &Span{l: l, Name: name, Kind: c.SpanKind(), First: c.Attributes(), Began: c.Timestamp(), dropped: t.p.drops}
	if s.Began.IsZero() {
		s.Began = time.Now()
	}
	s.Parent, _ = trace.SpanFromContext(ctx).(*Span)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Spans = append(l.Spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *Span) IsRecording() bool { return !s.dropped }

func (s *Span) SetAttributes(attributes ...attribute.KeyValue) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.More = append(s.More, attributes...)
}

func (s *Span) SetStatus(c codes.Code, description string) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.Status, s.Description = c, description
}

func (s *Span) End(...trace.SpanEndOption) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.Ended = append(s.Ended, time.Now())
}

// Attributes returns the attributes of the span; of two with one key the later.
func (s *Span) Attributes() map[string]any {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	found := map[string]any{}
	for _, kv := range slices.Concat(s.First, s.More) {
		found[string(kv.Key)] = kv.Value.AsInterface()
	}
	return found
}

// FirstAttributes returns those that the span had from the start on: samplers see
// them.
func (s *Span) FirstAttributes() map[string]any {
	return (&Span{l: s.l, First: s.First}).Attributes()
}

// EndedSpans returns all spans. Each must have ended exactly once, and no later than
// its parent.
func (l *Listener) EndedSpans(t testing.TB) []*Span {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.Spans {
		if len(s.Ended) != 1 {
			t.Fatalf("%s has ended %d times: %v", s.Name, len(s.Ended), s.More)
		}
		if s.Parent != nil && s.Ended[0].After(s.Parent.Ended[0]) {
			t.Fatalf("%s ends after %s", s.Name, s.Parent.Name)
		}
	}
	return l.Spans
}
