package spillover_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// The Transport follows a file, through a rename and as Kubernetes swaps it.
func TestWatchFollowsRenamesAndSymbolicLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Logf("in %s", dir)
	text := func(backend string) string {
		return fmt.Sprintf("backends: [{name: %[1]s, url: \"https://%[1]s.openai.azure.com\"}]", backend)
	}
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	path := filepath.Join(dir, "c.yaml")
	write("1/c.yaml", text("a"))
	require.NoError(t, os.Symlink("1", filepath.Join(dir, "..data")))
	require.NoError(t, os.Symlink("..data/c.yaml", path))

	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		cfg, err := spillover.Load(path)
		require.NoError(t, err)
		cfg.Base = n
		tr := configured(t, cfg)
		var watching error
		go func() { watching = tr.Watch(t.Context(), path, nil) }()
		synctest.Wait()
		served := func(after time.Duration) string {
			time.Sleep(after)
			synctest.Wait()
			resp, _ := ask(t, tr)
			return servedBy(resp)
		}
		require.Equal(t, "a", served(5*time.Second))

		write("2/c.yaml", text("b"))
		require.NoError(t, os.Symlink("2", filepath.Join(dir, "..next")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")))
		require.Equal(t, "a", served(time.Second))
		require.Equal(t, "b", served(4*time.Second))

		write("new", text("c"))
		require.NoError(t, os.Rename(filepath.Join(dir, "new"), path))
		require.Equal(t, "c", served(5*time.Second))

		write("c.yaml", "backends: [")
		require.Equal(t, "c", served(5*time.Second))
		require.NoError(t, os.Remove(path))
		require.Equal(t, "c", served(5*time.Second))
		write("c.yaml", text("d"))
		require.Equal(t, "d", served(5*time.Second))

		require.NoError(t, tr.Close())
		synctest.Wait()
		require.ErrorIs(t, watching, net.ErrClosed)
	})
}

// What New rejects changes nothing, and is logged once.
func TestWatchReportsWhatNewRejectsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a")}})
		path := testnet.WriteFile(t, "c.yaml", "backends: [{name: x, url: h, api_key: literal}, {name: y, url: h, api_key: literal}]")
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, tr.Watch(ctx, path, nil))
		require.Equal(t, "spillover.Transport(a)", tr.String())
		records := l.Log()
		require.Len(t, records, 1)
		require.Contains(t, records[0], "WARN,configuration not loaded,path:"+path+",error:"+path+":1:64: backends[")
		require.Contains(t, records[0], " already uses it for all models with the same credential")
		require.NotContains(t, records[0], "literal")
		require.NoError(t, tr.Close())
	})
}

// The file that the configuration came from changes nothing when it is first applied.
func TestWatchOfTheSameContentIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const file = `
max_wait: 1s
backends:
  - {url: https://a.openai.azure.com/openai, api_key: SECRET, models: [{name: m, tpm: 7}], defaults: {temperature: 0.50, user: {a: 1}}, headers: {X-Team: SECRET}}
  - {name: %s, url: https://b.openai.azure.com, api_key: SECRET, weight: %d}
`
		path := testnet.WriteFile(t, "c.yaml", fmt.Sprintf(file, "b", 1))
		cfg, err := spillover.Load(path)
		require.NoError(t, err)
		l := telemetrytest.New()
		tr := configured(t, withListener(l, cfg))
		go func() { _ = tr.Watch(t.Context(), path, nil) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Empty(t, l.Log())
		for _, step := range []struct{ text, want string }{
			{fmt.Sprintf(file, "b", 2), "INFO,reconfigured,backends:2,changed:[b: weight]"},
			{fmt.Sprintf(file, "c", 2), "INFO,reconfigured,backends:2,added:[c],removed:[b]"},
			{strings.Replace(fmt.Sprintf(strings.ReplaceAll(file, "SECRET", "OTHER"), "c", 2), "1s", "2s", 1), "INFO,reconfigured,backends:2,changed:[a.openai.azure.com: api_key, headers,c: api_key],settings:[max_wait]"},
		} {
			require.NoError(t, os.WriteFile(path, []byte(step.text), 0o600))
			time.Sleep(5 * time.Second)
			synctest.Wait()
			require.Equal(t, []string{step.want}, l.Log())
		}
		require.NoError(t, tr.Close())
	})
}

// What cannot be set in a file stays, unless adjust changes it.
func TestWatchKeepsWhatOnlyCodeCanSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		token := func(token string) spillover.TokenFunc {
			return func(context.Context) (string, error) { return token, nil }
		}
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{
			{URL: "https://unnamed.openai.azure.com", Token: token("unnamed")}, {Name: "keyed", URL: "https://k.openai.azure.com", Token: token("lost")}}})
		path := testnet.WriteFile(t, "c.yaml", `
backends:
  - url: https://unnamed.openai.azure.com/openai
  - {name: keyed, url: https://k.openai.azure.com, api_key: key, priority: 2}
  - {name: new, url: https://new.openai.azure.com, priority: 3}
`)
		go func() {
			_ = tr.Watch(t.Context(), path, func(cfg *spillover.Config) {
				if b := &cfg.Backends[2]; b.Token == nil {
					b.Token = token("new")
				}
			})
		}()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"INFO,reconfigured,backends:3,added:[new],changed:[keyed: api_key, priority, token]"}, l.Log())
		var sent []string
		for _, backend := range []string{"unnamed.openai.azure.com", "keyed", "new"} {
			resp, _ := ask(t, tr)
			require.Equal(t, backend, servedBy(resp))
			sent = append(sent, n.Last().Header.Get("Authorization")+n.Last().Header.Get("Api-Key"))
			require.NoError(t, tr.Drain(backend))
		}
		require.Equal(t, []string{"Bearer unnamed", "key", "Bearer new"}, sent)
		require.NoError(t, tr.Close())
	})
}
