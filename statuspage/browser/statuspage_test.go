package browser_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/statuspage"
)

// A pool has the Status that a test gives it.
type pool struct {
	mu     sync.Mutex
	status spillover.Status
}

func (p *pool) Status() spillover.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func (p *pool) set(s spillover.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = s
}

// watch serves the page of a pool.
func watch(t *testing.T, s spillover.Status) (*pool, *httptest.Server) {
	p := &pool{status: s}
	page := statuspage.New(p)
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	mux := http.NewServeMux()
	mux.Handle("/status/", page)
	return p, serve(t, mux)
}

func tiers(all ...[]spillover.BackendStatus) (s spillover.Status) {
	for i, backends := range all {
		s.Tiers = append(s.Tiers, spillover.TierStatus{Priority: i + 1, Backends: backends})
	}
	return s
}

func backend(name string, deployments ...spillover.DeploymentStatus) spillover.BackendStatus {
	return spillover.BackendStatus{Name: name, URL: "https://" + name + ".openai.azure.com", Weight: 1, Available: true, Deployments: deployments}
}

type (
	backends   = []spillover.BackendStatus
	deployment = spillover.DeploymentStatus
)

func available(model string) deployment {
	return deployment{Model: model, Name: model, Available: true, Served: 12345, InFlight: 3}
}

func limited(model string, wait time.Duration) deployment {
	at := time.Now()
	return deployment{
		Model: model, Name: model, Until: at.Add(wait), Reason: "429 rate_limit_reached", RateLimited: true, Throttled: 7,
		LastFailure: spillover.Failure{Time: at, Status: 429, Reason: "429 rate_limit_reached", Cause: "Please retry after some seconds."},
	}
}

// everyState is a pool that has each state.
func everyState() spillover.Status {
	now := time.Now()
	hour := now.Add(time.Hour)
	ptu := available("gpt-4o")
	ptu.Utilization, ptu.UtilizationAt = 0.87, now
	down := backend("down")
	down.Available, down.Reason, down.Until = false, "no connection", hour
	down.LastFailure = spillover.Failure{Time: now, Reason: "no connection", Cause: "dial tcp: connection refused"}
	drained := backend("drained", deployment{Model: "gpt-4o", Name: "as-4o", Reason: "drained"})
	drained.Available, drained.Drained = false, true
	s := tiers(
		backends{backend("ptu", ptu), backend("limited", limited("gpt-4o", time.Hour))},
		backends{
			backend("payg",
				deployment{Model: "o3", Reason: "one at a time", RateLimited: true, Until: hour},
				deployment{Model: "o4", Available: true, AvoidedUntil: hour},
				deployment{Model: "gpt-5", Available: true, Operations: []spillover.OperationStatus{{Name: "responses", Reason: "404 NotFound", Until: hour}}},
			), down, drained,
		},
	)
	s.Fleet = &spillover.FleetStatus{Name: "me", Replicas: []spillover.ReplicaStatus{{Name: "other", Heard: now}, {Name: "liar", Heard: now, Ignored: true}}, Sent: 1, Received: 2, Ignored: 3}
	return s
}

func TestEachStateHasWordAndIcon(t *testing.T) {
	_, server := watch(t, everyState())
	tab := open(t, options{}, server.URL+"/status/")
	tab.until(refreshed)
	rows := eval[[][]string](tab, `[...document.querySelectorAll('.tier tbody tr')].map((r) => [r.querySelector('.state').innerText, r.querySelector('.state use').getAttribute('href'), r.querySelector('.due').innerText.replace(/[0-9].*/, '')])`)
	require.Equal(t, [][]string{
		{"Available", "#i-available", ""},
		{"Rate-limited", "#i-rate-limited", "asked again in "},
		{"Ramping up", "#i-ramping-up", "next request in "},
		{"Avoided", "#i-avoided", "for "},
		{"Partly available", "#i-partial", "asked again in "},
		{"Ejected", "#i-ejected", "probed in "},
		{"Drained", "#i-drained", ""},
	}, rows)
	// Every icon has an area: it is there, and it is drawn.
	require.Empty(t, eval[[]string](tab, `[...document.querySelectorAll('use')].filter((u) => u.getBBox().width < 4 && u.closest('main')).map((u) => u.getAttribute('href'))`))
	require.Equal(t, "No deployment available for o3 – spillover", eval[string](tab, `document.title`))
	require.Contains(t, eval[string](tab, `document.querySelector('#favicon').href`), "icon-down")
	require.Contains(t, tab.text(".fleet"), "Ignored: its reports were wrong")
}

