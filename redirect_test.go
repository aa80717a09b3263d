package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
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

func TestRedirectElsewhere(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		n := newNet()
		n.On(host("a"), testnet.Redirect(code, "https://evil.example/openai/deployments/m/chat/completions?x=1"))
		n.On("evil.example", status(200, "{}"))
		resp := follow(t, balance(t, n, azure("a"), azure("b", priority(2))))
		require.Equal(t, 200, resp.StatusCode)
		require.Len(t, n.Seen, 2, "it is not balanced")
		there := n.Seen[1]
		require.Equal(t, "evil.example", there.Host)
		require.Equal(t, "/openai/deployments/m/chat/completions", there.Path)
		require.Equal(t, "x=1", there.Query)
		require.NotContains(t, there.Header, "Api-Key")
		require.NotContains(t, there.Header, "Authorization")
		onlySecret(t, there)
		if code >= 307 {
			require.Equal(t, n.Seen[0].Body, there.Body)
		} else {
			require.Empty(t, there.Body)
		}
		require.Empty(t, servedBy(resp))
		require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
	}
}

// Another backend has no say in what is asked in a backend's name: its key does
// not go along.
func TestRedirectToAnotherBackend(t *testing.T) {
	for _, location := range []string{
		"https://b.openai.azure.com/elsewhere", "https://B.OpenAI.azure.com/elsewhere", "https://b.openai.azure.com:443/elsewhere",
		"http://b.openai.azure.com/elsewhere",
	} {
		n := newNet()
		n.On(host("a"), testnet.Redirect(307, location))
		resp := follow(t, balance(t, n, azure("a"), azure("b", priority(2))))
		require.Len(t, n.Seen, 2)
		there := n.Seen[1]
		require.Equal(t, "/elsewhere", there.Path)
		onlySecret(t, there)
		if strings.HasPrefix(location, "https:") {
			require.Equal(t, "b", servedBy(resp))
		} else {
			require.Empty(t, servedBy(resp), "without TLS it is not that backend")
		}
	}
	// Nor by way of a host that is no backend.
	n := newNet()
	n.On(host("a"), testnet.Redirect(307, "https://evil.example/"), status(200, "{}"))
	n.On("evil.example", status(307, "", "Location: https://a.openai.azure.com/x", "X-Spillover-Backend: a"))
	follow(t, balance(t, n, azure("a")))
	require.Len(t, n.Seen, 3)
	onlySecret(t, n.Seen[2])
}

// A backend that redirects to itself is asked with its own key, in its own form.
func TestRedirectToItself(t *testing.T) {
	for _, location := range []string{"https://a.openai.azure.com/elsewhere", "https://A.openai.azure.com:443/elsewhere"} {
		n := newNet()
		n.On(host("a"), testnet.Redirect(307, location), status(200, "{}"))
		req := newChat(t, chatPath)
		req.Header.Set("Authorization", "Bearer the caller's")
		// Of two with one host it is the one that was asked.
		tr := balance(t, n, azure("first", func(b *spillover.Backend) { b.URL = "https://a.openai.azure.com"; b.Priority = 2 }), azure("a"))
		resp, err := (&http.Client{Transport: tr}).Do(req)
		require.NoError(t, err)
		read(t, resp)
		require.Equal(t, []string{"key-a"}, n.Seen[1].Header["Api-Key"])
		onlySecret(t, n.Seen[1], "key-a")
		require.Equal(t, "a", servedBy(resp))
	}
	n := newNet()
	n.On("api.openai.com", testnet.Redirect(307, "https://api.openai.com/v1/x"), testnet.Redirect(307, "http://api.openai.com/v1/x"), status(200, "{}"))
	follow(t, balance(t, n, spillover.Backend{URL: "https://api.openai.com/v1", APIKey: "key-b"}))
	require.Len(t, n.Seen, 3)
	require.Equal(t, []string{"Bearer key-b"}, n.Seen[1].Header["Authorization"])
	onlySecret(t, n.Seen[1], "Bearer key-b")
	onlySecret(t, n.Seen[2]) // never without TLS where that is configured
}

func TestRedirectToItselfWithToken(t *testing.T) {
	token, failure := "a token", error(nil)
	entra := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { return token, failure }
	}
	n := newNet()
	n.On(host("b"), testnet.Redirect(307, "https://b.openai.azure.com/x"), status(200, "{}"), func(req *http.Request) (*http.Response, error) {
		failure = errors.New("no token today")
		return testnet.Redirect(307, "https://b.openai.azure.com/x")(req)
	})
	tr := balance(t, n, azure("b", entra))
	follow(t, tr)
	onlySecret(t, n.Seen[1], "Bearer a token")
	require.Equal(t, []string{"Bearer a token"}, n.Seen[1].Header["Authorization"])

	_, err := (&http.Client{Transport: tr}).Do(newChat(t, chatPath))
	require.ErrorIs(t, err, failure)
	require.Len(t, n.Seen, 3, "it is not sent without")
}

// The error of the connection may quote the request.
func TestErrorOfARedirectToItselfContainsNoToken(t *testing.T) {
	const token = "no-heuristic-finds-it"
	entra := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { return token, nil }
	}
	lost := errors.New("lost: Authorization " + token)
	n := newNet()
	n.On(host("b"), testnet.Redirect(307, "https://b.openai.azure.com/x"), broken(lost))
	tr := balance(t, n, azure("b", entra))
	var trail spillover.Trail
	_, err := (&http.Client{Transport: tr}).Do(newChat(t, chatPath).WithContext(spillover.WithTrail(t.Context(), &trail)))
	require.ErrorIs(t, err, lost)
	require.ErrorContains(t, err, "b: lost: Authorization ***")
	require.NotContains(t, fmt.Sprintf("%v %+v %+v", err, tr.Status(), trail), token)
}

