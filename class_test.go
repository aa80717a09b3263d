package spillover_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/spillovertest"
)

// backgroundChat is a request of the class.
func backgroundChat(t testing.TB) *http.Request {
	req := newChat(t, chatPath)
	return req.WithContext(spillover.WithClass(req.Context(), spillover.Background))
}

// reports answers with a utilization in percent.
func reports(percent float64) roundTripFunc {
	return status(200, "{}", fmt.Sprintf("Azure-Openai-Deployment-Utilization: %.1f%%", percent))
}

// remains answers with the tokens that remain of a limit.
func remains(limit, remaining int) roundTripFunc {
	return status(200, "{}", fmt.Sprint("X-Ratelimit-Limit-Tokens: ", limit), fmt.Sprint("X-Ratelimit-Remaining-Tokens: ", remaining))
}

func TestBackgroundSkipsAPTUThatIsHalfFull(t *testing.T) {
	// A single interactive response of 0 % grants one.
	for percent, first := range map[float64]string{0: "ptu", 49.9: "payg", 50: "payg", 84: "payg", 120: "payg"} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), reports(percent))
				tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
				ask(t, tr)
				resp, _ := send(t, tr, backgroundChat(t))
				require.Equal(t, first, servedBy(resp))
				if percent < 85 {
					resp, _ = ask(t, tr)
					require.Equal(t, "ptu", servedBy(resp), "interactive")
				}
			})
		})
	}
}

// Below 50 % many reports are needed for one background request, the more the higher
// the utilization is.
func TestBackgroundUsesAPTULessTheFullerItIs(t *testing.T) {
	share := func(percent float64) (share float64) {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("ptu"), reports(percent))
			tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
			for range 200 {
				ask(t, tr)
				if resp, _ := send(t, tr, backgroundChat(t)); servedBy(resp) == "ptu" {
					share += 1.0 / 200
				}
			}
		})
		return share
	}
	require.InDelta(t, 1, share(0), 0.02)
	require.InDelta(t, 0.12, share(25), 0.06) // with share = 1/2: 1/16 for each interactive one, 1/2 for each background one
	require.Less(t, share(40), 0.02)
}

func TestBackgroundLeavesAReserveOfTokenLimits(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*spillover.Backend)
		says   roundTripFunc
		first  string
	}{
		"plenty is reported":      {says: remains(100_000, 50_000), first: "a"},
		"less than a fifth is":    {says: remains(100_000, 15_000), first: "b"},
		"nothing is known":        {says: ok200, first: "a"},
		"plenty is configured":    {change: func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", RPM: 10}} }, says: ok200, first: "a"},
		"less than a fifth is so": {change: func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", RPM: 1}} }, says: ok200, first: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.says)
				a := azure("a")
				if test.change != nil {
					test.change(&a)
				}
				tr := balance(t, n, a, azure("b", priority(2)))
				ask(t, tr)
				resp, _ := send(t, tr, backgroundChat(t))
				require.Equal(t, test.first, servedBy(resp))
			})
		})
	}
}

// However many wait, a report of low utilization admits two.
func TestReportAdmitsAtMostTwoBackgroundRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var inFlight, most atomic.Int64
		full, slow := reports(90), reports(0)
		n.On(host("ptu"), full, func(req *http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), inFlight.Add(1)))
			defer inFlight.Add(-1)
			time.Sleep(4*time.Second + time.Duration(inFlight.Load()%8)*300*time.Millisecond) // not all at once
			return slow(req)
		})
		tr := configured(t, spillover.Config{Base: n, BackgroundWait: time.Hour, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
		ask(t, tr)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				resp, err := tr.RoundTrip(backgroundChat(t).WithContext(spillover.WithClass(ctx, spillover.Background)))
				if err == nil {
					read(t, resp)
				}
			})
		}
		time.Sleep(9 * time.Second)
		require.Zero(t, inFlight.Load(), "the report of 90 % still counts")
		grown := int64(1)
		for range 6 {
			time.Sleep(4 * time.Second)
			require.LessOrEqual(t, inFlight.Load(), grown, "twice as many in each round trip")
			grown *= 2
		}
		require.GreaterOrEqual(t, most.Load(), int64(4))
		cancel()
		all.Wait()
	})
}

