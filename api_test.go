package spillover_test

import (
	"fmt"
	"go/ast"
	"go/build"
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

	"github.com/spillover-go/spillover/internal/doctest"
)

// The exported API of each package that users import is recorded in a file, so that
// a change of it is seen in review: go test -run TestAPIIsRecorded -update.
func TestAPIIsRecorded(t *testing.T) {
	for dir, file := range map[string]string{
		".":             "api/spillover.txt",
		"spillovertest": "api/spillovertest.txt",
		"statuspage":    "api/statuspage.txt",
		"entra":         "api/entra.txt",
		"fleet/redis":   "api/fleet-redis.txt",
	} {
		doctest.File(t, file, exportedAPI(t, dir))
	}
}

// CHANGELOG.md mentions each function, each method of a Transport and each field of the
// configuration. Methods of interfaces need no mention.
func TestChangelogMentionsTheAPI(t *testing.T) {
	changelog, err := os.ReadFile("CHANGELOG.md")
	require.NoError(t, err)
	interfaces := []string{"RoundTrip", "CloseIdleConnections", "String", "GoString"}
	name := regexp.MustCompile(`^(?:func |method \(\*Transport\) |type (?:Config|Backend|Model) struct, )(\w+)`)
	found := 0
	for line := range strings.Lines(exportedAPI(t, ".")) {
		m := name.FindStringSubmatch(line)
		if m == nil || slices.Contains(interfaces, m[1]) {
			continue
		}
		found++
		require.Regexp(t, `\b`+m[1]+`\b`, string(changelog))
	}
	require.Greater(t, found, 40)
}

// exportedAPI has one sorted line for each exported function, method, constant,
// variable, type, field and method of an interface.
func exportedAPI(t *testing.T, dir string) string {
	pkg, err := build.ImportDir(dir, 0)
	require.NoError(t, err)
	var lines []string
	for _, file := range pkg.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, file), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				lines = append(lines, functionLine(d)...)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.ValueSpec:
						lines = append(lines, valueLines(d.Tok, s)...)
					case *ast.TypeSpec:
						lines = append(lines, typeLines(s)...)
					}
				}
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func functionLine(d *ast.FuncDecl) []string {
	signature := strings.TrimPrefix(types.ExprString(d.Type), "func")
	switch {
	case !d.Name.IsExported():
		return nil
	case d.Recv == nil:
		return []string{fmt.Sprintf("func %s%s", d.Name, signature)}
	}
	receiver := types.ExprString(d.Recv.List[0].Type)
	if !ast.IsExported(strings.TrimPrefix(receiver, "*")) {
		return nil
	}
	return []string{fmt.Sprintf("method (%s) %s%s", receiver, d.Name, signature)}
}

func valueLines(kind token.Token, s *ast.ValueSpec) (lines []string) {
	for i, name := range s.Names {
		if !name.IsExported() {
			continue
		}
		line := fmt.Sprintf("%s %s", kind, name)
		if s.Type != nil {
			line += " " + types.ExprString(s.Type)
		}
		if kind == token.CONST && i < len(s.Values) {
			line += " = " + types.ExprString(s.Values[i])
		}
		lines = append(lines, line)
	}
	return lines
}

func typeLines(s *ast.TypeSpec) (lines []string) {
	if !s.Name.IsExported() {
		return nil
	}
	var members *ast.FieldList
	var kind string
	switch underlying := s.Type.(type) {
	case *ast.StructType:
		members, kind = underlying.Fields, "struct"
	case *ast.InterfaceType:
		members, kind = underlying.Methods, "interface"
	default:
		kind = types.ExprString(s.Type)
	}
	if s.Assign.IsValid() {
		kind = "= " + kind
	}
	lines = []string{fmt.Sprintf("type %s %s", s.Name, kind)}
	if members == nil {
		return lines
	}
	for _, m := range members.List {
		tag := ""
		if m.Tag != nil {
			tag = " " + m.Tag.Value
		}
		if m.Names == nil { // embedded
			lines = append(lines, fmt.Sprintf("type %s %s, %s%s", s.Name, kind, types.ExprString(m.Type), tag))
		}
		for _, name := range m.Names {
			if name.IsExported() {
				lines = append(lines, fmt.Sprintf("type %s %s, %s %s%s", s.Name, kind, name, types.ExprString(m.Type), tag))
			}
		}
	}
	return lines
}
