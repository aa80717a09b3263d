package batch_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// writeInput writes n requests with the same body.
func writeInput(t testing.TB, n int, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "requests.jsonl")
	f, err := os.Create(path)
	require.NoError(t, err)
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintf(w, `{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":%s}`+"\n", i+1, body)
	}
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
	return path
}

func writeLines(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "requests.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o666))
	return path
}

func line(id, body string) string {
	return fmt.Sprintf(`{"custom_id":%q,"method":"POST","url":"/v1/chat/completions","body":%s}`, id, body)
}

// A service answers requests in memory.
type service func(r *http.Request, body []byte) (status int, answer string)

func (s service) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	status, answer := s(r, body)
	if status == 0 {
		return nil, errors.New(answer)
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"req_1"}},
		ContentLength: int64(len(answer)), Body: io.NopCloser(strings.NewReader(answer)), Request: r,
	}, nil
}

// transport is a transport with one backend.
func transport(t testing.TB, base http.RoundTripper) *spillover.Transport {
	cfg := spillover.Config{Base: base, Backends: []spillover.Backend{{Name: "openai", URL: "https://api.openai.com", APIKey: "sk-test"}}}
	batch.Configure(&cfg)
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { lb.Close() })
	return lb
}

const fine = "{\n  \"id\": \"x\",\n  \"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 4}\n}"

func answering(status int, answer string) service {
	return func(*http.Request, []byte) (int, string) { return status, answer }
}

// run runs a batch to its end.
func run(t testing.TB, o batch.Options) (batch.Counts, error) {
	t.Helper()
	b, err := batch.Open(t.Context(), o.WithoutSync())
	require.NoError(t, err)
	defer b.Close()
	err = b.Run(t.Context())
	return b.Counts(), err
}