// An idle PTU serves background requests one after the other, whatever time is
// between them, without a wait.
func TestIdlePTUServesBackgroundAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), reports(1))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		for _, pause := range []time.Duration{0, 0, time.Millisecond, time.Second, 3 * time.Second, 15 * time.Second, time.Hour} {
			time.Sleep(pause)
			resp, _ := send(t, tr, backgroundChat(t))
			require.Equal(t, "ptu", servedBy(resp), pause)
		}
	})
}

// Where interactive requests keep every deployment reserved, one background request
// is served by each in 30 s.
// A PTU's responses may lack the report that each background request is to bring.
func TestBackgroundIsServedWhileReportsAreMissing(t *testing.T) {
	for name, without := range map[string]roundTripFunc{"served": ok200, "rejected": status(400, "{}"), "failed": status(500, "{}"), "no connection": broken(errRefused)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), reports(5), without)
				tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
				ask(t, tr)
				for range 20 {
					time.Sleep(1500 * time.Millisecond)
					for range 3 {
						resp, _ := send(t, tr, backgroundChat(t))
						require.Less(t, resp.StatusCode, 500)
					}
				}
				require.Greater(t, n.Sends(host("payg")), 20, "what the PTU does not admit")
			})
		})
	}
}

// How long a background request is told to stay away follows from what is known.
func TestRetryAfterOfAReservedPTU(t *testing.T) {
	for name, c := range map[string]struct {
		percent float64
		after   time.Duration // the report
		retry   string
	}{
		"little used":      {6, 0, "1"},
		"a third is used":  {30, 0, "10"},
		"three seconds on": {30, 3 * time.Second, "7"},
		"busy":             {60, 0, "10"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), reports(c.percent))
				tr := balance(t, n, azure("ptu"))
				ask(t, tr)
				time.Sleep(c.after)
				var resp *http.Response
				for range 4 { // the credit of the report, and the minimum rate
					time.Sleep(time.Millisecond)
					n.On(host("ptu"), ok200)
					if resp, _ = send(t, tr, backgroundChat(t)); resp.StatusCode != 200 {
						break
					}
				}
				require.Equal(t, 429, resp.StatusCode)
				require.Equal(t, c.retry, resp.Header.Get("Retry-After"))
			})
		})
	}
}

func TestBackgroundIsServedAtAMinimumRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), reports(80))
		n.On(host("payg"), remains(100_000, 10_000))
		tr := configured(t, spillover.Config{Base: n, BackgroundWait: time.Hour, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
		ctx, cancel := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		busy.Go(func() {
			for ctx.Err() == nil {
				ask(t, tr)
				require.NoError(t, tr.Drain("ptu"))
				ask(t, tr)
				require.NoError(t, tr.Resume("ptu"))
				time.Sleep(time.Second)
			}
		})
		time.Sleep(time.Millisecond)
		const requests = 20
		var all sync.WaitGroup
		var served atomic.Int64
		for range requests {
			all.Go(func() {
				resp, err := tr.RoundTrip(backgroundChat(t))
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
				read(t, resp)
				served.Add(1)
			})
		}
		for i := range int64(4) {
			time.Sleep(30*time.Second + 2*time.Second) // they look once a second
			require.GreaterOrEqual(t, served.Load(), 2*i)
			require.LessOrEqual(t, served.Load(), 2*(i+2), "and no faster")
		}
		all.Wait()
		cancel()
		busy.Wait()
	})
}

