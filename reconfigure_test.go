package spillover

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"go.opentelemetry.io/otel/metric"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"

	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

// reconfigure replaces the backends, and what else change says.
func reconfigure(t testing.TB, tr *Transport, change func(*Config), backends ...Backend) {
	cfg := tr.setup.Load().cfg
	cfg.Backends = backends
	if change != nil {
		change(&cfg)
	}
	require.NoError(t, tr.Reconfigure(cfg))
}

func called(name string) func(*Backend) { return func(b *Backend) { b.Name = name } }
func placed(url string) func(*Backend)  { return func(b *Backend) { b.URL = url } }
func keyed(key string) func(*Backend)   { return func(b *Backend) { b.APIKey = key } }
func speaks(d Dialect) func(*Backend)   { return func(b *Backend) { b.Dialect = d } }
func deploys(m, deployment string) func(*Backend) {
	return func(b *Backend) { b.Models = []Model{{Name: m, Deployment: deployment}} }
}

// What is known of a deployment, and of its backend, is kept as long as both are
// what they were, whatever else of the configuration changes.
func TestReconfigureKeeps(t *testing.T) {
	type kept struct{ backend, deployment bool }
	all, whole, nothing := kept{true, true}, kept{true, false}, kept{}
	for name, test := range map[string]struct {
		before, after []Backend
		kept          kept
	}{
		"nothing changes":      {after: []Backend{azure("a")}, kept: all},
		"others come":          {after: []Backend{azure("b"), azure("a"), azure("c", priority(2))}, kept: all},
		"others go":            {before: []Backend{azure("b"), azure("c"), azure("a")}, after: []Backend{azure("a")}, kept: all},
		"another tier":         {after: []Backend{azure("a", priority(3))}, kept: all},
		"another weight":       {after: []Backend{azure("a", weight(7))}, kept: all},
		"another key":          {after: []Backend{azure("a", keyed("new"))}, kept: all},
		"a token for a key":    {after: []Backend{azure("a", entra)}, kept: all},
		"another dialect":      {after: []Backend{azure("a", speaks(AzureV1))}, kept: all},
		"another api-version":  {after: []Backend{azure("a", apiVersion("2024-10-21"))}, kept: all},
		"defaults":             {after: []Backend{azure("a", defaults(map[string]any{"temperature": 0}))}, kept: all},
		"timeouts":             {after: []Backend{azure("a", func(b *Backend) { b.HeaderTimeout, b.IdleTimeout = 1, 1 })}, kept: all},
		"limits":               {after: []Backend{azure("a", limits(5, 1000))}, kept: all},
		"it is configured":     {after: []Backend{azure("a", serves("m"))}, kept: all},
		"other models":         {before: []Backend{azure("a", serves("m", "n"))}, after: []Backend{azure("a", serves("o", "m"))}, kept: all},
		"every model again":    {before: []Backend{azure("a", serves("m"))}, after: []Backend{azure("a")}, kept: all},
		"the URL spelt anew":   {after: []Backend{azure("a", placed("a.openai.azure.com/openai/"))}, kept: all},
		"named as by default":  {before: []Backend{azure("a", called(""))}, after: []Backend{azure("a", called(host("a")))}, kept: all},
		"another deployment":   {after: []Backend{azure("a", deploys("m", "other"))}, kept: whole},
		"the model of another": {before: []Backend{azure("a", deploys("m", "x"))}, after: []Backend{azure("a", deploys("n", "y"), func(b *Backend) { b.Models = append(b.Models, Model{Name: "m"}) })}, kept: whole},
		"another name":         {after: []Backend{azure("a", called("b"))}, kept: nothing},
		"another host":         {after: []Backend{azure("a", placed("https://b.openai.azure.com"))}, kept: nothing},
		"another port":         {after: []Backend{azure("a", placed("https://a.openai.azure.com:8443"))}, kept: nothing},
		"another scheme":       {after: []Backend{azure("a", placed("http://a.openai.azure.com"))}, kept: nothing},
		"another base path":    {after: []Backend{azure("a", placed("https://a.openai.azure.com/base"))}, kept: nothing},
	} {
		t.Run(name, func(t *testing.T) {
			if test.before == nil {
				test.before = []Backend{azure("a")}
			}
			tr := balance(t, newNet(), test.before...)
			first := func() *deployment {
				for d := range tr.table().find("m").all {
					if d.backend.name != "b" && d.backend.name != "c" || test.kept == nothing {
						return d
					}
				}
				return nil
			}
			ask(t, tr)
			was := first()
			reconfigure(t, tr, nil, test.after...)
			is := first()
			require.NotSame(t, was, is, "what is configured is of one configuration alone")
			require.Equal(t, test.kept, kept{was.backend.sharedState == is.backend.sharedState, was.record == is.record})
		})
	}
}