// refreshed is that the script has rendered an update.
const refreshed = `document.documentElement.dataset.live === 'on'`

// A page that waits for its first update shows what the server rendered, and is not live yet.
func TestPageIsLiveOnceItShowsAnUpdate(t *testing.T) {
	page := statuspage.New(&pool{status: tiers(backends{backend("a", available("m"))})})
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "update.json") {
			select {
			case asked <- struct{}{}:
			default:
			}
			select {
			case <-answer:
			case <-r.Context().Done():
				return
			}
		}
		page.ServeHTTP(w, r)
	}))
	tab := open(t, options{}, server.URL+"/status/")
	<-asked
	require.Empty(t, eval[string](tab, `document.documentElement.dataset.live ?? ''`))
	close(answer)
	tab.until(refreshed)
}

// What the server renders without a script is what the script makes of it, except times
// and what depends on the time.
func TestPageIsTheSameWithoutScript(t *testing.T) {
	const text = `[...document.querySelectorAll('header ~ main *')].filter((e) => e.childElementCount === 0 && !e.closest('svg, [hidden], .needs-script, .filter, .unseen, .figures b, .due') && !/[0-9] (s|min|h)\b/.test(e.textContent)).map((e) => e.textContent.trim()).filter(Boolean)`
	_, server := watch(t, everyState())
	plain := open(t, options{noScript: true}, server.URL+"/status/")
	without := eval[[]string](plain, text)
	require.Equal(t, "15", eval[string](plain, `document.querySelector('meta[http-equiv=refresh]')?.content ?? ''`))
	require.False(t, eval[bool](plain, `document.querySelector('#pause').checkVisibility()`))
	scripted := open(t, options{}, server.URL+"/status/")
	scripted.until(refreshed)
	require.Equal(t, without, eval[[]string](scripted, text))
	require.Greater(t, len(without), 60)
}

func TestCountdownCountsDown(t *testing.T) {
	_, server := watch(t, tiers(backends{backend("a", limited("m", 50*time.Second))}))
	tab := open(t, options{}, server.URL+"/status/")
	left := func() (n int) {
		_, err := fmt.Sscanf(tab.text(".due"), "asked again in %d s", &n)
		require.NoError(t, err)
		return n
	}
	first := left()
	require.InDelta(t, 48, first, 3)
	require.Regexp(t, `^The first one is due in \d+ s ?1 rate-limited$`, strings.Join(strings.Fields(tab.text(".headline p")), " "))
	require.Eventually(t, func() bool { return left() <= first-3 }, 10*time.Second, 50*time.Millisecond)
	require.Greater(t, left(), 30)
}

