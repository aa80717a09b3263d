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

// asked tells whether anything was sent there.
func (r *route) asked() bool {
	for d := range r.all {
		if d.asked() {
			return true
		}
	}
	return false
}

// A table finds the route of a model. Reading it takes one atomic load; it
// grows at the first sight of a model that no configuration names.
type table struct {
	backends          []*backend
	models            []string // that the configuration names, sorted
	nameless          *route   // for requests that name no model
	callerCredentials bool     // a backend is sent the callers' own credentials
	otherModels       *route   // shared by models beyond maxRoutes; nil when no backend serves every model
	routes            atomic.Pointer[map[string]*route]
	growing           sync.Mutex
	rejectedModels    int // how many models found no room since one did
}

// maxRoutes bounds the models that have a state of their own without being
// configured, as callers may make names up. Those that come later share one, as
// do those with longer names than maxModelName. Models that nothing was served
// of give way to one that was.
const (
	maxRoutes = 1000
)

// manyModels is what Status calls those.
const manyModels = "*"

// newTable makes the table of backends. What an earlier one knows of the
// deployments that stay is kept.
func newTable(backends []*backend, old *table) *table {
	t := &table{backends: backends}
	known := map[string]*route{}
	if routes := old.routes.Load(); routes != nil {
		known = *routes
	}
	names := map[string]bool{}
	for _, b := range backends {
		for name := range b.models {
			names[name] = true
		}
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
	return t
}

// same is the backend of the same name at the same place, nil if there is none.
func (t *table) same(b *backend) *backend {
	for _, other := range t.backends {
		if other.name == b.name && other.scheme == b.scheme && other.host == b.host && other.base == b.base && other.bareBase == b.bareBase {
			return other
		}
	}
	return nil
}

// build makes the route of a model. What an earlier one knows of deployments
// that a backend calls the same is kept.
func (t *table) build(model string, old *route) *route {
	var serving []*deployment
	known := old.byLink()
	for _, b := range t.backends {
		m, ok := Model{Deployment: model}, b.models == nil || model == ""
		if !ok {
			m, ok = b.models[model]
		}
		if !ok {
			continue
		}
		d := &deployment{backend: b, model: model, name: m.Deployment, rates: health.Rates{RPM: int64(m.RPM), TPM: int64(m.TPM)}}
		if model == manyModels && b.models == nil {
			d.name = "" // as the caller says
		}
		if was := known[b.sharedState]; was != nil && was.name == d.name {
			d.record = was.record
		} else {
			d.record = new(record)
		}
		serving = append(serving, d)
	}
	return newRoute(model, serving, old)
}

// find is the route of a model, nil when no backend serves it.
func (t *table) find(model string) *route {
	switch model {
	case "":
		return t.nameless
	case ".", "..":
		return nil // nothing can be called so: it would change the path of a URL
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
	case r != nil: // somebody else asked for it meanwhile
	case len(routes) >= maxRoutes+len(t.models):
		r = t.otherModels
	default:
		r = t.grow(maps.Clone(routes), model)
	}
	return r
}

// grow adds the route of a model to a table of routes, and puts that in use.
func (t *table) grow(routes map[string]*route, model string) *route {
	model = strings.Clone(model) // it may be a piece of something large
	routes[model] = t.build(model, nil)
	t.routes.Store(&routes)
	return routes[model]
}

// promote gives a model a route of its own that was served by the one of the
// others, if models that nothing was served of give way. As looking for these
// takes long, it is done for one in a thousand in vain.
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

// idle tells that nothing was served by the route, and nothing is under way.
func (r *route) idle() bool {
	for d := range r.all {
		if d.served.Load() > 0 || d.InFlight.Load() > 0 {
			return false
		}
	}
	return true
}

// all is every route, by the name of its model; the shared ones first.
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
