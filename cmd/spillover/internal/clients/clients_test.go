package clients_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
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

// node is the directory with the script and its packages, which npm installs once.
var node struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if node.dir != "" {
		_ = os.RemoveAll(node.dir)
	}
	os.Exit(code)
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

// A nodeTest is a test of client.js.
type nodeTest struct {
	pool *pool
	call string
	name string // for messages
	want string // JSON
}

// runNode runs tests of client.js in one process, and returns what each has seen.
func runNode(t *testing.T, tests ...nodeTest) (seen []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args := []string{"client.js"}
	for _, test := range tests {
		args = append(args, test.call, test.pool.url, test.pool.key)
	}
	run := exec.CommandContext(ctx, "node", args...)
	run.Dir = nodeDir(t)
	run.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+tests[0].pool.cert, "NO_PROXY=*")
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	require.NoError(t, err, "%s%s", out, &stderr)
	seen = strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, seen, len(tests))
	return seen
}

// requireNode runs tests of client.js that must see what they want.
func requireNode(t *testing.T, tests ...nodeTest) {
	t.Helper()
	for i, seen := range runNode(t, tests...) {
		require.JSONEq(t, tests[i].want, seen, "%s, %s", tests[i].name, tests[i].call)
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

func TestNodeSDKDoesNotSeeFaultsOfThePTU(t *testing.T) {
	var tests []nodeTest
	for name, fault := range ptuFaults {
		for _, call := range []string{"chat", "stream", "azure", "azure stream"} {
			test := nodeTest{newPool(t, spillovertest.Latency{}), call, name, fmt.Sprintf(`{"text":%q,"by":"payg","tokens":7}`, answer)}
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
	var tests []nodeTest
	for call, want := range map[string]string{
		"chat":             fmt.Sprintf(`{"text":%q,"by":"ptu","tokens":7}`, answer),
		"azure":            fmt.Sprintf(`{"text":%q,"by":"ptu","tokens":7}`, answer),
		"stream":           fmt.Sprintf(`{"text":%q,"finish":"stop","tokens":7}`, answer),
		"responses":        fmt.Sprintf(`{"text":%q,"tokens":7}`, answer),
		"responses stream": fmt.Sprintf(`{"text":%q,"tokens":7}`, answer),
		"embeddings":       `{"count":2,"dimensions":8}`,
		"models":           `{"all":["gpt-4o","gpt-realtime"]}`,
	} {
		tests = append(tests, nodeTest{p, call, "", want})
	}
	requireNode(t, tests...)
	require.NotContains(t, fmt.Sprint(p.ptu.Requests()), p.key)
}

// The errors of the table in docs/clients.md.
func TestNodeSDKErrors(t *testing.T) {
	var tests []nodeTest
	for _, e := range nodeErrors {
		p := newPool(t, spillovertest.Latency{})
		p.ptu.Set(e.faults...)
		p.payg.Set(e.faults...)
		if e.wrongKey {
			p.key = "sk-wrong"
		}
		tests = append(tests, nodeTest{pool: p, call: e.call})
	}
	for i, text := range runNode(t, tests...) {
		e := nodeErrors[i]
		var seen struct {
			Error, Code, RetryAfter, Text string
			Status                        int
		}
		require.NoError(t, json.Unmarshal([]byte(text), &seen))
		require.Equal(t, e.want, seen.Error, e.name)
		require.Equal(t, e.status, seen.Status, e.name)
		require.Equal(t, e.code, seen.Code, e.name)
		require.Equal(t, e.text, seen.Text, e.name)
		require.Equal(t, e.status == http.StatusTooManyRequests, seen.RetryAfter != "", e.name)
	}
}

func TestNodeSDKThatRetriesWaitsForRetryAfter(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	fault := spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Body: ptuFaults["429"].Body, Times: 1}
	p.ptu.Set(fault)
	p.payg.Set(fault)
	begun := time.Now()
	require.Contains(t, runNode(t, nodeTest{pool: p, call: "retries"})[0], answer)
	require.Greater(t, time.Since(begun), time.Second)
	require.Equal(t, 3, p.ptu.Stats().Requests+p.payg.Stats().Requests, "one retry")
}

func TestAbortOfTheNodeSDKReachesTheDeployment(t *testing.T) {
	for call, want := range map[string]string{"abort": `{"count":2}`, "abort before the response": `{"error":"APIUserAbortError"}`} {
		p := newPool(t, spillovertest.Latency{FirstToken: 500 * time.Millisecond, PerToken: 2 * time.Second})
		requireNode(t, nodeTest{p, call, "", want})
		require.Eventually(t, func() bool { return p.ptu.Stats().Canceled == 1 && p.ptu.Stats().InFlight == 0 }, patience, 10*time.Millisecond, call)
		require.Zero(t, p.payg.Stats().Requests, "it does not fail over")
	}
}

// sockets starts a pool of two servers of WebSockets. The first refuses handshakes.
func sockets(t *testing.T, tls bool) *pool {
	t.Helper()
	p := &pool{}
	ptu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, ptuFaults["429"].Body, http.StatusTooManyRequests)
	}))
	t.Cleanup(ptu.Close)
	payg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"realtime"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx := context.WithoutCancel(r.Context())
		if r.Header.Get("Authorization") != "Bearer payg-key" {
			_ = c.Close(websocket.StatusPolicyViolation, "wrong key")
			return
		}
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"type":"session.created","by":"payg"}`))
		for {
			kind, text, err := c.Read(ctx)
			if err != nil {
				return
			}
			_ = c.Write(ctx, kind, text)
		}
	}))
	t.Cleanup(payg.Close)
	var args []string
	if tls {
		p.cert = filepath.Join(t.TempDir(), "cert.pem")
		args = []string{"-tls-cert", p.cert, "-tls-key", certificate(t, p.cert)}
	}
	p.start(t, fmt.Sprintf(`backends:
  - {name: ptu, url: %q, dialect: openai, api_key: ptu-key, models: [{name: gpt-4o}, {name: gpt-realtime}]}
  - {name: payg, url: %q, dialect: openai, api_key: payg-key, priority: 2, models: [{name: gpt-4o, deployment: gpt-4o-east}, {name: gpt-realtime}]}
