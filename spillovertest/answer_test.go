package spillovertest_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// A scenario is a request that gets the same answer from every kind of server.
type scenario struct {
	name   string
	cfg    spillovertest.Config
	fault  *spillovertest.Fault
	method string // default POST
	path   string // default azurePath
	key    string // Authorization: Bearer
	body   string
	twice  bool // the second answer counts

	status int
	header []string // some of the names expected
	want   []string // substrings of the body expected, in order
	broken bool     // reading the body fails
}

var (
	payg   = spillovertest.Config{Name: "eastus", Deployments: deployment(spillovertest.PAYG{TPM: 1, RPM: 600}, spillovertest.Latency{})}
	rpm    = spillovertest.Config{Deployments: deployment(spillovertest.PAYG{RPM: 6}, spillovertest.Latency{})}
	ptu    = spillovertest.Config{Deployments: deployment(spillovertest.PTU{TPM: 6}, spillovertest.Latency{})}
	none   = spillovertest.Config{}
	secret = spillovertest.Config{Keys: []string{"key"}, Deployments: deployment(nil, spillovertest.Latency{})}
)

func in(d spillovertest.Dialect, c spillovertest.Config) spillovertest.Config {
	c.Dialect = d
	return c
}

const v1, openai = spillovertest.AzureV1, spillovertest.OpenAI

