package spillover

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// reconfigure replaces the backends, and what else change says.
func reconfigure(t testing.TB, tr *Transport, change func(*Config), backends ...Backend) {
	cfg := ConfigOf(tr)
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
				for d := range DeploymentsOf(tr, "m") {
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
						d := DeploymentOf(t, tr, backend)
						testnet.FailAt(&d.State, now, cause, "failed", 0.5)
						testnet.FailAt(&d.State, now, cause, "failed", 0.5)
						d.Refuse(now, health.Refusal{Sent: now, Wait: 90 * time.Second, Reason: "429"}, 0.5)
						testnet.FailAt(&d.backend.State, now, health.Unreachable, "no connection", 0.5)
					}
					reconfigure(t, tr, nil, azure("a", test.change), azure("b"))
					for backend, mended := range map[string]bool{"a": test.mends && cause.NeedsChange(), "b": false} {
						d := DeploymentOf(t, tr, backend)
						require.Equal(t, mended, testnet.Failures(&d.State) == 0, backend)
						asked, _ := d.OnlyLearned(now)
						require.Equal(t, now.Add(90*time.Second), asked, "a cool-down is the service's word")
						require.True(t, d.Troubled())
						_, ejected, _ := d.backend.Ejected(now)
						require.True(t, ejected, "nor does it mend the connection")
						if s := statusOf(t, tr, backend); mended || cause != health.OutOfQuota {
							require.Equal(t, now.Add(90*time.Second), s.Until)
							require.Equal(t, "429", s.Reason)
						}
						require.True(t, testnet.RampsUp(&d.State))
					}
				})
			})
		}
	}
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
			require.Greater(t, DeploymentOf(t, tr, "a").CountSent(0), int64(1234))
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
	require.Same(t, own, BaseOf(tr))
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