// Of failures in a row a new credential mends some, another configuration none.
func TestReconfigureMends(t *testing.T) {
	for name, test := range map[string]struct {
		before, change func(*Backend)
		mends          bool
	}{
		"nothing":               {keyed("key"), keyed("key"), false},
		"weight":                {weight(1), weight(2), false},
		"key":                   {keyed("key"), keyed("new"), true},
		"key to token":          {keyed("key"), entra, true},
		"key to the caller's":   {keyed("key"), keyed(""), true},
		"the caller's to key":   {keyed(""), keyed("key"), true},
		"the caller's to token": {keyed(""), entra, true},
		"token to the caller's": {entra, keyed(""), true},
		"token":                 {entra, entra, false}, // they cannot be compared
		"dialect":               {speaks(Azure), speaks(AzureV1), true},
		"api-version":           {apiVersion("2024-06-01"), apiVersion("2024-10-21"), true},
	} {
		for cause := health.ServerFailure; cause <= health.OutOfQuota; cause++ {
			t.Run(fmt.Sprint(name, "/", cause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tr, now := balance(t, newNet(), azure("a", test.before), azure("b")), time.Now()
					ask(t, tr)
					for _, backend := range []string{"a", "b"} {
						d := deploymentOf(t, tr, backend)
						failAt(&d.State, now, cause, "failed", 0.5)
						failAt(&d.State, now, cause, "failed", 0.5)
						d.Refuse(now, health.Refusal{Sent: now, Wait: 90 * time.Second, Reason: "429"}, 0.5)
						failAt(&d.backend.State, now, health.Unreachable, "no connection", 0.5)
					}
					reconfigure(t, tr, nil, azure("a", test.change), azure("b"))
					for backend, mended := range map[string]bool{"a": test.mends && cause.NeedsChange(), "b": false} {
						d := deploymentOf(t, tr, backend)
						require.Equal(t, mended, failures(&d.State) == 0, backend)
						asked, _ := d.OnlyLearned(now)
						require.Equal(t, now.Add(90*time.Second), asked, "a cool-down is the service's word")
						require.True(t, d.Troubled())
						_, ejected, _ := d.backend.Ejected(now)
						require.True(t, ejected, "nor does it mend the connection")
						if s := statusOf(t, tr, backend); mended || cause != health.OutOfQuota {
							require.Equal(t, now.Add(90*time.Second), s.Until)
							require.Equal(t, "429", s.Reason)
						}
						require.True(t, rampsUp(&d.State))
					}
				})
			})
		}
	}
}

// A throttled deployment is left alone for as long as it asked, through any
// number of configurations that have it.
func TestReconfigureInACooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 20"), ok200)
		tr := firstAndSecond(t, n)
		ask(t, tr)
		until := time.Now().Add(20 * time.Second)
		for i := range 10 {
			reconfigure(t, tr, nil, azure("a", keyed(fmt.Sprint("key", i))), azure("b", priority(2+i)), azure(fmt.Sprint("c", i), priority(3+i)))
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			require.Equal(t, until, statusOf(t, tr, "a").Until)
			time.Sleep(1999 * time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.EqualValues(t, 1, statusOf(t, tr, "a").Throttled)
		require.EqualValues(t, 1, statusOf(t, tr, "a").Served)
		require.EqualValues(t, 11, statusOf(t, tr, "b").Served)
	})
}

