package spillover_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/connections"
	"github.com/spillover-go/spillover/internal/testnet"
)

// nobody is an address where nobody listens.
func nobody(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Where there was no connection nothing was sent: the request moves on, one that
// creates something too, and the backend as a whole is out.
func TestNoConnectionMovesOn(t *testing.T) {
	silent := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer silent.Close()
	silent.Config.ErrorLog = nil
	pool := x509.NewCertPool()
	pool.AddCert(silent.Certificate())
	trusting := &tls.Config{RootCAs: pool}
	cert := silent.TLS.Certificates[0]
	behind := func(proxy string) *http.Transport {
		return &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), TLSClientConfig: trusting}
	}
	proxy := func(answer string) string {
		return testnet.Listen(t, func(c net.Conn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte(answer))
		})
	}
	secure := func(cfg *tls.Config) string {
		cfg.Certificates = []tls.Certificate{cert}
		return testnet.Listen(t, func(c net.Conn) {
			s := tls.Server(c, cfg)
			if s.Handshake() == nil {
				s.Read(make([]byte, 4096))
			}
		})
	}
	direct := func() *http.Transport { return &http.Transport{TLSClientConfig: trusting} }
	for name, test := range map[string]struct {
		host string
		base *http.Transport
	}{
		"refused":                      {nobody(t), direct()},
		"no such host":                 {"nowhere.invalid:443", direct()},
		"a proxy that is down":         {"upstream.example:443", behind(nobody(t))},
		"a proxy that says 503":        {"upstream.example:443", behind(proxy("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))},
		"a proxy that says 407":        {"upstream.example:443", behind(proxy("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"))},
		"a proxy that hangs up":        {"upstream.example:443", behind(proxy(""))},
		"a proxy that is none":         {"upstream.example:443", behind(proxy("SSH-2.0-OpenSSH_9.0\r\n"))},
		"an unknown authority":         {silent.Listener.Addr().String(), &http.Transport{}},
		"another host's certificate":   {strings.Replace(silent.Listener.Addr().String(), "127.0.0.1", "localhost", 1), &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "other.invalid"}}},
		"a handshake that is refused":  {secure(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("no") }}), direct()},
		"a version that is not spoken": {secure(&tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}), direct()},
		"a client certificate missing": {secure(&tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}), direct()},
		"no TLS there":                 {proxy("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), direct()},
		"closed in the handshake":      {testnet.Listen(t, func(c net.Conn) { c.Read(make([]byte, 1)) }), direct()},
	} {
		t.Run(name, func(t *testing.T) {
			defer test.base.CloseIdleConnections()
			tr := balance(t, testnet.Over(test.host, test.base),
				spillover.Backend{Name: "a", URL: "https://" + test.host, Dialect: spillover.AzureV1, APIKey: "k"}, azure("b", priority(2)))
			resp, _ := send(t, tr, testnet.NewFile(t))
			require.Equal(t, "b", servedBy(resp))
			first := tr.Status().Tiers[0].Backends[0]
			require.False(t, first.Available, "the backend as a whole")
			require.Equal(t, "no connection", first.Reason)
		})
	}
}

// A probe has a second to connect. Where connecting always takes longer, a backend
// comes back all the same: the next probe has twice the time.
func TestProbeHasMoreTimeToConnectEachTime(t *testing.T) {
	for takes, within := range map[time.Duration]time.Duration{
		300 * time.Millisecond: 20 * time.Second, 1200 * time.Millisecond: 40 * time.Second, 5 * time.Second: 2 * time.Minute, 25 * time.Second: 5 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), status(401, "{}"), status(200, "{}"))
			slow := testnet.Connects(&takes, n)
			tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.URL.Host == host("a") {
					return slow(req)
				}
				return n.RoundTrip(req)
			}), azure("a"), azure("b", priority(2)))
			started := time.Now()
			for by := ""; by != "a"; time.Sleep(time.Second) {
				resp, _ := ask(t, tr)
				by = servedBy(resp)
				require.Less(t, time.Since(started), within+takes, "connecting takes %v", takes)
			}
		})
	}
}

// A proxy that answers a CONNECT has refused it unless it says 200.
func TestOnlyARefusalOfAProxyIsAnError(t *testing.T) {
	for code, refused := range map[int]bool{200: false, 403: true, 407: true, 502: true} {
		err := connections.NewTransport().OnProxyConnectResponse(t.Context(), nil, nil, &http.Response{StatusCode: code})
		require.Equal(t, refused, err != nil, code)
	}
}
