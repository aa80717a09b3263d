package spillover_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
)

// hosts are the hosts of backends.
func hosts(names ...string) (all []string) {
	for _, name := range names {
		all = append(all, host(name))
	}
	return all
}

// sentFor sends a request and returns the hosts that it was sent to, in order.
func sentFor(t testing.TB, tr *spillover.Transport, n *fakeNet, req *http.Request) []string {
	before := len(n.Order())
	resp, err := tr.RoundTrip(req)
	require.NoError(t, err)
	read(t, resp)
	return n.Order()[before:]
}

// Each request meets one failure of the PTU, and all stay on it: the pay-as-you-go tier
// is not needed.
func TestFirstServerErrorStaysOnThePTU(t *testing.T) {
	for name, fault := range map[string]roundTripFunc{
		"500": status(500, "{}"), "502": status(502, "{}"), "503": status(503, "{}"), "529": status(529, "{}"),
		"reset": broken(errReset), "EOF": broken(io.EOF),
		"a stream that breaks off": testnet.Plays(t, testnet.RoleChunk, io.ErrUnexpectedEOF),
		"a stream with an error":   testnet.Plays(t, testnet.RoleChunk, testnet.ChatError(`{"type":"server_error"}`)),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
			for range 30 { // three times what the retry budget holds
				n.On(host("ptu"), fault, ok200)
				resp, text := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, `{"ok":true}`, text)
				require.Equal(t, "ptu", servedBy(resp))
				require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
			}
			require.Zero(t, n.Sends(host("payg")))
			require.True(t, statusOf(t, tr, "ptu").Available)
			require.EqualValues(t, 30, statusOf(t, tr, "ptu").Failed)
		})
	}
}

