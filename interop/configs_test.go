package interop

import (
	"context"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// requireValidConfigs checks that New takes every Config that is written out in
// a file. What is no constant in it stands for itself: a key by its name.
func requireValidConfigs(t *testing.T, fset *token.FileSet, file *ast.File, info *types.Info) {
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok || info.Types[literal].Type == nil || info.Types[literal].Type.String() != "github.com/spillover-go/spillover.Config" {
			return true
		}
		var cfg spillover.Config
		evaluate(info, literal, reflect.ValueOf(&cfg).Elem())
		lb, err := spillover.New(cfg)
		require.NoError(t, err, "%v", fset.Position(literal.Pos()))
		require.NoError(t, lb.Close())
		return false
	})
}

// evaluate sets a value to what an expression has of constants.
func evaluate(info *types.Info, e ast.Expr, into reflect.Value) {
	v := info.Types[e].Value
	switch into.Kind() {
	case reflect.String:
		into.SetString(types.ExprString(e))
		if v != nil {
			into.SetString(constant.StringVal(v))
		}
	case reflect.Int, reflect.Int64:
		if v != nil {
			n, _ := constant.Int64Val(constant.ToInt(v))
			into.SetInt(n)
		}
	case reflect.Bool:
		into.SetBool(v != nil && constant.BoolVal(v))
	case reflect.Func:
		if into.Type() == reflect.TypeFor[spillover.TokenFunc]() {
			into.Set(reflect.ValueOf(spillover.TokenFunc(func(context.Context) (string, error) { return "", nil })))
		}
	case reflect.Struct:
		for _, field := range elements(e) {
			if kv, ok := field.(*ast.KeyValueExpr); ok {
				evaluate(info, kv.Value, into.FieldByName(kv.Key.(*ast.Ident).Name))
			}
		}
	case reflect.Slice:
		for _, element := range elements(e) {
			next := reflect.New(into.Type().Elem()).Elem()
			evaluate(info, element, next)
			into.Set(reflect.Append(into, next))
		}
	}
}

func elements(e ast.Expr) []ast.Expr {
	if literal, ok := e.(*ast.CompositeLit); ok {
		return literal.Elts
	}
	return nil
}

// The check can fail.
func TestConfigsInSnippets(t *testing.T) {
	evaluated := func(text string) (cfg spillover.Config, err error) {
		b := block{file: "a.md", line: 1, text: text}
		compiler := newCompiler(t, []block{b})
		file, info, err := compiler.compile(b)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.CompositeLit); ok && len(cfg.Backends) == 0 {
				evaluate(info, literal, reflect.ValueOf(&cfg).Elem())
			}
			return true
		})
		_, err = spillover.New(cfg)
		return cfg, err
	}
	cfg, err := evaluated(`_ = spillover.Config{MaxWait: 2 * time.Second, HoldStreams: true, Backends: []spillover.Backend{
		{URL: "https://a.openai.azure.com", APIKey: key1, Priority: 1 + 1, Models: []spillover.Model{{Name: "m", TPM: 5}}},
		{URL: "https://api.openai.com", Dialect: spillover.OpenAI, Token: func(context.Context) (string, error) { return "", nil }},
	}}`)
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, cfg.MaxWait)
	require.True(t, cfg.HoldStreams)
	require.Equal(t, "key1", cfg.Backends[0].APIKey)
	require.Equal(t, 2, cfg.Backends[0].Priority)
	require.Equal(t, []spillover.Model{{Name: "m", TPM: 5}}, cfg.Backends[0].Models)
	require.Equal(t, spillover.OpenAI, cfg.Backends[1].Dialect)
	require.NotNil(t, cfg.Backends[1].Token)
	_, err = evaluated(`_ = spillover.Config{Backends: []spillover.Backend{{URL: "ftp://a"}}}`)
	require.ErrorContains(t, err, "neither https nor http")
}
