package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// withKeyFile gives a backend a file instead of its key.
func withKeyFile(path string) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.APIKey, b.APIKeyFile = "", path }
}

// accepting answers 401 to every key but one.
func accepting(key string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		if got := req.Header.Get("Api-Key"); got != key {
			return status(401, `{"error":{"code":"401","message":"Access denied: `+got+` is not valid"}}`)(req)
		}
		return status(200, "{}")(req)
	}
}

// A mounted Secret is replaced by swapping a symbolic link.
func TestKeyFileIsReadAgainWhenItChanges(t *testing.T) {
	for _, dialect := range []spillover.Dialect{spillover.Azure, spillover.OpenAI} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			for i, key := range []string{" first-key\n", "second-key"} {
				require.NoError(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i), "key"), []byte(key), 0o600))
			}
			require.NoError(t, os.Symlink("0", filepath.Join(dir, "..data")))
			path := filepath.Join(dir, "key")
			require.NoError(t, os.Symlink("..data/key", path))
			n := newNet()
			l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withKeyFile(path), func(b *spillover.Backend) { b.Dialect = dialect })}})
			key := func() string {
				ask(t, tr)
				h := n.Last().Header
				return h.Get("Api-Key") + h.Get("Authorization")
			}
			bearer := ""
			if dialect == spillover.OpenAI {
				bearer = "Bearer "
			}
			require.Equal(t, bearer+"first-key", key())
			require.NoError(t, os.Symlink("1", filepath.Join(dir, "..next")))
			require.NoError(t, os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")))
			time.Sleep(spillover.KeyFileInterval - 1)
			require.Equal(t, bearer+"first-key", key(), "it is not read for each request")
			time.Sleep(1)
			require.Equal(t, bearer+"second-key", key())
			require.Equal(t, []string{"INFO,API key changed,backend:a,tier:1"}, l.Log())
			require.NoError(t, tr.Close())
		})
	}
}

// A key that is rotated while requests are sent costs no request.
func TestRejectedKeyIsReadAgainAtOnce(t *testing.T) {
	for _, code := range []int{401, 403} {
		synctest.Test(t, func(t *testing.T) {
			path := testnet.WriteFile(t, "key", "old-key")
			n := newNet()
			n.On(host("a"), func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("Api-Key") == "old-key" {
					return status(code, `{"error":{"code":"401","message":"Access denied"}}`)(req)
				}
				return status(200, "{}")(req)
			})
			tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withKeyFile(path))}})
			testnet.ReplaceFile(t, path, "new-key")
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, 2, n.Sends(host("a")))
			require.True(t, statusOf(t, tr, "a").Available)

			// With the same key there is nothing to try.
			n.On(host("a"), status(code, `{"error":{"code":"401","message":"Access denied"}}`))
			resp, _ = ask(t, tr)
			require.Equal(t, code, resp.StatusCode)
			require.Equal(t, 3, n.Sends(host("a")))
			require.NoError(t, tr.Close())
		})
	}
}

// A backend that is out because of its key is back with the new one.
func TestNewKeyRepairsABackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testnet.WriteFile(t, "key", "old-key")
		n := newNet()
		n.On(host("a"), accepting("new-key"))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withKeyFile(path)), azure("b", priority(2))}})
		for range 2 {
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		}
		require.False(t, statusOf(t, tr, "a").Available)
		require.NotContains(t, fmt.Sprint(statusOf(t, tr, "a").LastFailure), "old-key")
		testnet.ReplaceFile(t, path, "new-key")
		time.Sleep(spillover.KeyFileInterval)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		log := strings.Join(l.Log(), "\n")
		require.Contains(t, log, "INFO,API key changed,backend:a,tier:1\nINFO,deployment back,backend:a")
		require.NotContains(t, log, "-key")
		require.NoError(t, tr.Close())
	})
}

// An answer to the old key says nothing about the new one.
func TestLateRejectionOfTheOldKeyDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testnet.WriteFile(t, "key", "old-key")
		n := newNet()
		n.On(host("a"), func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Api-Key") == "old-key" {
				time.Sleep(5 * time.Second)
			}
			return accepting("new-key")(req)
		})
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withKeyFile(path)), azure("b", priority(2))}})
		done := make(chan string)
		go func() {
			resp, _ := ask(t, tr)
			done <- servedBy(resp)
		}()
		time.Sleep(2 * time.Second)
		testnet.ReplaceFile(t, path, "new-key")
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.Equal(t, "a", <-done)
		require.True(t, statusOf(t, tr, "a").Available)
		require.NoError(t, tr.Close())
	})
}

