package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// The answer of every deployment, as Azure sends it.
const completion = `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-2024-11-20","choices":[{"index":0,"finish_reason":"stop",` +
	`"message":{"role":"assistant","content":"1729 is the smallest number that is the sum of two positive cubes in two ways."},` +
	`"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}}],` +
	`"usage":{"prompt_tokens":18,"completion_tokens":66,"total_tokens":84}}`

// memory is a base that reads the body of a request, as a connection does, and answers immediately.
func memory(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_, err := io.Copy(io.Discard, req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(completion)),
		Body: io.NopCloser(strings.NewReader(completion)), Request: req,
	}, nil
}

// A rewriter does the minimum of any load balancer: it clones the request with another host and key.
type rewriter struct {
	base         http.RoundTripper
	scheme, host string
}

func (r rewriter) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = r.scheme, r.host, ""
	out.Header.Set("Api-Key", "key")
	return r.base.RoundTrip(out)
}

// sdkHeader has the headers that openai-go sends.
func sdkHeader() http.Header {
	h := http.Header{}
	for _, name := range []string{
		"Accept", "Authorization", "Content-Type", "User-Agent", "X-Stainless-Arch", "X-Stainless-Lang",
		"X-Stainless-Os", "X-Stainless-Package-Version", "X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version",
	} {
		h.Set(name, "application/json")
	}
	return h
}

// URLs that callers use. The path of the classic API names the deployment; with the other one, the body names the model.
const (
	classic = "https://api.example.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
	v1      = "https://api.example.com/v1/chat/completions"
)

// words are a text of about the given size.
func words(size int) string { return strings.Repeat("all work and no play ", max(1, size/21)) }

// body is a request for a chat completion of about the given size. The model is the last member, as openai-go writes it.
func body(size int) []byte {
	return []byte(`{"messages":[{"role":"user","content":"` + words(size) + `"}],"model":"gpt-4o"}`)
}

// requests returns a function that makes equal requests to a URL.
func requests(ctx context.Context, target string, size int) func() *http.Request {
	text := body(size)
	u, err := url.Parse(target)
	if err != nil {
		panic(err) // the targets are constants
	}
	getBody := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil } //nolint:unparam // as Request.GetBody is
	first := (&http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host, Header: sdkHeader(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		GetBody: getBody, ContentLength: int64(len(text)),
	}).WithContext(ctx)
	return func() *http.Request {
		req := new(http.Request)
		*req = *first
		req.Body, _ = getBody()
		return req
	}
}

// send sends a request and reads the response to its end.
func send(rt http.RoundTripper, req *http.Request) error {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return err
}
