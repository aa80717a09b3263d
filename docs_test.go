package spillover

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// declarations are what the package declares, with how often: functions, constants,
// variables and types at its top level.
func declarations(t testing.TB, patterns ...string) map[string]int {
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		files = append(files, found...)
	}
	require.NotEmpty(t, files)
	names := map[string]int{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names[d.Name.Name]++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.ValueSpec:
						for _, name := range s.Names {
							names[name.Name]++
						}
					case *ast.TypeSpec:
						names[s.Name.Name]++
					}
				}
			}
		}
	}
	return names
}

// Each kind of failure is held by the tests that the table names.
func TestFailuresAreHeldByTests(t *testing.T) {
	text, err := os.ReadFile("docs/failures.md")
	require.NoError(t, err)
	tests := declarations(t, "*_test.go", "internal/*/*_test.go")
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]*)`")
	kinds := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what happens") {
			continue
		}
		kind := strings.TrimSpace(cells[0])
		require.False(t, kinds[kind] && kind != "the same", "%q is there twice", kind)
		kinds[kind] = true
		found := named.FindAllStringSubmatch(cells[len(cells)-1], -1)
		require.NotEmpty(t, found, "no test holds %q", kind)
		seen := map[string]bool{}
		for _, test := range found {
			require.Equal(t, 1, tests[test[1]], "%s is not a test of this module", test[1])
			require.False(t, seen[test[1]], "%s is named twice for %q", test[1], kind)
			seen[test[1]] = true
		}
	}
	require.Greater(t, len(kinds), 50)
}

// The constants that the table of bounds names are those of the code.
func TestBoundsAreConstants(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| what | bound | constant |\n|---|---|---|\n")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	names := declarations(t, "[a-z]*.go", "internal/*/*.go")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		for _, name := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(cells[len(cells)-2], -1) {
			require.Equal(t, 1, names[name[1]], "%s of %s", name[1], line)
		}
	}
}
