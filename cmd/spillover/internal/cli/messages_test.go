package cli_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
)

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	require.NoError(t, os.WriteFile(path, []byte("backends: [{url: https://x.openai.azure.com, api_key: k}]"), 0o600))
	litellm := filepath.Join(t.TempDir(), "litellm.yaml")
	require.NoError(t, os.WriteFile(litellm, []byte(`{"model_list": [{"model_name": "m", "litellm_params": {"model": "openai/m"}}]}`), 0o600))
	for _, args := range [][]string{
		{"key", "search"},
		{"check", "-offline", "-config", path},
		{"explain", "-model", "m", "-config", path},
		{"explain", "-model", "m", "-config", path, "-json"},
		{"convert", litellm},
	} {
		var errs strings.Builder
		code := cli.Run(t.Context(), append([]string{"spillover"}, args...), cli.Streams{In: strings.NewReader(""), Out: brokenWriter{}, Err: &errs})
		require.Equal(t, 1, code, args)
		require.Contains(t, errs.String(), "no space left on device", args)
	}
}

func TestMessagesNameFlagsAsTheyAreWritten(t *testing.T) {
	for want, args := range map[string][]string{
		"spillover: -in is required\n":                               {"batch", "-out", "x"},
		"spillover: -out is required\n":                              {"batch", "-in", "x"},
		"spillover: -in, -out and -errors must be files":             {"batch", "-in", "-", "-out", "x"},
		"spillover: -part: \"2\" is not a part":                      {"batch", "-in", "x", "-out", "y", "-part", "2"},
		"spillover: -model or -in is required\n":                     {"explain"},
		"spillover: -model is required: the dialect azure has it in": {"explain", "-in", "x", "-dialect", "azure"},
		"spillover: -dialect: \"x\" is not openai":                   {"explain", "-model", "m", "-dialect", "x"},
		"spillover: -timeout: must be positive\n":                    {"check", "-timeout", "0s"},
		"spillover: -log: \"x\" is not text, json or none":           {"simulate", "-log", "x", "-write-config", "/dev/null/x"},
		"spillover: -offline and -json cannot be combined\n":         {"check", "-offline", "-json"},
		"spillover: -model and -in cannot be combined":               {"explain", "-model", "m", "-in", "x"},
		"spillover: -ptu: -1 is not between 0 and 100":               {"simulate", "-ptu", "-1"},
		"spillover: -ptu, -payg: at least one":                       {"simulate", "-ptu", "0", "-payg", "0"},
		"-max-body-memory must be 0, or at least twice -max-body":    {"serve", "-log", "x", "-max-body-memory", "1"},
		"-client-timeout must be more than 0":                        {"serve", "-log", "x", "-client-timeout", "0s"},
		"-tls-cert, -tls-key: open x: no such file":                  {"serve", "-tls-cert", "x", "-tls-key", "y"},
		"spillover: unknown command \"sevre\": the commands are serve, key, check, simulate, explain, convert, batch": {"sevre"},
		"spillover: the key needs a name, which log records show: spillov":                                            {"key"},
	} {
		code, out, errs := run(t, args...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out, args)
		require.Contains(t, errs, want, args)
	}
}

func TestAMissingDefaultConfigurationSaysWhatToDo(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{"check"}, {"serve"}, {"explain", "-model", "m"}} {
		code, _, errs := run(t, args...)
		require.Equal(t, 2, code, args)
		require.Equal(t, "spillover: spillover.yaml: no such file or directory: choose another file with -config, or try \"spillover simulate\", which needs none\n", errs, args)
	}
	_, _, errs := run(t, "check", "-config", "other.yaml")
	require.Equal(t, "spillover: other.yaml: no such file or directory\n", errs)
}

func TestAnAddressInUseIsNamedOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	require.NoError(t, os.WriteFile(path, []byte("backends: [{url: https://x.openai.azure.com, api_key: k}]"), 0o600))
	var errs strings.Builder
	code := cli.Run(t.Context(), []string{"spillover", "serve", "-config", path, "-listen", l.Addr().String()},
		cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: &errs})
	require.Equal(t, 2, code)
	require.Equal(t, "spillover: -listen "+l.Addr().String()+": bind: address already in use\n", errs.String())
}