// Which failures are followed by a second attempt in the same tier, and in which pools.
func TestSecondAttemptInTheSameTier(t *testing.T) {
	headerTimeout := func(b *spillover.Backend) { b.HeaderTimeout = time.Second }
	oneRequest := func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", RPM: 1}} }
	late := withBody(500, func(req *http.Request) io.ReadCloser { return stalledBody{req.Context(), new(atomic.Int64)} })
	line := func(line string) func(testing.TB) *http.Request {
		return func(t testing.TB) *http.Request { return with(t, line) }
	}
	unrepeatable := func(t testing.TB) *http.Request {
		req := newChat(t, chatPath)
		req.GetBody, req.ContentLength = nil, replay.MaxBuffered+1
		req.Body = io.NopCloser(io.LimitReader(testnet.Endless{Bytes: new(atomic.Int64)}, req.ContentLength))
		return req
	}
	attempts := func(n int) func(*spillover.Config) {
		return func(cfg *spillover.Config) { cfg.MaxAttempts = n }
	}
	toModel := func(cfg *spillover.Config) {
		cfg.Fallbacks = []spillover.Fallback{{Model: "m", To: []string{"n"}}}
	}
	first := status(500, "{}")
	again, failover, once := []string{"a", "a"}, []string{"a", "b"}, []string{"a"}
	twoTiers := []spillover.Backend{azure("a"), azure("b", priority(2))}
	threeTiers := []spillover.Backend{azure("a"), azure("b", priority(2)), azure("c", priority(3))}
	for name, test := range map[string]struct {
		answers  []roundTripFunc // of a; the others answer 200
		sent     []string        // the backends that the request is sent to
		backends []spillover.Backend
		config   func(*spillover.Config)
		request  func(testing.TB) *http.Request
	}{
		"a 5xx":                          {[]roundTripFunc{first, ok200}, again, twoTiers, nil, nil},
		"a reset":                        {[]roundTripFunc{broken(errReset), ok200}, again, twoTiers, nil, nil},
		"two 5xx":                        {[]roundTripFunc{first, first, ok200}, []string{"a", "a", "b"}, twoTiers, nil, nil},
		"a 5xx and a reset":              {[]roundTripFunc{first, broken(errReset), ok200}, []string{"a", "a", "b"}, twoTiers, nil, nil},
		"a 5xx and a 429":                {[]roundTripFunc{first, status(429, "{}", "Retry-After: 9"), ok200}, []string{"a", "a", "b"}, twoTiers, nil, nil},
		"a 5xx and a 401":                {[]roundTripFunc{first, status(401, wrongKey), ok200}, []string{"a", "a", "b"}, twoTiers, nil, nil},
		"a 5xx and a 400":                {[]roundTripFunc{first, status(400, "{}"), ok200}, again, twoTiers, nil, nil},
		"a 429":                          {[]roundTripFunc{status(429, "{}", "Retry-After: 1"), ok200}, failover, twoTiers, nil, nil},
		"a 5xx with Retry-After":         {[]roundTripFunc{status(503, "{}", "Retry-After: 1"), ok200}, failover, twoTiers, nil, nil},
		"a 504":                          {[]roundTripFunc{status(504, "{}"), ok200}, failover, twoTiers, nil, nil},
		"a 500 that arrives late":        {[]roundTripFunc{late, ok200}, failover, twoTiers, nil, nil},
		"a 408":                          {[]roundTripFunc{status(408, "{}"), ok200}, failover, twoTiers, nil, nil},
		"a 401":                          {[]roundTripFunc{status(401, wrongKey), ok200}, failover, twoTiers, nil, nil},
		"a 404":                          {[]roundTripFunc{status(404, noDeployment), ok200}, failover, twoTiers, nil, nil},
		"a firewall's 403":               {[]roundTripFunc{status(403, "<html>"), ok200}, failover, twoTiers, nil, nil},
		"out of quota":                   {[]roundTripFunc{status(429, noQuota), ok200}, failover, twoTiers, nil, nil},
		"connection refused":             {[]roundTripFunc{broken(errRefused), ok200}, failover, twoTiers, nil, nil},
		"unknown host":                   {[]roundTripFunc{broken(errDNS), ok200}, failover, twoTiers, nil, nil},
		"HeaderTimeout":                  {[]roundTripFunc{hung, ok200}, failover, []spillover.Backend{azure("a", headerTimeout), azure("b", priority(2))}, nil, nil},
		"a timeout of Base":              {[]roundTripFunc{broken(context.DeadlineExceeded), ok200}, failover, twoTiers, nil, nil},
		"a connection that times out":    {[]roundTripFunc{broken(fmt.Errorf("read: %w", syscall.ETIMEDOUT)), ok200}, failover, twoTiers, nil, nil},
		"a request that creates":         {[]roundTripFunc{first, ok200}, once, twoTiers, nil, line(`POST /openai/v1/batches {"model":"m"}`)},
		"a body that cannot be repeated": {[]roundTripFunc{first, ok200}, once, twoTiers, nil, unrepeatable},
		"a search for a stored object":   {[]roundTripFunc{first, ok200}, failover, twoTiers, nil, line(`GET /openai/v1/responses/resp_unknown`)},
		"HoldStreams":                    {[]roundTripFunc{testnet.Content("text/event-stream", testnet.TokenChunk("lost")+testnet.ChatError(serverError)), testnet.Content("text/event-stream", testnet.WholeChat)}, again, twoTiers, func(cfg *spillover.Config) { cfg.HoldStreams = true }, nil},
		"a session":                      {[]roundTripFunc{first, ok200}, again, twoTiers, func(cfg *spillover.Config) { cfg.Session = func(*http.Request) string { return "s" } }, nil},
		"no lower tier":                  {[]roundTripFunc{first, ok200}, once, []spillover.Backend{azure("a")}, nil, nil},
		"another one in the tier":        {[]roundTripFunc{first, ok200}, []string{"a", "x"}, []spillover.Backend{azure("a"), azure("x"), azure("b", priority(2))}, nil, nil},
		"a limit that is used up":        {[]roundTripFunc{first, ok200}, failover, []spillover.Backend{azure("a", oneRequest), azure("b", priority(2))}, nil, nil},
		"another model is next":          {[]roundTripFunc{first, ok200}, again, []spillover.Backend{azure("a", serves("m")), azure("b", serves("n"))}, toModel, nil},
		"two attempts":                   {[]roundTripFunc{first, ok200}, failover, twoTiers, attempts(2), nil},
		"one attempt":                    {[]roundTripFunc{first, ok200}, once, twoTiers, attempts(1), nil},
		"three tiers, three attempts":    {[]roundTripFunc{first, ok200}, failover, threeTiers, nil, nil},
		"three tiers, four attempts":     {[]roundTripFunc{first, ok200}, again, threeTiers, attempts(4), nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answers...)
				cfg := spillover.Config{Base: n, Backends: test.backends}
				if test.config != nil {
					test.config(&cfg)
				}
				tr := configured(t, cfg)
				request := test.request
				if request == nil {
					request = func(t testing.TB) *http.Request { return newChat(t, chatPath) }
				}
				sent := sentFor(t, tr, n, request(t))
				for sent[0] == host("x") { // the other one of the tier was drawn first
					sent = sentFor(t, tr, n, request(t))
				}
				require.Equal(t, hosts(test.sent...), sent)
				require.Zero(t, streamsInFlight(tr))
			})
		})
	}
}

