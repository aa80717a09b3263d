package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// "spillover-test" is a source of tokens for tests: the token names the backend's host.
// It changes the URL that it gets.
func init() { //nolint:gochecknoinits // as a package does that registers one
	spillover.RegisterAuth("spillover-test", func(u *url.URL) (spillover.TokenFunc, error) {
		backend := u.Host
		*u = url.URL{Path: "/.default"}
		if backend == host("nobody") {
			return nil, errors.New("no identity")
		}
		return func(context.Context) (string, error) { return "token-of-" + backend, nil }, nil
	})
}

// withAuth gives a backend a source of tokens instead of its key.
func withAuth(name string) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.APIKey, b.Auth = "", name }
}

func TestAuthSendsTokens(t *testing.T) {
	n := newNet()
	l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withAuth("spillover-test"))}})
	resp, _ := ask(t, tr)
	require.Equal(t, "a", servedBy(resp))
	require.Equal(t, []string{"Bearer token-of-" + host("a")}, n.Last().Header["Authorization"])
	require.NotContains(t, n.Last().Header, "Api-Key", "the caller's own")
	require.Empty(t, l.Log())
	require.NoError(t, tr.Close())

	cfg, err := spillover.ParseConfig("f", []byte("backends: [{url: a.openai.azure.com, auth: spillover-test}]"), nil)
	require.NoError(t, err)
	require.Equal(t, []spillover.Backend{{URL: "a.openai.azure.com", Auth: "spillover-test"}}, cfg.Backends)
}

func TestAuthSourceMayChangeItsURL(t *testing.T) {
	require.Empty(t, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", withAuth("spillover-test")), azure("b", withAuth("spillover-test"))}}))
	require.Equal(t, []string{`backend 0 (` + host("nobody") + `): Auth: "spillover-test": no identity`}, mistakes(spillover.Config{Backends: []spillover.Backend{{URL: host("nobody"), Auth: "spillover-test"}}}))
}

func TestAuthMistakes(t *testing.T) {
	for auth, said := range map[string]string{
		"entra":          `"entra" is not registered: the program must import _ "github.com/spillover-go/spillover/entra"`,
		"Entra":          `"Entra" is not registered; did you mean "entra"?`,
		"spillover_test": `"spillover_test" is not registered; did you mean "spillover-test"?`,
		"kerberos":       `"kerberos" is not registered: it must be "spillover-test", or the program must import the package that registers it`,
	} {
		require.Equal(t, []string{`backend "a": Auth: ` + said}, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", withAuth(auth))}}))
	}
	_, err := spillover.ParseConfig("f", []byte("backends: [{url: h, auth: '${KEY}'}]"), environment)
	require.EqualError(t, err, `f:1:27: backends[0].auth: ${KEY} is not registered: it must be "spillover-test", or the program must import the package that registers it`)
	require.Equal(t, []string{`backend "nobody": Auth: "spillover-test": no identity`}, mistakes(spillover.Config{Backends: []spillover.Backend{azure("nobody", withAuth("spillover-test"))}}))
	require.Equal(t, []string{`backend "a": APIKey: cannot be combined with Auth`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.Auth = "spillover-test" })}}))
	require.Equal(t, []string{`backend "a": Auth: cannot be combined with Token`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", entra, func(b *spillover.Backend) { b.Auth = "spillover-test" })}}))
	require.Equal(t, []string{`backend "a": URL: is missing`}, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", withAuth("spillover-test"), func(b *spillover.Backend) { b.URL = "" })}}))
	one := func(b *spillover.Backend) { b.URL = "https://one.openai.azure.com" }
	require.Equal(t, []string{`backend "b": URL: backend "a" already uses it for all models with the same credential`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", one, withAuth("spillover-test")), azure("b", one, withAuth("spillover-test"))}}))

	source := func(*url.URL) (spillover.TokenFunc, error) { return nil, nil }
	require.PanicsWithValue(t, "spillover: RegisterAuth: the name is empty", func() { spillover.RegisterAuth("", source) })
	require.PanicsWithValue(t, "spillover: RegisterAuth: newToken is nil", func() { spillover.RegisterAuth("new", nil) })
	require.PanicsWithValue(t, `spillover: RegisterAuth: "spillover-test" is already registered`, func() { spillover.RegisterAuth("spillover-test", source) })
}

// A token that the configuration asked for is not kept as if the program had set it.
func TestWatchReplacesAuth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", entra)}})
		path := testnet.WriteFile(t, "c.yaml", "")
		go func() { _ = tr.Watch(t.Context(), path, nil) }()
		credential := func(text string) string {
			testnet.ReplaceFile(t, path, fmt.Sprintf("backends: [{name: a, url: %q, %s}]", "https://"+host("a"), text))
			time.Sleep(5 * time.Second)
			synctest.Wait()
			ask(t, tr)
			return n.Last().Header.Get("Authorization") + n.Last().Header.Get("Api-Key")
		}
		require.Equal(t, "Bearer token", credential("weight: 2"), "the program's")
		require.Equal(t, "Bearer token-of-"+host("a"), credential("auth: spillover-test"))
		require.Equal(t, "Bearer token-of-"+host("a"), credential("weight: 2"), "refused: it has no credential")
		require.Equal(t, "key", credential("api_key: key"))
		require.NoError(t, tr.Close())
	})
}
