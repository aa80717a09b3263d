package spillover_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// trailOf sends a request and returns its trail.
func trailOf(t testing.TB, tr *spillover.Transport, req *http.Request) (trail spillover.Trail) {
	resp, err := tr.RoundTrip(req.WithContext(spillover.WithTrail(req.Context(), &trail)))
	if err == nil {
		read(t, resp)
	}
	return trail
}

// skipped is why each candidate of a step was skipped, by backend; "chosen" for the
// one that was chosen.
func skipped(s spillover.TrailStep) map[string]string {
	why := map[string]string{}
	for _, c := range s.Candidates {
		if why[c.Backend] = c.Skipped; c.Chosen {
			why[c.Backend] = "chosen"
		}
	}
	return why
}

func TestTrailHasEachAttemptAndWhyOthersWereSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), status(429, `{"error":{"code":"rate_limit_exceeded","message":"Slow down."}}`, "Retry-After: 7"))
		n.On(host("a"), status(500, `{"error":{"code":"server_error","message":"Sorry."}}`))
		tr := balance(t, n, azure("ptu"), azure("a", priority(2)), azure("b", priority(3), tags("eu")), azure("drained", priority(2)))
		require.NoError(t, tr.Drain("drained"))

		trail := trailOf(t, tr, newChat(t, chatPath))
		require.Equal(t, "m", trail.Model)
		require.Equal(t, "served", trail.Outcome)
		require.Equal(t, 200, trail.Status)
		require.Equal(t, "b", trail.Backend)
		require.Len(t, trail.Steps, 4)
		require.Equal(t, map[string]string{"ptu": "chosen", "a": "", "b": "", "drained": "drained"}, skipped(trail.Steps[0]))
		require.Equal(t, &spillover.TrailAttempt{Backend: "ptu", Deployment: "m", Outcome: "throttled", Status: 429, Reason: "429 rate_limit_exceeded", Cause: "Slow down."}, trail.Steps[0].Attempt)
		require.Equal(t, map[string]string{"ptu": "cooling: 429 rate_limit_exceeded", "a": "chosen", "b": "", "drained": "drained"}, skipped(trail.Steps[1]))
		require.Equal(t, time.Now().Add(7*time.Second), trail.Steps[1].Candidates[0].Until)
		require.Equal(t, "500 server_error", trail.Steps[1].Attempt.Reason)
		require.Equal(t, map[string]string{"ptu": "cooling: 429 rate_limit_exceeded", "a": "chosen", "b": "", "drained": "drained"}, skipped(trail.Steps[2]))
		require.Equal(t, []string{"", "", "once more in the same tier", ""}, []string{trail.Steps[0].Why, trail.Steps[1].Why, trail.Steps[2].Why, trail.Steps[3].Why})
		require.Equal(t, map[string]string{"ptu": "cooling: 429 rate_limit_exceeded", "a": "already tried", "b": "chosen", "drained": "drained"}, skipped(trail.Steps[3]))
		require.Equal(t, "served", trail.Steps[3].Attempt.Outcome)
		for _, s := range trail.Steps {
			require.Equal(t, spillover.TrailSend, s.Action)
		}

		trail = trailOf(t, tr, tagged(t, "eu"))
		require.Equal(t, []string{"eu"}, trail.Tags)
		require.Equal(t, map[string]string{"ptu": "tags", "a": "tags", "b": "chosen", "drained": "tags"}, skipped(trail.Steps[0]))
	})
}

func TestTrailHasWaitsAndLocalReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 2"), ok200)
		tr := configured(t, spillover.Config{Base: n, MaxWait: 5 * time.Second, Backends: []spillover.Backend{azure("a")}})
		trail := trailOf(t, tr, newChat(t, chatPath))
		require.Len(t, trail.Steps, 3)
		require.Equal(t, spillover.TrailWait, trail.Steps[1].Action)
		require.InDelta(t, 2000, trail.Steps[1].WaitedMS, 250)
		require.Equal(t, "served", trail.Outcome)

		n.On(host("a"), status(429, "{}", "Retry-After: 50"))
		trail = trailOf(t, tr, newChat(t, chatPath))
		require.Equal(t, "synthesized", trail.Outcome)
		require.Equal(t, 429, trail.Status)
		require.Empty(t, trail.Backend)
		last := trail.Steps[len(trail.Steps)-1]
		require.Equal(t, spillover.TrailReply, last.Action)
		require.Equal(t, map[string]string{"a": "cooling: 429"}, skipped(last))
	})
}