// What is sent to a backend by way of a redirect is in flight there and counted,
// so that a drain can wait for it.
func TestRedirectToABackendIsInFlight(t *testing.T) {
	n := newNet()
	n.On(host("a"), testnet.Redirect(307, "https://b.openai.azure.com/x"))
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	nameless := func() spillover.DeploymentStatus {
		for _, d := range tr.Status().Tiers[1].Backends[0].Deployments {
			if d.Model == "" {
				d.LastFailure = spillover.Failure{}
				return d
			}
		}
		return spillover.DeploymentStatus{}
	}
	n.On(host("b"), func(req *http.Request) (*http.Response, error) {
		require.Equal(t, 1, nameless().InFlight)
		return status(200, "{}")(req)
	}, status(500, "{}"), broken(errors.New("lost")))
	resp, err := (&http.Client{Transport: tr}).Do(newChat(t, chatPath))
	require.NoError(t, err)
	require.Equal(t, 1, nameless().InFlight, "until its answer has ended")
	read(t, resp)
	require.Equal(t, spillover.DeploymentStatus{Available: true, Served: 1}, nameless())

	follow(t, tr)
	_, err = (&http.Client{Transport: tr}).Do(newChat(t, chatPath))
	require.ErrorContains(t, err, "lost")
	require.Equal(t, spillover.DeploymentStatus{Available: true, Served: 2, Failed: 1}, nameless())
}

// The error of a redirected request is shown like any other: without the backend's key,
// and with the base's own error inside.
func TestErrorOfARedirectHoldsNoSecret(t *testing.T) {
	lost := errors.New("lost the request with key-a")
	n := newNet()
	n.On(host("a"), testnet.Redirect(307, "https://a.openai.azure.com/x"), broken(lost))
	_, err := (&http.Client{Transport: balance(t, n, azure("a"))}).Do(newChat(t, chatPath))
	require.ErrorIs(t, err, lost)
	require.ErrorContains(t, err, "a: lost the request with ***")
	require.NotContains(t, err.Error(), "key-a")
}

// A caller who leaves during a redirected request is no failure of the backend.
func TestCallerWhoLeavesARedirectIsNoFailure(t *testing.T) {
	n := newNet()
	ctx, leave := context.WithCancel(t.Context())
	n.On(host("a"), testnet.Redirect(307, "https://b.openai.azure.com/x"))
	n.On(host("b"), func(req *http.Request) (*http.Response, error) {
		leave()
		return nil, req.Context().Err()
	})
	tr := balance(t, n, azure("a"), azure("b", priority(2)))
	_, err := (&http.Client{Transport: tr}).Do(newChat(t, chatPath).WithContext(ctx))
	require.ErrorIs(t, err, context.Canceled)
	for _, d := range tr.Status().Tiers[1].Backends[0].Deployments {
		require.Zero(t, d.Failed)
		require.Zero(t, d.LastFailure)
		require.Zero(t, d.InFlight)
	}
}

// The caller's own host stands for the pool.
func TestRedirectWithinTheHost(t *testing.T) {
	for _, location := range []string{
		"/openai/deployments/m/embeddings?api-version=2", "https://foo.openai.azure.com/openai/deployments/m/embeddings?api-version=2", "embeddings?api-version=2",
		"https://Foo.OpenAI.azure.com/openai/deployments/m/embeddings?api-version=2",
	} {
		n := newNet()
		n.On(host("a"), testnet.Redirect(307, location), status(429, "{}"))
		resp := follow(t, balance(t, n, azure("a"), azure("b", priority(2))))
		require.Equal(t, "b", servedBy(resp), "balanced as ever")
		require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
		last := n.Seen[2]
		require.Contains(t, last.Path, "/embeddings")
		require.Equal(t, "api-version=2", last.Query)
		require.Equal(t, n.Seen[0].Body, last.Body)
		onlySecret(t, n.Seen[1], "key-a")
		onlySecret(t, last, "key-b")
	}
}

// Without a client that follows it, a redirect is an answer.
func TestRedirectIsAnAnswer(t *testing.T) {
	n := newNet()
	n.On(host("a"), testnet.Redirect(307, "https://evil.example/"))
	resp, _ := ask(t, balance(t, n, azure("a"), azure("b", priority(2))))
	require.Equal(t, 307, resp.StatusCode)
	require.Equal(t, "https://evil.example/", resp.Header.Get("Location"))
	require.Len(t, n.Seen, 1)
}

func TestRedirectPolicyStaysWithTheClient(t *testing.T) {
	asked := 0
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		asked++
		return testnet.Redirect(307, "/elsewhere")(req)
	})
	client := &http.Client{
		Transport:     balance(t, base, azure("a")),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(newChat(t, chatPath))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 307, resp.StatusCode)
	require.Equal(t, 1, asked)
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

// An answer from there is the caller's, whatever it says.
func TestRedirectElsewhereFails(t *testing.T) {
	for _, code := range []int{429, 500, 401} {
		n := newNet()
		n.On(host("a"), testnet.Redirect(307, "https://evil.example/"))
		n.On("evil.example", status(code, "no"))
		tr := balance(t, n, azure("a"), azure("b"))
		tr.SetRandom(func() uint64 { return 0 })
		require.Equal(t, code, follow(t, tr).StatusCode)
		require.Len(t, n.Seen, 2)
		for d := range spillover.DeploymentsOf(tr, "m") {
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
		var tr *spillover.Transport
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
		for d := range spillover.DeploymentsOf(tr, "") {
			require.Zero(t, d.InFlight.Load())
		}
	}
}