var scenarios = []scenario{
	{name: "chat", cfg: payg, body: hello, status: 200,
		header: []string{"Apim-Request-Id", "X-Request-Id", "X-Ms-Region", "X-Ms-Deployment-Name", "X-Ratelimit-Remaining-Tokens"},
		want:   []string{`"when one region"`, `"completion_tokens":3`, "prompt_filter_results"}},
	{name: "chat, v1", cfg: in(v1, payg), path: "/openai/v1/chat/completions", body: hello, status: 200},
	{name: "chat, openai", cfg: in(openai, payg), path: openaiPath, body: hello, status: 200,
		header: []string{"Openai-Processing-Ms", "X-Request-Id", "X-Ratelimit-Reset-Requests"}},
	{name: "chat without a maximum", cfg: none, body: `{}`, status: 200, want: []string{`"completion_tokens":16`}},
	{name: "chat stream", cfg: none, body: helloSSE, status: 200, want: []string{
		`data: {"choices":[],"created":0`, `"role":"assistant"`, `"content":"when"`, `"content":" region"`,
		`"finish_reason":"stop"`, "data: [DONE]\n\n"}},
	{name: "chat stream with usage, openai", cfg: in(openai, none), path: "/gate/way" + openaiPath, status: 200,
		body: `{"model":"gpt","stream":true,"stream_options":{"include_usage":true}}`,
		want: []string{`"usage":null`, `"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":16`, "[DONE]"}},
	{name: "completions", cfg: none, path: "/openai/deployments/gpt/completions?api-version=1", body: `{"prompt":"hi","max_tokens":2}`,
		status: 200, want: []string{`"text_completion"`, `"text":"when one"`}},
	{name: "completions stream", cfg: none, path: "/openai/deployments/gpt/completions?api-version=1", body: `{"stream":true,"max_tokens":2}`,
		status: 200, want: []string{`"text":"when"`, `"text":" one"`, `"finish_reason":"stop"`, "[DONE]"}},
	{name: "responses", cfg: none, path: "/openai/responses?api-version=1", body: `{"model":"gpt","max_output_tokens":2}`,
		status: 200, want: []string{`"status":"completed"`, `"text":"when one"`, `"output_tokens":2`}},
	{name: "responses stream", cfg: none, path: "/openai/responses?api-version=1", status: 200,
		body: `{"model":"gpt","max_output_tokens":1,"stream":true}`,
		want: []string{"event: response.created\n", `"sequence_number":1,`, "event: response.output_item.added\n",
			"event: response.content_part.added\n", "event: response.output_text.delta\n", "event: response.output_text.done\n",
			"event: response.content_part.done\n", "event: response.output_item.done\n", "event: response.completed\n", `"total_tokens":1`}},
	{name: "embeddings", cfg: none, path: "/openai/deployments/e/embeddings?api-version=1", status: 200,
		body: `{"input":["a","b"],"dimensions":3,"stream":true}`, want: []string{`"index":0,"embedding":[`, `"index":1`}},
	{name: "models", cfg: in(openai, payg), method: "GET", path: "/v1/models", status: 200, want: []string{`"id":"gpt"`}},

	{name: "tokens used up", cfg: payg, body: hello, twice: true, status: 429,
		header: []string{"Retry-After", "X-Ratelimit-Remaining-Tokens"},
		want:   []string{`"code":"429"`, "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit", "Please retry after"}},
	{name: "tokens used up, v1", cfg: in(v1, payg), path: "/openai/v1/chat/completions", body: hello, twice: true, status: 429,
		want: []string{"Your requests to gpt for gpt in eastus have exceeded the token rate limit"}},
	{name: "tokens used up, openai", cfg: in(openai, payg), path: openaiPath, body: hello, twice: true, status: 429,
		want: []string{"Rate limit reached for gpt", "on tokens per min (TPM): Limit 1, Used", "Please try again in", `"type":"tokens"`, `"rate_limit_exceeded"`}},
	{name: "requests used up", cfg: rpm, body: hello, twice: true, status: 429, header: []string{"Retry-After"},
		want: []string{"have exceeded call rate limit", "Please retry after 10 seconds."}},
	{name: "requests used up, openai", cfg: in(openai, rpm), path: openaiPath, body: hello, twice: true, status: 429,
		want: []string{"on requests per min (RPM): Limit 6, Used 6, Requested 1", `"type":"requests"`}},
	{name: "throughput used up", cfg: ptu, body: hello, twice: true, status: 429,
		header: []string{"Retry-After", "Retry-After-Ms", "Azure-Openai-Deployment-Utilization"},
		want:   []string{"throughput limit on your Provisioned-Managed deployment", `"too_many_requests"`, `"rate_limit_reached"`}},

	{name: "no key", cfg: secret, body: hello, status: 401, want: []string{"Access denied due to invalid subscription key"}},
	{name: "no key, openai", cfg: in(openai, secret), path: openaiPath, body: hello, status: 401,
		header: []string{"Www-Authenticate"}, want: []string{"You didn't provide an API key", `"code":null`}},
	{name: "wrong key, openai", cfg: in(openai, secret), path: openaiPath, key: "sk-mistake", body: hello, status: 401,
		want: []string{"Incorrect API key provided: sk-m**take", "invalid_api_key"}},
	{name: "right key", cfg: secret, key: "key", body: hello, status: 200},
	{name: "unknown deployment", cfg: payg, path: strings.Replace(azurePath, "gpt", "x", 1), body: hello, status: 404,
		want: []string{`{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist.`}},
	{name: "unknown deployment, v1", cfg: in(v1, payg), path: "/openai/v1/chat/completions", body: `{}`, status: 404,
		want: []string{`"type":"invalid_request_error"`, "DeploymentNotFound"}},
	{name: "unknown model, openai", cfg: in(openai, payg), path: openaiPath, body: `{"model":"x"}`, status: 404,
		want: []string{"The model `x` does not exist", "model_not_found"}},
	{name: "unknown path", cfg: none, path: "/openai/files?api-version=1", body: hello, status: 404, want: []string{`"Resource not found"`}},
	{name: "unknown path, openai", cfg: in(openai, none), path: "/v2/x", status: 404, want: []string{"Invalid URL (POST /v2/x)"}},
	{name: "unknown method", cfg: none, method: "GET", status: 404},
	{name: "no api-version", cfg: none, path: "/openai/deployments/gpt/chat/completions", body: hello, status: 404},
	{name: "malformed", cfg: none, body: `{`, status: 400, want: []string{"could not parse the JSON body", "invalid_request_error"}},
	{name: "malformed type", cfg: none, body: `{"max_tokens":"many"}`, status: 400},

	{name: "fault", cfg: none, body: hello, status: 503, want: []string{"<html>"}, header: []string{"Retry-After"},
		fault: &spillovertest.Fault{Status: 503, Body: "<html>", Header: http.Header{"retry-after": {"7"}, "content-type": {"text/html"}}}},
	{name: "fault with less header", cfg: none, body: hello, status: 502, want: []string{"plain"},
		fault: &spillovertest.Fault{Status: 502, Body: "plain", Header: http.Header{"content-type": nil, "Date": nil}}},
	{name: "fault without a body", cfg: none, body: hello, status: 599, fault: &spillovertest.Fault{Status: 599}},
	{name: "fault 200", cfg: none, body: hello, status: 200, want: []string{`{}`}, fault: &spillovertest.Fault{Status: 200, Body: `{}`}},
	{name: "cut", cfg: none, body: hello, status: 200, broken: true, fault: &spillovertest.Fault{Kind: spillovertest.KindCut}},
	{name: "cut stream", cfg: none, body: helloSSE, status: 200, broken: true,
		want: []string{`"content":"when"`, `"content":" one"`}, fault: &spillovertest.Fault{Kind: spillovertest.KindCut, After: 2}},
	{name: "cut stream before it begins", cfg: in(openai, none), path: openaiPath, body: helloSSE, status: 200, broken: true,
		fault: &spillovertest.Fault{Kind: spillovertest.KindCut}},
	{name: "error in a stream", cfg: none, body: helloSSE, status: 200, header: []string{"Retry-After"},
		want:  []string{`"choices":[]`, `data: {"error":{"type":"too_many_requests"`, "gpt for gpt in test"},
		fault: &spillovertest.Fault{Kind: spillovertest.KindError, Header: http.Header{"Retry-After": {"4"}}}},
	{name: "error in a stream, openai", cfg: in(openai, none), path: openaiPath, body: helloSSE, status: 200,
		want:  []string{`" region"`, `{"error":{"type":"tokens"`, "Please try again in 44ms."},
		fault: &spillovertest.Fault{Kind: spillovertest.KindError, After: 99}},
	{name: "error in a responses stream", cfg: none, path: "/openai/responses?api-version=1", status: 200,
		body:  `{"model":"gpt","stream":true}`,
		want:  []string{"response.in_progress", `event: error`, `"error":{"x":1}`, "event: response.failed\n", `"status":"failed"`},
		fault: &spillovertest.Fault{Kind: spillovertest.KindError, Body: `{"x":1}`}},
	{name: "error outside a stream does not happen", cfg: none, body: hello, status: 200,
		fault: &spillovertest.Fault{Kind: spillovertest.KindError}},
}