func TestTrailOfARequestWithoutAnAnswerHasTheCause(t *testing.T) {
	n := newNet()
	n.On(host("a"), broken(errRefused))
	trail := trailOf(t, balance(t, n, azure("a")), newChat(t, chatPath))
	require.Equal(t, "failed", trail.Outcome)
	require.Contains(t, trail.Error, "connection refused")
	require.Contains(t, trail.Steps[0].Attempt.Cause, "connection refused")
	require.Equal(t, "no connection", trail.Steps[0].Attempt.Reason)
}

// A trail is bounded, and holds neither keys nor what a caller wrote.
func TestTrailIsBoundedAndHoldsNoSecret(t *testing.T) {
	n := newNet()
	var backends []spillover.Backend
	for i := range 200 {
		name := fmt.Sprintf("b%03d", i)
		n.On(host(name), status(500, `{"error":{"message":"no: key-`+name+`"}}`))
		backends = append(backends, azure(name, priority(i+1)))
	}
	tr := configured(t, spillover.Config{Base: n, Backends: backends, MaxAttempts: 200})
	req := newChat(t, "/openai/deployments/"+strings.Repeat("m", 250)+"/chat/completions?api-version=x")
	req.Header.Set("Authorization", "Bearer secret-of-the-caller")
	var manyTags []string
	for range 100 {
		manyTags = append(manyTags, strings.Repeat("t", 1000))
	}
	trail := trailOf(t, tr, req)
	require.Len(t, trail.Steps, 64)
	require.Equal(t, 200-64, trail.More)
	require.Len(t, trail.Steps[0].Candidates, 64)
	require.Equal(t, 200-64, trail.Steps[0].More)
	text, err := json.Marshal(trail)
	require.NoError(t, err)
	require.Less(t, len(text), 2<<20)
	require.NotContains(t, string(text), "key-b")
	require.NotContains(t, string(text), "secret-of-the-caller")
	require.NotContains(t, string(text), "hi")

	trail = trailOf(t, tr, tagged(t, manyTags...))
	require.Len(t, trail.Tags, 64)
	text, err = json.Marshal(trail)
	require.NoError(t, err)
	require.Less(t, len(text), 64<<10)
}

func TestTrailIsReplacedByTheNextRequest(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	var trail spillover.Trail
	for range 3 {
		req := newChat(t, chatPath)
		send(t, tr, req.WithContext(spillover.WithTrail(req.Context(), &trail)))
		require.Len(t, trail.Steps, 1)
	}
}

// A request that is not routed leaves nothing of an earlier one in its trail.
func TestTrailOfARequestThatIsNotRouted(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	var trail spillover.Trail
	ctx := spillover.WithTrail(t.Context(), &trail)
	send(t, tr, newChat(t, chatPath).WithContext(ctx))
	require.NotEmpty(t, trail.Steps)
	req := newChat(t, chatPath).WithContext(ctx)
	req.URL.Opaque = "x"
	_, err := tr.RoundTrip(req)
	require.Error(t, err)
	require.Empty(t, trail.Steps)
	require.Empty(t, trail.Backend)
}

func TestTrailHasRedirects(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(307, "", "Location: https://"+host("b")+"/x"))
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	var trail spillover.Trail
	resp, err := (&http.Client{Transport: tr}).Do(newChat(t, chatPath).WithContext(spillover.WithTrail(t.Context(), &trail)))
	require.NoError(t, err)
	read(t, resp)
	require.Equal(t, "b", trail.Backend)
	require.Len(t, trail.Steps, 1)
	require.Equal(t, "b", trail.Steps[0].Attempt.Backend)
}

func TestExplainSendsAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		tr := balance(t, n, azure("ptu"), azure("a", priority(2)))
		ask(t, tr)
		before, sends := tr.Status(), n.Sends()
		for _, withGetBody := range []bool{true, false} {
			req := newChat(t, chatPath)
			if !withGetBody {
				req.GetBody = nil
			}
			for range 3 {
				trail, err := tr.Explain(req)
				require.NoError(t, err)
				require.Equal(t, "a", trail.Backend)
				require.Equal(t, map[string]string{"ptu": "cooling: 429", "a": "chosen"}, skipped(trail.Steps[0]))
				require.Nil(t, trail.Steps[0].Attempt)
			}
			text, err := io.ReadAll(req.Body)
			require.NoError(t, err)
			require.JSONEq(t, `{"messages":[{"role":"user","content":"hi"}],"model":"m"}`, string(text), "the body can still be sent")
		}
		require.Equal(t, before, tr.Status())
		require.Equal(t, sends, n.Sends())
	})
}

// Requests eject a deployment that is silent, Explain only foresees that.
func TestExplainDoesNotEjectASilentDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), slow(time.Hour, ok200))
		tr := balance(t, n, azure("ptu"), azure("a", priority(2)))
		var all sync.WaitGroup
		defer all.Wait()
		for range 2 {
			all.Go(func() { ask(t, tr) })
		}
		time.Sleep(8 * time.Second)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp), "to compare")
		time.Sleep(8 * time.Second)
		before := tr.Status()
		trail, err := tr.Explain(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, "a", trail.Backend)
		require.Equal(t, before, tr.Status())
		ask(t, tr)
		require.Equal(t, "silent", statusOf(t, tr, "ptu").Reason)
	})
}

func TestExplainOfARequestThatNobodyCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 7"))
		tr := balance(t, n, azure("a", serves("m")))
		ask(t, tr)
		trail, err := tr.Explain(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, spillover.TrailReply, trail.Steps[0].Action)
		require.Equal(t, "no deployment is available; the soonest is a in 7.00s", trail.Steps[0].Why)

		trail, err = tr.Explain(tagged(t, "eu"))
		require.NoError(t, err)
		require.Equal(t, 400, trail.Status)
		require.Contains(t, trail.Error, "eu")

		trail, err = tr.Explain(newChat(t, "/openai/deployments/unknown/chat/completions?api-version=x"))
		require.NoError(t, err)
		require.Equal(t, 404, trail.Status)

		require.NoError(t, tr.Close())
		_, err = tr.Explain(newChat(t, chatPath))
		require.Error(t, err)
	})
}

// Explain chooses as RoundTrip does.
func TestExplainChoosesWhatRoundTripChooses(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b"), azure("c"), azure("d", priority(2)))
	explained, sent := map[string]int{}, map[string]int{}
	for range 600 {
		trail, err := tr.Explain(newChat(t, chatPath))
		require.NoError(t, err)
		explained[trail.Backend]++
		resp, _ := ask(t, tr)
		sent[servedBy(resp)]++
	}
	require.Zero(t, explained["d"])
	for _, name := range []string{"a", "b", "c"} {
		require.InDelta(t, 200, explained[name], 70)
		require.InDelta(t, 200, sent[name], 70)
	}
	req := newChat(t, chatPath)
	req = req.WithContext(spillover.WithSession(req.Context(), "s"))
	resp, _ := send(t, tr, req)
	trail, err := tr.Explain(req)
	require.NoError(t, err)
	require.True(t, trail.Session)
	require.Equal(t, servedBy(resp), trail.Backend)
}