func TestKeyFileThatBecomesInvalidKeepsTheLastKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testnet.WriteFile(t, "key", "the-key")
		n := newNet()
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withKeyFile(path))}})
		asked := func() {
			for range 3 {
				time.Sleep(2 * spillover.KeyFileInterval)
				ask(t, tr)
				require.Equal(t, "the-key", n.Last().Header.Get("Api-Key"))
			}
		}
		require.NoError(t, os.Remove(path))
		asked()
		testnet.ReplaceFile(t, path, "two secret-words")
		asked()
		testnet.ReplaceFile(t, path, "the-key\n")
		asked()
		testnet.ReplaceFile(t, path, " \n")
		asked()
		warning := "WARN,API key not read,backend:a,tier:1,path:" + path + ",error:"
		require.Equal(t, []string{
			warning + "no such file or directory",
			warning + "contains a space, a line break or a character that is not ASCII",
			warning + "is empty",
		}, l.Log())
		require.NoError(t, tr.Close())
	})
}

func TestKeyFileIsReadOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testnet.WriteFile(t, "key", "first")
		n := newNet()
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", withKeyFile(path))}})
		sent := func() string {
			ask(t, tr)
			return n.Last().Header.Get("Api-Key")
		}
		testnet.ReplaceFile(t, path, "second")
		time.Sleep(spillover.KeyFileInterval)
		require.Equal(t, "second", sent())
		testnet.ReplaceFile(t, path, "third")
		time.Sleep(spillover.KeyFileInterval - 1)
		require.Equal(t, "second", sent())
		time.Sleep(1)
		require.Equal(t, "third", sent())
		require.NoError(t, tr.Close())
	})
}

func TestKeyFileMistakes(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string { return testnet.WriteFile(t, "key", text) }
	for path, said := range map[string]string{
		filepath.Join(dir, "missing"): "no such file or directory",
		dir:                           "is a directory",
		file(""):                      "is empty",
		file(" \n\t"):                 "is empty",
		file("a secret"):              "contains a space, a line break or a character that is not ASCII",
		file("secret\nlines"):         "contains a space, a line break or a character that is not ASCII",
		file("secr\u00e9t"):           "contains a space, a line break or a character that is not ASCII",
		file("${SECRET_KEY}"):         "contains the name of a variable, not a key",
		file(strings.Repeat("secret", spillover.MaxKeyFile/6) + "sixteen-too-many"): "is larger than 64 KiB",
	} {
		require.Equal(t, []string{fmt.Sprintf(`backend "a": APIKeyFile: %q %s`, path, said)},
			mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", withKeyFile(path))}}))
	}
	require.Empty(t, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", withKeyFile(file(strings.Repeat("k", spillover.MaxKeyFile))))}}))

	key := file("k")
	require.Equal(t, []string{`backend "a": APIKey: cannot be combined with APIKeyFile`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.APIKeyFile = key })}}))
	require.Equal(t, []string{`backend "a": APIKeyFile: cannot be combined with Auth`, `backend "a": APIKeyFile: cannot be combined with Token`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", entra, func(b *spillover.Backend) { b.APIKeyFile, b.Auth = key, "spillover-test" })}}))

	// The same account, whichever way its key is set, and even if it cannot be read.
	at := func(name string, change func(*spillover.Backend)) spillover.Backend {
		return azure(name, func(b *spillover.Backend) { b.URL = "https://one.openai.azure.com" }, change)
	}
	const twice = `backend "b": URL: backend "a" already uses it for all models with the same credential`
	require.Equal(t, []string{twice}, mistakes(spillover.Config{Backends: []spillover.Backend{at("a", withKeyFile(key)), at("b", withKeyFile(file("k")))}}))
	require.Equal(t, []string{twice}, mistakes(spillover.Config{Backends: []spillover.Backend{at("a", func(b *spillover.Backend) { b.APIKey = "k" }), at("b", withKeyFile(key))}}))
	require.Contains(t, mistakes(spillover.Config{Backends: []spillover.Backend{at("a", withKeyFile("nowhere")), at("b", withKeyFile("nowhere"))}}), twice)
	require.Len(t, mistakes(spillover.Config{Backends: []spillover.Backend{at("a", withKeyFile("nowhere")), at("b", withKeyFile("elsewhere"))}}), 2)
}

func TestKeyFileIsRelativeToTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte("the-key"), 0o600))
	path := filepath.Join(dir, "c.yaml")
	load := func(text string) (spillover.Config, error) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return spillover.Load(path)
	}
	cfg, err := load("backends: [{url: h, api_key_file: key}]")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "key"), cfg.Backends[0].APIKeyFile)
	require.Empty(t, cfg.Backends[0].APIKey)
	require.NoError(t, configured(t, cfg).Close())

	_, err = load("backends: [{url: h, api_key_file: none}]")
	require.EqualError(t, err, fmt.Sprintf("%s:1:35: backends[0].api_key_file: %q no such file or directory", path, filepath.Join(dir, "none")))
	t.Setenv("SPILLOVER_TEST_NAME", "secret-name")
	_, err = load("backends: [{url: h, api_key_file: '${SPILLOVER_TEST_NAME}'}]")
	require.EqualError(t, err, path+":1:35: backends[0].api_key_file: ${SPILLOVER_TEST_NAME} no such file or directory")
	for _, key := range []string{"api_key_file", "auth"} {
		for _, value := range []string{"", "null", "''", "'${SPILLOVER_TEST_NONE:-}'"} {
			_, err = load("backends: [{url: h, " + key + ": " + value + " }]")
			require.ErrorContains(t, err, "backends[0]."+key+": is empty: leave it out if callers send their own credentials", value)
			require.Len(t, loadErrorsOf(err), 1)
		}
	}
}

