package spillover

import (
	"context"
	"net/http"
	"slices"
)

// Options are what is asked of one request, beside its body: by its context, and by
// the rules of the configuration. They are not changed once they are made: a request
// that differs gets a copy.
type options struct {
	session  string
	tags     []string // that a backend must have
	trail    *Trail
	class    Class
	hasClass bool         // the context has one
	explain  bool         // nothing is sent, and nothing changes
	waiting  *placeWaiter // while the request waits for a place; nil otherwise
}

// noOptions are those of most requests.
var noOptions = new(options)

type optionsKey struct{}

// contextOptions are those that a context has.
func contextOptions(ctx context.Context) *options {
	if o, ok := ctx.Value(optionsKey{}).(*options); ok {
		return o
	}
	return noOptions
}

// withOptions is a context with other options than an outer one.
func withOptions(ctx context.Context, change func(*options)) context.Context {
	o := *contextOptions(ctx)
	change(&o)
	return context.WithValue(ctx, optionsKey{}, &o)
}

// WithClass sets the class of the requests of a context. Without it the class is that
// of [Config.Class], else Interactive. An unknown value counts as Interactive.
//
// Background requests use the capacity that interactive requests leave. They skip a
// PTU that reports 50 % utilization or more, and a deployment with less than a fifth
// of its reported or configured limit left. While a deployment ramps up after a
// cool-down, interactive requests go first. If all deployments are reserved in this
// way, a background request waits up to [Config.BackgroundWait] and is answered 429
// then. It does not starve: a deployment that could take an interactive request takes
// at least one background request every 30 s.
//
// Only POST requests are held back: the others cost no tokens.
func WithClass(ctx context.Context, c Class) context.Context {
	return withOptions(ctx, func(o *options) { o.class, o.hasClass = c.known(), true })
}

// withRules are the options of a request that follow from its context and from the
// rules of a configuration.
func (o *options) withRules(cfg *Config, r *http.Request) *options {
	class := o.class
	if cfg.Class != nil && !o.hasClass {
		class = cfg.Class(r).known()
	}
	if cfg.Tags == nil && class == o.class {
		return o
	}
	both := *o
	if both.class = class; cfg.Tags == nil {
		return &both
	}
	both.tags = slices.Concat(o.tags, cfg.Tags(r))
	if first := firstRequest(r); first != r {
		// A client drops some headers on the way to another host.
		both.tags = append(both.tags, cfg.Tags(first)...)
	}
	return &both
}

// firstRequest is the caller's own request, if an http.Client made this one of a
// redirect.
func firstRequest(r *http.Request) *http.Request {
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	return r
}
