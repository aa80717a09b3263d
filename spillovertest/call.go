package spillovertest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The operations served.
const (
	opChat        = "chat/completions"
	opCompletions = "completions"
	opEmbeddings  = "embeddings"
	opResponses   = "responses"
	opModels      = "models"
)

// A call is what the service reads from a request.
type call struct {
	op         string
	version    string // api-version
	deployment string // "" when the request names none
	payload
	demand
	output  int      // tokens to be written; 0 for the default of the deployment
	problem *problem // why no deployment can serve it; or nil
}

// Headers for the simulation, which the services do not have. With them a load test
// need not send 40,000 characters to be charged for 10,000 tokens, nor receive all of
// the output that it reserves.
const (
	headerPrompt = "X-Spillovertest-Prompt" // tokens, instead of those of the body
	headerOutput = "X-Spillovertest-Output" // tokens, at most the request's maximum
)

// A payload holds the relevant fields of a JSON body.
type payload struct {
	Model    string `json:"model"`
	Messages []struct {
		Content any `json:"content"`
	} `json:"messages"`
	Prompt       any    `json:"prompt"`
	Input        any    `json:"input"`
	Instructions string `json:"instructions"`

	// int64, as int has 32 bits on some platforms.
	MaxTokens           int64 `json:"max_tokens"`
	MaxCompletionTokens int64 `json:"max_completion_tokens"`
	MaxOutputTokens     int64 `json:"max_output_tokens"`

	Stream        bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`

	Dimensions     int64  `json:"dimensions"`
	EncodingFormat string `json:"encoding_format"`
}

// parse reads a request. The deployment is set even if there is a problem, because
// faults are chosen by deployment.
func (s *Server) parse(r *http.Request, body []byte) *call {
	c := &call{version: r.URL.Query().Get("api-version")}
	var routed bool
	c.op, c.deployment, routed = s.dialect.route(r.URL.EscapedPath())
	var malformed error
	if routed && c.op != opModels {
		malformed = json.Unmarshal(body, &c.payload)
		c.deployment = cmp.Or(c.deployment, c.Model)
		c.Stream = c.Stream && c.op != opEmbeddings
		c.demand = c.payload.demand()
		c.prompt = cmp.Or(tokens(r.Header, headerPrompt), c.prompt)
		c.output = tokens(r.Header, headerOutput)
	}
	switch {
	case !s.authorized(r.Header):
		c.problem = s.dialect.unauthorized(r.Header)
	case !routed || (r.Method == http.MethodGet) != (c.op == opModels),
		s.dialect == Azure && c.version == "":
		c.problem = s.dialect.notFound(r)
	case malformed != nil:
		c.problem = badRequest(malformed)
	}
	return c
}

// tokens returns a positive number in a header, or 0.
func tokens(h http.Header, name string) int {
	n, _ := strconv.Atoi(h.Get(name))
	return max(0, n)
}

// route finds the operation in an escaped path, and in the paths of Azure the
// deployment. What precedes the first match is the prefix of a gateway. Empty
// segments are ignored, because real clients send "//openai/deployments".
func (d Dialect) route(path string) (op, deployment string, ok bool) {
	segments := strings.Split(path, "/")
	segments = slices.DeleteFunc(segments, func(s string) bool { return s == "" })
	for i := range segments {
		if op, deployment, ok = d.match(segments[i:]); ok {
			break
		}
	}
	return op, deployment, ok
}

// markers are the first segments of the paths of each dialect.
var markers = map[Dialect][]string{Azure: {"openai"}, AzureV1: {"openai", "v1"}, OpenAI: {"v1"}}

func (d Dialect) match(segments []string) (op, deployment string, ok bool) {
	marker := markers[d]
	n := len(marker)
	if len(segments) <= n || !slices.Equal(segments[:n], marker) {
		return "", "", false
	}
	rest := segments[n:]
	if d == Azure && rest[0] == "deployments" && len(rest) > 2 {
		name, err := url.PathUnescape(rest[1])
		op = strings.Join(rest[2:], "/")
		return op, name, err == nil && slices.Contains([]string{opChat, opCompletions, opEmbeddings}, op)
	}
	op = strings.Join(rest, "/")
	if d == Azure {
		return op, "", op == opResponses || op == opModels
	}
	return op, "", slices.Contains([]string{opChat, opCompletions, opEmbeddings, opResponses, opModels}, op)
}

func (s *Server) authorized(h http.Header) bool {
	if len(s.keys) == 0 {
		return true
	}
	if s.dialect != OpenAI && slices.Contains(s.keys, h.Get("Api-Key")) {
		return true
	}
	return slices.Contains(s.keys, bearer(h))
}

// bearer returns the token in the Authorization header, or "".
func bearer(h http.Header) string {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// mostRequested is the most of max_tokens that counts. It is more than any model has.
const mostRequested = 1 << 24

// demand estimates the tokens as Azure does, at four characters per token.
func (p *payload) demand() demand {
	n := characters(p.Prompt) + characters(p.Input) + utf8.RuneCountInString(p.Instructions)
	for _, m := range p.Messages {
		n += characters(m.Content)
	}
	return demand{
		prompt: (n + 3) / 4,
		max:    int(min(max(0, cmp.Or(p.MaxCompletionTokens, p.MaxTokens, p.MaxOutputTokens)), mostRequested)),
	}
}

// characters counts the characters of a content: a string, an array of parts or
// messages, or numbers, each of which is a token.
func characters(v any) int {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v)
	case float64:
		return 4
	case []any:
		n := 0
		for _, e := range v {
			n += characters(e)
		}
		return n
	case map[string]any:
		return characters(v["text"]) + characters(v["content"])
	}
	return 0
}

// quote returns s as JSON, without the escapes for HTML.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}
