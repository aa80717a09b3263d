package cli_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

func TestServeSpeaksHTTP2WithoutTLS(t *testing.T) {
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(request(t, "POST", s.url+"/v1/chat/completions", chat))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 2, resp.ProtoMajor)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, chat, string(text))
}

// certificate writes a new certificate with a name to two files.
func certificate(t *testing.T, name, certPath, keyPath string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return parsed
}

func TestServeSpeaksTLSAndReloadsTheCertificate(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := certificate(t, "first", certPath, keyPath)
	s := serve(t, backend(t, func(w http.ResponseWriter, _ *http.Request) {}), "-tls-cert", certPath, "-tls-key", keyPath)
	require.True(t, strings.HasPrefix(s.url, "https://"))
	ask := func(trusted *x509.Certificate) *http.Response {
		pool := x509.NewCertPool()
		pool.AddCert(trusted)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(request(t, "GET", s.url+"/v1/files", ""))
		require.NoError(t, err)
		resp.Body.Close()
		return resp
	}
	require.Equal(t, 2, ask(first).ProtoMajor)
	second := certificate(t, "second", certPath, keyPath)
	s.records.await(t, "certificate reloaded")
	require.Equal(t, "second", ask(second).TLS.PeerCertificates[0].Subject.CommonName)
}

// raw sends text over a connection of its own and returns everything that comes back.
func raw(t *testing.T, s *serving, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// What two servers could understand as different requests is refused, or sent in one
// unambiguous form.
func TestServeIsNoWayToSmuggleRequests(t *testing.T) {
	type got struct {
		uri, body string
		header    http.Header
	}
	requests := make(chan got, 100)
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- got{r.URL.RequestURI(), string(body), r.Header}
	}))
	const head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\n"
	for name, text := range map[string]string{
		"two lengths":                   head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"list of lengths":               head + "Content-Length: 4, 5\r\n\r\nabcde",
		"signed length":                 head + "Content-Length: +4\r\n\r\nabcd",
		"unknown coding":                head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two codings":                   head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"space before colon":            head + "Content-Length : 4\r\n\r\nabcd",
		"bad header name":               head + "X@Y\x00: 4\r\n\r\n",
		"two hosts":                     "GET /v1/files HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
		"no host":                       "GET /v1/files HTTP/1.1\r\n\r\n",
		"bad chunk size":                head + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
		"chunk longer than it says":     head + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
		"space in the target":           "GET /v1/files /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"connect":                       "CONNECT /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
		"trace":                         "TRACE /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
		"header that is too large":      head + "Connection: close\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n",
		"line break in a header, alone": head + "Connection: close\r\nX: a\rContent-Length: 3\r\n\r\n",
	} {
		answer := raw(t, s, text)
		require.Regexp(t, `^HTTP/1\.[01] (4|501)`, answer, name)
		require.Equal(t, 1, strings.Count(answer, "HTTP/1."), "%s: %s", name, answer)
		require.Empty(t, requests, name)
	}
	// Of a length and chunks, the chunks count, and no length is sent on. What follows is a request of its own, with checks of its own.
	answer := raw(t, s, head+"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /internal HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	require.Equal(t, 2, strings.Count(answer, "HTTP/1.1 "), answer)
	require.Contains(t, answer, "HTTP/1.1 404 ")
	r := <-requests
	require.Equal(t, got{"/v1/files", "abc", r.header}, r)
	require.Empty(t, requests)
	// HTTP/1.0 has no chunks: what looks like some ends with the connection.
	answer = raw(t, s, "POST /v1/files HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.Equal(t, 1, strings.Count(answer, "HTTP/1."), answer)
	r = <-requests
	require.Equal(t, got{"/v1/files", "", r.header}, r)
	require.Empty(t, requests)
	// A folded line is one value.
	raw(t, s, head+"Connection: close\r\nX-Folded: a\r\n Content-Length: 3\r\n\r\n")
	r = <-requests
	require.Equal(t, "a Content-Length: 3", r.header.Get("X-Folded"))
	// Headers that Connection names are for the proxy only.
	raw(t, s, head+"Connection: close, X-Mine, Authorization\r\nX-Mine: a\r\nKeep-Alive: x\r\nTe: trailers\r\nContent-Length: 1\r\n\r\na")
	r = <-requests
	require.Empty(t, r.header.Get("X-Mine"))
	require.Equal(t, "Bearer backend-key", r.header.Get("Authorization"))
	require.Empty(t, r.header.Get("Keep-Alive"))
	// An absolute target does not choose the host.
	raw(t, s, "GET http://localhost/v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	require.Equal(t, "/v1/files", (<-requests).uri)
}

func TestServePassesHeadOptionsAndTrailers(t *testing.T) {
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("Trailer", "X-After")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-After", "trailer")
	}))
	for _, method := range []string{"HEAD", "OPTIONS", "GET"} {
		resp, err := http.DefaultClient.Do(request(t, method, s.url+"/v1/files", ""))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, method, resp.Header.Get("X-Method"))
		if method != "HEAD" {
			require.Equal(t, "body", string(text))
			require.Equal(t, "trailer", resp.Trailer.Get("X-After"))
		}
	}
}