// What was counted against configured limits counts against other ones.
func TestReconfigureLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := balance(t, newNet(), azure("a", limits(3, 0)), azure("b", priority(2)))
		served := func() (all string) {
			for range 4 {
				resp, _ := ask(t, tr)
				all += servedBy(resp)
			}
			return all
		}
		require.Equal(t, "aaab", served())
		reconfigure(t, tr, nil, azure("a", limits(5, 0)), azure("b", priority(2)))
		require.Equal(t, "aabb", served(), "two more")
		reconfigure(t, tr, nil, azure("a", limits(4, 0)), azure("b", priority(2)))
		require.Equal(t, "bbbb", served())
		reconfigure(t, tr, nil, azure("a", serves("m")), azure("b", priority(2)))
		require.Equal(t, "aaaa", served(), "none")
		tokens := int(chatTokens(t))
		reconfigure(t, tr, nil, azure("a", limits(0, 7*tokens)), azure("b", priority(2)))
		require.Equal(t, "aabb", served(), "five that were counted")
		time.Sleep(time.Minute)
		require.Equal(t, "aaaa", served())
	})
}

// Sizes are as configured last, and where they are not as was told last.
func TestReconfigureSizes(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(200, "{}", "X-Ratelimit-Limit-Tokens: 300"))
	tr := balance(t, n, azure("a"))
	ask(t, tr)
	sizes := func() []int64 { return sharesOf(tr.table().find("m").tiers[0]) }
	for _, test := range []struct {
		a, b Backend
		want []int64
	}{
		{azure("a"), azure("b", limits(0, 100)), []int64{300, 100}},
		{azure("a"), azure("b"), []int64{300, 300}},
		{azure("a", limits(0, 50)), azure("b", limits(0, 100)), []int64{50, 100}},
		{azure("a", weight(2)), azure("b", limits(0, 100)), []int64{2, 1}},
		{azure("a", weight(2)), azure("b", weight(5)), []int64{2, 5}},
		{azure("a"), azure("b", limits(0, 900)), []int64{300, 900}},
	} {
		reconfigure(t, tr, nil, test.a, test.b)
		require.Equal(t, test.want, sizes())
	}

	// An answer that was under way may tell another limit: the sizes follow with
	// the next one at the latest.
	n.On(host("a"), status(200, "{}", "X-Ratelimit-Limit-Tokens: 600"))
	was := tr.table().find("m").tiers[0].members[0]
	reconfigure(t, tr, nil, azure("a"), azure("b", limits(0, 900)))
	was.measure(time.Now(), time.Now(), 0, headerOf("X-Ratelimit-Limit-Tokens: 600"))
	require.NoError(t, tr.Drain("b"))
	ask(t, tr)
	require.Equal(t, []int64{600, 900}, sizes())
}

// A backend that comes, goes or is changed moves no session but its own.
func TestReconfigureSessions(t *testing.T) {
	tr := three(t, newNet())
	homes := map[string]string{}
	for i := range 300 {
		homes[fmt.Sprint("session", i)] = homeOf(tr, fmt.Sprint("session", i))
	}
	stays := func(but string) {
		for id, home := range homes {
			resp, _ := send(t, tr, sessionOf(t, id))
			require.True(t, servedBy(resp) == home || home == but || servedBy(resp) == but, "%s is at %s, not %s", id, servedBy(resp), home)
		}
	}
	reconfigure(t, tr, nil, azure("c", keyed("new")), azure("a", placed("https://elsewhere.openai.azure.com")), azure("b", priority(2)))
	reconfigure(t, tr, nil, azure("b", apiVersion("1")), azure("a"), azure("c"))
	stays("none")
	reconfigure(t, tr, nil, azure("b"), azure("a"))
	stays("c")
	reconfigure(t, tr, nil, azure("b"), azure("a"), azure("c"), azure("d"))
	stays("d")
	reconfigure(t, tr, nil, azure("b"), azure("a"), azure("c"))
	require.NoError(t, tr.Drain("a"))
	stays("a")
	require.NoError(t, tr.Resume("a"))
	stays("none")
}

