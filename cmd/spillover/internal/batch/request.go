package batch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// A request is one line of the input.
type request struct {
	line     int64           // in the input, from 1
	customID json.RawMessage // as in the input, quoted; nil if the line has none
	path     string          // of the URL to send it to
	query    string
	model    string // "" if the body has none, or the path names a deployment
	body     json.RawMessage
	invalid  *lineError // nil if the line can be sent
}

// A lineError is the error member of an answer. OpenAI's batch output has code and
// message, and its errors about lines of the input have line and param, too.
// Source: BatchRequestOutput and Batch.errors in
// https://platform.openai.com/docs/api-reference/batch
type lineError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Line    int64  `json:"line,omitempty"`
	Param   string `json:"param,omitempty"`
}

// Codes of errors. Those of OpenAI are used where it has one for the case.
const (
	codeInvalidLine     = "invalid_json_line"
	codeLineTooLong     = "line_too_long"
	codeMissing         = "missing_required_parameter"
	codeInvalidMethod   = "invalid_method"
	codeInvalidURL      = "invalid_url"
	codeInvalidRequest  = "invalid_request"
	codeTimeout         = "request_timeout"
	codeExpired         = "batch_expired"
	codeRequestFailed   = "request_failed"
	codeInvalidResponse = "invalid_response"
)

// endpoints are the operations that a batch can ask for: those of OpenAI's batches
// that answer in JSON, and store nothing that a second try would create twice.
var endpoints = []string{
	"chat/completions", "completions", "embeddings", "moderations", "responses", "images/generations", "images/edits",
}

// parseRequest reads one line. A line that is not a valid request has invalid set.
func parseRequest(number int64, line []byte) *request {
	r := &request{line: number}
	fail := func(code, param, format string, args ...any) *request {
		r.invalid = &lineError{code, fmt.Sprintf("line %d: ", number) + fmt.Sprintf(format, args...), number, param}
		return r
	}
	var fields struct {
		CustomID json.RawMessage `json:"custom_id"`
		Method   string          `json:"method"`
		URL      string          `json:"url"`
		Body     json.RawMessage `json:"body"`
	}
	err := json.Unmarshal(line, &fields)
	if isString(fields.CustomID) {
		r.customID = fields.CustomID
	}
	switch {
	case !utf8.Valid(line):
		r.customID = nil
		return fail(codeInvalidLine, "", "not UTF-8")
	case err != nil:
		return fail(codeInvalidLine, "", "not a JSON object with custom_id, method, url and body: %v", err)
	case !isGiven(fields.CustomID):
		return fail(codeMissing, "custom_id", "custom_id is missing")
	case r.customID == nil:
		return fail(codeInvalidRequest, "custom_id", "custom_id is not a string")
	case fields.Method == "":
		return fail(codeMissing, "method", "method is missing")
	case !strings.EqualFold(fields.Method, "POST"):
		return fail(codeInvalidMethod, "method", "method is %.20q; only POST can be in a batch", fields.Method)
	case fields.URL == "":
		return fail(codeMissing, "url", "url is missing")
	case !isGiven(fields.Body):
		return fail(codeMissing, "body", "body is missing")
	}
	var deployment string
	r.path, r.query, deployment = endpoint(fields.URL)
	if r.path == "" {
		return fail(codeInvalidURL, "url", "%.100q is not an endpoint for batches: must be /v1/ and one of %s, or a path of Azure for these", fields.URL, strings.Join(endpoints, ", "))
	}
	var body struct {
		Model      string `json:"model"`
		Stream     bool   `json:"stream"`
		Background bool   `json:"background"`
	}
	switch err := json.Unmarshal(fields.Body, &body); {
	case fields.Body[0] != '{':
		return fail(codeInvalidRequest, "body", "body is not an object")
	case err != nil:
		return fail(codeInvalidRequest, "body", "body: %v", err)
	case body.Stream:
		return fail(codeInvalidRequest, "body.stream", "a request of a batch cannot be a stream: remove stream")
	case body.Background:
		return fail(codeInvalidRequest, "body.background", "a request of a batch cannot run in the background of the service: remove background")
	}
	r.body = fields.Body
	if r.model = body.Model; deployment != "" {
		r.model = deployment
	}
	return r
}

// endpoint is the path to which the transport sends a request for a url of the input,
// the query, and the deployment in the path, if there is one. OpenAI's batches have
// /v1/chat/completions, Azure's /chat/completions or /v1/chat/completions. The whole
// paths of Azure's API are accepted, too. It is "" for any other url.
func endpoint(raw string) (path, query, deployment string) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil || u.Fragment != "" {
		return "", "", ""
	}
	rest := strings.TrimPrefix(strings.TrimSuffix(u.EscapedPath(), "/"), "/")
	rest = strings.TrimPrefix(rest, "openai/")
	if after, ok := strings.CutPrefix(rest, "deployments/"); ok {
		name, op, _ := strings.Cut(after, "/")
		if deployment, err = url.PathUnescape(name); err != nil || deployment == "" || hasDots(deployment) || !slices.Contains(endpoints, op) {
			return "", "", ""
		}
		return "/openai/deployments/" + name + "/" + op, u.RawQuery, deployment
	}
	if rest = strings.TrimPrefix(rest, "v1/"); !slices.Contains(endpoints, rest) {
		return "", "", ""
	}
	return "/v1/" + rest, "", ""
}

// hasDots reports whether the name of a deployment leads out of its place in the path.
func hasDots(name string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }),
		func(segment string) bool { return segment == "." || segment == ".." })
}

func isGiven(v json.RawMessage) bool { return len(v) > 0 && !bytes.Equal(v, []byte("null")) }

func isString(v json.RawMessage) bool { return len(v) > 0 && v[0] == '"' }
