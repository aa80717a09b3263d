package spillover

import (
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
)

// A request that may have been received is not sent again.
func TestBrokenConnectionDoesNotMoveOn(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"closed":    func(c net.Conn) { c.Read(make([]byte, 4096)) },
		"no HTTP":   func(c net.Conn) { c.Read(make([]byte, 4096)); c.Write([]byte("SSH-2.0\r\n\r\n")) },
		"cut short": func(c net.Conn) { c.Read(make([]byte, 4096)); c.Write([]byte("HTTP/1.1 200 OK\r\nX: ")) },
	} {
		t.Run(name, func(t *testing.T) {
			host, base := testnet.Listen(t, serve), &http.Transport{}
			tr := balance(t, testnet.Over(host, base), Backend{Name: "a", URL: "http://" + host, Dialect: AzureV1, APIKey: "k"}, azure("b", priority(2)))
			_, err := tr.RoundTrip(testnet.NewFile(t))
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
		link := DeploymentOf(t, tr, "a").backend.sharedState
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
