package spillover

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

// seeded makes the choices of a Transport the same in every run.
func seeded(tr *Transport) *Transport {
	var mu sync.Mutex
	source := rand.New(rand.NewPCG(1, 2))
	tr.SetRandom(func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	})
	return tr
}

// statusOf is what Status tells of a backend's deployment of the model m.
func statusOf(t testing.TB, tr *Transport, backend string) DeploymentStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				if b.Name == backend && d.Model == "m" {
					return d
				}
			}
		}
	}
	require.Fail(t, "not in Status", backend)
	return DeploymentStatus{}
}

// coolFor throttles a deployment from now on.
func coolFor(d *deployment, wait time.Duration) {
	d.Refuse(time.Now(), health.Refusal{Wait: wait, ByChance: true, Reason: "429"}, 0)
}

func TestThrottledDeploymentGetsNoLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		for _, name := range []string{"a", "b", "down"} {
			n.On(host(name), slow(time.Second, status(200, "{}")))
		}
		tr := seeded(balance(t, n, azure("a"), azure("b"), azure("down")))
		coolFor(DeploymentOf(t, tr, "down"), time.Minute)
		inTurn(t, tr, 100, 0)
		require.Zero(t, n.Sends(host("down")))
		require.InDelta(t, 50, n.Sends(host("a")), 10)
		require.InDelta(t, 50, n.Sends(host("b")), 10)
	})
}

func TestRequestIsRefusedAfterTheLastDeploymentIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a"), azure("b"), azure("c"))
		for _, name := range []string{"a", "b", "c"} {
			resp, _ := ask(t, tr)
			require.Equal(t, 200, resp.StatusCode)
			coolFor(DeploymentOf(t, tr, name), 44*time.Second)
		}
		resp, text := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "44", resp.Header.Get("Retry-After"))
		require.Equal(t, "0", resp.Header.Get("X-Spillover-Attempts"))
		require.Contains(t, text, "All 3 deployments of m are unavailable")
		require.Equal(t, 3, n.Sends())
	})
}

// counter is a Selector that counts and takes the one that it is told to.
type counter struct {
	calls [][]Candidate
	take  int
}

func (c *counter) Select(candidates []Candidate) int {
	c.calls = append(c.calls, append([]Candidate(nil), candidates...))
	return c.take
}

// Two different ones are drawn, so the busiest of any number is never taken.
func TestDeploymentIsNeverComparedWithItself(t *testing.T) {
	for n := 2; n <= 5; n++ {
		backends := []Backend{azure("busy", weight(1000))} // drawn first nearly always
		for i := 1; i < n; i++ {
			backends = append(backends, azure(fmt.Sprint("idle", i)))
		}
		tr := balance(t, newNet(), backends...)
		DeploymentOf(t, tr, "busy").InFlight.Store(1)
		for range 1000 {
			_, d := tr.table().find("m").choose(&selection{now: time.Now(), random: tr.random})
			require.NotEqual(t, "busy", d.backend.name)
		}
	}
}

func TestInFlightCountsUntilTheBodyIsRead(t *testing.T) {
	tr := balance(t, newNet(), azure("a"), azure("b"))
	b := DeploymentOf(t, tr, "b")
	coolFor(b, time.Hour)
	var open []io.Closer
	for range 10 {
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, "a", servedBy(resp))
		open = append(open, resp.Body)
	}
	endCooldown(b)
	require.Equal(t, 10, statusOf(t, tr, "a").InFlight)
	for range 100 {
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
	}
	for _, c := range open {
		c.Close()
	}
	require.Zero(t, statusOf(t, tr, "a").InFlight)
}
