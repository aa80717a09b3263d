package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
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

// A serving is a "spillover serve" that runs.
type serving struct {
	t       *testing.T
	url     string
	stop    context.CancelFunc // as SIGTERM does
	code    chan int
	records *records
}

// serve runs serve with a configuration until the test ends.
func serve(t *testing.T, config string, args ...string) *serving {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &serving{t: t, stop: stop, code: make(chan int, 1), records: newRecords()}
	args = append([]string{"spillover", "serve", "-log", "json", "-config", file(t, "spillover.yaml", config), "-listen", "127.0.0.1:0"}, args...)
	go func() {
		s.code <- cli.Run(ctx, args, cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: s.records})
	}()
	t.Cleanup(func() {
		stop()
		<-s.done()
	})
	r := s.records.await(t, "listening")
	s.url = fmt.Sprintf("%v://%v", r["scheme"], r["address"])
	return s
}

// done is closed once serve has returned.
func (s *serving) done() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		code := <-s.code
		s.code <- code
		close(done)
	}()
	return done
}

// exitCode waits for the end of serve.
func (s *serving) exitCode() int {
	<-s.done()
	code := <-s.code
	s.code <- code
	return code
}

// file writes a file of a test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// records are log records in JSON, as they are written.
type records struct {
	mu      sync.Mutex
	partial []byte
	all     []map[string]any
	changed chan struct{} // closed with the next record
}

func newRecords() *records { return &records{changed: make(chan struct{})} }

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partial = append(r.partial, p...)
	for {
		line, rest, found := bytes.Cut(r.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		r.partial = rest
		record := map[string]any{}
		if json.Unmarshal(line, &record) != nil {
			record["msg"] = string(line)
		}
		r.all = append(r.all, record)
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// await returns the first record with a message and the given pairs of names and values.
func (r *records) await(t *testing.T, message string, pairs ...string) map[string]any {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		for _, record := range r.all {
			matches := record["msg"] == message
			for i := 0; i+1 < len(pairs); i += 2 {
				matches = matches && fmt.Sprint(record[pairs[i]]) == pairs[i+1]
			}
			if matches {
				r.mu.Unlock()
				return record
			}
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-late:
			require.Failf(t, "no such record", "%s %v in %s", message, pairs, r.text())
		}
	}
}

func (r *records) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, _ := json.Marshal(r.all)
	return string(text)
}

// backend is a server with one configuration that has it as its only backend.
func backend(t *testing.T, h http.HandlerFunc) (config string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return fmt.Sprintf("backends:\n  - {name: b, url: %q, dialect: openai, api_key: backend-key}\n", server.URL+"/v1")
}

func request(t *testing.T, method, url, body string, header ...string) *http.Request {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, r)
	require.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

func do(t *testing.T, req *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, string(text)
}

const chat = `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`

func TestServeForwardsEveryDialect(t *testing.T) {
	azure := spillovertest.NewServer(spillovertest.Config{Keys: []string{"azure-key"}})
	defer azure.Close()
	s := serve(t, fmt.Sprintf("backends:\n  - {name: ptu, url: %q, dialect: azure, api_key: azure-key}\n", azure.URL))
	for _, path := range []string{"/v1/chat/completions", "/openai/v1/chat/completions", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"} {
		status, header, body := do(t, request(t, "POST", s.url+path, chat, "Content-Type", "application/json", "Authorization", "Bearer callers", "X-Request-Id", "my-id"))
		require.Equal(t, 200, status, body)
		require.Equal(t, "ptu", header.Get("X-Spillover-Backend"))
		require.Equal(t, []string{"my-id"}, header.Values("X-Request-Id"))
		require.Contains(t, body, "chat.completion")
	}
	r := s.records.await(t, "request", "request_id", "my-id")
	require.Equal(t, "ptu", r["backend"])
	require.Equal(t, "gpt-4o", r["model"])
	require.Equal(t, "interactive", r["class"])
}

func TestServeHasHealthMetricsAndStatus(t *testing.T) {
	s := serve(t, backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	do(t, request(t, "POST", s.url+"/v1/chat/completions", chat))
	do(t, request(t, "GET", s.url+"/nothing", ""))
	_, _, metrics := do(t, request(t, "GET", s.url+"/metrics", ""))
	require.Contains(t, metrics, `spillover_serve_errors_total{code="unknown_url"} 1`)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "spillover_requests", "/status": "<html", "/status/status.json": `"name":"b"`} {
		status, _, body := do(t, request(t, "GET", s.url+path, ""))
		require.Equal(t, 200, status)
		require.Contains(t, body, want)
	}
}

