package spillover_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// Names of internal/testnet.
type (
	fakeNet       = testnet.Net
	sent          = testnet.Sent
	roundTripFunc = testnet.RoundTripFunc
)

var (
	newNet, host, posts, with            = testnet.New, testnet.Host, testnet.NewRequest, testnet.Request
	newChat, ask, send, read, servedBy   = testnet.NewChat, testnet.Ask, testnet.Send, testnet.Read, testnet.ServedBy
	status, broken, hung, slow, withBody = testnet.Status, testnet.Broken, testnet.Hung, testnet.Slow, testnet.WithBody
	ok200                                = testnet.OK
	background, inTurn                   = testnet.Background, testnet.InTurn
)

const chatPath = testnet.ChatPath

// probeWait is the time after a failure from which a half-open probe waits for no other
// requests.
const probeWait = 31 * time.Second

// azure is a backend of Azure's classic dialect at https://NAME.openai.azure.com.
func azure(name string, change ...func(*spillover.Backend)) spillover.Backend {
	b := spillover.Backend{Name: name, URL: "https://" + name + ".openai.azure.com", APIKey: "key-" + name}
	for _, f := range change {
		f(&b)
	}
	return b
}

func priority(p int) func(*spillover.Backend) { return func(b *spillover.Backend) { b.Priority = p } }
func weight(w int) func(*spillover.Backend)   { return func(b *spillover.Backend) { b.Weight = w } }
func serves(models ...string) func(*spillover.Backend) {
	return func(b *spillover.Backend) {
		for _, m := range models {
			b.Models = append(b.Models, spillover.Model{Name: m})
		}
	}
}

// balance makes a Transport over a net.
func balance(t testing.TB, n http.RoundTripper, backends ...spillover.Backend) *spillover.Transport {
	return configured(t, spillover.Config{Base: n, Backends: backends})
}

func configured(t testing.TB, cfg spillover.Config) *spillover.Transport {
	tr, err := spillover.New(cfg)
	require.NoError(t, err)
	return tr
}

// statusOf is the state of a backend's deployment of the model m.
func statusOf(t testing.TB, tr *spillover.Transport, backend string) spillover.DeploymentStatus {
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
	return spillover.DeploymentStatus{}
}

// nothingInFlight demands that every deployment has answered all its requests.
func nothingInFlight(t testing.TB, tr *spillover.Transport) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				require.Zero(t, d.InFlight, "%s %s", b.Name, d.Model)
			}
		}
	}
}

// maxErrorBody is how much of an error response is read, see docs/security.md.
const maxErrorBody = 64 << 10

// longestTrip is as long as the round trip of a refusal counts at most.
const longestTrip = 100 * time.Millisecond

// backendStatus is the state of a backend.
func backendStatus(t testing.TB, tr *spillover.Transport, name string) spillover.BackendStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			if b.Name == name {
				return b
			}
		}
	}
	require.Fail(t, "not in Status", name)
	return spillover.BackendStatus{}
}

// throttle makes a backend refuse the next request, which goes to no other one,
// and each that follows for a minute.
func throttle(t testing.TB, tr *spillover.Transport, n *fakeNet, name string) {
	n.On(host(name), status(429, "{}", "Retry-After: 60"))
	others := func(change func(string) error) {
		for _, tier := range tr.Status().Tiers {
			for _, b := range tier.Backends {
				if b.Name != name {
					require.NoError(t, change(b.Name))
				}
			}
		}
	}
	others(tr.Drain)
	ask(t, tr)
	others(tr.Resume)
	require.False(t, statusOf(t, tr, name).Available)
}

// closing is the body of newChat that counts how often it is closed.
func closing(req *http.Request, closed *atomic.Int64) *http.Request {
	req.Body = countedBody{req.Body, closed}
	return req
}

type countedBody struct {
	io.ReadCloser
	closed *atomic.Int64
}

func (b countedBody) Close() error { b.closed.Add(1); return b.ReadCloser.Close() }

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

var errDNS = &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "a.openai.azure.com", IsNotFound: true}}

const wrongKey = `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`

const noDeployment = `{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}`

const noQuota = `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`

// firstAndSecond is a pool of two tiers.
func firstAndSecond(t testing.TB, n http.RoundTripper) *spillover.Transport {
	return balance(t, n, azure("a"), azure("b", priority(2)))
}

// sentOnce is a pool of two tiers whose requests are sent once to each: MaxAttempts
// leaves no second attempt in the first tier.
func sentOnce(t testing.TB, n http.RoundTripper) *spillover.Transport {
	return configured(t, spillover.Config{Base: n, MaxAttempts: 2, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))}})
}

// A stalled body stays silent, until the request's context ends as with net/http.
type stalledBody struct {
	ctx    context.Context
	closed *atomic.Int64
}

func (b stalledBody) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, context.Cause(b.ctx) }

func (b stalledBody) Close() error { b.closed.Add(1); return nil }

// left is how long that deployment is still left alone.
func left(t testing.TB, tr *spillover.Transport, backend string) time.Duration {
	if d := statusOf(t, tr, backend); !d.Available {
		return time.Until(d.Until)
	}
	return 0
}

// three is a pool of a, b and c.
func three(t testing.TB, n http.RoundTripper) *spillover.Transport {
	return balance(t, n, azure("a"), azure("b"), azure("c"))
}

// unharmed demands that nothing is held against a deployment.
func unharmed(t testing.TB, tr *spillover.Transport, backend string) {
	s := statusOf(t, tr, backend)
	require.True(t, s.Available, s.Reason)
	require.Zero(t, s.Failed)
	d := spillover.DeploymentOf(t, tr, backend)
	require.Zero(t, testnet.Failures(&d.State))
	require.False(t, d.BackendState().Troubled())
}

// streamPair is a Transport that asks one, and two if one fails. Its chance is
// even, so that ejections last exactly as long as the policy says.
func streamPair(t testing.TB, n http.RoundTripper, change ...func(*spillover.Config)) *spillover.Transport {
	cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("one"), azure("two", priority(2))}}
	for _, f := range change {
		f(&cfg)
	}
	tr := configured(t, cfg)
	tr.SetRandom(func() uint64 { return 1 << 63 })
	return tr
}
