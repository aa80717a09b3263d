package spillovertest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// Whatever a request is, the simulated service answers it: with JSON, or with a stream
// that ends.
func FuzzRequest(f *testing.F) {
	const chat = `{"model":"m","messages":[{"role":"user","content":"Say hello."}],"max_tokens":5}`
	for i, path := range []string{"/openai/deployments/m/chat/completions?api-version=2024-10-21", "/openai/v1/chat/completions", "/v1/chat/completions"} {
		f.Add(uint8(i), "POST", path, "5", []byte(chat))
		f.Add(uint8(i), "POST", path, "-1", []byte(`{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":-7,"messages":[{"content":[{"type":"text"}]}]}`))
	}
	f.Add(uint8(2), "POST", "/v1/embeddings", "", []byte(`{"model":"m","input":["a",[1,2],null],"dimensions":-1,"encoding_format":"base64"}`))
	f.Add(uint8(2), "POST", "/v1/responses", "1e9", []byte(`{"model":"m","input":"x","stream":true}`))
	f.Add(uint8(0), "GET", "//openai//models?api-version=1", "", []byte{})
	f.Add(uint8(0), "POST", "/openai/deployments/%zz/chat/completions", "99999999999999999999", []byte("{"))
	f.Fuzz(func(t *testing.T, dialect uint8, method, target, output string, body []byte) {
		u, err := url.Parse("https://service.example/" + strings.TrimPrefix(target, "/"))
		if err != nil || u.Host != "service.example" {
			return
		}
		s := spillovertest.New(spillovertest.Config{
			Name: "service", Dialect: []spillovertest.Dialect{spillovertest.Azure, spillovertest.AzureV1, spillovertest.OpenAI}[dialect%3],
			Deployments: []spillovertest.Deployment{{Name: "m"}},
		})
		req := &http.Request{Method: method, URL: u, Host: u.Host,
			Header: http.Header{"Content-Type": {"application/json"}, "X-Spillovertest-Output": {output}}, Body: io.NopCloser(strings.NewReader(string(body)))}
		resp, err := s.RoundTrip(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.True(t, resp.StatusCode == 200 || resp.StatusCode >= 400 && resp.StatusCode < 500, resp.Status)
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			require.Equal(t, 200, resp.StatusCode)
			require.True(t, strings.HasSuffix(string(text), "\n\n"))
			return
		}
		require.True(t, json.Valid(text), "%s", text)
	})
}