`, ptu.URL+"/v1", payg.URL+"/v1"), args...)
	return p
}

// certificate writes a certificate for this host, and returns the file with its key.
func certificate(t *testing.T, path string) (keyPath string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "spillover"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	keyPath = path + ".key"
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return keyPath
}

func TestNodeWebSockets(t *testing.T) {
	p := sockets(t, false)
	var tests []nodeTest
	for call, want := range map[string]string{
		"realtime of a browser":             `{"by":"payg","protocol":"realtime","echoed":"hello"}`,
		"realtime that is refused":          `{"status":401}`,
		"responses over WebSocket":          `{"by":"payg","model":"gpt-4o-east"}`,
		"responses over WebSocket, refused": `{"error":"WebSocketError","code":"model_not_allowed"}`,
	} {
		tests = append(tests, nodeTest{p, call, "", want})
	}
	requireNode(t, tests...)
	// The realtime client of the SDK uses TLS always.
	requireNode(t, nodeTest{sockets(t, true), "realtime", "", `{"by":"payg","echoed":"response.create"}`})
}

func TestGoWebSockets(t *testing.T) {
	p := sockets(t, false)
	for path, message := range map[string]string{
		"/v1/realtime?model=gpt-realtime":                                         `{"type":"response.create"}`,
		"/openai/realtime?api-version=2024-10-01-preview&deployment=gpt-realtime": `{"type":"response.create"}`,
		"/v1/responses":        `{"input":"Hello","model":"gpt-4o-east","type":"response.create"}`,
		"/openai/v1/responses": `{"input":"Hello","model":"gpt-4o-east","type":"response.create"}`,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, _, err := websocket.Dial(ctx, p.url+path, &websocket.DialOptions{HTTPHeader: http.Header{"Api-Key": {p.key}}})
		require.NoError(t, err)
		require.NoError(t, c.Write(ctx, websocket.MessageText, []byte(strings.Replace(message, "-east", "", 1))))
		for _, want := range []string{`{"type":"session.created","by":"payg"}`, message} {
			_, text, err := c.Read(ctx)
			require.NoError(t, err)
			require.JSONEq(t, want, string(text), path)
		}
		require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
		cancel()
	}
}

// curl runs curl with arguments and a chat as the body. The response is followed by a line with the
// version of HTTP and the status.
func (p *pool) curl(t *testing.T, body string, args ...string) (out string, exit int) {
	t.Helper()
	_, err := exec.LookPath("curl")
	require.NoError(t, err, "install curl")
	args = append([]string{"-sS", "-N", "-m", "60", "--noproxy", "*", "-w", "\nHTTP/%{http_version} %{http_code} %header{x-spillover-backend}", "-H", "Content-Type: application/json",
		"-H", "Authorization: Bearer " + p.key, "-d", body}, args...)
	run := exec.CommandContext(t.Context(), "curl", append(args, p.url+"/v1/chat/completions")...)
	text, err := run.Output()
	if err != nil {
		var failed *exec.ExitError
		require.ErrorAs(t, err, &failed)
		return string(text), failed.ExitCode()
	}
	return string(text), 0
}

const (
	chat   = `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`
	stream = `{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hello"}]}`
)

