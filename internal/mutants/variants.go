package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// Compiling takes much longer than the tests of one rule. So the changes are compiled
// together: a function that is to be changed is there once more for each change, and
// begins with a switch that calls the one that is tried. Changes outside of functions are
// compiled one by one.

// numberVariable selects the change, in each package that has any.
const numberVariable = "mutantNumber"

// numberFile declares it in a package.
func numberFile(pkg string) string {
	return fmt.Sprintf("package %s\n\nimport (\n\t\"os\"\n\t\"strconv\"\n)\n\nvar %s, _ = strconv.Atoi(os.Getenv(%q))\n", pkg, numberVariable, numberEnv)
}

// numberEnv is the environment variable with the number of the change that is tried.
const numberEnv = "SPILLOVER_MUTANT"

// A variantFile is a file with several changes, of which none is in force by itself.
type variantFile struct {
	text     string
	parsed   *ast.File
	position func(token.Pos) int

	dispatch map[*ast.FuncDecl]string // what a function begins with
	copies   strings.Builder
}

func newVariantFile(name, text string) (*variantFile, error) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	position := func(p token.Pos) int { return set.Position(p).Offset }
	return &variantFile{text: text, parsed: parsed, position: position, dispatch: map[*ast.FuncDecl]string{}}, nil
}

// add adds a change that begins at an offset. It is false if the change is not inside of a
// function, or of one that cannot be called like another one.
func (v *variantFile) add(m *mutant, at int) bool {
	for _, d := range v.parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil || at <= v.position(f.Body.Lbrace) || at+len(m.Old) > v.position(f.Body.Rbrace) {
			continue
		}
		name := fmt.Sprintf("mutant%dOf%s", m.number, f.Name.Name)
		call, ok := callOf(f, name)
		if !ok {
			return false
		}
		if f.Type.Results != nil {
			call = "return " + call
		} else {
			call += "; return"
		}
		v.dispatch[f] += fmt.Sprintf("case %d: %s; ", m.number, call)
		// The compiler names this file in errors.
		fmt.Fprintf(&v.copies, "\n//line %s:1\n%s%s%s%s%s\n", m.errorFile(), v.text[v.position(f.Pos()):v.position(f.Name.Pos())], name,
			v.text[v.position(f.Name.End()):at], m.New, v.text[at+len(m.Old):v.position(f.End())])
		return true
	}
	return false
}

// errorFile is what the compiler calls the file of the change.
func (m *mutant) errorFile() string { return fmt.Sprintf("mutant-%d.go", m.number) }

// String returns the file.
func (v *variantFile) String() string {
	var out strings.Builder
	from := 0
	for _, d := range v.parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && v.dispatch[f] != "" {
			body := v.position(f.Body.Lbrace) + 1
			fmt.Fprintf(&out, "%s switch %s { %s};", v.text[from:body], numberVariable, v.dispatch[f])
			from = body
		}
	}
	return out.String() + v.text[from:] + v.copies.String()
}

// callOf is a call of a function that has another name, with the parameters of f.
func callOf(f *ast.FuncDecl, name string) (call string, ok bool) {
	if f.Type.TypeParams != nil || f.Name.Name == "init" || f.Name.Name == "_" {
		return "", false
	}
	if f.Recv != nil {
		receiver := f.Recv.List[0]
		if len(receiver.Names) == 0 || receiver.Names[0].Name == "_" {
			return "", false
		}
		name = receiver.Names[0].Name + "." + name
	}
	var arguments []string
	for _, p := range f.Type.Params.List {
		if len(p.Names) == 0 {
			return "", false
		}
		for _, n := range p.Names {
			if n.Name == "_" {
				return "", false
			}
			argument := n.Name
			if _, variadic := p.Type.(*ast.Ellipsis); variadic {
				argument += "..."
			}
			arguments = append(arguments, argument)
		}
	}
	return name + "(" + strings.Join(arguments, ", ") + ")", true
}
