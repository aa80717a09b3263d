package interop

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every Go block of the documentation compiles:
//
//   - One that begins with "package" is a file, and compiles as it is.
//
//   - Any other is a fragment: imports, if any, then statements or else
//     declarations. What it takes for granted are the names below and, line by
//     line, what comments right before it say:
//
//     <!-- go: import openai "github.com/sashabaranov/go-openai" -->
//     <!-- go: var messages []openai.ChatCompletionMessage -->
//
//   - A fragment need not use what it declares or imports.
//
//   - Packages must be ones that this module requires.
const givenNames = `var (
	ctx context.Context
	lb *spillover.Transport
	err error
	key1, key2, key3 string
)`

var givenImports = []string{"context", "errors", "fmt", "io", "log", "net/http", "os", "time",
	"github.com/spillover-go/spillover", "github.com/spillover-go/spillover/spillovertest"}

func TestSnippets(t *testing.T) {
	var all []block
	for _, file := range documents(t) {
		all = append(all, blocks(t, file, "go")...)
	}
	require.NotEmpty(t, all)
	compiler := newCompiler(t, all)
	for _, b := range all {
		t.Run(b.String(), func(t *testing.T) {
			file, info, err := compiler.compile(b)
			require.NoError(t, err)
			requireValidConfigs(t, compiler.fset, file, info)
		})
	}
}

// What does not compile is told by file and line, whatever was put around it.
func TestSnippetErrors(t *testing.T) {
	for name, want := range map[string]struct {
		block
		err string
	}{
		"a file":             {block{text: "package main\n\nfunc main() { x }\n"}, "a.md:12:15: undefined: x"},
		"unused in a file":   {block{text: "package main\n\nimport \"os\"\n\nfunc main() {}\n"}, `a.md:12:8: "os" imported and not used`},
		"statements":         {block{text: "y := 1\nx()\n"}, "a.md:11:1: undefined: x"},
		"declarations":       {block{text: "func f() {}\nfunc (f) g() {}\n"}, "a.md:11:7: f (function) is not a type"},
		"after imports":      {block{text: "import \"os\"\n\nos.Nothing()\n"}, "a.md:12:4: undefined: os.Nothing"},
		"neither":            {block{text: "y := 1\n}{\n"}, "a.md:11:"},
		"given":              {block{text: "x()\n", given: []line{{8, `import "os"`}, {9, "var x os.Nothing"}}}, "a.md:9:10: undefined: os.Nothing"},
		"an unknown package": {block{text: "import \"example.com/unknown\"\n\nunknown.X()\n"}, "example.com/unknown"},
		"fine":               {block{text: "import \"net/http\"\n\nclient, err := &http.Client{Transport: lb}, errors.New(key1)\n"}, ""},
		"fine, given":        {block{text: "x()\n", given: []line{{8, `import web "net/http"`}, {9, "func x() web.Header { return nil }"}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			want.file, want.line = "a.md", 10
			var err error
			compiler, err := exports([]block{want.block})
			if err == nil {
				_, _, err = compiler.compile(want.block)
			}
			if want.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, want.err)
		})
	}
}

// A compiler has what the packages export that blocks import.
type compiler struct {
	fset     *token.FileSet
	importer types.Importer
}

func newCompiler(t *testing.T, all []block) *compiler {
	c, err := exports(all)
	require.NoError(t, err)
	return c
}

// exports asks the go command, whose cache has them from building this test.
func exports(all []block) (*compiler, error) {
	paths := slices.Clone(givenImports)
	for _, b := range all {
		for _, text := range []string{b.source(true), b.source(false)} {
			file, _ := parser.ParseFile(token.NewFileSet(), "", text, parser.ImportsOnly)
			if file == nil {
				continue
			}
			for _, i := range file.Imports {
				if p, err := strconv.Unquote(i.Path.Value); err == nil {
					paths = append(paths, p)
				}
			}
		}
	}
	slices.Sort(paths)
	args := []string{"list", "-mod=readonly", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}"}
	if built, ok := debug.ReadBuildInfo(); ok && slices.Contains(built.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, slices.Compact(paths)...)...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, problems.String())
	}
	files := map[string]string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		name, file, _ := strings.Cut(line, "=")
		files[name] = file
	}
	fset := token.NewFileSet()
	return &compiler{fset, importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, errors.New("no package " + path)
		}
		return os.Open(files[path])
	})}, nil
}

// compile checks the types of a block.
func (c *compiler) compile(b block) (*ast.File, *types.Info, error) {
	file, err := parser.ParseFile(c.fset, "", b.source(true), parser.SkipObjectResolution)
	if err != nil && !b.isFile() {
		if declarations, other := parser.ParseFile(c.fset, "", b.source(false), parser.SkipObjectResolution); other == nil {
			file, err = declarations, nil
		}
	}
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: c.importer, Error: func(err error) {
		var e types.Error
		if errors.As(err, &e) && e.Soft && !b.isFile() {
			return // declared or imported, and not used
		}
		errs = append(errs, err)
	}}
	_, _ = config.Check("docs", c.fset, []*ast.File{file}, info)
	return file, info, errors.Join(errs...)
}

func (b block) isFile() bool { return strings.HasPrefix(b.text, "package ") }

// source is a block as a file, with what a fragment needs around its
// statements or declarations.
func (b block) source(statements bool) string {
	if b.isFile() {
		return b.at(b.line) + b.text
	}
	var imports, given strings.Builder
	for _, l := range b.given {
		into := &given
		if strings.HasPrefix(strings.TrimSpace(l.text), "import ") {
			into = &imports
		}
		into.WriteString(b.at(l.number) + l.text + "\n")
	}
	own, rest, first := b.cutImports()
	imports.WriteString(b.at(b.line) + own + "\n")
	header := "package docs\n"
	for _, p := range givenImports {
		if !imported(imports.String(), p) {
			header += "import " + strconv.Quote(p) + "\n"
		}
	}
	body := b.at(b.line+first) + rest + "\n"
	if statements {
		body = "func _() {\n" + body + "}\n"
	}
	return header + imports.String() + givenNames + "\n" + given.String() + body
}

// at makes the compiler count lines as the document does.
func (b block) at(line int) string { return fmt.Sprintf("//line %s:%d:1\n", b.file, line) }

// cutImports is the imports that a fragment begins with, the rest, and how many
// lines the former have.
func (b block) cutImports() (imports, rest string, lines int) {
	const header = "package docs;"
	fset := token.NewFileSet()
	file, _ := parser.ParseFile(fset, "", header+b.text, parser.ImportsOnly)
	end := 0
	if file != nil && len(file.Decls) > 0 {
		end = fset.Position(file.Decls[len(file.Decls)-1].End()).Offset - len(header)
	}
	return b.text[:end], b.text[end:], strings.Count(b.text[:end], "\n")
}

// imported tells whether imports have a package, or another one of its name.
func imported(imports, p string) bool {
	file, err := parser.ParseFile(token.NewFileSet(), "", "package docs\n"+imports, parser.ImportsOnly)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
		own, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(own)
		if i.Name != nil {
			name = i.Name.Name
		}
		return name == path.Base(p)
	})
}
