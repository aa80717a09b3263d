package spillover

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// A world is the oracle: what a Transport must know and may do after any
// history, kept in plain maps by names alone.
type world struct {
	testing.TB
	rapid *rapid.T
	tr    *Transport
	net   *fakeNet

	pool    []Backend
	facts   map[standing]*fact
	sites   map[site]*fact           // of whole backends
	served  map[string]bool          // models with a route; "" and "*" among them
	spent   map[string]map[int]int64 // budgets, by model and priority
	drained map[string]bool          //
	seen    map[any]any              // states and links, and whose they are
	open    []func()                 // answers that are not read to their end
}

// A failed assertion is reported with the sequence that was drawn.
func (w *world) Errorf(format string, args ...any) { w.rapid.Errorf(format, args...) }
func (w *world) FailNow()                          { w.rapid.FailNow() }

// A site is a backend, and a standing a deployment, by all that makes it the same.
type (
	site     struct{ name, url string }
	standing struct {
		site
		model, deployment string
	}
)

// A fact is what is known of one.
type fact struct {
	served, throttled, failed uint64
	inFlight                  int
	limit                     int64
	cool, out                 time.Time
	cause                     health.Cause
	state                     any // *state or *link; nil until it was looked at
}

func (f *fact) asked() bool { return f.inFlight > 0 || f.served+f.throttled+f.failed > 0 }

// models that callers ask for; the third is never configured.
var worldModels = []string{"m0", "m1", "x"}

// drawPool is a configuration without mistakes, much like the one before.
func drawPool(t *rapid.T, was []Backend) (pool []Backend) {
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, "names") {
		b := Backend{Name: name, Weight: 1}
		if i := slices.IndexFunc(was, func(b Backend) bool { return b.Name == name }); i >= 0 {
			b = was[i]
		}
		redraw := func(field string) bool { return b.URL == "" || rapid.IntRange(0, 4).Draw(t, field) == 0 }
		if redraw("another key") {
			b.APIKey = rapid.SampledFrom([]string{"key", "other"}).Draw(t, "key")
		}
		if redraw("another priority") {
			b.Priority = rapid.IntRange(1, 2).Draw(t, "priority")
		}
		if redraw("another weight") {
			b.Weight = rapid.SampledFrom([]int{1, 1, 1, 2, 5}).Draw(t, "weight")
		}
		if redraw("another dialect") {
			b.Dialect, b.APIVersion = rapid.SampledFrom([]Dialect{Azure, Azure, AzureV1}).Draw(t, "dialect"), ""
		}
		if b.Dialect == Azure && redraw("another version") {
			b.APIVersion = rapid.SampledFrom([]string{"", "2024-10-21"}).Draw(t, "version")
		}
		if redraw("other models") {
			b.Models = drawModels(t)
		}
		if redraw("another place") {
			b.URL = "https://" + rapid.SampledFrom([]string{"one-", "two-"}).Draw(t, "place") + host(name)
		}
		pool = append(pool, b)
	}
	return pool
}

func drawModels(t *rapid.T) (models []Model) {
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom(worldModels[:2]), 0, 2, rapid.ID).Draw(t, "models") {
		models = append(models, Model{
			Name: m, Deployment: rapid.SampledFrom([]string{m, m, "other"}).Draw(t, "deployment"),
			TPM: rapid.SampledFrom([]int{0, 0, 1e6, 2e6}).Draw(t, "tpm"),
		})
	}
	return models
}

func every(b Backend) bool { return len(b.Models) == 0 }

// serving is the backends that serve a model, with what they call it.
func serving(pool []Backend, model string) (found []Backend, models []Model) {
	for _, b := range pool {
		i := slices.IndexFunc(b.Models, func(m Model) bool { return m.Name == model })
		switch {
		case model == "" || model == "*" && every(b):
			found, models = append(found, b), append(models, Model{Name: model})
		case i >= 0:
			found, models = append(found, b), append(models, b.Models[i])
		case every(b):
			found, models = append(found, b), append(models, Model{Name: model, Deployment: model})
		}
	}
	return found, models
}

func siteOf(b Backend) site { return site{b.Name, b.URL} }

