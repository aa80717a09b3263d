package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// drainedAnswer demands the answer for a request that only drained backends
// could take.
func drainedAnswer(t testing.TB, tr *spillover.Transport, line string) {
	resp, body := send(t, tr, with(t, line))
	require.Equal(t, 503, resp.StatusCode, body)
	require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
	require.Empty(t, servedBy(resp))
	e := testnet.APIError(t, body)
	require.Equal(t, "drained", e.Code)
	require.Equal(t, "server_error", e.Type)
	require.Equal(t, "Every backend that could take the request is drained.", e.Message)
}

// What others do not have may be at the one that cannot be asked: "not found"
// would be misleading.
func TestDrainedMayHaveTheObject(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(404, `{"error":{"message":"No such file"}}`))
	tr := balance(t, n, azure("a"), azure("b"))
	require.NoError(t, tr.Drain("b"))
	drainedAnswer(t, tr, "GET /v1/files/file-abc")
	require.Equal(t, 1, n.Sends(host("a")))
	require.Zero(t, n.Sends(host("b")))

	// One that was asked and drained afterwards does not have it either.
	require.NoError(t, tr.Resume("b"))
	n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		require.NoError(t, tr.Drain("a"))
		return status(404, `{"error":{"message":"No such file"}}`)(req)
	})
	n.On(host("b"), func(req *http.Request) (*http.Response, error) {
		require.NoError(t, tr.Drain("b"))
		return status(404, `{"error":{"message":"No such file"}}`)(req)
	})
	resp, _ := send(t, tr, with(t, "GET /v1/files/file-abc"))
	require.Equal(t, 404, resp.StatusCode)
	require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
	require.NoError(t, tr.Resume("a"))
	n.On(host("b"), ok200)

	// Where one gave no answer that is told, as without Drain.
	n.On(host("a"), broken(errReset))
	_, err := tr.RoundTrip(with(t, "GET /v1/files/file-abc"))
	require.ErrorIs(t, err, errReset)

	require.NoError(t, tr.Resume("b"))
	resp, _ = send(t, tr, with(t, "GET /v1/files/file-abc"))
	require.Equal(t, "b", servedBy(resp))
}

// What was under way finishes, what comes goes elsewhere, and Status says so.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(5*time.Second, status(200, `"slow"`)), ok200)
		tr := balance(t, n, azure("a", serves("m", "n")), azure("b", priority(2)))
		answer := background(t, tr, newChat(t, chatPath))
		require.NoError(t, tr.Drain("a"))
		for range 2 {
			s := backendStatus(t, tr, "a")
			require.Equal(t, []any{true, false, "drained", time.Time{}}, []any{s.Drained, s.Available, s.Reason, s.Until})
			require.Len(t, s.Deployments, 2)
			for _, d := range s.Deployments {
				require.Equal(t, []any{false, "drained", time.Time{}}, []any{d.Available, d.Reason, d.Until})
				require.Equal(t, d.Model == "m", d.InFlight == 1)
			}
			s = backendStatus(t, tr, "b")
			require.Equal(t, []any{false, true, ""}, []any{s.Drained, s.Available, s.Reason})
			require.NoError(t, tr.Drain("a"), "once more")
		}
		for range 20 {
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		}
		resp, body := answer()
		require.Equal(t, `"slow"`, body)
		require.Equal(t, "a", servedBy(resp))
		require.Zero(t, statusOf(t, tr, "a").InFlight, "it has drained")
		require.EqualValues(t, 1, statusOf(t, tr, "a").Served)
		require.Equal(t, 1, n.Sends(host("a")))

		for range 2 {
			require.NoError(t, tr.Resume("a"))
			require.True(t, backendStatus(t, tr, "a").Available)
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp), "as if nothing had been")
		}
	})
}

func TestDrainOfNobody(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	for _, do := range []func(string) error{tr.Drain, tr.Resume} {
		for _, name := range []string{"", "b", "A", "a.openai.azure.com"} {
			require.EqualError(t, do(name), fmt.Sprintf("spillover: no backend is called %q", name))
		}
	}
	require.NoError(t, tr.Resume("a"), "it was not drained")
	reconfigured(t, tr, n, azure("a"), azure("b"), azure("A"))
	for _, name := range []string{"a", "b", "A"} {
		require.False(t, backendStatus(t, tr, name).Drained, "a name that was refused is forgotten")
	}
}

// reconfigured replaces the backends.
func reconfigured(t testing.TB, tr *spillover.Transport, n http.RoundTripper, backends ...spillover.Backend) {
	require.NoError(t, tr.Reconfigure(spillover.Config{Base: n, Backends: backends}))
}