// The second attempt is for the first failure of a request, and for a deployment
// that nothing is held against. What it finds there counts once.
func TestSecondAttemptOnlyWhileNothingIsHeldAgainstTheDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(500, "{}"))
		tr := firstAndSecond(t, n)
		require.Equal(t, hosts("a", "a", "b"), sentFor(t, tr, n, newChat(t, chatPath)))
		require.True(t, statusOf(t, tr, "a").Available, "one request may be the cause of both failures")
		require.Equal(t, hosts("a", "b"), sentFor(t, tr, n, newChat(t, chatPath)))
		require.False(t, statusOf(t, tr, "a").Available, "two requests have failed")
		time.Sleep(probeWait)
		require.Equal(t, hosts("a", "b"), sentFor(t, tr, n, newChat(t, chatPath)), "a half-open probe")

		n.On(host("a"), ok200)
		time.Sleep(probeWait)
		require.Equal(t, hosts("a"), sentFor(t, tr, n, newChat(t, chatPath)))
		n.On(host("a"), status(500, "{}"))
		require.Equal(t, hosts("a", "a", "b"), sentFor(t, tr, n, newChat(t, chatPath)), "the success has cleared it")
	})
}

// While it is open whether another request's failure counts, there is no second attempt.
func TestNoSecondAttemptWhereAnotherRequestHasJustFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(500, "{}"))
		n.On(host("b"), slow(10*time.Second, ok200))
		tr := firstAndSecond(t, n)
		answer := background(t, tr, newChat(t, chatPath))
		require.Equal(t, hosts("a", "a", "b"), n.Order())
		require.Equal(t, hosts("a", "b"), sentFor(t, tr, n, newChat(t, chatPath)))
		answer()
	})
}

// A request that no deployment survives ejects none, however often it comes. The retry
// budget limits how often it is sent once more.
func TestPoisonedRequestIsSentOnceMoreAndEjectsNobody(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	for _, name := range []string{"a", "b"} {
		n.On(host(name), roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("X-Poison") != "" {
				return status(500, "{}")(req)
			}
			return ok200(req)
		}))
	}
	more := 0
	for range 20 {
		req := newChat(t, chatPath)
		req.Header.Set("X-Poison", "yes")
		if sent := sentFor(t, tr, n, req); len(sent) == 3 {
			require.Equal(t, hosts("a", "a", "b"), sent)
			more++
		} else {
			require.Equal(t, hosts("a", "b"), sent)
		}
		require.True(t, statusOf(t, tr, "a").Available)
		require.True(t, statusOf(t, tr, "b").Available)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	}
	require.Equal(t, 10+19/5, more, "ten of a full budget, and one for every five successes")
}

// A wait that the second attempt is told is obeyed.
func TestRetryAfterOfTheSecondAttemptIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(500, "{}"), status(503, "{}", "Retry-After: 20"))
		tr := firstAndSecond(t, n)
		require.Equal(t, hosts("a", "a", "b"), sentFor(t, tr, n, newChat(t, chatPath)))
		require.Equal(t, 20*time.Second, left(t, tr, "a"))
	})
}

func TestNoSecondAttemptAtADrainedBackend(t *testing.T) {
	n := newNet()
	tr := firstAndSecond(t, n)
	n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		require.NoError(t, tr.Drain("a"))
		return status(500, "{}")(req)
	})
	require.Equal(t, hosts("a", "b"), sentFor(t, tr, n, newChat(t, chatPath)))
}

// A higher tier that is available again comes first.
func TestNoSecondAttemptBeforeAHigherTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 1"), ok200)
		n.On(host("b"), ok200, slow(2*time.Second, status(500, "{}")))
		tr := balance(t, n, azure("a"), azure("b", priority(2)), azure("c", priority(3)))
		ask(t, tr)
		require.Equal(t, hosts("b", "a"), sentFor(t, tr, n, newChat(t, chatPath)))
	})
}

