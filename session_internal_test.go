package spillover

import (
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

// sessionOf is a request of a session to the model m.
func sessionOf(t testing.TB, id string) *http.Request {
	return newChat(t, chatPath).WithContext(WithSession(t.Context(), id))
}

// homeOf is the backend that has a session of the model m when nothing speaks
// against it.
func homeOf(tr *Transport, id string) string {
	return mostPull(tr.table().find("m").tiers[0].members, newAffinity(id, "m")).backend.name
}

func mostPull(all []*deployment, l affinity) (most *deployment) {
	for _, d := range all {
		if most == nil || l.score(d.backend) > l.score(most.backend) {
			most = d
		}
	}
	return most
}

// three is a pool of a, b and c.
func three(t testing.TB, n http.RoundTripper) *Transport {
	return balance(t, n, azure("a"), azure("b"), azure("c"))
}

// The values are fixed: replicas of different versions must agree.
func TestStableHash(t *testing.T) {
	for s, want := range map[string]uint64{"": 0xcbf29ce484222325, "a": 0xaf63dc4c8601ec8c, "foobar": 0x85944171f73967e8} {
		require.Equal(t, want, stableHash(s), "the published values of FNV-1a")
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		h := fnv.New64a()
		h.Write([]byte(s))
		require.Equal(t, h.Sum64(), stableHash(s))
	})
}

func TestStablePull(t *testing.T) {
	for _, test := range []struct {
		id, model, backend string
		weight             int
		pull               float64
	}{
		{"alice", "gpt-4o", "eastus", 1, 0.3332967671145734},
		{"alice", "gpt-4o", "westus", 1, 1.0597129692824516},
		{"alice", "gpt-4o", "westus", 7, 7.4179907849771611},
		{"bob", "gpt-4o-mini", "eastus", 1, 9.958423626373925},
		{"Ünïcode", "", "eastus", 1, 6.0784512206340571},
	} {
		b := newBackend(Backend{Name: test.backend, Weight: test.weight})
		require.InEpsilon(t, test.pull, newAffinity(test.id, test.model).score(b), 1e-12, "%q", test)
	}
	require.Zero(t, newAffinity("", "m"))
	require.NotEqual(t, newAffinity("a", "bc"), newAffinity("ab", "c"))
}

func TestStableChoice(t *testing.T) {
	tr := balance(t, newNet(), azure("eastus"), azure("southcentralus"), azure("westus"))
	got := map[string]string{}
	for _, id := range []string{"1", "2", "3", "4", "5", "alice", "bob", "carol"} {
		resp, _ := send(t, tr, sessionOf(t, id))
		require.Equal(t, homeOf(tr, id), servedBy(resp))
		got[id] = servedBy(resp)
	}
	require.Equal(t, map[string]string{
		"1": "southcentralus", "2": "southcentralus", "3": "westus", "4": "eastus", "5": "westus",
		"alice": "southcentralus", "bob": "southcentralus", "carol": "westus",
	}, got)
}

func TestSessionOfWhat(t *testing.T) {
	const withKey = `POST /openai/deployments/m/chat/completions?api-version=1 {"prompt_cache_key":"key","messages":[]}`
	const without = `POST /openai/deployments/m/chat/completions?api-version=1 {"messages":[]}`
	const responses = `POST /openai/v1/responses {"model":"m","prompt_cache_key":"key","input":"hi"}`
	header := func(r *http.Request) string { return r.Header.Get("X-User") }
	for name, test := range map[string]struct {
		line    string
		context []string
		config  func(*http.Request) string
		header  string
		want    string
	}{
		"none":                            {line: without},
		"the body's key":                  {line: withKey, want: "key"},
		"in any dialect":                  {line: responses, want: "key"},
		"a key that is no string":         {line: strings.Replace(withKey, `"key"`, `{"a":1}`, 1)},
		"Session before the body":         {line: withKey, config: header, header: "user", want: "user"},
		"Session says that there is none": {line: withKey, config: header},
		"WithSession before Session":      {line: withKey, context: []string{"ctx"}, config: header, header: "user", want: "ctx"},
		"WithSession before the body":     {line: withKey, context: []string{"ctx"}, want: "ctx"},
		"the innermost":                   {line: withKey, context: []string{"ctx", "inner"}, want: "inner"},
		"an empty one is none":            {line: withKey, context: []string{""}, want: "key"},
		"taken back":                      {line: withKey, context: []string{"ctx", ""}, want: "key"},
	} {
		t.Run(name, func(t *testing.T) {
			req := with(t, test.line, "X-User: "+test.header)
			for _, id := range test.context {
				req = req.WithContext(WithSession(req.Context(), id))
			}
			c := &call{request: request{Request: req, body: replay.New(req.Body)}, options: contextOptions(req.Context()),
				activeConfig: &activeConfig{cfg: Config{Session: test.config}}}
			require.NoError(t, c.read())
			require.Equal(t, test.want, c.session())
		})
	}
}

