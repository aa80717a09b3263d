package configfile_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
)

// A config has a field of every type that can be decoded, and of those that only
// code can set.
type config struct {
	Title      string
	Mode       mode
	MaxRetries int
	Small      int8
	Timeout    time.Duration
	DryRun     bool
	Labels     map[string]string
	Extra      map[string]any
	Tags       []string
	Limits     limits
	Servers    []server
	Hook       func()
	Output     io.Writer
	Parent     *config
	hidden     int // cannot be set from outside
}

var _ = config{}.hidden

type mode string

type limits struct{ MaxOpen, MaxIdle int }

type server struct {
	Name, URL string
	APIKey    string
	Weight    int
	Timeout   time.Duration
	Extra     map[string]any
	Ports     []port
	NewToken  func() string
}

type port struct {
	Name   string
	Number int
}

// environment is what ${NAME} finds in tests.
func environment(name string) (string, bool) {
	value, set := map[string]string{
		"KEY": "sk-from-the-environment", "HOST": "host.example", "THREE": "3", "EMPTY": "", "MINUTE": "1m", "NEGATIVE": "-7777", "INF": "inf",
		"YAML": "a: [1]\nb: &x *x # {", "JSON": `", "title": "`,
	}[name]
	return value, set
}

// decode decodes a text and returns its problems, one a line.
func decode(name, text string) (config, []string) {
	var cfg config
	_, problems := configfile.Decode(name, []byte(text), &cfg, environment, nil)
	return cfg, lines(problems)
}

// lines formats problems as line:column: path: error, without what is unknown.
func lines(problems []configfile.Problem) (all []string) {
	for _, p := range problems {
		where := ""
		if p.Line > 0 {
			where = fmt.Sprintf("%d:", p.Line)
		}
		if p.Column > 0 {
			where += fmt.Sprintf("%d:", p.Column)
		}
		if p.Path != "" {
			where += " " + p.Path + ":"
		}
		all = append(all, strings.TrimSpace(where+" "+p.Err.Error()))
	}
	return all
}

// written is a new file with a text.
func written(t testing.TB, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// seedFiles are the files of testdata that cannot be parsed, by name.
func seedFiles(t testing.TB) map[string]string {
	files, err := filepath.Glob("testdata/*.*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	seeds := map[string]string{}
	for _, file := range files {
		if filepath.Ext(file) != ".txt" {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			seeds[filepath.Base(file)] = string(text)
		}
	}
	return seeds
}