// replace is Reconfigure.
func (w *world) replace(pool []Backend) {
	was, facts, sites, spent := w.pool, w.facts, w.sites, w.spent
	w.pool, w.facts, w.sites, w.served, w.spent = pool, map[standing]*fact{}, map[site]*fact{}, map[string]bool{"": true}, map[string]map[int]int64{}
	catches := slices.ContainsFunc(pool, every)
	if catches {
		w.served["*"] = true
	}
	for _, b := range pool {
		for _, m := range b.Models {
			w.served[m.Name] = true
		}
		w.sites[siteOf(b)] = cmp.Or(sites[siteOf(b)], &fact{})
	}
	for s, f := range facts {
		if catches && s.model != "*" && f.asked() {
			w.served[s.model] = true
		}
	}
	for model := range w.served {
		w.route(model)
		backends, models := serving(pool, model)
		for i, b := range backends {
			s := standing{siteOf(b), model, models[i].Deployment}
			f := facts[s]
			if f == nil {
				continue
			}
			w.facts[s] = f
			before := was[slices.IndexFunc(was, func(b Backend) bool { return siteOf(b) == s.site })]
			changed := before.APIKey != b.APIKey || before.Dialect != b.Dialect || before.APIVersion != b.APIVersion
			if changed && (f.cause == health.Misconfigured || f.cause == health.OutOfQuota) {
				f.out, f.cause = time.Time{}, health.NoFailure
			}
		}
		for p := range w.spent[model] {
			w.spent[model][p] = spent[model][p]
		}
	}
}

// route gives a model a route of which nothing is known.
func (w *world) route(model string) {
	w.served[model], w.spent[model] = true, map[int]int64{}
	backends, models := serving(w.pool, model)
	for i, b := range backends {
		w.facts[standing{siteOf(b), model, models[i].Deployment}] = &fact{}
		w.spent[model][b.Priority] = 0
	}
}

// An option is a deployment of a model as it is now.
type option struct {
	Backend
	Model
	*fact
	whole  *fact
	closed time.Time // until when; not after now when open
}

func (w *world) options(model string) (all []option) {
	backends, models := serving(w.pool, model)
	for i, b := range backends {
		f, whole := w.facts[standing{siteOf(b), model, models[i].Deployment}], w.sites[siteOf(b)]
		all = append(all, option{b, models[i], f, whole, health.Latest(health.Latest(f.cool, f.out), whole.out)})
	}
	return all
}

// candidates are those of the best tier that has any.
func (w *world) candidates(all []option) (best []option) {
	deferred := func(o option) bool { return !o.deferred().IsZero() }
	usable := slices.DeleteFunc(slices.Clone(all), func(o option) bool {
		return w.drained[o.Backend.Name] || o.closed.After(time.Now())
	})
	if all = slices.DeleteFunc(slices.Clone(usable), deferred); len(all) == 0 {
		all = usable
	}
	for _, o := range all {
		if len(best) > 0 && o.Priority < best[0].Priority {
			best = nil
		}
		if len(best) == 0 || o.Priority == best[0].Priority {
			best = append(best, o)
		}
	}
	return best
}

// deferred is when the ejections ended whose probe waits for other requests; zero if there
// is none.
func (o *option) deferred() (ended time.Time) {
	if d, ok := o.fact.state.(*record); ok && d.ProbeDeferred(time.Now()) {
		ended = o.out
	}
	if b, ok := o.whole.state.(*sharedState); ok && b.ProbeDeferred(time.Now()) {
		ended = health.Latest(ended, o.whole.out)
	}
	return ended
}

