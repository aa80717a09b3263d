package spillover

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A route is the deployments that serve one model, tier by tier, best first.
// It is built once and never changed.
type route struct {
	model string
	tiers []*tier
}

// A tier is the deployments of one priority.
type tier struct {
	priority int
	members  []*deployment
	shares   atomic.Pointer[shares]
	resizing sync.Mutex
	budget   *budget // of second attempts
}

func newTier(priority int, members []*deployment, b *budget) *tier {
	t := &tier{priority: priority, members: members, budget: b}
	t.resize()
	return t
}

// with is a tier of the same members or fewer for one request. Their sizes are
// the first tier's to say.
func (t *tier) with(members []*deployment, s *shares, b *budget) *tier {
	w := &tier{priority: t.priority, members: members, budget: b}
	w.shares.Store(s)
	return w
}

// choose is the deployment for a request: the first tier that has an available
// one decides. A tier is a promise, so no tier below is looked at before that,
// unless the request had its try there and the tier can afford no second one.
// Those that are thought to have no room are asked when nobody else is left.
func (r *route) choose(q *query) *deployment {
	if q.luck = q.loyal.luck(); q.loyal == 0 {
		q.luck = unit(q.random())
	}
	for _, q.eager = range [...]bool{false, true} {
		for _, t := range r.tiers {
			if d := t.choose(q); d != nil && (!t.hasAny(q.tried) || t.budget.spend()) {
				return d
			}
		}
	}
	return nil
}

func (t *tier) hasAny(tried []*deployment) bool {
	return slices.ContainsFunc(tried, func(d *deployment) bool { return d.tier.budget == t.budget })
}

// leastAbove is the least loaded of those that are closed by their ceiling alone.
func (t *tier) leastAbove(now time.Time, tried []*deployment) (least *deployment) {
	for _, d := range t.members {
		if d.accepts(now) && !d.below() && !slices.Contains(tried, d) && (least == nil || better(now, d, least)) {
			least = d
		}
	}
	return least
}

// free is the same route, with second attempts that nobody counts.
func (r *route) free() *route {
	f := &route{model: r.model}
	for _, t := range r.tiers {
		f.tiers = append(f.tiers, t.with(t.members, t.shares.Load(), new(budget)))
	}
	return f
}

// only is the route to one backend, as far as the route has it.
func (r *route) only(b *backend) *route {
	for d := range r.all {
		if d.backend == b {
			return &route{r.model, []*tier{d.tier.with([]*deployment{d}, new(shares), d.tier.budget)}}
		}
	}
	return nil
}

// all is every deployment of the route.
func (r *route) all(yield func(*deployment) bool) {
	for _, t := range r.tiers {
		for _, d := range t.members {
			if !yield(d) {
				return
			}
		}
	}
}

// newRoute sorts deployments into tiers.
func newRoute(model string, deployments []*deployment) *route {
	r := &route{model: model}
	byPriority := func(a, b *deployment) int { return cmp.Compare(a.backend.priority, b.backend.priority) }
	deployments = slices.SortedStableFunc(slices.Values(deployments), byPriority)
	for len(deployments) > 0 {
		p := deployments[0].backend.priority
		n := 1
		for n < len(deployments) && deployments[n].backend.priority == p {
			n++
		}
		t := newTier(p, deployments[:n:n], new(budget))
		for _, d := range t.members {
			d.tier = t
		}
		r.tiers = append(r.tiers, t)
		deployments = deployments[n:]
	}
	return r
}

// A table finds the route of a model. Reading it takes one atomic load; it
// grows at the first sight of a model that no configuration names.
type table struct {
	backends []*backend
	models   []string // that the configuration names, sorted
	nameless *route   // for requests that name no model
	others   *route   // shared by models beyond maxRoutes; nil when no backend serves every model
	routes   atomic.Pointer[map[string]*route]
	growing  sync.Mutex
}

// maxRoutes bounds the models that have a state of their own without being
// configured, as callers may make names up. Those that come later share one.
const maxRoutes = 1000

func newTable(backends []*backend) *table {
	t := &table{backends: backends}
	names := map[string]bool{}
	for _, b := range backends {
		for name := range b.models {
			names[name] = true
		}
	}
	t.models = slices.Sorted(maps.Keys(names))
	routes := map[string]*route{}
	for _, name := range t.models {
		routes[name] = t.build(name)
	}
	t.routes.Store(&routes)
	t.nameless = t.build("")
	if slices.ContainsFunc(backends, func(b *backend) bool { return b.models == nil }) {
		t.others = t.build("*")
		for d := range t.others.all {
			d.name = ""
		}
	}
	return t
}

// build makes the route of a model, with deployments of which nothing is known.
func (t *table) build(model string) *route {
	var serving []*deployment
	for _, b := range t.backends {
		m, ok := Model{Deployment: model}, b.models == nil || model == ""
		if !ok {
			m, ok = b.models[model]
		}
		if ok {
			serving = append(serving, &deployment{
				state: new(state), backend: b, model: model, name: m.Deployment, rates: rates{int64(m.RPM), int64(m.TPM)},
			})
		}
	}
	return newRoute(model, serving)
}

// find is the route of a model, nil when no backend serves it.
func (t *table) find(model string) *route {
	switch model {
	case "":
		return t.nameless
	case ".", "..":
		return nil // nothing can be called so: it would change the path of a URL
	}
	if r := (*t.routes.Load())[model]; r != nil || t.others == nil {
		return r
	}
	t.growing.Lock()
	defer t.growing.Unlock()
	routes := *t.routes.Load()
	if r := routes[model]; r != nil {
		return r
	}
	if len(routes) >= maxRoutes+len(t.models) {
		return t.others
	}
	grown := maps.Clone(routes)
	grown[model] = t.build(model)
	t.routes.Store(&grown)
	return grown[model]
}

// all is every route, by the name of its model; the shared ones first.
func (t *table) all() []*route {
	routes := []*route{t.nameless}
	if t.others != nil {
		routes = append(routes, t.others)
	}
	named := *t.routes.Load()
	for _, model := range slices.Sorted(maps.Keys(named)) {
		routes = append(routes, named[model])
	}
	return routes
}