// The same through the transport, by where the requests go.
func TestSessionGoesHome(t *testing.T) {
	tr := configured(t, Config{Base: newNet(), Backends: []Backend{azure("a"), azure("b"), azure("c")},
		Session: func(r *http.Request) string { return r.Header.Get("X-User") }})
	for i := range 50 {
		user, ctx := fmt.Sprint("user ", i), fmt.Sprint("context ", i)
		req := newChat(t, chatPath)
		req.Header.Set("X-User", user)
		resp, _ := send(t, tr, req)
		require.Equal(t, homeOf(tr, user), servedBy(resp))
		resp, _ = send(t, tr, req.WithContext(WithSession(t.Context(), ctx)))
		require.Equal(t, homeOf(tr, ctx), servedBy(resp))
		resp, _ = send(t, three(t, newNet()), with(t, `POST /openai/deployments/m/chat/completions?api-version=1 {"prompt_cache_key":"`+user+`"}`))
		require.Equal(t, homeOf(tr, user), servedBy(resp))
	}
}

func TestSessionStaysWithItsHomeBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := three(t, newNet())
		by := func() string { resp, _ := send(t, tr, sessionOf(t, "x")); return servedBy(resp) }
		home := by()
		require.Equal(t, home, by())
		coolFor(DeploymentOf(t, tr, home), time.Minute)
		second := by()
		require.NotEqual(t, home, second)
		for range 20 {
			require.Equal(t, second, by(), "one other, not any")
		}
		time.Sleep(time.Minute)
		require.Equal(t, home, by(), "and home again: that is where its cache is")
	})
}

// The backend of a session lacks a model.
func TestSessionHomeWithoutTheModelIsReplaced(t *testing.T) {
	tr := balance(t, newNet(), azure("a", serves("m", "n")), azure("b", serves("m")), azure("c", serves("m", "n")))
	other := strings.Replace(chatPath, "/m/", "/n/", 1)
	for i := range 100 {
		ctx := WithSession(t.Context(), fmt.Sprint(i))
		first, _ := send(t, tr, newChat(t, other).WithContext(ctx))
		require.NotEqual(t, "b", servedBy(first))
		resp, _ := send(t, tr, newChat(t, other).WithContext(ctx))
		require.Equal(t, servedBy(first), servedBy(resp))
		resp, _ = send(t, tr, sessionOf(t, fmt.Sprint(i)))
		require.Equal(t, homeOf(tr, fmt.Sprint(i)), servedBy(resp))
	}
}

func TestSessionsAreDistributedEvenly(t *testing.T) {
	n := newNet()
	tr := three(t, n)
	used := map[string]map[string]bool{}
	for range 20 {
		for _, key := range []string{"1", "2", "3", "4", "5"} {
			resp, _ := send(t, tr, sessionOf(t, key))
			if used[key] == nil {
				used[key] = map[string]bool{}
			}
			used[key][servedBy(resp)] = true
		}
	}
	for key, backends := range used {
		require.Len(t, backends, 1, key)
	}
	require.Equal(t, 100, n.Sends())

	got := map[string]int{}
	for i := range 3000 {
		got[homeOf(tr, fmt.Sprint("user-", i))]++
	}
	for _, name := range []string{"a", "b", "c"} {
		require.InDelta(t, 1000, got[name], 150)
	}
}

