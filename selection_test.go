package spillover_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// seeded makes the choices of a Transport the same in every run.
func seeded(tr *spillover.Transport) *spillover.Transport {
	var mu sync.Mutex
	source := rand.New(rand.NewPCG(1, 2))
	tr.SetRandom(func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	})
	return tr
}

// heldAgainst is what is held against chat completions of a backend's deployment
// of the model m, whether it is ejected for that or not.
func heldAgainst(t testing.TB, tr *spillover.Transport, backend string) *health.State {
	h := spillover.DeploymentOf(t, tr, backend).Operation(wire.OperationIndex("chat/completions"))
	if h == nil {
		return new(health.State)
	}
	return h
}

func TestLowerTierIsUnusedWhileTheFirstIsOpen(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("first"), azure("second", priority(2), weight(100)))
	for range 1000 {
		ask(t, tr)
	}
	require.Equal(t, 1000, n.Sends(host("first")))
	require.Zero(t, n.Sends(host("second")))
}

func TestSecondTierSharesTheLoadOfAThrottledFirst(t *testing.T) {
	n := newNet()
	n.On(host("first"), status(429, "{}", "Retry-After: 60"))
	tr := seeded(balance(t, n, azure("first"), azure("a", priority(2)), azure("b", priority(2))))
	for range 1000 {
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
	}
	require.Equal(t, 1, n.Sends(host("first")))
	require.InDelta(t, 500, n.Sends(host("a")), 100)
	require.InDelta(t, 500, n.Sends(host("b")), 100)
}

func TestFirstTierIsUsedAgainWhenItsThrottleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(429, "{}", "Retry-After: 5"), status(200, "{}"))
		tr := balance(t, n, azure("first"), azure("second", priority(2)))
		from := func() string { resp, _ := ask(t, tr); return servedBy(resp) }
		require.Equal(t, "second", from())
		time.Sleep(5*time.Second - 1)
		require.Equal(t, "second", from(), "a nanosecond too early")
		time.Sleep(1)
		require.Equal(t, "first", from())
		require.True(t, spillover.DeploymentOf(t, tr, "first").Open(time.Now()), "its success ends the cool-down")
	})
}

// The success of a request that was sent before the throttle began is older
// than the service's word.
func TestOlderSuccessDoesNotLiftAThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), slow(2*time.Second, status(200, "{}")), status(429, "{}", "Retry-After: 10"), status(200, "{}"))
		tr := balance(t, n, azure("first"), azure("second", priority(2)))
		var older sync.WaitGroup
		older.Go(func() {
			resp, _ := ask(t, tr)
			require.Equal(t, "first", servedBy(resp))
		})
		synctest.Wait()
		time.Sleep(time.Second)
		ask(t, tr)
		older.Wait()
		resp, _ := ask(t, tr)
		require.Equal(t, "second", servedBy(resp))
		require.Equal(t, 9*time.Second, time.Until(statusOf(t, tr, "first").Until))
	})
}

func TestLoadIsDistributedEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		names := []string{"oai-eastus", "oai-southcentralus", "oai-westus"}
		var backends []spillover.Backend
		for _, name := range names {
			n.On(host(name), slow(time.Second, status(200, "{}")))
			backends = append(backends, azure(name))
		}
		inTurn(t, seeded(balance(t, n, backends...)), 100, 0)
		for _, name := range names {
			require.InDelta(t, 33, n.Sends(host(name)), 7, name)
		}
	})
}

func TestRequestIsServedWhenAllAreEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a"), azure("b"), azure("c"))
		for i, name := range []string{"a", "b", "c"} {
			d, now := spillover.DeploymentOf(t, tr, name), time.Now()
			testnet.FailAt(&d.State, now, health.Unreachable, "no connection", float64(i)/4)
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode, "our own judgement shuts no pool")
	})
}

// counter is a Selector that counts and takes the one that it is told to.
type counter struct {
	calls [][]spillover.Candidate
	take  int
}

func (c *counter) Select(candidates []spillover.Candidate) int {
	c.calls = append(c.calls, append([]spillover.Candidate(nil), candidates...))
	return c.take
}

