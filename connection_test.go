package spillover

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

	"github.com/spillover-go/spillover/internal/connections"
	"github.com/spillover-go/spillover/internal/testnet"
)

// newFile is a request that makes something, so that it may be sent again only
// if nothing of it was sent.
func newFile(t testing.TB) *http.Request { return newChat(t, "/v1/batches") }

// over is a base that sends what is for one host over connections, and answers
// for all others.
func over(host string, base http.RoundTripper) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == host {
			return base.RoundTrip(req)
		}
		req.Body.Close()
		return status(200, "{}")(req)
	}
}

// listening is a server below HTTP: it gets each connection.
func listening(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

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
		return listening(t, func(c net.Conn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte(answer))
		})
	}
	secure := func(cfg *tls.Config) string {
		cfg.Certificates = []tls.Certificate{cert}
		return listening(t, func(c net.Conn) {
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
		"closed in the handshake":      {listening(t, func(c net.Conn) { c.Read(make([]byte, 1)) }), direct()},
	} {
		t.Run(name, func(t *testing.T) {
			defer test.base.CloseIdleConnections()
			tr := balance(t, over(test.host, test.base),
				Backend{Name: "a", URL: "https://" + test.host, Dialect: AzureV1, APIKey: "k"}, azure("b", priority(2)))
			resp, _ := send(t, tr, newFile(t))
			require.Equal(t, "b", servedBy(resp))
			first := tr.Status().Tiers[0].Backends[0]
			require.False(t, first.Available, "the backend as a whole")
			require.Equal(t, "no connection", first.Reason)
		})
	}
}

// A request that may have been received is not sent again.
func TestBrokenConnectionDoesNotMoveOn(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"closed":    func(c net.Conn) { c.Read(make([]byte, 4096)) },
		"no HTTP":   func(c net.Conn) { c.Read(make([]byte, 4096)); c.Write([]byte("SSH-2.0\r\n\r\n")) },
		"cut short": func(c net.Conn) { c.Read(make([]byte, 4096)); c.Write([]byte("HTTP/1.1 200 OK\r\nX: ")) },
	} {
		t.Run(name, func(t *testing.T) {
			host, base := listening(t, serve), &http.Transport{}
			tr := balance(t, over(host, base), Backend{Name: "a", URL: "http://" + host, Dialect: AzureV1, APIKey: "k"}, azure("b", priority(2)))
			_, err := tr.RoundTrip(newFile(t))
			var none *noAnswerError
			require.ErrorAs(t, err, &none)
			require.True(t, tr.Status().Tiers[0].Backends[0].Available)
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp), "what creates nothing does")
		})
	}
}

// An alert that comes on a connection that was made says nothing of connecting,
// unless it ends the handshake.
func TestAlertAfterTheConnection(t *testing.T) {
	alert := func(text string) error { return &net.OpError{Op: "remote error", Err: errors.New("tls: " + text)} }
	for text, reason := range map[string]string{"bad record MAC": "no answer", "internal error": "no answer", "certificate required": "no connection"} {
		var a attempt
		a.connection.state.Store(connectionMade)
		require.Equal(t, reason, a.classifyError(alert(text)).reason, text)
		a.status = 200
		require.Equal(t, "no answer", a.classifyError(alert(text)).reason, "%s in an answer", text)
		require.Equal(t, "no connection", new(attempt).classifyError(alert(text)).reason, "a base that does not tell")
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

// A probe to what is dead is given up after a second, so that its caller does not
// wait for as long as an ordinary request.
func TestProbeToADeadBackendIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, takes := newNet(), time.Duration(0)
		n.On(host("a"), status(401, "{}"))
		slow := testnet.Connects(&takes, n)
		tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == host("a") {
				return slow(req)
			}
			return n.RoundTrip(req)
		}), azure("a"), azure("b", priority(2)))
		ask(t, tr)
		takes = time.Hour
		for _, longest := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second} {
			for waited := time.Duration(0); waited == 0; time.Sleep(time.Second) {
				started := time.Now()
				resp, _ := ask(t, tr)
				require.Equal(t, "b", servedBy(resp))
				if waited = time.Since(started); waited > 0 {
					require.Equal(t, longest, waited)
				}
			}
		}
		// One that connects in time is a backend that can: the next has a second again.
		link := deploymentOf(t, tr, "a").backend.sharedState
		require.EqualValues(t, 5, link.LostProbes.Load())
		takes = 500 * time.Millisecond
		n.On(host("a"), status(200, "{}"))
		for by := ""; by != "a"; time.Sleep(time.Second) {
			resp, _ := ask(t, tr)
			by = servedBy(resp)
		}
		require.Zero(t, link.LostProbes.Load())
	})
}

// While a connection is pending for half a second, others are spared the backend.
func TestPendingConnectionIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, takes := newNet(), 10*time.Second
		slow := testnet.Connects(&takes, n)
		tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host == host("a") {
				return slow(req)
			}
			return n.RoundTrip(req)
		}), azure("a"), azure("b", priority(2)))
		go ask(t, tr)
		time.Sleep(pendingConnect + time.Millisecond)
		started := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Zero(t, time.Since(started))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		takes = 0
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp), "it connected")
	})
}

// A proxy that answers a CONNECT has refused it unless it says 200.
func TestOnlyARefusalOfAProxyIsAnError(t *testing.T) {
	for code, refused := range map[int]bool{200: false, 403: true, 407: true, 502: true} {
		err := connections.NewTransport().OnProxyConnectResponse(t.Context(), nil, nil, &http.Response{StatusCode: code})
		require.Equal(t, refused, err != nil, code)
	}
}
