package spillover_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

func deploys(m, deployment string) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: m, Deployment: deployment}} }
}

// What is configured anew is told without its keys.
func TestReconfigureTellsNoSecret(t *testing.T) {
	const secret = "s3cret"
	l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a", keyed(secret))}})
	cfg := withListener(l, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("b", keyed(secret)), azure("c", keyed(secret+"2"))}})
	require.NoError(t, tr.Reconfigure(cfg))
	require.NoError(t, tr.Drain("b"))
	told := fmt.Sprint(tr, tr.Status(), l.Log(), tr.Drain("nobody"), tr.Resume("nobody")) + fmt.Sprintf("%v %+v %#v %s %q", tr, tr, tr, tr, tr)
	require.NotContains(t, told, secret)
	require.Contains(t, told, "spillover.Transport(b, c)")
	require.Contains(t, told, "INFO,reconfigured,backends:2,added:[b,c],removed:[a],settings:[base,logger]")
	require.Contains(t, told, "INFO,backend drained,backend:b")
}

// Each of several calls at once tells what it changed in the configuration before it: what
// one has added, exactly one other removes.
func TestReconfigureAtOnceLogsEachChangeOnce(t *testing.T) {
	const callers, rounds = 8, 25
	n := newNet()
	l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("first")}})
	common := withListener(l, spillover.Config{Base: n})
	var calls sync.WaitGroup
	for i := range callers {
		calls.Go(func() {
			for j := range rounds {
				cfg := common
				cfg.Backends = []spillover.Backend{azure(fmt.Sprintf("b-%d-%d", i, j))}
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
	cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", deploys("m", "one"))}}
	require.NoError(t, tr.Reconfigure(cfg))
	cfg.Backends[0].Models[0].Deployment, cfg.Backends[0].APIKey = "two", "changed"
	ask(t, tr)
	require.Equal(t, "/openai/deployments/one/chat/completions", n.Seen[0].Path)
	require.Equal(t, "key-a", n.Seen[0].Header.Get("Api-Key"))
}

// The metrics have what is configured, once.
func TestReconfigureMetrics(t *testing.T) {
	l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a", serves("m")), azure("b", serves("m"))}})
	for range 5 {
		require.NoError(t, tr.Reconfigure(withListener(l, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("b", serves("m")), azure("c", serves("m"), priority(2))}})))
	}
	require.NoError(t, tr.Drain("c"))
	require.Len(t, l.Callbacks, 1)
	require.Equal(t, map[string]float64{"backend=b deployment=m model=m tier=1": 1, "backend=c deployment=m model=m tier=2": 0},
		l.Metric("spillover.deployment.available"))
	other := telemetrytest.New()
	require.NoError(t, tr.Reconfigure(withListener(other, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("b")}})))
	require.Empty(t, l.Callbacks)
	require.Len(t, other.Callbacks, 1)
	require.NoError(t, tr.Close())
	require.Empty(t, other.Callbacks)
}

// reconfigure replaces the backends, and what else change says.
func reconfigure(t testing.TB, tr *spillover.Transport, change func(*spillover.Config), backends ...spillover.Backend) {
	cfg := spillover.ConfigOf(tr)
	cfg.Backends = backends
	if change != nil {
		change(&cfg)
	}
	require.NoError(t, tr.Reconfigure(cfg))
}

func speaks(d spillover.Dialect) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.Dialect = d }
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
		tokens := int(testnet.ChatTokens(t))
		reconfigure(t, tr, nil, azure("a", limits(0, 7*tokens)), azure("b", priority(2)))
		require.Equal(t, "aabb", served(), "five that were counted")
		time.Sleep(time.Minute)
		require.Equal(t, "aaaa", served())
	})
}

