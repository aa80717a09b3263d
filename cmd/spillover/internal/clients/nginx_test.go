package clients_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// A front is nginx before serve, with the configuration of docs/cli/serve.md.
type front struct {
	url   string
	http1 *http.Client
	http2 *http.Client
}

// newFront starts nginx, which ends TLS, until the test ends. It listens on a socket of the file
// system, since it cannot choose a free port.
func newFront(t *testing.T, p *pool) *front {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx, err = exec.LookPath("/usr/sbin/nginx") // it is not in the path of all users
	}
	if err != nil && os.Getenv("SPILLOVER_SKIP_NGINX") != "" {
		t.Skip("no nginx, and SPILLOVER_SKIP_NGINX is set")
	}
	require.NoError(t, err, "install nginx (nginx-light of Debian), or set SPILLOVER_SKIP_NGINX to skip this test")
	page, err := os.ReadFile("../../../../docs/cli/serve.md")
	require.NoError(t, err)
	_, snippet, found := strings.Cut(string(page), "```nginx\n")
	require.True(t, found)
	snippet, _, _ = strings.Cut(snippet, "```")
	outside, location, found := strings.Cut(snippet, "location / {")
	require.True(t, found)
	const address = "http://127.0.0.1:8080"
	require.Contains(t, location, address)
	dir := t.TempDir()
	socket, cert := filepath.Join(dir, "socket"), filepath.Join(dir, "cert.pem")
	certKey := certificate(t, cert)
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the workers write to dir
	}
	config := fmt.Sprintf(`%s
daemon off;
pid %s/pid;
error_log stderr;
worker_processes 1;
events {}
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	%s
	server {
		listen unix:%s ssl http2;
		ssl_certificate %s;
		ssl_certificate_key %s;
		location / {%s
	}
}
`, user, dir, outside, socket, cert, certKey, strings.Replace(location, address, p.url, 1))
	path := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	run := exec.CommandContext(context.WithoutCancel(t.Context()), nginx, "-p", dir, "-c", path)
	errs, err := run.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, run.Start())
	t.Cleanup(func() {
		_ = run.Process.Signal(os.Interrupt) // a fast shutdown
		text, _ := io.ReadAll(errs)
		_ = run.Wait()
		if t.Failed() {
			t.Logf("nginx: %s", text)
		}
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	trust := &tls.Config{InsecureSkipVerify: true}
	require.Eventually(t, func() bool {
		conn, err := dial(t.Context(), "", "")
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
	transports := [2]*http.Transport{{DialContext: dial, TLSClientConfig: trust}, {DialContext: dial, TLSClientConfig: trust, ForceAttemptHTTP2: true}}
	for _, tr := range transports {
		t.Cleanup(tr.CloseIdleConnections)
	}
	return &front{url: "https://gateway.example:8443", http1: &http.Client{Transport: transports[0]}, http2: &http.Client{Transport: transports[1]}}
}

// post sends a chat through nginx.
func (f *front) post(ctx context.Context, t *testing.T, p *pool, client *http.Client, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/v1/chat/completions", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+p.key)
	resp, err := client.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestNginxInFront(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	f := newFront(t, p)
	for version, client := range map[string]*http.Client{"HTTP/1.1": f.http1, "HTTP/2.0": f.http2} {
		for _, body := range []string{chat, stream, strings.Repeat(" ", 40<<20) + chat} {
			resp := f.post(t.Context(), t, p, client, body)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, version, resp.Proto)
			require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
			require.Equal(t, "ptu", resp.Header.Get("X-Spillover-Backend"))
			require.Contains(t, string(text), `"content":"`)
		}
		// A stream that breaks off is not complete behind nginx either.
		p.ptu.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 3})
		text, err := io.ReadAll(f.post(t.Context(), t, p, client, stream).Body)
		require.Contains(t, string(text), `"content":" region"`)
		require.Error(t, err, version)
		p.ptu.Set()
	}
}

// Each token passes nginx when it is sent, and the deployment learns that the caller has left.
func TestTokensPassNginxAtOnce(t *testing.T) {
	for _, second := range []bool{false, true} {
		p := newPool(t, spillovertest.Latency{PerToken: time.Hour})
		f := newFront(t, p)
		client := f.http1
		if second {
			client = f.http2
		}
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		lines := bufio.NewScanner(f.post(ctx, t, p, client, stream).Body)
		found := false
		for !found && lines.Scan() {
			found = strings.Contains(lines.Text(), `"content":"when"`)
		}
		require.True(t, found, lines.Err())
		leave()
		require.Eventually(t, func() bool { return p.ptu.Stats().Canceled == 1 }, patience, 10*time.Millisecond)
	}
}

func TestWebSocketsPassNginx(t *testing.T) {
	p := sockets(t, false)
	f := newFront(t, p)
	for path, message := range map[string]string{
		"/v1/realtime?model=gpt-realtime": `{"type":"response.create"}`,
		"/v1/responses":                   `{"input":"Hello","model":"gpt-4o-east","type":"response.create"}`,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, err := websocket.Dial(ctx, f.url+path, &websocket.DialOptions{HTTPClient: f.http1, HTTPHeader: http.Header{"Api-Key": {p.key}}})
		require.NoError(t, err, path)
		require.NoError(t, c.Write(ctx, websocket.MessageText, []byte(strings.Replace(message, "-east", "", 1))))
		for _, want := range []string{`{"type":"session.created","by":"payg"}`, message} {
			_, text, err := c.Read(ctx)
			require.NoError(t, err)
			require.JSONEq(t, want, string(text), path)
		}
		_ = c.Close(websocket.StatusNormalClosure, "") // nginx may close the connection first
	}
}

// Clients send their key to the URL of an operation, so it must be that of nginx.
func TestURLsOfOperationsLeadToNginx(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Operation-Location", "http://"+r.Host+"/openai/operations/x?api-version=1")
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(backend.Close)
	p := &pool{}
	p.start(t, fmt.Sprintf("backends: [{name: a, url: %q, dialect: azure, api_key: k}]", backend.URL))
	f := newFront(t, p)
	for _, client := range []*http.Client{f.http1, f.http2} {
		resp := f.post(t.Context(), t, p, client, chat)
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
		require.Equal(t, f.url+"/openai/operations/x?api-version=1", resp.Header.Get("Operation-Location"))
	}
}