// Explain foresees what RoundTrip does, also where no deployment is open.
func TestExplainForeseesWhatRoundTripDoes(t *testing.T) {
	fail := func(t *testing.T, n *fakeNet, tr *spillover.Transport, name string) {
		n.On(host(name), status(401, wrongKey))
		ask(t, tr)
		require.False(t, statusOf(t, tr, name).Available)
	}
	for name, test := range map[string]struct {
		prepare func(*testing.T, *fakeNet, *spillover.Transport)
		change  func(*spillover.Config)
		request func(*testing.T) *http.Request
		action  string
		backend string // "" for none
		status  int    // of a reply
	}{
		"all open": {backend: "a", action: spillover.TrailSend},
		"cooling":  {backend: "b", action: spillover.TrailSend, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) { throttle(t, tr, n, "a") }},
		"ejected":  {backend: "b", action: spillover.TrailSend, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) { fail(t, n, tr, "a") }},
		"the other one is drained": {backend: "a", action: spillover.TrailSend, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			fail(t, n, tr, "a")
			require.NoError(t, tr.Drain("b"))
		}},
		"all drained": {action: spillover.TrailReply, status: 503, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			require.NoError(t, tr.Drain("a"))
			require.NoError(t, tr.Drain("b"))
		}},
		"all cooling": {action: spillover.TrailReply, status: 429, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			throttle(t, tr, n, "a")
			throttle(t, tr, n, "b")
		}},
		"all cooling, may wait": {action: spillover.TrailWait, backend: "a", change: func(c *spillover.Config) { c.MaxWait = 2 * time.Minute },
			prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
				n.On(host("a"), status(429, "{}", "Retry-After: 5"))
				n.On(host("b"), status(429, "{}", "Retry-After: 60"))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, _ = tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				n.On(host("a"), ok200)
			}},
		"falls back": {backend: "b", action: spillover.TrailSend, change: func(c *spillover.Config) {
			c.Backends = []spillover.Backend{azure("a", serves("m")), azure("b", serves("second"))}
			c.Fallbacks = []spillover.Fallback{{Model: "m", To: []string{"second"}}}
		}, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			n.On(host("a"), status(429, "{}", "Retry-After: 60"))
			ask(t, tr)
		}},
		"maybe silent": {backend: "a", action: spillover.TrailSend, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			n.On(host("a"), slow(time.Hour, ok200))
			for range 3 {
				go func() { _, _ = tr.RoundTrip(newChat(t, chatPath)) }()
			}
			time.Sleep(6 * time.Second)
			resp, _ := ask(t, tr) // compares, and shows nothing yet
			require.Equal(t, "b", servedBy(resp))
			n.On(host("a"), ok200)
		}},
		"silent": {backend: "b", action: spillover.TrailSend, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			n.On(host("a"), slow(time.Hour, ok200))
			for range 3 {
				go func() { _, _ = tr.RoundTrip(newChat(t, chatPath)) }()
			}
			time.Sleep(20 * time.Second)
		}},
		"a stored object": {backend: "b", action: spillover.TrailSend, prepare: func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			require.NoError(t, tr.Drain("a"))
			n.On(host("b"), status(200, `{"id":"resp_1234567890","object":"response"}`))
			send(t, tr, with(t, `POST /openai/v1/responses {"model":"m","input":"hi"}`))
			require.NoError(t, tr.Resume("a"))
		}, request: func(t *testing.T) *http.Request { return with(t, "GET /openai/v1/responses/resp_1234567890") }},
		"an object that nobody knows": {backend: "a", action: spillover.TrailSend, request: func(t *testing.T) *http.Request { return with(t, "GET /openai/v1/responses/resp_1234567890") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				n := newNet()
				cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))}}
				if test.change != nil {
					test.change(&cfg)
				}
				tr := configured(t, cfg)
				if test.prepare != nil {
					test.prepare(t, n, tr)
				}
				req := func() *http.Request { return newChat(t, chatPath) }
				if test.request != nil {
					req = func() *http.Request { return test.request(t) }
				}
				before, sends := tr.Status(), n.Sends()
				explained, err := tr.Explain(req().WithContext(ctx))
				require.NoError(t, err)
				require.Equal(t, before, tr.Status())
				require.Equal(t, sends, n.Sends())
				trail := trailOf(t, tr, req().WithContext(ctx))
				first := trail.Steps[0]
				require.Equal(t, test.action, explained.Steps[0].Action)
				require.Equal(t, test.action, first.Action)
				require.Equal(t, skipped(first), skipped(explained.Steps[0]))
				switch test.action {
				case spillover.TrailSend:
					require.Equal(t, test.backend, explained.Backend)
					require.Equal(t, test.backend, first.Attempt.Backend)
					require.Equal(t, "chosen", skipped(first)[test.backend])
					require.Equal(t, first.Why, explained.Steps[0].Why)
				case spillover.TrailReply:
					require.Equal(t, test.status, explained.Status)
					require.Equal(t, test.status, trail.Status)
				}
				cancel()
			})
		})
	}
}

