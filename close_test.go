package spillover_test

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// After Close nothing new is sent: neither a request that waits, for any deployment or for
// its tier, nor a failover of one in flight. What was sent ends as the deployment says.
func TestNothingNewIsSentAfterClose(t *testing.T) {
	for name, test := range map[string]struct {
		ptu    []roundTripFunc // the first answer is to another request
		payg   roundTripFunc
		sends  int
		waits  bool // the other request
		status int  // 0 if the error is that of a closed Transport
	}{
		"waits for its tier":         {ptu: []roundTripFunc{reports(90)}, payg: ok200, sends: 1},
		"waits for its tier's limit": {ptu: []roundTripFunc{status(429, "{}", "Retry-After: 15")}, payg: ok200, sends: 2},
		"waits for any deployment":   {ptu: []roundTripFunc{status(429, "{}", "Retry-After: 15")}, payg: status(429, "{}", "Retry-After: 15"), sends: 2, waits: true, status: 429},
		"in flight":                  {ptu: []roundTripFunc{ok200, slow(10*time.Second, ok200)}, payg: ok200, sends: 2, status: 200},
		"in flight, is refused":      {ptu: []roundTripFunc{ok200, slow(10*time.Second, status(429, "{}", "Retry-After: 15"))}, payg: ok200, sends: 2, status: 429},
		"in flight, fails":           {ptu: []roundTripFunc{ok200, slow(10*time.Second, status(500, "{}"))}, payg: ok200, sends: 2, status: 500},
		"in flight, and is denied":   {ptu: []roundTripFunc{ok200, slow(10*time.Second, status(403, "{}"))}, payg: ok200, sends: 2, status: 403},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), append(test.ptu, ok200)...)
				n.On(host("payg"), test.payg)
				tr := configured(t, spillover.Config{Base: n, BackgroundWait: 20 * time.Second, MaxWait: 20 * time.Second, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
				if test.waits {
					go ask(t, tr) // until Close
					synctest.Wait()
				} else {
					ask(t, tr)
				}
				time.AfterFunc(time.Second, func() { require.NoError(t, tr.Close()) })
				resp, err := tr.RoundTrip(backgroundChat(t))
				require.Equal(t, test.sends, n.Sends())
				if test.status == 0 {
					require.ErrorIs(t, err, net.ErrClosed)
					return
				}
				require.NoError(t, err)
				defer resp.Body.Close()
				require.Equal(t, test.status, resp.StatusCode)
			})
		})
	}
}
