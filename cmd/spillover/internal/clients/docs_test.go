package clients_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/spillovertest"
)

// A situation is an error that SDKs throw.
type situation struct {
	name     string
	faults   []spillovertest.Fault // of both deployments
	call     string
	wrongKey bool

	node, python string // the classes
	status       int
	code         string
	text         string // that was received before
}

var situations = []situation{
	{name: "every deployment is rate-limited", faults: []spillovertest.Fault{ptuFaults["429"]}, call: "chat", node: "RateLimitError", status: 429, code: "rate_limit_exceeded"},
	{name: "every deployment answers 503", faults: []spillovertest.Fault{ptuFaults["503"]}, call: "chat", node: "InternalServerError", status: 503, code: "503"},
	{name: "no deployment can be reached", faults: []spillovertest.Fault{ptuFaults["no connection"]}, call: "chat", node: "InternalServerError", status: 502, code: "no_answer"},
	{name: "the prompt is too long", faults: []spillovertest.Fault{{Status: 400, Body: `{"error":{"message":"m","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`}},
		call: "chat", node: "BadRequestError", status: 400, code: "context_length_exceeded"},
	{name: "the key of the proxy is wrong", call: "chat", wrongKey: true, node: "AuthenticationError", status: 401, code: "invalid_api_key"},
	{name: "the key does not allow the model", call: "other model", node: "PermissionDeniedError", status: 403, code: "model_not_allowed"},
	{name: "the base URL has another path, such as `/api`", call: "wrong path", node: "NotFoundError", status: 404, code: "unknown_url"},
	{name: "a response without a stream breaks off", faults: []spillovertest.Fault{{Kind: spillovertest.KindCut}}, call: "chat", node: "TypeError", python: "APIConnectionError"},
	{name: "a stream breaks off after its first token", faults: []spillovertest.Fault{{Kind: spillovertest.KindCut, After: 3}}, call: "stream",
		node: "TypeError", python: "RemoteProtocolError", text: "when one region"},
	{name: "a stream ends with an error after its first token", faults: []spillovertest.Fault{{Kind: spillovertest.KindError, After: 3}}, call: "stream",
		node: "APIError", code: "rate_limit_exceeded", text: "when one region"},
}

// test is the test of a script that is in the situation.
func (s situation) test(t *testing.T, latency spillovertest.Latency) clientTest {
	t.Helper()
	p := newPool(t, latency)
	p.ptu.Set(s.faults...)
	p.payg.Set(s.faults...)
	if s.wrongKey {
		p.key = "sk-wrong"
	}
	return clientTest{pool: p, call: s.call}
}

// require requires that a script has seen the error.
func (s situation) require(t *testing.T, class, text string) {
	t.Helper()
	type sdkError struct {
		Error, Code, Text string
		Status            int
	}
	var seen sdkError
	require.NoError(t, json.Unmarshal([]byte(text), &seen), text)
	require.Equal(t, sdkError{class, s.code, s.text, s.status}, seen, s.name)
	require.Equal(t, s.status == http.StatusTooManyRequests, strings.Contains(text, `"retryAfter"`), text)
}

// inPython is the class of the error in Python. Both SDKs have the same names, as a rule.
func (s situation) inPython() string { return cmp.Or(s.python, s.node) }

const page = "../../../../docs/clients.md"

func TestErrorsInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| situation | Node | Python | status | code |\n|---|---|---|---|---|\n")
	for _, s := range situations {
		status, code := "–", "–"
		if s.status != 0 {
			status = fmt.Sprint(s.status)
		}
		if s.code != "" {
			code = "`" + s.code + "`"
		}
		fmt.Fprintf(&b, "| %s | `%s` | `%s` | %s | %s |\n", s.name, s.node, s.inPython(), status, code)
	}
	doctest.Section(t, page, "errors", b.String())
}

// The versions are those that the tests use.
func TestVersionsInDocs(t *testing.T) {
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	text, err := os.ReadFile("node/package-lock.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &lock))
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	socket := regexp.MustCompile(`github\.com/coder/websocket (v\S+)`).FindSubmatch(mod)
	require.NotNil(t, socket)
	requirements, err := os.ReadFile("python/requirements.txt")
	require.NoError(t, err)
	sdk := regexp.MustCompile(`(?m)^openai==(\S+)$`).FindSubmatch(requirements)
	require.NotNil(t, sdk)
	var b strings.Builder
	b.WriteString("| client | version | tested |\n|---|---|---|\n")
	for _, row := range [][3]string{
		{"[`openai`](https://www.npmjs.com/package/openai) for Node", lock.Packages["node_modules/openai"].Version, "chat, stream, embeddings, responses, responses stream, models; as `AzureOpenAI`: chat, stream; abort; retries; realtime over TLS; Responses over WebSocket"},
		{"[`ai`](https://www.npmjs.com/package/ai) (Vercel's AI SDK)", lock.Packages["node_modules/ai"].Version + " with `@ai-sdk/openai` " + lock.Packages["node_modules/@ai-sdk/openai"].Version + " and `@ai-sdk/azure` " + lock.Packages["node_modules/@ai-sdk/azure"].Version, "chat, responses, and both as streams; Azure: chat, stream; embeddings"},
		{"[`@langchain/openai`](https://www.npmjs.com/package/@langchain/openai)", lock.Packages["node_modules/@langchain/openai"].Version, "chat, stream, also as `AzureChatOpenAI`; embeddings"},
		{"[`openai`](https://pypi.org/project/openai/) for Python", string(sdk[1]), "chat, stream, embeddings, models; as `AzureOpenAI`: chat, stream; as `AsyncOpenAI`: chat, stream; as `AsyncAzureOpenAI`: chat; closed stream; retries"},
		{"[`ws`](https://www.npmjs.com/package/ws) for Node", lock.Packages["node_modules/ws"].Version, "realtime, with the key as a protocol, as browsers send it"},
		{"[`coder/websocket`](https://pkg.go.dev/github.com/coder/websocket) for Go", string(socket[1]), "realtime, Responses over WebSocket; paths of OpenAI and Azure"},
		{"curl", "of the system", "chat, stream; HTTP/1.1 and HTTP/2 without TLS"},
	} {
		require.NotEmpty(t, row[1], row[0])
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row[0], row[1], row[2])
	}
	doctest.Section(t, page, "versions", b.String())
}
