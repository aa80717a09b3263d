package spillover

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// Names of internal/testnet.
type (
	fakeNet       = testnet.Net
	roundTripFunc = testnet.RoundTripFunc
)

var (
	newNet, host, posts, with          = testnet.New, testnet.Host, testnet.NewRequest, testnet.Request
	newChat, ask, send, read, servedBy = testnet.NewChat, testnet.Ask, testnet.Send, testnet.Read, testnet.ServedBy
	status, broken, hung, slow         = testnet.Status, testnet.Broken, testnet.Hung, testnet.Slow
	ok200                              = testnet.OK
	background, inTurn                 = testnet.Background, testnet.InTurn
)

const chatPath = testnet.ChatPath

// probeWait is the time after a failure from which a half-open probe waits for no other
// requests.
const probeWait = 31 * time.Second

// azure is a backend of Azure's classic dialect at https://NAME.openai.azure.com.
func azure(name string, change ...func(*Backend)) Backend {
	b := Backend{Name: name, URL: "https://" + name + ".openai.azure.com", APIKey: "key-" + name}
	for _, f := range change {
		f(&b)
	}
	return b
}

func priority(p int) func(*Backend) { return func(b *Backend) { b.Priority = p } }
func weight(w int) func(*Backend)   { return func(b *Backend) { b.Weight = w } }
func serves(models ...string) func(*Backend) {
	return func(b *Backend) {
		for _, m := range models {
			b.Models = append(b.Models, Model{Name: m})
		}
	}
}

// balance makes a Transport over a net.
func balance(t testing.TB, n http.RoundTripper, backends ...Backend) *Transport {
	return configured(t, Config{Base: n, Backends: backends})
}

func configured(t testing.TB, cfg Config) *Transport {
	tr, err := New(cfg)
	require.NoError(t, err)
	return tr
}

// table is the one that the next request finds its route in.
func (t *Transport) table() *table { return t.setup.Load().table }

// chosen is choose without the tier.
func (r *route) chosen(q *selection) *deployment {
	_, d := r.choose(q)
	return d
}

// accepts is that of a request that asks for nothing in particular.
func (d *deployment) accepts(now time.Time) bool { return new(scope).accepts(d, now) }

// to is a backend at a URL, which calls the model m by another name if one is given.
func to(target string, d Dialect, name string, change ...func(*Backend)) Backend {
	b := Backend{Name: "to " + target, URL: target, Dialect: d, APIKey: "k"}
	if name != "" {
		b.Models = []Model{{Name: "m", Deployment: name}}
	}
	for _, f := range change {
		f(&b)
	}
	return b
}

func apiVersion(v string) func(*Backend) { return func(b *Backend) { b.APIVersion = v } }

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// What the tests of transports expect of internal/health.
const (
	probeTime   = 10 * time.Second       // how long a half-open probe has its place
	longestTrip = 100 * time.Millisecond // a refusal's round trip counts as no more

	headroomAge      = 10 * time.Second // a report of remaining tokens that is this old counts less
	headroomFresh    = 20 * time.Second // a report that no tokens remain counts for so long
	utilizationFresh = 10 * time.Second // a reported utilization counts for so long
	nearlyFull       = 850              // thousandths: a PTU spills early above it
	utilizationFull  = 1000
)

// endCooldown ends the cool-down of a deployment by a success.
func endCooldown(d *deployment) {
	now := time.Now().Add(1)
	d.Succeed(now, now, false)
}

func defaults(fields map[string]any) func(*Backend) { return func(b *Backend) { b.Defaults = fields } }

// withListener is the configuration with a Listener in it.
func withListener(l *telemetrytest.Listener, cfg Config) Config {
	cfg.MeterProvider, cfg.TracerProvider, cfg.Logger = l.MeterProvider(), l.TracerProvider(), l.Logger()
	return cfg
}

// left is how long that deployment is still left alone.
func left(t testing.TB, tr *Transport, backend string) time.Duration {
	if d := statusOf(t, tr, backend); !d.Available {
		return time.Until(d.Until)
	}
	return 0
}

// dealt makes the choices of a Transport the same each time. The requests of
// such a test come one after the other.
func dealt(tr *Transport) *Transport {
	tr.SetRandom(rand.New(rand.NewPCG(1, 2)).Uint64)
	return tr
}

// streamPair is a Transport that asks one, and two if one fails. Its chance is
// even, so that ejections last exactly as long as the policy says.
func streamPair(t testing.TB, n http.RoundTripper, change ...func(*Config)) *Transport {
	cfg := Config{Base: n, Backends: []Backend{azure("one"), azure("two", priority(2))}}
	for _, f := range change {
		f(&cfg)
	}
	tr := configured(t, cfg)
	tr.SetRandom(func() uint64 { return 1 << 63 })
	return tr
}

func holdStreams(cfg *Config) { cfg.HoldStreams = true }

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
func out(s DeploymentStatus) time.Duration {
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
