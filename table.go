package spillover

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/wire"
)

// asked reports whether any request was sent on the route.
func (r *route) asked() bool {
	for d := range r.all {
		if d.asked() {
			return true
		}
	}
	return false
}

// A table finds the route of a model with one atomic load. It grows when a
// model is asked for that the configuration does not name.
type table struct {
	backends          []*backend
	models            []string          // the configured models, sorted
	nameless          *route            // for requests without a model
	callerCredentials bool              // some backend gets callers' credentials
	renames           bool              // some backend has another name for a model
	otherModels       *route            // shared by the models beyond maxRoutes; nil if no backend serves every model
	fallbacks         map[string]*route // of the models that have any, with their deployments
	contextLimits     bool              // some model has ContextTokens
	keyFiles          []*backend        // those whose key is read from a file
	routes            atomic.Pointer[map[string]*route]
	grown             func(*route) // gets each new route; may be nil
	growing           sync.Mutex   // guards changes of routes, and rejectedModels
	rejectedModels    int          // how many models have found no room since one did
}

// maxRoutes bounds the models with a route of their own that are not
// configured, as callers may invent names. Later ones share a route, as do
// names longer than [wire.MaxModelName]. Models that nothing was served of give
// way to a model that was served.
const maxRoutes = 1000

// manyModels is the name of the shared route in [Status].
const manyModels = "*"

// newTable makes the table of some backends. What the old one knows of
// deployments that remain is kept.
func newTable(backends []*backend, fallbacks []Fallback, old *table) *table {
	t := &table{backends: backends}
	known := map[string]*route{}
	if routes := old.routes.Load(); routes != nil {
		known = *routes
	}
	names := map[string]bool{}
	for _, b := range backends {
		if b.keyFile != nil {
			t.keyFiles = append(t.keyFiles, b)
		}
		for name, m := range b.models {
			names[name] = true
			t.renames = t.renames || m.Deployment != name
			t.contextLimits = t.contextLimits || m.ContextTokens > 0
		}
	}
	for _, f := range fallbacks {
		names[f.Model] = true
		for _, to := range f.To {
			names[to] = true
		}
		t.renames = true
	}
	t.callerCredentials = slices.ContainsFunc(backends, (*backend).usesCallerCredential)
	t.models = slices.Sorted(maps.Keys(names))
	routes := map[string]*route{}
	for _, name := range t.models {
		routes[name] = t.build(name, known[name])
	}
	t.nameless = t.build("", old.nameless)
	every := slices.DeleteFunc(slices.Clone(backends), func(b *backend) bool { return b.models != nil })
	if len(every) > 0 {
		t.otherModels = (&table{backends: every}).build(manyModels, old.otherModels)
		for model, r := range known {
			if routes[model] == nil && r.asked() && len(routes) < maxRoutes+len(t.models) {
				routes[model] = t.build(model, r)
			}
		}
	}
	t.routes.Store(&routes)
	t.fallbacks = fallbackRoutes(fallbacks, routes)
	return t
}

// limitInFlight puts the limits of requests in flight into force, for requests that
// began with an earlier configuration as well.
func (t *table) limitInFlight() {
	for _, r := range t.all() {
		for d := range r.all {
			d.MaxInFlight.Store(d.maxInFlight)
		}
	}
}

// fallbackRoutes are the routes of models with fallbacks.
func fallbackRoutes(fallbacks []Fallback, routes map[string]*route) map[string]*route {
	extended := map[string]*route{}
	for _, f := range fallbacks {
		r := extended[f.Model]
		if r == nil {
			r = &route{model: f.Model, tiers: slices.Clone(routes[f.Model].tiers)}
			extended[f.Model] = r
		}
		next := routes[f.Model].others(f.To, routes)
		if f.On&OnExhausted != 0 {
			r.tiers = append(r.tiers, next...)
		}
		if f.On&OnContextLength != 0 {
			r.longer = &route{model: f.Model, tiers: next}
		}
	}
	return extended
}

// others are the tiers of other models. A deployment that an earlier model has under
// another name is left out, as it would be asked twice.
func (r *route) others(models []string, routes map[string]*route) (tiers []*tier) {
	type identity struct {
		of   *backend
		name string
	}
	known := map[identity]bool{}
	for {
		for d := range r.all {
			known[identity{d.backend, d.name}] = true
		}
		if len(models) == 0 {
			return tiers
		}
		r, models = routes[models[0]], models[1:]
		isNew := func(d *deployment) bool { return !known[identity{d.backend, d.name}] }
		for d := range r.all {
			if !isNew(d) {
				r = r.keep(isNew)
				break
			}
		}
		if r == nil {
			r = new(route)
		}
		tiers = append(tiers, r.tiers...)
	}
}

// withFallbacks is the route of a model and of those to which it falls back, or nil
// if no backend serves it. If keep is not set, the table remains as it is.
func (t *table) withFallbacks(model string, keep bool) *route {
	if r := t.fallbacks[model]; r != nil {
		return r
	}
	return t.lookUp(model, keep)
}

