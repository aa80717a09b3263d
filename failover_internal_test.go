package spillover

import (
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
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

// unharmed demands that nothing is held against a deployment.
func unharmed(t testing.TB, tr *Transport, backend string) {
	s := statusOf(t, tr, backend)
	require.True(t, s.Available, s.Reason)
	require.Zero(t, s.Failed)
	d := deploymentOf(t, tr, backend)
	require.Zero(t, failures(&d.State))
	require.False(t, d.backend.Troubled())
}

// One forgiven 500 before does not make the poison stick.
func TestPoisonedRequestEjectsNobodyAfterAnEarlierFailure(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	for _, name := range []string{"a", "b", "c"} {
		n.On(host(name), broken(errReset))
		d, now := deploymentOf(t, tr, name), time.Now()
		failAt(&d.State, now, health.ServerFailure, "500", 0.5)
		require.True(t, statusOf(t, tr, name).Available)
	}
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	for _, name := range []string{"a", "b", "c"} {
		require.True(t, statusOf(t, tr, name).Available, name)
	}
}

func TestThrottleNeitherCountsNorEndsAFailureStreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		// The first request is sent there twice, which counts once.
		n.On(host("a"), status(500, "{}"), status(500, "{}"), status(500, "{}"), status(429, "{}", "Retry-After: 1"), status(500, "{}"))
		tr := firstAndSecond(t, n)
		for i, streak := range []int{1, 2, 2, 3} {
			if i > 0 {
				time.Sleep(probeWait)
			}
			ask(t, tr)
			require.Equal(t, streak, failures(heldAgainst(t, tr, "a")))
		}
		require.Equal(t, 5, n.Sends(host("a")))
		time.Sleep(1200 * time.Millisecond)
		require.False(t, statusOf(t, tr, "a").Available, "out for twice as long")
	})
}

// The backend may be probed, the deployment not: the place at the backend is free again.
func TestBackendProbeIsGivenBackWhenTheDeploymentIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := firstAndSecond(t, n)
		d := deploymentOf(t, tr, "a")
		fail := func(h *health.State, cause health.Cause) {
			now := time.Now()
			failAt(h, now, cause, "", 0.5)
		}
		fail(&d.backend.State, health.NoAnswer)
		fail(&d.State, health.Misconfigured)
		time.Sleep(3 * time.Second)
		require.Nil(t, (&call{}).newAttempt(d, time.Now(), false))
		require.True(t, d.backend.Open(time.Now()))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		time.Sleep(probeWait)
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

// newCreation is a request that creates something, and names no model.
func newCreation(t testing.TB, path string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://foo.openai.azure.com"+path, strings.NewReader(`{"purpose":"batch"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	return req
}

// A failure that could not be tried elsewhere is neither blamed nor a success.
func TestFailureOfACreationIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(500, "{}"))
		tr := firstAndSecond(t, n)
		d := tr.table().nameless.tiers[0].members[0]
		now := time.Now()
		failAt(&d.State, now, health.ServerFailure, "500", 0.5)
		failAt(&d.State, now, health.ServerFailure, "500", 0.5)
		time.Sleep(probeWait)
		resp, _ := send(t, tr, newCreation(t, "/v1/batches"))
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, "a", servedBy(resp))
		require.Equal(t, 2, failures(&d.State), "the probe failed: no success is recorded")
	})
}

func TestAllOutForFailuresAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a"), azure("b"), azure("c", priority(2)))
		now := time.Now()
		for name, u := range map[string]float64{"a": 0.9, "b": 0.5, "c": 0.1} {
			d := deploymentOf(t, tr, name)
			for range 2 {
				failAt(&d.State, now, health.NoAnswer, "no answer", u)
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
		coolFor(deploymentOf(t, tr, "c"), time.Second)
		resp, _ = ask(t, tr)
		require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
	})
}
