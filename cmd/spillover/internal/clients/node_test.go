package clients_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// node is the directory with the script and its packages, which npm installs once.
var node struct {
	once sync.Once
	dir  string
	err  error
}

const skipVariable = "SPILLOVER_SKIP_NODE"

// nodeDir installs the packages of package-lock.json in a directory.
func nodeDir(t *testing.T) string {
	t.Helper()
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = exec.LookPath("npm")
	}
	if err != nil && os.Getenv(skipVariable) != "" {
		t.Skip("no node or npm, and " + skipVariable + " is set")
	}
	require.NoError(t, err, "install nodejs and npm, or set %s to skip these tests", skipVariable)
	node.once.Do(func() {
		if node.dir, node.err = os.MkdirTemp("", "spillover-node"); node.err != nil { //nolint:usetesting // several tests use it
			return
		}
		if node.err = os.CopyFS(node.dir, os.DirFS("node")); node.err != nil {
			return
		}
		install := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		install.Dir = node.dir
		if out, err := install.CombinedOutput(); err != nil {
			node.err = fmt.Errorf("npm ci: %w: %s", err, out)
		}
	})
	require.NoError(t, node.err)
	return node.dir
}

// runNode runs tests of client.js in one process, and returns what each has seen.
func runNode(t *testing.T, tests ...clientTest) (seen []string) {
	t.Helper()
	run := exec.Command("node", "client.js")
	run.Dir = nodeDir(t)
	run.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+tests[0].pool.cert, "NO_PROXY=*")
	return runScript(t, run, tests)
}

// requireNode runs tests of client.js that must see what they want.
func requireNode(t *testing.T, tests ...clientTest) {
	t.Helper()
	requireSeen(t, tests, runNode(t, tests...))
}

func TestNodeSDKDoesNotSeeFaultsOfThePTU(t *testing.T) {
	var tests []clientTest
	for name, fault := range ptuFaults {
		for _, call := range []string{"chat", "stream", "azure", "azure stream"} {
			test := clientTest{newPool(t, spillovertest.Latency{}), call, name, fmt.Sprintf(`{"text":%q,"by":"payg","tokens":7}`, answer)}
			if strings.Contains(call, "stream") {
				test.want = fmt.Sprintf(`{"text":%q,"finish":"stop","tokens":7}`, answer)
			} else if onlyInStreams(fault) {
				continue
			}
			test.pool.ptu.Set(fault)
			tests = append(tests, test)
		}
	}
	requireNode(t, tests...)
	for _, test := range tests {
		require.Equal(t, 1, test.pool.payg.Stats().Served, "%s, %s", test.name, test.call)
	}
}

func TestNodeSDKOperations(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	var tests []clientTest
	for call, want := range map[string]string{
		"chat":             fmt.Sprintf(`{"text":%q,"by":"ptu","tokens":7}`, answer),
		"azure":            fmt.Sprintf(`{"text":%q,"by":"ptu","tokens":7}`, answer),
		"stream":           fmt.Sprintf(`{"text":%q,"finish":"stop","tokens":7}`, answer),
		"responses":        fmt.Sprintf(`{"text":%q,"tokens":7}`, answer),
		"responses stream": fmt.Sprintf(`{"text":%q,"tokens":7}`, answer),
		"embeddings":       `{"count":2,"dimensions":8}`,
		"models":           `{"all":["gpt-4o","gpt-realtime"]}`,
	} {
		tests = append(tests, clientTest{p, call, "", want})
	}
	requireNode(t, tests...)
	require.NotContains(t, fmt.Sprint(p.ptu.Requests()), p.key)
}

// The errors of the table in docs/clients.md.
func TestNodeSDKErrors(t *testing.T) {
	var tests []clientTest
	for _, s := range situations {
		tests = append(tests, s.test(t, spillovertest.Latency{}))
	}
	for i, text := range runNode(t, tests...) {
		situations[i].require(t, situations[i].node, text)
	}
}

func TestNodeSDKThatRetriesWaitsForRetryAfter(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	fault := spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Body: ptuFaults["429"].Body, Times: 1}
	p.ptu.Set(fault)
	p.payg.Set(fault)
	begun := time.Now()
	require.Contains(t, runNode(t, clientTest{pool: p, call: "retries"})[0], answer)
	require.Greater(t, time.Since(begun), time.Second)
	require.Equal(t, 3, p.ptu.Stats().Requests+p.payg.Stats().Requests, "one retry")
}

func TestAbortOfTheNodeSDKReachesTheDeployment(t *testing.T) {
	for call, want := range map[string]string{"abort": `{"count":2}`, "abort before the response": `{"error":"APIUserAbortError"}`} {
		p := newPool(t, spillovertest.Latency{FirstToken: 500 * time.Millisecond, PerToken: 2 * time.Second})
		requireNode(t, clientTest{p, call, "", want})
		require.Eventually(t, func() bool { return p.ptu.Stats().Canceled == 1 && p.ptu.Stats().InFlight == 0 }, patience, 10*time.Millisecond, call)
		require.Zero(t, p.payg.Stats().Requests, "it does not fail over")
	}
}
