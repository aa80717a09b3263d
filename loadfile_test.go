package spillover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const minimal = "backends: [{url: h.example}]\n"

// written is a file of its own with a text.
func written(t testing.TB, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestLoad(t *testing.T) {
	t.Setenv("SPILLOVER_TEST_HOST", "h.example")
	path := written(t, "c.yaml", "backends: [{url: \"${SPILLOVER_TEST_HOST}\"}]")
	cfg, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, Config{Backends: []Backend{{URL: "h.example"}}}, cfg)

	require.NoError(t, os.WriteFile(path, []byte("backends: [{url: \"${SPILLOVER_TEST_NO_HOST}\"}]"), 0o644))
	_, err = Load(path)
	require.EqualError(t, err, path+":1:18: backends[0].url: the variable SPILLOVER_TEST_NO_HOST is not set")
	var e *LoadError
	require.ErrorAs(t, err, &e)
	require.Equal(t, LoadError{File: path, Line: 1, Column: 18, Path: "backends[0].url", Err: e.Err}, *e)
	require.EqualError(t, e.Unwrap(), "the variable SPILLOVER_TEST_NO_HOST is not set")
}

// A name that ends in .json is JSON, whatever else the text may be.
func TestLoadJSONByName(t *testing.T) {
	_, err := Load(written(t, "c.yml", minimal))
	require.NoError(t, err)
	_, err = Load(written(t, "c.JSON", minimal))
	require.ErrorContains(t, err, "c.JSON:1:1: is no JSON: invalid character 'b' looking for beginning of value")
	_, err = Load(written(t, "c", `{"backends": [{"url": "h.example"}]}`))
	require.NoError(t, err)
}

func TestLoadWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                                "is a directory",
		filepath.Join(dir, "missing.yaml"): "no such file or directory",
		filepath.Join(written(t, "file", ""), "c.yaml"): "not a directory",
		"":       "no such file or directory",
		"a\x00b": "invalid argument",
	} {
		cfg, err := Load(path)
		require.EqualError(t, err, path+": "+want)
		require.Equal(t, Config{}, cfg)
		require.Equal(t, want == "no such file or directory", errors.Is(err, fs.ErrNotExist), path)
	}
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "link")))
	_, err := Load(filepath.Join(dir, "link"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestLoadSize(t *testing.T) {
	most := minimal + strings.Repeat("#", maxConfigFile-len(minimal))
	_, err := Load(written(t, "most.yaml", most))
	require.NoError(t, err)
	path := written(t, "more.yaml", most+"#")
	_, err = Load(path)
	require.EqualError(t, err, path+": is larger than 1 MiB")

	path = written(t, "huge.yaml", "")
	require.NoError(t, os.Truncate(path, 1<<40)) // takes no room
	_, err = Load(path)
	require.EqualError(t, err, path+": is larger than 1 MiB")

	if runtime.GOOS == "linux" {
		_, err = Load("/proc/self/maps") // of size 0, with a content
		require.ErrorContains(t, err, "/proc/self/maps:1")
	}
}

// A tampered file changes under the one who reads it.
type tampered struct {
	fs.File
	after func()
}

func (f *tampered) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err == io.EOF {
		f.after()
	}
	return n, err
}

func TestLoadWhileWritten(t *testing.T) {
	path := written(t, "c.yaml", "old")
	then := time.Now().Add(-time.Hour).Truncate(time.Second)
	put := func(path, text string, changed time.Time) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		require.NoError(t, os.Chtimes(path, time.Time{}, changed))
	}
	// Each tells by one thing alone that it is another file.
	for name, change := range map[string]func(){
		"by its size": func() { put(path, "old, new", then) },
		"by its time": func() { put(path, "new", then.Add(time.Second)) },
		"by its name": func() {
			put(path+".new", "new", then)
			require.NoError(t, os.Rename(path+".new", path))
		},
	} {
		put(path, "old", then)
		reads := 0
		text, err := readConfigFile(path, func(path string) (fs.File, error) {
			f, err := os.Open(path)
			return &tampered{File: f, after: func() {
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
	for _, want := range []struct {
		change func()
		said   string
	}{
		{func() { longer += "x"; put(path, longer, then) }, "changes while it is read"},
		{func() { require.NoError(t, os.Remove(path)) }, "no such file or directory"},
	} {
		put(path, "old", then)
		_, err := readConfigFile(path, func(path string) (fs.File, error) {
			f, err := os.Open(path)
			return &tampered{File: f, after: want.change}, err
		})
		require.EqualError(t, err, want.said)
	}
}

// What open and Read may say.
func TestLoadBrokenFile(t *testing.T) {
	path := written(t, "c.yaml", minimal)
	denied := &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	_, err := readConfigFile(path, func(string) (fs.File, error) { return nil, denied })
	require.Equal(t, fs.ErrPermission, err)
	_, err = readConfigFile(path, func(path string) (fs.File, error) {
		f, err := os.Open(path)
		require.NoError(t, f.Close())
		return f, err
	})
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = readConfigFile(path, func(string) (fs.File, error) { return noEnd{}, nil })
	require.EqualError(t, err, "is larger than 1 MiB")
}

type noEnd struct{ fs.File }

func (noEnd) Read(p []byte) (int, error) { return len(p), nil }
func (noEnd) Close() error               { return nil }

func TestLoadErrorText(t *testing.T) {
	e := errors.New("what")
	for _, c := range []struct {
		err  LoadError
		want string
	}{
		{LoadError{File: "f", Err: e}, "f: what"},
		{LoadError{File: "f", Line: 2, Err: e}, "f:2: what"},
		{LoadError{File: "f", Line: 2, Column: 3, Path: "a[0].b", Err: e}, "f:2:3: a[0].b: what"},
		{LoadError{File: "f", Path: "a", Err: e}, "f: a: what"},
	} {
		require.EqualError(t, &c.err, c.want)
	}
}

// Many mistakes are told up to a number.
func TestLoadManyMistakes(t *testing.T) {
	text := "backends: [{url: h.example}]\n"
	for i := range 150 {
		text += fmt.Sprintf("unknown-%d: 1\n", i)
	}
	_, err := parseConfig("f", []byte(text), environment)
	all := mistakesOf(err)
	require.Len(t, all, maxMistakes+1)
	require.EqualError(t, all[99], `f:101:1: unknown key "unknown-99"`)
	require.EqualError(t, all[100], "f: and 50 mistakes more")
}

// Small files that would grow.
func TestLoadBombs(t *testing.T) {
	t.Parallel()
	aliases := "backends: [{url: h.example, defaults: {a: &a [1,1,1,1,1,1,1,1,1]"
	for c := 'b'; c <= 'i'; c++ {
		aliases += fmt.Sprintf(", %[1]c: &%[1]c [%s]", c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	merges := "backends:\n- &a {url: h.example}\n- &b {<<: [" + strings.TrimSuffix(strings.Repeat("*a,", 500), ",") + "]}\n" +
		"- {<<: [" + strings.TrimSuffix(strings.Repeat("*b,", 1000), ",") + "]}\n"
	list := `{"backends":[{"defaults":{"a":[` + strings.Repeat("0,", maxValues) + `0]},"url":"h.example"}]}`
	for _, c := range []struct {
		name, text string
		mistakes   int
		said       string
	}{
		{"aliases", aliases + "}}]", 1, "is too much: no more than 100000 values are read, those of aliases included"},
		{"merges", merges, 1, "is too much: no more than 100000 values are read, those of aliases included"},
		{"list", list, 1, "is too much: no more than 100000 values are read, those of aliases included"},
		{"deep", "backends: [{url: h.example, defaults: {a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}}]", 1, "is more than 100 deep, or contains itself"},
		{"deeper", strings.Repeat("[", 20_000), 1, "exceeded max depth"},
		{"deeper JSON", `{"backends":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + "}", 1, "must be a mapping; this is a list"},
		{"variables", "backends: [{url: \"" + strings.Repeat("${BIG}", 100) + "\"}]", 1, "variables have made the file too long"},
		{"names", "backends: [{name: " + strings.Repeat("n", 200) + ", " + strings.Repeat("k", 200) + ": 1, url: \"${" + strings.Repeat("N", 200) + "}\"}]", 3,
			`backends["` + strings.Repeat("n", 64) + `…"].url: the variable ` + strings.Repeat("N", 64) + "… is not set"},
	} {
		_, err := parseConfig("f.yaml", []byte(c.text), func(name string) (string, bool) { return strings.Repeat("v", 100_000), name == "BIG" })
		require.ErrorContains(t, err, c.said, c.name)
		require.Len(t, mistakesOf(err), c.mistakes, c.name)
	}
}
