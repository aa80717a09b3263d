package cost

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// base answers at once. One that reads takes the request's body as a connection
// does; one that does not shows what is added to a small request most clearly.
type base struct{ reads bool }

func (b base) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		if b.reads {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
		}
		req.Body.Close()
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody, Request: req,
	}, nil
}

// rewriter does the least that any load balancer does.
type rewriter struct{ base http.RoundTripper }

func (r rewriter) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "https", "b0.openai.azure.com", ""
	out.Header.Set("Api-Key", "key")
	return r.base.RoundTrip(out)
}

// The peers rewrite nothing themselves: each is given a rewriter as its base.
func failsafe(b http.RoundTripper) http.RoundTripper {
	return failsafehttp.NewRoundTripper(rewriter{b}, failsafehttp.NewRetryPolicyBuilder().Build())
}

func retryable(b http.RoundTripper) http.RoundTripper {
	client := retryablehttp.NewClient()
	client.Logger = nil
	client.HTTPClient = &http.Client{Transport: rewriter{b}}
	return &retryablehttp.RoundTripper{Client: client}
}

// balanced has backends that call the model by another name than the caller, so
// that whatever can be rewritten is.
func balanced(tb testing.TB, b http.RoundTripper, backends int, d spillover.Dialect) http.RoundTripper {
	cfg := spillover.Config{Base: b}
	for i := range backends {
		cfg.Backends = append(cfg.Backends, spillover.Backend{
			Name: fmt.Sprintf("b%d", i), URL: fmt.Sprintf("https://b%d.openai.azure.com", i), Dialect: d, APIKey: "key",
			Models: []spillover.Model{{Name: "gpt-4o", Deployment: "gpt-4o-east"}},
		})
	}
	t, err := spillover.New(cfg)
	require.NoError(tb, err)
	return t
}

// sdkHeader is what openai-go sends.
func sdkHeader() http.Header {
	h := http.Header{}
	for _, name := range []string{"Accept", "Authorization", "Content-Type", "User-Agent", "X-Stainless-Arch", "X-Stainless-Lang",
		"X-Stainless-Os", "X-Stainless-Package-Version", "X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version"} {
		h.Set(name, "application/json")
	}
	return h
}

const (
	classic = "https://api.example.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
	v1      = "https://api.example.com/v1/chat/completions"
)

// requests returns a function that makes equal requests to a URL. The model is the
// last member of the body, as openai-go writes it.
func requests(ctx context.Context, target string, size int) func() *http.Request {
	text := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("all work and no play ", size/21) + `"}],"model":"gpt-4o"}`)
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	getBody := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	first, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		panic(err)
	}
	first.Header, first.URL, first.Host, first.GetBody, first.ContentLength = sdkHeader(), u, u.Host, getBody, int64(len(text))
	return func() *http.Request {
		req := new(http.Request)
		*req = *first
		req.Body, _ = getBody()
		return req
	}
}

// do is a run of a candidate.
func do(rt http.RoundTripper, request func() *http.Request) func() {
	return func() {
		resp, err := rt.RoundTrip(request())
		if err != nil || resp.StatusCode != http.StatusOK {
			panic(fmt.Sprint(resp, err))
		}
		resp.Body.Close()
	}
}
