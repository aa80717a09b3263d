package spillover_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/connections"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A countedConn counts what is written to a connection in one go.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A request with a body of up to 16 KiB is one write to its connection, header and
// body: each write is a system call, a segment and, over TLS, a record of its own. It
// is one whether GetBody is set or not, and whether the body is changed on the way.
func TestSmallRequestsAreWrittenAtOnce(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		start := map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer}[scheme]
		var arrived atomic.Pointer[string]
		server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			text := string(body)
			arrived.Store(&text)
		}))
		defer server.Close()
		for _, renamed := range []bool{false, true} {
			var writes atomic.Int64
			base := connections.NewTransport()
			base.ForceAttemptHTTP2 = false
			base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				return countedConn{conn, &writes}, err
			}
			// Above TLS, which cuts what it is given into records of its own sizes.
			base.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dialer := tls.Dialer{Config: server.Client().Transport.(*http.Transport).TLSClientConfig}
				conn, err := dialer.DialContext(ctx, network, addr)
				return countedConn{conn, &writes}, err
			}
			defer base.CloseIdleConnections()
			b := spillover.Backend{URL: server.URL, Dialect: spillover.OpenAI, APIKey: "k"}
			if renamed {
				b.Models = []spillover.Model{{Name: "m", Deployment: "another name for it"}}
			}
			tr := configured(t, spillover.Config{Base: base, Backends: []spillover.Backend{b}})
			for _, size := range []int{1 << 10, 16 << 10} {
				for _, again := range []bool{true, false} {
					name := fmt.Sprintf("%s, %d bytes, renamed: %v, GetBody: %v", scheme, size, renamed, again)
					text := `{"messages":[{"role":"user","content":"` + strings.Repeat("a", size-63) + `"}],"model":"m"}`
					want := text
					if renamed {
						want = strings.Replace(text, `"m"}`, `"another name for it"}`, 1)
					}
					const requests = 5
					for i := range 1 + requests {
						if i == 1 {
							writes.Store(0) // the connection was made for the first one
						}
						req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example.com/v1/chat/completions", bytes.NewReader([]byte(text)))
						require.NoError(t, err)
						if !again {
							req.GetBody = nil
						}
						req.Header = testnet.SDKHeader()
						resp, err := tr.RoundTrip(req)
						require.NoError(t, err, name)
						_, _ = io.Copy(io.Discard, resp.Body)
						require.NoError(t, resp.Body.Close())
						require.Equal(t, 200, resp.StatusCode, name)
						require.Equal(t, want, *arrived.Load(), name)
					}
					require.EqualValues(t, requests, writes.Load(), name)
				}
			}
		}
	}
}