func TestBackgroundWaitsForItsTier(t *testing.T) {
	for name, test := range map[string]struct {
		first    roundTripFunc
		deadline time.Duration
		by       string
		after    time.Duration
		within   time.Duration
	}{
		"until a cool-down ends":            {first: status(429, "{}", "Retry-After: 3"), by: "ptu", after: 3 * time.Second, within: 1500 * time.Millisecond},
		"until a report is too old":         {first: reports(90), by: "ptu", after: 10 * time.Second, within: 1500 * time.Millisecond},
		"no longer than BackgroundWait":     {first: reports(90), by: "ptu", after: 10 * time.Second, within: 1500 * time.Millisecond},
		"not for a longer cool-down":        {first: status(429, "{}", "Retry-After: 30"), by: "payg"},
		"no longer than half of a deadline": {first: reports(90), deadline: 10 * time.Second, by: "payg", after: 5 * time.Second},
		"not after an ejection":             {first: broken(errRefused), by: "payg"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), test.first, reports(0))
				tr := configured(t, spillover.Config{Base: n, BackgroundWait: 20 * time.Second, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
				ask(t, tr)
				req := backgroundChat(t)
				if test.deadline > 0 {
					ctx, cancel := context.WithTimeout(req.Context(), test.deadline)
					defer cancel()
					req = req.WithContext(ctx)
				}
				explained, err := tr.Explain(req)
				require.NoError(t, err)
				require.Equal(t, test.after > 0, explained.Steps[0].Action == spillover.TrailWait)
				begun := time.Now()
				var trail spillover.Trail
				resp, _ := send(t, tr, req.WithContext(spillover.WithTrail(req.Context(), &trail)))
				took := time.Since(begun)
				require.Equal(t, test.by, servedBy(resp))
				require.GreaterOrEqual(t, took, test.after-time.Millisecond, "there is no wait of less than a millisecond")
				require.LessOrEqual(t, took, test.after+test.within)
				require.Equal(t, "background", trail.Class)
				if took > 0 {
					require.Equal(t, strconv.FormatInt(took.Milliseconds(), 10), resp.Header.Get("X-Spillover-Waited-Ms"))
					require.Len(t, trail.Steps, 2, "one wait, however often it has looked")
					require.Equal(t, spillover.TrailWait, trail.Steps[0].Action)
					require.Equal(t, "for its tier", trail.Steps[0].Why)
					require.InDelta(t, took.Milliseconds(), trail.Steps[0].WaitedMS, 100)
				} else {
					require.Len(t, trail.Steps, 1)
				}
			})
		})
	}
}

func TestBackgroundSpillsAfterBackgroundWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), reports(90))
		tr := configured(t, spillover.Config{Base: n, BackgroundWait: 20 * time.Second, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for ctx.Err() == nil {
				ask(t, tr)
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(time.Millisecond)
		begun := time.Now()
		resp, _ := send(t, tr, backgroundChat(t))
		require.Equal(t, "payg", servedBy(resp))
		require.InDelta(t, 20*time.Second, time.Since(begun), float64(time.Millisecond), "there is no wait of less than a millisecond")
		cancel()
		time.Sleep(time.Second)
	})
}

func TestBackgroundGetsA429ThatNamesTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), reports(80))
		tr := balance(t, n, azure("ptu"))
		ask(t, tr)
		resp, _ := send(t, tr, backgroundChat(t))
		require.Equal(t, 200, resp.StatusCode, "one is due")

		time.Sleep(time.Second)
		ask(t, tr)
		var trail spillover.Trail
		req := backgroundChat(t)
		resp, body := send(t, tr, req.WithContext(spillover.WithTrail(req.Context(), &trail)))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "10", resp.Header.Get("Retry-After"))
		require.Contains(t, testnet.APIError(t, body).Message, "reserved for interactive requests")
		require.Equal(t, map[string]string{"ptu": "reserved for interactive requests"}, skipped(trail.Steps[0]))
		require.Equal(t, time.Now().Add(10*time.Second), trail.Steps[0].Candidates[0].Until)

		time.Sleep(25 * time.Second)
		ask(t, tr)
		resp, _ = send(t, tr, backgroundChat(t))
		require.Equal(t, "4", resp.Header.Get("Retry-After"), "the next one is due then")

		explained, err := tr.Explain(backgroundChat(t))
		require.NoError(t, err)
		require.Equal(t, "background", explained.Class)
		require.Equal(t, spillover.TrailReply, explained.Steps[0].Action)
	})
}

