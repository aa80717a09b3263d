package spillover

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A crowd is requests that are under way at once: those at host a wait for a
// word, those elsewhere are answered.
type crowd struct {
	t    testing.TB
	tr   *Transport
	n    *fakeNet
	word chan roundTripFunc // how one of those that wait is answered
	at   atomic.Int64       // how many wait
}

func newCrowd(t testing.TB, backends ...Backend) *crowd {
	c := &crowd{t: t, n: newNet(), word: make(chan roundTripFunc)}
	c.tr = steady(balance(t, c.n, backends...))
	c.n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		c.at.Add(1)
		defer c.at.Add(-1)
		select {
		case answer := <-c.word:
			return answer(req)
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	})
	return c
}

// start sends requests one after the other and returns what ends them.
func (c *crowd) start(requests int) (leave func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	for range requests {
		go func() {
			resp, err := c.tr.RoundTrip(newChat(c.t, chatPath).WithContext(ctx))
			if err != nil {
				require.ErrorIs(c.t, err, context.Canceled)
				return
			}
			require.Equal(c.t, 200, resp.StatusCode)
			resp.Body.Close()
		}()
		synctest.Wait()
	}
	return func() {
		cancel()
		synctest.Wait()
		require.Zero(c.t, c.waiting())
	}
}

func (c *crowd) answer(f roundTripFunc) {
	c.word <- f
	synctest.Wait()
}

// waiting is how many are at a.
func (c *crowd) waiting() int { return int(c.at.Load()) }

func (c *crowd) first() *deployment { return c.tr.table().find("m").tiers[0].members[0] }

// eject takes a out.
func (c *crowd) eject() {
	now := time.Now()
	d := c.first()
	testnet.FailAt(&d.State, now, health.Misconfigured, "401", 0.5)
	require.False(c.t, d.accepts(now))
	time.Sleep(probeWait)
}

// After a probe has succeeded nothing keeps traffic out: a slow start would leave
// a slow PTU idle for minutes.
func TestAllTrafficReturnsAfterOneSuccessfulProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, azure("a"), azure("b", priority(2)))
		for range 2 { // and the same after another ejection
			c.eject()
			leave := c.start(50)
			require.Equal(t, 1, c.waiting(), "one probe; the others are served by b")
			c.answer(status(200, "{}"))
			leave()
			leave = c.start(50)
			require.Equal(t, 50, c.waiting())
			leave()
		}
	})
}

// Where there is no other deployment, a probe keeps nobody out.
func TestProbeRefusesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, azure("a"))
		c.eject()
		leave := c.start(20)
		require.Equal(t, 20, c.waiting())
		leave()
	})
}

func TestProbeIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, azure("a"), azure("b", priority(2)))
		c.eject()
		for range 3 {
			leave := c.start(3)
			require.Equal(t, 1, c.waiting())
			leave()
		}
		for _, answer := range []roundTripFunc{status(408, "{}"), status(429, `{"error":{"message":"Request too large for gpt-4o"}}`)} {
			leave := c.start(1)
			c.answer(answer)
			leave()
		}
		leave := c.start(2)
		require.Equal(t, 1, c.waiting())
		c.answer(status(200, "{}"))
		leave()
		require.Zero(t, testnet.Failures(&c.first().State))
	})
}

// A probe that hangs does not keep the next one out for ever.
func TestLostProbeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, azure("a"), azure("b", priority(2)))
		c.eject()
		c.start(1)
		time.Sleep(probeTime - time.Second)
		c.start(1)
		require.Equal(t, 1, c.waiting())
		time.Sleep(2 * time.Second)
		leave := c.start(1)
		require.Equal(t, 2, c.waiting())
		c.answer(status(200, "{}"))
		c.answer(status(200, "{}"))
		leave()
	})
}

// Without a connection the backend as a whole is out, for all of its models.
func TestBackendWithoutConnectionIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, azure("a"), azure("b", priority(2)))
		leave := c.start(1)
		c.answer(broken(noConnection))
		leave()
		b := c.tr.table().backends[0]
		require.False(t, b.Open(time.Now()))
		require.False(t, c.tr.table().find("other").tiers[0].members[0].accepts(time.Now()))
		time.Sleep(3 * time.Second)

		leave = c.start(10)
		require.Equal(t, 1, c.waiting())
		leave()
		leave = c.start(1)
		require.Equal(t, 1, c.waiting(), "it was given back")
		c.answer(broken(noConnection))
		leave()
		time.Sleep(3 * time.Second)
		leave = c.start(1)
		require.Zero(t, c.waiting(), "longer this time")
		leave()
		time.Sleep(3 * time.Second)

		leave = c.start(10)
		require.Equal(t, 1, c.waiting())
		c.answer(status(429, "{}", "retry-after-ms: 1"))
		leave()
		require.True(t, b.Open(time.Now()), "any answer tells that there is a connection")
		require.False(t, b.Troubled())
		time.Sleep(time.Second)
		leave = c.start(2)
		require.Equal(t, 2, c.waiting())
		leave()
	})
}
