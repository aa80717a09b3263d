package spillover

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// A listener hears all that a Transport tells. The module in telemetry/ has
// OpenTelemetry's own SDK in its place.
type listener struct {
	mu        sync.Mutex
	declared  map[string]string // by the instruments' names: unit and description
	measured  map[string]float64
	counts    map[string]int
	callbacks map[int]metric.Callback
	ids       int
	spans     []*heardSpan
	records   bytes.Buffer
	refuses   string // the instrument, or "callback", that cannot be made
}

func listen() *listener {
	return &listener{declared: map[string]string{}, measured: map[string]float64{}, counts: map[string]int{}, callbacks: map[int]metric.Callback{}}
}

// to is the configuration with the listener in it.
func (l *listener) to(cfg Config) Config {
	cfg.MeterProvider, cfg.TracerProvider = heardMeters{l: l}, heardTracers{l: l}
	cfg.Logger = slog.New(slog.NewJSONHandler(&l.records, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
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
	return cfg
}

// log is the records since the last call, without their braces.
func (l *listener) log() (records []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.records.String()) {
		line = strings.NewReplacer(`"level":`, "", `"msg":`, "").Replace(line)
		records = append(records, strings.NewReplacer(`"`, "", "{", "", "}", "", "\n", "").Replace(line))
	}
	l.records.Reset()
	return records
}

// heard tells what an instrument has, by its attributes as key=value pairs,
// sorted and without the beginning of their names.
func (l *listener) heard(name string) map[string]float64 {
	if strings.HasPrefix(name, "spillover.deployment.") {
		l.collect()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]float64{}
	for key, value := range l.measured {
		if instrument, attributes, _ := strings.Cut(key, "{"); instrument == name {
			found[strings.TrimSuffix(attributes, "}")] = value
		}
	}
	return found
}

func (l *listener) collect() {
	l.mu.Lock()
	for key := range l.measured {
		if strings.HasPrefix(key, "spillover.deployment.") {
			delete(l.measured, key)
		}
	}
	callbacks := l.callbacks
	l.mu.Unlock()
	for _, f := range callbacks {
		if err := f(context.Background(), heardObserver{l: l}); err != nil {
			panic(err)
		}
	}
}

func (l *listener) add(name string, value float64, set attribute.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pairs []string
	for _, kv := range set.ToSlice() {
		pairs = append(pairs, fmt.Sprintf("%s=%s", short(kv.Key), kv.Value.Emit()))
	}
	slices.Sort(pairs)
	key := name + "{" + strings.Join(pairs, " ") + "}"
	l.measured[key] += value
	l.counts[key]++
}

// short is the last word of an attribute's name.
func short(k attribute.Key) string {
	s := string(k)
	return s[strings.LastIndexByte(s, '.')+1:]
}

type (
	heardMeters struct {
		metricnoop.MeterProvider
		l *listener
	}
	heardMeter struct {
		metricnoop.Meter
		l *listener
	}
	heardCounter struct {
		metricnoop.Int64Counter
		name string
		l    *listener
	}
	heardHistogram struct {
		metricnoop.Float64Histogram
		name string
		l    *listener
	}
	heardUpDown struct {
		metricnoop.Int64ObservableUpDownCounter
		name string
	}
	heardGauge struct {
		metricnoop.Float64ObservableGauge
		name string
	}
	heardObserver struct {
		metricnoop.Observer
		l *listener
	}
	heardRegistration struct {
		metricnoop.Registration
		l  *listener
		id int
	}
)

func (p heardMeters) Meter(name string, _ ...metric.MeterOption) metric.Meter {
	if name != instrumentationScope {
		panic(name)
	}
	return heardMeter{l: p.l}
}

func (m heardMeter) declare(name, unit, description string) error {
	if m.l.refuses == name {
		return fmt.Errorf("no %s", name)
	}
	m.l.declared[name] = unit + " " + description
	return nil
}

func (m heardMeter) Int64Counter(name string, options ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	c := metric.NewInt64CounterConfig(options...)
	return heardCounter{name: name, l: m.l}, m.declare(name, c.Unit(), c.Description())
}

func (m heardMeter) Float64Histogram(name string, options ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	c := metric.NewFloat64HistogramConfig(options...)
	return heardHistogram{name: name, l: m.l}, m.declare(name, c.Unit(), c.Description())
}

func (m heardMeter) Int64ObservableUpDownCounter(name string, options ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	c := metric.NewInt64ObservableUpDownCounterConfig(options...)
	return heardUpDown{name: name}, m.declare(name, c.Unit(), c.Description())
}

func (m heardMeter) Float64ObservableGauge(name string, options ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	c := metric.NewFloat64ObservableGaugeConfig(options...)
	return heardGauge{name: name}, m.declare(name, c.Unit(), c.Description())
}

func (m heardMeter) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	if m.l.refuses == "callback" {
		return nil, fmt.Errorf("no callback")
	}
	m.l.ids++
	id := m.l.ids
	m.l.callbacks[id] = f
	return heardRegistration{l: m.l, id: id}, nil
}