// Requests that cost no tokens are not held back.
func TestBackgroundReadsAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), reports(80))
		tr := balance(t, n, azure("ptu"))
		for range 5 {
			ask(t, tr)
			ctx := spillover.WithClass(t.Context(), spillover.Background)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://foo.openai.azure.com/openai/models?api-version=2024-10-21", nil)
			require.NoError(t, err)
			resp, _ := send(t, tr, req)
			require.Equal(t, 200, resp.StatusCode)
		}
	})
}

func TestTierWait(t *testing.T) {
	for name, test := range map[string]struct {
		wait  time.Duration
		hint  string
		by    string
		after time.Duration
	}{
		"by default it spills":           {0, "Retry-After-Ms: 100", "payg", 0},
		"it waits for a tier":            {time.Second, "Retry-After-Ms: 500", "ptu", 500 * time.Millisecond},
		"that is due in time":            {time.Second, "Retry-After-Ms: 1000", "ptu", time.Second},
		"or spills at once if it is not": {time.Second, "Retry-After-Ms: 1001", "payg", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), status(429, "{}", test.hint), ok200)
				tr := configured(t, spillover.Config{Base: n, TierWait: test.wait, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
				begun := time.Now()
				resp, _ := ask(t, tr)
				require.Equal(t, test.by, servedBy(resp))
				require.GreaterOrEqual(t, time.Since(begun), test.after)
				require.LessOrEqual(t, time.Since(begun), test.after+200*time.Millisecond)
				require.Equal(t, test.after > 0, resp.Header.Get("X-Spillover-Waited-Ms") != "")
			})
		})
	}
}

// The total of several waits is limited.
func TestTierWaitIsATotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After-Ms: 300"))
		tr := configured(t, spillover.Config{Base: n, TierWait: time.Second, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
		begun := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "payg", servedBy(resp))
		require.LessOrEqual(t, time.Since(begun), time.Second)
		require.Greater(t, n.Sends(host("ptu")), 1)
	})
}

func TestClassComesFromTheContextBeforeTheRule(t *testing.T) {
	const bulk = "X-Bulk"
	cfg := spillover.Config{Class: func(r *http.Request) spillover.Class {
		if r.Header.Get(bulk) != "" {
			n, _ := strconv.Atoi(r.Header.Get(bulk))
			return spillover.Class(n)
		}
		return spillover.Interactive
	}}
	for name, test := range map[string]struct {
		header  string
		context []spillover.Class
		want    string
	}{
		"neither":                   {want: "interactive"},
		"the rule":                  {header: "1", want: "background"},
		"the context":               {context: []spillover.Class{spillover.Background}, want: "background"},
		"the context is first":      {header: "1", context: []spillover.Class{spillover.Interactive}, want: "interactive"},
		"the inner context":         {context: []spillover.Class{spillover.Background, spillover.Interactive}, want: "interactive"},
		"an unknown one of a rule":  {header: "7", want: "interactive"},
		"a negative one of a rule":  {header: "-1", want: "interactive"},
		"an unknown one of context": {header: "1", context: []spillover.Class{1 << 30}, want: "interactive"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			cfg.Base, cfg.Backends = newNet(), []spillover.Backend{azure("a")}
			tr := configured(t, cfg)
			req := newChat(t, chatPath)
			if test.header != "" {
				req.Header.Set(bulk, test.header)
			}
			ctx := req.Context()
			for _, c := range test.context {
				ctx = spillover.WithClass(ctx, c)
			}
			trail := trailOf(t, tr, req.WithContext(ctx))
			require.Equal(t, test.want, trail.Class)
			require.Equal(t, "served", trail.Outcome)
		})
	}
}

