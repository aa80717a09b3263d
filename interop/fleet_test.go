package interop

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/fleet/redis"
	"github.com/spillover-go/spillover/spillovertest"
)

var _ spillover.Fleet = (*redis.Engine)(nil)

// Two replicas with a Redis server between them: what one is told, the other knows. When
// the server is gone, both go on without it.
func TestReplicasLearnThroughRedis(t *testing.T) {
	url, stop := redisServer(t)
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu", Dialect: spillovertest.Azure})
	payg := spillovertest.New(spillovertest.Config{Name: "payg", Dialect: spillovertest.Azure})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"50"}}})
	models := []spillover.Model{{Name: "gpt-4o"}}
	replica := func() *spillover.Transport {
		engine, err := redis.Open(url, redis.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, engine.Close()) })
		lb, err := spillover.New(spillover.Config{
			Base: spillovertest.Network(ptu, payg), Fleet: engine,
			Backends: []spillover.Backend{
				{Name: "ptu", URL: ptu.URL, Dialect: spillover.Azure, APIKey: "k", Models: models},
				{Name: "payg", URL: payg.URL, Dialect: spillover.Azure, APIKey: "k", Models: models, Priority: 2},
			},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, lb.Close()) })
		return lb
	}
	chat := func(lb *spillover.Transport) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any.test/v1/chat/completions",
			strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
		require.NoError(t, err)
		resp, err := lb.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp
	}
	avoided := func(lb *spillover.Transport) bool {
		return !lb.Status().Tiers[0].Backends[0].Deployments[0].AvoidedUntil.IsZero()
	}
	second := replica()
	require.Eventually(t, func() bool { // a subscription takes a moment: new replicas tell it again
		require.Equal(t, "payg", chat(replica()).Header.Get("X-Spillover-Backend"))
		return avoided(second)
	}, 20*time.Second, 200*time.Millisecond)
	first := replica()

	third := replica() // joins later, and recalls what holds
	require.Eventually(t, func() bool { return avoided(third) }, 20*time.Second, 50*time.Millisecond)

	stop()
	for range 5 {
		require.Equal(t, http.StatusOK, chat(first).StatusCode)
		require.Equal(t, http.StatusOK, chat(second).StatusCode)
	}
}

// redisServer starts a Redis server.
func redisServer(t *testing.T) (url string, stop func()) {
	path, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("SPILLOVER_SKIP_REDIS") != "" {
		t.Skip("no redis-server, and SPILLOVER_SKIP_REDIS is set")
	}
	require.NoError(t, err, "install redis-server, or set SPILLOVER_SKIP_REDIS to skip this test")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	cmd := exec.Command(path, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	require.NoError(t, cmd.Start())
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
	return fmt.Sprintf("redis://127.0.0.1:%d/0", port), stop
}