// ask sends a request and holds its answer against the oracle.
func (w *world) ask(model string, keep bool) {
	req := with(w, "GET /v1/files")
	if model != "" {
		req = newChat(w, "/openai/deployments/"+model+"/chat/completions?api-version=callers-own")
	}
	if !w.served[model] {
		if !slices.ContainsFunc(w.pool, every) {
			resp, _ := send(w, w.tr, req)
			require.Equal(w, 404, resp.StatusCode)
			return
		}
		w.route(model)
	}
	now, all := time.Now(), w.options(model)
	may, undrained := w.candidates(all), slices.DeleteFunc(slices.Clone(all), func(o option) bool { return w.drained[o.Backend.Name] })
	if len(may) == 0 {
		throttled, hopeless := false, true
		var soonest time.Time
		for _, o := range undrained {
			out := o.out.After(now)
			throttled = throttled || o.cool.After(now) || out && o.cause == health.OutOfQuota
			hopeless = hopeless && out && (o.cause == health.Misconfigured || o.cause == health.OutOfQuota)
			if soonest.IsZero() || o.closed.Before(soonest) {
				soonest = o.closed
			}
		}
		// What only failed may be asked all the same: if another one is throttled,
		// only where the requests may have been the cause.
		for _, o := range undrained {
			cause := health.NoFailure
			if o.out.After(now) {
				cause = o.cause
			}
			if o.whole.out.After(now) {
				cause = max(cause, health.Unreachable)
			}
			if !o.cool.After(now) && cause != health.OutOfQuota && (cause.Uncertain() || !throttled) {
				may = append(may, o)
			}
		}
		if len(may) == 0 {
			resp, text := send(w, w.tr, req)
			require.Equal(w, "true", resp.Header.Get(headerSynthesized))
			require.Equal(w, "0", resp.Header.Get(headerAttempts))
			if !throttled {
				require.Equal(w, 503, resp.StatusCode)
				require.Equal(w, "drained", testnet.APIError(w, text).Code)
				return
			}
			require.Equal(w, 429, resp.StatusCode)
			wait := soonest.Sub(now)
			require.Equal(w, fmt.Sprint(int64((wait+time.Millisecond-1)/time.Millisecond)), resp.Header.Get("Retry-After-Ms"))
			require.Equal(w, hopeless, resp.Header.Get("X-Should-Retry") == "false")
			return
		}
	}
	resp, err := w.tr.RoundTrip(req)
	require.NoError(w, err)
	require.Equal(w, 200, resp.StatusCode)
	i := slices.IndexFunc(may, func(o option) bool { return o.Backend.Name == servedBy(resp) })
	require.GreaterOrEqual(w, i, 0, "%s is none of %v", servedBy(resp), may)
	o, arrived := may[i], w.net.Seen[len(w.net.Seen)-1]
	require.Equal(w, o.URL, "https://"+arrived.Host)
	require.Equal(w, o.APIKey, arrived.Header.Get("Api-Key"))
	switch {
	case model == "":
	case o.Dialect == AzureV1:
		require.Equal(w, "/openai/v1/chat/completions", arrived.Path)
		require.Contains(w, arrived.Body, wire.QuoteJSON(o.Deployment))
	default:
		require.Equal(w, "/openai/deployments/"+o.Deployment+"/chat/completions", arrived.Path)
		require.Equal(w, "api-version="+cmp.Or(o.APIVersion, "callers-own"), arrived.Query)
	}
	f := o.fact
	f.served++
	f.inFlight++
	f.cool, f.out, f.cause, o.whole.out = time.Time{}, time.Time{}, health.NoFailure, time.Time{}
	w.spent[model][o.Priority] = max(0, w.spent[model][o.Priority]-1)
	end := func() { f.inFlight--; read(w, resp) }
	if keep {
		w.open = append(w.open, end)
	} else {
		end()
	}
}

// any is a deployment of the Transport, and what the oracle has of it.
func (w *world) any() (*deployment, option) {
	model := rapid.SampledFrom(slices.Sorted(maps.Keys(w.served))).Draw(w.rapid, "model")
	var all []*deployment
	for d := range w.routeOf(model).all {
		all = append(all, d)
	}
	d := rapid.SampledFrom(all).Draw(w.rapid, "deployment")
	for _, o := range w.options(model) {
		if o.Backend.Name == d.backend.name {
			return d, o
		}
	}
	require.Fail(w, "the oracle has none", d.backend.name)
	return nil, option{}
}

func (w *world) routeOf(model string) *route {
	if model == "*" {
		return w.tr.table().otherModels
	}
	return w.tr.table().find(model)
}

// check holds everything that can be seen against the oracle.
func (w *world) check() {
	table, now := w.tr.table(), time.Now()
	require.Len(w, *table.routes.Load(), len(w.served)-1-map[bool]int{true: 1}[w.served["*"]])
	shown := map[string][]DeploymentStatus{}
	for _, model := range slices.Sorted(maps.Keys(w.served)) {
		all := w.options(model)
		r := w.routeOf(model)
		var tiers [][]option
		for _, p := range []int{1, 2} {
			if tier := slices.DeleteFunc(slices.Clone(all), func(o option) bool { return o.Priority != p }); len(tier) > 0 {
				tiers = append(tiers, tier)
			}
		}
		require.Len(w, r.tiers, len(tiers))
		for i, tier := range r.tiers {
			require.Len(w, tier.members, len(tiers[i]))
			require.Equal(w, tiers[i][0].Priority, tier.priority)
			require.Equal(w, w.spent[model][tier.priority], testnet.Spent(tier.budget), "of tier %d of %q", tier.priority, model)
			sizes := w.sizes(tiers[i])
			for j, d := range tier.members {
				o := tiers[i][j]
				require.Equal(w, o.Backend.Name, d.backend.name)
				require.Equal(w, o.Deployment, d.name)
				require.Equal(w, sizes[j], d.drawWeight.Load(), "size of %s for %q", d.backend.name, model)
				w.same(o.fact, d.record, standing{siteOf(o.Backend), model, d.name})
				w.same(o.whole, d.backend.sharedState, siteOf(o.Backend))
				require.EqualValues(w, o.inFlight, d.InFlight.Load())
			}
		}
		w.checkChoice(r, all)
		for _, o := range all {
			s := DeploymentStatus{
				Model: model, Name: o.Deployment, Served: o.served, Throttled: o.throttled, Failed: o.failed, InFlight: o.inFlight,
				Available: !w.drained[o.Backend.Name] && !o.closed.After(now),
			}
			if o.closed.After(now) && !w.drained[o.Backend.Name] {
				s.Until, s.RateLimited = o.closed, o.cool.After(now) || o.out.After(now) && o.cause == health.OutOfQuota
			}
			if ended := o.deferred(); s.Available && !ended.IsZero() {
				s.Available, s.Until = false, ended
			}
			if o.asked() || model != "" && model != "*" {
				shown[o.Backend.Name] = append(shown[o.Backend.Name], s)
			}
		}
	}
	w.checkStatus(shown)
}

// same demands that what is known of something is in the same state as ever,
// and in one of its own if it is new.
func (w *world) same(f *fact, state any, whose any) {
	if f.state == nil {
		require.Nil(w, w.seen[state], "%v is new", whose)
		f.state, w.seen[state] = state, whose
	}
	require.True(w, f.state == state, "the state of %v", whose)
}

// sizes are weights where there are any, else limits.
func (w *world) sizes(tier []option) (sizes []int64) {
	var sum, known int64
	for _, o := range tier {
		n := cmp.Or(int64(o.TPM), o.limit)
		if slices.ContainsFunc(tier, func(o option) bool { return o.Weight != 1 }) {
			n = int64(o.Weight)
		}
		if sizes = append(sizes, n); n > 0 {
			sum, known = sum+n, known+1
		}
	}
	for i := range sizes {
		sizes[i] = cmp.Or(sizes[i], max(1, sum/max(1, known)))
	}
	return sizes
}

func (w *world) checkChoice(r *route, all []option) {
	may := map[string]bool{}
	for _, o := range w.candidates(all) {
		may[o.Backend.Name] = true
	}
	for range 4 {
		_, d := r.choose(&selection{now: time.Now(), random: rand.Uint64})
		if len(may) == 0 {
			require.Nil(w, d)
			return
		}
		require.True(w, d != nil && may[d.backend.name], "%v is none of %v", d, may)
	}
}

func (w *world) checkStatus(shown map[string][]DeploymentStatus) {
	var want Status
	for _, p := range []int{1, 2} {
		tier := TierStatus{Priority: p}
		for _, b := range w.pool {
			if b.Priority != p {
				continue
			}
			site := w.sites[siteOf(b)]
			drained, until := w.drained[b.Name], site.out
			s := BackendStatus{Name: b.Name, URL: b.URL, Weight: b.Weight, Drained: drained, Deployments: shown[b.Name]}
			if s.Available = !drained && !until.After(time.Now()); !drained && until.After(time.Now()) {
				s.Until = until
			}
			if shared, ok := site.state.(*sharedState); ok && s.Available && shared.ProbeDeferred(time.Now()) {
				s.Available, s.Until = false, until
			}
			tier.Backends = append(tier.Backends, s)
		}
		if tier.Backends != nil {
			want.Tiers = append(want.Tiers, tier)
		}
	}
	got := w.tr.Status()
	reason := func(s *string, available, drained bool) {
		require.Equal(w, available, *s == "")
		require.Equal(w, drained, *s == drainedReason)
		*s = ""
	}
	for _, tier := range got.Tiers {
		for i, b := range tier.Backends {
			reason(&tier.Backends[i].Reason, b.Available, b.Drained)
			for j, d := range b.Deployments {
				reason(&b.Deployments[j].Reason, d.Available, b.Drained)
			}
			slices.SortFunc(b.Deployments, func(x, y DeploymentStatus) int { return strings.Compare(x.Model, y.Model) })
		}
	}
	require.Equal(w, want, got)
}

// Whatever was configured, drained, refused, failed and served before: what is
// known of deployments that stay is kept, nothing else is, and requests go where
// the latest configuration says.
func TestReconfigureProperties(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			w := &world{TB: t, rapid: rt, net: newNet(), drained: map[string]bool{}, seen: map[any]any{}}
			pool := drawPool(rt, nil)
			w.tr = configured(w, Config{Base: w.net, Backends: pool})
			w.replace(pool)
			w.check()
			for range rapid.IntRange(1, 40).Draw(rt, "steps") {
				w.step()
				w.check()
			}
			for _, end := range w.open {
				end()
			}
			w.check()
		})
	})
}

func (w *world) step() {
	now := time.Now()
	switch do := rapid.SampledFrom([]string{
		"reconfigure", "reconfigure", "reconfigure", "mistake", "drain", "resume", "resume", "ask", "ask", "ask", "keep", "keep", "end",
		"throttle", "fail", "disconnect", "told", "spend", "wait", "wait",
	}).Draw(w.rapid, "do"); do {
	case "reconfigure":
		pool := drawPool(w.rapid, w.pool)
		require.NoError(w, w.tr.Reconfigure(Config{Base: w.net, Backends: pool}))
		w.replace(pool)
	case "mistake":
		before := w.tr.setup.Load()
		bad := Config{Base: w.net, Backends: drawPool(w.rapid, w.pool), MaxAttempts: -1}
		_, want := New(bad)
		require.EqualError(w, w.tr.Reconfigure(bad), want.Error())
		require.Same(w, before, w.tr.setup.Load())
	case "drain", "resume":
		name := rapid.SampledFrom([]string{"a", "b", "b", "c", "nobody"}).Draw(w.rapid, "name")
		known := slices.ContainsFunc(w.pool, func(b Backend) bool { return b.Name == name })
		if do == "drain" {
			require.Equal(w, known, w.tr.Drain(name) == nil)
			w.drained[name] = w.drained[name] || known
		} else {
			require.Equal(w, known || w.drained[name], w.tr.Resume(name) == nil)
			w.drained[name] = false
		}
	case "ask", "keep":
		w.ask(rapid.SampledFrom(append([]string{""}, worldModels...)).Draw(w.rapid, "of"), do == "keep")
	case "end":
		if n := len(w.open); n > 0 {
			i := rapid.IntRange(0, n-1).Draw(w.rapid, "which")
			w.open[i]()
			w.open = slices.Delete(w.open, i, i+1)
		}
	case "throttle":
		d, o := w.any()
		span := drawSpan(w.rapid, "for", 20*time.Second) + 1
		d.Refuse(now, health.Refusal{Wait: span, ByChance: true, Reason: "429"}, 0)
		d.throttled.Add(1)
		o.throttled, o.cool = o.throttled+1, health.Latest(o.cool, now.Add(span))
	case "fail":
		d, o := w.any()
		cause := health.Cause(rapid.IntRange(int(health.ServerFailure), int(health.OutOfQuota)).Draw(w.rapid, "cause"))
		testnet.FailAt(&d.State, now, cause, "failed", 0.5)
		d.failed.Add(1)
		o.failed, o.out, o.cause = o.failed+1, testnet.EjectedUntil(&d.State, now), cause
		if c, ejected, _ := d.Ejected(now); ejected {
			o.cause = c
		}
	case "disconnect":
		d, o := w.any()
		testnet.FailAt(&d.backend.State, now, health.Unreachable, "no connection", 0.5)
		o.whole.out = testnet.EjectedUntil(&d.backend.State, now)
	case "told":
		d, o := w.any()
		o.limit = rapid.Int64Range(1, 9).Draw(w.rapid, "limit")
		d.measure(now, now, d.CountSent(0), http.Header{"X-Ratelimit-Limit-Tokens": {fmt.Sprint(o.limit)}})
	case "spend":
		d, o := w.any()
		if d.tier.budget.Spend(health.AttemptCost) {
			w.spent[d.model][o.Priority] += health.AttemptCost
		}
	case "wait":
		time.Sleep(drawSpan(w.rapid, "wait", 15*time.Second))
	default:
		panic(errors.New(do))
	}
}
