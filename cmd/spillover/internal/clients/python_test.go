package clients_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// python is an interpreter that has OpenAI's SDK.
var python struct {
	once    sync.Once
	path    string
	dir     string // of the virtual environment, "" if there is none
	version string // of the SDK
	err     error
}

// findPython finds the interpreter: that of SPILLOVER_PYTHON or python3 if it has the SDK, else
// one of a new virtual environment, in which pip installs it.
func findPython() {
	python.path = os.Getenv("SPILLOVER_PYTHON")
	if python.path == "" {
		python.path = "python3"
	}
	version := func() error {
		out, err := exec.Command(python.path, "-c", "import openai; print(openai.__version__)").Output()
		python.version = strings.TrimSpace(string(out))
		return err
	}
	if version() == nil {
		return
	}
	if python.dir, python.err = os.MkdirTemp("", "spillover-python"); python.err != nil {
		return
	}
	for _, command := range [][]string{
		{python.path, "-m", "venv", python.dir},
		{filepath.Join(python.dir, "bin", "pip"), "install", "--quiet", "--retries", "0", "--timeout", "15", "-r", filepath.Join("python", "requirements.txt")},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			python.err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
			return
		}
	}
	python.path = filepath.Join(python.dir, "bin", "python")
	python.err = version()
}

// runPython runs tests of client.py in one process, and returns what each has seen.
func runPython(t *testing.T, tests ...clientTest) []string {
	t.Helper()
	python.once.Do(findPython)
	if python.err != nil {
		t.Skip("no OpenAI SDK for Python:", python.err)
	}
	t.Log("OpenAI SDK for Python", python.version)
	run := exec.Command(python.path, filepath.Join("python", "client.py"))
	run.Env = append(os.Environ(), "NO_PROXY=*")
	return runScript(t, run, tests)
}

func TestPythonSDKDoesNotSeeFaultsOfThePTU(t *testing.T) {
	var tests []clientTest
	for name, fault := range ptuFaults {
		for _, call := range []string{"chat", "stream", "azure", "azure stream", "async", "async stream"} {
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
	requireSeen(t, tests, runPython(t, tests...))
	for _, test := range tests {
		require.Equal(t, 1, test.pool.payg.Stats().Served, "%s, %s", test.name, test.call)
	}
}

func TestPythonSDKOperations(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	complete := fmt.Sprintf(`{"text":%q,"by":"ptu","tokens":7}`, answer)
	streamed := fmt.Sprintf(`{"text":%q,"finish":"stop","tokens":7}`, answer)
	var tests []clientTest
	for call, want := range map[string]string{
		"chat": complete, "azure": complete, "async": complete, "async azure": complete,
		"stream": streamed, "azure stream": streamed, "async stream": streamed,
		"embeddings": `{"count":2,"dimensions":8}`,
		"models":     `{"all":["gpt-4o","gpt-realtime"]}`,
	} {
		tests = append(tests, clientTest{p, call, "", want})
	}
	requireSeen(t, tests, runPython(t, tests...))
	require.NotContains(t, fmt.Sprint(p.ptu.Requests()), p.key)
}

// The errors of the table in docs/clients.md.
func TestPythonSDKErrors(t *testing.T) {
	var tests []clientTest
	for _, s := range situations {
		tests = append(tests, s.test(t, spillovertest.Latency{}))
	}
	for i, text := range runPython(t, tests...) {
		situations[i].require(t, situations[i].inPython(), text)
	}
}

func TestPythonSDKThatRetriesWaitsForRetryAfter(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	fault := spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Body: ptuFaults["429"].Body, Times: 1}
	p.ptu.Set(fault)
	p.payg.Set(fault)
	begun := time.Now()
	require.Contains(t, runPython(t, clientTest{pool: p, call: "retries"})[0], answer)
	require.Greater(t, time.Since(begun), time.Second)
	require.Equal(t, 3, p.ptu.Stats().Requests+p.payg.Stats().Requests, "one retry")
}

// A stream that the program closes before its end.
func TestClosedStreamOfThePythonSDKReachesTheDeployment(t *testing.T) {
	p := newPool(t, spillovertest.Latency{PerToken: 500 * time.Millisecond})
	test := clientTest{pool: p, call: "close", want: `{"count":2}`}
	requireSeen(t, []clientTest{test}, runPython(t, test))
	require.Eventually(t, func() bool { return p.ptu.Stats().Canceled == 1 && p.ptu.Stats().InFlight == 0 }, patience, 10*time.Millisecond)
	require.Zero(t, p.payg.Stats().Requests, "it does not fail over")
}