// A caller that sends its body too slowly gets an error, and nothing is sent.
func TestServeDoesNotWaitForSlowBodies(t *testing.T) {
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be sent") }), "-client-timeout", "200ms")
	require.Contains(t, raw(t, s, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"), "HTTP/1.1 408 ")
}

// The server reads the rest of a body before it answers: it must not wait for one of a caller
// that is refused.
func TestServeDoesNotWaitForBodiesThatItDoesNotNeed(t *testing.T) {
	_, sum := keys.New()
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be sent") }),
		"-client-timeout", "200ms", "-keys", file(t, "keys.yaml", "keys:\n  - {name: a, sha256: "+sum+"}\n"))
	for target, want := range map[string]string{"/v1/chat/completions": "401", "/nothing": "404", "/healthz": "200", "/status": "401"} {
		for _, framing := range []string{"Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"} {
			begun := time.Now()
			answer := raw(t, s, "POST "+target+" HTTP/1.1\r\nHost: localhost\r\n"+framing)
			require.Less(t, time.Since(begun), 15*time.Second, "the connection is open for longer than the caller may take")
			require.Contains(t, answer, "HTTP/1.1 "+want, target)
		}
	}
}

// A caller that does not read holds neither its place nor the deployment's for long. One that waits
// for a slow deployment is not affected, with HTTP/2 either.
func TestServeDoesNotWaitForCallersThatDoNotRead(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/files" {
			select {
			case <-time.After(600 * time.Millisecond): // with the header
			case <-r.Context().Done():
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 4 {
				fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%d\"}}]}\n\n", i)
				w.(http.Flusher).Flush()
				select {
				case <-time.After(600 * time.Millisecond):
				case <-r.Context().Done():
					return
				}
			}
			return
		}
		defer close(ended)
		piece := bytes.Repeat([]byte("x"), 1<<16)
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}), "-client-timeout", "400ms")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n"+`{"model":"m"}`)
	require.NoError(t, err)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		require.Fail(t, "the backend is still sending")
	}
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for _, transport := range []*http.Transport{h2, {}} {
		resp, err := transport.RoundTrip(request(t, "POST", s.url+"/v1/files", "a body"))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Contains(t, string(text), `"3"`)
		transport.CloseIdleConnections()
	}
}

// dial opens a WebSocket.
func dial(t *testing.T, url string, options *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	conn, resp, err := websocket.Dial(t.Context(), url, options)
	require.NoError(t, err, resp)
	require.NotEmpty(t, resp.Header.Get("X-Request-Id"))
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func send(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(text)))
}

func receive(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, text, err := c.Read(ctx)
	require.NoError(t, err)
	return string(text)
}

// echo is a backend that accepts WebSockets, says how it was asked, and then repeats what it
// is sent.
func echo(t *testing.T) (config string) {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"realtime"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		ctx := context.WithoutCancel(r.Context())
		_ = c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%s %s %v", r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Values("Sec-WebSocket-Protocol")))
		for {
			kind, text, err := c.Read(ctx)
			if err != nil {
				return
			}
			if string(text) == "bye" {
				_ = c.Close(4000, "said bye")
				return
			}
			_ = c.Write(ctx, kind, text)
		}
	})
}

func TestServeRelaysRealtime(t *testing.T) {
	key, sum := keys.New()
	s := serve(t, echo(t), "-keys", file(t, "keys.yaml", "keys:\n  - {name: a, sha256: "+sum+", models: [gpt-realtime]}\n"))
	for _, path := range []string{"/v1/realtime?model=gpt-realtime", "/openai/v1/realtime?model=gpt-realtime", "/openai/realtime?api-version=2024-10-01-preview&deployment=gpt-realtime"} {
		c := dial(t, s.url+path, &websocket.DialOptions{Subprotocols: []string{"realtime", "openai-insecure-api-key." + key}})
		require.Equal(t, "realtime", c.Subprotocol())
		require.Equal(t, "/v1/realtime?model=gpt-realtime Bearer backend-key [realtime]", receive(t, c))
		send(t, c, "hello")
		require.Equal(t, "hello", receive(t, c))
		send(t, c, "bye")
		_, _, err := c.Read(t.Context())
		require.Equal(t, websocket.StatusCode(4000), websocket.CloseStatus(err))
	}
	_, resp, err := websocket.Dial(t.Context(), s.url+"/v1/realtime?model=other", &websocket.DialOptions{HTTPHeader: http.Header{"Api-Key": {key}}})
	require.Error(t, err)
	require.Equal(t, 403, resp.StatusCode)
	_, resp, err = websocket.Dial(t.Context(), s.url+"/v1/realtime?model=gpt-realtime", nil)
	require.Error(t, err)
	require.Equal(t, 401, resp.StatusCode)
	s.records.await(t, "request", "status", "101", "key", "a", "backend", "b", "model", "gpt-realtime")
}