// When one alone is left all sessions are there, and go home afterwards.
func TestSessionsReturnHomeAfterThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := three(t, newNet())
		coolFor(DeploymentOf(t, tr, "a"), time.Minute)
		coolFor(DeploymentOf(t, tr, "b"), time.Minute)
		for i := range 20 {
			resp, _ := send(t, tr, sessionOf(t, fmt.Sprint(i)))
			require.Equal(t, "c", servedBy(resp))
		}
		time.Sleep(time.Minute)
		for i := range 20 {
			resp, _ := send(t, tr, sessionOf(t, fmt.Sprint(i)))
			require.Equal(t, homeOf(tr, fmt.Sprint(i)), servedBy(resp))
		}
	})
}

// Nothing is kept of a session, so nothing needs a bound.
func TestSessionsNeedNoMemory(t *testing.T) {
	tr := three(t, newNet())
	r, i := tr.table().find("m"), 0
	q := &selection{now: time.Now(), random: tr.random}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		i++
		q.affinity = affinity(i)
		r.choose(q)
	}))
}

func TestSessionHomesOfModelsAreIndependent(t *testing.T) {
	tr := three(t, newNet())
	same := 0
	for i := range 300 {
		resp, _ := send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/n/", 1)).WithContext(WithSession(t.Context(), fmt.Sprint(i))))
		if servedBy(resp) == homeOf(tr, fmt.Sprint(i)) {
			same++
		}
	}
	require.InDelta(t, 100, same, 40, "as often as by chance")
}

func TestSessionFunctionSelectsTheHomeBackend(t *testing.T) {
	n := newNet()
	tr := configured(t, Config{Base: n, Backends: []Backend{azure("a"), azure("b"), azure("c")},
		Session: func(r *http.Request) string { return r.Header.Get("X-Session-Id") }})
	for range 100 {
		req := newChat(t, chatPath)
		req.Header.Set("X-Session-Id", "one")
		send(t, tr, req)
	}
	require.Equal(t, 100, n.Sends(host(homeOf(tr, "one"))))
}

// Affinity does not defeat throttling, whoever finds out.
func TestThrottledSessionHomeIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := three(t, n)
		home := homeOf(tr, "x")
		n.On(host(home), status(429, "{}", "Retry-After: 5"), status(200, "{}"))
		resp, _ := send(t, tr, sessionOf(t, "x"))
		require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
		for range 20 {
			resp, _ := send(t, tr, sessionOf(t, "x"))
			require.NotEqual(t, home, servedBy(resp))
		}
		require.Equal(t, 1, n.Sends(host(home)))
		time.Sleep(5 * time.Second)
		resp, _ = send(t, tr, sessionOf(t, "x"))
		require.Equal(t, home, servedBy(resp))
	})
}

// Nor does it keep a session where there is no room for it.
func TestSessionHomeWithoutHeadroomIsPassedOver(t *testing.T) {
	tr := three(t, newNet())
	home := homeOf(tr, "x")
	DeploymentOf(t, tr, home).measure(time.Now(), time.Now(), DeploymentOf(t, tr, home).CountSent(0), headerOf(testnet.LimitHeaders(1000, 0)...))
	for range 20 {
		resp, _ := send(t, tr, sessionOf(t, "x"))
		require.NotEqual(t, home, servedBy(resp))
	}
}

