package spillover

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
)

// secrets are all of the credentials there are in these tests.
var secrets = []string{"key-a", "key-b", "example API key", "the caller's", "a token"}

// onlySecret demands that no credential was sent but the one given.
func onlySecret(t testing.TB, s sent, but ...string) {
	for name, values := range s.Header {
		for _, value := range values {
			for _, secret := range secrets {
				if strings.Contains(value, secret) {
					require.Contains(t, but, value, "%s at %s", name, s.Host)
				}
			}
		}
	}
}

func follow(t testing.TB, tr http.RoundTripper) *http.Response {
	req := newChat(t, chatPath)
	req.Header.Set("Authorization", "Bearer the caller's")
	resp, err := (&http.Client{Transport: tr}).Do(req)
	require.NoError(t, err)
	read(t, resp)
	return resp
}

// An answer from there is the caller's, whatever it says.
func TestRedirectElsewhereFails(t *testing.T) {
	for _, code := range []int{429, 500, 401} {
		n := newNet()
		n.On(host("a"), testnet.Redirect(307, "https://evil.example/"))
		n.On("evil.example", status(code, "no"))
		tr := balance(t, n, azure("a"), azure("b"))
		tr.random = func() uint64 { return 0 }
		require.Equal(t, code, follow(t, tr).StatusCode)
		require.Len(t, n.Seen, 2)
		for _, d := range tr.table().find("m").tiers[0].members {
			require.False(t, d.Troubled())
			require.Zero(t, d.InFlight.Load())
		}
	}
	n := newNet()
	n.On(host("a"), testnet.Redirect(307, "https://evil.example/"))
	n.On("evil.example", broken(cutOff))
	_, err := (&http.Client{Transport: balance(t, n, azure("a"))}).Do(newChat(t, chatPath))
	require.ErrorIs(t, err, cutOff.Err)
}

func TestRedirectToADrainedBackend(t *testing.T) {
	for _, location := range []string{"https://b.openai.azure.com/x", "https://b.openai.azure.com:443/x", "https://a.openai.azure.com/x"} {
		n := newNet()
		var tr *Transport
		n.On(host("a"), func(req *http.Request) (*http.Response, error) {
			require.NoError(t, tr.Drain("a"))
			require.NoError(t, tr.Drain("b"))
			return testnet.Redirect(307, location)(req)
		})
		tr = balance(t, n, azure("a"), azure("b", priority(2)))
		resp := follow(t, tr)
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
		require.Empty(t, servedBy(resp))
		require.Len(t, n.Seen, 1, "nothing is sent there")
		for _, b := range tr.table().nameless.tiers {
			for _, d := range b.members {
				require.Zero(t, d.InFlight.Load())
			}
		}
	}
}

func TestRedirectChains(t *testing.T) {
	n := newNet()
	n.On(host("a"), testnet.Redirect(307, "https://evil.example/1"), status(500, "{}"))
	n.On("evil.example", testnet.Redirect(307, "/2"), testnet.Redirect(307, "https://worse.example/3"), testnet.Redirect(307, "https://b.openai.azure.com/4"))
	n.On("worse.example", testnet.Redirect(307, "https://evil.example/again"))
	n.On(host("b"), testnet.Redirect(307, "https://foo.openai.azure.com"+chatPath), status(200, "{}"))
	tr := steady(balance(t, n, azure("a"), azure("b")))
	resp := follow(t, tr)
	require.Equal(t, "b", servedBy(resp))
	var hosts []string
	for _, s := range n.Seen {
		hosts = append(hosts, strings.TrimSuffix(s.Host, ".openai.azure.com")+strings.TrimPrefix(s.Path, "/openai/deployments/m/chat"))
		if s.Path != "/4" { // to which evil.example redirects
			onlySecret(t, s, map[string]string{host("a"): "key-a", host("b"): "key-b"}[s.Host])
		} else {
			onlySecret(t, s)
		}
	}
	require.Equal(t, []string{
		"a/completions", "evil.example/1", "evil.example/2", "worse.example/3", "evil.example/again", "b/4", "a/completions", "b/completions",
	}, hosts)
}