// An output is a line of the output.
type output struct {
	ID       string  `json:"id"`
	CustomID *string `json:"custom_id"`
	Response *struct {
		StatusCode int             `json:"status_code"`
		RequestID  string          `json:"request_id"`
		Body       json.RawMessage `json:"body"`
	} `json:"response"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Line    int    `json:"line"`
		Param   string `json:"param"`
	} `json:"error"`
}

// outputs are the lines of an output, by id.
func outputs(t testing.TB, paths ...string) map[string]output {
	t.Helper()
	all := map[string]output{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, len(text) == 0 || text[len(text)-1] == '\n')
		for l := range bytes.Lines(text) {
			var o output
			d := json.NewDecoder(bytes.NewReader(l))
			d.DisallowUnknownFields()
			require.NoError(t, d.Decode(&o), "%s", l)
			require.NotContains(t, all, o.ID)
			all[o.ID] = o
		}
	}
	return all
}

func TestAnswersHaveOpenAIsFormat(t *testing.T) {
	in, out := writeLines(t, line("a \u00fc <1>", `{"model":"m"}`), line("b", `{"model":"bad"}`)), filepath.Join(t.TempDir(), "out")
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(_ *http.Request, body []byte) (int, string) {
		if bytes.Contains(body, []byte("bad")) {
			return 400, `{"error":{"message":"no"}}`
		}
		return 200, fine
	}))})
	require.NoError(t, err)
	require.EqualValues(t, 1, c.Failed)
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	var lines []string
	for l := range strings.Lines(string(text)) {
		lines = append(lines, l)
	}
	require.ElementsMatch(t, []string{
		`{"id":"batch_req_1","custom_id":"a ü <1>","response":{"status_code":200,"request_id":"req_1","body":{"id":"x","usage":{"prompt_tokens":3,"completion_tokens":4}}},"error":null}` + "\n",
		`{"id":"batch_req_2","custom_id":"b","response":{"status_code":400,"request_id":"req_1","body":{"error":{"message":"no"}}},"error":null}` + "\n",
	}, lines)
	require.EqualValues(t, 3, c.InputTokens)
	require.EqualValues(t, 4, c.OutputTokens)
	require.Equal(t, map[int]int64{1: 2}, c.Tiers)
}

func TestFailuresCanHaveAFileOfTheirOwn(t *testing.T) {
	in := writeLines(t, line("a", `{"model":"m"}`), "no JSON", line("c", `{"model":"bad"}`))
	out, errs := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "errors")
	o := batch.Options{Input: in, Output: out, Errors: errs, Transport: transport(t, service(func(_ *http.Request, body []byte) (int, string) {
		if bytes.Contains(body, []byte("bad")) {
			return 404, `{}`
		}
		return 200, fine
	}))}
	for range 2 {
		c, err := run(t, o)
		require.NoError(t, err)
		require.EqualValues(t, 3, c.Answered)
		require.EqualValues(t, 2, c.Failed)
	}
	require.Len(t, outputs(t, out), 1)
	failures := outputs(t, errs)
	require.Len(t, failures, 2)
	require.Equal(t, "invalid_json_line", failures["batch_req_2"].Error.Code)
	require.Equal(t, 404, failures["batch_req_3"].Response.StatusCode)
}

func TestInvalidLinesAreAnsweredWithTheirNumber(t *testing.T) {
	long := line("long", `{"model":"m","x":"`+strings.Repeat("x", 2000)+`"}`)
	tests := []struct{ text, code, param, id string }{
		{`{`, "invalid_json_line", "", ""},
		{`[]`, "invalid_json_line", "", ""},
		{`"x"`, "invalid_json_line", "", ""},
		{`{"custom_id":"a","method":7}`, "invalid_json_line", "", "a"},
		{"\x00", "invalid_json_line", "", ""},
		{`null`, "missing_required_parameter", "custom_id", ""},
		{`{"method":"POST","url":"/v1/responses","body":{}}`, "missing_required_parameter", "custom_id", ""},
		{`{"custom_id":null,"method":"POST","url":"/v1/responses","body":{}}`, "missing_required_parameter", "custom_id", ""},
		{`{"custom_id":7,"method":"POST","url":"/v1/responses","body":{}}`, "invalid_request", "custom_id", ""},
		{`{"custom_id":"a","url":"/v1/responses","body":{}}`, "missing_required_parameter", "method", "a"},
		{`{"custom_id":"a","method":"GET","url":"/v1/responses","body":{}}`, "invalid_method", "method", "a"},
		{`{"custom_id":"a","method":"POST","body":{}}`, "missing_required_parameter", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/responses"}`, "missing_required_parameter", "body", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/responses","body":null}`, "missing_required_parameter", "body", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/responses","body":[]}`, "invalid_request", "body", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":7}}`, "invalid_request", "body", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"stream":true}}`, "invalid_request", "body.stream", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"background":true}}`, "invalid_request", "body.background", "a"},
		{`{"custom_id":"a","method":"POST","url":"https://evil.example/v1/responses","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"//evil.example/v1/responses","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/files","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/v1/../v1/responses","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/openai/deployments//responses","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/openai/deployments/../responses","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/openai/deployments/%2e%2E/responses","body":{}}`, "invalid_url", "url", "a"},
		{`{"custom_id":"a","method":"POST","url":"/openai/deployments/x%2f../responses","body":{}}`, "invalid_url", "url", "a"},
		{long, "line_too_long", "", ""},
	}
	var lines []string
	for _, tt := range tests {
		lines = append(lines, tt.text, " \t\r") // blank lines count and are skipped
	}
	in, out := writeLines(t, lines...), filepath.Join(t.TempDir(), "out")
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(*http.Request, []byte) (int, string) {
		panic("nothing is sent")
	}))}.WithMaxLine(1000))
	require.NoError(t, err)
	require.EqualValues(t, len(tests), c.Total)
	require.EqualValues(t, len(tests), c.Failed)
	all := outputs(t, out)
	for i, tt := range tests {
		o, ok := all[fmt.Sprintf("batch_req_%d", 2*i+1)]
		require.True(t, ok, tt.text)
		require.Equal(t, tt.code, o.Error.Code, tt.text)
		require.Equal(t, tt.param, o.Error.Param, tt.text)
		require.Equal(t, 2*i+1, o.Error.Line, tt.text)
		require.Nil(t, o.Response)
		if tt.id == "" {
			require.Nil(t, o.CustomID, tt.text)
		} else {
			require.Equal(t, tt.id, *o.CustomID, tt.text)
		}
	}
}