func TestPageFollowsChanges(t *testing.T) {
	p, server := watch(t, tiers(backends{backend("a", available("m"), available("n"))}, backends{backend("b", available("m"))}))
	tab := open(t, options{}, server.URL+"/status/")
	tab.until(refreshed)
	require.Equal(t, "All 3 deployments available", tab.text("h1"))
	require.Empty(t, eval[string](tab, `document.querySelector('#announcement').textContent`), "nothing to announce at first")
	eval[bool](tab, `window.announced = 0, new MutationObserver(() => announced++).observe(document.querySelector('#announcement'), { childList: true, characterData: true, subtree: true }), window.row = document.querySelector('tbody tr'), true`)

	// A rate limit is normal: it is not announced, and the row keeps its height.
	p.set(tiers(backends{backend("a", limited("m", time.Minute), available("n"))}, backends{backend("b", available("m"))}))
	tab.until(`document.title.startsWith('1 of 3 deployments rate-limited')`)
	require.True(t, eval[bool](tab, `row === document.querySelector('tbody tr') && row.dataset.state === 'rate-limited' && !row.querySelector('details').open`))
	require.Contains(t, eval[string](tab, `document.querySelector('#favicon').href`), "icon-ok")
	require.Zero(t, eval[int](tab, `announced`))

	failed := limited("m", time.Minute)
	failed.RateLimited = false
	p.set(tiers(backends{backend("a", failed, available("n"))}, backends{backend("b", available("m"))}))
	tab.until(`document.title.startsWith('1 of 3 deployments ejected')`)
	require.True(t, eval[bool](tab, `row === document.querySelector('tbody tr') && row.dataset.state === 'ejected' && row.querySelector('details').open`))
	require.Contains(t, tab.text("tbody tr"), "Please retry after some seconds.")
	// What the reader closes stays closed, and a number of refreshes announces nothing.
	tab.do(chromedp.Click(chromedp.CSS("summary")))
	tab.until(`!row.querySelector('details').open`)
	eval[bool](tab, `window.refreshes = performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length, true`)
	tab.until(`performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length >= refreshes + 2`)
	require.False(t, eval[bool](tab, `row.querySelector('details').open`))
	require.Equal(t, 1, eval[int](tab, `announced`))

	// As after a Reconfigure: a tier leaves, another comes before the deployment that stays.
	p.set(tiers(backends{backend("c", available("m")), backend("a", limited("m", time.Minute))}))
	tab.until(`document.querySelectorAll('.tier').length === 1 && document.querySelectorAll('tbody tr[id^=d-]').length === 2`)
	require.True(t, eval[bool](tab, `row === document.querySelectorAll('.tier tbody tr')[1]`))
	require.Contains(t, eval[string](tab, `document.querySelector('.tier tbody tr').innerText`), "c.openai.azure.com")
}

func TestPageSurvivesARestartOfTheServer(t *testing.T) {
	p, server := watch(t, tiers(backends{backend("a", available("m"))}))
	tab := open(t, options{serverLeaves: true}, server.URL+"/status/")
	tab.until(refreshed)
	address, handler := server.Listener.Addr().String(), server.Config.Handler
	server.CloseClientConnections()
	server.Close()
	tab.until(`document.querySelector('#stale').checkVisibility() && document.querySelector('#stale').textContent.startsWith('Not updated since')`)
	require.Equal(t, "stale", eval[string](tab, `document.documentElement.dataset.live`))
	require.Equal(t, "All", strings.Fields(strings.Replace(tab.text("h1"), "The deployment is", "All", 1))[0], "the last state stays")

	p.set(tiers(backends{backend("a", limited("m", time.Minute))}))
	again := httptest.NewUnstartedServer(handler)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	require.NoError(t, again.Listener.Close())
	again.Listener = listener
	again.Start()
	t.Cleanup(func() {
		again.CloseClientConnections()
		again.Close()
	})
	tab.until(`document.querySelector('h1').textContent === 'No deployment available' && !document.querySelector('#stale').checkVisibility()`)
}

