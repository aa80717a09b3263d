package wire

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// cutEvent is how long the first whole event of a text is, 0 if there is none.
func cutEvent(text []byte) int {
	var c eventSplitter
	n, whole := c.next(text)
	if !whole {
		return 0
	}
	return n
}

// cutAll is the whole events of a text, and what is left.
func cutAll(text string) (events []string, rest string) {
	for {
		n := cutEvent([]byte(text))
		if n == 0 {
			return events, text
		}
		events, text = append(events, text[:n]), text[n:]
	}
}

func TestCutEvent(t *testing.T) {
	tests := map[string]struct {
		text   string
		events []string
		rest   string
	}{
		"nothing":           {"", nil, ""},
		"LF":                {"data: 1\n\ndata: 2\n\n", []string{"data: 1\n\n", "data: 2\n\n"}, ""},
		"CRLF":              {"data: 1\r\n\r\ndata: 2\r\n\r\n", []string{"data: 1\r\n\r\n", "data: 2\r\n\r\n"}, ""},
		"CR":                {"data: 1\r\rdata: 2\r\r", []string{"data: 1\r\r"}, "data: 2\r\r"},
		"mixed":             {"event: a\rdata: 1\r\n\ndata: 2\n\r\n", []string{"event: a\rdata: 1\r\n\n", "data: 2\n\r\n"}, ""},
		"several lines":     {": hi\nevent: e\ndata: 1\ndata: 2\n\n", []string{": hi\nevent: e\ndata: 1\ndata: 2\n\n"}, ""},
		"unfinished line":   {"data: 1", nil, "data: 1"},
		"unfinished event":  {"data: 1\n", nil, "data: 1\n"},
		"half a CRLF":       {"data: 1\r\n\r", nil, "data: 1\r\n\r"},
		"blank lines first": {"\n\r\ndata: 1\n\n", []string{"\n", "\r\n", "data: 1\n\n"}, ""},
		"no event":          {"\n", []string{"\n"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			events, rest := cutAll(test.text)
			require.Equal(t, test.events, events)
			require.Equal(t, test.rest, rest)
		})
	}
}

// However a stream is split into reads, its events are the same and no byte is lost.
func TestCutEventHoweverItArrives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom([]string{"", "", "data: {}", "data: [DONE]", ": comment", "event: error", "data:", "\xff", "\x00"})
		end := rapid.SampledFrom([]string{"\n", "\r\n", "\r"})
		var text strings.Builder
		for range rapid.IntRange(0, 20).Draw(t, "lines") {
			text.WriteString(line.Draw(t, "line") + end.Draw(t, "end"))
		}
		want, rest := cutAll(text.String())
		require.Equal(t, text.String(), strings.Join(want, "")+rest)

		var got []string
		held := ""
		for unread := text.String(); unread != ""; {
			n := rapid.IntRange(1, len(unread)).Draw(t, "read")
			var events []string
			events, held = cutAll(held + unread[:n])
			got, unread = append(got, events...), unread[n:]
		}
		require.Equal(t, want, got)
		require.Equal(t, rest, held)
	})
}

func TestReadEvent(t *testing.T) {
	tests := map[string]struct{ event, name, data string }{
		"data alone":      {"data: {}\n\n", "", "{}"},
		"no space":        {"data:{}\n\n", "", "{}"},
		"only one space":  {"data:  x\n\n", "", " x"},
		"a name":          {"event: error\ndata: {}\n\n", "error", "{}"},
		"name behind":     {"data: {}\r\nevent:error\r\n\r\n", "error", "{}"},
		"several lines":   {"data: 1\ndata: 2\rdata: 3\n\n", "", "1\n2\n3"},
		"comment":         {": data: 1\n\n", "", ""},
		"other fields":    {"id: 7\nretry: 10\ndatas: 1\ndata: 2\n\n", "", "2"},
		"no colon":        {"data\nevent\n\n", "", ""},
		"colon in value":  {"data: a:b\n\n", "", "a:b"},
		"no end":          {"data: {}", "", "{}"},
		"nothing but end": {"\n", "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			event := []byte(test.event)
			name, data := ParseEvent(event)
			require.Equal(t, []string{test.name, test.data}, []string{string(name), string(data)})
			require.Equal(t, test.event, string(event), "what was read is not changed")
		})
	}
}

