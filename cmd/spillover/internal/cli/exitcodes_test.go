package cli_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
)

// A fullDisk is a standard output that accepts some bytes.
type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left -= len(p); d.left < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

func TestStandardOutputThatCannotBeWritten(t *testing.T) {
	config := write(t, "spillover.yaml", explained)
	in := write(t, "litellm.yaml", "model_list: [{model_name: m, litellm_params: {model: gpt-4o}}]")
	for _, args := range [][]string{
		{"check", "-offline", "-config", config},
		{"explain", "-config", config, "-model", "gpt-4o"},
		{"explain", "-config", config, "-model", "gpt-4o", "-json"},
		{"convert", in},
	} {
		_, text, _ := run(t, args...)
		for _, room := range []int{0, len(text) - 1} {
			var errs bytes.Buffer
			code := cli.Run(t.Context(), append([]string{"spillover"}, args...), cli.Streams{In: strings.NewReader(""), Out: &fullDisk{room}, Err: &errs})
			require.Equal(t, 1, code, "%s, %d bytes", args, room)
			require.Contains(t, errs.String(), "no space left on device", args)
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	missing, directory := filepath.Join(t.TempDir(), "none.yaml"), t.TempDir()
	for _, path := range []string{missing, directory} {
		for _, args := range [][]string{
			{"check", "-config", path},
			{"check", "-offline", "-config", path},
			{"explain", "-model", "m", "-config", path},
			{"explain", "-in", path},
			{"convert", path},
			{"simulate", "-no-proxy", "-write-config", filepath.Join(path, "x", "y")},
		} {
			code, out, errs := run(t, args...)
			require.Equal(t, 2, code, "%s: %s", args, errs)
			require.Empty(t, out, args)
			require.Contains(t, errs, path, args)
			require.Equal(t, 1, strings.Count(errs, "\n"), errs)
		}
	}
	require.NoFileExists(t, missing)
}

func TestHelpAndUnknownFlagsOfCommands(t *testing.T) {
	for _, command := range []string{"check", "simulate", "explain", "convert", "key"} {
		for _, flag := range []string{"-h", "--help"} {
			code, out, errs := run(t, command, flag)
			require.Equal(t, 0, code, command)
			require.Contains(t, out, "spillover "+command, command)
			require.Empty(t, errs, command)
		}
		code, out, errs := run(t, command, "-no-such-flag")
		require.Equal(t, 2, code, command)
		require.Empty(t, out, command)
		require.Contains(t, errs, "no-such-flag", command)
		require.Contains(t, errs, "spillover "+command+" --help", command)
	}
}
