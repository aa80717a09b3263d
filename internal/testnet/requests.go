package testnet

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
)

// Host returns the host of a backend of Azure.
func Host(name string) string { return name + ".openai.azure.com" }

// ChatPath is the path of chat completions of the deployment m.
const ChatPath = "/openai/deployments/m/chat/completions?api-version=2024-08-01-preview"

// NewChat returns a chat completion as Azure's SDKs send it. A path goes to a host that no
// backend has.
func NewChat(t testing.TB, target string) *http.Request {
	if strings.HasPrefix(target, "/") {
		target = "https://foo.openai.azure.com" + target
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, bytes.NewReader([]byte(`{"messages":[{"role":"user","content":"hi"}],"model":"m"}`)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("api-key", "example API key")
	return req
}

// NewLargeChat is NewChat with a body that is too large to be kept in memory: it is sent
// again with GetBody.
func NewLargeChat(t testing.TB, target string) *http.Request {
	req := NewChat(t, target)
	text := `{"messages":[{"role":"user","content":"` + strings.Repeat("a", replay.MaxKept) + `"}],"model":"m"}`
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return req
}

// Ask sends a chat completion to the model m, and returns the answer and its body.
func Ask(t testing.TB, rt http.RoundTripper) (resp *http.Response, body string) {
	return Send(t, rt, NewChat(t, ChatPath))
}

// Send sends a request, and returns the answer and its body.
func Send(t testing.TB, rt http.RoundTripper, req *http.Request) (resp *http.Response, body string) {
	resp, err := rt.RoundTrip(req)
	require.NoError(t, err)
	return resp, Read(t, resp)
}

// Read returns the body of a response, and closes it.
func Read(t testing.TB, resp *http.Response) string {
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(text)
}

// ServedBy returns the name of the backend that answered.
func ServedBy(resp *http.Response) string { return resp.Header.Get("X-Spillover-Backend") }

// NewRequest returns a request to a URL.
func NewRequest(t testing.TB, method, target, body string) *http.Request {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, r)
	require.NoError(t, err)
	return req
}

// Do sends a request with a client, and returns the answer and its body.
func Do(t testing.TB, client *http.Client, req *http.Request) (*http.Response, string) {
	resp, err := client.Do(req)
	require.NoError(t, err)
	return resp, Read(t, resp)
}

// Request returns the request of a line "METHOD path body", to a host that no backend has.
func Request(t testing.TB, line string, header ...string) *http.Request {
	method, rest, _ := strings.Cut(line, " ")
	path, text, _ := strings.Cut(rest, " ")
	var body io.Reader
	if text != "" {
		body = strings.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://foo.openai.azure.com"+path, body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	return req
}

// ReadAll returns what can be read of a body, and the error at its end. It closes the body.
func ReadAll(t testing.TB, resp *http.Response) (string, error) {
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	return string(text), err
}

// APIError returns the error object of a body.
func APIError(t testing.TB, body string) (e struct{ Message, Type, Param, Code any }) {
	var wrapped map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(body), &wrapped))
	require.Len(t, wrapped, 1)
	require.NoError(t, json.Unmarshal(wrapped["error"], &e))
	return e
}

// SDKHeader returns the header fields that openai-go sends.
func SDKHeader() http.Header {
	h := http.Header{}
	for _, name := range []string{"Accept", "Authorization", "Content-Type", "User-Agent", "X-Stainless-Arch", "X-Stainless-Lang",
		"X-Stainless-Os", "X-Stainless-Package-Version", "X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version"} {
		h.Set(name, "application/json")
	}
	return h
}

// BenchRequest returns a function that makes requests with a body of a size. The model is last
// in the body, as openai-go writes it.
func BenchRequest(target string, size int) func() *http.Request {
	text := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("all work and no play ", size/21) + `"}],"model":"gpt-4o"}`)
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	header := SDKHeader()
	getBody := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	return func() *http.Request {
		body, _ := getBody()
		return &http.Request{
			Method: http.MethodPost, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Body: body, GetBody: getBody, ContentLength: int64(len(text)),
		}
	}
}

// NewFile returns a request that creates something: it is sent again only if nothing of it was
// sent.
func NewFile(t testing.TB) *http.Request { return NewChat(t, "/v1/batches") }

// ChatTokens returns the estimated tokens of NewChat.
func ChatTokens(t testing.TB) int64 {
	return wire.EstimateTokens(NewChat(t, ChatPath).ContentLength, 0)
}

// Background sends a request, and returns a function that waits for its answer. It must be
// called in a bubble of synctest.
func Background(t testing.TB, rt http.RoundTripper, req *http.Request) (answer func() (resp *http.Response, body string)) {
	var resp *http.Response
	var body string
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, body = Send(t, rt, req)
	}()
	synctest.Wait()
	return func() (*http.Response, string) { <-done; return resp, body }
}

// InTurn starts chat completions one after the other, all of which are in flight together,
// and waits until all are answered with 200. It must be called in a bubble of synctest.
func InTurn(t testing.TB, rt http.RoundTripper, requests int, between time.Duration) {
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			resp, _ := Ask(t, rt)
			require.Equal(t, 200, resp.StatusCode)
		})
		synctest.Wait()
		if between > 0 {
			time.Sleep(between)
		}
	}
	all.Wait()
}