// Second attempts that were spent in a tier are not to be had again by another
// configuration.
func TestReconfigureBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := steady(three(t, n))
		ask(t, tr)
		for range 10 {
			require.True(t, tierOf(tr, 0).Spend(health.AttemptCost))
		}
		for range 3 {
			reconfigure(t, tr, nil, azure("c"), azure("b"), azure("a"), azure("d", priority(2)))
			require.False(t, tierOf(tr, 0).Spend(health.AttemptCost))
			require.True(t, tierOf(tr, 1).Spend(health.AttemptCost), "every tier has its own")
		}
		require.EqualValues(t, 3*health.AttemptCost, spentOf(tierOf(tr, 1)))
		n.On(host("c"), status(429, "{}", "Retry-After: 9"))
		n.On(host("a"), status(500, "{}"))
		n.On(host("b"), status(500, "{}"))
		resp, _ := ask(t, tr)
		require.Equal(t, "d", servedBy(resp), "the next tier is free")
		require.Equal(t, "4", resp.Header.Get(headerAttempts), "nothing was held against the others")
		resp, _ = ask(t, tr)
		require.Equal(t, "d", servedBy(resp))
		require.Equal(t, "2", resp.Header.Get(headerAttempts), "now there is: no second attempt is left")
	})
}

// What is not of the backends counts from the next request on.
func TestReconfigureTheRest(t *testing.T) {
	failing := func(n *fakeNet) {
		for _, name := range []string{"a", "b", "c", "d"} {
			n.On(host(name), status(408, "{}"))
		}
	}
	four := []Backend{azure("a"), azure("b"), azure("c"), azure("d")}
	attempts := func(want string) func(testing.TB, *Transport) {
		return func(t testing.TB, tr *Transport) {
			resp, _ := ask(t, tr)
			require.Equal(t, want, resp.Header.Get(headerAttempts))
		}
	}
	takes := func(want time.Duration, code int) func(testing.TB, *Transport) {
		return func(t testing.TB, tr *Transport) {
			begun := time.Now()
			resp, _ := ask(t, tr)
			require.Equal(t, code, resp.StatusCode)
			require.Equal(t, want, time.Since(begun))
		}
	}
	coolsFor := func(want time.Duration) func(testing.TB, *Transport) {
		return func(t testing.TB, tr *Transport) {
			time.Sleep(10 * time.Minute) // and all is forgotten
			ask(t, tr)
			require.InDelta(t, want, left(t, tr, "a"), float64(time.Millisecond), "but for what the first refusal taught")
		}
	}
	served := func(by string) func(testing.TB, *Transport) {
		return func(t testing.TB, tr *Transport) {
			resp, _ := ask(t, tr)
			require.Equal(t, by, servedBy(resp))
		}
	}
	throttled := func(header ...string) func(*fakeNet) {
		return func(n *fakeNet) { n.On(host("a"), status(429, "{}", header...)) }
	}
	cut := func(n *fakeNet) {
		n.On(host("a"), testnet.Content("text/event-stream", testnet.AzureFirst+testnet.TokenChunk("half")))
		n.On(host("b"), testnet.Content("text/event-stream", testnet.WholeChat))
	}
	breaksOff := func(t testing.TB, tr *Transport) {
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		_, err = testnet.ReadAll(t, resp)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	for name, test := range map[string]struct {
		net           func(*fakeNet)
		backends      []Backend
		change        func(*Config)
		before, after func(testing.TB, *Transport)
	}{
		"MaxAttempts":     {failing, four, func(c *Config) { c.MaxAttempts = 2 }, attempts("3"), attempts("2")},
		"MaxWait":         {throttled("Retry-After: 2"), nil, func(c *Config) { c.MaxWait = 3 * time.Second }, takes(0, 429), takes(2*time.Second, 429)},
		"DefaultCooldown": {throttled(), nil, func(c *Config) { c.DefaultCooldown = time.Second }, coolsFor(10 * time.Second), coolsFor(time.Second)},
		"MaxCooldown":     {throttled("Retry-After: 50"), nil, func(c *Config) { c.MaxCooldown = 20 * time.Second }, coolsFor(50 * time.Second), coolsFor(20 * time.Second)},
		"Session": {nil, four, func(c *Config) {
			c.Session = func(*http.Request) string { return "s" }
		}, nil, func(t testing.TB, tr *Transport) { served(homeOf(tr, "s"))(t, tr) }},
		"Selector":    {nil, four, func(c *Config) { c.Selector = &counter{take: 2} }, served("a"), served("c")},
		"HoldStreams": {cut, []Backend{azure("a"), azure("b", priority(2))}, holdStreams, breaksOff, served("b")},
		"Base": {nil, nil, func(c *Config) {
			c.Base = status(200, "{}", "X-Base: new")
		}, nil, func(t testing.TB, tr *Transport) {
			resp, _ := ask(t, tr)
			require.Equal(t, "new", resp.Header.Get("X-Base"))
		}},
		"CountTokens": {nil, nil, func(c *Config) { c.CountTokens = func([]byte) int { return 1234 } }, nil, func(t testing.TB, tr *Transport) {
			ask(t, tr)
			require.Greater(t, deploymentOf(t, tr, "a").CountSent(0), int64(1234))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				if test.net != nil {
					test.net(n)
				}
				if test.backends == nil {
					test.backends = []Backend{azure("a")}
				}
				tr := steady(balance(t, n, test.backends...))
				if test.before != nil {
					test.before(t, tr)
				}
				reconfigure(t, tr, test.change, test.backends...)
				test.after(t, tr)
			})
		})
	}
}

