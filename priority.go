package spillover

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
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
	weights  atomic.Pointer[weights]
	resizing sync.Mutex
	budget   *health.RetryBudget // of second attempts
}

func newTier(priority int, members []*deployment, b *health.RetryBudget) *tier {
	t := &tier{priority: priority, members: members, budget: b}
	t.reweigh()
	return t
}

// with is a tier of the same members or fewer for one request. Their sizes are
// the first tier's to say.
func (t *tier) with(members []*deployment, s *weights, b *health.RetryBudget) *tier {
	w := &tier{priority: t.priority, members: members, budget: b}
	w.weights.Store(s)
	return w
}

// choose is the deployment for a request: the first tier that has an available
// one decides. A tier is a promise, so no tier below is looked at before that,
// unless the request had its try there and the tier can afford no second one, or
// what is left of its attempts is needed for the tiers below.
// Those that are thought to have no room are asked when nobody else is left.
func (r *route) choose(q *selection) (*tier, *deployment) {
	if q.spillRoll = q.affinity.spillRoll(); q.affinity == 0 {
		q.spillRoll = unit(q.random())
	}
	for _, q.ignoreHeadroom = range [...]bool{false, true} {
		for i, t := range r.tiers {
			d := t.choose(q)
			if d == nil || q.attemptsLeft > 0 && t.triedHere(q.tried) && q.attemptsLeft <= r.openBelow(i+1, q) {
				continue
			}
			return t, d
		}
	}
	return nil, nil
}

// openBelow counts the tiers from one on that can take the request.
func (r *route) openBelow(i int, q *selection) (n int) {
	for _, t := range r.tiers[i:] {
		if t.choose(q) != nil {
			n++
		}
	}
	return n
}

// broke reports whether the tier can afford no second attempt of the request. Its
// first one there is free, and so is one to a deployment that nothing is held
// against.
func (t *tier) retryBudgetSpent(q *selection) bool {
	return t.triedHere(q.tried) && !t.budget.Has(health.AttemptCost)
}

// pay takes what a further attempt in the tier costs out of its budget.
func (t *tier) payForRetry(q *selection, d *deployment) int64 {
	if t.triedHere(q.tried) && q.troubled(d) && t.budget.Spend(health.AttemptCost) {
		return health.AttemptCost
	}
	return 0
}

func (t *tier) triedHere(tried []*deployment) bool {
	return slices.ContainsFunc(tried, func(d *deployment) bool { return d.tier.budget == t.budget })
}

// free is the same route, with second attempts that nobody counts.
func (r *route) free() *route {
	f := &route{model: r.model}
	for _, t := range r.tiers {
		f.tiers = append(f.tiers, t.with(t.members, t.weights.Load(), new(health.RetryBudget)))
	}
	return f
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

// asked tells whether anything was sent there.
func (r *route) asked() bool {
	for d := range r.all {
		if d.asked() {
			return true
		}
	}
	return false
}

// newRoute sorts deployments into tiers. Where an earlier route has the same tier
// its budget goes on.
func newRoute(model string, deployments []*deployment, old *route) *route {
	r := &route{model: model}
	byPriority := func(a, b *deployment) int { return cmp.Compare(a.backend.priority, b.backend.priority) }
	deployments = slices.SortedStableFunc(slices.Values(deployments), byPriority)
	for len(deployments) > 0 {
		p := deployments[0].backend.priority
		n := 1
		for n < len(deployments) && deployments[n].backend.priority == p {
			n++
		}
		t := newTier(p, deployments[:n:n], old.budget(p))
		for _, d := range t.members {
			d.tier = t
		}
		r.tiers = append(r.tiers, t)
		deployments = deployments[n:]
	}
	return r
}

// budget is that of a tier, or a new one.
func (r *route) budget(priority int) *health.RetryBudget {
	if r != nil {
		for _, t := range r.tiers {
			if t.priority == priority {
				return t.budget
			}
		}
	}
	return new(health.RetryBudget)
}

// byLink is the deployments of a route by the links of their backends, which
// outlive a configuration.
func (r *route) byLink() map[*sharedState]*deployment {
	if r == nil {
		return nil
	}
	known := map[*sharedState]*deployment{}
	for d := range r.all {
		known[d.backend.sharedState] = d
	}
	return known
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