// All of one session: its home gets no more than its bound.
func TestSessionBound(t *testing.T) {
	for name, weights := range map[string][]int{"equal": {1, 1, 1, 1}, "by weight": {1, 3, 1, 2}} {
		t.Run(name, func(t *testing.T) {
			var backends []Backend
			sum := 0
			for i, w := range weights {
				backends = append(backends, azure(fmt.Sprint("b", i), weight(w)))
				sum += w
			}
			tr := balance(t, newNet(), backends...)
			tier := tr.table().find("m").tiers[0]
			var open []io.Closer
			for n := 1; n <= 80; n++ {
				resp, err := tr.RoundTrip(sessionOf(t, "x"))
				require.NoError(t, err)
				open = append(open, resp.Body)
				for _, d := range tier.members {
					share := float64(n) * float64(d.backend.weight) / float64(sum)
					require.LessOrEqual(t, float64(d.InFlight.Load()), math.Ceil(sessionBound*share), "%s of %d", d.backend.name, n)
				}
			}
			home := mostPull(tier.members, newAffinity("x", "m"))
			share := float64(80*home.backend.weight) / float64(sum)
			require.Greater(t, float64(home.InFlight.Load()), share, "as much as it may have")
			require.Less(t, float64(home.InFlight.Load()), 2*share, "the others are elsewhere")
			for _, c := range open {
				c.Close()
			}
			resp, _ := send(t, tr, sessionOf(t, "x"))
			require.Equal(t, home.backend.name, servedBy(resp))
		})
	}
}

// A session is elsewhere only while its home is not available, was tried, lacks
// room or is over its bound.
func TestSessionMovesForAReasonProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now().Add(time.Hour)
		r, members, tried := drawRoute(t, now, true)
		r = r.free()
		want := candidates(members)
		source := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range 30 {
			q := &selection{now: now, tried: tried, affinity: affinity(source.Uint64() | 1), random: source.Uint64}
			_, d := r.choose(q)
			if want == nil {
				require.Nil(t, d)
				continue
			}
			require.Same(t, d, r.chosen(q), "nothing of it is chance")
			var busy, weights float64
			for _, m := range want {
				busy, weights = busy+float64(m.InFlight.Load()), weights+float64(m.backend.weight)
			}
			var free []*deployment
			for _, m := range want {
				if float64(m.InFlight.Load()) < math.Ceil(sessionBound*(busy+1)*float64(m.backend.weight)/weights) {
					free = append(free, m)
				}
			}
			require.NotEmpty(t, free, "they cannot all be over the mean")
			require.Equal(t, mostPull(free, q.affinity).backend.name, d.backend.name)
		}
	})
}

// A backend that goes moves no session but its own; one that comes takes its
// part of each, and nothing else moves.
func TestRendezvousProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*deployment
		var sum int
		for i := range rapid.IntRange(2, 8).Draw(t, "backends") {
			w := rapid.IntRange(1, 9).Draw(t, "weight")
			name := fmt.Sprintf("%s-%d", rapid.StringN(0, 5, -1).Draw(t, "name"), i)
			all = append(all, &deployment{record: new(record), backend: newBackend(Backend{Name: name, Weight: w})})
			sum += w
		}
		last := all[len(all)-1]
		const sessions = 400
		moved := 0.
		for i := range sessions {
			l := newAffinity(fmt.Sprint(i), "m")
			with, without := mostPull(all, l), mostPull(all[:len(all)-1], l)
			if with == last {
				moved++
			} else {
				require.Same(t, without, with)
			}
		}
		share := float64(last.backend.weight) / float64(sum)
		require.InDelta(t, sessions*share, moved, 8*math.Sqrt(sessions*share*(1-share)))
	})
}

// Sessions by the hundred, all at once: each is answered, at home or not.
func TestSessionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), slow(time.Second, status(200, "{}")))
		}
		tr := three(t, n)
		var all sync.WaitGroup
		home := 0
		for i := range 300 {
			all.Go(func() {
				resp, err := tr.RoundTrip(sessionOf(t, fmt.Sprint(i)))
				require.NoError(t, err)
				resp.Body.Close()
			})
			synctest.Wait()
			if n.Order()[i] == host(homeOf(tr, fmt.Sprint(i))) {
				home++
			}
		}
		all.Wait()
		require.Greater(t, home, 285, "the bound keeps nearly all at home")
	})
}