func TestSingleDeploymentNeedsNoSelector(t *testing.T) {
	n, s := newNet(), &counter{}
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("only")}, Selector: s})
	for range 10 {
		resp, _ := ask(t, tr)
		require.Equal(t, "only", servedBy(resp))
	}
	require.Equal(t, 10, n.Sends())
	require.Empty(t, s.calls, "there is nothing to select")
}

func TestSelectorChoosesAmongTheOpenDeployments(t *testing.T) {
	n, s := newNet(), &counter{take: 1}
	for _, name := range []string{"a", "b", "c"} {
		n.On(host(name), status(429, "{}"))
	}
	backends := []spillover.Backend{azure("a", weight(2)), azure("b", serves("m")), azure("c"), azure("last", priority(2))}
	backends[1].Models[0].Deployment = "m-b"
	tr := configured(t, spillover.Config{Base: n, Backends: backends, Selector: s})
	resp, _ := ask(t, tr)
	require.Equal(t, "last", servedBy(resp))
	require.Equal(t, [][]spillover.Candidate{
		{
			{Backend: "a", Model: "m", Deployment: "m", Priority: 1, Weight: 2},
			{Backend: "b", Model: "m", Deployment: "m-b", Priority: 1, Weight: 1},
			{Backend: "c", Model: "m", Deployment: "m", Priority: 1, Weight: 1},
		},
		{
			{Backend: "a", Model: "m", Deployment: "m", Priority: 1, Weight: 2},
			{Backend: "c", Model: "m", Deployment: "m", Priority: 1, Weight: 1},
		},
	}, s.calls, "asked while there are two or more of one tier, and of none tried")
	require.Equal(t, []string{host("b"), host("c"), host("a"), host("last")}, n.Order())
}

func TestSelectorOutOfRangeIsIgnored(t *testing.T) {
	for _, index := range []int{-1, 2, math.MaxInt} {
		n := newNet()
		s := &counter{take: index}
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a"), azure("b")}, Selector: s})
		for range 100 {
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode)
		}
		require.Len(t, s.calls, 100)
		require.NotZero(t, n.Sends(host("a")), "the transport chooses for it")
		require.NotZero(t, n.Sends(host("b")))
	}
}

func TestSelectorSeesRequestsInFlight(t *testing.T) {
	s := &counter{}
	tr := configured(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a"), azure("b")}, Selector: s})
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	ask(t, tr)
	require.Equal(t, []int{1, 0}, []int{s.calls[1][0].InFlight, s.calls[1][1].InFlight})
	resp.Body.Close()
}

func TestLessLoadedDeploymentIsChosen(t *testing.T) {
	tr := balance(t, newNet(), azure("a"), azure("b"))
	spillover.DeploymentOf(t, tr, "a").InFlight.Store(9)
	spillover.DeploymentOf(t, tr, "b").InFlight.Store(1)
	for range 1000 {
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
	}
}

func TestLoadFollowsTheWeights(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ a, b, percent int }{{80, 20, 80}, {50, 50, 50}, {1, 0, 50}, {1, 99, 1}} {
		n := newNet()
		tr := seeded(balance(t, n, azure("a", weight(test.a)), azure("b", weight(test.b))))
		const requests = 3000
		for range requests {
			ask(t, tr)
		}
		require.InDelta(t, requests*test.percent/100, n.Sends(host("a")), 0.03*requests, "%d:%d", test.a, test.b)
	}
}

func TestSlowDeploymentGetsLessLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, name := range []string{"a", "b"} {
			n.On(host(name), slow(10500*time.Microsecond, status(200, "{}")))
		}
		n.On(host("slow"), slow(110500*time.Microsecond, status(200, "{}")))
		inTurn(t, seeded(balance(t, n, azure("a"), azure("slow"), azure("b"))), 100, time.Millisecond)
		require.Less(t, n.Sends(host("slow")), 30)
		require.Greater(t, n.Sends(host("a")), 30)
		require.Greater(t, n.Sends(host("b")), 30)
	})
}

