package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"

	"github.com/bufbuild/httplb"
	"github.com/bufbuild/httplb/conn"
	"github.com/bufbuild/httplb/picker"
	"github.com/bufbuild/httplb/resolver"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/hashicorp/go-retryablehttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"golang.org/x/oauth2"

	"github.com/spillover-go/spillover"
)

// A pool is what a peer sends requests to: deployments that one base transport reaches.
type pool struct {
	base     http.RoundTripper
	scheme   string
	backends int
}

func host(i int) string { return fmt.Sprintf("b%d.openai.azure.com", i) }

// rewritten is the minimum in front of the base: a clone with the host of the first deployment.
func (p pool) rewritten() http.RoundTripper { return rewriter{p.base, p.scheme, host(0)} }

// A peer is a library that is measured, with the settings that its documentation shows.
type peer struct {
	name   string
	module string // empty for those of this module
	// The row of the report that states what is compared.
	settings, does string
	target         string // the URL that callers use
	// build returns the library in front of a pool, and what ends it.
	build func(pool) (http.RoundTripper, func(), error)
}

// The names of candidates that others are compared with.
const (
	bare      = "bare base"
	cloned    = "clone and rewrite"
	ours      = "spillover"
	oursNamed = "spillover, model renamed"
	roundRob  = "httplb"
)

func nothing() {}

func peers() []peer {
	fixed := func(around func(pool) http.RoundTripper) func(pool) (http.RoundTripper, func(), error) {
		return func(p pool) (http.RoundTripper, func(), error) { return around(p), nothing, nil }
	}
	return []peer{
		{
			name: bare, settings: "none", does: "sends the request unchanged", target: classic,
			build: fixed(func(p pool) http.RoundTripper { return p.base }),
		},
		{
			name: cloned, settings: "`Request.Clone`, host and `Api-Key` of one deployment", does: "the minimum of any load balancer", target: classic,
			build: fixed(pool.rewritten),
		},
		{
			name: "oauth2.Transport", module: "golang.org/x/oauth2", target: classic,
			settings: "`StaticTokenSource`; its base is *clone and rewrite*", does: "sets a bearer token on a clone of its own",
			build: fixed(func(p pool) http.RoundTripper {
				return &oauth2.Transport{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "token"}), Base: p.rewritten()}
			}),
		},
		{
			name: "otelhttp", module: "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", target: classic,
			settings: "`NewTransport`, no provider; its base is *clone and rewrite*", does: "metrics and spans",
			build: fixed(func(p pool) http.RoundTripper { return otelhttp.NewTransport(p.rewritten()) }),
		},
		{
			name: roundRob, module: "github.com/bufbuild/httplb", target: classic,
			settings: "`NewClient` with its default picker (round robin), a resolver that returns the hosts of the deployments, and *clone and rewrite* for each host",
			does:     "chooses a host and keeps the connections of each; no retry, no cool-down after a 429",
			build:    func(p pool) (http.RoundTripper, func(), error) { return buildHTTPLB(p, picker.NewRoundRobin) },
		},
		{
			name: "failsafe-go", module: "github.com/failsafe-go/failsafe-go", target: classic,
			settings: "`failsafehttp.NewRetryPolicyBuilder`; its base is *clone and rewrite*", does: "retries at the same host, obeys `Retry-After`",
			build: fixed(func(p pool) http.RoundTripper {
				return failsafehttp.NewRoundTripper(p.rewritten(), failsafehttp.NewRetryPolicyBuilder().Build()) //nolint:bodyclose // there is no response here
			}),
		},
		{
			name: "go-retryablehttp", module: "github.com/hashicorp/go-retryablehttp", target: classic,
			settings: "`NewClient` without a logger; its base is *clone and rewrite*", does: "retries at the same host, obeys `Retry-After`",
			build: fixed(func(p pool) http.RoundTripper {
				client := retryablehttp.NewClient()
				client.Logger, client.HTTPClient = nil, &http.Client{Transport: p.rewritten()}
				return &retryablehttp.RoundTripper{Client: client}
			}),
		},
		{
			name: ours, target: classic,
			settings: "API keys, another name of the deployment; the path names the model", does: "all of the above, and tiers, cool-downs, streams, health",
			build: func(p pool) (http.RoundTripper, func(), error) { return buildSpillover(p, spillover.Azure) },
		},
		{
			name: oursNamed, target: v1,
			settings: "the same with the v1 API: the body names the model", does: "the same, and replaces the model in the body",
			build: func(p pool) (http.RoundTripper, func(), error) { return buildSpillover(p, spillover.AzureV1) },
		},
	}
}

// twoChoices is httplb with another picker.
func twoChoices() peer {
	return peer{
		name: "httplb, two choices", target: classic,
		build: func(p pool) (http.RoundTripper, func(), error) { return buildHTTPLB(p, picker.NewPowerOfTwo) },
	}
}

// A newPicker makes the strategy by which httplb chooses a host.
type newPicker = func(prev picker.Picker, all conn.Conns) picker.Picker

func buildHTTPLB(p pool, choose newPicker) (http.RoundTripper, func(), error) {
	client := httplb.NewClient(
		httplb.WithTransport(p.scheme, hostTransport(p)),
		httplb.WithResolver(hosts(p.backends)), httplb.WithPicker(choose), httplb.WithIdleTransportTimeout(1<<62),
	)
	return client.Transport, func() { client.Close() }, nil
}

// hostTransport makes what httplb sends to one host with.
type hostTransport pool

func (t hostTransport) NewRoundTripper(_, target string, _ httplb.TransportConfig) httplb.RoundTripperResult {
	return httplb.RoundTripperResult{RoundTripper: rewriter{t.base, t.scheme, target}}
}

// hosts is a resolver that has so many deployments for every name.
type hosts int

func (h hosts) New(_ context.Context, _, _ string, receiver resolver.Receiver, _ <-chan struct{}) io.Closer {
	var all []resolver.Address
	for i := range int(h) {
		all = append(all, resolver.Address{HostPort: host(i)})
	}
	go receiver.OnResolve(all) // from another goroutine, as a resolver that asks somebody does
	return io.NopCloser(nil)
}

// model is the model of a deployment of spillover. Its name differs from the caller's, so that whatever can be rewritten is.
var model = spillover.Model{Name: "gpt-4o", Deployment: "gpt-4o-east"}

func buildSpillover(p pool, d spillover.Dialect) (http.RoundTripper, func(), error) {
	return newTransport(p, d, model)
}

func newTransport(p pool, d spillover.Dialect, m spillover.Model) (*spillover.Transport, func(), error) {
	cfg := spillover.Config{Base: p.base}
	for i := range p.backends {
		cfg.Backends = append(cfg.Backends, spillover.Backend{
			Name: fmt.Sprintf("b%d", i), URL: p.scheme + "://" + host(i), Dialect: d, APIKey: "key", Models: []spillover.Model{m},
		})
	}
	t, err := spillover.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	return t, func() { t.Close() }, nil
}

// versions are those of the modules that are compiled into this program.
func versions() map[string]string {
	all := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			all[m.Path] = m.Version
		}
	}
	return all
}
