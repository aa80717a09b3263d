package cli_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
)

// run runs a command without standard input.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), append([]string{"spillover"}, args...), cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

func TestWithoutACommandHelpIsShown(t *testing.T) {
	code, out, errs := run(t)
	require.Equal(t, 0, code)
	require.Contains(t, out, "USAGE")
	require.Empty(t, errs)
}

func TestWrongCommandLines(t *testing.T) {
	for _, args := range [][]string{{"no-such-command"}, {"--no-such-flag"}} {
		code, out, errs := run(t, args...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out, args)
		require.Contains(t, errs, "no-such", args)
		require.Contains(t, errs, "--help", args)
	}
}
