package spillover

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func entra(b *Backend) {
	b.APIKey, b.Token = "", func(context.Context) (string, error) { return "token", nil }
}

// filledIn is a configuration of one backend with its defaults.
func filledIn(t testing.TB, b Backend) Config {
	cfg, err := Config{Backends: []Backend{b}}.normalize()
	require.NoError(t, err)
	return cfg
}

func TestURLs(t *testing.T) {
	for given, want := range map[string]struct {
		url, name string
		d         Dialect
	}{
		"h.example":                                      {"https://h.example", "h.example", OpenAI},
		"http://127.0.0.1:8080":                          {"http://127.0.0.1:8080", "127.0.0.1:8080", OpenAI},
		"http://[::1]:8080/":                             {"http://[::1]:8080", "[::1]:8080", OpenAI},
		"[2001:db8::1]":                                  {"https://[2001:db8::1]", "[2001:db8::1]", OpenAI},
		"HTTPS://h.example/v1/":                          {"https://h.example", "h.example", OpenAI},
		"https://h.example/v1":                           {"https://h.example", "h.example", OpenAI},
		"https://gw.example/tenant%2Fa/v1":               {"https://gw.example/tenant%2Fa", "gw.example", OpenAI},
		"localhost:8080":                                 {"https://localhost:8080", "localhost:8080", OpenAI},
		"r.openai.azure.com":                             {"https://r.openai.azure.com", "r.openai.azure.com", Azure},
		"https://R.OpenAI.Azure.com/openai":              {"https://R.OpenAI.Azure.com", "R.OpenAI.Azure.com", Azure},
		"https://r.openai.azure.us/openai/v1/":           {"https://r.openai.azure.us", "r.openai.azure.us", AzureV1},
		"https://r.cognitiveservices.azure.com/":         {"https://r.cognitiveservices.azure.com", "r.cognitiveservices.azure.com", Azure},
		"https://r.services.ai.azure.com":                {"https://r.services.ai.azure.com", "r.services.ai.azure.com", AzureV1},
		"https://r.services.ai.azure.com/api/projects/p": {"https://r.services.ai.azure.com/api/projects/p", "r.services.ai.azure.com", AzureV1},
		"https://apim.azure-api.net/team":                {"https://apim.azure-api.net/team", "apim.azure-api.net", Azure},
		"https://openai.azure.com.evil.example":          {"https://openai.azure.com.evil.example", "openai.azure.com.evil.example", OpenAI},
	} {
		b := filledIn(t, Backend{URL: given}).Backends[0]
		require.Equal(t, want.url, b.URL, given)
		require.Equal(t, want.name, b.Name, given)
		require.Equal(t, want.d, b.Dialect, given)
	}
}

// A dialect that is given is believed.
func TestDialectIsGiven(t *testing.T) {
	b := filledIn(t, Backend{URL: "https://r.openai.azure.com/v1", Dialect: Azure}).Backends[0]
	require.Equal(t, "https://r.openai.azure.com/v1", b.URL)
	require.Equal(t, Azure, b.Dialect)
}

func TestDefaults(t *testing.T) {
	cfg := filledIn(t, Backend{URL: "h", Models: []Model{{Name: "m"}}})
	require.Equal(t, Config{
		Backends:    []Backend{{Name: "h", URL: "https://h", Priority: 1, Weight: 1, Dialect: OpenAI, Models: []Model{{Name: "m", Deployment: "m"}}}},
		MaxAttempts: 3, DefaultCooldown: 10 * time.Second, MaxCooldown: 60 * time.Second,
	}, cfg)

	tr := configured(t, Config{Backends: []Backend{azure("a")}})
	defer tr.Close()
	require.IsType(t, &http.Transport{}, BaseOf(tr))
	require.NotSame(t, http.DefaultTransport, BaseOf(tr))

	short := configured(t, Config{Backends: []Backend{{URL: "h"}}, MaxCooldown: 4 * time.Second})
	require.Equal(t, 4*time.Second, ConfigOf(short).DefaultCooldown)
}

// Callers may make names up: memory must not grow with them.
func TestManyModels(t *testing.T) {
	t.Parallel()
	n := newNet()
	tr := balance(t, n, azure("a", serves("m")), azure("b", priority(2)))
	for i := range maxRoutes + 500 {
		r := tr.table().find(fmt.Sprint("made-up-", i))
		require.Equal(t, i >= maxRoutes, r == tr.table().otherModels)
	}
	require.Len(t, *tr.table().routes.Load(), maxRoutes+1)
	require.Same(t, tr.table().find("made-up-7"), tr.table().find("made-up-7"))
	require.NotSame(t, tr.table().otherModels, tr.table().find("m"))

	// The latecomers are asked for under their own names, and share their state.
	n.On(host("b"), status(429, "", "Retry-After: 7"))
	resp, _ := send(t, tr, newChat(t, "/openai/deployments/late/chat/completions?api-version=1"))
	require.Equal(t, 429, resp.StatusCode)
	require.Equal(t, "/openai/deployments/late/chat/completions", n.Last().Path)
	resp, _ = send(t, tr, newChat(t, "/openai/deployments/later/chat/completions?api-version=1"))
	require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"))
	resp, _ = ask(t, tr)
	require.Equal(t, "a", servedBy(resp))

	deployments := tr.Status().Tiers[1].Backends[0].Deployments
	require.Len(t, deployments, maxRoutes+2)
	require.Equal(t, "*", deployments[0].Model)
}

func TestModelsAtFirstSight(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	const models, each = 20, 10
	var found [models][each]*route
	var wg sync.WaitGroup
	for m := range models {
		for i := range each {
			wg.Go(func() { found[m][i] = tr.table().find(fmt.Sprint(m)) })
		}
	}
	wg.Wait()
	for _, routes := range found {
		for _, r := range routes {
			require.Same(t, routes[0], r, "one state for one model")
		}
	}
}
