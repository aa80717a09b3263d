package clients_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

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
	var tests []clientTest
	for call, want := range map[string]string{
		"realtime of a browser":             `{"by":"payg","protocol":"realtime","echoed":"hello"}`,
		"realtime that is refused":          `{"status":401}`,
		"responses over WebSocket":          `{"by":"payg","model":"gpt-4o-east"}`,
		"responses over WebSocket, refused": `{"error":"WebSocketError","code":"model_not_allowed"}`,
	} {
		tests = append(tests, clientTest{p, call, "", want})
	}
	requireNode(t, tests...)
	// The realtime client of the SDK uses TLS always.
	requireNode(t, clientTest{sockets(t, true), "realtime", "", `{"by":"payg","echoed":"response.create"}`})
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
