package browser_test

import (
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/random"
	"github.com/spillover-go/spillover/spillovertest"
	"github.com/spillover-go/spillover/statuspage"
)

// A recording serves what a Page served at one time.
type recording struct{ index, update, status, assets http.Handler }

func (r recording) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case strings.Contains(req.URL.Path, "/assets/"):
		r.assets.ServeHTTP(w, req)
	case strings.HasSuffix(req.URL.Path, "update.json"):
		r.update.ServeHTTP(w, req)
	case strings.HasSuffix(req.URL.Path, "status.json"):
		r.status.ServeHTTP(w, req)
	case req.URL.Path == "/":
		r.index.ServeHTTP(w, req)
	default:
		http.NotFound(w, req)
	}
}

// record keeps the response of a Page.
func record(page http.Handler, path string) http.Handler {
	got := httptest.NewRecorder()
	page.ServeHTTP(got, httptest.NewRequest(http.MethodGet, path, nil))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), got.Header())
		w.WriteHeader(got.Code)
		_, _ = w.Write(got.Body.Bytes())
	})
}

// The scene is a quarter of an hour of a simulated pool, in virtual time: two
// provisioned deployments that are full in the middle of it, three standard ones in two
// tiers, one with a wrong key, one that is drained, and two replicas.
func scene(t *testing.T) recording {
	recorded.once.Do(func() { recorded.scene = play(t) })
	require.NotNil(t, recorded.scene.index, "it failed before")
	return recorded.scene
}

var recorded struct {
	once  sync.Once
	scene recording
}

func play(t *testing.T) (r recording) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 11, 26, 14, 5, 3, 0, time.UTC)))
		seed(t, 7)
		latency := spillovertest.Latency{FirstToken: 350 * time.Millisecond, PerToken: 16 * time.Millisecond, Jitter: 0.3}
		server := func(name string, dialect spillovertest.Dialect, limits map[string]spillovertest.Limit) *spillovertest.Server {
			c := spillovertest.Config{Name: name, Dialect: dialect, Keys: []string{"key-of-" + name}}
			for model, limit := range limits {
				c.Deployments = append(c.Deployments, spillovertest.Deployment{Name: model, Limit: limit, Latency: latency, Output: 140})
			}
			return spillovertest.New(c)
		}
		type limits = map[string]spillovertest.Limit
		sweden := server("ptu-sweden", spillovertest.Azure, limits{"gpt-4o": spillovertest.PTU{TPM: 130_000}})
		france := server("ptu-france", spillovertest.Azure, limits{"gpt-4o": spillovertest.PTU{TPM: 80_000}})
		eastus := server("payg-eastus", spillovertest.AzureV1, limits{"gpt-4o": spillovertest.PAYG{TPM: 40_000}, "gpt-4o-mini": spillovertest.PAYG{TPM: 400_000}})
		westus := server("payg-westus", spillovertest.AzureV1, limits{"gpt-4o": spillovertest.PAYG{TPM: 90_000}})
		uk := server("payg-uk", spillovertest.AzureV1, limits{"gpt-4o": spillovertest.PAYG{TPM: 45_000}, "gpt-4o-mini": spillovertest.PAYG{TPM: 400_000}})
		openai := server("openai", spillovertest.OpenAI, limits{"gpt-4o": spillovertest.PAYG{TPM: 400_000}, "gpt-4o-mini": nil})
		backend := func(s *spillovertest.Server, name string, priority int, dialect spillover.Dialect, models ...string) spillover.Backend {
			b := spillover.Backend{Name: name, URL: s.URL, Priority: priority, Dialect: dialect, APIKey: "key-of-" + name}
			for _, m := range models {
				b.Models = append(b.Models, spillover.Model{Name: m})
			}
			return b
		}
		wrong := backend(westus, "payg-westus", 2, spillover.AzureV1, "gpt-4o")
		wrong.APIKey = "key-that-was-rotated"
		fleet := new(spillover.LocalFleet)
		newTransport := func() *spillover.Transport {
			tr, err := spillover.New(spillover.Config{Fleet: fleet, Base: spillovertest.Network(sweden, france, eastus, westus, uk, openai), Backends: []spillover.Backend{
				backend(sweden, "ptu-sweden", 1, spillover.Azure, "gpt-4o"),
				backend(france, "ptu-france", 1, spillover.Azure, "gpt-4o"),
				backend(eastus, "payg-eastus", 2, spillover.AzureV1, "gpt-4o", "gpt-4o-mini"),
				wrong,
				backend(uk, "payg-uk", 2, spillover.AzureV1, "gpt-4o", "gpt-4o-mini"),
				backend(openai, "openai", 3, spillover.OpenAI, "gpt-4o", "gpt-4o-mini"),
			}})
			require.NoError(t, err)
			return tr
		}
		tr, other := newTransport(), newTransport()
		page := statuspage.New(tr)
		require.NoError(t, tr.Drain("payg-uk"))

		draw := rand.New(rand.NewPCG(1, 2))
		var calls sync.WaitGroup
		ask := func(tr *spillover.Transport, model string) {
			calls.Go(func() {
				prompt := strings.Repeat("word ", 300)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any.openai.test/v1/chat/completions",
					strings.NewReader(`{"model":"`+model+`","messages":[{"role":"user","content":"`+prompt+`"}],"max_tokens":160}`))
				require.NoError(t, err)
				resp, err := tr.RoundTrip(req)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
		start := time.Now()
		for !isInteresting(tr.Status()) {
			require.Less(t, time.Since(start), 30*time.Minute)
			if time.Since(start) > 15*time.Minute {
				eastus.Set(spillovertest.Fault{Deployment: "gpt-4o", Status: 429, Header: http.Header{"Retry-After": {"17"}},
					Body: `{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded token rate limit of your current pricing tier. Please retry after 17 seconds."}}`})
			}
			at := time.Since(start).Minutes()
			at = min(at, 14.6)
			perSecond := 4.5 + 3.5*math.Exp(-math.Pow((at-7)/2.2, 2)) + 2.6*math.Exp(-math.Pow((at-14.6)/1.6, 2)) + 0.8*math.Sin(at*2.1) //nolint:staticcheck // a power is easier to read
			time.Sleep(time.Duration(draw.ExpFloat64() / perSecond * float64(time.Second)))
			model := "gpt-4o"
			if draw.Float64() < 0.2 {
				model = "gpt-4o-mini"
			}
			if draw.Float64() < 0.93 {
				ask(tr, model)
			} else {
				ask(other, model)
			}
		}
		r = recording{record(page, "/"), record(page, "/update.json"), record(page, "/status.json"), page}
		require.NoError(t, page.Close())
		calls.Wait()
		require.NoError(t, tr.Close())
		require.NoError(t, other.Close())
	})
	return r
}

// isInteresting reports whether one deployment is rate-limited and another one ejected,
// both for a while.
func isInteresting(s spillover.Status) bool {
	eastus, westus := s.Tiers[1].Backends[0].Deployments[0], s.Tiers[1].Backends[1].Deployments[0]
	return eastus.RateLimited && time.Until(eastus.Until) > 10*time.Second && !westus.Available && time.Until(westus.Until) > 3*time.Second
}

// seed makes the random choices of Transports the same in each run.
func seed(t *testing.T, n uint64) {
	var mu sync.Mutex
	before, source := random.Uint64, rand.New(rand.NewPCG(n, 1))
	random.Uint64 = func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
	t.Cleanup(func() { random.Uint64 = before })
}