func TestJudgeEvent(t *testing.T) {
	chunk := func(choice string) string { return `{"id":"1","choices":[` + choice + `]}` }
	tests := map[string]struct {
		name, data string
		want       EventKind
		problem    string
	}{
		// Comments, and what servers send to keep a connection.
		"nothing": {"", "", Preamble, ""},
		"spaces":  {"", "  ", Preamble, ""},

		"Azure's first":     {"", `{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}`, Preamble, ""},
		"the early filter":  {"", `{"choices":[],"prompt_annotations":[{"prompt_index":0}]}`, Preamble, ""},
		"choices null":      {"", `{"choices":null}`, Preamble, ""},
		"role":              {"", chunk(`{"index":0,"delta":{"role":"assistant"},"finish_reason":null}`), Preamble, ""},
		"role and nothing":  {"", chunk(`{"index":0,"delta":{"role":"assistant","content":"","refusal":null,"tool_calls":[]},"finish_reason":null}`), Preamble, ""},
		"role, null":        {"", chunk(`{"index":0,"delta":{"role":"assistant","content":null}}`), Preamble, ""},
		"role and content":  {"", chunk(`{"index":0,"delta":{"role":"assistant","content":"a"}}`), Content, ""},
		"content":           {"", chunk(`{"index":0,"delta":{"content":"a"},"finish_reason":null}`), Content, ""},
		"a space":           {"", chunk(`{"index":0,"delta":{"content":" "}}`), Content, ""},
		"the second choice": {"", chunk(`{"index":0,"delta":{}},{"index":1,"delta":{"content":"a"}}`), Content, ""},
		"tool calls":        {"", chunk(`{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}}`), Content, ""},
		"function call":     {"", chunk(`{"index":0,"delta":{"function_call":{"name":"f","arguments":""}}}`), Content, ""},
		"refusal":           {"", chunk(`{"index":0,"delta":{"refusal":"No"}}`), Content, ""},
		"reasoning":         {"", chunk(`{"index":0,"delta":{"reasoning_content":"Hm"}}`), Content, ""},
		"finish only":       {"", chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`), Content, ""},
		"filtered":          {"", chunk(`{"index":0,"delta":{},"finish_reason":"content_filter"}`), Content, ""},
		"filter offsets":    {"", chunk(`{"index":0,"finish_reason":null,"content_filter_results":{},"content_filter_offsets":{"check_offset":44}}`), Preamble, ""},
		"obfuscation":       {"", `{"choices":[{"index":0,"delta":{}}],"obfuscation":"abc"}`, Preamble, ""},
		"usage":             {"", `{"choices":[],"usage":{"prompt_tokens":1}}`, Preamble, ""},
		"completions":       {"", chunk(`{"text":"a","index":0,"finish_reason":null}`), Content, ""},
		"completions' none": {"", chunk(`{"text":"","index":0,"finish_reason":null}`), Preamble, ""},
		"completions' end":  {"", chunk(`{"text":"","index":0,"finish_reason":"stop"}`), Content, ""},
		"done":              {"", "[DONE]", End, ""},
		"done, spaced":      {"", " [DONE] ", End, ""},

		"response.created":     {"response.created", `{"type":"response.created","response":{"id":"resp_1","error":null}}`, Preamble, ""},
		"response.in_progress": {"response.in_progress", `{"type":"response.in_progress","response":{}}`, Preamble, ""},
		"response.queued":      {"response.queued", `{"type":"response.queued","response":{}}`, Preamble, ""},
		"output_item.added":    {"response.output_item.added", `{"type":"response.output_item.added","item":{}}`, Preamble, ""},
		"a delta":              {"response.output_text.delta", `{"type":"response.output_text.delta","delta":"a"}`, Content, ""},
		"response.completed":   {"response.completed", `{"type":"response.completed","response":{"error":null}}`, End, ""},
		"response.incomplete":  {"response.incomplete", `{"type":"response.incomplete","response":{}}`, End, ""},
		"one without a name":   {"", `{"type":"response.created"}`, Preamble, ""},
		"one yet unknown":      {"response.new", `{"type":"response.new"}`, Preamble, ""},

		"chat's error":        {"", `{"error":{"code":"429"}}`, Failure, `{"error":{"code":"429"}}`},
		"error, spaced":       {"", `{ "error" : {"code":"429"} }`, Failure, `{ "error" : {"code":"429"} }`},
		"an escaped key":      {"", `{"\u0065rror":{"code":"429"}}`, Failure, `{"\u0065rror":{"code":"429"}}`},
		"error as a text":     {"", `{"error":"overloaded"}`, Failure, `{"error":"overloaded"}`},
		"error null":          {"", `{"choices":[{"delta":{"content":"a"}}],"error":null}`, Content, ""},
		"error after choices": {"", `{"choices":[],"error":{"code":"500"}}`, Failure, `{"choices":[],"error":{"code":"500"}}`},
		"Responses' error":    {"error", `{"type":"error","error":{"type":"too_many_requests"},"sequence_number":1}`, Failure, `{"type":"error","error":{"type":"too_many_requests"},"sequence_number":1}`},
		"a flat one":          {"error", `{"type":"error","code":"rate_limit_exceeded","message":"m","param":null}`, Failure, `{"type":"error","code":"rate_limit_exceeded","message":"m","param":null}`},
		"flat, no name":       {"", `{"type":"error","code":"x"}`, Failure, `{"type":"error","code":"x"}`},
		"named alone":         {"error", `{"message":"m"}`, Failure, `{"message":"m"}`},
		"named, no JSON":      {"error", `overloaded`, Failure, `overloaded`},
		"response.failed":     {"response.failed", `{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"}}}`, Failure, `{"code":"server_error"}`},
		"error in the text":   {"", chunk(`{"delta":{"content":"{\"error\":{\"code\":\"429\"}}"}}`), Content, ""},
		"error deeper down":   {"", `{"choices":[{"delta":{"content":"a"},"content_filter_results":{"error":{"code":"content_filter_error"}}}]}`, Content, ""},

		// What is not understood is the caller's to see.
		"no JSON":         {"", "hello", Content, ""},
		"malformed":       {"", `{"choices":[{"delta":{"content":"a"`, Content, ""},
		"malformed later": {"", `{"choices":7`, Content, ""},
		"a number":        {"", "7", Preamble, ""},
		"strange choices": {"", `{"choices":"none"}`, Content, ""},
		"strange delta":   {"", chunk(`{"delta":"a"}`), Content, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, problem := ClassifyEvent([]byte(test.name), []byte(test.data))
			require.Equal(t, test.want, got)
			require.Equal(t, test.problem == "", problem == nil)
			require.Equal(t, ParseError([]byte(test.problem)), ParseError(problem), "whatever is around the error")
		})
	}
}

func TestStandsFor(t *testing.T) {
	for problem, want := range map[string]int{
		// Errors inside streams, as the services send them.
		`{"type":"too_many_requests","code":"rate_limit_exceeded","headers":{"x-ms-fe-error":"true"},"message":"…","param":null}`:          429,
		`{"type":"too_many_requests","code":"no_capacity"}`:                                                                                429,
		`{"type":"too_many_requests","code":"rate_limit_reached"}`:                                                                         429,
		`{"type":"tokens","code":"rate_limit_exceeded","message":"Please try again in 44ms."}`:                                             429,
		`{"type":"requests","code":"rate_limit_exceeded"}`:                                                                                 429,
		`{"type":"rate_limit_error","code":"slow_down"}`:                                                                                   429,
		`{"type":"rate_limit_error","code":null}`:                                                                                          429,
		`{"code":"RateLimitReached","message":"…"}`:                                                                                        429,
		`{"type":"insufficient_quota","code":"insufficient_quota"}`:                                                                        429,
		`{"code":"credit_balance_exhausted"}`:                                                                                              429,
		`{"code":"organization_spend_limit_exceeded"}`:                                                                                     429,
		`{"code":"billing_hard_limit_reached"}`:                                                                                            429,
		`{"type":"invalid_request_error","code":null,"message":"Could not find an existing deployment to match the model in the request"}`: 404,
		`{"code":"DeploymentNotFound"}`:                                                                                                    404,
		`{"type":"invalid_request_error","code":"model_not_found"}`:                                                                        404,
		`{"type":"server_error","code":null}`:                                                                                              500,
		`{"code":"server_error","message":"…"}`:                                                                                            500,
		`{"type":"service_unavailable_error","code":"server_is_overloaded"}`:                                                               503,
		`{"code":"Timeout","message":"The operation was timeout."}`:                                                                        408,
		`{"type":"invalid_request_error","code":"invalid_api_key"}`:                                                                        401,
		`{"code":"PermissionDenied"}`:                                                                                                      403,
		`{"code":"content_filter","param":"prompt","type":null,"status":400}`:                                                              400,
		`{"code":"context_length_exceeded","type":"invalid_request_error"}`:                                                                400,
		`{"code":"invalid_prompt"}`:                                                                                                        400,
		`{"type":"invalid_request_error","code":"unsupported_value"}`:                                                                      400,
		`{"type":"invalid_request_error","code":"previous_response_not_found"}`:                                                            400,
		`{"code":"invalid_encrypted_content"}`:                                                                                             400,
		// The other codes of response.failed (ResponseErrorCode of OpenAI's
		// specification) are all of what the caller sent.
		`{"code":"invalid_image_url"}`:              400,
		`{"code":"image_too_large"}`:                400,
		`{"code":"image_content_policy_violation"}`: 400,
		`{"code":"unsupported_image_media_type"}`:   400,
		`{"code":"vector_store_timeout"}`:           408,
		// A status is plain, wherever it stands.
		`{"code":"429"}`:                       429,
		`{"code":503}`:                         503,
		`{"status":502,"code":"429"}`:          502,
		`{"status":"529"}`:                     529,
		`{"status_code":504}`:                  504,
		`{"status":200,"code":"401"}`:          401,
		`{"status":"failed","code":"no_such"}`: 400,
		// What says nothing is the service's own trouble.
		`{}`: 500, `null`: 500, `"text"`: 500, `text`: 500, ``: 500, `{"code":{}}`: 500,
	} {
		got, _ := StreamErrorStatus(http.Header{}, []byte(problem))
		require.Equal(t, want, got, problem)
	}
}

func TestStandsForWithHeadersOfItsOwn(t *testing.T) {
	answer := http.Header{"Retry-After": {"9"}, "X-Other": {"kept"}}
	_, h := StreamErrorStatus(answer, []byte(`{"code":"429","headers":{"retry-after":"1","retry-after-ms":15}}`))
	require.Equal(t, http.Header{"Retry-After": {"1"}, "Retry-After-Ms": {"15"}, "X-Other": {"kept"}}, h)
	require.Equal(t, http.Header{"Retry-After": {"9"}, "X-Other": {"kept"}}, answer, "the answer's own stays as it is")

	// One that says nothing takes nothing away.
	for _, headers := range []string{`null`, `{}`, `[]`, `{"retry-after":null}`, `{"retry-after":["1"]}`} {
		_, h = StreamErrorStatus(answer, []byte(`{"code":"429","headers":`+headers+`}`))
		require.Equal(t, "9", h.Get("Retry-After"), headers)
	}
}

// naiveValues are those of a key in a whole text of JSON, without haste.
func naiveValues(text, key string, limit int64) (found []string) {
	for {
		i := strings.Index(text, key)
		if i < 0 {
			return found
		}
		text = text[i+len(key):]
		d := json.NewDecoder(strings.NewReader(text))
		var value json.RawMessage
		if d.Decode(&value) != nil || d.InputOffset() > limit {
			continue
		}
		found, text = append(found, string(value)), text[d.InputOffset():]
	}
}

// The values found do not depend on how the text arrives, and in JSON they are
// those that anybody would find.
func FuzzUsage(f *testing.F) {
	for _, text := range []string{
		`{"usage":{"prompt_tokens":1},"x":"\"usage\":{}"}`, `{"usage": null, "a":[{"usage":12}]}`, `{"usage":"a\\"}`,
		`{"usage":{"usage":{"a":"a value that is too long to be one"}}}`, "\"usage\":\"usage\":1,", `"usage":`, `{"usage":` + strings.Repeat(" ", 30) + "1}",
		`data: {"id":"c","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}` + "\n\n" + `data: {"id":"c","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}` + "\n\ndata: [DONE]\n\n",
		`{"usage":[}{,"usage":{}}`, `"u"us"usage"usage":3 `,
	} {
		f.Add(text, uint8(1))
		f.Add(text, uint8(9))
	}
	const key, limit = `"usage":`, 24
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		collect := func(size int) (found []string) {
			w := FieldScanner{Keys: []ScannedField{{key, limit}}}
			for piece := range slices.Chunk([]byte(text), max(size, 1)) {
				for _, value := range w.Values(piece) {
					found = append(found, string(value))
					_, _ = ParseUsage(value)
				}
				require.LessOrEqual(t, len(w.Rest), len(key)+limit, "it keeps no more than it needs")
			}
			return found
		}
		whole := collect(len(text))
		require.Equal(t, whole, collect(int(size)))
		if json.Valid([]byte(text)) {
			require.Equal(t, naiveValues(text, key, limit), whole)
		}
	})
}

// However values are nested that are looked for, each is looked at once.
func TestNestedUsageIsReadInLinearTime(t *testing.T) {
	for _, piece := range []string{`"usage":{`, `"usage":[`, `{"usage":{"x":"y",`} {
		text := []byte(strings.Repeat(piece, 512<<10/len(piece)))
		w := FieldScanner{Keys: []ScannedField{{`"usage":`, 24}}}
		began := time.Now()
		for range w.Values(text) {
			require.Fail(t, "there is no value")
		}
		require.Less(t, time.Since(began), 2*time.Second, piece)
	}
}
