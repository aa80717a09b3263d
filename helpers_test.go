package spillover

import (
	"io"
	"math"
	"net/http"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
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

// accepts and closed are those of a request that asks for nothing in particular.
func (d *deployment) accepts(now time.Time) bool { return new(scope).accepts(d, now) }

// harmless demands that nothing is held against a deployment and nothing is in flight.
func harmless(t testing.TB, tr *Transport) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			require.True(t, b.Available, b.Reason)
			for _, d := range b.Deployments {
				require.Zero(t, d.Failed, b.Name)
				require.Zero(t, d.InFlight, b.Name)
				require.True(t, d.Available, d.Reason)
			}
		}
	}
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

// arrives is how a request to a target arrives at a backend.
func arrives(t testing.TB, b Backend, method, target, body string, header ...string) sent {
	n := newNet()
	req := posts(t, method, target, body)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = []string{value}
	}
	resp, _ := send(t, balance(t, n, b), req)
	require.Equal(t, 200, resp.StatusCode)
	return n.Last()
}

// A paced base counts the bodies of answers that were handed out and closed,
// and notes when each request came.
type paced struct {
	http.RoundTripper
	open  atomic.Int32
	times []time.Duration
	start time.Time
}

func pace(base http.RoundTripper) *paced { return &paced{RoundTripper: base, start: time.Now()} }

func (b *paced) RoundTrip(req *http.Request) (*http.Response, error) {
	b.times = append(b.times, time.Since(b.start))
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		b.open.Add(1)
		resp.Body = &closeOnce{resp.Body, func() { b.open.Add(-1) }}
	}
	return resp, err
}

type closeOnce struct {
	io.ReadCloser
	closed func()
}

func (c *closeOnce) Close() error {
	if c.closed != nil {
		c.closed()
		c.closed = nil
	}
	return c.ReadCloser.Close()
}

// retrying runs a test against a client that retries over one deployment.
func retrying(t *testing.T, retries int, answers []roundTripFunc, f func(t *testing.T, client *http.Client, base *paced, n *fakeNet)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), answers...)
		base := pace(n)
		client := RetryClient(balance(t, base, azure("a")), retries)
		f(t, client, base, n)
		require.Zero(t, base.open.Load(), "every body is closed")
		// A bubble ends only when no goroutine is left in it.
	})
}

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

// failAt counts a failure against h that was sent and seen at a time. u varies the
// time of an ejection: 0.5 makes it the nominal one.
func failAt(h *health.State, at time.Time, cause health.Cause, reason string, u float64) {
	h.Fail(at, health.FailedAttempt{Sent: at, Seen: at, Cause: cause, Reason: reason}, u)
}

// failures is the number of failures in a row.
func failures(h *health.State) int {
	n, _ := h.Failures()
	return n
}

func lastReason(h *health.State) string {
	_, reason := h.Failures()
	return reason
}

// ejectedUntil is when the ejection in force ends; the zero time when there is none.
func ejectedUntil(h *health.State, now time.Time) time.Time {
	after := sort.Search(int(time.Hour), func(after int) bool {
		_, ejected, _ := h.Ejected(now.Add(time.Duration(after)))
		return !ejected
	})
	if after == 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(after))
}

// transitionOf is the phase that h is in.
func transitionOf(h *health.State) health.Transition {
	is, _ := h.Transition(time.Now())
	return is
}

// endCooldown ends the cool-down of a deployment by a success.
func endCooldown(d *deployment) {
	now := time.Now().Add(1)
	d.Succeed(now, now, false)
}

// rampUp leaves a ramp-up in force whose gap is one second: sixteen refusals that
// ask for no wait.
func rampUp(h *health.State) {
	now := time.Now()
	trip := time.Duration(2 * math.Exp(-0.2*15) * float64(time.Second)) // half of it is the first gap
	for i := range 16 {
		at := now.Add(time.Duration(i-60) * time.Second)
		h.Refuse(at, health.Refusal{Sent: at, RoundTrip: trip, Reason: "429"}, 0)
	}
}

// rampsUp reports whether requests are let in one by one. It ends any cool-down and
// ejection.
func rampsUp(h *health.State) bool {
	at := time.Now().Add(time.Hour)
	h.Succeed(at, at, false)
	return h.Troubled()
}

// gapOf is the time between the first two requests that are let in after a cool-down.
// It takes the place of the first.
func gapOf(t testing.TB, h *health.State) time.Duration {
	until, _, _ := h.Closed(time.Now())
	ok, _ := h.Admit(until, false)
	require.True(t, ok)
	next, _, _ := h.Closed(until)
	return next.Sub(until)
}

// spentOf is what was spent of a retry budget.
func spentOf(b *health.RetryBudget) (spent int64) {
	for !b.Has(10*health.AttemptCost - spent) {
		spent++
	}
	return spent
}
