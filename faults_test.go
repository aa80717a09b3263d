package spillover_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/spillovertest"
)

// A sight is what a fault looked like from the outside.
type sight struct {
	got    string
	sent   int
	time   time.Duration
	again  time.Duration
	inVain int
}

// A scenario is a fault of the first deployment, and what is to be seen of it
// with HoldStreams off and on.
type scenario struct {
	name    string
	fault   spillovertest.Fault
	lasts   time.Duration // 0: it happens once
	off, on sight
}

const ms, second = time.Millisecond, time.Second

var scenarios = []scenario{
	{"429 with Retry-After: 4", faultAnswer(429, `{"error":{"code":"429","message":"m"}}`, "Retry-After", "4"), 0,
		sight{"complete", 2, 650 * ms, 3350 * ms, 1}, sight{"complete", 2, 650 * ms, 3350 * ms, 1}},
	{"429 without a time", faultAnswer(429, `{"error":{"code":"429","message":"m"}}`), 0,
		sight{"complete", 2, 650 * ms, 9350 * ms, 1}, sight{"complete", 2, 650 * ms, 9350 * ms, 1}},
	{"500 once", faultAnswer(500, `{"error":{"code":"500","message":"m"}}`), 0,
		sight{"complete", 2, 650 * ms, 0, 0}, sight{"complete", 2, 650 * ms, 0, 0}},
	{"503 for 30 s", faultAnswer(503, `{"error":{"code":"503","message":"m"}}`), 30 * second,
		sight{"complete", 3, 650 * ms, 4550 * ms, 5}, sight{"complete", 3, 650 * ms, 5000 * ms, 5}},
	{"connection reset before the header", spillovertest.Fault{Kind: spillovertest.KindReset}, 0,
		sight{"complete", 2, 650 * ms, 0, 0}, sight{"complete", 2, 650 * ms, 0, 0}},
	{"silence", spillovertest.Fault{Kind: spillovertest.KindSilent}, 0,
		sight{"complete", 2, 2650 * ms, 0, 1}, sight{"complete", 2, 2650 * ms, 0, 1}},
	{"headers, then silence", spillovertest.Fault{Kind: spillovertest.KindStall}, 0,
		sight{"complete", 2, 2650 * ms, 0, 1}, sight{"complete", 2, 2650 * ms, 0, 1}},
	{"cut after four tokens", spillovertest.Fault{Kind: spillovertest.KindCut, After: 4}, 0,
		sight{"part, then io.ErrUnexpectedEOF", 1, 400 * ms, 0, 1}, sight{"complete", 2, 1050 * ms, 0, 0}},
	{"stalled after four tokens", spillovertest.Fault{Kind: spillovertest.KindStall, After: 4}, 0,
		sight{"part, then a timeout", 1, 1350 * ms, 0, 1}, sight{"complete", 2, 2000 * ms, 0, 1}},
	{"a malformed event among the others", faultStream("data: {malformed\n\n" + testnet.LastChunk + testnet.DoneEvent), 0,
		sight{"complete, with the malformed event", 1, 0, 0, 0}, sight{"complete, with the malformed event", 1, 0, 0, 0}},
	{"a stream without [DONE]", faultStream(testnet.LastChunk), 0,
		sight{"complete, without [DONE]", 1, 0, 0, 0}, sight{"complete, without [DONE]", 1, 0, 0, 0}},
	{"context too long", faultAnswer(400, `{"error":{"code":"context_length_exceeded","message":"m"}}`), 0,
		sight{"the 400", 1, 0, 0, 0}, sight{"the 400", 1, 0, 0, 0}},
	{"content filter", faultAnswer(400, `{"error":{"code":"content_filter","message":"m","status":400}}`), 0,
		sight{"the 400", 1, 0, 0, 0}, sight{"the 400", 1, 0, 0, 0}},
	{"outage of 60 s, connections refused", spillovertest.Fault{Kind: spillovertest.KindRefuse}, 60 * second,
		sight{"complete", 2, 650 * ms, 18050 * ms, 5}, sight{"complete", 2, 650 * ms, 18050 * ms, 5}},
	{"error event before content", spillovertest.Fault{Kind: spillovertest.KindError, Header: http.Header{"Retry-After": {"4"}}}, 0,
		sight{"complete", 2, 850 * ms, 3350 * ms, 1}, sight{"complete", 2, 850 * ms, 3350 * ms, 1}},
	{"error event after four tokens", spillovertest.Fault{Kind: spillovertest.KindError, After: 4, Header: http.Header{"Retry-After": {"4"}}}, 0,
		sight{"part, then the error event", 1, 400 * ms, 4 * second, 1}, sight{"complete", 2, 1050 * ms, 3350 * ms, 1}},
}

func faultAnswer(status int, body string, header ...string) spillovertest.Fault {
	f := spillovertest.Fault{Status: status, Body: body}
	if len(header) > 0 {
		f.Header = http.Header{header[0]: {header[1]}}
	}
	return f
}

// faultStream answers with ten tokens at once, and with what ends them.
func faultStream(end string) spillovertest.Fault {
	return spillovertest.Fault{
		Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}},
		Body: testnet.AzureFirst + testnet.RoleChunk + strings.Repeat(testnet.TokenChunk("x"), 10) + end,
	}
}