// counting counts requests for updates.
func counting(t *testing.T, s spillover.Status) (server *httptest.Server, count func() int) {
	page := statuspage.New(&pool{status: s})
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	var mu sync.Mutex
	n := 0
	server = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if strings.HasSuffix(r.URL.Path, "update.json") {
			n++
		}
		mu.Unlock()
		page.ServeHTTP(w, r)
	}))
	return server, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestHiddenOrPausedPageSendsNoRequests(t *testing.T) {
	server, count := counting(t, tiers(backends{backend("a", available("m"))}))
	tab := open(t, options{initScript: `window.away = false; Object.defineProperty(document, 'hidden', { get: () => away });`}, server.URL)
	grows := func() {
		before := count()
		require.Eventually(t, func() bool { return count() > before+1 }, 10*time.Second, 20*time.Millisecond)
	}
	rests := func() {
		before := count() + 1 // a request that is under way
		require.Never(t, func() bool { return count() > before }, 7*time.Second, 50*time.Millisecond)
	}
	grows()
	eval[bool](tab, `window.away = true`)
	rests()
	eval[bool](tab, `window.away = false, document.dispatchEvent(new Event('visibilitychange'))`)
	grows()
	tab.do(chromedp.Click(chromedp.CSS("#pause")))
	tab.until(`document.querySelector('#updated').textContent === 'Paused' && document.querySelector('#pause').getAttribute('aria-pressed') === 'true'`)
	rests()
	tab.do(chromedp.Click(chromedp.CSS("#pause")))
	grows()
}

func TestLightAndDark(t *testing.T) {
	_, server := watch(t, everyState())
	brightness := func(o options) (page, text float64) {
		tab := open(t, o, server.URL+"/status/")
		tab.until(refreshed)
		const of = `.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 765`
		return eval[float64](tab, `getComputedStyle(document.body).backgroundColor`+of), eval[float64](tab, `getComputedStyle(document.body).color`+of)
	}
	page, text := brightness(options{scheme: "light"})
	require.Greater(t, page, 0.9)
	require.Less(t, text, 0.2)
	page, text = brightness(options{scheme: "dark"})
	require.Less(t, page, 0.1)
	require.Greater(t, text, 0.8)
}

func TestReducedMotion(t *testing.T) {
	_, server := watch(t, everyState())
	animations := func(value string) int {
		tab := open(t, options{features: map[string]string{"prefers-reduced-motion": value}}, server.URL+"/status/")
		tab.until(refreshed)
		return eval[int](tab, `document.getAnimations().length`)
	}
	require.Positive(t, animations("no-preference"))
	require.Zero(t, animations("reduce"))
}

// With the colours of the system, icons and lines are drawn in them.
func TestForcedColors(t *testing.T) {
	_, server := watch(t, everyState())
	tab := open(t, options{features: map[string]string{"forced-colors": "active"}}, server.URL+"/status/")
	tab.until(refreshed)
	require.True(t, eval[bool](tab, `matchMedia('(forced-colors: active)').matches`))
	require.Equal(t, "1px", eval[string](tab, `getComputedStyle(document.querySelector('.state')).borderTopWidth`))
}

func TestNoHorizontalScrolling(t *testing.T) {
	s := everyState()
	long := limited(strings.Repeat("long-model-name-", 8), time.Hour)
	long.LastFailure.Cause = strings.Repeat("x", 256)
	long.Served, long.InputTokens = 1<<40, 1<<49
	s.Tiers[0].Backends = append(s.Tiers[0].Backends, backend(strings.Repeat("a-long-name", 8), long))
	_, server := watch(t, s)
	tab := open(t, options{width: 320, height: 800, phone: true}, server.URL+"/status/")
	tab.until(refreshed)
	for _, width := range []int64{320, 390, 700, 900, 1024, 1280} {
		tab.do(chromedp.EmulateViewport(width, 800))
		require.LessOrEqual(t, eval[int64](tab, `document.documentElement.scrollWidth`), width)
		hidden := eval[[]string](tab, `[...document.querySelectorAll('main *, header *')].filter((e) => !e.closest('.unseen, svg, .tier thead') && e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.className + ' ' + e.textContent.slice(0, 30))`)
		require.Empty(t, hidden, "beyond the edge at %d", width)
	}
}