// A reload keeps it, even one without the backend, or with another in its name.
func TestDrainOutlivesReconfigure(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	require.NoError(t, tr.Drain("a"))
	for _, pool := range [][]spillover.Backend{
		{azure("a", keyed("new")), azure("b", priority(2))},
		{azure("a", placed("https://elsewhere.openai.azure.com")), azure("b", priority(2))},
		{azure("b")},
		{azure("a"), azure("b", priority(2))},
	} {
		reconfigured(t, tr, n, pool...)
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, len(pool) == 2, backendStatus(t, tr, pool[0].Name).Drained)
	}
	reconfigured(t, tr, n, azure("b"))
	require.Error(t, tr.Drain("a"), "nobody is called so")
	require.NoError(t, tr.Resume("a"), "it may come back")
	require.Error(t, tr.Resume("a"))
	reconfigured(t, tr, n, azure("a"), azure("b", priority(2)))
	resp, _ := ask(t, tr)
	require.Equal(t, "a", servedBy(resp))
}

// What is known outlives it.
func TestDrainKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 30"), ok200)
		tr := firstAndSecond(t, n)
		ask(t, tr)
		require.NoError(t, tr.Drain("a"))
		time.Sleep(10 * time.Second)
		require.NoError(t, tr.Resume("a"))
		s := statusOf(t, tr, "a")
		require.Equal(t, 20*time.Second, time.Until(s.Until))
		require.Equal(t, "429", s.Reason)
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
	})
}

// A request that fails everywhere it could be sent is itself the suspect, though
// it was not sent to what is drained.
func TestDrainedCannotClearARequest(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(401, wrongKey))
	for _, drained := range []bool{true, false} {
		tr := configured(t, spillover.Config{Base: n, MaxAttempts: 1, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))}})
		if drained {
			require.NoError(t, tr.Drain("b"))
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, drained, statusOf(t, tr, "a").Available)
	}
}

// What could take a request is all drained: that is told at once, with and
// without MaxWait, and nothing is sent.
func TestAllDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := configured(t, spillover.Config{Base: n, MaxWait: time.Minute, Backends: []spillover.Backend{azure("a", serves("m")), azure("b", priority(2), serves("m")), azure("c", serves("n"))}})
		n.On(host("b"), status(429, "{}", "Retry-After: 5"))
		require.NoError(t, tr.Drain("a"))
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		resp, _ := send(t, tr, newChat(t, chatPath).WithContext(hasty))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, 5*time.Second, time.Until(statusOf(t, tr, "b").Until))
		require.NoError(t, tr.Drain("b"))
		begun := time.Now()
		drainedAnswer(t, tr, `POST /v1/chat/completions {"model":"m"}`)
		drainedAnswer(t, tr, "POST /openai/deployments/m/embeddings?api-version=1 {}")
		resp, _ = send(t, tr, with(t, `POST /v1/chat/completions {"model":"n"}`))
		require.Equal(t, "c", servedBy(resp))
		require.NoError(t, tr.Drain("c"))
		drainedAnswer(t, tr, "GET /v1/models")
		require.Equal(t, begun, time.Now())
		require.Equal(t, 2, n.Sends())

		closed := new(atomic.Int64)
		resp, err := tr.RoundTrip(closing(newChat(t, chatPath), closed))
		require.NoError(t, err)
		require.EqualValues(t, 1, closed.Load(), "the body")
		require.EqualValues(t, len(read(t, resp)), resp.ContentLength)
		resp, _ = send(t, tr, with(t, `POST /v1/chat/completions {"model":"unknown"}`))
		require.Equal(t, 404, resp.StatusCode, "nobody serves that, drained or not")
	})
}

// Where some are drained the time is that of the others.
func TestSomeDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := three(t, n)
		for backend, wait := range map[string]string{"a": "2", "b": "9", "c": "5"} {
			n.On(host(backend), status(429, "{}", "Retry-After: "+wait))
		}
		ask(t, tr)
		require.Equal(t, 3, n.Sends())
		told := func(drain, want string) {
			require.NoError(t, tr.Drain(drain))
			resp, body := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, want, resp.Header.Get("Retry-After"))
			require.Empty(t, resp.Header.Get("X-Should-Retry"))
			require.Equal(t, "rate_limit_exceeded", testnet.APIError(t, body).Code)
		}
		told("a", "5")
		told("c", "9")
		require.NoError(t, tr.Drain("b"))
		drainedAnswer(t, tr, `POST /v1/chat/completions {"model":"m"}`)
		require.NoError(t, tr.Resume("a"))
		told("b", "2")
		require.Equal(t, 3, n.Sends())
	})
}

