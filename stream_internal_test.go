package spillover

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
)

// streamPair is a Transport that asks one, and two if one fails. Its chance is
// even, so that ejections last exactly as long as the policy says.
func streamPair(t testing.TB, n http.RoundTripper, change ...func(*Config)) *Transport {
	cfg := Config{Base: n, Backends: []Backend{azure("one"), azure("two", priority(2))}}
	for _, f := range change {
		f(&cfg)
	}
	tr := configured(t, cfg)
	tr.random = func() uint64 { return 1 << 63 }
	return tr
}

func holdStreams(cfg *Config) { cfg.HoldStreams = true }

func streamTimeouts(header, idle time.Duration) func(*Config) {
	return func(cfg *Config) {
		for i := range cfg.Backends {
			cfg.Backends[i].HeaderTimeout, cfg.Backends[i].IdleTimeout = header, idle
		}
	}
}

// streamState is the state of a backend's one deployment.
func streamState(t testing.TB, tr *Transport, backend string) DeploymentStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			if b.Name == backend {
				asked := slices.DeleteFunc(b.Deployments, func(d DeploymentStatus) bool { return len(b.Deployments) > 1 && d.Served+d.Failed+d.Throttled == 0 })
				require.Len(t, asked, 1)
				return asked[0]
			}
		}
	}
	require.Fail(t, "no backend "+backend)
	return DeploymentStatus{}
}

// out is for how long a deployment is left alone.
func (s DeploymentStatus) out() time.Duration {
	if s.Available {
		return 0
	}
	return time.Until(s.Until)
}

func streamsInFlight(tr *Transport) (sum int) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				sum += d.InFlight
			}
		}
	}
	return sum
}

const (
	completionsPath = "/openai/deployments/m/completions?api-version=2024-10-21"
	embeddingsPath  = "/openai/deployments/m/embeddings?api-version=2024-10-21"
	responsesPath   = "/openai/v1/responses"
)

// A deployment that breaks off every stream is left alone longer each time: that
// a stream began well is no success.
func TestBreakingOffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), withBody(200, func(*http.Request) io.ReadCloser {
			return io.NopCloser(io.MultiReader(strings.NewReader("half"), testnet.BrokenBody{Err: io.ErrUnexpectedEOF}))
		}))
		tr := balance(t, n, azure("a"))
		tr.random = func() uint64 { return 1 << 63 } // no jitter
		for i, out := range []time.Duration{0, 2, 4, 8, 16, 30, 30} {
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			until := statusOf(t, tr, "a").Until
			if i == 0 {
				require.Zero(t, until, "the first is ignored")
				continue
			}
			require.Equal(t, out*time.Second, time.Until(until))
			time.Sleep(time.Until(until))
		}
	})
}
