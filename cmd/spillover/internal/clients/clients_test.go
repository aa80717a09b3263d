package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
	"github.com/spillover-go/spillover/spillovertest"
)

const patience = 30 * time.Second // the tests poll; nothing takes this long

// A pool is "spillover serve" before a PTU and a pay-as-you-go deployment, which listen on
// this host.
type pool struct {
	ptu, payg *spillovertest.Server
	url       string
	key       string // of the caller
	cert      string // the file with the certificate, "" without TLS
}

// answer is the text of every complete response.
const answer = "when one region is full the next"

// newPool starts a pool. Only the PTU and the pay-as-you-go deployment know the backends' keys.
func newPool(t *testing.T, latency spillovertest.Latency) *pool {
	t.Helper()
	p := &pool{}
	deployments := []spillovertest.Deployment{{Name: "gpt-4o", Output: 7, Latency: latency}}
	p.ptu = spillovertest.NewServer(spillovertest.Config{Name: "ptu", Keys: []string{"ptu-key"}, Deployments: deployments})
	p.payg = spillovertest.NewServer(spillovertest.Config{Name: "payg", Dialect: spillovertest.OpenAI, Keys: []string{"payg-key"}, Deployments: deployments})
	t.Cleanup(p.ptu.Close)
	t.Cleanup(p.payg.Close)
	p.start(t, fmt.Sprintf(`backends:
  - {name: ptu, url: %q, dialect: azure, api_key: ptu-key, header_timeout: 20s, models: [{name: gpt-4o}]}
  - {name: payg, url: %q, dialect: openai, api_key: payg-key, header_timeout: 20s, priority: 2, models: [{name: gpt-4o}]}
`, p.ptu.URL, p.payg.URL))
	return p
}

// start runs serve with a configuration until the test ends.
func (p *pool) start(t *testing.T, config string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	key, sum := keys.New()
	p.key = key
	args = append([]string{"spillover", "serve", "-log", "json", "-listen", "127.0.0.1:0", "-config", write("spillover.yaml", config),
		"-keys", write("keys.yaml", "keys:\n  - {name: client, sha256: "+sum+", models: [gpt-4o, gpt-realtime]}\n")}, args...)
	ctx, stop := context.WithCancel(t.Context())
	records := &log{listening: make(chan string, 1)}
	code := make(chan int, 1)
	go func() {
		code <- cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: records})
	}()
	t.Cleanup(func() {
		stop()
		require.Equal(t, 0, <-code, records)
	})
	select {
	case p.url = <-records.listening:
	case <-time.After(patience):
		require.Fail(t, "serve does not listen", records)
	}
}

// A log is what serve writes. It finds the record with the address.
type log struct {
	mu        sync.Mutex
	text      bytes.Buffer
	listening chan string
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var record struct{ Msg, Scheme, Address string }
	if json.Unmarshal(p, &record) == nil && record.Msg == "listening" {
		l.listening <- record.Scheme + "://" + record.Address
	}
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range []string{node.dir, python.dir} {
		if dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// A clientTest is a request that a script sends: client.js or client.py.
type clientTest struct {
	pool *pool
	call string
	name string // for messages
	want string // JSON
}

// runScript runs tests in one process of a script, and returns what each has seen.
func runScript(t *testing.T, run *exec.Cmd, tests []clientTest) (seen []string) {
	t.Helper()
	for _, test := range tests {
		run.Args = append(run.Args, test.call, test.pool.url, test.pool.key)
	}
	var out, errs bytes.Buffer
	run.Stdout, run.Stderr = &out, &errs
	require.NoError(t, run.Start())
	kill := time.AfterFunc(2*time.Minute, func() { _ = run.Process.Kill() })
	err := run.Wait()
	kill.Stop()
	require.NoError(t, err, "%s%s", &out, &errs)
	seen = strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, seen, len(tests))
	return seen
}

// requireSeen requires that each test has seen what it wants.
func requireSeen(t *testing.T, tests []clientTest, seen []string) {
	t.Helper()
	for i, test := range tests {
		require.JSONEq(t, test.want, seen[i], "%s, %s", test.name, test.call)
	}
}

// ptuFaults are faults of the PTU that no client may notice.
var ptuFaults = map[string]spillovertest.Fault{
	"429":            {Status: 429, Header: http.Header{"Retry-After": {"60"}}, Body: `{"error":{"code":"429","message":"Please retry after 60 seconds."}}`},
	"401":            {Status: 401, Body: `{"error":{"code":"401","message":"Access denied due to invalid subscription key."}}`},
	"reset":          {Kind: spillovertest.KindReset},
	"503":            {Status: 503, Body: `{"error":{"code":"503","message":"m"}}`},
	"no connection":  {Kind: spillovertest.KindRefuse},
	"cut at once":    {Kind: spillovertest.KindCut},
	"error at first": {Kind: spillovertest.KindError},
}

// onlyInStreams reports whether a fault is noticed without a stream, or cannot happen there.
func onlyInStreams(f spillovertest.Fault) bool {
	return f.Kind == spillovertest.KindError || f.Kind == spillovertest.KindCut
}
