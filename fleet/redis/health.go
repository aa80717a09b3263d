package redis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/spillover-go/spillover/fleet/redis"

// The operations whose last result decides whether the fleet is up.
const (
	publishing = iota
	receiving
	recalling
	operations
)

// A counted is the attributes of a count of notices.
type counted = metric.MeasurementOption

var (
	sentNotices        = notices("sent", "")
	receivedNotices    = notices("received", "")
	droppedFull        = notices("dropped", "buffer_full")
	droppedUnavailable = notices("dropped", "unavailable")
	droppedFailed      = notices("dropped", "failed")
	droppedSize        = notices("dropped", "size")
	droppedSlow        = notices("dropped", "slow_subscriber")
)

func notices(direction, reason string) counted {
	attributes := []attribute.KeyValue{attribute.String("spillover.direction", direction)}
	if reason != "" {
		attributes = append(attributes, attribute.String("error.type", reason))
	}
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

// health is what the log and the metrics show.
type health struct {
	log      *slog.Logger // with the group
	counter  metric.Int64Counter
	observed metric.Registration

	mu      sync.Mutex
	results [operations]outcome
	known   bool // whether it is up or down
	up      bool
	since   time.Time
}

type outcome struct {
	known bool
	err   error
}

func newHealth(opts Options) (*health, error) {
	h := &health{log: opts.Logger.With(slog.String("group", opts.Group)), since: time.Now()}
	h.results[recalling].known = true // there may be nothing to read
	provider := opts.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	meter := provider.Meter(scope)
	fail := func(err error) (*health, error) { return nil, fmt.Errorf("fleet/redis: MeterProvider: %w", err) }
	var err error
	h.counter, err = meter.Int64Counter("spillover.fleet.engine.notices", metric.WithUnit("{notice}"),
		metric.WithDescription("Notices between replicas: sent, received or dropped."))
	if err != nil {
		return fail(err)
	}
	up, err := meter.Int64ObservableGauge("spillover.fleet.engine.up", metric.WithUnit("{engine}"),
		metric.WithDescription("1 while the last operation of each kind succeeded (publish, subscribe, read), else 0."))
	if err != nil {
		return fail(err)
	}
	h.observed, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(up, h.value())
		return nil
	}, up)
	if err != nil {
		return fail(err)
	}
	return h, nil
}

func (h *health) unobserve() { _ = h.observed.Unregister() }

func (h *health) count(what counted, n int) {
	if n > 0 {
		h.counter.Add(context.Background(), int64(n), what)
	}
}

func (h *health) value() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.up {
		return 1
	}
	return 0
}

// report records the result of an operation. It logs when the state changes.
func (h *health) report(operation int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.results[operation] = outcome{true, err}
	if err == nil {
		for _, r := range h.results {
			if !r.known {
				return
			}
			err = firstError(err, r.err)
		}
	}
	up := err == nil
	if h.known && h.up == up {
		return
	}
	now := time.Now()
	attributes := []slog.Attr{slog.Int64("lasted_ms", now.Sub(h.since).Milliseconds())}
	level, message := slog.LevelInfo, "fleet up"
	if !up {
		level, message = slog.LevelWarn, "fleet down"
		attributes = append(attributes, slog.String("error", err.Error()))
	}
	h.known, h.up, h.since = true, up, now
	h.log.LogAttrs(context.Background(), level, message, attributes...)
}

func (h *health) logPanic(p any) {
	h.log.LogAttrs(context.Background(), slog.LevelError, "fleet subscriber panicked", slog.Any("panic", p))
}
