package spillover

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// Nothing gets around it: no session, no Selector, no stored object, no second
// attempt, no judgement that one of all the bad must be asked.
func TestDrainedIsNeverAsked(t *testing.T) {
	plain := func(t *testing.T, _ *Transport) *http.Request { return newChat(t, chatPath) }
	stored := func(line string) func(*testing.T, *Transport) *http.Request {
		return func(t *testing.T, tr *Transport) *http.Request {
			tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-1"}, tr.table().backends[0].resource)
			return with(t, line)
		}
	}
	out := func(backends ...string) func(*testing.T, *Transport) *http.Request {
		return func(t *testing.T, tr *Transport) *http.Request {
			for _, backend := range backends {
				d := DeploymentOf(t, tr, backend)
				testnet.FailAt(&d.State, time.Now(), health.NoAnswer, "no answer", 0.5)
			}
			return newChat(t, chatPath)
		}
	}
	for name, test := range map[string]struct {
		change  func(*Config)
		request func(*testing.T, *Transport) *http.Request
		answer  roundTripFunc // of b
		status  int
		by      string
	}{
		"a session": {request: func(t *testing.T, tr *Transport) *http.Request {
			for i := 0; ; i++ {
				if id := fmt.Sprint(i); homeOf(tr, id) == "a" {
					return sessionOf(t, id)
				}
			}
		}, status: 200, by: "b"},
		"a Selector":        {change: func(c *Config) { c.Selector = &counter{} }, status: 200, by: "b"},
		"a stored object":   {request: stored("GET /v1/files/file-1"), status: 503},
		"one in a body":     {request: stored(`POST /v1/responses {"model":"m","input":[{"file_id":"file-1"}]}`), status: 503},
		"no model":          {request: func(t *testing.T, _ *Transport) *http.Request { return with(t, "GET /v1/files") }, status: 200, by: "b"},
		"others throttled":  {answer: status(429, "{}", "Retry-After: 7"), status: 429},
		"others fail":       {answer: status(500, "{}"), status: 500, by: "b"},
		"others lack it":    {answer: status(404, noDeployment), status: 404, by: "b"},
		"others time out":   {answer: status(408, "{}"), status: 408, by: "b"},
		"others are closed": {request: out("b"), status: 200, by: "b"},
		"all are closed":    {request: out("a", "b"), status: 200, by: "b"},
		"no room elsewhere": {change: func(c *Config) { c.Backends[1].Models = []Model{{Name: "m", TPM: 1}} }, status: 200, by: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				if test.answer != nil {
					n.On(host("b"), test.answer)
				}
				cfg := Config{Base: n, Backends: []Backend{azure("a"), azure("b")}}
				if test.change != nil {
					test.change(&cfg)
				}
				if test.request == nil {
					test.request = plain
				}
				tr := steady(configured(t, cfg))
				for range 3 {
					req := test.request(t, tr)
					require.NoError(t, tr.Drain("a"))
					resp, _ := send(t, tr, req)
					require.Equal(t, test.status, resp.StatusCode)
					require.Equal(t, test.by, servedBy(resp))
					require.NoError(t, tr.Resume("a"))
				}
				require.Zero(t, n.Sends(host("a")))
			})
		})
	}
}

// A choice that was made before Drain is made again if nothing was sent by then:
// what has nothing in flight has drained for good.
func TestDrainAfterTheChoice(t *testing.T) {
	tokenAfter := func(wait time.Duration) func(*Backend) {
		return func(b *Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { time.Sleep(wait); return "token", nil }
		}
	}
	for name, test := range map[string]struct {
		others []Backend
		by     string
		status int
	}{
		"another tier":    {[]Backend{azure("b", priority(2))}, "b", 200},
		"the same tier":   {[]Backend{azure("b")}, "b", 200},
		"one that is out": {[]Backend{azure("out", priority(2))}, "out", 200},
		"nobody":          {nil, "", 503},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				tr := steady(balance(t, n, append([]Backend{azure("a", tokenAfter(time.Second), limits(1, 0))}, test.others...)...))
				d := DeploymentOf(t, tr, "a")
				testnet.FailAt(&d.State, time.Now(), health.Misconfigured, "401", 0.5)
				time.Sleep(probeWait) // and the request is a probe
				for d := range DeploymentsOf(tr, "m") {
					if d.backend.name == "out" {
						for i := range 5 { // the fifth failure ejects it for 30 s
							testnet.FailAt(&d.State, time.Now().Add(time.Duration(i)), health.Unreachable, "no connection", 0.5)
						}
					}
				}
				answer := background(t, tr, newChat(t, chatPath))
				require.NoError(t, tr.Drain("a"))
				require.Equal(t, 1, statusOf(t, tr, "a").InFlight, "it has its place while it waits for the token")
				require.Equal(t, health.Probing, testnet.TransitionOf(&d.State).Phase)
				resp, _ := answer()
				require.Equal(t, test.status, resp.StatusCode)
				require.Equal(t, test.by, servedBy(resp))
				require.Zero(t, n.Sends(host("a")))
				require.Zero(t, d.InFlight.Load())
				require.Zero(t, counted(t, tr, "a")[0], "nor is it counted")
				require.NoError(t, tr.Resume("a"))
				resp, _ = ask(t, tr)
				require.Equal(t, "a", servedBy(resp))
			})
		})
	}
}