// The backend waits with its second event until the caller has seen the first.
func TestServeFlushesEachEvent(t *testing.T) {
	seen := make(chan struct{})
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		event := func(content string) {
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", content)
			w.(http.Flusher).Flush()
		}
		event("first")
		select {
		case <-seen:
		case <-r.Context().Done():
			return
		}
		event("second")
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	}))
	resp, err := http.DefaultClient.Do(request(t, "POST", s.url+"/v1/chat/completions", `{"model":"m","stream":true,"messages":[]}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "first")
	close(seen)
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.Contains(t, string(rest), "second")
	require.Contains(t, string(rest), "[DONE]")
}

func TestServeLetsStreamsFinish(t *testing.T) {
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	for name, transport := range map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2": h2c} {
		t.Run(name, func(t *testing.T) { letsStreamsFinish(t, transport) })
	}
}

func letsStreamsFinish(t *testing.T, transport *http.Transport) {
	defer transport.CloseIdleConnections()
	begun, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n")
		w.(http.Flusher).Flush()
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"last\"}}]}\n\ndata: [DONE]\n\n")
	}), "-drain-delay", "100ms")
	resp, err := transport.RoundTrip(request(t, "POST", s.url+"/v1/chat/completions", `{"model":"m","stream":true,"messages":[]}`))
	require.NoError(t, err)
	defer resp.Body.Close()
	<-begun
	s.stop()
	s.records.await(t, "shutting down")
	if ready, err := http.DefaultClient.Do(request(t, "GET", s.url+"/readyz", "")); err == nil { // within the delay
		require.Equal(t, 503, ready.StatusCode)
		ready.Body.Close()
	}
	require.Eventually(t, func() bool {
		other, err := http.Get(s.url + "/healthz")
		if err == nil {
			other.Body.Close()
		}
		return err != nil // nothing listens any more
	}, 20*time.Second, 10*time.Millisecond)
	close(finish)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(text), "last")
	require.Equal(t, 0, s.exitCode())
}

func TestServeCancelsWhatTakesTooLong(t *testing.T) {
	begun := make(chan struct{})
	s := serve(t, backend(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(begun)
		<-r.Context().Done()
	}), "-shutdown-timeout", "50ms")
	answered := make(chan int, 1)
	go func() {
		resp, err := http.DefaultClient.Do(request(t, "POST", s.url+"/v1/chat/completions", chat))
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-begun
	s.stop()
	require.Equal(t, 503, <-answered)
	require.Equal(t, 0, s.exitCode())
}

func TestServeReloadsItsFiles(t *testing.T) {
	first := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "first") })
	second := strings.Replace(backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "second") }), "name: b", "name: c", 1)
	key, sum := keys.New()
	other, otherSum := keys.New()
	keyFile := file(t, "keys.yaml", "keys:\n  - {name: a, sha256: "+sum+"}\n")
	config := file(t, "pool.yaml", first)
	s := serve(t, "", "-config", config, "-keys", keyFile)
	ask := func(key string) (int, string) {
		status, _, body := do(t, request(t, "GET", s.url+"/v1/files", "", "Authorization", "Bearer "+key))
		return status, body
	}
	status, body := ask(key)
	require.Equal(t, 200, status)
	require.Equal(t, "first", body)
	status, _ = ask(other)
	require.Equal(t, 401, status)
	require.NoError(t, os.WriteFile(config, []byte("backends: ["), 0o600))
	s.records.await(t, "configuration not loaded: the previous one stays in force")
	require.NoError(t, os.WriteFile(config, []byte(strings.Replace(second, ", api_key: backend-key", "", 1)), 0o600))
	s.records.await(t, "configuration not loaded: the previous one stays in force", "error", config+`: backends["c"] has no credential: set api_key, api_key_file or auth. Callers' own credentials are sent to it only with -pass-credentials`)
	require.NoError(t, os.WriteFile(config, []byte(second), 0o600))
	require.NoError(t, os.WriteFile(keyFile, []byte("keys:\n  - {name: b, sha256: "+otherSum+"}\n"), 0o600))
	s.records.await(t, "configuration reloaded")
	s.records.await(t, "keys reloaded")
	status, body = ask(other)
	require.Equal(t, 200, status)
	require.Equal(t, "second", body)
	status, _ = ask(key)
	require.Equal(t, 401, status)
}

func TestServeRefusesToStart(t *testing.T) {
	good := file(t, "good.yaml", "backends:\n  - {name: b, url: 'https://a.openai.azure.com', api_key: k}\n")
	open := file(t, "open.yaml", "backends:\n  - {name: b, url: 'https://a.openai.azure.com'}\n")
	badKeys := file(t, "keys.yaml", "keys:\n  - {name: a, sha256: sk-my-key}\n")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-config", good, "-listen", "0.0.0.0:0"}, "not a loopback address"},
		{[]string{"-config", good, "-admin-listen", "0.0.0.0:0"}, "admin-listen"},
		{[]string{"-config", open}, `backends["b"] has no credential`},
		{[]string{"-config", good, "-keys", badKeys}, `keys["a"].sha256 is not 64 hexadecimal digits`},
		{[]string{"-config", good, "-keys", badKeys, "-pass-credentials"}, "exclude each other"},
		{[]string{"-config", good, "-tls-cert", "x"}, "need each other"},
		{[]string{"-config", good, "-tls-cert", "x", "-tls-key", "y"}, "no such file"},
		{[]string{"-config", good, "-access-log", "loud"}, "access-log"},
		{[]string{"-config", good, "-fleet", "redis://:${NO_SUCH_VARIABLE}@host"}, "NO_SUCH_VARIABLE"},
		{[]string{"-config", good, "-fleet", "redis://:secret@host:port"}, "fleet: "},
		{[]string{"-config", filepath.Join(t.TempDir(), "none.yaml")}, "no such file"},
	} {
		code, out, errs := run(t, append([]string{"serve", "-listen", "127.0.0.1:0"}, test.args...)...)
		require.Equal(t, 2, code, test.args)
		require.Empty(t, out)
		require.Contains(t, errs, test.want)
		require.NotContains(t, errs, "sk-my-key")
		require.NotContains(t, errs, "secret")
	}
}

