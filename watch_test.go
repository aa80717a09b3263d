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
		adjust := func(cfg *Config) { cfg.Base = n }
		adjust(&cfg)
		tr := configured(t, cfg)
		var watching error
		go func() { watching = tr.Watch(t.Context(), path, adjust) }()
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

// Without an adjust, and with what New refuses.
func TestWatchRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := balance(t, newNet(), azure("a"))
		path := written(t, "c.yaml", "backends: [{name: x, url: h}, {name: y, url: h}]")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, tr.Watch(ctx, path, nil))
		require.Equal(t, "spillover.Transport(a)", tr.String())
	})
}
