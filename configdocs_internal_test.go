package spillover

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/spillover-go/spillover/internal/doctest"
)

// The types of a configuration file, as they are documented.
var configTypes = []struct {
	t        reflect.Type
	heading  string
	required string // fields
}{
	{reflect.TypeFor[Config](), "The file", " Backends "},
	{reflect.TypeFor[Backend](), "`backends`", " URL "},
	{reflect.TypeFor[Model](), "`backends[].models`", " Name "},
	{reflect.TypeFor[Fallback](), "`fallbacks`", " Model To "},
}

var docLink = regexp.MustCompile(`\[((?:[a-z]+\.)?[A-Z][A-Za-z0-9.]*)\]`)

// configDocs are the doc comments of types, fields (Type.Field) and constants,
// those of fields in the words of a file.
func configDocs(t testing.TB) map[string]string {
	docs := map[string]string{}
	plain := func(c *ast.CommentGroup) string {
		text := docLink.ReplaceAllString(strings.Join(strings.Fields(c.Text()), " "), "$1")
		return strings.NewReplacer("Config.", "", "Backend.", "").Replace(text)
	}
	for _, file := range []string{"config.go", "backend.go", "fallback.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return false
			case *ast.GenDecl:
				if n.Tok == token.TYPE && n.Doc != nil {
					docs[n.Specs[0].(*ast.TypeSpec).Name.Name] = plain(n.Doc)
				}
			case *ast.ValueSpec:
				docs[n.Names[0].Name] = plain(n.Doc)
			case *ast.TypeSpec:
				s, ok := n.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range s.Fields.List {
					text := keyNames.Replace(plain(field.Doc))
					for _, name := range field.Names {
						docs[n.Name.Name+"."+name.Name] = text
					}
				}
			}
			return true
		})
	}
	return docs
}

// inFile is the doc comment of a field by the name that it has in a file.
func inFile(doc, name string) string {
	if rest, ok := strings.CutPrefix(doc, "RPM and TPM "); ok {
		return "rpm and tpm " + rest
	}
	return regexp.MustCompile(`^`+name+`\b`).ReplaceAllString(doc, configfile.Key(name))
}

// defaultValues are what New gives to each field that is not set.
func defaultValues() map[reflect.Type]reflect.Value {
	cfg := Config{Backends: []Backend{{URL: "h", Models: []Model{{Name: "m"}}}}}
	cfg.check(func(string) bool { return true })
	values := map[reflect.Type]reflect.Value{}
	for _, v := range []any{cfg, cfg.Backends[0], cfg.Backends[0].Models[0], Fallback{}} {
		values[reflect.TypeOf(v)] = reflect.ValueOf(v)
	}
	return values
}

// usual is the default of a number, a duration or a truth value, if it has one.
func usual(v reflect.Value) (text string, value any) {
	switch d, isDuration := reflect.TypeAssert[time.Duration](v); {
	case isDuration && d > 0:
		text = strings.TrimSuffix(d.String(), "m0s")
		if text != d.String() {
			text += "m"
		}
		return text, text
	case v.Kind() == reflect.Bool, v.Kind() == reflect.Int && v.Int() != 0:
		return fmt.Sprint(v), v.Interface()
	}
	return "", nil
}

