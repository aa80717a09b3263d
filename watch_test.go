package spillover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A scripted file is what each look finds, and what came of it.
type scripted struct {
	looks []string // "!x" is the error x
	log   []string // what was done, with the number of the look
	n     int
}

func (s *scripted) watch() *fileWatch {
	return &fileWatch{
		look: func() ([]byte, error) {
			text := s.looks[min(s.n, len(s.looks)-1)]
			s.n++
			if text != "" && text[0] == '!' {
				return nil, errors.New(text[1:])
			}
			return []byte(text), nil
		},
		apply: func(text []byte) error {
			s.log = append(s.log, fmt.Sprintf("%d: apply %s", s.n, text))
			if text[0] == '?' {
				return errors.New("bad " + string(text))
			}
			return nil
		},
		report: func(err error) { s.log = append(s.log, fmt.Sprintf("%d: report %v", s.n, err)) },
	}
}

func TestFileWatch(t *testing.T) {
	for _, c := range []struct {
		name  string
		looks []string
		want  []string
	}{
		{"the first content counts", []string{"a", "a", "a", "a"}, []string{"2: apply a"}},
		{"a change", []string{"a", "a", "b", "b", "b", "a", "a"}, []string{"2: apply a", "4: apply b", "7: apply a"}},
		{"being written", []string{"a", "a", "b", "bc", "bcd", "bcd"}, []string{"2: apply a", "6: apply bcd"}},
		{"written in place", []string{"a", "a", "?", "b", "b"}, []string{"2: apply a", "5: apply b"}},
		{"never at rest", []string{"a", "b", "c", "d", "e"}, nil},
		{"bad is told once", []string{"a", "a", "?b", "?b", "?b", "?b"}, []string{"2: apply a", "4: apply ?b", "4: report bad ?b"}},
		{"bad, and bad in another way", []string{"?a", "?a", "?b", "?b"}, []string{"2: apply ?a", "2: report bad ?a", "4: apply ?b", "4: report bad ?b"}},
		{"gone for a moment", []string{"a", "a", "!gone", "a", "a"}, []string{"2: apply a"}},
		{"gone for long", []string{"a", "a", "!gone", "!gone", "!gone", "b", "b"}, []string{"2: apply a", "4: report gone", "7: apply b"}},
		{"gone in two ways", []string{"!gone", "!gone", "!denied", "!denied", "!denied"}, []string{"2: report gone", "4: report denied"}},
	} {
		s := &scripted{looks: c.looks}
		w := s.watch()
		for range c.looks {
			w.glance()
		}
		require.Equal(t, c.want, s.log, c.name)
	}
}

func TestFileWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{looks: []string{"a"}}
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		begun := time.Now()
		require.Equal(t, context.DeadlineExceeded, s.watch().run(ctx, nil))
		require.Equal(t, 9*time.Second, time.Since(begun), "at once")
		require.Equal(t, 5, s.n, "at 0, 2, 4, 6 and 8 s")
		require.Equal(t, context.DeadlineExceeded, s.watch().run(ctx, nil))

		closed := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { close(closed) })
		begun, s.n = time.Now(), 0
		require.ErrorIs(t, s.watch().run(t.Context(), closed), net.ErrClosed)
		require.Equal(t, 3*time.Second, time.Since(begun))
		require.Equal(t, 2, s.n)
		require.ErrorIs(t, s.watch().run(t.Context(), closed), net.ErrClosed)
		require.Equal(t, 2, s.n, "a look that nobody needs")
	})
}

// The Transport follows a file, through a rename and as Kubernetes swaps it.
func TestWatch(t *testing.T) {
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
		cfg, err := Load(path)
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

// What New refuses changes nothing, and is told once.
func TestWatchRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := overheard(t, Config{Base: newNet(), Backends: []Backend{azure("a")}})
		path := written(t, "c.yaml", "backends: [{name: x, url: h, api_key: literal}, {name: y, url: h, api_key: literal}]")
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, tr.Watch(ctx, path, nil))
		require.Equal(t, "spillover.Transport(a)", tr.String())
		records := l.log()
		require.Len(t, records, 1)
		require.Contains(t, records[0], "WARN,configuration not loaded,path:"+path+",error:"+path+":1:64: backends[")
		require.Contains(t, records[0], " already has every model of it under the same credential")
		require.NotContains(t, records[0], "literal")
		require.NoError(t, tr.Close())
	})
}

// What no file can say stays, unless adjust has another.
func TestWatchKeepsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		token := func(token string) TokenFunc {
			return func(context.Context) (string, error) { return token, nil }
		}
		l, tr := overheard(t, Config{Base: n, Backends: []Backend{
			{URL: "https://unnamed.openai.azure.com", Token: token("unnamed")}, {Name: "keyed", URL: "https://k.openai.azure.com", Token: token("lost")}}})
		path := written(t, "c.yaml", `
backends:
  - url: https://unnamed.openai.azure.com/openai
  - {name: keyed, url: https://k.openai.azure.com, api_key: key, priority: 2}
  - {name: new, url: https://new.openai.azure.com, priority: 3}
`)
		go func() {
			_ = tr.Watch(t.Context(), path, func(cfg *Config) {
				if b := &cfg.Backends[2]; b.Token == nil {
					b.Token = token("new")
				}
			})
		}()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"INFO,reconfigured,backends:3"}, l.log())
		var sent []string
		for _, backend := range []string{"unnamed.openai.azure.com", "keyed", "new"} {
			resp, _ := ask(t, tr)
			require.Equal(t, backend, servedBy(resp))
			sent = append(sent, n.last().header.Get("Authorization")+n.last().header.Get("Api-Key"))
			require.NoError(t, tr.Drain(backend))
		}
		require.Equal(t, []string{"Bearer unnamed", "key", "Bearer new"}, sent)
		require.NoError(t, tr.Close())
	})
}