func TestKeyboardReachesEverythingInOrder(t *testing.T) {
	s := tiers(backends{backend("a", limited("m", time.Hour))})
	for i := range 12 {
		s.Tiers[0].Backends = append(s.Tiers[0].Backends, backend(fmt.Sprint("b", i), available("m")))
	}
	_, server := watch(t, s)
	tab := open(t, options{}, server.URL+"/status/")
	tab.until(refreshed)
	var order []string
	for range 6 {
		tab.do(chromedp.KeyEvent(kb.Tab))
		order = append(order, eval[string](tab, `document.activeElement.id || document.activeElement.textContent.trim().replace(/ [0-9].*/, '')`))
		require.Equal(t, "solid", eval[string](tab, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is visible")
		require.True(t, eval[bool](tab, `document.activeElement.matches(':focus-visible') && document.activeElement.getBoundingClientRect().top >= 0`))
	}
	require.Equal(t, []string{"Skip to the deployments", "pause", "search", "problems", "Last failure", "status.json"}, order)

	// The focus stays where it is when the page refreshes.
	eval[bool](tab, `(document.querySelector('summary').focus(), true)`)
	tab.do(chromedp.KeyEvent(kb.Enter))
	tab.until(`document.querySelector('details').open`)
	eval[bool](tab, `(window.refreshes = performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length, true)`)
	tab.until(`performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length > refreshes + 1`)
	require.Equal(t, "SUMMARY", eval[string](tab, `document.activeElement.tagName`))
}

func TestTextsOfServicesAreNeverMarkup(t *testing.T) {
	const evil = `"><img src=x onerror="hacked=1"><script>hacked=1</script>`
	d := limited(evil, time.Hour)
	d.Name, d.Reason, d.LastFailure.Reason, d.LastFailure.Cause = "as "+evil, evil, evil+" again", evil
	d.Operations = []spillover.OperationStatus{{Name: evil, Reason: evil, Until: d.Until}}
	b := backend("x", d)
	b.Name, b.URL = evil, "https://"+evil
	s := tiers(backends{b})
	s.Fleet = &spillover.FleetStatus{Name: evil, Replicas: []spillover.ReplicaStatus{{Name: evil, Heard: time.Now()}}}
	p, server := watch(t, tiers(backends{backend("a", available("m"))}))
	check := func(tab *tab) {
		require.Equal(t, evil, eval[string](tab, `document.querySelector('.message').textContent`))
		require.Equal(t, evil, eval[string](tab, `document.querySelector('.model').textContent`))
		require.Zero(t, eval[int](tab, `document.querySelectorAll('img, main script, body script').length`))
		require.False(t, eval[bool](tab, `'hacked' in window`))
	}
	tab := open(t, options{}, server.URL+"/status/")
	tab.until(refreshed)
	p.set(s)
	tab.until(`document.querySelector('.model').textContent.includes('img')`)
	check(tab) // rendered by the script
	check(open(t, options{noScript: true}, server.URL+"/status/"))
}

func hundred() spillover.Status {
	var all []backends
	for tier := range 4 {
		var some backends
		for i := range 25 {
			d := available(fmt.Sprint("model-", i%5))
			if i%7 == 0 {
				d = limited(d.Model, time.Hour)
			}
			some = append(some, backend(fmt.Sprintf("backend-%d-%d", tier, i), d))
		}
		all = append(all, some)
	}
	return tiers(all...)
}

func TestHundredDeploymentsAreReadableAndQuick(t *testing.T) {
	_, server := watch(t, hundred())
	tab := open(t, options{prepare: func(tab *tab) {
		call(tab, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
	}}, server.URL+"/status/")
	tab.until(refreshed + ` && document.querySelectorAll('.tier tbody tr .spark path').length > 300`)
	require.Equal(t, 100, eval[int](tab, `document.querySelectorAll('.tier tbody tr').length`))
	used := 0.0 // seconds of the processor, not of the clock
	for _, m := range call(tab, performance.GetMetrics, cdp.Empty{}).Metrics {
		switch m.Name {
		case "ScriptDuration", "LayoutDuration", "RecalcStyleDuration":
			used += m.Value
		}
	}
	t.Logf("%.2f s", used)
	require.Positive(t, used)
	require.Less(t, used, 2.0)

	// A refresh changes little: no row is made anew.
	eval[bool](tab, `(window.added = 0, new MutationObserver((all) => { for (const m of all) added += [...m.addedNodes].filter((n) => n.nodeType === 1).length; }).observe(document.querySelector('#deployments'), { childList: true, subtree: true }), true)`)
	eval[bool](tab, `(window.refreshes = performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length, true)`)
	tab.until(`performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length > refreshes + 1`)
	require.Zero(t, eval[int](tab, `added`))

	tab.do(chromedp.Focus(chromedp.CSS("#search")), chromedp.KeyEvent("backend-2 limited"))
	tab.until(`document.querySelector('#found').textContent === '4 of 100 shown'`)
	require.Equal(t, 4, eval[int](tab, `[...document.querySelectorAll('.tier tbody tr')].filter((r) => r.checkVisibility()).length`))
	require.Equal(t, 1, eval[int](tab, `[...document.querySelectorAll('.tier')].filter((r) => r.checkVisibility()).length`), "a tier without a match is hidden")
	eval[bool](tab, `(document.querySelector('#search').value = '', true)`)
	tab.do(chromedp.Click(chromedp.CSS("#problems")))
	tab.until(`document.querySelector('#found').textContent === '16 of 100 shown'`)
}

func TestLinesHaveTextAlternatives(t *testing.T) {
	server := serve(t, scene(t))
	tab := open(t, options{}, server.URL)
	tab.until(`document.querySelectorAll('.tier .spark path').length > 20`)
	require.Regexp(t, `^Served requests, last 15 minutes: [0-9.]+ per second now, at most [0-9.]+ per second$`, eval[string](tab, `document.querySelector('.tier [data-spark=served]').getAttribute('aria-label')`))
	require.Regexp(t, `^Served requests per second, last 15 minutes\. Tier 1: [0-9.]+ now, at most [0-9.]+\. Tier 2: .*Tier 3: `, eval[string](tab, `document.querySelector('#chart').getAttribute('aria-label')`))
	require.Empty(t, eval[[]string](tab, `[...document.querySelectorAll('svg')].filter((s) => s.checkVisibility() && s.getAttribute('aria-hidden') !== 'true' && !(s.getAttribute('role') === 'img' && s.getAttribute('aria-label'))).map((s) => s.outerHTML)`))
	// Lines are inside of their box, and end at the present.
	require.Empty(t, eval[[]string](tab, `[...document.querySelectorAll('.spark path')].filter((p) => { const b = p.getBBox(); return b.y < 0 || b.y + b.height > 30.5 || b.x < -2 || Math.abs(b.x + b.width - 100) > 1; }).map((p) => p.parentElement.dataset.spark + p.outerHTML)`))
}

// axe returns the script of axe-core, in the version of package-lock.json.
var axe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "axe")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return "", err
		}
	}
	install := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	return string(script), err
})