var created = regexp.MustCompile(`"created(_at)?":\d+`)

func TestAnswers(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			var names []string // of the header, as in the first form
			var text string
			everywhere(t, sc.cfg, func(t *testing.T, s *spillovertest.Server) {
				res, body := sc.play(t, s)
				if names == nil {
					names, text = slices.Sorted(maps.Keys(res.Header)), body
				}
				require.Equal(t, names, slices.Sorted(maps.Keys(res.Header)))
				if !sc.twice { // a second one tells the time
					require.Equal(t, text, body)
				}
			})
		})
	}
}

// play sends the request and checks its answer.
func (sc scenario) play(t *testing.T, s *spillovertest.Server) (*http.Response, string) {
	method, path := "POST", azurePath
	if sc.method != "" {
		method = sc.method
	}
	if sc.path != "" {
		path = sc.path
	}
	if sc.fault != nil {
		s.Set(*sc.fault)
	}
	if sc.twice {
		get(t, s, path, sc.body)
	}
	r := request(t, t.Context(), method, s.URL+path, sc.body)
	if sc.key != "" {
		r.Header.Set("Authorization", "Bearer "+sc.key)
	}
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.Equal(t, sc.broken, err != nil, "%v", err)
	body := string(b)

	require.Equal(t, sc.status, res.StatusCode, body)
	for _, name := range sc.header {
		require.Contains(t, res.Header, name)
	}
	rest := body
	for _, w := range sc.want {
		_, after, found := strings.Cut(rest, w)
		require.True(t, found, "%q in %q", w, rest)
		rest = after
	}
	sc.checkForm(t, res, body)
	require.Equal(t, sc.status, s.Requests()[len(s.Requests())-1].Status)
	return res, created.ReplaceAllString(body, "")
}

// checkForm checks what all bodies have in common.
func (sc scenario) checkForm(t *testing.T, res *http.Response, body string) {
	switch kind := res.Header.Get("Content-Type"); {
	case kind == "text/event-stream; charset=utf-8":
		require.EqualValues(t, -1, res.ContentLength)
		for line := range strings.Lines(body) {
			if data, ok := strings.CutPrefix(line, "data: "); ok && data != "[DONE]\n" {
				require.True(t, json.Valid([]byte(data)), data)
			}
		}
	case sc.broken:
		require.Less(t, len(body), int(res.ContentLength))
	default:
		require.EqualValues(t, len(body), res.ContentLength)
		require.True(t, body == "" || kind != "application/json" || json.Valid([]byte(body)), body)
	}
}

// Answers depend only on the seed, the request and its position.
func TestSeed(t *testing.T) {
	id := func(seed uint64) string {
		_, h, _ := get(t, spillovertest.New(spillovertest.Config{Seed: seed}), azurePath, hello)
		return h.Get("Apim-Request-Id")
	}
	require.Equal(t, id(1), id(1))
	require.NotEqual(t, id(1), id(2))
	require.Regexp(t, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, id(0))
}
