package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// A Failure is why an attempt failed.
type Failure struct {
	Backend string
	Status  int    // 0 without a response
	Reason  string // short, such as "401 invalid_api_key" or "no connection"
	Cause   string // safe to show, may be empty
	// The backend has no credential of its own, so the caller's was sent.
	CallersCredential bool
}

// ownKeyRemedy is what to do about a callers' credential that is sent by mistake.
const ownKeyRemedy = "set a credential, such as APIKey (api_key), APIKeyFile (api_key_file) or Auth (auth), unless callers are to bring their own"

// LogsWarnings reports whether WarnOfFailures has any effect.
func (r *Recorder) LogsWarnings(ctx context.Context) bool {
	return r.log.Enabled(ctx, slog.LevelWarn)
}

// WarnOfFailures warns that a request has failed, with one record for each reason
// and minute.
func (r *Recorder) WarnOfFailures(ctx context.Context, now time.Time, model string, failures []Failure) {
	if !r.LogsWarnings(ctx) {
		return
	}
	for i, f := range failures {
		same := func(other Failure) bool { return other.Reason == f.Reason }
		if slices.IndexFunc(failures, same) < i {
			continue
		}
		requests, due := r.warnings.count(now, f.Reason)
		if !due {
			continue
		}
		var backends []string
		for _, other := range failures {
			if same(other) && !slices.Contains(backends, other.Backend) {
				backends = append(backends, other.Backend)
			}
		}
		r.log.LogAttrs(ctx, slog.LevelWarn, "requests fail", f.attrs(redact.Sanitize(model), backends, requests)...)
	}
}

// maxBackendNames limits the backends that a record names.
const maxBackendNames = 16

// boundedList is a list of names about backends, and how many more there are.
func boundedList(key string, names []string) []slog.Attr {
	attributes := []slog.Attr{slog.Any(key, names[:min(len(names), maxBackendNames)])}
	if len(names) > maxBackendNames {
		attributes = append(attributes, slog.Int("more_"+key, len(names)-maxBackendNames))
	}
	return attributes
}

func (f Failure) attrs(model string, backends []string, requests int) []slog.Attr {
	attributes := boundedList("backends", backends)
	if model != "" {
		attributes = append(attributes, slog.String("model", model))
	}
	attributes = append(attributes, slog.String("reason", f.Reason))
	if f.Status != 0 {
		attributes = append(attributes, slog.Int("status", f.Status))
		if _, code, ok := strings.Cut(f.Reason, " "); ok {
			attributes = append(attributes, slog.String("code", code))
		}
	}
	if f.Cause != "" {
		attributes = append(attributes, slog.String("error", f.Cause))
	}
	attributes = append(attributes, slog.Int("requests", requests))
	if f.CallersCredential && (f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden) {
		attributes = append(attributes, slog.String("remedy", ownKeyRemedy))
	}
	return attributes
}

// failureWarnings limit the warnings to one for each reason and minute.
type failureWarnings struct {
	mu      sync.Mutex
	reasons map[string]*failureWarning
}

type failureWarning struct {
	warned   time.Time
	requests int // that have failed since
}

const (
	warningPeriod = time.Minute
	// The service chooses its error codes: reasons beyond so many share one warning.
	maxReasons   = 32
	otherReasons = ""
)

// count counts a request that has failed for a reason. When a warning is due it
// returns for how many requests.
func (w *failureWarnings) count(now time.Time, reason string) (requests int, due bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reasons == nil {
		w.reasons = map[string]*failureWarning{}
	}
	if w.reasons[reason] == nil && len(w.reasons) >= maxReasons {
		for name, r := range w.reasons {
			if now.Sub(r.warned) >= warningPeriod {
				delete(w.reasons, name)
			}
		}
		if len(w.reasons) >= maxReasons {
			reason = otherReasons
		}
	}
	r := w.reasons[reason]
	switch {
	case r == nil:
		w.reasons[strings.Clone(reason)] = &failureWarning{warned: now}
		return 1, true
	case now.Sub(r.warned) < warningPeriod:
		r.requests++
		return 0, false
	}
	requests, r.warned, r.requests = r.requests+1, now, 0
	return requests, true
}
