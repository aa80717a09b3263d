package spillover

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
)

// limits gives a backend's model m limits of its own.
func limits(rpm, tpm int) func(*Backend) {
	return func(b *Backend) { b.Models = append(b.Models, Model{Name: "m", RPM: rpm, TPM: tpm}) }
}

// counted is the requests and tokens that a deployment of m has counted.
func counted(t testing.TB, tr *Transport, backend string) [2]int64 {
	requests, tokens := DeploymentOf(t, tr, backend).LocalLimits.Counted()
	return [2]int64{requests, tokens}
}

// What was not sent is not counted: there was no token, no body, no place.
func TestUnsentAttemptIsNotCounted(t *testing.T) {
	t.Run("no token", func(t *testing.T) {
		n := newNet()
		a := azure("a", limits(100, 100000), func(b *Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return "", errors.New("no token") }
		})
		tr := balance(t, n, a, azure("b", priority(2)))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, [2]int64{0, 0}, counted(t, tr, "a"))
	})
	t.Run("no body", func(t *testing.T) {
		n := newNet()
		n.On(host("b"), status(429, "{}"))
		tr := balance(t, n, azure("a", limits(100, 100000), priority(2)), azure("b"))
		req := testnet.NewLargeChat(t, chatPath)
		bodies := 0
		req.GetBody = func() (io.ReadCloser, error) { bodies++; return nil, errors.New("gone") }
		_, err := tr.RoundTrip(req)
		require.Error(t, err)
		require.Equal(t, 1, bodies)
		require.Equal(t, [2]int64{0, 0}, counted(t, tr, "a"))
	})
	t.Run("no place", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, azure("a", limits(100, 100000)), azure("b", priority(2)))
			c.eject()
			leave := c.start(10)
			require.Equal(t, 1, c.waiting(), "a probe")
			require.Equal(t, [2]int64{1, testnet.ChatTokens(t)}, counted(t, c.tr, "a"))
			leave()
		})
	})
}

// Headroom comes from configured limits while the service reports none.
func TestHeadroomComesFromLimitsWithoutReports(t *testing.T) {
	tr := seeded(balance(t, newNet(), azure("a", limits(0, 100_000)), azure("b", limits(0, 50_000))))
	for range 60 {
		ask(t, tr)
	}
	left := func(name string) float64 {
		d := DeploymentOf(t, tr, name)
		return d.LocalLimits.Headroom(time.Now(), d.rates)
	}
	require.InDelta(t, left("a"), left("b"), 0.2, "compared by what is left, not by what was sent")
	d := DeploymentOf(t, tr, "a")
	d.measure(time.Now(), time.Now(), d.CountSent(0), headerOf(testnet.LimitHeaders(10000, 9000)...))
	h := d.headroom(time.Now())
	require.Equal(t, []float64{0.9, 1}, []float64{math.Round(h.Share*10) / 10, math.Round(h.Trust)}, "the service's own word comes first")
}

// A configured limit refuses nobody: it is the service that knows.
func TestUsageLimitsAreSoft(t *testing.T) {
	for name, second := range map[string]func(*Backend){"all have spent theirs": limits(1, 0), "no other": nil} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			backends := []Backend{azure("a", limits(1, 0))}
			if second != nil {
				backends = append(backends, azure("b", second))
			}
			tr := balance(t, n, backends...)
			for range 10 {
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode)
			}
			require.Equal(t, 10, n.Sends())
		})
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a", limits(1, 0)), azure("b", priority(2)))
		ask(t, tr)
		coolFor(DeploymentOf(t, tr, "b"), time.Minute)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp), "the other is throttled: so says the service")
	})
}