func TestConfigReference(t *testing.T) {
	docs, values := configDocs(t), defaultValues()
	var page, inCode strings.Builder
	for _, c := range configTypes {
		fmt.Fprintf(&page, "\n### %s\n\n| key | value | default | |\n|---|---|---|---|\n", c.heading)
		for _, f := range reflect.VisibleFields(c.t) {
			doc := docs[c.t.Name()+"."+f.Name]
			require.NotEmpty(t, doc, f.Name)
			if configfile.OnlyInCode(f.Type) {
				fmt.Fprintf(&inCode, "| `%s.%s` | %s |\n", c.t.Name(), f.Name, doc)
				continue
			}
			kind := map[reflect.Kind]string{reflect.String: "text", reflect.Int: "whole number", reflect.Int64: "duration",
				reflect.Bool: "true or false", reflect.Map: "mapping", reflect.Slice: "list"}[f.Type.Kind()]
			if f.Type == reflect.TypeFor[Dialect]() {
				kind = fmt.Sprintf("`%s`, `%s` or `%s`", Azure, AzureV1, OpenAI)
			}
			if f.Type == reflect.TypeFor[FallbackOn]() {
				kind = "`exhausted`, `context_length` or `both`"
			}
			if f.Type == reflect.TypeFor[[]int]() {
				kind = "list of whole numbers"
			}
			other, _ := usual(values[c.t].FieldByIndex(f.Index))
			if strings.Contains(c.required, " "+f.Name+" ") {
				other = "required"
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", configfile.Key(f.Name), kind, other, inFile(doc, f.Name))
		}
	}
	fmt.Fprintf(&page, "\n### `dialect`\n\n%s\n\n", docs["Dialect"])
	for _, name := range []struct {
		d    Dialect
		name string
	}{{Azure, "Azure"}, {AzureV1, "AzureV1"}, {OpenAI, "OpenAI"}} {
		fmt.Fprintf(&page, "- `%s`: %s\n", name.d, docs[name.name])
	}
	fmt.Fprintf(&page, "\n### Only in a program\n\n| field | |\n|---|---|\n%s\n", &inCode)

	doctest.Section(t, "docs/configuration.md", "keys", page.String())
}

func TestConfigSchema(t *testing.T) {
	docs, values := configDocs(t), defaultValues()
	variable := map[string]any{"$ref": "#/$defs/variable"}
	schema := map[string]any{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         "https://raw.githubusercontent.com/spillover-go/spillover/main/docs/config.schema.json",
		"title":       "spillover",
		"description": "A configuration file of github.com/spillover-go/spillover.",
		"$ref":        "#/$defs/Config",
	}
	defs := map[string]any{
		"variable": map[string]any{"type": "string", "pattern": `\$\{`, "description": "With a variable of the environment: ${NAME} or ${NAME:-default}."},
		"duration": map[string]any{"type": []string{"string", "null"}, "pattern": `^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`},
	}
	schema["$defs"] = defs
	for _, c := range configTypes {
		properties := map[string]any{}
		for _, f := range reflect.VisibleFields(c.t) {
			if configfile.OnlyInCode(f.Type) {
				continue
			}
			p := map[string]any{"description": inFile(docs[c.t.Name()+"."+f.Name], f.Name)}
			properties[configfile.Key(f.Name)] = p
			if _, value := usual(values[c.t].FieldByIndex(f.Index)); value != nil {
				p["default"] = value
			}
			required := strings.Contains(c.required, " "+f.Name+" ")
			switch kind := f.Type.Kind(); {
			case kind == reflect.Slice:
				p["type"], p["items"] = []string{"array", "null"}, map[string]any{"$ref": "#/$defs/" + f.Type.Elem().Name()}
				switch f.Type.Elem().Kind() {
				case reflect.String:
					p["items"] = map[string]any{"type": "string"}
				case reflect.Int:
					p["items"] = map[string]any{"anyOf": []any{map[string]any{"type": "integer", "minimum": 400, "maximum": 599}, variable}}
				}
				if required {
					p["type"], p["minItems"] = "array", 1
				}
			case kind == reflect.Map:
				p["type"] = []string{"object", "null"}
				if f.Type.Elem().Kind() == reflect.String {
					p["additionalProperties"] = map[string]any{"type": "string"}
				}
			case f.Type == reflect.TypeFor[Dialect]():
				p["anyOf"] = []any{map[string]any{"enum": []any{Azure, AzureV1, OpenAI, nil}}, variable}
			case f.Type == reflect.TypeFor[FallbackOn]():
				p["anyOf"] = []any{map[string]any{"enum": []any{"exhausted", "context_length", "both", nil}}, variable}
			case f.Type == reflect.TypeFor[time.Duration]():
				p["anyOf"] = []any{map[string]any{"$ref": "#/$defs/duration"}, variable}
			case kind == reflect.Int:
				number := map[string]any{"type": []string{"integer", "null"}, "minimum": 0}
				if f.Name == "Weight" {
					number["maximum"] = maxWeight
				}
				p["anyOf"] = []any{number, variable}
			case kind == reflect.Bool:
				p["anyOf"] = []any{map[string]any{"type": []string{"boolean", "null"}}, variable}
			case kind == reflect.String:
				if p["type"] = []string{"string", "null"}; required || f.Name == "APIKey" || f.Name == "APIKeyFile" || f.Name == "Auth" {
					p["type"] = "string"
				}
			default:
				require.Fail(t, "the schema cannot describe a "+f.Type.String())
			}
		}
		def := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
		var required []string
		for name := range strings.FieldsSeq(c.required) {
			required = append(required, configfile.Key(name))
		}
		def["required"] = required
		if c.t == reflect.TypeFor[Config]() {
			properties["$schema"] = map[string]any{"description": "This schema, for editors."}
		}
		defs[c.t.Name()] = def
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(schema))

	const file = "docs/config.schema.json"
	doctest.File(t, file, b.String())
}
