package spillover

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/spillover-go/spillover/internal/wire"
)

// instrumentationScope is what OpenTelemetry knows this package by.
const instrumentationScope = "github.com/spillover-go/spillover"

// A telemetry is whom one configuration has told what happens. What it is told
// of a request is in record.go, of the states of deployments in events.go and
// observe.go.
type telemetry struct {
	log *slog.Logger
	instruments
	spans
	observed metric.Registration // what is read when metrics are collected
}

func newTelemetry(cfg Config, pool []*backend) (*telemetry, error) {
	t := &telemetry{log: cfg.Logger}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	meters, tracers := cfg.MeterProvider, cfg.TracerProvider
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	t.spans = newSpans(tracers.Tracer(instrumentationScope), pool)
	t.meter = meters.Meter(instrumentationScope)
	for _, d := range declared {
		if err := d.make(&t.instruments); err != nil {
			return nil, fmt.Errorf("spillover: MeterProvider: %w", err)
		}
	}
	return t, nil
}

// listened tells whether anything that is recorded goes anywhere.
func (i *instruments) listened(ctx context.Context) bool {
	return i.requests.Enabled(ctx) || i.duration.Enabled(ctx) || i.firstContent.Enabled(ctx) || i.waits.Enabled(ctx) ||
		i.synthesized.Enabled(ctx) || i.attempts.Enabled(ctx) || i.tokens.Enabled(ctx)
}

// The attributes of metrics and spans. Where OpenTelemetry's conventions have a
// name, it is theirs.
const (
	keyModel      = attribute.Key("gen_ai.request.model")
	keyBackend    = attribute.Key("spillover.backend")
	keyDeployment = attribute.Key("spillover.deployment")
	keyTier       = attribute.Key("spillover.tier")
	keyOutcome    = attribute.Key("spillover.outcome")
	keyState      = attribute.Key("spillover.state")
	keyTokenType  = attribute.Key("gen_ai.token.type")
	keyErrorType  = attribute.Key("error.type")
	keyStatus     = attribute.Key("http.response.status_code")
)

type instruments struct {
	meter metric.Meter

	requests     metric.Int64Counter
	duration     metric.Float64Histogram
	firstContent metric.Float64Histogram
	waits        metric.Float64Histogram
	synthesized  metric.Int64Counter
	attempts     metric.Int64Counter
	tokens       metric.Int64Counter
	cooldowns    metric.Float64Histogram
	available    metric.Int64ObservableUpDownCounter
	inFlight     metric.Int64ObservableUpDownCounter
	utilization  metric.Float64ObservableGauge
}

// An instrument is what is declared of one. docs/telemetry.md has it from here.
type instrument struct {
	name, unit string
	attributes []attribute.Key // all that there may be
	meaning    string
	in         func(*instruments) any
}

var ofDeployment = []attribute.Key{keyBackend, keyModel, keyDeployment, keyTier}

var declared = []instrument{
	{"spillover.requests", "{request}", []attribute.Key{keyModel, keyOutcome, keyTier, keyErrorType},
		"Requests that have ended, their answers included.",
		func(i *instruments) any { return &i.requests }},
	{"spillover.request.duration", "s", []attribute.Key{keyModel, keyOutcome, keyTier},
		"Time from a request to the end of its answer.",
		func(i *instruments) any { return &i.duration }},
	{"spillover.request.time_to_first_content", "s", ofDeployment,
		"Time from a request to the first content of a stream, or to the header of another answer, with all waits and attempts before.",
		func(i *instruments) any { return &i.firstContent }},
	{"spillover.request.wait_time", "s", []attribute.Key{keyModel},
		"Time that requests waited which found every deployment throttled.",
		func(i *instruments) any { return &i.waits }},
	{"spillover.synthesized_answers", "{answer}", []attribute.Key{keyModel, keyStatus},
		"Answers that no deployment gave.",
		func(i *instruments) any { return &i.synthesized }},
	{"spillover.attempts", "{attempt}", append(slices.Clone(ofDeployment), keyOutcome, keyErrorType),
		"Attempts that have ended, the answer of a served one included.",
		func(i *instruments) any { return &i.attempts }},
	{"spillover.tokens", "{token}", append(slices.Clone(ofDeployment), keyTokenType),
		"Tokens, as the usage in answers tells.",
		func(i *instruments) any { return &i.tokens }},
	{"spillover.cooldown.duration", "s", append(slices.Clone(ofDeployment), keyState, keyErrorType),
		"Times for which deployments, or whole backends, are left alone, as decided when they begin.",
		func(i *instruments) any { return &i.cooldowns }},
	{"spillover.deployment.available", "{deployment}", ofDeployment,
		"1 while a deployment may be chosen, else 0.",
		func(i *instruments) any { return &i.available }},
	{"spillover.deployment.in_flight", "{request}", ofDeployment,
		"Requests whose answer has not ended.",
		func(i *instruments) any { return &i.inFlight }},
	{"spillover.deployment.utilization", "1", ofDeployment,
		"Utilization that a PTU reported within the last minute; it may exceed 1.",
		func(i *instruments) any { return &i.utilization }},
}

// seconds are the bounds of histograms: those that the GenAI conventions advise,
// and two more for answers that take longer.
var seconds = []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68}

func (d instrument) make(i *instruments) (err error) {
	unit, meaning := metric.WithUnit(d.unit), metric.WithDescription(d.meaning)
	switch p := d.in(i).(type) {
	case *metric.Int64Counter:
		*p, err = i.meter.Int64Counter(d.name, unit, meaning)
	case *metric.Float64Histogram:
		*p, err = i.meter.Float64Histogram(d.name, unit, meaning, metric.WithExplicitBucketBoundaries(seconds...))
	case *metric.Int64ObservableUpDownCounter:
		*p, err = i.meter.Int64ObservableUpDownCounter(d.name, unit, meaning)
	case *metric.Float64ObservableGauge:
		*p, err = i.meter.Float64ObservableGauge(d.name, unit, meaning)
	}
	return err
}

// errorType is the class of an error: a status, or one of few words.
func errorType(status int, word string) attribute.KeyValue {
	switch {
	case status == 0 && word != "":
		return keyErrorType.String(strings.ReplaceAll(word, " ", "_"))
	case status < 100 || status > 599:
		return keyErrorType.String("_OTHER")
	}
	return keyErrorType.String(strconv.Itoa(status))
}

// tame makes a text fit to be told: printable, and short. Most are.
func sanitize(s string) string {
	const most = 128
	if len(s) <= most && wire.IsPrintableASCII(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s[:min(len(s), most)], ""))
}