// forgetFailures forgets the failures that a new credential or form of requests
// may repair, and returns the deployments of the backends.
func (t *table) forgetFailures(changed map[*backend]bool) (amended []*deployment) {
	for _, r := range t.all() {
		for d := range r.all {
			if changed[d.backend] {
				d.Reconfigured()
				for _, h := range d.Operations {
					h.Reconfigured()
				}
				amended = append(amended, d)
			}
		}
	}
	return amended
}

// forgetReports forgets what other replicas have reported of the deployments.
func (t *table) forgetReports() {
	for _, r := range t.all() {
		for d := range r.all {
			d.Reports.Forget()
		}
	}
}

// same is the backend with the same name and URL, or nil.
func (t *table) same(b *backend) *backend {
	for _, other := range t.backends {
		if other.name == b.name && other.scheme == b.scheme && other.host == b.host && other.base == b.base && other.bareBase == b.bareBase {
			return other
		}
	}
	return nil
}

// build makes the route of a model. What the old one knows of a deployment is
// kept if the backend has the same name for it.
func (t *table) build(model string, old *route) *route {
	var serving []*deployment
	known := old.byBackend()
	for _, b := range t.backends {
		m, ok := Model{Deployment: model}, b.models == nil || model == ""
		if !ok {
			m, ok = b.models[model]
		}
		if !ok {
			continue
		}
		d := &deployment{backend: b, model: model, name: m.Deployment, rates: health.Rates{RPM: int64(m.RPM), TPM: int64(m.TPM)}, contextTokens: int64(m.ContextTokens), maxInFlight: int64(m.MaxInFlight)}
		if model == manyModels && b.models == nil {
			d.name = "" // as the caller says
		}
		d.quotedName = wire.QuoteJSON(d.name)
		if was := known[b.sharedState]; was != nil && was.name == d.name {
			d.record = was.record
		} else {
			d.record = new(record)
		}
		serving = append(serving, d)
	}
	return newRoute(model, serving, old)
}

// find returns the route of a model, or nil if no backend serves it.
func (t *table) find(model string) *route { return t.lookUp(model, true) }

// lookUp is find. If keep is not set, the table remains as it is.
func (t *table) lookUp(model string, keep bool) *route {
	switch model {
	case "":
		return t.nameless
	case ".", "..":
		return nil // not a possible name: it would change the path of a URL
	}
	if r := (*t.routes.Load())[model]; r != nil || t.otherModels == nil {
		return r
	}
	if len(model) > wire.MaxModelName {
		return t.otherModels
	}
	t.growing.Lock()
	defer t.growing.Unlock()
	routes := *t.routes.Load()
	r := routes[model]
	switch {
	case r != nil: // another request has added it meanwhile
	case len(routes) >= maxRoutes+len(t.models):
		r = t.otherModels
	case !keep:
		r = t.build(model, nil)
	default:
		r = t.grow(maps.Clone(routes), model)
	}
	return r
}

// knownModel returns a string that is equal to a model's name if the model has a route,
// else "".
func (t *table) knownModel(name []byte) string {
	if r := (*t.routes.Load())[string(name)]; r != nil {
		return r.model
	}
	return ""
}

// grow adds the route of a model to a copy of the routes and puts that into
// use.
func (t *table) grow(routes map[string]*route, model string) *route {
	model = strings.Clone(model) // it may be part of a large string
	routes[model] = t.build(model, nil)
	if t.grown != nil {
		t.grown(routes[model])
	}
	t.routes.Store(&routes)
	return routes[model]
}

// promote gives a model its own route after it was served by the shared one, if
// models that nothing was served of can give way. Looking for those is slow, so
// a full table does it once in maxRoutes attempts.
func (t *table) promote(model string) {
	if len(model) > wire.MaxModelName {
		return
	}
	t.growing.Lock()
	defer t.growing.Unlock()
	routes := *t.routes.Load()
	if routes[model] != nil {
		return
	}
	full := len(routes) >= maxRoutes+len(t.models)
	if full {
		if t.rejectedModels++; t.rejectedModels%maxRoutes != 1 {
			return
		}
	}
	grown := maps.Clone(routes)
	if full {
		maps.DeleteFunc(grown, func(model string, r *route) bool {
			_, configured := slices.BinarySearch(t.models, model)
			return !configured && r.idle()
		})
		if len(grown) == len(routes) {
			return
		}
		t.rejectedModels = 0
	}
	t.grow(grown, model)
}

// idle reports whether the route has served nothing and has no request in
// flight.
func (r *route) idle() bool {
	for d := range r.all {
		if d.served.Load() > 0 || d.InFlight.Load() > 0 {
			return false
		}
	}
	return true
}

// all returns every route by the name of its model, the shared ones first.
func (t *table) all() []*route {
	routes := []*route{t.nameless}
	if t.otherModels != nil {
		routes = append(routes, t.otherModels)
	}
	named := *t.routes.Load()
	for _, model := range slices.Sorted(maps.Keys(named)) {
		routes = append(routes, named[model])
	}
	return routes
}
