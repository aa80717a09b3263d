package spillover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// checked is the results of Check by backend, in any time.
func checked(t testing.TB, tr *spillover.Transport) map[string]spillover.CheckResult {
	before := tr.Status()
	results := map[string]spillover.CheckResult{}
	for _, r := range tr.Check(t.Context()) {
		r.TookMS = 0
		results[r.Backend] = r
	}
	require.Equal(t, before, tr.Status(), "nothing changes")
	return results
}

func TestCheckAsksEachDialectForItsModels(t *testing.T) {
	servers := map[string]*spillovertest.Server{}
	var all []*spillovertest.Server
	var backends []spillover.Backend
	for _, name := range []string{"azure", "azure-v1", "openai"} {
		s := spillovertest.New(spillovertest.Config{Name: name, Dialect: spillovertest.Dialect(name), Keys: []string{"key-" + name}, Deployments: []spillovertest.Deployment{{Name: "gpt-4o"}, {Name: "o3"}}})
		servers[name] = s
		all = append(all, s)
		backends = append(backends, spillover.Backend{Name: name, URL: s.URL, APIKey: "key-" + name, Models: []spillover.Model{
			{Name: "m", Deployment: "gpt-4o"}, {Name: "n", Deployment: "mine"},
		}})
	}
	wrong, token := backends[0], backends[1]
	wrong.Name, wrong.APIKey, wrong.Models = "wrong key", "secret-that-is-wrong", nil
	token.Name, token.APIKey, token.Models = "token", "", nil
	token.Token = func(context.Context) (string, error) { return "key-azure-v1", nil }
	none := token
	none.Name, none.Token = "no token", func(context.Context) (string, error) { return "", errors.New("no identity, secret-of-the-tenant") }
	backends = append(backends, wrong, token, none)
	tr := configured(t, spillover.Config{Base: spillovertest.Network(all...), Backends: backends})
	require.NoError(t, tr.Drain("openai"))
	results := checked(t, tr)
	require.Equal(t, spillover.CheckResult{Backend: "azure", URL: servers["azure"].URL + "/openai/models", OK: true, Status: 200, Models: 2}, results["azure"])
	require.Equal(t, spillover.CheckResult{Backend: "azure-v1", URL: strings.TrimSuffix(servers["azure-v1"].URL, "/openai/v1") + "/openai/v1/models", OK: true, Status: 200, Models: 2}, results["azure-v1"])
	require.Equal(t, spillover.CheckResult{Backend: "openai", URL: strings.TrimSuffix(servers["openai"].URL, "/v1") + "/v1/models", OK: true, Status: 200, Models: 2, NotListed: []string{"mine"}}, results["openai"], "drained ones are asked too")
	require.True(t, results["token"].OK)
	require.False(t, results["wrong key"].OK)
	require.Equal(t, 401, results["wrong key"].Status)
	require.Equal(t, "401", results["wrong key"].Reason)
	require.NotEmpty(t, results["wrong key"].Cause)
	require.Equal(t, "no token", results["no token"].Reason)
	require.Zero(t, results["no token"].Status)
	text, err := json.Marshal(results)
	require.NoError(t, err)
	require.NotContains(t, string(text), "secret-")
}

func TestCheckReportsWhyABackendDoesNotAnswer(t *testing.T) {
	page := status(200, "<html>Please log in</html>", "Content-Type: text/html")
	long := `{"data":[` + strings.Repeat(`{"id":"m"},`, 1<<19) + `{"id":"m"}]}`
	for name, test := range map[string]struct {
		answer   roundTripFunc
		key      bool
		change   func(*spillover.Backend)
		ok       bool
		status   int
		reason   string
		cause    string
		tookMost time.Duration
	}{
		"DNS":                  {answer: broken(errDNS), key: true, reason: "no connection", cause: "no such host"},
		"refused":              {answer: broken(errRefused), key: true, reason: "no connection", cause: "connection refused"},
		"reset":                {answer: broken(errReset), key: true, reason: "no answer", cause: "connection reset"},
		"hangs":                {answer: hung, key: true, reason: "no answer in time", cause: "no list of models within 10s", tookMost: 10 * time.Second},
		"hangs, HeaderTimeout": {answer: hung, key: true, change: func(b *spillover.Backend) { b.HeaderTimeout = 2 * time.Second }, reason: "no answer in time", cause: "within 2s", tookMost: 2 * time.Second},
		"hangs in the body":    {answer: withBody(200, func(req *http.Request) io.ReadCloser { return stalledBody{req.Context(), new(atomic.Int64)} }), key: true, status: 200, reason: "no answer in time", cause: "within 10s", tookMost: 10 * time.Second},
		"token hangs": {change: func(b *spillover.Backend) {
			b.Token = func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		}, answer: ok200, reason: "no answer in time", cause: "within 10s", tookMost: 10 * time.Second},
		"server error":          {answer: status(500, `{"error":{"message":"Sorry, key-a.","code":"server_error"}}`), key: true, status: 500, reason: "500 server_error", cause: "Sorry, ***."},
		"no such operation":     {answer: status(404, `{"error":{"message":"Unknown."}}`), key: true, status: 404, reason: "404", cause: "Unknown."},
		"redirect":              {answer: status(307, "", "Location: https://elsewhere"), key: true, status: 307, reason: "307"},
		"a page":                {answer: page, key: true, status: 200, reason: "not a list of models", cause: "the member data"},
		"too long":              {answer: status(200, long), key: true, status: 200, reason: "too long", cause: "longer than 4 MiB"},
		"asks for a credential": {answer: status(401, wrongKey), ok: true, status: 401},
		"refuses the key":       {answer: status(401, wrongKey), key: true, status: 401, reason: "401", cause: "Access denied"},
		"empty list":            {answer: status(200, `{"object":"list","data":[]}`), key: true, ok: true, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answer)
				b := azure("a")
				if !test.key {
					b.APIKey = ""
				}
				if test.change != nil {
					test.change(&b)
				}
				began := time.Now()
				r := checked(t, balance(t, n, b))["a"]
				require.Equal(t, test.tookMost, time.Since(began))
				require.Equal(t, test.ok, r.OK)
				require.Equal(t, test.status, r.Status)
				require.Equal(t, test.reason, r.Reason)
				require.Contains(t, r.Cause, test.cause)
				require.NotContains(t, r.Cause, "key-a")
				require.Equal(t, !test.key && b.Token == nil, r.Anonymous)
			})
		})
	}
}

func TestCheckReportsACertificateThatIsNotTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Config.ErrorLog = nil
	defer server.Close()
	tr := balance(t, nil, spillover.Backend{Name: "a", URL: server.URL + "/v1", APIKey: "key"})
	defer tr.Close()
	r := checked(t, tr)["a"]
	require.Equal(t, "no connection", r.Reason)
	require.Contains(t, r.Cause, "certificate")
}

func TestCheckOfAClosedTransportSendsNothing(t *testing.T) {
	n := newNet()
	tr := firstAndSecond(t, n)
	require.NoError(t, tr.Close())
	for _, r := range tr.Check(t.Context()) {
		require.False(t, r.OK)
		require.Equal(t, "closed", r.Reason)
	}
	require.Zero(t, n.Sends())
}

// Many backends are asked at the same time, but not all, and not after the context has
// ended.
func TestCheckAsksAFewAtATimeAndObeysItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			return slow(time.Second, status(200, `{"data":[{"id":"x"}]}`))(req)
		})
		var backends []spillover.Backend
		for i := range 20 {
			backends = append(backends, azure(fmt.Sprint("b", i)))
		}
		tr := configured(t, spillover.Config{Base: base, Backends: backends})
		began := time.Now()
		for i, r := range tr.Check(t.Context()) {
			require.True(t, r.OK)
			require.Equal(t, fmt.Sprint("b", i), r.Backend)
			require.EqualValues(t, 1000, r.TookMS)
		}
		require.Equal(t, 3*time.Second, time.Since(began))
		require.EqualValues(t, 8, most.Load())

		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		ok := 0
		for _, r := range tr.Check(ctx) {
			if r.OK {
				ok++
				continue
			}
			require.Equal(t, "canceled", r.Reason)
			require.Contains(t, r.Cause, "deadline exceeded")
		}
		require.Equal(t, 8, ok)
	})
}

// A panic of Base reaches the caller of Check, who can recover from it.
func TestCheckPanicsWhereItsCallerCanRecover(t *testing.T) {
	tr := balance(t, roundTripFunc(func(*http.Request) (*http.Response, error) { panic("boom") }), azure("a"), azure("b"))
	require.PanicsWithValue(t, "boom", func() { tr.Check(t.Context()) })
}

// What a list cannot tell is not reported as missing.
func TestCheckNamesOnlyModelsThatTheListLacks(t *testing.T) {
	for name, test := range map[string]struct {
		url, list string
		serves    []string
		missing   []string
	}{
		"listed":        {"https://api.openai.com", `[{"id":"m"}]`, []string{"m"}, nil},
		"missing":       {"https://api.openai.com", `[{"id":"x"}]`, []string{"m", "n"}, []string{"m", "n"}},
		"any model":     {"https://api.openai.com", `[{"id":"x"}]`, nil, nil},
		"Gemini":        {"https://gemini.example/v1", `[{"id":"models/m"}]`, []string{"m"}, nil},
		"Ollama":        {"http://localhost:11434/v1", `[{"id":"m:latest"}]`, []string{"m", "m:latest", "m:70b"}, []string{"m:70b"}},
		"OpenRouter":    {"https://openrouter.example/v1", `[{"id":"m"}]`, []string{"m:nitro"}, nil},
		"more pages":    {"https://api.openai.com", `[{"id":"x"}],"has_more":true`, []string{"m"}, nil},
		"Azure":         {"https://a.openai.azure.com", `[{"id":"x"}]`, []string{"m"}, nil},
		"Azure v1":      {"https://a.openai.azure.com/openai/v1", `[{"id":"x"}]`, []string{"m"}, nil},
		"a null":        {"https://api.openai.com", `[null,{"id":"m"}]`, []string{"m"}, nil},
		"not even text": {"https://api.openai.com", `[{"name":"m"}]`, []string{"m"}, []string{"m"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := spillover.Backend{Name: "a", URL: test.url, APIKey: "key"}
			serves(test.serves...)(&b)
			r := checked(t, balance(t, status(200, `{"data":`+test.list+`}`), b))["a"]
			require.True(t, r.OK, r.Cause)
			require.ElementsMatch(t, test.missing, r.NotListed)
		})
	}
}