// The Transport's own base stays one, with its connections, and has none left
// when a caller's takes its place.
func TestReconfigureTheBase(t *testing.T) {
	closed := make(chan struct{}, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	closes := func() {
		select {
		case <-closed:
		case <-time.After(5 * time.Second):
			require.Fail(t, "a connection is left")
		}
	}
	a := azure("a", placed(server.URL), speaks(Azure))
	tr := balance(t, nil, a)
	own := tr.setup.Load().ownTransport
	require.NotNil(t, own)
	ask(t, tr)
	reconfigure(t, tr, func(c *Config) { c.Base = nil }, a, azure("b", priority(2)))
	require.Same(t, own, tr.setup.Load().ownTransport)
	require.Same(t, own, tr.setup.Load().base)
	ask(t, tr)
	require.Empty(t, closed, "the connection is used again")

	n := newNet()
	reconfigure(t, tr, func(c *Config) { c.Base = n }, a)
	closes()
	require.Nil(t, tr.setup.Load().ownTransport)
	ask(t, tr)
	require.Equal(t, 1, n.Sends())

	counted := &testnet.IdleCloser{RoundTripper: n}
	reconfigure(t, tr, func(c *Config) { c.Base = counted }, a)
	reconfigure(t, tr, func(c *Config) { c.Base = nil }, a)
	require.NotNil(t, tr.setup.Load().ownTransport)
	ask(t, tr)
	require.Equal(t, 1, n.Sends())
	require.NoError(t, tr.Close())
	closes()
	require.Zero(t, counted.Calls, "a caller's base is the caller's to close")
}

// A configuration with mistakes changes nothing, and says what New says.
func TestReconfigureMistakes(t *testing.T) {
	const secret = "s3cret"
	n := newNet()
	tr := balance(t, n, azure("a", serves("m")))
	require.NoError(t, tr.Drain("a"))
	was, status := tr.setup.Load(), tr.Status()
	refusing := func(instrument string) metric.MeterProvider {
		l := telemetrytest.New()
		l.Refuses = instrument
		return l.MeterProvider()
	}
	for _, cfg := range []Config{
		{},
		{Backends: []Backend{azure("a", keyed(secret+" ")), azure("a"), azure("b", placed("https://x:"+secret+"@b"))}},
		{Backends: []Backend{azure("a", keyed(secret), entra, keyed(secret))}, MaxWait: -1},
		{Backends: []Backend{azure("a", placed("https://a?key="+secret))}, DefaultCooldown: time.Hour},
		{Backends: []Backend{azure("a", defaults(map[string]any{"x": func() {}}))}},
		{Backends: []Backend{azure("a")}, MeterProvider: refusing("spillover.requests")},
		{Backends: []Backend{azure("b")}, MeterProvider: refusing("callback")},
	} {
		_, want := New(cfg)
		require.Error(t, want)
		err := tr.Reconfigure(cfg)
		require.EqualError(t, err, want.Error())
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), secret)
		require.Same(t, was, tr.setup.Load())
		require.Equal(t, status, tr.Status())
	}
	require.NoError(t, tr.Resume("a"))
	resp, _ := ask(t, tr)
	require.Equal(t, "a", servedBy(resp))
	require.Equal(t, "key-a", n.Seen[0].Header.Get("Api-Key"))
}