// A request that moves on does not move to what was drained meanwhile, be it for
// the first time or again.
func TestDrainDuringAttempts(t *testing.T) {
	for name, answer := range map[string]roundTripFunc{
		"throttled": status(429, "{}", "Retry-After-Ms: 1"), "failed": status(500, "{}"), "broken": broken(errReset), "no connection": broken(errRefused),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), slow(time.Second, answer))
				n.On(host("b"), slow(time.Second, answer))
				if name == "throttled" {
					n.On(host("d"), slow(time.Second, answer)) // then a and b would be open again
				}
				tr := balance(t, n, azure("a"), azure("b", priority(2)), azure("c", priority(3)), azure("d", priority(4)))
				answer := background(t, tr, newChat(t, chatPath))
				require.NoError(t, tr.Drain("a"))
				require.NoError(t, tr.Drain("c"))
				time.Sleep(1500 * time.Millisecond) // b has it
				require.Equal(t, 1, n.Sends(host("b")))
				require.NoError(t, tr.Drain("b"))
				answer()
				require.Equal(t, []int{1, 1, 0}, []int{n.Sends(host("a")), n.Sends(host("b")), n.Sends(host("c"))})
				require.NotZero(t, n.Sends(host("d")))
			})
		})
	}
}

// Once Drain has returned and Status tells of nothing in flight there, nothing
// arrives until Resume, whatever the others do.
func TestDrainUnderLoad(t *testing.T) {
	var empty atomic.Bool // a is drained
	var at, late, elsewhere atomic.Int64
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host != host("a") {
			if elsewhere.Add(1)%5 == 0 {
				return status(500, "{}")(req)
			}
			return status(200, "{}")(req)
		}
		at.Add(1)
		if empty.Load() {
			late.Add(1)
		}
		return status(200, "{}")(req)
	})
	tr := balance(t, base, azure("a", serves("m"), func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { runtime.Gosched(); return "token", nil }
	}), azure("b"), azure("c", priority(2)))
	var stop atomic.Bool
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			for !stop.Load() {
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				resp.Body.Close()
			}
		})
	}
	for range 25 {
		require.NoError(t, tr.Drain("a"))
		testnet.Eventually(t, "it does not drain", func() bool { return statusOf(t, tr, "a").InFlight == 0 })
		empty.Store(true)
		goal := elsewhere.Load() + 10
		testnet.Eventually(t, "nothing goes elsewhere", func() bool { return elsewhere.Load() >= goal })
		empty.Store(false)
		require.NoError(t, tr.Resume("a"))
		goal = at.Load() + 1
		testnet.Eventually(t, "nothing comes back", func() bool { return at.Load() >= goal })
	}
	stop.Store(true)
	wait.Wait()
	require.Zero(t, late.Load())
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}

func placed(url string) func(*spillover.Backend) { return func(b *spillover.Backend) { b.URL = url } }

func keyed(key string) func(*spillover.Backend) { return func(b *spillover.Backend) { b.APIKey = key } }

// A backend can be drained by the configuration, by Drain, or by both.
func TestBackendIsDrainedByTheConfiguration(t *testing.T) {
	n := newNet()
	drained := func(b *spillover.Backend) { b.Drained = true }
	cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", drained), azure("b", priority(2))}}
	tr := configured(t, cfg)
	asked := func(want string) {
		t.Helper()
		resp, _ := ask(t, tr)
		require.Equal(t, want, servedBy(resp))
		b := tr.Status().Tiers[0].Backends[0]
		require.Equal(t, want == "b", b.Drained)
		require.Equal(t, want != "b", b.Available)
	}
	change := func(changes ...func(*spillover.Backend)) {
		cfg.Backends = []spillover.Backend{azure("a", changes...), azure("b", priority(2))}
		require.NoError(t, tr.Reconfigure(cfg))
	}
	asked("b")
	require.EqualError(t, tr.Resume("a"), `spillover: backend "a" is drained by the configuration: remove Drained (in a file: drained) from it`)
	asked("b")
	change()
	asked("a")
	change(drained)
	asked("b")

	// Drain outlasts the configuration.
	require.NoError(t, tr.Drain("a"))
	change()
	asked("b")
	require.NoError(t, tr.Resume("a"))
	asked("a")

	// Resume ends Drain even if the configuration keeps the backend drained.
	require.NoError(t, tr.Drain("a"))
	change(drained)
	require.ErrorContains(t, tr.Resume("a"), "is drained by the configuration")
	change()
	asked("a")

	cfg.Backends = []spillover.Backend{azure("a", drained), azure("b", drained)}
	require.NoError(t, tr.Reconfigure(cfg))
	resp, body := ask(t, tr)
	require.Equal(t, 503, resp.StatusCode)
	require.Contains(t, body, "Every backend that could take the request is drained.")

	cfg, err := spillover.ParseConfig("f", []byte("backends: [{url: h, drained: true}]"), nil)
	require.NoError(t, err)
	require.True(t, cfg.Backends[0].Drained)
}
