package spillover

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// A browser's WebSocket has no headers of its own: Azure's realtime API takes
// the key in the query. It is the caller's credential there as elsewhere.
func TestCallersKeyInTheQuery(t *testing.T) {
	for name, c := range map[string]struct {
		b    Backend
		want string
	}{
		"a backend with a key":       {azure("a"), "api-version=v&deployment=m"},
		"OpenAI without one":         {Backend{Name: "a", URL: "https://api.openai.com"}, "model=m"},
		"Azure without one, its own": {Backend{Name: "a", URL: "https://a.openai.azure.com"}, "api-version=v&API-key=callers&api%2Dkey=callers&deployment=m"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			req, err := http.NewRequest(http.MethodGet, "https://foo.openai.azure.com/openai/realtime?api-version=v&API-key=callers&api%2Dkey=callers&deployment=m", nil)
			require.NoError(t, err)
			req.Header.Set("Upgrade", "websocket")
			resp, err := balance(t, n, c.b).RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, c.want, n.seen[0].query)
		})
	}
}
