package spillovertest_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

const (
	azurePath  = "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
	openaiPath = "/v1/chat/completions"
	hello      = `{"model":"gpt","messages":[{"role":"user","content":"Hello there!"}],"max_tokens":3}`
	helloSSE   = `{"model":"gpt","messages":[{"role":"user","content":"Hello there!"}],"max_tokens":3,"stream":true}`
)

// servers makes a server of each kind from a configuration.
var servers = map[string]func(spillovertest.Config) *spillovertest.Server{
	"memory": spillovertest.New,
	"http":   spillovertest.NewServer,
	"https":  spillovertest.NewTLSServer,
}

// everywhere runs a test with each kind of server.
func everywhere(t *testing.T, cfg spillovertest.Config, test func(*testing.T, *spillovertest.Server)) {
	for name, make := range servers {
		t.Run(name, func(t *testing.T) {
			s := make(cfg)
			defer s.Close()
			test(t, s)
		})
	}
}

func request(t *testing.T, ctx context.Context, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(t, err)
	return r
}

// post sends body to a path of the server and returns the response.
func post(t *testing.T, s *spillovertest.Server, path, body string) (*http.Response, error) {
	t.Helper()
	return s.Client().Do(request(t, t.Context(), "POST", s.URL+path, body))
}

// get is post for requests that must succeed. It returns status, header and body.
func get(t *testing.T, s *spillovertest.Server, path, body string) (int, http.Header, string) {
	t.Helper()
	res, err := post(t, s, path, body)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, res.Header, string(b)
}

func deployment(l spillovertest.Limit, latency spillovertest.Latency) []spillovertest.Deployment {
	return []spillovertest.Deployment{{Name: "gpt", Limit: l, Latency: latency}}
}

// stopwatch returns a function for the time since its call, which is exact in a bubble.
func stopwatch() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