// A file with a key that is not in the configuration file any more is missed.
func TestWatchRefusesALostKeyFileOrAuth(t *testing.T) {
	key := testnet.WriteFile(t, "key", "the-key")
	for name, b := range map[string]spillover.Backend{
		"file":   azure("a", withKeyFile(key)),
		"auth":   azure("a", func(b *spillover.Backend) { b.APIKey, b.Auth = "", "spillover-test" }),
		"header": azure("a", func(b *spillover.Backend) { b.APIKey, b.Headers = "", map[string]string{"X-Api-Key": "k"} }),
	} {
		for text, refused := range map[string]bool{
			"backends: [{name: a, url: \"https://a.openai.azure.com\"}]":                                      true,
			"backends: [{name: a, url: \"https://a.openai.azure.com\", api_key_file: \"" + key + "\"}]":       false,
			"backends: [{name: a, url: \"https://a.openai.azure.com\", auth: spillover-test}]":                false,
			"backends: [{name: a, url: \"https://a.openai.azure.com\", headers: {x-api-key: other}}]":         false,
			"backends: [{name: renamed, url: \"https://a.openai.azure.com\", api_key_file: \"" + key + "\"}]": false,
		} {
			synctest.Test(t, func(t *testing.T) {
				l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{b}})
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				require.Equal(t, context.DeadlineExceeded, tr.Watch(ctx, testnet.WriteFile(t, "c.yaml", text), nil))
				log := fmt.Sprint(l.Log())
				require.Equal(t, refused, strings.Contains(log, "set api_key, api_key_file or auth"), "%s: %s: %s", name, text, log)
				require.Equal(t, refused, strings.Contains(log, "configuration not loaded"), "%s: %s: %s", name, text, log)
				require.NoError(t, tr.Close())
			})
		}
	}
}

// The Secret that a new ConfigMap refers to may be mounted later.
func TestWatchWaitsForAKeyFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a")}})
		key := filepath.Join(t.TempDir(), "key")
		path := testnet.WriteFile(t, "c.yaml", fmt.Sprintf("backends: [{name: b, url: %q, api_key_file: %q}]", "https://"+host("b"), key))
		go func() { _ = tr.Watch(t.Context(), path, nil) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		records := l.Log()
		require.Len(t, records, 1, "once")
		require.Contains(t, records[0], "no such file or directory")
		testnet.ReplaceFile(t, key, "the-key")
		time.Sleep(spillover.WatchPeriod)
		synctest.Wait()
		require.Equal(t, "spillover.Transport(b)", tr.String())
		require.NoError(t, tr.Close())
	})
}

// A file is a credential: callers' own are not sent, and a spent quota is that of
// the account.
func TestKeyFileIsACredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testnet.WriteFile(t, "key", "the-key")
		n := newNet()
		n.On(host("one"), status(429, noQuota))
		at := func(name, model string, tier int) spillover.Backend {
			return azure(name, withKeyFile(path), func(b *spillover.Backend) {
				b.URL, b.Priority, b.Models = "https://"+host("one"), tier, []spillover.Model{{Name: "m", Deployment: model}}
			})
		}
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{at("a", "x", 1), at("b", "y", 2), azure("c", priority(3))}})
		resp, _ := ask(t, tr)
		require.Equal(t, "c", servedBy(resp))
		require.Equal(t, "the-key", n.Seen[0].Header.Get("Api-Key"))
		require.Equal(t, 1, n.Sends(host("one")), "the account is out of quota, so the other deployment is not asked")
		require.NotContains(t, fmt.Sprint(l.Log()), "callers' credentials")

		// A new configuration with the same key repairs nothing.
		cfg := spillover.ConfigOf(tr)
		cfg.Backends = []spillover.Backend{at("a", "x", 1), at("b", "y", 2), azure("c", priority(3))}
		require.NoError(t, tr.Reconfigure(cfg))
		require.False(t, statusOf(t, tr, "a").Available)
		testnet.ReplaceFile(t, path, "new-key")
		require.NoError(t, tr.Reconfigure(cfg))
		require.True(t, statusOf(t, tr, "a").Available)
		require.NoError(t, tr.Close())
	})
}