func faultServer(name string) *spillovertest.Server {
	return spillovertest.New(spillovertest.Config{Name: name, Deployments: []spillovertest.Deployment{
		{Name: "m", Output: 10, Latency: spillovertest.Latency{FirstToken: 200 * ms, PerToken: 50 * ms}}}})
}

func faultRequest(t *testing.T) *http.Request {
	const text = `{"messages":[{"role":"user","content":"hi"}],"stream":true}`
	req := newChat(t, chatPath)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return req
}

// see puts a fault before a request and looks on until the first deployment is
// used again.
func see(t *testing.T, sc scenario, hold bool) (seen sight) {
	first, other := faultServer("first"), faultServer("second")
	if sc.fault.Times = 1; sc.lasts > 0 {
		sc.fault.Times = 0
	}
	first.Set(sc.fault)
	cfg := spillover.Config{Base: spillovertest.Network(first, other), HoldStreams: hold}
	for i, s := range []*spillovertest.Server{first, other} {
		cfg.Backends = append(cfg.Backends, spillover.Backend{Name: s.Name, URL: s.URL, Dialect: spillover.Azure, APIKey: "k", Priority: i + 1,
			HeaderTimeout: 2 * second, IdleTimeout: second})
	}
	tr := configured(t, cfg)
	tr.SetRandom(func() uint64 { return 1 << 63 }) // no jitter

	over := time.Now().Add(sc.lasts)
	if sc.lasts > 0 {
		time.AfterFunc(sc.lasts, first.Heal)
		time.Sleep(500 * ms) // so that no probe comes at the very end
	}
	begun := time.Now()
	resp, err := tr.RoundTrip(faultRequest(t))
	require.NoError(t, err)
	body, err := testnet.ReadAll(t, resp)
	ended := time.Now()
	seen.got, seen.time = named(t, resp, body, err), ended.Sub(begun)
	_, err = fmt.Sscan(resp.Header.Get("X-Spillover-Attempts"), &seen.sent)
	require.NoError(t, err)
	if servedBy(resp) != "first" || strings.HasPrefix(seen.got, "part") {
		seen.inVain = 1
	}
	require.Zero(t, streamsInFlight(tr))

	for ended = health.Latest(ended, over); ; {
		sent := time.Now()
		resp, err := tr.RoundTrip(faultRequest(t))
		require.NoError(t, err)
		body, err := testnet.ReadAll(t, resp)
		require.Equal(t, "complete", named(t, resp, body, err), "nobody else sees anything of it")
		if servedBy(resp) == "first" {
			seen.again = sent.Sub(ended)
			require.Zero(t, streamsInFlight(tr))
			return seen
		}
		if resp.Header.Get("X-Spillover-Attempts") != "1" {
			seen.inVain++
		}
		for _, b := range tr.Status().Tiers[0].Backends {
			until := b.Until
			for _, d := range b.Deployments {
				until = health.Latest(until, d.Until)
			}
			time.Sleep(time.Until(until))
		}
	}
}

// named says in words what a caller got.
func named(t *testing.T, resp *http.Response, body string, err error) string {
	tokens := strings.Count(body, `"delta":{"content":"`)
	var timeout net.Error
	switch {
	case resp.StatusCode != 200:
		require.NoError(t, err)
		return fmt.Sprintf("the %d", resp.StatusCode)
	case tokens == 4 && errors.Is(err, io.ErrUnexpectedEOF):
		return "part, then io.ErrUnexpectedEOF"
	case tokens == 4 && errors.As(err, &timeout) && timeout.Timeout():
		return "part, then a timeout"
	case tokens == 4 && err == nil && strings.Contains(body, `"error"`):
		return "part, then the error event"
	case tokens == 10 && err == nil && strings.Contains(body, "{malformed"):
		return "complete, with the malformed event"
	case tokens == 10 && err == nil && !strings.Contains(body, "[DONE]"):
		return "complete, without [DONE]"
	case tokens == 10 && err == nil && strings.Count(body, "[DONE]") == 1 && strings.Count(body, `"role"`) == 1:
		return "complete"
	}
	require.Failf(t, "nobody should get this", "%d tokens, %v: %s", tokens, err, body)
	return ""
}

func (s sight) String() string {
	again := "at once"
	if s.again > 0 {
		again = s.again.String()
	}
	return fmt.Sprintf("%s | %d | %v | %s | %d", s.got, s.sent, s.time, again, s.inVain)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	table := "| fault | HoldStreams | caller gets | sent | time | first again | wasted |\n|---|---|---|---|---|---|---|\n"
	for _, sc := range scenarios {
		for _, hold := range []bool{false, true} {
			want, mode := sc.off, "off"
			if hold {
				want, mode = sc.on, "on"
			}
			t.Run(sc.name+", "+mode, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					seen := see(t, sc, hold)
					table += fmt.Sprintf("| %s | %s | %v |\n", sc.name, mode, seen)
					require.Equal(t, want.String(), seen.String())
				})
			})
		}
	}
	t.Log("\n" + table)

	doctest.Section(t, "docs/faults.md", "faults", table)
}
