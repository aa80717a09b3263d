package spillover_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

func TestStatusReportsEveryDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, `{"error":{"code":"rate_limit_reached"}}`, "Retry-After: 5"))
		n.on(host("b"), status(500, `{"error":{"code":"oh no, a sentence"}}`))
		n.on("10.0.0.1", broken(&net.OpError{Op: "dial", Err: errors.New("refused")}))
		tr := configured(t, spillover.Config{Base: n, MaxAttempts: 9, Backends: []spillover.Backend{
			azure("d", priority(7), weight(9), serves("m")), azure("a", serves("idle", "m")), azure("b", priority(2), serves("m")),
			{Name: "c", URL: "http://10.0.0.1/ai", Dialect: spillover.Azure, Priority: 3, APIKey: "k", Models: []spillover.Model{{Name: "m"}}}}})
		started := time.Now()
		for range 3 {
			resp, _ := ask(t, tr)
			require.Equal(t, "d", servedBy(resp))
		}
		d := func(model string, change func(*spillover.DeploymentStatus)) spillover.DeploymentStatus {
			s := spillover.DeploymentStatus{Model: model, Name: model, Available: true}
			change(&s)
			return s
		}
		got := tr.Status()
		backend := func(tier int) *spillover.BackendStatus { return &got.Tiers[tier].Backends[0] }

		// How long a failure takes one out is left to chance.
		for _, until := range []*time.Time{&backend(1).Deployments[0].Until, &backend(2).Until, &backend(2).Deployments[0].Until} {
			require.True(t, until.After(started))
			*until = time.Time{}
		}
		for i, want := range []spillover.Failure{{started, 429, "429 rate_limit_reached", ""}, {started, 500, "500", ""}, {started, 0, "no connection", "dial: refused"}} {
			b := backend(i)
			m := &b.Deployments[len(b.Deployments)-1]
			require.Equal(t, want, b.LastFailure)
			require.Equal(t, want, m.LastFailure)
			b.LastFailure, m.LastFailure = spillover.Failure{}, spillover.Failure{}
		}
		require.Equal(t, spillover.Status{Tiers: []spillover.TierStatus{
			{Priority: 1, Backends: []spillover.BackendStatus{{Name: "a", URL: "https://a.openai.azure.com", Weight: 1, Available: true, Deployments: []spillover.DeploymentStatus{
				d("idle", func(*spillover.DeploymentStatus) {}),
				d("m", func(s *spillover.DeploymentStatus) {
					s.Available, s.Until, s.Reason, s.Throttled = false, started.Add(5*time.Second), "429 rate_limit_reached", 1
				}),
			}}}},
			{Priority: 2, Backends: []spillover.BackendStatus{{Name: "b", URL: "https://b.openai.azure.com", Weight: 1, Available: true, Deployments: []spillover.DeploymentStatus{
				d("m", func(s *spillover.DeploymentStatus) { s.Available, s.Reason, s.Failed = false, "500", 2 }),
			}}}},
			{Priority: 3, Backends: []spillover.BackendStatus{{Name: "c", URL: "http://10.0.0.1/ai", Weight: 1, Available: false, Reason: "no connection", Deployments: []spillover.DeploymentStatus{
				d("m", func(s *spillover.DeploymentStatus) { s.Available, s.Reason, s.Failed = false, "no connection", 1 }),
			}}}},
			{Priority: 7, Backends: []spillover.BackendStatus{{Name: "d", URL: "https://d.openai.azure.com", Weight: 9, Available: true, Deployments: []spillover.DeploymentStatus{
				d("m", func(s *spillover.DeploymentStatus) { s.Served = 3 }),
			}}}},
		}}, got)

		// It is a copy.
		got.Tiers[0].Backends[0].Deployments[0].Available = false
		got.Tiers[0].Backends[0].Name = "changed"
		require.Equal(t, "a", tr.Status().Tiers[0].Backends[0].Name)
		require.True(t, tr.Status().Tiers[0].Backends[0].Deployments[0].Available)

		time.Sleep(time.Minute)
		require.True(t, statusOf(t, tr, "a").Available)
		require.Zero(t, statusOf(t, tr, "a").Until)
		require.Empty(t, statusOf(t, tr, "a").Reason)
	})
}

func TestStatusInFlight(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	require.Equal(t, 1, statusOf(t, tr, "a").InFlight)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.Zero(t, statusOf(t, tr, "a").InFlight)
	require.NoError(t, resp.Body.Close())
	require.Zero(t, statusOf(t, tr, "a").InFlight, "given back once")
}

// Requests that name no model show once there were any.
func TestStatusOfNameless(t *testing.T) {
	tr := balance(t, newNet(), azure("a", serves("m")))
	require.Len(t, tr.Status().Tiers[0].Backends[0].Deployments, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://foo.example/v1/files", nil)
	require.NoError(t, err)
	send(t, tr, req)
	require.Equal(t, spillover.DeploymentStatus{Available: true, Served: 1}, tr.Status().Tiers[0].Backends[0].Deployments[0])
}

func TestStatusReportsEveryThrottledDeployment(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.on(host(name), status(429, "{}"))
		}
		ask(t, tr)
		for _, name := range []string{"a", "b", "c"} {
			b := backendStatus(t, tr, name)
			require.Len(t, b.Deployments, 1)
			require.False(t, b.Deployments[0].Available)
			require.EqualValues(t, 1, b.Deployments[0].Throttled)
			require.NotEmpty(t, b.Deployments[0].Reason)
		}
	})
}
