package spillover

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover/internal/wire"
)

// Config configures a [Transport]. Only Backends is required. [New] copies it: a
// later change to it, or to its slices, has no effect.
type Config struct {
	// Backends are the endpoints to choose from. At least one is required.
	Backends []Backend

	// Fallbacks are models to try after the one that a request asks for, when no
	// deployment of that can take it or when the request is too long for it. It is an
	// error if they form a cycle, or name a model that no backend serves. nil means
	// none.
	Fallbacks []Fallback

	// MaxAttempts limits how often one request is sent, including the first time.
	// Responses of throttled (rate-limited) deployments do not count: a request
	// that is throttled fails over to every deployment there is. A second attempt in
	// the same tier after a 5xx or a broken connection counts; there is none if the
	// tiers below need the attempts that are left. 0 means 3.
	MaxAttempts int

	// MaxWait is how long a request may wait in total when every deployment is
	// throttled, instead of being answered 429 immediately. The 429 is still
	// immediate if no deployment is due within that time, or before the deadline of
	// the request's context. 0 means do not wait.
	MaxWait time.Duration

	// BackgroundWait is how long a background request (see [WithClass]) may wait in
	// total: for its tier, before it spills to a lower one, and when every deployment
	// is throttled or reserved for interactive requests, before it is answered 429. It
	// never waits for longer than until the deadline of its context, and for its tier
	// for at most half of the time until then. 0 means do not wait. The longer of
	// BackgroundWait and MaxWait applies before a 429.
	BackgroundWait time.Duration

	// TierWait is how long any request may wait in total for its tier if that is
	// throttled and due within that time, before it spills to a lower one. It is rarely
	// worth it. 0 means do not wait.
	TierWait time.Duration

	// DefaultCooldown is how long a throttled deployment is skipped when its
	// response has no Retry-After or similar. 0 means 10 s, or MaxCooldown if that
	// is less.
	DefaultCooldown time.Duration

	// MaxCooldown is the upper limit for Retry-After and similar: Azure has been
	// seen asking for 86400 s. 0 means 60 s; at most 90 days.
	MaxCooldown time.Duration

	// Base sends the attempts. Proxies, TLS, connection limits and dial timeouts
	// are set here. nil means a clone of [http.DefaultTransport] that keeps as many
	// idle connections per host as in total; [Transport.Close] closes them.
	Base http.RoundTripper

	// Selector chooses among the available deployments of a tier. nil means the
	// power of two choices: of two deployments, picked at random in proportion to
	// their weights, the one with less load. Selector is not called for a request
	// of a session (see Session) while the session's deployment can take the
	// request. A prompt_cache_key in the body makes a session, too, and so does a
	// header of a coding agent.
	Selector Selector

	// Session returns the session of a request, for session affinity. A session
	// set with [WithSession] takes precedence. Session must not read the body. nil
	// means the prompt_cache_key of the body, else the session in a header of a coding
	// agent, else PromptAffinity. docs/routing.md lists the headers.
	Session func(*http.Request) string

	// PromptAffinity makes a session of each prompt by its beginning, so that requests
	// with the same long system prompt share a prompt cache although nothing names a
	// session: it is how many bytes of the prompt are compared, as they are in the JSON
	// body: of instructions, if there are any, and then of messages, input or prompt. A
	// shorter prompt makes no session. Choose what the requests have in common,
	// for example 4096; OpenAI and Azure cache prompts of 1024 tokens or more. It
	// applies to operations that generate text, and only if the request has no other
	// session. 0 means off; at most 1 MiB.
	PromptAffinity int

	// Tags returns tags that the backend of a request must have, in addition to those
	// of [WithTags], so that a rule for all requests is in one place: for example by
	// a header that says where a customer's data must stay. Tags must not read the
	// body. For a redirect it is called once more with the caller's own request. nil
	// means none.
	Tags func(*http.Request) []string

	// Class returns the class of a request whose context has none (see [WithClass]), so
	// that a rule for all requests is in one place. An unknown value counts as
	// Interactive. Class must not read the body. nil means Interactive.
	Class func(*http.Request) Class

	// CountTokens counts the tokens of the prompt in a request's JSON body, if you
	// have a real tokenizer. The number decides whether a deployment is expected to
	// have enough quota left. CountTokens must not keep the body. nil, or a result
	// less than 1, means a quarter of the bytes, and 765 for an image.
	CountTokens func(body []byte) int

	// Fleet connects the replicas of a program: what one learns from a service (a
	// rate limit, a failure, a recovery, the utilization of a PTU), the others learn
	// from it. What they say orders the deployments and never refuses a request, so a
	// Fleet that is slow, down or wrong costs some refused attempts and nothing else.
	// Requests do not wait for it. nil means that replicas know nothing of each other.
	Fleet Fleet

	// FleetNamespace separates pools that share a Fleet. Replicas hear each other if they
	// have the same namespace, and use the same deployments.
	FleetNamespace string

	// HoldStreams buffers streams, for callers that need a whole stream or none,
	// such as batch jobs: a stream is held until it is complete, at most 8 MiB of
	// it. A stream that breaks off or stalls is started again on another
	// deployment. Otherwise a stream is passed on from its first content.
	HoldStreams bool

	// Logger receives one record for each change of a deployment's state (cooling,
	// out, probing, back), at most one warning a minute for each cause that makes
	// requests fail everywhere, and one debug record for each attempt.
	// docs/telemetry.md lists them all. Requests wait while its handler runs, so
	// the handler should not be slow. nil means no logging.
	Logger *slog.Logger

	// MeterProvider receives the metrics listed in docs/telemetry.md, from New
	// until [Transport.Close]. nil means the global one of OpenTelemetry, which may
	// be set later.
	MeterProvider metric.MeterProvider

	// TracerProvider receives the spans: one for each request, from when it has
	// been read to the end of its response, and below it one for each attempt.
	// Base's context carries the attempt's span. No header is added: an
	// instrumented Base, such as otelhttp's, can do that. nil means the global one
	// of OpenTelemetry, which may be set later.
	TracerProvider trace.TracerProvider
}