func TestURLsOfOpenAIAndAzureAreAccepted(t *testing.T) {
	urls := map[string]string{
		"/v1/chat/completions":        "/v1/chat/completions",
		"/chat/completions":           "/v1/chat/completions", // Azure
		"v1/embeddings":               "/v1/embeddings",
		"/v1/responses/":              "/v1/responses",
		"/v1/completions":             "/v1/completions",
		"/v1/moderations":             "/v1/moderations",
		"/v1/images/generations":      "/v1/images/generations",
		"/openai/v1/chat/completions": "/v1/chat/completions",
		"/openai/deployments/gpt%20x/chat/completions?api-version=2024-10-21": "/v1/chat/completions",
		"/deployments/gpt/embeddings":                                         "/v1/embeddings",
	}
	var lines []string
	for u := range urls {
		lines = append(lines, fmt.Sprintf(`{"custom_id":%q,"method":"post","url":%q,"body":{"model":"m"}}`, u, u))
	}
	in, out := writeLines(t, lines...), filepath.Join(t.TempDir(), "out")
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(r *http.Request, _ []byte) (int, string) {
		return 200, fmt.Sprintf(`{"path":%q}`, r.URL.Path)
	}))})
	require.NoError(t, err)
	require.Zero(t, c.Failed)
	for _, o := range outputs(t, out) {
		require.JSONEq(t, fmt.Sprintf(`{"path":%q}`, urls[*o.CustomID]), string(o.Response.Body), *o.CustomID)
	}
}

func TestBodiesAreSentUnchanged(t *testing.T) {
	body := `{ "model" : "m", "n":1e2, "x":"\u00fc<>&ü" }`
	in, out := writeLines(t, "\xef\xbb\xbf"+line("a", body)+"\r"), filepath.Join(t.TempDir(), "out")
	var got atomic.Value
	_, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(r *http.Request, b []byte) (int, string) {
		got.Store(string(b))
		return 200, fine
	}))})
	require.NoError(t, err)
	require.Equal(t, body, got.Load())
}

// Two requests may have the same custom_id: answers are identified by lines.
func TestDuplicateCustomIDsAreHarmless(t *testing.T) {
	in, out := writeLines(t, line("a", `{"model":"m"}`), line("a", `{"model":"m"}`)), filepath.Join(t.TempDir(), "out")
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine))})
	require.NoError(t, err)
	require.EqualValues(t, 2, c.Answered)
	require.Len(t, outputs(t, out), 2)
}

func TestPartsShareTheLines(t *testing.T) {
	in := writeInput(t, 100, hello)
	dir := t.TempDir()
	var paths []string
	for i := range int64(3) {
		out := filepath.Join(dir, fmt.Sprint(i))
		paths = append(paths, out)
		_, err := run(t, batch.Options{Input: in, Output: out, Part: batch.Part{Index: i + 1, Of: 3}, Transport: transport(t, answering(200, fine))})
		require.NoError(t, err)
	}
	require.Len(t, outputs(t, paths...), 100)
}

func TestPartsAreParsed(t *testing.T) {
	for s, want := range map[string]batch.Part{"1/1": {1, 1}, "3/3": {3, 3}} {
		p, err := batch.ParsePart(s)
		require.NoError(t, err)
		require.Equal(t, want, p)
		require.Equal(t, s, p.String())
	}
	for _, s := range []string{"", "1", "0/3", "4/3", "1/0", "-1/3", "a/b", "1/3/4", "1/99999"} {
		_, err := batch.ParsePart(s)
		require.Error(t, err, s)
	}
}