func (r heardRegistration) Unregister() error {
	delete(r.l.callbacks, r.id)
	return nil
}

func (heardCounter) Enabled(context.Context) bool   { return true }
func (heardHistogram) Enabled(context.Context) bool { return true }

func (c heardCounter) Add(_ context.Context, n int64, options ...metric.AddOption) {
	c.l.add(c.name, float64(n), metric.NewAddConfig(options).Attributes())
}

func (h heardHistogram) Record(_ context.Context, v float64, options ...metric.RecordOption) {
	h.l.add(h.name, v, metric.NewRecordConfig(options).Attributes())
}

func (o heardObserver) ObserveInt64(i metric.Int64Observable, v int64, options ...metric.ObserveOption) {
	o.l.add(i.(heardUpDown).name, float64(v), metric.NewObserveConfig(options).Attributes())
}

func (o heardObserver) ObserveFloat64(f metric.Float64Observable, v float64, options ...metric.ObserveOption) {
	o.l.add(f.(heardGauge).name, v, metric.NewObserveConfig(options).Attributes())
}

type (
	heardTracers struct {
		tracenoop.TracerProvider
		l *listener
	}
	heardTracer struct {
		tracenoop.Tracer
		l *listener
	}
	heardSpan struct {
		tracenoop.Span
		l           *listener
		name        string
		kind        trace.SpanKind
		parent      *heardSpan
		first, more []attribute.KeyValue // from the start on, and set later
		status      codes.Code
		began       time.Time
		ended       []time.Time
	}
)

func (p heardTracers) Tracer(name string, _ ...trace.TracerOption) trace.Tracer {
	if name != instrumentationScope {
		panic(name)
	}
	return heardTracer{l: p.l}
}

func (t heardTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	c := trace.NewSpanStartConfig(options...)
	s := &heardSpan{l: t.l, name: name, kind: c.SpanKind(), first: c.Attributes(), began: time.Now()}
	s.parent, _ = trace.SpanFromContext(ctx).(*heardSpan)
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	t.l.spans = append(t.l.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *heardSpan) IsRecording() bool { return true }

func (s *heardSpan) SetAttributes(attributes ...attribute.KeyValue) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.more = append(s.more, attributes...)
}

func (s *heardSpan) SetStatus(c codes.Code, description string) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.status = c
	if description != "" {
		panic("a description says nothing that error.type does not")
	}
}

func (s *heardSpan) End(...trace.SpanEndOption) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.ended = append(s.ended, time.Now())
}

// attributes are those of a span, the later of two with one name.
func (s *heardSpan) attributes() map[string]any {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	found := map[string]any{}
	for _, kv := range slices.Concat(s.first, s.more) {
		found[string(kv.Key)] = kv.Value.AsInterface()
	}
	return found
}

// traced are the spans so far, each of which must have ended exactly once if
// all is over.
func (l *listener) traced(t testing.TB) []*heardSpan {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spans {
		require.Len(t, s.ended, 1, "%s %v", s.name, s.more)
		if s.parent != nil {
			require.False(t, s.ended[0].After(s.parent.ended[0]), "%s ends after %s", s.name, s.parent.name)
		}
	}
	return l.spans
}