func TestCurl(t *testing.T) {
	for version, flag := range map[string]string{"HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge"} {
		for name, fault := range ptuFaults {
			p := newPool(t, spillovertest.Latency{})
			p.ptu.Set(fault)
			if !onlyInStreams(fault) {
				text, exit := p.curl(t, chat, flag)
				require.Zero(t, exit, name)
				require.True(t, strings.HasSuffix(text, "\n"+version+" 200 payg"), text)
				require.Contains(t, text, `"content":"`+answer+`"`)
			}
			text, exit := p.curl(t, stream, flag)
			require.Zero(t, exit, name)
			require.True(t, strings.HasSuffix(text, "data: [DONE]\n\n\n"+version+" 200 payg"), text)
			require.Equal(t, 1, strings.Count(text, `"content":" region"`))
		}
		// curl 7 loses what it has received over HTTP/2 together with the end of a stream.
		p := newPool(t, spillovertest.Latency{PerToken: 100 * time.Millisecond})
		p.ptu.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 3})
		text, exit := p.curl(t, stream, flag)
		require.Contains(t, []int{18, 92}, exit, "CURLE_PARTIAL_FILE or CURLE_HTTP2_STREAM: %s", text)
		require.Contains(t, text, `"content":" region"`)
		require.NotContains(t, text, `"content":" is"`)
		p.key = "sk-wrong"
		text, exit = p.curl(t, chat, flag)
		require.Zero(t, exit)
		require.Contains(t, text, version+" 401")
	}
}

// A token is seen when it is sent, not at the end of the stream.
func TestCurlSeesTokensAtOnce(t *testing.T) {
	for _, flag := range []string{"--http1.1", "--http2-prior-knowledge"} {
		p := newPool(t, spillovertest.Latency{PerToken: time.Hour})
		run := exec.CommandContext(t.Context(), "curl", "-sSN", "--noproxy", "*", flag, "-H", "Content-Type: application/json", "-H", "Api-Key: "+p.key, "-d", stream, p.url+"/v1/chat/completions")
		out, err := run.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, run.Start())
		var text []byte
		for buf := make([]byte, 4<<10); !bytes.Contains(text, []byte(`"content":"when"`)); {
			n, err := out.Read(buf)
			require.NoError(t, err)
			text = append(text, buf[:n]...)
		}
		require.NoError(t, run.Process.Kill())
		require.Error(t, run.Wait())
		require.Eventually(t, func() bool { return p.ptu.Stats().Canceled == 1 }, patience, 10*time.Millisecond, "the PTU learns that curl has left")
	}
}
