package main

import (
	"cmp"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

const root = "../.."

var testName = regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+|Example\w*)\(`)

// Every rule can still be broken as the list says, and the tests that are named exist.
func TestEveryRuleCanBeBroken(t *testing.T) {
	t.Parallel()
	mutants, err := read(root)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(mutants), 75)
	rules, names := map[string]bool{}, map[string][]string{}
	for _, m := range mutants {
		require.NotEmpty(t, m.Rule)
		require.False(t, rules[m.Rule], "%s: twice", m.Rule)
		rules[m.Rule] = true
		changed, err := m.change(root)
		require.NoError(t, err, m.Rule)
		require.NotEqual(t, m.Old, m.New, m.Rule)
		_, err = parser.ParseFile(token.NewFileSet(), m.File, changed, parser.SkipObjectResolution)
		require.NoError(t, err, m.Rule)

		if names[m.Package] == nil {
			names[m.Package] = testsOf(t, m.Package)
		}
		for _, name := range m.tests() {
			require.Contains(t, names[m.Package], name, "%s: no such test", m.Rule)
		}
	}
}

// tests are the names in the pattern.
func (m *mutant) tests() (names []string) {
	for pattern := range strings.SplitSeq(m.Test, "|") {
		name, _, _ := strings.Cut(strings.Trim(pattern, "^$"), "/")
		names = append(names, strings.Trim(name, "^$"))
	}
	return names
}

func testsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range testName.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

func TestMutantsInDocs(t *testing.T) {
	mutants, err := read(root)
	require.NoError(t, err)
	var table strings.Builder
	table.WriteString("| rule | changed file | tests that notice |\n|---|---|---|\n")
	for _, m := range mutants {
		var tests []string
		for _, name := range m.tests() {
			tests = append(tests, "`"+name+"`")
		}
		dir := ""
		if own := cmp.Or(m.Package, "."); own != path.Dir(m.File) {
			dir = " of the root package"
			if m.Package != "" {
				dir = " of `" + m.Package + "`"
			}
		}
		fmt.Fprintf(&table, "| %s | `%s` | %s%s |\n", m.Rule, m.File, strings.Join(tests, ", "), dir)
	}
	doctest.Section(t, root+"/docs/mutants.md", "mutants", table.String())
}

func TestAChangeNeedsTextThatIsThereOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.go"), []byte("one two, two"), 0o600))
	for old, complaint := range map[string]string{"two": "2 times", "three": "0 times", "": "times"} {
		_, err := (&mutant{File: "a.go", Old: old, New: "x"}).change(dir)
		require.ErrorContains(t, err, complaint)
	}
	changed, err := (&mutant{File: "a.go", Old: "one", New: "x"}).change(dir)
	require.NoError(t, err)
	require.Equal(t, "x two, two", changed)
	_, err = (&mutant{File: "b.go"}).change(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Tests that are killed, for example for lack of memory, have noticed nothing.
func TestKilledTestsAreAnError(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("it has no signals")
	}
	path := filepath.Join(t.TempDir(), "test")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nkill -9 $$\n"), 0o700))
	failed, err := (&binary{path: path}).try(t.Context(), new(mutant), "TestX")
	require.ErrorContains(t, err, "killed")
	require.Empty(t, failed)
}

const listOfATestProgram = `
- {rule: sum, file: sum.go, old: 'a + b', new: 'a - b', test: TestSum}
- {rule: untested, file: sum.go, old: 'return "old"', new: 'return "new"', test: TestSum}
- {rule: tested elsewhere, file: sum.go, old: 's.n * 2', new: 's.n * 3', test: TestSum}
- {rule: a constant, file: sum.go, old: 'limit = 3', new: 'limit = 4', test: TestLimit}
- {rule: a crash, file: sum.go, old: 'all[0]', new: 'all[len(all)]', test: TestFirst}
- {rule: does not compile, file: sum.go, old: 'x := 1', new: 'x, y := 1, 2', test: TestSum}
- {rule: no such test, file: sum.go, old: 'return 7', new: 'return 8', test: TestNothing}
- {rule: a method without results, file: sum.go, old: 's.n++', new: 's.n--', test: TestMore}
- {rule: in another package, file: other/other.go, old: '1 + 1', new: '1', test: TestOther, package: other}
- {rule: in a package that is imported, file: other/other.go, old: '1 + 1', new: '3', test: TestImported}
`

// The program itself, on a module of its own.
func TestChangesAreTriedAndReported(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module sum\n\ngo 1.26\n", listFile: listOfATestProgram,
		"sum.go": `package sum

import "sum/other"

const limit = 3

type sum struct{ n int }

func add(a, b int) int { return a + b }

func Name() string { return "old" }

func (s *sum) double() int { return s.n * 2 }

func (s *sum) more() { s.n++ }

func first(all ...int) int { return all[0] }

func one() int { x := 1; return x }

func seven() int { return 7 }

func two() int { return other.Two() }
`,
		"sum_test.go": `package sum

import "testing"

func equal(t *testing.T, a, b int) {
	if a != b {
		t.Fatal(a, b)
	}
}

func TestSum(t *testing.T)      { equal(t, 3, add(1, 2)) }
func TestDouble(t *testing.T)   { equal(t, 8, (&sum{4}).double()) }
func TestLimit(t *testing.T)    { equal(t, 3, limit) }
func TestFirst(t *testing.T)    { equal(t, 5, first(5, 6)) }
func TestImported(t *testing.T) { equal(t, 2, two()) }

func TestMore(t *testing.T) {
	s := sum{4}
	s.more()
	equal(t, 5, s.n)
}
`,
		"other/other.go":      "package other\n\nfunc Two() int { return 1 + 1 }\n",
		"other/other_test.go": "package other\n\nimport \"testing\"\n\nfunc TestOther(t *testing.T) {\n\tif Two() != 2 {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	t.Chdir(dir)
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "")
	tried := func(only string, all bool) (lines []string, survived int, err error) {
		var out strings.Builder
		survived, err = run(context.Background(), &out, only, all, 2)
		took := regexp.MustCompile(`, [0-9.]+ s\n`)
		return strings.Split(took.ReplaceAllString(out.String(), "\n"), "\n"), survived, err
	}

	lines, survived, err := tried("", false)
	require.Subset(t, lines, []string{
		"noticed   sum: TestSum", "noticed   a constant: TestLimit", "noticed   a crash: TestFirst",
		"noticed   a method without results: TestMore", "noticed   in another package: TestOther",
		"noticed   in a package that is imported: TestImported",
		"SURVIVED  untested (sum.go; TestSum)", "SURVIVED  tested elsewhere (sum.go; TestSum)",
		"10 rules broken, 2 unnoticed",
	})
	require.Equal(t, 2, survived)
	require.Contains(t, lines, "ERROR     no such test (sum.go): no test has such a name")
	require.Contains(t, strings.Join(lines, "\n"), "ERROR     does not compile (sum.go): it does not compile: exit status 1\n")
	require.ErrorContains(t, err, "2 could not be tried", "which does not keep the others from it")

	_, _, err = tried("nothing has such a name", false)
	require.ErrorContains(t, err, "no rule matches")

	lines, survived, err = tried("untested|elsewhere", true)
	require.Subset(t, lines, []string{
		"ERROR     tested elsewhere (sum.go): is noticed by TestDouble, but not by TestSum", "SURVIVED  untested (sum.go; TestSum)",
	})
	require.Equal(t, 1, survived)
	require.Error(t, err)

	require.NoError(t, os.WriteFile("fails_test.go", []byte("package sum\n\nimport \"testing\"\n\nfunc TestNothing(t *testing.T) { t.Fatal() }\n"), 0o600))
	lines, _, err = tried("no such test", false)
	require.Contains(t, lines[0], "TestNothing fails without a change, too")
	require.Error(t, err)
}
