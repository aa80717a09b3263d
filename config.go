package spillover

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config is everything that [New] needs. Only Backends is required. It is
// copied: a change to it, or to its slices, after New has no effect.
type Config struct {
	// Backends are the endpoints to choose from. At least one.
	Backends []Backend

	// MaxAttempts bounds how often one request is sent, the first time
	// included and answers of throttled deployments not counted: a throttled
	// request walks on to every deployment there is. 0 means 3.
	MaxAttempts int

	// MaxWait is how long a request may wait in all when every deployment is
	// throttled, instead of being answered 429 at once. It is answered at once
	// all the same when the soonest is not due within that time or before the
	// deadline of the request's context. 0 means not at all.
	MaxWait time.Duration

	// DefaultCooldown is how long a throttled deployment is left alone when
	// its answer names no time. 0 means 10 s, or MaxCooldown if that is less.
	DefaultCooldown time.Duration

	// MaxCooldown is the longest time that an answer is believed to ask for:
	// Azure has been seen asking for 86400 s. 0 means 60 s; at most 90 days.
	MaxCooldown time.Duration

	// Base sends the attempts. nil means a clone of [http.DefaultTransport]
	// that keeps as many idle connections to one host as to all, and that
	// [Transport.Close] then closes. Proxies, TLS, connection limits and dial
	// timeouts are set here.
	Base http.RoundTripper

	// Selector chooses among the available deployments of a tier. nil means
	// two random ones in proportion to weight, of which the less loaded. A
	// request of a session is not asked of it while the session's deployment can
	// take the request; and a prompt_cache_key in the body makes one, see Session.
	Selector Selector

	// Session tells the session of a request, see [WithSession], which goes
	// before it. It must not read the body. nil means the prompt_cache_key of
	// the body.
	Session func(*http.Request) string

	// CountTokens counts the tokens of the prompt in a request's JSON body, for
	// who has a real tokenizer: the estimate decides whether a deployment is
	// thought to have room. It must not keep the body. nil, or less than 1, means
	// a quarter of the bytes, and 765 for a picture.
	CountTokens func(body []byte) int

	// HoldStreams is for callers who want a whole stream or none, as batch work
	// does: a stream is held until it is complete, at most 8 MiB of it, and one
	// that breaks off or falls silent is begun anew elsewhere. Otherwise a
	// stream is the caller's from its first content on.
	HoldStreams bool

	// Logger gets one record for each change of a deployment's state (cooling,
	// out, probing, back), a warning once a minute for each cause that requests
	// fail of everywhere and, at the level of debugging, one for each attempt.
	// docs/telemetry.md has them all. It is called while requests wait, so its
	// handler should not be slow. nil is silent.
	Logger *slog.Logger

	// MeterProvider takes the metrics, which docs/telemetry.md has all of, from
	// New until [Transport.Close]. nil means OpenTelemetry's global one, which
	// may be set later.
	MeterProvider metric.MeterProvider

	// TracerProvider takes the spans: one for each request, from when it has been
	// read to the end of its answer, and beneath it one for each attempt. The
	// context that Base is given has the attempt's. No header is added: that is
	// left to an instrumented Base, such as otelhttp's. nil means OpenTelemetry's
	// global one, which may be set later.
	TracerProvider trace.TracerProvider
}

// The values of a Config that says nothing.
const (
	defaultMaxAttempts = 3
	defaultCooldown    = 10 * time.Second
	defaultMaxCooldown = 60 * time.Second
)

// mostCooldown is the most that MaxCooldown may be: 90 days.
const mostCooldown = 90 * 24 * time.Hour

// A mistake is what is wrong with one field of a configuration.
type mistake struct {
	backend int    // its place, or -1 for a field of the Config
	name    string // of the backend, if it has one
	field   string
	others  bool // it takes other fields to be one
	format  string
	args    []any // parts of the configuration and nothing else: who must not show them can hide them
}

func (m *mistake) Error() string {
	where := ""
	switch {
	case m.name != "":
		where = fmt.Sprintf("backend %q: ", m.name)
	case m.backend >= 0:
		where = fmt.Sprintf("backend %d: ", m.backend)
	}
	return "spillover: " + where + m.field + ": " + fmt.Sprintf(m.format, m.args...)
}

