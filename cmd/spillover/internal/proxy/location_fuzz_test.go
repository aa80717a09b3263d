package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// Wherever a backend sends a caller, the caller is not sent to the backend itself, for
// which it has no credential, and at the proxy only to what it can be asked for.
func FuzzLocation(f *testing.F) {
	backends := []spillover.Backend{
		{Name: "a", URL: "https://a.example", Dialect: spillover.Azure, APIKey: "k"}, {Name: "b", URL: "https://b.example/prefix/v1", Dialect: spillover.OpenAI, APIKey: "k"},
	}
	lb, err := spillover.New(spillover.Config{Backends: backends})
	require.NoError(f, err)
	f.Cleanup(func() { lb.Close() })
	for _, location := range []string{
		"", "/v1/x", "/prefix/v1/x?a=b#c", "https://a.example/openai/x", "https://A.Example.:443/openai/x", "//b.example/prefix/v1/x", "https://u:p@b.example/prefix/v1/%2e%2e", "https://storage.example/x?sig=y", "../x", "/prefix//evil.example/v1/",
		"http://a.example:443/openai/x", "https:///v1/x", "https:v1", "/prefix/v1/../../status", "\\\\evil.example/v1/", "https://a.example:0443/openai/x",
	} {
		for i := range backends {
			f.Add(location, i == 0, i == 1)
			f.Add(location, i == 0, i == 0)
		}
	}
	f.Fuzz(func(t *testing.T, location string, first, operation bool) {
		p := &Proxy{transport: lb}
		b, name := backends[1], "Location"
		if first {
			b = backends[0]
		}
		if operation {
			name = "Operation-Location"
		}
		e := &exchange{request: httptest.NewRequest("POST", "http://proxy.example/v1/files", nil)}
		resp := &http.Response{Header: http.Header{name: {location}, "X-Spillover-Backend": {b.Name}}}
		p.rewriteLocation(e, resp, name)
		if resp.Header[name] == nil {
			return
		}
		require.Len(t, resp.Header[name], 1)
		asked := &url.URL{Scheme: "http", Host: "proxy.example", Path: "/v1/files"}
		to, err := asked.Parse(resp.Header.Get(name))
		require.NoError(t, err)
		own := "a.example"
		if !first {
			own = "b.example"
		}
		host := strings.TrimSuffix(strings.ToLower(to.Hostname()), ".")
		require.False(t, host == own && to.Scheme == "https" && slices.Contains([]string{"", "443"}, to.Port()), to.String())
		if to.Host == asked.Host && location != to.String() {
			require.True(t, beginsWithOneOf(to.EscapedPath(), roots), to.String())
			require.Nil(t, to.User)
		}
	})
}
