// Package telemetry records what a transport does: as metrics, spans and log
// records. It is handed plain values and asks nothing back. docs/telemetry.md
// lists all that it records.
package telemetry

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Scope is the name of the meter and of the tracer.
const Scope = "github.com/spillover-go/spillover"

// Options are what a [Recorder] is made of.
type Options struct {
	Logger         *slog.Logger         // nil: no log
	MeterProvider  metric.MeterProvider // nil: OpenTelemetry's global one
	TracerProvider trace.TracerProvider // nil: OpenTelemetry's global one

	// Provider is the attribute gen_ai.provider.name of a request's span while no
	// deployment has answered.
	Provider string
	// Models are those that the configuration names: each of them has its own label.
	Models []string
}

// A Recorder records what happens under one configuration. It is safe for
// concurrent use.
type Recorder struct {
	log *slog.Logger
	instruments
	tracing
	registration metric.Registration // of Observe

	configured map[string]bool // models
	*history
}

// A history outlives the configuration.
type history struct {
	served   servedModels
	warnings failureWarnings
}

// New makes a Recorder. The model names and warnings that an earlier Recorder of
// the same transport has counted stay; earlier is nil for the first.
func New(o Options, earlier *Recorder) (*Recorder, error) {
	r := &Recorder{log: o.Logger, configured: map[string]bool{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.history = new(history); earlier != nil {
		r.history = earlier.history
	}
	for _, model := range o.Models {
		r.configured[model] = true
	}
	meters := o.MeterProvider
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	r.tracing.init(o.TracerProvider, o.Provider)
	r.meter = meters.Meter(Scope)
	for _, i := range Table {
		if err := i.create(&r.instruments); err != nil {
			return nil, fmt.Errorf("spillover: MeterProvider: %w", err)
		}
	}
	return r, nil
}

// ErrorType is the value of the attribute error.type: the status of an error
// response, else the reason in one word.
func ErrorType(status int, reason string) string {
	switch {
	case status == 0 && reason != "":
		return strings.ReplaceAll(reason, " ", "_")
	case status < 100 || status > 599:
		return "_OTHER"
	}
	return strconv.Itoa(status)
}
