package spillover_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// The interop module compiles them.
func TestREADMEExamplesParse(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		code, _, ok := strings.Cut(block, "```")
		require.True(t, ok)
		_, whole := parser.ParseFile(token.NewFileSet(), "", code, 0)
		_, body := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc f() {\n"+code+"\n}", 0)
		_, declarations := parser.ParseFile(token.NewFileSet(), "", "package p\n"+code, 0)
		require.True(t, whole == nil || body == nil || declarations == nil, "%v in\n%s", body, code)
	}
}

// fileGroups are the groups of files in docs/architecture.md, from the top down.
func fileGroups(t testing.TB) (groups [][]string) {
	text, err := os.ReadFile("docs/architecture.md")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(text), "<!-- files: begin -->")
	require.True(t, ok)
	list, _, ok = strings.Cut(list, "<!-- files: end -->")
	require.True(t, ok)
	row := regexp.MustCompile("^\\| `([a-z]+\\.go)` \\|")
	for line := range strings.Lines(list) {
		if strings.HasPrefix(line, "**") {
			groups = append(groups, nil)
		}
		if m := row.FindStringSubmatch(line); m != nil {
			groups[len(groups)-1] = append(groups[len(groups)-1], m[1])
		}
	}
	return groups
}

// docs/architecture.md lists every file of the root package once, and names every
// internal package.
func TestArchitectureListsEveryFile(t *testing.T) {
	listed := map[string]int{}
	for _, group := range fileGroups(t) {
		for _, file := range group {
			listed[file]++
		}
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			require.Equal(t, 1, listed[file], file)
			delete(listed, file)
		}
	}
	require.Empty(t, listed, "these files do not exist")
	text, err := os.ReadFile("docs/architecture.md")
	require.NoError(t, err)
	named := regexp.MustCompile("internal/[a-z]+").FindAllString(string(text), -1)
	packages, err := filepath.Glob("internal/*")
	require.NoError(t, err)
	require.Subset(t, named, packages)
}

// Files use files of their own group and of the groups below it, and no more than
// ten know each other.
func TestFilesUseOnlyGroupsBelow(t *testing.T) {
	level := map[string]int{}
	for i, group := range fileGroups(t) {
		for _, file := range group {
			level[file] = i
		}
	}
	uses := fileUses(t)
	require.Greater(t, len(uses), 30)
	for from, all := range uses {
		for to, name := range all {
			require.LessOrEqual(t, level[from], level[to], "%s uses %s of %s", from, name, to)
		}
	}
	// What a file reaches and is reached by is its cycle.
	reach := func(from string) map[string]bool {
		seen := map[string]bool{}
		var visit func(string)
		visit = func(file string) {
			for next := range uses[file] {
				if !seen[next] {
					seen[next] = true
					visit(next)
				}
			}
		}
		visit(from)
		return seen
	}
	reached := map[string]map[string]bool{}
	for file := range uses {
		reached[file] = reach(file)
	}
	for file := range uses {
		var cycle []string
		for other := range reached[file] {
			if reached[other][file] {
				cycle = append(cycle, other)
			}
		}
		slices.Sort(cycle)
		require.LessOrEqual(t, len(cycle), 10, "%v", cycle)
	}
}

// fileUses is, for each file of the root package, the files that it uses a name of.
// Types of other packages are not resolved: a name that is only known through one
// is not found.
func fileUses(t testing.TB) map[string]map[string]string {
	fset := token.NewFileSet()
	var files []*ast.File
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, f)
		}
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: noImporter{}, Error: func(error) {}}
	pkg, _ := config.Check("spillover", fset, files, info)
	uses := map[string]map[string]string{}
	for id, o := range info.Uses {
		v, isVar := o.(*types.Var)
		if o.Pkg() != pkg || isVar && !v.IsField() && o.Parent() != pkg.Scope() {
			continue // of another package, or local
		}
		from, to := fset.Position(id.Pos()).Filename, fset.Position(o.Pos()).Filename
		if from != to {
			if uses[from] == nil {
				uses[from] = map[string]string{}
			}
			uses[from][to] = id.Name
		}
	}
	return uses
}

// A noImporter knows every package, and nothing in it.
type noImporter struct{}

func (noImporter) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}

// The tests that architecture and contributor guide name exist.
func TestGuidesNameTestsThatExist(t *testing.T) {
	tests := declarations(t, "*_test.go", "internal/*/*_test.go", "interop/*_test.go", "benchmarks/*/*_test.go", "fleet/redis/example/*_test.go")
	for _, file := range []string{"docs/architecture.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, found)
		for _, m := range found {
			require.NotZero(t, tests[m[1]], "%s names %s", file, m[1])
		}
	}
}