func TestAxeFindsNoViolation(t *testing.T) {
	script, err := axe()
	require.NoError(t, err, "npm is required")
	pictured := serve(t, scene(t)).URL
	_, every := watch(t, everyState())
	_, many := watch(t, hundred())
	_, none := watch(t, spillover.Status{})
	const path = "/status/"
	for name, c := range map[string]struct {
		options

		url string
	}{
		"picture, light":          {options{}, pictured},
		"picture, phone":          {options{width: 320, height: 700, phone: true}, pictured},
		"each state, light":       {options{}, every.URL + path},
		"each state, dark":        {options{scheme: "dark"}, every.URL + path},
		"each state, phone":       {options{width: 320, height: 700, phone: true}, every.URL + path},
		"each state, dark, phone": {options{width: 390, height: 800, phone: true, scheme: "dark"}, every.URL + path},
		"each state, forced":      {options{features: map[string]string{"forced-colors": "active"}}, every.URL + path},
		"hundred deployments":     {options{}, many.URL + path},
		"no deployment":           {options{}, none.URL + path},
		"without script":          {options{noScript: true}, every.URL + path},
	} {
		t.Run(name, func(t *testing.T) {
			tab := open(t, c.options, c.url)
			if c.noScript {
				call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
			} else {
				tab.until(refreshed)
			}
			requireNoViolation(tab, script, c.noScript)
		})
	}
}

