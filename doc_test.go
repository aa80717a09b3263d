package spillover_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The example of a test in virtual time passes.
func TestSynctestExample(t *testing.T) { testFailover(t) }

// The code in the package comment is that of an example, which is compiled.
func TestCodeOfThePackageCommentIsCompiled(t *testing.T) {
	comment, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	code := regexp.MustCompile(`(?m)(^\t.*\n)+`).FindString(string(comment))
	require.Contains(t, code, "spillover.New(")
	require.Contains(t, string(examples), code)
}

// publicPackages are the directories of the packages for users.
var publicPackages = []string{".", "spillovertest", "statuspage", "entra", "fleet/redis"}

// forEachFile calls f with the syntax tree of every file in a directory, except tests.
func forEachFile(t *testing.T, dir string, f func(position func(token.Pos) token.Position, file *ast.File)) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, dir)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		f(files.Position, file)
	}
}

// undocumented returns the exported names of a declaration that have no comment.
// The comment of a group counts for constants and variables. That of a struct
// counts for the fields that it names.
func undocumented(d ast.Decl) (names []string) {
	check := func(prefix string, idents []*ast.Ident, comments ...*ast.CommentGroup) {
		text := ""
		for _, c := range comments {
			text += c.Text()
		}
		for _, ident := range idents {
			if ident.IsExported() && text == "" {
				names = append(names, prefix+ident.Name)
			}
		}
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if receiver := receiverName(d); ast.IsExported(receiver) {
			check(receiver+".", []*ast.Ident{d.Name}, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				check("", s.Names, d.Doc, s.Doc, s.Comment)
			case *ast.TypeSpec:
				check("", []*ast.Ident{s.Name}, d.Doc, s.Doc)
				if s.Name.IsExported() {
					for _, field := range membersOf(s.Type) {
						names := slices.DeleteFunc(slices.Clone(namesOf(field)), func(name *ast.Ident) bool {
							return regexp.MustCompile(`\b` + name.Name + `\b`).MatchString(d.Doc.Text())
						})
						check(s.Name.Name+".", names, field.Doc, field.Comment)
					}
				}
			}
		}
	}
	return names
}

// receiverName returns the type of a method, and "Func" for a function.
func receiverName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return "Func"
	}
	switch typ := d.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return typ.X.(*ast.Ident).Name
	default:
		return typ.(*ast.Ident).Name
	}
}

// membersOf returns the fields of a struct or the methods of an interface.
func membersOf(typ ast.Expr) []*ast.Field {
	switch typ := typ.(type) {
	case *ast.StructType:
		return typ.Fields.List
	case *ast.InterfaceType:
		return typ.Methods.List
	}
	return nil
}

// namesOf returns the names of a field, which for an embedded one is its type's.
func namesOf(field *ast.Field) []*ast.Ident {
	if ident, ok := field.Type.(*ast.Ident); ok && len(field.Names) == 0 {
		return []*ast.Ident{ident}
	}
	return field.Names
}

func TestEveryExportedNameHasADocComment(t *testing.T) {
	var missing []string
	for _, dir := range publicPackages {
		forEachFile(t, dir, func(position func(token.Pos) token.Position, file *ast.File) {
			for _, d := range file.Decls {
				for _, name := range undocumented(d) {
					missing = append(missing, position(d.Pos()).Filename+": "+name)
				}
			}
		})
	}
	require.Empty(t, missing, "write what it is: its unit, its default or zero value, its errors")
}

func TestUndocumentedNamesAreFound(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "", `package p
type T struct { A int; B int // commented
	c int; D }
func (*T) M() {}
func (t) N() {}
func F() {}
// G is commented.
func G() {}
const K = 1
// The group.
const ( L = 1; M = 2 )
type I interface { Do() }
// S has X.
type S struct { X, Y int }
`, parser.ParseComments)
	require.NoError(t, err)
	var names []string
	for _, d := range file.Decls {
		names = append(names, undocumented(d)...)
	}
	require.Equal(t, []string{"T", "T.A", "T.D", "T.M", "Func.F", "K", "I", "I.Do", "S.Y"}, names)
}

// oddPhrases are phrases that readers stumble over. Each has a plain replacement.
var oddPhrases = regexp.MustCompile(`(?i)\b(is no (yaml|json|number|url|duration)\b|belongs? into\b|(is|are) none of\b|is no (good|reason|backend)\b|is well[,.;)]|` +
	`unharmed\b|for good\b|lets go\b|in vain\b|by halves\b|left alone\b|told to wait\b|is told\b|` +
	`home again\b|goes elsewhere\b|walks on\b|tells every\b|one that fails\b)`)

// What users read is in plain English: documents, the comments of the packages for
// users, and the texts in the code, such as errors.
func TestTextsArePlain(t *testing.T) {
	require.Regexp(t, oddPhrases, "the file is no YAML")
	require.Regexp(t, oddPhrases, "All is well.")
	require.NotRegexp(t, oddPhrases, "It is well known. If there is none, it is not YAML.")
	check := func(path string, firstLine int, text string) {
		for i, line := range strings.Split(text, "\n") {
			if found := oddPhrases.FindString(line); found != "" {
				t.Errorf("%s:%d: %q: write it in plain English", path, firstLine+i, found)
			}
		}
	}
	documents := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		documents++
		text, err := os.ReadFile(path)
		check(path, 1, string(text))
		return err
	}))
	require.Greater(t, documents, 10)
	for _, dir := range append([]string{"internal/*"}, publicPackages...) {
		forEachFile(t, dir, func(position func(token.Pos) token.Position, file *ast.File) {
			at := func(n ast.Node, text string) {
				p := position(n.Pos())
				check(p.Filename, p.Line, text)
			}
			for _, comment := range file.Comments {
				if slices.Contains(publicPackages, dir) {
					at(comment, comment.Text())
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
					at(n, text.Value)
				}
				return true
			})
		})
	}
}