// What is configured anew is told without its keys.
func TestReconfigureTellsNoSecret(t *testing.T) {
	const secret = "s3cret"
	l, tr := listened(t, Config{Base: newNet(), Backends: []Backend{azure("a", keyed(secret))}})
	cfg := withListener(l, Config{Base: newNet(), Backends: []Backend{azure("b", keyed(secret)), azure("c", keyed(secret+"2"))}})
	require.NoError(t, tr.Reconfigure(cfg))
	require.NoError(t, tr.Drain("b"))
	told := fmt.Sprint(tr, tr.Status(), l.Log(), tr.Drain("nobody"), tr.Resume("nobody")) + fmt.Sprintf("%v %+v %#v %s %q", tr, tr, tr, tr, tr)
	require.NotContains(t, told, secret)
	require.Contains(t, told, "spillover.Transport(b, c)")
	require.Contains(t, told, "INFO,reconfigured,backends:2,added:[b,c],removed:[a],settings:[base,logger]")
	require.Contains(t, told, "INFO,backend drained,backend:b")
}

func TestReconfigureLogsAnotherFallback(t *testing.T) {
	to := func(models ...string) func(*Config) {
		return func(cfg *Config) { cfg.Fallbacks = []Fallback{{Model: "m", To: models}} }
	}
	l, tr := listened(t, Config{Base: newNet(), Backends: []Backend{azure("a")}})
	for _, step := range []struct {
		change func(*Config)
		want   []string
	}{
		{to("n"), []string{"INFO,reconfigured,backends:1,settings:[fallbacks]"}},
		{to("n"), nil},
		{to("n", "o"), []string{"INFO,reconfigured,backends:1,settings:[fallbacks]"}},
		{func(cfg *Config) { cfg.Fallbacks = nil }, []string{"INFO,reconfigured,backends:1,settings:[fallbacks]"}},
		{func(cfg *Config) { cfg.Fallbacks = []Fallback{} }, nil},
	} {
		reconfigure(t, tr, step.change, azure("a"))
		require.Equal(t, step.want, l.Log())
	}
}

// Each of several calls at once tells what it changed in the configuration before it: what
// one has added, exactly one other removes.
func TestReconfigureAtOnceLogsEachChangeOnce(t *testing.T) {
	const callers, rounds = 8, 25
	n := newNet()
	l, tr := listened(t, Config{Base: n, Backends: []Backend{azure("first")}})
	common := withListener(l, Config{Base: n})
	var calls sync.WaitGroup
	for i := range callers {
		calls.Go(func() {
			for j := range rounds {
				cfg := common
				cfg.Backends = []Backend{azure(fmt.Sprintf("b-%d-%d", i, j))}
				if err := tr.Reconfigure(cfg); err != nil {
					t.Error(err)
				}
			}
		})
	}
	calls.Wait()
	gone := []string{tr.Status().Tiers[0].Backends[0].Name}
	added := []string{"first"}
	changes := l.Log()
	require.Len(t, changes, callers*rounds)
	for _, change := range changes {
		match := regexp.MustCompile(`,added:\[(\S+)\],removed:\[(\S+?)\]`).FindStringSubmatch(change)
		require.NotNil(t, match, change)
		added, gone = append(added, match[1]), append(gone, match[2])
	}
	require.ElementsMatch(t, added, gone)
}

// Nothing is to be had of the configuration that was passed.
func TestReconfigureCopies(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	cfg := Config{Base: n, Backends: []Backend{azure("a", deploys("m", "one"))}}
	require.NoError(t, tr.Reconfigure(cfg))
	cfg.Backends[0].Models[0].Deployment, cfg.Backends[0].APIKey = "two", "changed"
	ask(t, tr)
	require.Equal(t, "/openai/deployments/one/chat/completions", n.Seen[0].Path)
	require.Equal(t, "key-a", n.Seen[0].Header.Get("Api-Key"))
}

