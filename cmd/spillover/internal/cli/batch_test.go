package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/spillovertest"
)

// batchFiles writes a configuration for servers, one tier each, and an input of n
// requests.
func batchFiles(t *testing.T, n int, servers ...*spillovertest.Server) (config, in, out string) {
	dir := t.TempDir()
	config, in, out = filepath.Join(dir, "spillover.yaml"), filepath.Join(dir, "requests.jsonl"), filepath.Join(dir, "answers.jsonl")
	text := "backends:\n"
	for i, s := range servers {
		text += fmt.Sprintf("  - name: %s\n    url: %s\n    dialect: openai\n    api_key: sk-secret\n    priority: %d\n", s.Name, s.URL, i+1)
	}
	require.NoError(t, os.WriteFile(config, []byte(text), 0o666))
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, `{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}}`+"\n", i)
	}
	require.NoError(t, os.WriteFile(in, []byte(lines.String()), 0o666))
	return config, in, out
}

func batchServer(t *testing.T, name string, keys ...string) *spillovertest.Server {
	s := spillovertest.NewServer(spillovertest.Config{Name: name, Dialect: spillovertest.OpenAI, Keys: keys})
	t.Cleanup(s.Close)
	return s
}

func lines(t *testing.T, path string) int {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return bytes.Count(text, []byte("\n"))
}

func TestBatchAnswersAFile(t *testing.T) {
	config, in, out := batchFiles(t, 200, batchServer(t, "ptu", "sk-secret"), batchServer(t, "payg"))
	args := []string{"batch", "-config", config, "-in", in, "-out", out}
	code, stdout, stderr := run(t, args...)
	require.Equal(t, 0, code, stderr)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "200 of 200 answered (100.0 %), 0 failed\n")
	require.Contains(t, stderr, "tier 1 100 %")
	require.Contains(t, stderr, "ptu: 200 responses")
	require.NotContains(t, stderr, "sk-secret")
	require.Equal(t, 200, lines(t, out))

	// It is done, and stays so.
	code, _, stderr = run(t, args...)
	require.Equal(t, 0, code)
	require.Contains(t, stderr, "200 of 200 answered (100.0 %), 0 failed; 200 of them in earlier runs")
	require.Equal(t, 200, lines(t, out))

	code, _, stderr = run(t, append(args, "-quiet")...)
	require.Equal(t, 0, code)
	require.Empty(t, stderr)
}

func TestBatchWithFailuresExitsWith1(t *testing.T) {
	server := batchServer(t, "ptu")
	server.Set(spillovertest.Fault{Status: 400, Body: `{"error":{"message":"no"}}`, Times: 3})
	config, in, out := batchFiles(t, 20, server)
	errs := out + ".errors"
	args := []string{"batch", "--config", config, "--in", in, "--out", out, "--errors", errs}
	for range 2 { // a failure is remembered
		code, _, stderr := run(t, args...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "20 of 20 answered (100.0 %), 3 failed")
		require.Equal(t, 17, lines(t, out))
		require.Equal(t, 3, lines(t, errs))
	}
}

func TestBatchWithAWrongKeyCanBeContinued(t *testing.T) {
	server := batchServer(t, "ptu", "sk-another")
	config, in, out := batchFiles(t, 20, server)
	args := []string{"batch", "-config", config, "-in", in, "-out", out, "-log", "none"}
	code, _, stderr := run(t, args...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "20 requests left")
	require.Contains(t, stderr, "401")
	require.Contains(t, stderr, "Run the same command again")
	require.NotContains(t, stderr, "sk-secret")

	text, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, bytes.ReplaceAll(text, []byte("sk-secret"), []byte("sk-another")), 0o666))
	code, _, stderr = run(t, args...)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, 20, lines(t, out))
}

