package spillover

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAzureHosts(t *testing.T) {
	for host, want := range map[string]Dialect{
		"eastus.api.cognitive.microsoft.com":  Azure,
		"EastUS.api.cognitive.Microsoft.com":  Azure,
		"virginia.api.cognitive.microsoft.us": Azure,
		"chinaeast2.api.cognitive.azure.cn":   Azure,
		"r.cognitiveservices.azure.us":        Azure,
		"r.openai.azure.cn":                   Azure,
		"r.openai.azure.com.":                 Azure,
		"apim.azure-api.us":                   Azure,
		"r.services.ai.azure.us":              AzureV1,
		"models.inference.ai.azure.com":       OpenAI, // has bearer keys and no /openai
		"api.cognitive.microsoft.com.example": OpenAI,
		"evilapi.cognitive.microsoft.com":     OpenAI,
		"www.microsoft.com":                   OpenAI,
	} {
		require.Equal(t, want, filledIn(t, Backend{URL: "https://" + host}).Backends[0].Dialect, host)
	}
}

// A backend's URL is refused, or its parts are those that were given and stay
// what they are when they are read again.
func FuzzBackendURL(f *testing.F) {
	for _, s := range []string{
		"h", "https://r.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21", "https://r.services.ai.azure.com/models/chat/completions",
		"https://gw/my%2Fapi/deployments", "https://gw/openai/openai/v1/v1", "https://gw/a/deployments/deployments", "https://gw//v1//", "https://r.services.ai.azure.com/api/projects/p/openai", "http://[::1]:80/%2e%2e/v1",
	} {
		for _, d := range []Dialect{"", Azure, AzureV1, OpenAI} {
			f.Add(s, string(d), "secret")
		}
	}
	f.Fuzz(func(t *testing.T, text, dialect, secret string) {
		given := Backend{Name: "b", URL: text, Dialect: Dialect(dialect), APIKey: "k"}
		cfg, err := Config{Backends: []Backend{given}}.normalize()
		if u, e := url.Parse(text); e == nil && u.User == nil && u.RawQuery == "" && !strings.ContainsAny(text, "?#@") && err != nil {
			_, again := Config{Backends: []Backend{{Name: "b", URL: text + "?key=zq" + url.QueryEscape(secret), Dialect: Dialect(dialect), APIKey: "k"}}}.normalize()
			require.Error(t, again)
			require.NotContains(t, again.Error(), "zq"+url.QueryEscape(secret))
		}
		if err != nil {
			return
		}
		b := cfg.Backends[0]
		again, err := Config{Backends: []Backend{b}}.normalize()
		require.NoError(t, err)
		require.Equal(t, b, again.Backends[0])
		u, err := url.Parse(b.URL)
		require.NoError(t, err)
		require.Empty(t, u.RawQuery+u.Fragment)
		one, two := newBackend(b), newBackend(again.Backends[0])
		require.Equal(t, one.prefix(), two.prefix())
		require.False(t, strings.HasSuffix(one.prefix(), "/"))
		require.True(t, one.prefix() == "" || one.prefix()[0] == '/')
	})
}