func TestReconfigureAfterClose(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	require.NoError(t, tr.Close())
	was := tr.setup.Load()
	require.ErrorIs(t, tr.Reconfigure(Config{Backends: []Backend{azure("b")}}), net.ErrClosed)
	require.Same(t, was, tr.setup.Load())
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, tr.Drain("a"), "that says nothing that would be wrong")
	require.NoError(t, tr.Close())
}

// The metrics have what is configured, once.
func TestReconfigureMetrics(t *testing.T) {
	l, tr := listened(t, Config{Base: newNet(), Backends: []Backend{azure("a", serves("m")), azure("b", serves("m"))}})
	for range 5 {
		require.NoError(t, tr.Reconfigure(withListener(l, Config{Base: newNet(), Backends: []Backend{azure("b", serves("m")), azure("c", serves("m"), priority(2))}})))
	}
	require.NoError(t, tr.Drain("c"))
	require.Len(t, l.Callbacks, 1)
	require.Equal(t, map[string]float64{"backend=b deployment=m model=m tier=1": 1, "backend=c deployment=m model=m tier=2": 0},
		l.Metric("spillover.deployment.available"))
	other := telemetrytest.New()
	require.NoError(t, tr.Reconfigure(withListener(other, Config{Base: newNet(), Backends: []Backend{azure("b")}})))
	require.Empty(t, l.Callbacks)
	require.Len(t, other.Callbacks, 1)
	require.NoError(t, tr.Close())
	require.Empty(t, other.Callbacks)
}