// normalize is the configuration with every default filled in, or all of its
// mistakes, each naming the backend and the field.
func (cfg Config) normalize() (Config, error) {
	var errs []error
	for _, m := range cfg.mend() {
		errs = append(errs, m)
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// mend fills in every default, and tells what it cannot mend.
func (cfg *Config) mend() (found []*mistake) {
	bad := func(field, format string, args ...any) {
		found = append(found, &mistake{backend: -1, field: field, others: field == "DefaultCooldown", format: format, args: args})
	}
	if cfg.MaxAttempts < 0 {
		bad("MaxAttempts", "%d is negative", cfg.MaxAttempts)
	}
	if cfg.MaxWait < 0 {
		bad("MaxWait", "%v is negative", cfg.MaxWait)
	}
	if cfg.DefaultCooldown < 0 {
		bad("DefaultCooldown", "%v is negative", cfg.DefaultCooldown)
	}
	switch {
	case cfg.MaxCooldown < 0:
		bad("MaxCooldown", "%v is negative", cfg.MaxCooldown)
	case cfg.MaxCooldown > mostCooldown:
		bad("MaxCooldown", fmt.Sprintf("%%v is more than %v", mostCooldown), cfg.MaxCooldown)
	}
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, defaultMaxAttempts)
	cfg.MaxCooldown = cmp.Or(cfg.MaxCooldown, defaultMaxCooldown)
	if cfg.MaxCooldown >= 0 && cfg.DefaultCooldown > cfg.MaxCooldown {
		bad("DefaultCooldown", "%v is more than MaxCooldown, %v", cfg.DefaultCooldown, cfg.MaxCooldown)
	}
	cfg.DefaultCooldown = cmp.Or(cfg.DefaultCooldown, min(defaultCooldown, cfg.MaxCooldown))

	if len(cfg.Backends) == 0 {
		bad("Backends", "at least one is needed")
	}
	cfg.Backends = slices.Clone(cfg.Backends)
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		name := b.Name
		b.normalize(func(field, format string, args ...any) {
			found = append(found, &mistake{backend: i, name: name, field: field, others: field == "APIVersion", format: format, args: args})
		})
	}
	return append(found, clashes(cfg.Backends)...)
}

// clashes are the mistakes that no backend makes alone.
func clashes(backends []Backend) (found []*mistake) {
	bad := func(i int, field, format string, args ...any) {
		found = append(found, &mistake{backend: i, name: backends[i].Name, field: field, others: true, format: format, args: args})
	}
	fields := map[string]bool{}
	for _, b := range backends {
		for name := range b.Defaults {
			fields[name] = true
		}
	}
	if len(fields) > maxPresets {
		found = append(found, &mistake{backend: -1, field: "Backends", others: true,
			format: fmt.Sprintf("their Defaults have %d different fields, %d are possible", len(fields), maxPresets)})
	}
	// An account's deployment that is listed twice would be asked twice and
	// counted as two. Token functions cannot be compared: each is its own account.
	type deployment struct{ url, key, headers, name string }
	names, deployments := map[string]int{}, map[deployment]string{}
	dialects := map[string]string{} // form of credential → a backend that has it
	var anonymous []int
	for i, b := range backends {
		if b.Name != "" {
			if first, twice := names[b.Name]; twice {
				bad(i, "Name", fmt.Sprintf("backends %d and %d share it", first, i))
			} else {
				names[b.Name] = i
			}
		}
		if !b.hasCredential() {
			anonymous = append(anonymous, i)
		}
		dialects[credentialForm(b.Dialect)] = b.Name
		if b.Token != nil || b.URL == "" {
			continue
		}
		served := []string{""}
		if len(b.Models) > 0 {
			served = nil
			for _, m := range b.Models {
				served = append(served, m.Deployment)
			}
			slices.Sort(served)
			served = slices.Compact(served)
		}
		for _, name := range served {
			d := deployment{strings.ToLower(b.URL), b.APIKey, fmt.Sprintf("%q", b.Headers), name} // which are printed sorted
			other, twice := deployments[d]
			switch {
			case twice && other != b.Name && name == "":
				bad(i, "URL", "backend %q already has every model of it under the same credential", other)
			case twice && other != b.Name:
				bad(i, "URL", "backend %q already has deployment %q of it under the same credential", other, name)
			}
			deployments[d] = b.Name
		}
	}
	if len(dialects) > 1 {
		for _, i := range anonymous {
			bad(i, "APIKey", "needed, as the pool mixes Azure and OpenAI backends and a caller's credential suits one kind only")
		}
	}
	return found
}