func TestAnInterruptedBatchCanBeContinued(t *testing.T) {
	server := batchServer(t, "ptu")
	server.Set(spillovertest.Fault{Kind: spillovertest.KindSilent, Match: func(r *http.Request) bool { return len(server.Requests()) > 30 }})
	config, in, out := batchFiles(t, 100, server)
	args := []string{"spillover", "batch", "-config", config, "-in", in, "-out", out, "-grace", "10ms"}
	ctx, cancel := context.WithCancel(t.Context())
	var errs syncBuffer
	exit := make(chan int, 1)
	go func() { exit <- cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: &errs, Err: &errs}) }()
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(out)
		return err == nil && bytes.Count(text, []byte("\n")) >= 20
	}, 20*time.Second, 5*time.Millisecond)
	cancel()
	select {
	case code := <-exit:
		require.Equal(t, 1, code)
	case <-time.After(20 * time.Second):
		require.Fail(t, "the batch goes on")
	}
	require.Contains(t, errs.String(), "interrupted with ")
	require.Contains(t, errs.String(), "run the same command again to resume")
	before := lines(t, out)
	require.Less(t, before, 100)

	server.Heal()
	code, _, stderr := run(t, args[1:]...)
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stderr, fmt.Sprintf("100 of 100 answered (100.0 %%), 0 failed; %d of them in earlier runs", before))
	require.Equal(t, 100, lines(t, out))
}

func TestWrongBatchesExitWith2(t *testing.T) {
	config, in, out := batchFiles(t, 1, batchServer(t, "ptu"))
	foreign := filepath.Join(t.TempDir(), "foreign")
	require.NoError(t, os.WriteFile(foreign, []byte("mine"), 0o666))
	for want, args := range map[string][]string{
		"-in is required":         {"-out", out},
		"-out is required":        {"-in", in},
		"must be files":           {"-in", "-", "-out", out},
		"not a part":              {"-in", in, "-out", out, "-part", "2/1"},
		"max-in-flight":           {"-in", in, "-out", out, "-max-in-flight", "0"},
		"timeout":                 {"-in", in, "-out", out, "-timeout", "0s"},
		"give-up-after":           {"-in", in, "-out", out, "-give-up-after", "-1s"},
		"grace":                   {"-in", in, "-out", out, "-grace", "-1s"},
		"is not a flag":           {"-in", in, "-out", out, "more"},
		"no such file":            {"-in", in + "x", "-out", out},
		"is not empty":            {"-in", in, "-out", foreign},
		"must be different files": {"-in", in, "-out", in},
		"text, json or none":      {"-in", in, "-out", out, "-log", "xml"},
	} {
		code, stdout, stderr := run(t, append([]string{"batch", "-config", config}, args...)...)
		require.Equal(t, 2, code, want)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
	}
	code, _, stderr := run(t, "batch", "-config", config+"x", "-in", in, "-out", out)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "no such file")
	require.NoFileExists(t, out)
}

// The page of the command has the defaults of its flags.
func TestBatchPageHasTheDefaults(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/cli/batch.md")
	require.NoError(t, err)
	_, help, _ := run(t, "batch", "--help")
	flags := regexp.MustCompile(`(?m)^   --([a-z-]+) .*\(default: "?([^")]*)"?\)$`).FindAllStringSubmatch(help, -1)
	require.Greater(t, len(flags), 5)
	for _, f := range flags {
		row := regexp.MustCompile("(?m)^\\| `-" + f[1] + "[` ].*$").FindString(string(text))
		require.NotEmpty(t, row, f[1])
		value := f[2]
		for _, zero := range []string{"0s", "0m"} {
			if short := strings.TrimSuffix(value, zero); short != value && regexp.MustCompile(`[a-z]$`).MatchString(short) {
				value = short
			}
		}
		require.Contains(t, row, "`"+value+"` by default", f[1])
	}
}

// The page of the command shows what it prints at the end.
func TestBatchOutputInDocs(t *testing.T) {
	payg := batchServer(t, "payg")
	ptu := batchServer(t, "ptu")
	ptu.Set(spillovertest.Fault{Status: 400, Body: `{"error":{"message":"no"}}`, Times: 3})
	config, in, out := batchFiles(t, 300, ptu, payg)
	code, _, stderr := run(t, "batch", "-config", config, "-in", in, "-out", out, "-log", "none")
	require.Equal(t, 1, code)
	i := strings.Index(stderr, "300 of 300 answered")
	require.GreaterOrEqual(t, i, 0, stderr)
	text := regexp.MustCompile(`this run: [^,]+,`).ReplaceAllString(stderr[i:], "this run: …,")
	doctest.Section(t, "../../../../docs/cli/batch.md", "output",
		"```console\n$ spillover batch -config spillover.yaml -in requests.jsonl -out answers.jsonl\n"+text+"```\n")
}