// The request is complete each time, whether its body is in memory or not.
func TestSecondAttemptSendsTheWholeBody(t *testing.T) {
	for _, size := range []int{0, 100, replay.MaxKept, replay.MaxReused} {
		n := newNet()
		n.On(host("a"), broken(errReset), ok200)
		text := `{"model":"m","x":"` + strings.Repeat("x", size) + `"}`
		require.Equal(t, hosts("a", "a"), sentFor(t, firstAndSecond(t, n), n, with(t, "POST /openai/v1/chat/completions "+text)))
		for _, s := range n.Seen {
			require.True(t, s.Body == text)
		}
		require.True(t, slices.Equal(n.Seen[0].Header["Content-Type"], n.Seen[1].Header["Content-Type"]))
	}
}

// Whatever fails, a request is sent at most once more than to each deployment once,
// never beyond MaxAttempts, never with a spent budget, and every tier below keeps its
// attempt.
func TestSecondAttemptProperties(t *testing.T) {
	faults := []roundTripFunc{
		status(500, "{}"), status(503, "{}"), status(504, "{}"), status(503, "{}", "Retry-After: 1"), status(408, "{}"), status(401, "{}"),
		broken(errReset), broken(errRefused), ok200,
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := newNet()
		cfg := spillover.Config{Base: n, MaxAttempts: rapid.IntRange(1, 6).Draw(rt, "MaxAttempts")}
		tiers := rapid.IntRange(1, 4).Draw(rt, "tiers")
		var names []string
		for p := range tiers {
			for i := range rapid.IntRange(1, 3).Draw(rt, "members") {
				name := fmt.Sprintf("b%d%d", p, i)
				names = append(names, name)
				cfg.Backends = append(cfg.Backends, azure(name, priority(p+1)))
			}
		}
		tr, err := spillover.New(cfg)
		require.NoError(rt, err)
		defer tr.Close()
		spent := rapid.Bool().Draw(rt, "budgets are spent")
		for range rapid.IntRange(1, 4).Draw(rt, "requests") {
			for i, name := range names {
				if cfg.Backends[i].Priority == tiers {
					continue // the last tier answers
				}
				n.On(host(name), rapid.SliceOfN(rapid.SampledFrom(faults), 1, 3).Draw(rt, name)...)
			}
			if spent {
				for tier := range tiers {
					for spillover.RetryBudgetOf(tr, "m", tier).Spend(1) {
					}
				}
			}
			n.Seen = nil
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			total, more := n.Sends(), 0
			for _, name := range names {
				more += max(0, n.Sends(host(name))-1)
			}
			require.LessOrEqual(rt, more, 1, "additional sends")
			require.LessOrEqual(rt, total, cfg.MaxAttempts)
			if spent || tiers == 1 {
				require.Zero(rt, more, "the budget is spent, or there is no lower tier")
			}
			if cfg.MaxAttempts >= tiers {
				require.NoError(rt, err)
				require.Less(rt, resp.StatusCode, 500, "the last tier answers")
			}
			if err == nil {
				require.Equal(rt, strconv.Itoa(total), resp.Header.Get("X-Spillover-Attempts"))
				resp.Body.Close()
			}
			for _, name := range names {
				require.Zero(rt, spillover.DeploymentOf(t, tr, name).PendingFailures.Load(), "nothing is left undecided")
			}
		}
	})
}

// The tier's budget pays for it, and gets the cost back if it is served.
func TestSecondAttemptIsPaidByTheRetryBudget(t *testing.T) {
	n := newNet()
	tr := firstAndSecond(t, n)
	budget := spillover.RetryBudgetOf(tr, "m", 0)
	left := func() (fifths int64) {
		for budget.Has(fifths + 1) {
			fifths++
		}
		return fifths
	}
	full := left()
	n.On(host("a"), status(500, "{}"), ok200)
	ask(t, tr)
	require.Equal(t, 2, n.Sends(host("a")))
	require.Equal(t, full, left())

	n.On(host("a"), status(500, "{}"))
	ask(t, tr)
	require.Equal(t, 4, n.Sends(host("a")))
	require.Equal(t, full-health.AttemptCost, left(), "the other tier's success earns nothing here")
}