func TestServeRelaysResponsesOverWebSocket(t *testing.T) {
	key, sum := keys.New()
	config := strings.Replace(echo(t), "api_key", "models: [{name: gpt-4o, deployment: my-gpt-4o}, {name: o3}], api_key", 1)
	s := serve(t, config, "-keys", file(t, "keys.yaml", "keys:\n  - {name: a, sha256: "+sum+", models: [gpt-4o, o3, nowhere]}\n"))
	open := func() *websocket.Conn {
		return dial(t, s.url+"/v1/responses", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + key}, "Session_id": {"x"}}})
	}
	const create = `{"type":"response.create","model":"gpt-4o","input":"<Hello>"}`
	c := open()
	send(t, c, create)
	require.Equal(t, "/v1/responses?model=my-gpt-4o Bearer backend-key []", receive(t, c))
	require.JSONEq(t, strings.Replace(create, "gpt-4o", "my-gpt-4o", 1), receive(t, c))
	send(t, c, `{"type":"response.create","model":"o3","input":"Hello"}`)
	require.Contains(t, receive(t, c), "model_changed")
	send(t, c, `{"type":"response.create","model":"gpt-5"}`)
	require.Contains(t, receive(t, c), "model_not_allowed")
	send(t, c, `{"type":"response.steer","text":"`+key+`"}`)
	require.Contains(t, receive(t, c), "key_in_body")
	send(t, c, `{"type":"response.steer"}`)
	require.JSONEq(t, `{"type":"response.steer"}`, receive(t, c))
	require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(`{"a":"`+strings.Repeat("x", 1<<20)+`"}`)))
	c.SetReadLimit(-1)
	require.Len(t, receive(t, c), 1<<20+8)
	require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	for first, want := range map[string]string{
		`{"type":"response.create","model":"gpt-5"}`: "model_not_allowed",
		`{"type":"response.create"}`:                 "invalid_event",
		`{"type":"session.update","model":"gpt-4o"}`: "invalid_event",
		`no JSON`: "invalid_event",
		`{"type":"response.create","model":"nowhere"}`: "model_not_found",
	} {
		c := open()
		send(t, c, first)
		text := receive(t, c)
		require.Contains(t, text, `"type":"error"`)
		require.Contains(t, text, want)
		_, _, err := c.Read(t.Context())
		require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err), first)
	}
	s.records.await(t, "request", "path", "/v1/responses", "status", "101", "backend", "b", "model", "gpt-4o")
	// A query that services may read in different ways does not choose the model.
	c = dial(t, s.url+"/v1/responses?%6Dodel=o3&a=b", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + key}}})
	send(t, c, create)
	require.Equal(t, "/v1/responses?a=b&model=my-gpt-4o Bearer backend-key []", receive(t, c))
	_, resp, err := websocket.Dial(t.Context(), s.url+"/v1/responses?a=b;model=o3", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + key}}})
	require.Error(t, err)
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
}

// hopByHop sends headers that are for the proxy only.
type hopByHop struct{}

func (hopByHop) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Connection", "Upgrade, X-Hop")
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Connection", "Te"} {
		r.Header.Set(name, "for-the-proxy")
	}
	r.Header.Set("X-Kept", "for-the-backend")
	return http.DefaultTransport.RoundTrip(r)
}

func TestHopByHopHeadersOfAWebSocketAreRemoved(t *testing.T) {
	got := make(chan http.Header, 1)
	s := serve(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_ = c.Close(websocket.StatusNormalClosure, "")
		}
	}))
	for _, path := range []string{"/v1/realtime?model=m", "/v1/responses"} {
		c := dial(t, s.url+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: hopByHop{}}})
		if path == "/v1/responses" {
			send(t, c, `{"type":"response.create","model":"m"}`)
		}
		header := <-got
		require.Equal(t, []string{"for-the-backend"}, header["X-Kept"])
		for name, values := range header {
			require.NotContains(t, values, "for-the-proxy", name)
		}
	}
}