// Models that are only explained leave nothing behind.
func TestExplainOfAnInventedModelAddsNothing(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	before := tr.Status()
	for i := range 3 {
		trail, err := tr.Explain(newChat(t, fmt.Sprintf("/openai/deployments/invented-%d/chat/completions?api-version=x", i)))
		require.NoError(t, err)
		require.Equal(t, "a", trail.Backend)
		require.Len(t, trail.Steps[0].Candidates, 1)
	}
	require.Equal(t, before, tr.Status())
}

// Some SDKs return the same reader, rewound, from every GetBody.
func TestRequestCanBeSentAfterExplainThatSharesItsBody(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	text := `{"messages":[{"role":"user","content":"hi"}],"model":"m"}`
	for name, large := range map[string]string{"small": text, "large": strings.Replace(text, "hi", strings.Repeat("hi ", 1<<19), 1)} {
		t.Run(name, func(t *testing.T) {
			r := strings.NewReader(large)
			req := newChat(t, chatPath)
			req.Body, req.ContentLength = io.NopCloser(r), int64(len(large))
			req.GetBody = func() (io.ReadCloser, error) {
				_, err := r.Seek(0, io.SeekStart)
				return io.NopCloser(r), err
			}
			for range 3 {
				trail, err := tr.Explain(req)
				require.NoError(t, err)
				require.Equal(t, "m", trail.Model)
			}
			resp, _ := send(t, tr, req)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, large, n.Last().Body)
		})
	}
}

// Whatever the body, the request can be sent after Explain, which reports an
// error for a body that cannot be read, as RoundTrip does.
func TestExplainLeavesTheBody(t *testing.T) {
	size := 33 << 20 // more than is buffered
	if spillover.UnderRace {
		size = 2 << 20 // more than is kept
	}
	huge := `{"model":"m","input":"` + strings.Repeat("a", size) + `"}`
	for name, test := range map[string]struct {
		body   io.ReadCloser
		length int64
		want   string
		fails  bool
	}{
		"none":            {nil, 0, "", false},
		"NoBody":          {http.NoBody, 0, "", false},
		"unknown length":  {io.NopCloser(strings.NewReader(`{"model":"m"}`)), -1, `{"model":"m"}`, false},
		"length 0":        {io.NopCloser(strings.NewReader(`{"model":"m"}`)), 0, `{"model":"m"}`, false},
		"huge":            {io.NopCloser(strings.NewReader(huge)), int64(len(huge)), huge, false},
		"huge and chunks": {io.NopCloser(strings.NewReader(huge)), -1, huge, false},
		"fails":           {testnet.BrokenBody{Closer: io.NopCloser(nil), Err: io.ErrUnexpectedEOF}, -1, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			tr := balance(t, n, azure("a"))
			req := newChat(t, "/openai/v1/chat/completions")
			req.Body, req.ContentLength, req.GetBody = test.body, test.length, nil
			for range 2 {
				_, err := tr.Explain(req)
				if test.fails {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					return
				}
				require.NoError(t, err)
			}
			resp, _ := send(t, tr, req)
			require.Equal(t, 200, resp.StatusCode)
			require.True(t, test.want == n.Last().Body)
		})
	}
}

// The reason is that of the candidate's own tier.
func TestTrailShowsASpentRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a1"), azure("a2"), azure("b", priority(2)))
		seen := false
		for range 200 {
			n.On(host("a1"), status(429, "{}", "Retry-After: 1"))
			n.On(host("a2"), status(429, "{}", "Retry-After: 1"))
			for _, s := range trailOf(t, tr, newChat(t, chatPath)).Steps {
				why := skipped(s)
				if why["b"] == "chosen" {
					seen = seen || why["a1"] == "retry budget spent" || why["a2"] == "retry budget spent"
				}
			}
			time.Sleep(30 * time.Second)
		}
		require.True(t, seen)
	})
}