func TestClassAsText(t *testing.T) {
	for _, c := range []spillover.Class{spillover.Interactive, spillover.Background} {
		text, err := json.Marshal(c)
		require.NoError(t, err)
		require.Equal(t, strconv.Quote(c.String()), string(text))
		var back spillover.Class
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, c, back)
	}
	for _, c := range []spillover.Class{-1, 2, 1 << 30} {
		require.Equal(t, fmt.Sprintf("Class(%d)", int(c)), c.String())
		_, err := json.Marshal(c)
		require.ErrorContains(t, err, c.String()+" is not a class")
	}
	var c spillover.Class
	require.EqualError(t, c.UnmarshalText([]byte("urgent")), `spillover: "urgent" is not a class: must be interactive or background`)
}

func TestNegativeWaitsAreErrors(t *testing.T) {
	_, err := spillover.New(spillover.Config{BackgroundWait: -time.Second, TierWait: -1, Backends: []spillover.Backend{azure("a")}})
	require.ErrorContains(t, err, "BackgroundWait: -1s is negative")
	require.ErrorContains(t, err, "TierWait: -1ns is negative")
}

// However much background traffic there is, interactive requests that fit in the reserve
// of a pay-as-you-go deployment are all served, as they are without it.
func TestBackgroundNeverMakesAnInteractiveRequestFail(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				serve := func(name string, l spillovertest.Limit) *spillovertest.Server {
					return spillovertest.New(spillovertest.Config{Name: name, Dialect: spillovertest.AzureV1, Seed: seed,
						Deployments: []spillovertest.Deployment{{Name: "m", Limit: l, Latency: spillovertest.Latency{FirstToken: 300 * time.Millisecond}}}})
				}
				// An interactive request costs 250 tokens of the PTU and 70 or so of the other,
				// of whose limit they need a seventh.
				ptu := serve("ptu", spillovertest.PTU{TPM: 2000 + rng.IntN(20_000), Burst: 5 * time.Second})
				payg := serve("payg", spillovertest.PAYG{TPM: 30_000, RPM: 100_000})
				tr := configured(t, spillover.Config{
					Base: spillovertest.Network(ptu, payg), BackgroundWait: time.Duration(rng.IntN(10)) * time.Second,
					Backends: []spillover.Backend{
						{Name: "ptu", URL: ptu.URL, Dialect: spillover.AzureV1, APIKey: "key"},
						{Name: "payg", URL: payg.URL, Dialect: spillover.AzureV1, APIKey: "key", Priority: 2},
					},
				})
				ask := func(ctx context.Context) int {
					const body = `{"model":"m","max_tokens":60,"messages":[{"role":"user","content":"Hello there!"}]}`
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://any.openai.azure.com/openai/v1/chat/completions", strings.NewReader(body))
					require.NoError(t, err)
					req.Header.Set("Content-Type", "application/json")
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					read(t, resp)
					return resp.StatusCode
				}
				var all sync.WaitGroup
				stream := func(rate float64, class spillover.Class, result func(int)) {
					all.Go(func() {
						for begun := time.Now(); time.Since(begun) < 2*time.Minute; {
							time.Sleep(time.Duration(float64(time.Second) / rate))
							all.Go(func() { result(ask(spillover.WithClass(t.Context(), class))) })
						}
					})
				}
				var served atomic.Int64
				stream(1, spillover.Interactive, func(status int) { require.Equal(t, 200, status) })
				stream(1+10*rng.Float64(), spillover.Background, func(status int) {
					if status == 200 {
						served.Add(1)
					}
				})
				all.Wait()
				require.Greater(t, served.Load(), int64(100))
			})
		})
	}
}
