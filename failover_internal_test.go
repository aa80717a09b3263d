package spillover

import (
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
)

const (
	wrongKey     = `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`
	noDeployment = `{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}`
	noQuota      = `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`
)

// firstAndSecond is a pool of two tiers.
func firstAndSecond(t testing.TB, n http.RoundTripper) *Transport {
	return balance(t, n, azure("a"), azure("b", priority(2)))
}

// The backend may be probed, the deployment not: the place at the backend is free again.
func TestBackendProbeIsGivenBackWhenTheDeploymentIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := firstAndSecond(t, n)
		d := DeploymentOf(t, tr, "a")
		fail := func(h *health.State, cause health.Cause) {
			now := time.Now()
			testnet.FailAt(h, now, cause, "", 0.5)
		}
		fail(&d.BackendState().State, health.NoAnswer)
		fail(&d.State, health.Misconfigured)
		time.Sleep(3 * time.Second)
		require.Nil(t, (&call{}).newAttempt(d, time.Now(), false))
		require.True(t, d.BackendState().Open(time.Now()))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		time.Sleep(probeWait)
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

func TestAllOutForFailuresAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a"), azure("b"), azure("c", priority(2)))
		now := time.Now()
		for name, u := range map[string]float64{"a": 0.9, "b": 0.5, "c": 0.1} {
			d := DeploymentOf(t, tr, name)
			for range 2 {
				testnet.FailAt(&d.State, now, health.NoAnswer, "no answer", u)
			}
		}
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), status(500, name+"'s own"))
		}
		asked := map[string]bool{}
		for i := range 50 {
			resp, text := ask(t, tr)
			require.Equal(t, servedBy(resp)+"'s own", text)
			require.Equal(t, 500, resp.StatusCode)
			require.Equal(t, i+1, n.Sends(), "any of them, and it alone")
			asked[servedBy(resp)] = true
		}
		require.Len(t, asked, 3)

		n.On(host("c"), ok200)
		resp, _ := ask(t, tr)
		for servedBy(resp) != "c" {
			resp, _ = ask(t, tr)
		}
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, statusOf(t, tr, "c").Available)

		// One of them throttled: what fails is still tried, but it is the word of
		// the service that the caller is told.
		coolFor(DeploymentOf(t, tr, "c"), time.Second)
		resp, _ = ask(t, tr)
		require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
	})
}