// Without a script nothing else than a reload can show the present, so that axe's rule
// against it does not hold there.
func requireNoViolation(tab *tab, script string, mayReload bool) {
	_, err := chromedp.Run(tab.ctx, chromedp.Evaluate[chromedp.Void](script+";0"))
	require.NoError(tab.t, err)
	found := eval[string](tab, `axe.run(document, { resultTypes: ['violations'], rules: { 'meta-refresh': { enabled: `+strconv.FormatBool(!mayReload)+` } } }).then((r) => JSON.stringify({
		version: r.testEngine.version, passes: r.passes.length, violations: r.violations.map((v) => v.id + ': ' + v.help + ': ' + v.nodes.slice(0, 3).map((n) => n.target + ' ' + n.failureSummary).join('; ')) }))`)
	var result struct {
		Version    string
		Passes     int
		Violations []string
	}
	require.NoError(tab.t, json.Unmarshal([]byte(found), &result))
	require.Equal(tab.t, "4.14.1", result.Version)
	require.Greater(tab.t, result.Passes, 10)
	require.Empty(tab.t, result.Violations)
}

// A page that is open for more than 15 minutes drops the oldest samples. The rate of the
// sample that becomes the first one stays what it was.
func TestLinesStartWithTheRateOfTheirFirstSample(t *testing.T) {
	page := statuspage.New(&pool{status: tiers(backends{backend("a", available("m"))})})
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	const interval, samples = 5000, 180 // as of the page, in ms
	var updates atomic.Int64
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "update.json") {
			page.ServeHTTP(w, r)
			return
		}
		recorder := httptest.NewRecorder()
		page.ServeHTTP(recorder, r)
		var update map[string]json.RawMessage
		if err := json.Unmarshal(recorder.Body.Bytes(), &update); err != nil {
			t.Error(err)
			return
		}
		// 15 minutes at ten requests per second first, then a sample with each update.
		first, n := 0, samples
		if update := int(updates.Add(1)); update > 1 {
			first, n = samples+update-2, 1
		}
		begin := int64(1_800_000_000_000)
		times, served, zero := make([]int64, n), make([]int, n), make([]int, n)
		for i := range times {
			times[i], served[i] = begin+int64(first+i+1)*interval, 50
		}
		series := map[string]any{"served": served, "throttled": zero, "failed": zero, "in_flight": zero, "spilled": zero, "input_tokens": zero, "output_tokens": zero}
		history, err := json.Marshal(map[string]any{"since": begin + int64(first)*interval, "times": times, "pool": series, "tiers": []any{}, "deployments": []any{}})
		if err != nil {
			t.Error(err)
			return
		}
		update["history"] = history
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(update); err != nil {
			t.Error(err)
		}
	}))
	tab := open(t, options{}, server.URL+"/status/")
	line := `document.querySelector('.figures [data-spark=served] path:last-child')?.getAttribute('d') ?? ''`
	tab.until(line)
	before := eval[string](tab, line)
	tab.until(`performance.getEntriesByType('resource').filter((r) => r.name.includes('update.json')).length > 3`)
	for _, d := range []string{before, eval[string](tab, line)} {
		heights := map[string]bool{}
		points := strings.FieldsFunc(d, func(r rune) bool { return r == 'M' || r == 'L' })
		for _, point := range points {
			_, y, _ := strings.Cut(point, " ")
			heights[y] = true
		}
		require.Greater(t, len(points), 80)
		require.Len(t, heights, 1, "the same all the time: %s", d)
	}
	require.Equal(t, "Served requests, last 15 minutes: 10 per second now, at most 10 per second", eval[string](tab, `document.querySelector('.figures [data-spark=served]').getAttribute('aria-label')`))
}
