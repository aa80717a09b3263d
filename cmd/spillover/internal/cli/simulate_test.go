package cli_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
	"github.com/spillover-go/spillover/internal/doctest"
)

// A syncBuffer is a buffer that is read while a command writes it.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// simulating runs simulate until the test ends or stop is called, which returns the
// exit code. It returns what was printed up to a text.
func simulating(t *testing.T, until string, args ...string) (printed string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs syncBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run(ctx, append([]string{"spillover", "simulate"}, args...), cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	}()
	stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	require.Eventually(t, func() bool { return strings.Contains(out.String(), until) }, 20*time.Second, 5*time.Millisecond)
	return out.String(), stop
}

// shell runs a command as a user would paste it.
func shell(t *testing.T, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput()
	require.NoError(t, err, "%s\n%s", command, out)
	return string(out)
}

// The printed command, sent by the real curl, shows a spill.
func TestSimulateAndOneCurlShowASpill(t *testing.T) {
	printed, stop := simulating(t, "Ctrl-C", "-listen", "127.0.0.1:0")
	commands := regexp.MustCompile(`(?m)^  (curl .*)$`).FindAllStringSubmatch(printed, -1)
	require.Len(t, commands, 2)
	answers := shell(t, commands[0][1])
	backends := regexp.MustCompile(`(?m)^X-Spillover-Backend: (\S+)\r$`).FindAllStringSubmatch(answers, -1)
	require.Len(t, backends, 5, "%s", answers)
	require.Equal(t, "ptu", backends[0][1])
	require.Contains(t, backends[4][1], "payg-")

	stream := shell(t, commands[1][1])
	require.Contains(t, stream, "data: {")
	require.Contains(t, stream, "data: [DONE]")

	url := regexp.MustCompile(`and its status (\S+)`).FindStringSubmatch(printed)[1]
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	status, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, string(status), "ptu")
	require.Equal(t, 0, stop())

	// Ports and the order of the pay-as-you-go deployments are different each time.
	ports := map[string]string{}
	shown := regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllStringFunc(printed, func(s string) string {
		if _, ok := ports[s]; !ok {
			ports[s] = "127.0.0.1:" + []string{"40001", "40002", "40003", "8080"}[len(ports)]
		}
		return ports[s]
	})
	doctest.Section(t, "../../../../docs/cli/simulate.md", "output", "```console\n$ go run ./cmd/spillover simulate\n"+aligned(shown)+"```\n")
}

// aligned pads the URLs of different lengths that ports make.
func aligned(s string) string {
	return regexp.MustCompile(`(?m)^(  \S+ +http://127\.0\.0\.1:\d{5}) +`).ReplaceAllString(s, "$1  ")
}

func TestSimulateWithAFault(t *testing.T) {
	printed, stop := simulating(t, "Ctrl-C", "-listen", "127.0.0.1:0", "-payg", "1", "-fault", "ptu=401", "-log", "none")
	require.Contains(t, printed, "; fault: 401")
	command := regexp.MustCompile(`(?m)^  (curl .*)$`).FindStringSubmatch(printed)[1]
	require.NotContains(t, shell(t, command), "ptu")
	require.Equal(t, 0, stop())
}

// The deployments alone, with the configuration in a file, are what serve and check use.
func TestSimulateWithoutProxy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	printed, stop := simulating(t, "Ctrl-C", "-no-proxy", "-write-config", path, "-ptu", "2")
	require.Contains(t, printed, "spillover serve -config "+path)
	code, table, errs := run(t, "check", "-config", path)
	require.Equal(t, 0, code, errs)
	require.Contains(t, table, "ptu-2")
	require.Equal(t, 0, stop())
	code, _, _ = run(t, "check", "-config", path)
	require.Equal(t, 1, code)

	// It is replaced by the next simulation.
	_, stop = simulating(t, "Ctrl-C", "-no-proxy", "-write-config", path)
	require.Equal(t, 0, stop())

	config, stop := simulating(t, "payg-2", "-no-proxy")
	require.True(t, strings.HasPrefix(config, "# Written by spillover simulate."), config)
	require.Equal(t, 0, stop())
}

func TestSimulateDoesNotReplaceOtherFiles(t *testing.T) {
	path := write(t, "spillover.yaml", "backends: []")
	code, _, errs := run(t, "simulate", "-write-config", path)
	require.Equal(t, 2, code)
	require.Contains(t, errs, "was not written by spillover simulate")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "backends: []", string(text))
}

func TestSimulateOfWrongCommandLines(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for want, args := range map[string][]string{
		"at least one deployment": {"-ptu", "0", "-payg", "0"},
		`-fault x=429: there is no deployment "x"; there are ptu, payg-1, payg-2`: {"-fault", "x=429"},
		"unexpected argument":    {"now"},
		"address already in use": {"-listen", taken.Addr().String()},
		"-listen: 0.0.0.0:0 is not a loopback address: simulate serves this host only\n": {"-listen", "0.0.0.0:0"},
		"log: ": {"-log", "loud"},
	} {
		code, out, errs := run(t, append([]string{"simulate"}, args...)...)
		require.Equal(t, 2, code, "%s %s", args, errs)
		require.Empty(t, out, args)
		require.Contains(t, errs, want, args)
	}
}