// Second attempts that were spent in a tier are not to be had again by another
// configuration.
func TestReconfigureBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := steady(three(t, n))
		ask(t, tr)
		for range 10 {
			require.True(t, spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost))
		}
		for range 3 {
			reconfigure(t, tr, nil, azure("c"), azure("b"), azure("a"), azure("d", priority(2)))
			require.False(t, spillover.RetryBudgetOf(tr, "m", 0).Spend(health.AttemptCost))
			require.True(t, spillover.RetryBudgetOf(tr, "m", 1).Spend(health.AttemptCost), "every tier has its own")
		}
		require.EqualValues(t, 3*health.AttemptCost, testnet.Spent(spillover.RetryBudgetOf(tr, "m", 1)))
		n.On(host("c"), status(429, "{}", "Retry-After: 9"))
		n.On(host("a"), status(500, "{}"))
		n.On(host("b"), status(500, "{}"))
		resp, _ := ask(t, tr)
		require.Equal(t, "d", servedBy(resp), "the next tier is free")
		require.Equal(t, "4", resp.Header.Get(spillover.HeaderAttempts), "nothing was held against the others")
		resp, _ = ask(t, tr)
		require.Equal(t, "d", servedBy(resp))
		require.Equal(t, "2", resp.Header.Get(spillover.HeaderAttempts), "now there is: no second attempt is left")
	})
}

func TestReconfigureLogsAnotherFallback(t *testing.T) {
	to := func(models ...string) func(*spillover.Config) {
		return func(cfg *spillover.Config) { cfg.Fallbacks = []spillover.Fallback{{Model: "m", To: models}} }
	}
	l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a")}})
	for _, step := range []struct {
		change func(*spillover.Config)
		want   []string
	}{
		{to("n"), []string{"INFO,reconfigured,backends:1,settings:[fallbacks]"}},
		{to("n"), nil},
		{to("n", "o"), []string{"INFO,reconfigured,backends:1,settings:[fallbacks]"}},
		{func(cfg *spillover.Config) { cfg.Fallbacks = nil }, []string{"INFO,reconfigured,backends:1,settings:[fallbacks]"}},
		{func(cfg *spillover.Config) { cfg.Fallbacks = []spillover.Fallback{} }, nil},
	} {
		reconfigure(t, tr, step.change, azure("a"))
		require.Equal(t, step.want, l.Log())
	}
}

// Which backend has an object outlives configurations, but not the backend.
func TestReconfigureStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /openai/responses?api-version=1 {"model":"m","input":"hi"}`, "application/json", testnet.ResponseText)
		at := func(want string) {
			for _, use := range testnet.UsesOfResponse {
				resp, _ := send(t, tr, with(t, use))
				require.Equal(t, want, servedBy(resp), use)
			}
		}
		at("b")
		reconfigure(t, tr, nil, azure("c"), azure("b", priority(9), keyed("new"), serves("other")), azure("a"))
		at("b")
		reconfigure(t, tr, nil, azure("a"), azure("b", speaks(spillover.AzureV1)))
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
			require.Equal(t, len(testnet.UsesOfResponse), n.Sends()-before, "who has it is known by now")
			reconfigure(t, tr, nil, azure("a"), azure("b"), azure("c", placed("https://c2.openai.azure.com")))
			at("c")
		}
	})
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
					pool := func(a spillover.Backend) []spillover.Backend {
						b := azure("b")
						if first == "a" {
							b.Priority = 2
						} else {
							a.Priority = 2
						}
						return []spillover.Backend{a, b, azure("c", priority(3))}
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
					for _, a := range []spillover.Backend{newKey, azure("a")} {
						reconfigure(t, tr, nil, a, azure("b", priority(2)))
						ask(t, tr)
						require.False(t, statusOf(t, tr, "a").Available)
					}
				})
			})
		}
	}
}

// What was forgotten is told again when it comes again.
func TestRefusalOfTheNewKeyIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, l := newNet(), telemetrytest.New()
		n.On(host("a"), status(401, wrongKey))
		tr := configured(t, withListener(l, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))}}))
		for _, key := range []string{"old", "new", "newer"} {
			reconfigure(t, tr, nil, azure("a", keyed(key)), azure("b", priority(2)))
			l.Log()
			ask(t, tr)
			require.Contains(t, strings.Join(l.Log(), "\n"), "deployment out", key)
		}
	})
}