// The defaults of a Config.
const (
	defaultMaxAttempts = 3
	defaultCooldown    = 10 * time.Second
	defaultMaxCooldown = 60 * time.Second
)

// mostCooldown is the maximum of MaxCooldown, 90 days.
const mostCooldown = 90 * 24 * time.Hour

func ignoreErrors(string, string, ...any) {}

// normalize returns the configuration with its defaults, or all of its errors,
// each with the backend and the field.
func (cfg Config) normalize() (Config, error) {
	var errs []error
	for _, e := range cfg.check(func(string) bool { return true }) {
		errs = append(errs, e)
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// check sets the defaults and returns what is wrong. known reports whether a field
// has the value that the user gave it, which is not so if it could not be read. An
// error that depends on several fields is returned only if all of them are known.
func (cfg *Config) check(known func(field string) bool) (found []*fieldError) {
	report := func(field, format string, args ...any) {
		found = append(found, &fieldError{backend: -1, field: field, format: format, args: args})
	}
	if cfg.MaxAttempts < 0 {
		report("MaxAttempts", "%d is negative", cfg.MaxAttempts)
	}
	if cfg.PromptAffinity < 0 || cfg.PromptAffinity > worthReadingLimit {
		report("PromptAffinity", "%d is not between 0 and "+strconv.Itoa(worthReadingLimit), cfg.PromptAffinity)
	}
	for _, d := range [...]struct {
		field string
		value time.Duration
	}{
		{"MaxWait", cfg.MaxWait}, {"BackgroundWait", cfg.BackgroundWait}, {"TierWait", cfg.TierWait},
		{"DefaultCooldown", cfg.DefaultCooldown}, {"MaxCooldown", cfg.MaxCooldown},
	} {
		if d.value < 0 {
			report(d.field, "%v is negative", d.value)
		}
	}
	if cfg.MaxCooldown > mostCooldown {
		report("MaxCooldown", fmt.Sprintf("%%v is more than the maximum, %v", mostCooldown), cfg.MaxCooldown)
	}
	valid := known("MaxCooldown") && cfg.MaxCooldown >= 0 && cfg.MaxCooldown <= mostCooldown
	cfg.MaxAttempts = cmp.Or(cfg.MaxAttempts, defaultMaxAttempts)
	cfg.MaxCooldown = cmp.Or(cfg.MaxCooldown, defaultMaxCooldown)
	if valid && known("DefaultCooldown") && cfg.DefaultCooldown > cfg.MaxCooldown {
		found = append(found, &fieldError{backend: -1, field: "DefaultCooldown", related: true,
			format: "%v is more than MaxCooldown, %v", args: []any{cfg.DefaultCooldown, cfg.MaxCooldown}})
	}
	cfg.DefaultCooldown = cmp.Or(cfg.DefaultCooldown, min(defaultCooldown, cfg.MaxCooldown))

	if len(cfg.Backends) == 0 {
		report("Backends", "at least one is required")
	}
	cfg.Backends = slices.Clone(cfg.Backends)
	checked := make([]checkedBackend, len(cfg.Backends))
	for i := range cfg.Backends {
		c := &checked[i]
		c.Backend, c.index, c.unnamed = &cfg.Backends[i], i, cfg.Backends[i].Name == ""
		invalid := map[string]bool{}
		c.known = func(field string) bool { return !invalid[field] && known(backendField(i, field)) }
		name, from := c.Name, len(found)
		report := func(field, format string, args ...any) {
			invalid[field] = true
			found = append(found, &fieldError{backend: i, name: name, field: field, format: format, args: args})
		}
		c.url = c.normalize(report)
		c.resolveCredentials(c.url, report)
		if c.unnamed && c.url != nil {
			for _, e := range found[from:] {
				e.host = c.url.Host
			}
		}
	}
	found = append(found, cfg.checkFallbacks(known)...)
	return append(found, conflicts(checked)...)
}

// A checkedBackend is a normalized backend of a configuration.
type checkedBackend struct {
	*Backend
	url     *url.URL // nil if it cannot be parsed
	index   int
	unnamed bool                    // its Name is the default
	known   func(field string) bool // whether a field could be read, and is valid
}

// named reports whether the name of the backend is known.
func (c *checkedBackend) named() bool {
	return c.Name != "" && c.known("Name") && (!c.unnamed || c.known("URL"))
}

// conflict is an error that depends on other fields, too.
func (c *checkedBackend) conflict(field, format string, args ...any) *fieldError {
	e := &fieldError{backend: c.index, name: c.Name, field: field, related: true, format: format, args: args}
	if c.unnamed {
		e.name, e.host = "", c.Name
	}
	return e
}

// conflicts returns the errors that concern more than one field or backend.
// Whatever could not be read causes none.
func conflicts(backends []checkedBackend) (found []*fieldError) {
	fields := map[string]bool{}
	for _, b := range backends {
		for name := range b.Defaults {
			fields[name] = true
		}
	}
	if len(fields) > maxPresets {
		found = append(found, &fieldError{backend: -1, field: "Backends", related: true,
			format: fmt.Sprintf("their Defaults have %d different fields; at most %d are allowed", len(fields), maxPresets)})
	}
	for i := range backends {
		b := &backends[i]
		if b.APIVersion != "" && wire.SpecOf(b.Dialect).APIVersion == wire.NoAPIVersion && b.known("Dialect") && b.known("URL") {
			found = append(found, b.conflict("APIVersion", "is only for the dialects "+dialects(" and ", (*wire.DialectSpec).HasAPIVersion)+"; this backend is %q", b.Dialect))
		}
	}
	found = append(found, duplicateNames(backends)...)
	found = append(found, duplicateDeployments(backends)...)
	return append(found, missingCredentials(backends)...)
}

// duplicateNames reports backends with the name of another one.
func duplicateNames(backends []checkedBackend) (found []*fieldError) {
	names := map[string]*checkedBackend{}
	for i := range backends {
		b := &backends[i]
		if !b.named() {
			continue
		}
		first := names[b.Name]
		switch {
		case first == nil:
			names[b.Name] = b
		case first.unnamed && b.unnamed:
			found = append(found, b.conflict("Name", fmt.Sprintf("is missing: backends %d and %d are both called %%s, after the host of their URL; give each a name", first.index, i), b.Name))
		default:
			found = append(found, b.conflict("Name", fmt.Sprintf("backends %d and %d are both called %%q; give each its own name", first.index, i), b.Name))
		}
	}
	return found
}

// duplicateDeployments reports deployments of an account that are listed twice:
// they would be tried twice and counted as two. Token functions cannot be compared:
// each counts as an account of its own.
func duplicateDeployments(backends []checkedBackend) (found []*fieldError) {
	type deployment struct{ address, credential, headers, name string }
	deployments := map[deployment]*checkedBackend{}
	for i := range backends {
		b := &backends[i]
		account, ok := b.account()
		if !ok || b.url == nil || !b.known("URL") || !b.known("Headers") || !b.known("Models") {
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
		address := *b.url
		address.Host = strings.ToLower(address.Host)
		for _, name := range served {
			d := deployment{address.String(), account, fmt.Sprintf("%q", b.Headers), name} // fmt prints maps sorted
			other := deployments[d]
			deployments[d] = b
			switch {
			case other == nil || b.named() && other.named() && other.Name == b.Name: // the name is reported
			case name == "":
				found = append(found, b.conflict("URL", "backend %q already uses it for all models with the same credential", other.Name))
			default:
				found = append(found, b.conflict("URL", "backend %q already uses its deployment %q with the same credential", other.Name, name))
			}
		}
	}
	return found
}

// account identifies the credential of a backend, "" for callers' own. ok is false
// if it is not known.
func (c *checkedBackend) account() (credential string, ok bool) {
	for _, field := range []string{"APIKey", "APIKeyFile", "Auth"} {
		if !c.known(field) && !(field == "APIKeyFile" && c.APIKeyFile != "") {
			return "", false
		}
	}
	switch {
	case c.Auth != "":
		return "Auth " + c.Auth, true
	case c.Token != nil:
		return "", false
	case c.APIKey == "" && c.APIKeyFile != "":
		return "APIKeyFile " + c.APIKeyFile, true
	case c.APIKey == "":
		return "", true
	}
	return "APIKey " + c.APIKey, true
}

// missingCredentials reports the backends that would be sent callers' credentials
// in a pool that mixes two kinds of them.
func missingCredentials(backends []checkedBackend) (found []*fieldError) {
	kinds := map[string]bool{}
	for i := range backends {
		if b := &backends[i]; b.known("Dialect") && b.known("URL") {
			kinds[wire.SpecOf(b.Dialect).Credentials] = true
		}
	}
	for i := range backends {
		b := &backends[i]
		known := b.known("APIKey") && b.known("APIKeyFile") && b.known("Auth") && b.known("Headers")
		if len(kinds) > 1 && known && !b.hasCredential() {
			found = append(found, b.conflict("APIKey", "is required: the pool mixes Azure and OpenAI backends, and a caller's credential works with one kind only"))
		}
	}
	return found
}