// Which backend has an object outlives configurations, but not the backend.
func TestReconfigureStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /openai/responses?api-version=1 {"model":"m","input":"hi"}`, "application/json", responseText)
		at := func(want string) {
			for _, use := range usesOfResponse {
				resp, _ := send(t, tr, with(t, use))
				require.Equal(t, want, servedBy(resp), use)
			}
		}
		at("b")
		reconfigure(t, tr, nil, azure("c"), azure("b", priority(9), keyed("new"), serves("other")), azure("a"))
		at("b")
		reconfigure(t, tr, nil, azure("a"), azure("b", speaks(AzureV1)))
		at("b")

		// Of one that is gone each is asked: who has it is learnt.
		for range 2 {
			reconfigure(t, tr, nil, azure("a"), azure("c"))
			for _, name := range []string{"a", "b"} {
				n.On(host(name), status(404, `{"error":{"message":"not found"}}`))
			}
			at("c")
			before := n.Sends()
			at("c")
			require.Equal(t, len(usesOfResponse), n.Sends()-before, "who has it is known by now")
			reconfigure(t, tr, nil, azure("a"), azure("b"), azure("c", placed("https://c2.openai.azure.com")))
			at("c")
		}
	})
}

// Models that callers made up have their states for as long as a backend serves
// every model, and are bounded however often that is configured anew.
func TestReconfigureLearntModels(t *testing.T) {
	tr := balance(t, newNet(), azure("every"), azure("a", serves("m"), priority(2)))
	learn := func(model string) *record {
		s := tr.table().find(model).tiers[0].members[0].record
		s.served.Add(1)
		return s
	}
	known := func() int { return len(*tr.table().routes.Load()) }
	first, last := learn("model0"), (*record)(nil)
	for i := range maxRoutes + 10 {
		last = learn(fmt.Sprint("model", i))
	}
	require.Same(t, tr.table().otherModels.tiers[0].members[0].record, last)
	for i := range 5 {
		reconfigure(t, tr, nil, azure(fmt.Sprint("b", i), serves(fmt.Sprint("n", i))), azure("every"))
		require.Equal(t, maxRoutes+1, known())
	}
	require.Same(t, first, learn("model0"))
	require.Same(t, last, learn(fmt.Sprint("model", maxRoutes+9)), "one of the rest")

	// Models that are configured no longer take no place beyond the bound.
	reconfigure(t, tr, nil, azure("every"), azure("a", serves("m", "n", "o")))
	learn("m")
	learn("n")
	reconfigure(t, tr, nil, azure("every"))
	require.Equal(t, maxRoutes, known())

	reconfigure(t, tr, nil, azure("every", serves("n")))
	require.Equal(t, 1, known())
	require.Nil(t, tr.table().otherModels)
	was := learn("n")
	reconfigure(t, tr, nil, azure("every"))
	require.Same(t, was, learn("n"), "it was configured, and is asked for")
	require.NotSame(t, first, learn("model0"), "nobody served it meanwhile")
	require.NotSame(t, last, tr.table().otherModels.tiers[0].members[0].record)
}

// A model may be called so: it has a deployment of its own name all the same.
func TestAModelCalledAsterisk(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a", func(b *Backend) { b.Models = []Model{{Name: "*", Deployment: "star"}} }), azure("b", priority(2)))
	for range 2 {
		send(t, tr, newChat(t, "/openai/deployments/*/chat/completions?api-version=1"))
		require.Equal(t, "/openai/deployments/star/chat/completions", n.Seen[len(n.Seen)-1].Path)
		reconfigure(t, tr, nil, azure("a", func(b *Backend) { b.Models = []Model{{Name: "*", Deployment: "star"}} }), azure("b", priority(2)))
	}
	for d := range tr.table().otherModels.all {
		require.Equal(t, "b", d.backend.name)
	}
}

// What the old key is refused for says nothing of the new one, whenever it was
// sent.
func TestRefusalOfTheOldKey(t *testing.T) {
	newKey := azure("a", keyed("new"))
	for name, refusal := range map[string]roundTripFunc{"401": status(401, wrongKey), "quota": status(429, noQuota)} {
		for when, first := range map[string]string{"sent before": "a", "sent after": "b"} {
			t.Run(name+"/"+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("a"), slow(2*time.Second, refusal))
					n.On(host("b"), slow(2*time.Second, status(500, "{}")), ok200)
					pool := func(a Backend) []Backend {
						b := azure("b")
						if first == "a" {
							b.Priority = 2
						} else {
							a.Priority = 2
						}
						return []Backend{a, b, azure("c", priority(3))}
					}
					tr := balance(t, n, pool(azure("a"))...)
					go ask(t, tr)
					time.Sleep(time.Second)
					reconfigure(t, tr, nil, pool(newKey)...)
					time.Sleep(4 * time.Second)
					require.Equal(t, 1, n.Sends(host("a")))
					require.True(t, statusOf(t, tr, "a").Available, statusOf(t, tr, "a").Reason)
					require.EqualValues(t, 1, statusOf(t, tr, "a").Failed)

					// The new one's counts, and so does the old one's when it is back.
					for _, a := range []Backend{newKey, azure("a")} {
						reconfigure(t, tr, nil, a, azure("b", priority(2)))
						ask(t, tr)
						require.False(t, statusOf(t, tr, "a").Available)
					}
				})
			})
		}
	}
}

// Models that are configured no longer and that nobody asked for are forgotten:
// they would be in Status for ever, and in the place of those that are asked for.
func TestModelsThatGoLeaveNothing(t *testing.T) {
	tr := balance(t, newNet(), azure("every"))
	ask(t, tr)
	for i := range maxRoutes + 10 {
		reconfigure(t, tr, nil, azure("every"), azure("a", serves(fmt.Sprint("model", i))))
	}
	require.Len(t, tr.Status().Tiers[0].Backends[0].Deployments, 2, "m, and the last one")
	require.EqualValues(t, 1, statusOf(t, tr, "every").Served)

	reconfigure(t, tr, nil, azure("every"))
	require.Len(t, tr.Status().Tiers[0].Backends[0].Deployments, 1)
	require.NotSame(t, tr.table().otherModels, tr.table().find("new"))
}

// What was forgotten is told again when it comes again.
func TestRefusalOfTheNewKeyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNet(), telemetrytest.New()
		n.On(host("a"), status(401, wrongKey))
		tr := configured(t, withListener(l, Config{Base: n, Backends: []Backend{azure("a"), azure("b", priority(2))}}))
		for _, key := range []string{"old", "new", "newer"} {
			reconfigure(t, tr, nil, azure("a", keyed(key)), azure("b", priority(2)))
			l.Log()
			ask(t, tr)
			require.Contains(t, strings.Join(l.Log(), "\n"), "deployment out", key)
		}
	})
}