func TestKeyPrintsAnEntryForTheFile(t *testing.T) {
	for _, name := range []string{"search", "a b", "a #b", "a: b", "true", "123", "~", "{a}", "*a", "'a", "\"a", "% a", "a:", "? a", "!a", "<<", "0x10", strings.Repeat("a b ", 24) + "a"} {
		code, out, errs := run(t, "key", name)
		require.Equal(t, 0, code, errs)
		first, entry, _ := strings.Cut(out, "\n\n")
		set, err := keys.Parse([]byte(entry))
		require.NoError(t, err, entry)
		require.Equal(t, name, set.Find(strings.TrimPrefix(first, "key: ")).Name)
	}
	for _, args := range [][]string{{"key"}, {"key", "a", "b"}, {"key", "a,b"}, {"key", ""}, {"key", " a"}, {"key", "a\n    admin: true"}, {"key", "ä"}, {"key", "a\tb"}} {
		code, _, errs := run(t, args...)
		require.Equal(t, 2, code, args)
		require.NotEmpty(t, errs)
	}
}

func TestServeHasAListenerForAdministration(t *testing.T) {
	_, sum := keys.New()
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) {}), "-admin-listen", "127.0.0.1:0", "-keys", file(t, "keys.yaml", "keys: [{name: a, sha256: "+sum+"}]"))
	admin := fmt.Sprintf("http://%v", s.records.await(t, "listening for administration")["address"])
	for _, path := range []string{"/metrics", "/status", "/healthz"} {
		status, _, _ := do(t, request(t, "GET", admin+path, ""))
		require.Equal(t, 200, status, path)
	}
	for url, want := range map[string]int{s.url + "/metrics": 404, s.url + "/healthz": 200, admin + "/v1/models": 404, s.url + "/v1/models": 401} {
		status, _, _ := do(t, request(t, "GET", url, ""))
		require.Equal(t, want, status, url)
	}
}

func TestServeListensElsewhereWithKeys(t *testing.T) {
	key, sum := keys.New()
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) {}), "-listen", "0.0.0.0:0", "-keys", file(t, "keys.yaml", "keys: [{name: a, sha256: "+sum+"}]"))
	url := strings.Replace(strings.Replace(s.url, "[::]", "127.0.0.1", 1), "0.0.0.0", "127.0.0.1", 1)
	status, _, _ := do(t, request(t, "GET", url+"/v1/files", ""))
	require.Equal(t, 401, status)
	status, _, _ = do(t, request(t, "GET", url+"/v1/files", "", "Api-Key", key))
	require.Equal(t, 200, status)
}

// Redis may be down. Its password comes from the environment, and is shown nowhere.
func TestServeJoinsAFleet(t *testing.T) {
	t.Setenv("FLEET_PASSWORD", "fleet-secret")
	t.Setenv("SPILLOVER_FLEET", "redis://:${FLEET_PASSWORD}@127.0.0.1:1")
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) {}))
	_, _, body := do(t, request(t, "GET", s.url+"/status/status.json", ""))
	require.Contains(t, body, `"fleet"`)
	s.records.await(t, "fleet down")
	require.NotContains(t, s.records.text(), "fleet-secret")
}

// A body that is too large to be kept is passed on while it arrives.
func TestServePassesLargeBodiesOn(t *testing.T) {
	key, sum := keys.New()
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		hash := sha256.New()
		_, _ = io.Copy(hash, r.Body)
		fmt.Fprintf(w, "%x", hash.Sum(nil))
	}), "-keys", file(t, "keys.yaml", "keys: [{name: a, sha256: "+sum+"}]"))
	body := make([]byte, 34<<20)
	for i := range body {
		body[i] = byte(i * i >> 7)
	}
	copy(body[20<<20:], key[:len(key)-1])
	want := fmt.Sprintf("%x", sha256.Sum256(body))
	for _, length := range []int64{int64(len(body)), -1} {
		req := request(t, "POST", s.url+"/v1/files", "", "Api-Key", key)
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), length
		status, _, got := do(t, req)
		require.Equal(t, 200, status, got)
		require.Equal(t, want, got)
	}
	req := request(t, "POST", s.url+"/v1/files", "", "Api-Key", key)
	req.Body, req.ContentLength = io.NopCloser(io.LimitReader(zeros{}, 65<<20)), -1
	resp, err := http.DefaultClient.Do(req)
	if err == nil { // the proxy may close the connection before the caller has sent everything
		require.Equal(t, 413, resp.StatusCode)
		resp.Body.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
