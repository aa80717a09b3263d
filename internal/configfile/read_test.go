package configfile_test

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
)

func TestReadWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                           "is a directory",
		filepath.Join(dir, "missing"): "no such file or directory",
		filepath.Join(written(t, "file", ""), "c.yaml"): "not a directory",
		"":       "no such file or directory",
		"a\x00b": "invalid argument",
	} {
		_, err := configfile.Read(path, configfile.MaxSize)
		require.EqualError(t, err, want, path)
	}
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")))
	_, err := configfile.Read(filepath.Join(dir, "link"), configfile.MaxSize)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestReadLimitsTheSize(t *testing.T) {
	most := strings.Repeat("#", configfile.MaxSize)
	text, err := configfile.Read(written(t, "most.yaml", most), configfile.MaxSize)
	require.NoError(t, err)
	require.Equal(t, most, string(text))
	_, err = configfile.Read(written(t, "more.yaml", most+"#"), configfile.MaxSize)
	require.EqualError(t, err, "is larger than 1 MiB")

	path := written(t, "huge.yaml", "")
	require.NoError(t, os.Truncate(path, 1<<40)) // takes no space
	_, err = configfile.Read(path, configfile.MaxSize)
	require.EqualError(t, err, "is larger than 1 MiB")

	if runtime.GOOS == "linux" {
		text, err = configfile.Read("/proc/self/maps", configfile.MaxSize) // of size 0, with a content
		require.NoError(t, err)
		require.NotEmpty(t, text)
	}
}

// A tamperedFile changes when it has been read.
type tamperedFile struct {
	fs.File
	change func()
}

func (f *tamperedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err == io.EOF {
		f.change()
	}
	return n, err
}

func TestReadAgainWhatChanges(t *testing.T) {
	path := written(t, "c.yaml", "old")
	then := time.Now().Add(-time.Hour).Truncate(time.Second)
	put := func(path, text string, changed time.Time) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		require.NoError(t, os.Chtimes(path, time.Time{}, changed))
	}
	// Each change shows in one way only.
	for name, change := range map[string]func(){
		"in size": func() { put(path, "old, new", then) },
		"in time": func() { put(path, "new", then.Add(time.Second)) },
		"in name": func() {
			put(path+".new", "new", then)
			require.NoError(t, os.Rename(path+".new", path))
		},
	} {
		put(path, "old", then)
		reads := 0
		text, err := configfile.ReadWith(path, func(path string) (fs.File, error) {
			f, err := os.Open(path)
			return &tamperedFile{File: f, change: func() {
				if reads++; reads == 1 {
					change()
				}
			}}, err
		})
		require.NoError(t, err, name)
		require.Equal(t, 2, reads, name)
		require.Contains(t, string(text), "new", name)
	}

	longer := ""
	for want, change := range map[string]func(){
		"keeps changing while it is read": func() { longer += "x"; put(path, longer, then) },
		"no such file or directory":       func() { require.NoError(t, os.Remove(path)) },
	} {
		put(path, "old", then)
		_, err := configfile.ReadWith(path, func(path string) (fs.File, error) {
			f, err := os.Open(path)
			return &tamperedFile{File: f, change: change}, err
		})
		require.EqualError(t, err, want)
	}
}

func TestReadReturnsErrorsOfTheSystem(t *testing.T) {
	path := written(t, "c.yaml", "a: b")
	denied := &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	_, err := configfile.ReadWith(path, func(string) (fs.File, error) { return nil, denied })
	require.Equal(t, fs.ErrPermission, err)
	_, err = configfile.ReadWith(path, func(path string) (fs.File, error) {
		f, err := os.Open(path)
		require.NoError(t, f.Close())
		return f, err
	})
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = configfile.ReadWith(path, func(string) (fs.File, error) { return endless{}, nil })
	require.EqualError(t, err, "is larger than 1 MiB")
}

type endless struct{ fs.File }

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }
