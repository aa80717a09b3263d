package spillovertest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// chatPaths are the path of a chat as callers of each dialect send it.
var chatPaths = map[spillovertest.Dialect]string{
	spillovertest.Azure:   "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
	spillovertest.AzureV1: "/openai/v1/chat/completions",
	spillovertest.OpenAI:  "/v1/chat/completions",
}

// A backend for a server in memory needs no Dialect, whatever the dialects of the server
// and the caller.
func TestDialectIsInferredFromTheURLInMemory(t *testing.T) {
	for _, dialect := range []spillovertest.Dialect{"", spillovertest.Azure, spillovertest.AzureV1, spillovertest.OpenAI} {
		for caller, path := range chatPaths {
			server := spillovertest.New(spillovertest.Config{Dialect: dialect})
			lb, err := spillover.New(spillover.Config{Base: server, Backends: []spillover.Backend{{URL: server.URL}}})
			require.NoError(t, err)
			res, err := lb.RoundTrip(request(t, t.Context(), http.MethodPost, "https://any.example"+path,
				`{"model":"gpt-4o","messages":[]}`))
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusOK, res.StatusCode, "server %q, caller %q", dialect, caller)
			require.NoError(t, lb.Close())
		}
	}
}

// The host names of servers in memory are reserved: if a test has no Base, its requests
// reach no server.
func TestHostNamesInMemoryAreReserved(t *testing.T) {
	for dialect := range chatPaths {
		server := spillovertest.New(spillovertest.Config{Dialect: dialect})
		require.True(t, strings.HasSuffix(server.URL, ".test"), server.URL)
	}
}