func TestThrottleClosesOneModelOfABackend(t *testing.T) {
	twice := []spillover.Backend{azure("x", serves("m")), azure("y", serves("other"))}
	twice[1].URL, twice[1].APIKey = twice[0].URL, twice[0].APIKey
	for name, backends := range map[string][]spillover.Backend{
		"one backend":             {azure("x", serves("m", "other"))},
		"the host is there twice": twice,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.On(host("x"), roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if strings.Contains(req.URL.Path, "/deployments/m/") {
					return status(429, "{}")(req)
				}
				return status(200, "{}")(req)
			}))
			tr := balance(t, n, backends...)
			for range 3 {
				resp, _ := ask(t, tr)
				require.Equal(t, 429, resp.StatusCode)
				resp, _ = send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/other/", 1)))
				require.Equal(t, 200, resp.StatusCode)
			}
			require.Equal(t, 1+3, n.Sends())
		})
	}
}

func TestOnlyBackendsThatServeTheModelAreAsked(t *testing.T) {
	n := newNet()
	var backends []spillover.Backend
	for i := 1; i <= 5; i++ {
		name, model := fmt.Sprint("b", i), "m"
		if i == 4 {
			model = "other"
		}
		n.On(host(name), status(429, "{}"))
		backends = append(backends, azure(name, serves(model)))
	}
	tr := balance(t, n, backends...)
	resp, _ := ask(t, tr)
	require.Equal(t, 429, resp.StatusCode)
	require.ElementsMatch(t, []string{host("b1"), host("b2"), host("b3"), host("b5")}, n.Order())

	resp, text := send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/unheard/", 1)))
	require.Equal(t, 404, resp.StatusCode)
	require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
	require.JSONEq(t, `{"error":{"message":"No backend serves the model unheard. Available: m, other.",
		"type":"invalid_request_error","param":"model","code":"model_not_found"}}`, text)
	require.Equal(t, 4, n.Sends(), "nothing is sent")
}

func TestAzureFailsOverToOpenAI(t *testing.T) {
	n := newNet()
	openAI := spillover.Backend{Name: "openai", URL: "https://api.openai.com/v1", APIKey: "key-openai"}
	tr := balance(t, n, azure("azure"), openAI)
	for range 200 {
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
	}
	require.NotZero(t, n.Sends(host("azure")))
	require.NotZero(t, n.Sends("api.openai.com"))

	n = newNet()
	n.On(host("azure"), status(503, "{}"))
	openAI.Priority = 2
	tr = balance(t, n, azure("azure"), openAI)
	for range 20 {
		resp, _ := ask(t, tr)
		require.Equal(t, "openai", servedBy(resp))
	}
	for _, s := range n.Seen {
		if s.Host == "api.openai.com" {
			require.Equal(t, "/v1/chat/completions", s.Path)
			require.Empty(t, s.Query)
			require.Equal(t, []string{"Bearer key-openai"}, s.Header["Authorization"])
			require.NotContains(t, s.Header, "Api-Key")
		}
	}
}

func TestBackendsAreAskedInOrderOfPriority(t *testing.T) {
	n := newNet()
	for _, name := range []string{"three", "one", "two"} {
		n.On(host(name), status(500, "{}"))
	}
	ask(t, balance(t, n, azure("three", priority(3)), azure("one"), azure("two", priority(2))))
	require.Equal(t, []string{host("one"), host("two"), host("three")}, n.Order())

	n = newNet()
	tr := seeded(balance(t, n, azure("last", priority(9)), azure("a", priority(4)), azure("b", priority(4))))
	for range 1000 {
		ask(t, tr)
	}
	require.Zero(t, n.Sends(host("last")))
	require.InDelta(t, 500, n.Sends(host("a")), 100)
	require.InDelta(t, 500, n.Sends(host("b")), 100)
}

func TestRandomDrawsDoNotGrowWithDeployments(t *testing.T) {
	var draws [2]int
	for i, size := range []int{10, 1000} {
		var backends []spillover.Backend
		for b := range size {
			backends = append(backends, azure(fmt.Sprint("b", b)))
		}
		tr := balance(t, testnet.Nop{}, backends...)
		tr.SetRandom(func() uint64 { draws[i]++; return rand.Uint64() })
		for range 100 {
			ask(t, tr)
		}
	}
	require.Less(t, draws[1], 2*draws[0])
	require.LessOrEqual(t, draws[1], 100*4, "one for its luck, two draws, and now and then another")
}
