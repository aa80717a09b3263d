package telemetry

import (
	"context"
	"log/slog"
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// A Phase is the state of a deployment or of a whole backend.
type Phase int

const (
	Healthy Phase = iota
	Cooling       // rate-limited: the service itself said for how long
	Ejected       // it failed
	Probing       // ejected, and one request finds out whether it has recovered
)

// The log records of a transition, by the phase that it leads to: of deployments
// and of backends. Repetitions are at DEBUG, see [Episode]. Only an ejection needs attention: the rest is normal operation.
var transitionRecords = [...]struct {
	level               slog.Level
	deployment, backend string
}{
	Healthy: {slog.LevelInfo, "deployment back", "backend back"},
	Cooling: {slog.LevelInfo, "deployment cooling", ""},
	Ejected: {slog.LevelWarn, "deployment out", "backend out"},
	Probing: {slog.LevelInfo, "deployment probing", "backend probing"},
}

// A Transition is a change of what is known of a deployment, of one operation of
// it, or of a whole backend.
type Transition struct {
	Deployment *Deployment // of the backend, if WholeBackend
	Episode    *Episode    // of the deployment, or of the whole backend
	// Exactly one of them, if it is not about the whole deployment.
	WholeBackend bool
	Operation    *string // its name; "" for those that are not known

	Part int // 0 for a deployment or backend as a whole, else a number of the operation's own

	Phase  Phase
	Since  time.Time // when it was healthy last
	Until  time.Time // of Cooling and Ejected
	Reason string

	Response ResponseInfo // that made the change; zero without one
	Cause    string       // of an ejection; safe to show, may be empty
}

// A ResponseInfo is what a log record shows of a response.
type ResponseInfo struct {
	Status    int
	RequestID string
	Reason    string // of an error
}

// Transition records a change of state.
func (r *Recorder) Transition(ctx context.Context, now time.Time, t Transition) {
	wait := t.Until.Sub(now)
	starts := t.Phase == Cooling || t.Phase == Ejected
	if starts && r.cooldowns.Enabled(ctx) {
		l := r.labels(t.Deployment)
		if t.WholeBackend {
			l = newDeploymentLabels(t.Deployment, "")
		}
		state := "cooling"
		if t.Phase == Ejected {
			state = "out"
		}
		errorType := keyErrorType.String(ErrorType(t.Response.Status, t.Response.Reason))
		r.cooldowns.Record(ctx, max(0, wait.Seconds()), l.with(keyState.String(state), errorType).record...)
	}
	record := transitionRecords[t.Phase]
	level, more := t.Episode.admit(now, t)
	if !r.log.Enabled(ctx, level) {
		return
	}
	message, attributes := record.deployment, t.Deployment.attrs()
	if t.WholeBackend {
		message, attributes = record.backend, t.Deployment.backendAttrs()
	}
	if t.Operation != nil {
		attributes = append(attributes, slog.String("operation", *t.Operation))
	}
	switch {
	case starts:
		attributes = append(attributes, slog.Time("until", t.Until), milliseconds("wait_ms", wait))
	case t.Phase == Healthy:
		attributes = append(attributes, milliseconds("lasted_ms", now.Sub(t.Since)))
	}
	attributes = append(append(attributes, slog.String("reason", t.Reason)), more...)
	if t.Phase == Ejected && t.Cause != "" {
		attributes = append(attributes, slog.String("error", t.Cause))
	}
	r.log.LogAttrs(ctx, level, message, append(attributes, t.Response.attrs()...)...)
}

// An AttemptRecord is the log record of an attempt.
type AttemptRecord struct {
	Deployment *Deployment
	Number     int // from 1
	Outcome    string
	Took       time.Duration
	Response   ResponseInfo
	Cause      string // of a failure; safe to show, may be empty
}

// LogsAttempts reports whether LogAttempt has any effect.
func (r *Recorder) LogsAttempts(ctx context.Context) bool {
	return r.log.Enabled(ctx, slog.LevelDebug)
}

// LogAttempt logs an attempt whose outcome is known.
func (r *Recorder) LogAttempt(ctx context.Context, a AttemptRecord) {
	if !r.LogsAttempts(ctx) {
		return
	}
	attributes := append(a.Deployment.attrs(), slog.Int("attempt", a.Number), slog.String("outcome", a.Outcome), milliseconds("took_ms", a.Took))
	if a.Response.Reason != "" {
		attributes = append(attributes, slog.String("reason", a.Response.Reason))
	}
	if a.Cause != "" {
		attributes = append(attributes, slog.String("error", a.Cause))
	}
	r.log.LogAttrs(ctx, slog.LevelDebug, "attempt", append(attributes, a.Response.attrs()...)...)
}

// milliseconds is a duration in whole milliseconds.
func milliseconds(key string, d time.Duration) slog.Attr {
	return slog.Int64(key, d.Round(time.Millisecond).Milliseconds())
}

// CallersCredentialsSent warns that a backend is sent the callers' own credentials
// while other backends have one of their own. That is often a mistake, such as an
// environment variable that is not set.
func (r *Recorder) CallersCredentialsSent(backend string, tier int) {
	r.log.LogAttrs(context.Background(), slog.LevelWarn, "callers' credentials are sent", slog.String("backend", backend), slog.Int("tier", tier),
		slog.String("remedy", ownKeyRemedy))
}

// KeyChanged logs that the file with the key of a backend has another key.
func (r *Recorder) KeyChanged(backend string, tier int) {
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "API key changed", slog.String("backend", backend), slog.Int("tier", tier))
}