// The error of a redirect is the base's own, and may have anything in it.
func TestTrailOfAFailedRedirectHoldsNoSecret(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(307, "", "Location: https://"+host("b")+"/x"))
	n.On(host("b"), broken(fmt.Errorf("refused key-b and swordfish")))
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	var trail spillover.Trail
	req := newChat(t, chatPath).WithContext(spillover.WithTrail(t.Context(), &trail))
	req.Header.Set("api-key", "swordfish")
	_, err := (&http.Client{Transport: tr}).Do(req)
	require.Error(t, err)
	require.Contains(t, trail.Error, "refused")
	require.NotContains(t, trail.Error, "key-b")
	require.NotContains(t, trail.Error, "swordfish")
}

// Each reason for which an open deployment is passed over is named.
func TestTrailNamesWhyAnOpenDeploymentWasPassedOver(t *testing.T) {
	for want, test := range map[string]struct {
		model  spillover.Model
		answer roundTripFunc
		open   bool // one request is in flight
	}{
		"utilization":      {answer: status(200, "{}", "Azure-Openai-Deployment-Utilization: 120.0%"), open: true},
		"no headroom":      {answer: status(200, "{}", "X-Ratelimit-Limit-Tokens: 1000", "X-Ratelimit-Remaining-Tokens: 0")},
		"configured limit": {model: spillover.Model{RPM: 1}, answer: ok200},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answer, slow(time.Second, test.answer))
				test.model.Name = "m"
				tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.Models = []spillover.Model{test.model} }), azure("b", priority(2)))
				ask(t, tr)
				if test.open {
					defer background(t, tr, newChat(t, chatPath))()
				}
				trail := trailOf(t, tr, newChat(t, chatPath))
				require.Equal(t, map[string]string{"a": want, "b": "chosen"}, skipped(trail.Steps[0]))
			})
		})
	}
}

func TestTrailNamesAReportOfAnotherReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := new(recordedFleet), newNet()
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		ask(t, b)
		require.NoError(t, a.DrainFleet("ptu", time.Minute))
		trail := trailOf(t, b, newChat(t, chatPath))
		require.Equal(t, map[string]string{"ptu": "reported by another replica", "payg": "chosen"}, skipped(trail.Steps[0]))
		require.Equal(t, time.Now().Add(time.Minute), trail.Steps[0].Candidates[0].Until)
	})
}

func TestTrailNamesTheProbeOfAnEjectedDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), broken(errRefused), ok200)
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		ask(t, tr)
		time.Sleep(probeWait)
		trail := trailOf(t, tr, newChat(t, chatPath))
		require.Equal(t, "a", trail.Backend)
		require.Equal(t, "half-open probe", trail.Steps[0].Why)
	})
}

// A key among the protocols of a WebSocket is a secret like any other; a header with a long
// name is none.
func TestTrailHoldsNoKeyOfAProtocol(t *testing.T) {
	n := newNet()
	const key, plain = "browser-secret-1234567", "harmless-text"
	n.On(host("a"), broken(fmt.Errorf("%s and %s were refused", key, plain)))
	req := newChat(t, chatPath)
	req.Header.Set("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key."+key)
	req.Header.Set("X-Header-With-A-Name-That-Is-Longer-Than-Others", plain)
	trail := trailOf(t, balance(t, n, azure("a")), req)
	require.NotContains(t, trail.Error, key)
	require.NotContains(t, trail.Steps[0].Attempt.Cause, key)
	require.Contains(t, trail.Steps[0].Attempt.Cause, plain)
}

func TestExplainReportsABodyThatCannotBeCopied(t *testing.T) {
	req := newChat(t, chatPath)
	req.GetBody = func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
	_, err := balance(t, newNet(), azure("a")).Explain(req)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = balance(t, newNet(), azure("a")).Explain(&http.Request{Method: http.MethodPost})
	require.ErrorContains(t, err, "URL")
}