// KeyNotRead warns that the file with the key of a backend is invalid or missing.
func (r *Recorder) KeyNotRead(backend string, tier int, path string, err error) {
	r.log.LogAttrs(context.Background(), slog.LevelWarn, "API key not read", slog.String("backend", backend), slog.Int("tier", tier),
		slog.String("path", path), slog.String("error", err.Error()))
}

// ConfigChanges are what a new configuration changes.
type ConfigChanges struct {
	Added, Removed []string // names of backends
	Changed        []string // names of backends with the fields that differ, such as "ptu: api_key, weight"
	Settings       []string // fields of the configuration itself
}

// Reconfigured logs a new configuration, with its number of backends, if it changes
// anything.
func (r *Recorder) Reconfigured(backends int, c ConfigChanges) {
	attributes := []slog.Attr{slog.Int("backends", backends)}
	for _, list := range []struct {
		key   string
		names []string
	}{{"added", c.Added}, {"removed", c.Removed}, {"changed", c.Changed}, {"settings", c.Settings}} {
		if len(list.names) > 0 {
			attributes = append(attributes, boundedList(list.key, list.names)...)
		}
	}
	if len(attributes) > 1 {
		r.log.LogAttrs(context.Background(), slog.LevelInfo, "reconfigured", attributes...)
	}
}

// Drained logs that a backend was drained by hand.
func (r *Recorder) Drained(backend string) {
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "backend drained", slog.String("backend", backend))
}

// Resumed logs that a drained backend was resumed.
func (r *Recorder) Resumed(backend string) {
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "backend resumed", slog.String("backend", backend))
}

// ConfigurationNotLoaded warns of a configuration file that is wrong or missing.
func (r *Recorder) ConfigurationNotLoaded(ctx context.Context, path string, err error) {
	r.log.LogAttrs(ctx, slog.LevelWarn, "configuration not loaded", slog.String("path", path), slog.String("error", err.Error()))
}

// attrs are the names of a deployment in the log.
func (d *Deployment) attrs() []slog.Attr {
	attributes := d.backendAttrs()
	if d.Model != "" {
		attributes = append(attributes, slog.String("model", redact.Sanitize(d.Model)))
	}
	if d.Name != "" {
		attributes = append(attributes, slog.String("deployment", redact.Sanitize(d.Name)))
	}
	return attributes
}

func (d *Deployment) backendAttrs() []slog.Attr {
	return append(make([]slog.Attr, 0, 12), slog.String("backend", d.Backend), slog.Int("tier", d.Tier))
}

func (i ResponseInfo) attrs() (attributes []slog.Attr) {
	if i.Status != 0 {
		attributes = append(attributes, slog.Int("status", i.Status))
	}
	if i.RequestID != "" {
		attributes = append(attributes, slog.String("request_id", i.RequestID))
	}
	return attributes
}
